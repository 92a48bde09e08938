//! `trunkline-lab`: the lab's program. People start it through `./integration/lab` and `./integration/demo`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use trunkline_integration::{LabError, guest, lab, program};

/// A Trunkline fleet on one machine.
#[derive(Debug, Parser)]
#[command(name = "lab", version, about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The root of a host (the lab starts this itself).
    #[command(hide = true)]
    Host { name: String, folder: PathBuf },
    /// Process 1 of a host (the lab starts this itself).
    #[command(hide = true)]
    HostInit { name: String, folder: PathBuf },
    /// Removes the lab's folder when the lab is gone (the lab starts this itself).
    #[command(hide = true)]
    Janitor { folder: PathBuf },
    /// Holds a lab (`up` starts this itself).
    #[command(hide = true)]
    Supervise {
        #[arg(long, default_value_t = 2)]
        workers: u8,
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        without_daemons: bool,
    },
    /// Carries frames between TAPs and a guest's namespace (the lab starts this itself).
    #[command(hide = true)]
    Pump { netns: String, wires: Vec<String> },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, LabError> {
    match command {
        Command::Host { name, folder } => lab::init::host(&name, &folder)?,
        Command::HostInit { name, folder } => lab::init::host_init(&name, &folder)?,
        Command::Pump { netns, wires } => guest::pump::run(&netns, &wires, || println!("ready"))?,
        Command::Supervise {
            workers,
            folder,
            without_daemons,
        } => {
            program::supervise::run(workers, folder, !without_daemons)?;
        }
        Command::Janitor { folder } => lab::janitor::run(&folder)?,
    }
    Ok(ExitCode::SUCCESS)
}
