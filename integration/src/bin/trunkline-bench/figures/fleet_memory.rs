//! `fleet-memory`: what a connected node costs the controller in memory, against a server of bare streams.
//!
//! The same simulated nodes are connected to either; nothing is deployed. Both processes are new in each repetition.

use std::time::Duration;

use trunkline_integration::LabError;

use crate::controller::{Certificates, Controller};
use crate::figure::{Bench, Figure, Goal, Row};
use crate::fleet::{Simulator, certificates};
use crate::floor::bare::streams::Order;
use crate::part::{Asked, Part};
use crate::process::resident;
use crate::series::interleave;

pub(crate) const FIGURE: Figure = Figure {
    name: "fleet-memory",
    what: "resident bytes of the controller for each connected node",
    floor: "a bare tonic and rustls bidirectional handler that does nothing",
    run,
};

/// What was needed only while connections were made is given back by then.
const SETTLED: Duration = Duration::from_secs(6);

fn run(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let sizes: &[usize] = bench.size(&[100, 1000, 10_000], &[40]);
    let largest = sizes.last().copied().unwrap_or_default();
    let certificates = certificates(largest)?;
    let mut rows = Vec::new();
    for nodes in sizes.iter().copied() {
        let repetitions = bench.size(3, 1);
        let (ours, floor) = interleave(
            repetitions,
            || {
                let mut controller = Controller::new(&certificates, "")?;
                controller.start()?;
                each(&certificates, controller.id(), &controller.endpoint(), nodes)
            },
            || {
                let bundle = certificates.of_controller()?;
                let mut bare = Asked::start(&Part::Streams(Order { bundle }))?;
                let endpoint: String = bare.hear()?;
                each(&certificates, bare.id(), &endpoint, nodes)
            },
        )?;
        let goal = if nodes == largest {
            Goal::AtMostTimes(1.3)
        } else {
            Goal::None
        };
        rows.push(Row::of(format!("fleet-memory/{nodes}"), "bytes", &ours, &floor, goal));
    }
    Ok(rows)
}

fn each(certificates: &Certificates, server: u32, endpoint: &str, nodes: usize) -> Result<f64, LabError> {
    let before = resident(server)?;
    let simulator = Simulator::start(certificates, endpoint, nodes)?;
    std::thread::sleep(SETTLED);
    let after = resident(server)?;
    drop(simulator);
    Ok((after - before) / nodes as f64)
}
