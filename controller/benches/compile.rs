//! The compiler and what stands around it: all of a cluster, and one change of it.
#![allow(missing_docs)]

mod world;

use criterion::{Criterion, criterion_group, criterion_main};
use world::World;

fn compile(criterion: &mut Criterion) {
    for ports in [1_000, 10_000] {
        let world = World::new(ports);
        criterion.bench_function(&format!("compile/{ports}"), |b| b.iter(|| world.compile()));
        criterion.bench_function(&format!("check/{ports}"), |b| b.iter(|| world.check()));
        criterion.bench_function(&format!("small change/{ports}"), |b| b.iter(|| world.small()));
        criterion.bench_function(&format!("undeploy one slice/{ports}"), |b| b.iter(|| world.undeploy()));
    }
}

criterion_group!(benches, compile);
criterion_main!(benches);
