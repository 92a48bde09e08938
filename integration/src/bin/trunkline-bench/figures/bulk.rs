//! Many links at once: how long until they are there, and until they are gone.

use trunkline_integration::LabError;

use crate::figure::{Bench, Figure, Goal, Row};
use crate::floor::script;
use crate::series::Series;
use crate::stage::Stage;

/// Many links.
pub(crate) const BULK: Figure = Figure {
    name: "bulk",
    what: "800 links without DHCP over two workers, 1600 TAPs and ports: from the deploy call until all is reported ready",
    floor: "the same TAPs by one loop, ports by one transaction and flows by one bundle per host, until cur_cfg",
    run: bulk,
};

/// Against scripts.
pub(crate) const SCRIPT: Figure = Figure {
    name: "bulk-script",
    what: "200 links, in links per second",
    floor: "ip tuntap, ip link and ovs-vsctl add-port once for each port, both workers at once",
    run: bulk_script,
};

/// The way back.
pub(crate) const REMOVE: Figure = Figure {
    name: "remove",
    what: "400 links undeployed: until every node has read back that they are gone",
    floor: "the same ports by one transaction, flows by one bundle and TAPs by one link group per host",
    run: remove,
};

const SLICE: &str = "bulk";
/// A link has a VLAN of its own, and the probe goes over each of them.
const MANY: u32 = 800;
const SCRIPTED: u32 = 200;
const REMOVED: u32 = 400;
const SHORT: u32 = 20;
const REPETITIONS: usize = 7;
/// Of what takes longer than 20 s.
const LONG: usize = 3;

const ADD_AT_MOST: f64 = 1.25;
const REMOVE_AT_MOST: f64 = 1.25;
const FASTER: f64 = 20.0;

/// What came of one round, in seconds: ours and the floor's.
struct Round {
    add: [f64; 2],
    remove: [f64; 2],
}

/// Ours, then the floor's, there and back. Ours goes first, because what it leaves is what the floor has to do.
fn round(bench: &Bench, stage: &mut Stage) -> Result<Round, LabError> {
    let mut watched = stage.watch(SLICE)?;
    let add = watched.deploy(false)?.ready;
    let more = stage.more()?;
    let remove = watched.undeploy()?;
    let add = [add, stage.floor.add(&more)?].map(|ms| ms / 1e3);
    let remove = [remove, stage.floor.remove(&more)?].map(|ms| ms / 1e3);
    bench.say(&format!(
        "  there {:.3} s (floor {:.3}), back {:.3} s (floor {:.3})",
        add[0], add[1], remove[0], remove[1]
    ));
    Ok(Round { add, remove })
}

/// Rounds with so many links, and one way of them.
fn rounds(bench: &Bench, name: &str, links: u32, most: f64, way: fn(&Round) -> [f64; 2]) -> Result<Vec<Row>, LabError> {
    let mut stage = Stage::start(1)?;
    stage.draft(SLICE, bench.size(links, SHORT))?;
    let (mut ours, mut floor) = (Series::default(), Series::default());
    for _ in 0..bench.size(REPETITIONS, 2) {
        let [of_ours, of_floor] = way(&round(bench, &mut stage)?);
        ours.push(of_ours);
        floor.push(of_floor);
    }
    Ok(vec![Row::of(name, "s", &ours, &floor, Goal::AtMostTimes(most))])
}

fn bulk(bench: &Bench) -> Result<Vec<Row>, LabError> {
    rounds(bench, BULK.name, MANY, ADD_AT_MOST, |round| round.add)
}

fn remove(bench: &Bench) -> Result<Vec<Row>, LabError> {
    rounds(bench, REMOVE.name, REMOVED, REMOVE_AT_MOST, |round| round.remove)
}

fn bulk_script(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let links = bench.size(SCRIPTED, SHORT);
    let mut stage = Stage::start(1)?;
    stage.draft(SLICE, links)?;
    let (mut ours, mut raw, mut script) = (Series::default(), Series::default(), Series::default());
    for _ in 0..bench.size(LONG, 2) {
        let mut watched = stage.watch(SLICE)?;
        let ready = watched.deploy(false)?.ready;
        let more = stage.more()?;
        watched.undeploy()?;
        drop(watched);
        let least = stage.floor.add(&more)?;
        stage.floor.remove(&more)?;
        let scripted = script::run(stage.floor.lab(), &more)?;
        script::undo(stage.floor.lab(), &more)?;
        ours.push(f64::from(links) / (ready / 1e3));
        raw.push(f64::from(links) / (least / 1e3));
        script.push(f64::from(links) / scripted);
        let (ready, least) = (ready / 1e3, least / 1e3);
        bench.say(&format!("  {ready:.3} s, raw {least:.3} s, scripts {scripted:.3} s"));
    }
    let goal = Goal::AtLeastTimes(FASTER);
    Ok(vec![
        Row::of("bulk-script", "links/s", &ours, &script, goal),
        // How fast any program could be here: the floor of the figure above.
        Row::of("bulk-script/raw", "links/s", &raw, &script, Goal::None),
    ])
}
