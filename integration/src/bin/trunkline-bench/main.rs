//! `trunkline-bench`: what Trunkline costs, each figure beside a floor that is measured in the same run. People start it
//! through `./integration/bench`.
//!
//! ```text
//!   figures (one file each) -> pairs of series, ours and the floor's, in turn -> rows -> table, JSON lines
//!        floor: the least work that any program would have to do for the same visible result
//! ```
//!
//! A figure that is missed is shown as missed. Nothing is kept from one run to the next.

mod controller;
mod discover;
mod figure;
mod figures;
mod fleet;
mod floor;
mod held;
mod machine;
mod node;
mod operator;
mod part;
mod plot;
mod process;
mod publish;
mod report;
mod series;
mod settle;
mod simulator;
mod stage;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use figure::{Bench, Figure, Row};
use publish::Publication;
use trunkline_integration::LabError;
use trunkline_integration::program::console::{say_line, tell};
use trunkline_integration::program::supervise::{end_on_signal, leave_it_to_the_signal};

/// What Trunkline costs, beside floors that are measured in the same run.
#[derive(Debug, Parser)]
#[command(name = "bench", version, about)]
struct Arguments {
    /// Which figures; all when none is named.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Write each row as a line of JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Put the results into this repository: BENCHMARKS.md and its pictures. Of all figures at full size only.
    #[arg(long, value_name = "REPOSITORY", conflicts_with_all = ["names", "short", "list"])]
    publish: Option<PathBuf>,
    /// Small sizes and few repetitions: shows that every figure can be measured, and says nothing about speed.
    #[arg(long)]
    short: bool,
    /// Print the names and what they are, and end.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    if let Some(ended) = part::run() {
        return ended;
    }
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            leave_it_to_the_signal();
            tell(&format!("error: {}", error.chain()));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), LabError> {
    if arguments.list {
        return say_line(&report::list(figures::ALL));
    }
    let chosen = choose(&arguments.names)?;
    let mut json = arguments
        .json
        .as_ref()
        .map(File::create)
        .transpose()
        .map_err(LabError::io("cannot write JSON"))?;
    let publication = arguments.publish.as_deref().map(Publication::new).transpose()?;
    end_on_signal()?;
    let bench = Bench::new(arguments.short);
    let (mut rows, mut failed): (Vec<Row>, Vec<&str>) = (Vec::new(), Vec::new());
    for figure in &chosen {
        bench.say(&format!("{}: {}", figure.name, figure.what));
        // What the others show is not lost with one that cannot be measured.
        let measured = (figure.run)(&bench).unwrap_or_else(|error| {
            bench.say(&format!("  {} could not be measured: {}", figure.name, error.chain()));
            failed.push(figure.name);
            Vec::new()
        });
        for row in measured {
            bench.say(&report::line(&row));
            if let Some(file) = &mut json {
                writeln!(file, "{}", report::json(&row)).map_err(LabError::io("cannot write JSON"))?;
            }
            rows.push(row);
        }
    }
    leave_it_to_the_signal();
    say_line(&report::table(&rows))?;
    if !failed.is_empty() {
        return Err(LabError::Other(format!("could not be measured: {}", failed.join(", "))));
    }
    publication.map_or(Ok(()), |publication| publication.write(&chosen, &rows))
}

/// The figures of these names in the order of the list; all when none is named.
fn choose(names: &[String]) -> Result<Vec<&'static Figure>, LabError> {
    let known = || {
        figures::ALL
            .iter()
            .map(|figure| figure.name)
            .collect::<Vec<_>>()
            .join(" ")
    };
    if let Some(unknown) = names
        .iter()
        .find(|name| figures::ALL.iter().all(|figure| figure.name != **name))
    {
        return Err(LabError::Other(format!(
            "there is no figure {unknown:?}; there are: {}",
            known()
        )));
    }
    let wanted = |figure: &&Figure| names.is_empty() || names.iter().any(|name| name == figure.name);
    Ok(figures::ALL.iter().filter(wanted).collect())
}
