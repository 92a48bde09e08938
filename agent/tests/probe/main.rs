//! Two workers in namespaces of their own, joined by a bridge that a test can break, prove their VLANs to each other. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod guests;
mod passes;
mod port;
mod site;
#[allow(dead_code, unreachable_pub)]
#[path = "../drivers/stand.rs"]
mod stand;
#[path = "../support/mod.rs"]
mod support;
#[path = "../drivers/tun.rs"]
mod tun;

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::unistd::gettid;
use site::{PATIENCE, Site};
use stand::{Ovs, alone, run};
use support::*;
use tokio_util::sync::CancellationToken;
use trunkline_agent::{node, probe::PORT, worker};
use trunkline_proto::{
    Mac,
    resource::{Envelope, Facts, Observation, State},
    wire::{ProbeFacts, node_message::Message as FromNode},
};

/// How long it took until a condition held.
fn until<E: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> Result<(), E>) -> Duration {
    let began = Instant::now();
    loop {
        match look() {
            Ok(()) => return began.elapsed(),
            Err(seen) if began.elapsed() > PATIENCE => panic!("{what}: {seen:?}"),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Two workers and the bridge between them.
fn stage(test: impl FnOnce(&Site, &Site)) {
    stage_that_looks(Duration::from_secs(1), test);
}

/// The same, whose agents look by themselves so often.
fn stage_that_looks(every: Duration, test: impl FnOnce(&Site, &Site)) {
    alone(async || {
        run("ip", &["link", "add", "between", "type", "bridge"]);
        run("ip", &["link", "set", "between", "up"]);
        run("nft", &["add", "table", "bridge", "fault"]);
        run(
            "nft",
            &[
                "add",
                "chain",
                "bridge",
                "fault",
                "forward",
                "{ type filter hook forward priority 0; }",
            ],
        );
        let (w1, w2) = (Site::start("w1", every), Site::start("w2", every));
        test(&w1, &w2);
    });
}

/// Everything that a worker with one guest on VLAN 110 has.
fn with_probe(guest: u32, peer: &str) -> Vec<Envelope> {
    vec![port(guest, 110), trunk(&[110]), flows(110), probe(110, &[peer])]
}

fn proven(test: impl FnOnce(&Site, &Site)) {
    proven_that_looks(Duration::from_secs(1), test);
}

fn proven_that_looks(every: Duration, test: impl FnOnce(&Site, &Site)) {
    stage_that_looks(every, |w1, w2| {
        w1.update(&with_probe(1001, "w2"));
        w2.update(&with_probe(1002, "w1"));
        w1.until_ready();
        w2.until_ready();
        test(w1, w2);
    });
}

/// Drops frames of VLAN 110, all or those that come in by one port of the bridge.
fn drop_vlan(from: Option<&str>) {
    let mut rule = vec!["add", "rule", "bridge", "fault", "forward"];
    rule.extend(from.into_iter().flat_map(|port| ["iifname", port]));
    rule.extend(["vlan", "id", "110", "drop"]);
    run("nft", &rule);
}

/// Both ports: what a bridge has taken the tag of it lets out with four bytes more.
fn mtu_between(mtu: &str) {
    for device in ["w1", "w2"] {
        run("ip", &["link", "set", device, "mtu", mtu]);
    }
}

fn heal() {
    run("nft", &["flush", "chain", "bridge", "fault", "forward"]);
}
