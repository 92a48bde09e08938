//! One link more, on top of few and on top of many: what a change costs depends on the change.

use trunkline_integration::LabError;

use crate::figure::{Bench, Figure, Goal, Row};
use crate::floor::site::Sites;
use crate::series::{Series, interleave};
use crate::stage::{Stage, Watched};

/// Until its resources are ready.
pub(crate) const ONE: Figure = Figure {
    name: "one",
    what: "one link more, on top of 10 and of 800: from the deploy call until its resources are reported ready",
    floor: "the same TAPs by one loop, one transaction and one flow bundle per host",
    run: one,
};

/// Until it is proved.
pub(crate) const PROVEN: Figure = Figure {
    name: "proven",
    what: "the same until frames at full MTU have passed between all its nodes, both ways",
    floor: "until its resources are reported ready",
    run: proven,
};

const SLICE: &str = "one";
/// Links that are there already.
const UNDER: [u32; 2] = [10, 800];
const SHORT: [u32; 2] = [2, 10];
const REPETITIONS: usize = 300;
const TO_PROVE: usize = 50;
/// The figure has a tail, too: what 99 of 100 do not exceed.
const TAIL: usize = 99;

/// Milliseconds that it may take over the floor.
const MORE: f64 = 15.0;
const MORE_AT_THE_TAIL: f64 = 40.0;
const MORE_TO_PROVE: f64 = 50.0;

fn one(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let mut rows = Vec::new();
    for under in bench.size(UNDER, SHORT) {
        let (mut stage, more) = stage(under)?;
        let Stage { fleet, floor, .. } = &mut stage;
        let mut watched = Watched::of(fleet, SLICE)?;
        let ours = || again(&mut watched);
        let raw = || {
            let took = floor.add(&more)?;
            floor.remove(&more)?;
            Ok(took)
        };
        let (ours, floor) = interleave(bench.size(REPETITIONS, 4), ours, raw)?;
        let name = |what: &str| format!("one/{what}/{under}");
        rows.push(Row::of(name("p50"), "ms", &ours, &floor, Goal::AtMostMore(MORE)));
        let (tail, against) = (ours.percentile(TAIL), (&floor, floor.percentile(TAIL)));
        let goal = Goal::AtMostMore(MORE_AT_THE_TAIL);
        rows.push(Row::at(name("p99"), "ms", &ours, tail, Some(against), goal));
    }
    Ok(rows)
}

fn proven(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let mut rows = Vec::new();
    for under in bench.size(UNDER, SHORT) {
        let (stage, _) = stage(under)?;
        let (mut ready, mut proven) = (Series::default(), Series::default());
        for _ in 0..bench.size(TO_PROVE, 4) {
            let mut watched = stage.watch(SLICE)?;
            let took = watched.deploy(true)?;
            watched.undeploy()?;
            ready.push(took.ready);
            proven.push(took.proven);
        }
        let goal = Goal::AtMostMore(MORE_TO_PROVE);
        rows.push(Row::of(format!("proven/p50/{under}"), "ms", &proven, &ready, goal));
    }
    Ok(rows)
}

/// There and back.
fn again(watched: &mut Watched<'_>) -> Result<f64, LabError> {
    let took = watched.deploy(false)?;
    watched.undeploy()?;
    Ok(took.ready)
}

/// So many links are there, and one more was there once: what the floor has to do.
fn stage(under: u32) -> Result<(Stage, Sites), LabError> {
    let stage = Stage::start(under)?;
    stage.draft(SLICE, 1)?;
    let mut watched = stage.watch(SLICE)?;
    watched.deploy(true)?;
    let more = stage.more()?;
    watched.undeploy()?;
    drop(watched);
    Ok((stage, more))
}
