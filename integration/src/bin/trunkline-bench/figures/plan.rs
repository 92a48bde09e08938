//! The pure planners and the compiler: what they take at 1,000 and at 10,000 resources, and how that grows.
//!
//! The worlds are those of the crates' own benches (`cargo bench -p trunkline-agent`), so that both speak of the same thing.

use std::hint::black_box;
use std::time::{Duration, Instant};

use trunkline_integration::LabError;

use crate::figure::{Bench, Figure, Goal, Row};
use crate::series::interleave;

#[path = "../../../../../controller/benches/world/mod.rs"]
mod controller;
#[path = "../../../../../netnode/benches/world/mod.rs"]
mod netnode;
#[path = "../../../../../agent/benches/world/mod.rs"]
mod worker;

pub(crate) const FIGURE: Figure = Figure {
    name: "plan",
    what: "the pure planners and the compiler at 10,000 resources, when there is nothing to do",
    floor: "n log n from 1,000 resources, measured in the same run",
    run,
};

/// A measurement is repeated within for at least this long.
const ENOUGH: Duration = Duration::from_millis(20);
/// All of a worker's ports, when none has changed.
const PORTS: Goal = Goal::AtMost(5.0);

fn run(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let sizes = bench.size((1_000, 10_000), (100, 1_000));
    // There are 4,094 VLANs.
    let vlans = bench.size((400, 4_000), (40, 400));
    let (few, many) = (worker::World::new(sizes.0), worker::World::new(sizes.1));
    let mut rows = grow(bench, "ports", sizes, || few.plan_ports(), || many.plan_ports())?;
    let unchanged = rows
        .first()
        .map(|row| row.within(format!("plan/ports/{}/ms", sizes.1), PORTS));
    rows.extend(unchanged);
    rows.extend(grow(bench, "flows", sizes, || few.plan_flows(), || many.plan_flows())?);
    let (few, many) = (netnode::World::new(vlans.0), netnode::World::new(vlans.1));
    rows.extend(grow(
        bench,
        "gateways",
        vlans,
        || few.plan_gateways(),
        || many.plan_gateways(),
    )?);
    rows.extend(grow(bench, "dhcp", vlans, || few.plan_dhcp(), || many.plan_dhcp())?);
    rows.extend(grow(bench, "nat", vlans, || few.plan_nat(), || many.plan_nat())?);
    let (few, many) = (controller::World::new(sizes.0), controller::World::new(sizes.1));
    rows.extend(grow(bench, "compile", sizes, || few.compile(), || many.compile())?);
    rows.extend(grow(bench, "check", sizes, || few.check(), || many.check())?);
    rows.extend(grow(bench, "small-change", sizes, || few.small(), || many.small())?);
    rows.extend(grow(bench, "undeploy", sizes, || few.undeploy(), || many.undeploy())?);
    Ok(rows)
}

/// How long something takes at the larger size, beside what n log n makes of the smaller one.
fn grow<T>(
    bench: &Bench,
    name: &str,
    (few, many): (u32, u32),
    mut at_few: impl FnMut() -> T,
    mut at_many: impl FnMut() -> T,
) -> Result<Vec<Row>, LabError> {
    let work = |n: u32| f64::from(n) * f64::from(n).log2();
    let growth = work(many) / work(few);
    let (ours, floor) = interleave(
        bench.size(9, 3),
        || Ok(milliseconds(&mut at_many)),
        || Ok(milliseconds(&mut at_few) * growth),
    )?;
    let name = format!("plan/{name}/{many}");
    Ok(vec![Row::of(name, "ms", &ours, &floor, Goal::AtMostTimes(1.0))])
}

fn milliseconds<T>(work: &mut impl FnMut() -> T) -> f64 {
    let (begin, mut times) = (Instant::now(), 0_u32);
    while begin.elapsed() < ENOUGH {
        black_box(work());
        times += 1;
    }
    begin.elapsed().as_secs_f64() * 1e3 / f64::from(times)
}
