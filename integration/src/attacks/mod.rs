//! The attack suite: guests whose root sends whatever it likes, and sniffers that say what passed.
//!
//! ```text
//!   table (rows as data) -> attempts (frames, each with its mark) -> sent from inside the guests
//!        sniffers on every TAP, uplink and port of the network node -> judge -> outcomes -> table or JSON
//! ```
//!
//! A row that must be dropped counts only when its frames were seen to enter the switch, and each has a twin that must
//! pass, tried before and after: a dead wire cannot look like a safe one.

pub mod attempts;
pub mod burst;
pub mod frame;
pub mod inject;
pub mod judge;
mod report;
mod run;
pub mod sniff;
pub mod table;
pub mod what;
pub mod world;

use std::process::ExitCode;
use std::time::Instant;

pub use burst::Burst;
pub use report::{Outcome, json, table as as_table};
pub use run::Attack;

use crate::LabError;
use crate::demo::{Fleet, start_guests};
use crate::lab::{Lab, Options};
use crate::program::console::{say_line, tell};
use crate::program::supervise::{self, end_on_signal};

/// Two slices with every kind of link over two workers.
pub const TOPOLOGY: &str = include_str!("../../examples/attacks.yaml");

/// Guests that are real machines: one on each worker, one in each slice.
pub const MACHINES: [&str; 2] = ["red/three", "blue/two"];

/// Runs the suite on a fleet of its own. Says on standard error what it does.
pub fn run(as_json: bool) -> Result<ExitCode, LabError> {
    end_on_signal()?;
    let clock = Instant::now();
    let say = |text: &str| tell(&format!("[{:5.1} s] {text}", clock.elapsed().as_secs_f64()));
    say("starting a controller, two workers, a network node and the internet, each a host of its own");
    let lab = Lab::start(&Options::default())?;
    let fleet = Fleet::connect(&lab)?;
    fleet.await_nodes()?;
    say("every node is connected; applying two slices with every kind of link");
    fleet.apply(TOPOLOGY, "attacks.yaml")?;
    say("both slices are ready; starting guests on their TAPs, two of them real machines");
    let slices = fleet.api().slices()?;
    let guests = start_guests(&lab, &slices, &MACHINES)?;
    let mut attack = Attack::prepare(&lab, &slices, &guests)?;
    say("attacking from inside the guests");
    let outcomes = attack.run()?;
    // What was taken away from under the attacks is no row that fails.
    supervise::leave_it_to_the_signal();
    say("done");
    if as_json {
        say_line(&json(&outcomes))?;
    } else {
        say_line(&format!("\n{}\n", as_table(&outcomes)))?;
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.ok).count();
    let tried: usize = outcomes.iter().map(|outcome| outcome.tried).sum();
    if failed == 0 {
        tell(&format!("All {} rows hold, {tried} attempts.", outcomes.len()));
        return Ok(ExitCode::SUCCESS);
    }
    tell(&format!("{failed} of {} rows do not hold.", outcomes.len()));
    Ok(ExitCode::FAILURE)
}
