//! `storm`: the controller is killed and started again, and every node comes back.
//!
//! ```text
//!   ours   controller killed -> nodes notice -> controller started .......... the last node is welcome
//!   floor                                       handshakes started, callers told to call .. the last handshake is done
//! ```
//!
//! Callers and nodes are processes on the same processors, with the same keys; nobody resumes. Both clocks begin with the start of the
//! serving process.

use std::rc::Rc;

use trunkline_integration::LabError;

use crate::controller::{Certificates, free_address};
use crate::figure::{Bench, Figure, Goal, Row};
use crate::fleet::{Fleet, certificates};
use crate::floor::bare::handshakes::{self, Callers, Order};
use crate::part::{Asked, Part};
use crate::process::cpu;
use crate::series::Series;
use crate::simulator::{Question, Reached, nanos};

pub(crate) const FIGURE: Figure = Figure {
    name: "storm",
    what: "the controller starts anew and 10,000 nodes come back: its CPU, the last node, what is sent again",
    floor: "raw rustls mutual handshakes with the same keys, callers included",
    run,
};

/// What one storm came to.
struct Storm {
    /// Of the server, in seconds.
    cpu: f64,
    /// From the server's start to the last one, in seconds.
    last: f64,
}

fn run(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let sizes: &[usize] = bench.size(&[10, 100, 1000, 10_000], &[40]);
    let largest = sizes.last().copied().unwrap_or_default();
    let certificates = certificates(largest)?;
    let mut rows = Vec::new();
    for nodes in sizes.iter().copied() {
        let goals = nodes == largest;
        rows.extend(size(
            &certificates,
            nodes,
            bench.size(if goals { 7 } else { 3 }, 1),
            goals,
        )?);
    }
    Ok(rows)
}

fn size(certificates: &Rc<Certificates>, nodes: usize, repetitions: usize, goals: bool) -> Result<Vec<Row>, LabError> {
    let mut fleet = Fleet::start(certificates, nodes)?;
    let (mut ours, mut floor) = (
        (Series::default(), Series::default()),
        (Series::default(), Series::default()),
    );
    let mut again = Series::default();
    for round in 0..repetitions {
        // Who goes first changes from round to round.
        for first in [true, false] {
            if first == (round % 2 == 0) {
                let storm = come_back(&mut fleet)?;
                push(&mut ours, &storm);
                again.push(fleet.controller.metric("trunkline_update_resources_total")?);
            } else {
                push(&mut floor, &fleet.without(|| handshakes(certificates, nodes))?);
            }
        }
    }
    let goal = |goal| if goals { goal } else { Goal::None };
    Ok(vec![
        Row::of(
            format!("storm/cpu/{nodes}"),
            "s",
            &ours.0,
            &floor.0,
            goal(Goal::AtMostTimes(1.4)),
        ),
        Row::of(
            format!("storm/last/{nodes}"),
            "s",
            &ours.1,
            &floor.1,
            goal(Goal::AtMostTimes(2.0)),
        ),
        Row::alone(
            format!("storm/sent-again/{nodes}"),
            "resources",
            &again,
            goal(Goal::AtMost(0.0)),
        ),
    ])
}

fn push(series: &mut (Series, Series), storm: &Storm) {
    series.0.push(storm.cpu);
    series.1.push(storm.last);
}

fn come_back(fleet: &mut Fleet) -> Result<Storm, LabError> {
    fleet.controller.kill();
    fleet.simulator.ask::<Reached>(&Question::Alone)?;
    let began = fleet.controller.exec()?;
    let nodes = fleet.nodes;
    let reached: Reached = fleet.simulator.ask(&Question::Connected(nodes))?;
    let cpu = cpu(fleet.controller.id())?;
    fleet.controller.await_ready()?;
    Ok(Storm {
        cpu,
        last: seconds(began, reached.at),
    })
}

fn handshakes(certificates: &Certificates, nodes: usize) -> Result<Storm, LabError> {
    let address = free_address()?;
    let bundles = certificates.path().to_owned();
    let mut callers = Asked::start(&Part::Callers(Callers {
        address,
        bundles,
        nodes,
    }))?;
    // They have read their certificates once they answer.
    callers.ask::<Reached>(&handshakes::Question::Done(0))?;
    let bundle = certificates.of_controller()?;
    let began = nanos();
    let mut server = Asked::start(&Part::Handshakes(Order { bundle, address }))?;
    callers.ask::<()>(&handshakes::Question::Call)?;
    let reached: Reached = server.ask(&handshakes::Question::Done(nodes))?;
    Ok(Storm {
        cpu: cpu(server.id())?,
        last: seconds(began, reached.at),
    })
}

fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}
