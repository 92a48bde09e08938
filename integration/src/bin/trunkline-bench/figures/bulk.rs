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

/// What came of one round, in seconds.
struct Round {
    add: f64,
    floor_add: f64,
    remove: f64,
    floor_remove: f64,
}

/// Ours, then the floor's, there and back. Ours goes first, because what it leaves is what the floor has to do.
fn round(bench: &Bench, stage: &mut Stage) -> Result<Round, LabError> {
    let mut watched = stage.watch(SLICE)?;
    let add = watched.deploy(false)?.ready;
    let more = stage.more()?;
    let remove = watched.undeploy()?;
    let floor_add = stage.floor.add(&more)?;
    let floor_remove = stage.floor.remove(&more)?;
    let [add, floor_add, remove, floor_remove] = [add, floor_add, remove, floor_remove].map(|ms| ms / 1e3);
    bench.say(&format!(
        "  there {add:.3} s (floor {floor_add:.3}), back {remove:.3} s (floor {floor_remove:.3})"
    ));
    Ok(Round {
        add,
        floor_add,
        remove,
        floor_remove,
    })
}

fn rounds(bench: &Bench, links: u32, repetitions: usize) -> Result<Vec<Round>, LabError> {
    let mut stage = Stage::start(1)?;
    stage.draft(SLICE, bench.size(links, SHORT))?;
    let count = bench.size(repetitions, 2);
    (0..count).map(|_| round(bench, &mut stage)).collect()
}

fn bulk(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let rounds = rounds(bench, MANY, REPETITIONS)?;
    let ours: Series = rounds.iter().map(|round| round.add).collect();
    let floor: Series = rounds.iter().map(|round| round.floor_add).collect();
    Ok(vec![Row::of(
        "bulk",
        "s",
        &ours,
        &floor,
        Goal::AtMostTimes(ADD_AT_MOST),
    )])
}

fn remove(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let rounds = rounds(bench, REMOVED, REPETITIONS)?;
    let ours: Series = rounds.iter().map(|round| round.remove).collect();
    let floor: Series = rounds.iter().map(|round| round.floor_remove).collect();
    Ok(vec![Row::of(
        "remove",
        "s",
        &ours,
        &floor,
        Goal::AtMostTimes(REMOVE_AT_MOST),
    )])
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
