//! `broadcast`: a change that touches every node, from the deploy call to the last receipt, against a bare loop that sends the same.
//!
//! The change sets another MTU on every link. Each side has the same simulated nodes. The bare server sends to each of its nodes what
//! the controller sent to one of the others: the same resources under the same digest, which it makes and encodes beforehand.

use std::rc::Rc;

use trunkline_integration::LabError;

use crate::controller::Certificates;
use crate::figure::{Bench, Figure, Goal, Row};
use crate::fleet::{Fleet, Simulator, certificates, racks};
use crate::floor::bare::streams::{self, Order};
use crate::part::{Asked, Part};
use crate::series::interleave;
use crate::simulator::{Holding, Question, nanos};

pub(crate) const FIGURE: Figure = Figure {
    name: "broadcast",
    what: "a change that touches all of 10,000 nodes, deploy call to the last receipt",
    floor: "a bare tonic loop that sends the same bytes to the same nodes",
    run,
};

fn run(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let sizes: &[usize] = bench.size(&[10, 100, 1000, 10_000], &[40]);
    let largest = sizes.last().copied().unwrap_or_default();
    let certificates = certificates(largest)?;
    let mut rows = Vec::new();
    for nodes in sizes.iter().copied() {
        let goal = if nodes == largest {
            Goal::AtMostTimes(2.0)
        } else {
            Goal::None
        };
        rows.push(size(&certificates, nodes, bench.size(7, 2), goal)?);
    }
    Ok(rows)
}

fn size(certificates: &Rc<Certificates>, nodes: usize, repetitions: usize, goal: Goal) -> Result<Row, LabError> {
    let mut fleet = Fleet::start(certificates, nodes)?;
    let [small, usual] = [1400, 1500].map(|mtu| racks(nodes, mtu));
    let first = held(&mut fleet)?;
    let mut next = [&small, &usual].into_iter().cycle();
    let mut change = |fleet: &mut Fleet| {
        let slices = next.next().cloned().unwrap_or_default();
        let began = nanos();
        let generation = fleet.deploy(slices)?;
        let at = fleet.simulator.received(generation, nodes)?;
        Ok::<_, LabError>(at.saturating_sub(began) as f64 / 1e6)
    };
    change(&mut fleet)?;
    let second = held(&mut fleet)?;
    let bundle = certificates.of_controller()?;
    let mut bare = Asked::start(&Part::Streams(Order { bundle }))?;
    let endpoint: String = bare.hear()?;
    bare.ask::<()>(&streams::Question::Load(first, second))?;
    let mut simulator = Simulator::start(certificates, &endpoint, nodes)?;
    simulator.received(1, nodes)?;
    let send = || {
        let sent: streams::Sent = bare.ask(&streams::Question::Send)?;
        let at = simulator.received(sent.generation, nodes)?;
        Ok(at.saturating_sub(sent.at) as f64 / 1e6)
    };
    let (ours, floor) = interleave(repetitions, || change(&mut fleet), send)?;
    Ok(Row::of(format!("broadcast/{nodes}"), "ms", &ours, &floor, goal))
}

fn held(fleet: &mut Fleet) -> Result<Vec<u8>, LabError> {
    let holding: Holding = fleet.simulator.ask(&Question::Holds(0))?;
    Ok(holding.update)
}
