//! The demo: a fleet, two slices, and the proof from inside the guests that everything is as it should be.
//!
//! ```text
//!   start the fleet -> nodes connect -> trunkctl apply --deploy --wait -> guests -> proof -> table or JSON
//! ```

mod fleet;
mod prove;
mod report;

use std::process::ExitCode;
use std::time::Instant;

pub use fleet::{Fleet, start_guests};
pub(crate) use prove::joined;
pub use prove::prove;
pub use report::{Row, json, shared_vlan, table};

use crate::LabError;
use crate::lab::{Lab, Options};
use crate::program::console::{say_line, tell};
use crate::program::supervise::{self, end_on_signal};

/// The slices that the demo applies.
pub const TOPOLOGY: &str = include_str!("../../examples/two-slices.yaml");

/// Guests that are real machines: one on each worker, one in each slice. The others are namespaces.
pub const MACHINES: [&str; 2] = ["blue/web", "green/right"];

/// Runs the demo until Ctrl-C, or with `once` until the proof is made. Says on standard error what it does.
pub fn run(once: bool, as_json: bool) -> Result<ExitCode, LabError> {
    end_on_signal()?;
    let clock = Instant::now();
    let say = |text: &str| tell(&format!("[{:5.1} s] {text}", clock.elapsed().as_secs_f64()));
    say("starting a controller, two workers, a network node and the internet, each a host of its own");
    let lab = Lab::start(&Options::default())?;
    let fleet = Fleet::connect(&lab)?;
    fleet.await_nodes()?;
    say("every node is connected; applying two slices");
    fleet.apply(TOPOLOGY, "two-slices.yaml")?;
    say("both slices are ready; starting guests on their TAPs, two of them real machines");
    let slices = fleet.api().slices()?;
    let guests = start_guests(&lab, &slices, &MACHINES)?;
    say("proving it from inside the guests");
    let rows = prove(&lab, &slices, &guests)?;
    // What was taken away from under the proof is no point that fails.
    supervise::leave_it_to_the_signal();
    say("done");
    let failed: Vec<&str> = rows.iter().filter(|row| !row.ok).map(|row| row.name.as_str()).collect();
    let note = shared_vlan(&slices);
    if as_json {
        say_line(&json(&rows, &note))?;
    } else {
        say_line(&format!("\n{}\n\n{note}\n", table(&rows)))?;
    }
    if failed.is_empty() {
        tell(&format!("All {} points hold.", rows.len()));
    } else {
        let (bad, all) = (failed.len(), rows.len());
        tell(&format!("{bad} of {all} points do not hold: {}", failed.join("; ")));
    }
    if !once {
        stay(&lab)?;
    }
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Says what can be tried, and stays until a signal ends the process.
fn stay(lab: &Lab) -> Result<(), LabError> {
    let trunkctl = crate::lab::programs::find("trunkctl")?;
    tell("\nThe fleet stays up until Ctrl-C. In another terminal:\n");
    tell(&format!("  export TRUNKLINE_CONTROLLER={}", lab.controller_endpoint()));
    tell(&format!(
        "  export TRUNKLINE_BUNDLE={}",
        lab.bundle("operator").display()
    ));
    for command in [
        "status",
        "slice show blue",
        "node list",
        "vm netdev blue/web",
        "events",
        "slice undeploy green --wait",
    ] {
        tell(&format!("  {} {command}", trunkctl.display()));
    }
    loop {
        std::thread::park();
    }
}
