//! `fleet`: a change that touches two nodes costs the same however many others there are.
//!
//! Two fleets, of ten nodes and of many, each with its own controller, take turns. Each node of either has a guest on a link. The
//! change sets another MTU on a link between two guests; it is made many times in a round, because one alone is lost in the noise of
//! the heartbeats. What the controller uses without any change, measured just before and just after, is taken off.

use std::time::{Duration, Instant};

use trunkline_integration::LabError;

use crate::figure::{Bench, Figure, Goal, Row};
use crate::fleet::{Fleet, certificates, slice};
use crate::process::cpu;
use crate::series::Series;
use crate::simulator::{Question, nanos};

pub(crate) const FIGURE: Figure = Figure {
    name: "fleet",
    what: "a change that touches 2 of 10,000 nodes: time to receipt, controller CPU, updates to the others",
    floor: "the same with 10 nodes",
    run,
};

/// The other side of the comparison.
const FEW: usize = 10;
/// After the last change: the export and the look at the whole have been made by then.
const SETTLED: Duration = Duration::from_secs(3);

/// What a round came to.
struct Round {
    /// Median time to receipt, in ms.
    receipt: f64,
    /// Of the controller for one change, beyond its idle baseline, in ms.
    cpu: f64,
    /// The baseline, in ms each second.
    idle: f64,
    /// Updates that went to others than the two nodes.
    others: f64,
}

#[derive(Default)]
struct Rounds {
    receipt: Series,
    cpu: Series,
    idle: Series,
    others: Series,
}

impl Rounds {
    fn push(&mut self, round: &Round) {
        self.receipt.push(round.receipt);
        self.cpu.push(round.cpu);
        self.idle.push(round.idle);
        self.others.push(round.others);
    }
}

fn run(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let sizes: &[usize] = bench.size(&[100, 1000, 10_000], &[40]);
    let largest = sizes.last().copied().unwrap_or(FEW);
    let certificates = certificates(largest)?;
    let mut few = Fleet::start(&certificates, FEW)?;
    let mut rows = Vec::new();
    for nodes in sizes.iter().copied() {
        let mut many = Fleet::start(&certificates, nodes)?;
        bench.say(&format!("{nodes} nodes are connected, and each has what it should"));
        let is_goal = nodes == largest;
        let repetitions = bench.size(if is_goal { 7 } else { 3 }, 1);
        let (mut of_many, mut of_few) = (Rounds::default(), Rounds::default());
        // Not measured: the link is made, and whatever is slow at first is over.
        for fleet in [&mut many, &mut few] {
            round(fleet, bench.size(10, 2), Duration::ZERO)?;
        }
        for _ in 0..repetitions {
            of_many.push(&round(&mut many, bench.size(300, 10), SETTLED)?);
            of_few.push(&round(&mut few, bench.size(300, 10), SETTLED)?);
        }
        let goal = |goal| if is_goal { goal } else { Goal::None };
        let row = |what: &str, unit, ours: &Series, floor: &Series, goal| {
            Row::of(format!("fleet/{what}/{nodes}"), unit, ours, floor, goal)
        };
        rows.push(row(
            "receipt",
            "ms",
            &of_many.receipt,
            &of_few.receipt,
            goal(Goal::AtMostTimes(1.5)),
        ));
        rows.push(row(
            "cpu",
            "ms",
            &of_many.cpu,
            &of_few.cpu,
            goal(Goal::AtMostTimes(1.2)),
        ));
        rows.push(row("idle-cpu", "ms/s", &of_many.idle, &of_few.idle, Goal::None));
        let name = format!("fleet/others/{nodes}");
        rows.push(Row::alone(name, "updates", &of_many.others, goal(Goal::AtMost(0.0))));
    }
    Ok(rows)
}

fn round(fleet: &mut Fleet, changes: u32, settled: Duration) -> Result<Round, LabError> {
    let before = idle(fleet, settled)?;
    let (start, began) = (cpu(fleet.controller.id())?, Instant::now());
    let taken: u64 = fleet.simulator.ask(&Question::Updates)?;
    let mut times = Series::default();
    for change in 0..changes {
        let mtu = if change % 2 == 0 { 1400 } else { 1500 };
        let sent = nanos();
        let generation = fleet.deploy(vec![slice("pair".to_owned(), &[0, 1], mtu)])?;
        let at = fleet.simulator.received(generation, 2)?;
        times.push(at.saturating_sub(sent) as f64 / 1e6);
    }
    std::thread::sleep(settled);
    let used = cpu(fleet.controller.id())? - start;
    let lasted = began.elapsed().as_secs_f64();
    let idle = f64::midpoint(before, idle(fleet, settled)?);
    let updates = fleet.simulator.ask::<u64>(&Question::Updates)? - taken;
    Ok(Round {
        receipt: times.median(),
        cpu: (used - idle * lasted) * 1e3 / f64::from(changes),
        idle: idle * 1e3,
        others: updates as f64 - 2.0 * f64::from(changes),
    })
}

/// Seconds of processor time in each second, while nothing is changed.
fn idle(fleet: &Fleet, during: Duration) -> Result<f64, LabError> {
    let (start, began) = (cpu(fleet.controller.id())?, Instant::now());
    std::thread::sleep(during);
    let lasted = began.elapsed().as_secs_f64().max(1e-9);
    Ok((cpu(fleet.controller.id())? - start) / lasted)
}
