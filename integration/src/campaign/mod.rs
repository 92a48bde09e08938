//! The campaign: random slices come, change and go on a fleet while whatever can go wrong does. After each round everything is healed,
//! and everything must be exactly as the slices say.
//!
//! ```text
//!   seed -> random: rounds of steps -> run: act (the API) and fault, drift (the hosts), side by side
//!                                       -> quiet: heal, wait for ready
//!                                       -> ledger and journal: nothing that was answered is lost, and all of it is told
//!                                       -> oracle against look and trace; strangers; guests
//!   a failure -> shrink: the fewest steps that still fail, each a line that can be replayed
//! ```

mod act;
mod drift;
mod edits;
mod fault;
mod guests;
mod journal;
mod ledger;
mod look;
mod lost;
mod oracle;
mod power;
mod random;
mod run;
mod shrink;
mod steps;
mod strangers;
mod trace;
mod wish;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::LabError;
use crate::program::console::{say_line, tell};
use crate::program::supervise::{self, end_on_signal};
use random::Dice;
pub use run::Figures;
use run::{Failure, run};
use steps::Step;

/// Whether nodes have ports for probe frames.
const PROBES: bool = true;

/// What to do.
#[derive(Debug, Clone)]
pub struct Orders {
    /// Everything follows from it.
    pub seed: u64,
    /// No round begins after so long.
    pub time: Duration,
    /// Workers of the fleet.
    pub workers: u8,
    /// No shrinking begins after so long; none at all when zero.
    pub shrink: Duration,
}

/// A seed for who gives none: small enough to be typed.
pub fn draw() -> u64 {
    fastrand::u64(1..1_000_000)
}

/// A time as it is given.
pub fn minutes(minutes: f64) -> Result<Duration, LabError> {
    Duration::try_from_secs_f64(minutes * 60.0)
        .map_err(|_| LabError::Other(format!("{minutes} is no number of minutes")))
}

/// Held, or what did not, with the steps that lead there.
pub type Outcome = Result<Figures, Box<Found>>;

/// Something that did not hold.
#[derive(Debug)]
pub struct Found {
    seed: u64,
    failure: Failure,
    /// The steps to it, as few as were found.
    steps: Vec<Step>,
}

/// Runs a campaign.
pub fn campaign(orders: &Orders, say: &(dyn Fn(&str) + Sync)) -> Result<Outcome, LabError> {
    let mut dice = Dice::new(orders.seed, orders.workers);
    let start = Instant::now();
    let mut made: Vec<Step> = Vec::new();
    let name = orders.seed.to_string();
    let outcome = {
        let mut draw = || {
            let round = dice.round();
            made.extend_from_slice(&round);
            shrink::rounds(&round)
        };
        let rounds = std::iter::from_fn(|| (start.elapsed() < orders.time).then(&mut draw));
        run(orders.workers, &mut rounds.flatten(), Some(&name), say)?
    };
    match outcome {
        Ok(figures) => Ok(Ok(figures)),
        Err(failure) => {
            // What was drawn and not done any more is not to blame.
            made.truncate(failure.step);
            found(orders, failure, made, say)
        }
    }
}

/// The program: a campaign, or the steps of a file, until the end or Ctrl-C.
pub fn program(orders: &Orders, replay: Option<&Path>) -> Result<ExitCode, LabError> {
    end_on_signal()?;
    let clock = Instant::now();
    let say = |line: &str| {
        let since = clock.elapsed().as_secs_f64();
        // The steps alone, so that the output is a file to replay.
        if line.starts_with('{') {
            let _ = say_line(line);
        } else {
            let _ = say_line(&format!(
                "# {since:.1} s {}",
                line.trim_start_matches("# ").replace('\n', "\n# ")
            ));
        }
    };
    let outcome = match replay {
        None => {
            tell(&format!("seed {}", orders.seed));
            campaign(orders, &say)?
        }
        Some(path) => again(orders, path, &say)?,
    };
    supervise::leave_it_to_the_signal();
    match outcome {
        Ok(figures) => {
            tell(&format!("It held: {}", words(&figures)));
            Ok(ExitCode::SUCCESS)
        }
        Err(found) => {
            tell(&found.to_string());
            Ok(ExitCode::FAILURE)
        }
    }
}

fn again(orders: &Orders, path: &Path, say: &(dyn Fn(&str) + Sync)) -> Result<Outcome, LabError> {
    let text = std::fs::read_to_string(path).map_err(LabError::io(format!("cannot read {}", path.display())))?;
    let steps = Step::parse_all(&text)?;
    let mut rounds = shrink::rounds(&steps).into_iter();
    match run(orders.workers, &mut rounds, Some("replay"), say)? {
        Ok(figures) => Ok(Ok(figures)),
        Err(failure) => found(orders, failure, steps, say),
    }
}

fn found(
    orders: &Orders,
    failure: Failure,
    steps: Vec<Step>,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Outcome, LabError> {
    say(&format!("# does not hold: {}", failure.why));
    let steps = shrink::shrink(orders, steps, say)?;
    let seed = orders.seed;
    Ok(Err(Box::new(Found { seed, failure, steps })))
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "It did not hold. Seed {}, step {}:\n{}",
            self.seed, self.failure.step, self.failure.why
        )?;
        writeln!(f, "Until then: {}", words(&self.failure.figures))?;
        if let Some(kept) = &self.failure.kept {
            writeln!(f, "The logs of every host are in {}", kept.display())?;
        }
        writeln!(f, "The steps, to be replayed with --replay FILE:")?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// The figures in one line.
pub fn words(figures: &Figures) -> String {
    let counted = |counts: &BTreeMap<String, usize>| {
        let kinds: Vec<String> = counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let sum: usize = counts.values().sum();
        (sum, kinds.join(", "))
    };
    let ((faults, kinds), (deaths, points)) = (counted(&figures.faults), counted(&figures.deaths));
    format!(
        "{} steps, {} quiet periods, {} changes made, {} refused, {faults} faults ({kinds}), {deaths} deaths at named points ({points}), \
         {} changes by hand told of and {} left out, {} held removals confirmed, {} events without a gap, {} questions of guests; \
         slowest: ready after {:.1} s, equal after {:.1} s",
        figures.steps,
        figures.quiet,
        figures.changes.0,
        figures.changes.1,
        figures.repaired.0,
        figures.repaired.1,
        figures.confirmed,
        figures.events,
        figures.questions,
        figures.slowest.0.as_secs_f64(),
        figures.slowest.1.as_secs_f64(),
    )
}
