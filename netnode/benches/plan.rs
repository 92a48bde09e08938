//! The network node's pure planners, when there is nothing to do. There are 4,094 VLANs, so no more than that of anything.
#![allow(missing_docs)]

mod world;

use criterion::{Criterion, criterion_group, criterion_main};
use world::World;

fn plan(criterion: &mut Criterion) {
    for links in [400, 4_000] {
        let world = World::new(links);
        assert!(world.plan_gateways() && world.plan_dhcp() && world.plan_nat());
        criterion.bench_function(&format!("gateways/{links}"), |b| b.iter(|| world.plan_gateways()));
        criterion.bench_function(&format!("dhcp/{links}"), |b| b.iter(|| world.plan_dhcp()));
        criterion.bench_function(&format!("nat/{links}"), |b| b.iter(|| world.plan_nat()));
    }
}

criterion_group!(benches, plan);
criterion_main!(benches);
