//! Faults: what those of the wire drop, and that every single one is named.
//!
//! `frames` looks at the faults between the hosts alone. The rest is one table: a fleet with two slices, in which one thing after
//! the other is broken by hand. Each row says what `trunkctl explain` has to name then, or what the journal has to say of it where
//! a node puts it right at once; afterwards it is healed, and every way through the fleet has to be right again before the
//! next row. `FAULTS=dnsmasq` runs the rows that have this in their names only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod asked;
mod deaths;
mod frames;
mod netnode;
mod scene;
mod table;
mod wire;
mod worker;

use table::prove;

#[test]
fn every_fault_of_the_wire_and_every_death_is_named() {
    prove(&[wire::rows(), deaths::rows(), asked::rows()].concat());
}

#[test]
fn every_fault_of_a_worker_is_named() {
    prove(&worker::rows());
}

#[test]
fn every_fault_of_the_network_node_is_named() {
    prove(&netnode::rows());
}
