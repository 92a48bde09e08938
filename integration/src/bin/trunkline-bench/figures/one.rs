//! One link more, on top of few and on top of many: what a change costs depends on the change.

use trunkline_integration::LabError;

use crate::figure::{Bench, Figure, Goal, Row};
use crate::floor::site::Sites;
use crate::series::{Series, interleave};
use crate::stage::{Stage, Watched};

/// Its entry in the list.
pub(crate) const ONE: Figure = Figure {
    name: "one",
    what: "one link more, on top of 10 and of 800: from the deploy call until its resources are reported ready",
    floor: "the same pair of TAPs, one transaction and one flow bundle per host",
    run: one,
};

/// Its entry in the list.
pub(crate) const PROVEN: Figure = Figure {
    name: "proven",
    what: "the same until frames at full MTU have passed between all nodes, both ways",
    floor: "until its resources are reported ready",
    run: proven,
};

/// Links that are there already.
const UNDER: [u32; 2] = [10, 800];
const SHORT: [u32; 2] = [2, 10];
const REPETITIONS: usize = 300;
/// The figure has a tail, too: 99 of 100.
const TAIL: usize = 99;

/// Milliseconds that it may cost over the floor.
const MORE: f64 = 15.0;
const MORE_AT_THE_TAIL: f64 = 40.0;
const MORE_TO_PROVE: f64 = 50.0;

fn one(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let mut rows = Vec::new();
    for under in bench.size(UNDER, SHORT) {
        let mut stage = Stage::start(under)?;
        stage.draft("one", 1)?;
        let more = first(&stage)?;
        let Stage { floor, .. } = &mut stage;
        let (ours, floor) = {
            let mut floor_side = || {
                let took = floor.add(&more)?;
                floor.remove(&more)?;
                Ok(took)
            };
            let mut watched = Watched::of(&stage, "one")?;
            interleave(bench.size(REPETITIONS, 3), || again(&mut watched), &mut floor_side)?
        };
        rows.push(Row::of(format!("one/p50/{under}"), "ms", &ours, &floor, Goal::AtMostMore(MORE)));
        let (tail, floor_tail) = (ours.percentile(TAIL), floor.percentile(TAIL));
        let against = Some((&floor, floor_tail));
        rows.push(Row::at(format!("one/p99/{under}"), "ms", &ours, tail, against, Goal::AtMostMore(MORE_AT_THE_TAIL)));
    }
    Ok(rows)
}
