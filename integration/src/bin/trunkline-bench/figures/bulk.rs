//! Many links at once: from the deploy call until every resource of them is reported ready.

use trunkline_integration::LabError;

use crate::figure::{Bench, Figure, Goal, Row};
use crate::series::Series;
use crate::stage::Stage;

/// Its entry in the list.
pub(crate) const FIGURE: Figure = Figure {
    name: "bulk",
    what: "800 links without DHCP over two workers: 1600 TAPs and ports, from the deploy call until all is reported ready",
    floor: "the same TAPs by one loop, ports by one transaction and flows by one bundle per host, until cur_cfg",
    run,
};

const LINKS: u32 = 800;
const SHORT: u32 = 20;
const REPETITIONS: usize = 7;

fn run(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let mut stage = Stage::start(1)?;
    let links: u32 = std::env::var("LINKS").ok().and_then(|v| v.parse().ok()).unwrap_or(bench.size(LINKS, SHORT));
    stage.draft("bulk", links)?;
    let (mut ours, mut floor) = (Series::default(), Series::default());
    for round in 0..bench.size(REPETITIONS, 2) {
        let (ready, more) = {
            let mut bulk = stage.watch("bulk")?;
            let ready = bulk.deploy(false)?.ready;
            let more = stage.more()?;
            bulk.undeploy()?;
            (ready, more)
        };
        ours.push(ready / 1e3);
        let raw = stage.floor.add(&more)?;
        floor.push(raw / 1e3);
        stage.floor.remove(&more)?;
        bench.say(&format!("  round {}: {:.3} s, floor {:.3} s", round + 1, ready / 1e3, raw / 1e3));
    }
    Ok(vec![Row::of("bulk", "s", &ours, &floor, Goal::AtMostTimes(1.25))])
}
