//! The worker's pure planners, when there is nothing to do.
#![allow(missing_docs)]

mod world;

use criterion::{Criterion, criterion_group, criterion_main};
use world::World;

fn plan(criterion: &mut Criterion) {
    for count in [1_000, 10_000] {
        let world = World::new(count);
        assert!(world.plan_ports() && world.plan_flows());
        criterion.bench_function(&format!("ports/{count}"), |b| b.iter(|| world.plan_ports()));
        criterion.bench_function(&format!("flows/{count}"), |b| b.iter(|| world.plan_flows()));
    }
}

criterion_group!(benches, plan);
criterion_main!(benches);
