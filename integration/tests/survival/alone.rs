//! Nodes without their controller, and a fleet without one of its nodes.

use std::time::Instant;

use trunkline_integration::lab::layout::{CONTROLLER, NETNODE};
use trunkline_integration::lab::{
    AGENT_PROGRAM, CONTROLLER_PROGRAM, Fault, Lab, NETNODE_PROGRAM, OVSDB, Options, PartedFrom, Tuning, VSWITCHD,
};
use trunkline_integration::wait::until;
use trunkline_proto::wire::{Interface, State};

use crate::dataplane::await_in_step;
use crate::looks::{await_state, await_status, dhcp_servers, file, on, try_on};
use crate::picture::{self, await_same};
use crate::support::{LIMIT, apply, await_ready, fleet, must_trunkctl, scrape};
use crate::traffic::{Guests, TOPOLOGY, Traffic};

fn metric(lab: &Lab, host: &str, name: &str) -> f64 {
    let text = scrape(lab, host);
    let line = text
        .lines()
        .find(|line| line.starts_with(name) && !line.starts_with('#'));
    line.map_or(0.0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

fn await_alone(lab: &Lab, node: &str) {
    until(&format!("{node} to say that it is alone"), LIMIT, || {
        match metric(lab, node, "trunkline_node_session_connected") {
            0.0 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .unwrap();
}

/// Power off: every process ends at once, and what the kernel held is gone.
fn power_off(lab: &Lab, node: &str, program: &str) {
    for program in [program, VSWITCHD, OVSDB] {
        lab.kill_daemon(node, program).unwrap();
    }
    if node == NETNODE {
        for pid in dhcp_servers(lab).values() {
            on(lab, node, &["kill", "-KILL", pid]);
        }
        on(lab, node, &["nft", "flush", "ruleset"]);
        on(lab, node, &["conntrack", "-F"]);
        on(lab, node, &["sysctl", "-qw", "net.ipv4.ip_forward=0"]);
        for line in on(lab, node, &["ip", "netns", "list"]).lines() {
            on(
                lab,
                node,
                &["ip", "netns", "delete", line.split_whitespace().next().unwrap()],
            );
        }
    }
    for name in devices(lab, node) {
        // Some go with another one.
        try_on(lab, node, &["ip", "link", "delete", &name]);
    }
    until(
        &format!("nothing to be left in {node}'s kernel"),
        LIMIT,
        || match devices(lab, node) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        },
    )
    .unwrap();
}

/// Network devices that a reboot takes away: all but the cables.
fn devices(lab: &Lab, node: &str) -> Vec<String> {
    let text = on(lab, node, &["ip", "-o", "link"]);
    let name = |line: &str| line.split(": ").nth(1)?.split('@').next().map(str::to_owned);
    let cables = ["lo", "mgmt0", "trunk0", "ens3"];
    text.lines()
        .filter_map(name)
        .filter(|name| !cables.contains(&name.as_str()))
        .collect()
}

fn power_on(lab: &Lab, node: &str, program: &str) {
    for program in [OVSDB, VSWITCHD, program] {
        lab.start_daemon(node, program).unwrap();
    }
}

/// What somebody breaks by hand while nobody is told.
fn drift(lab: &Lab, nic: &Interface) {
    let (vsctl, ofctl) = (
        ["ovs-vsctl", "--timeout=10"],
        ["ovs-ofctl", "--timeout=10", "-O", "OpenFlow15"],
    );
    on(
        lab,
        "w1",
        &[&vsctl[..], &["set", "port", "trunk0", "trunks=4095"]].concat(),
    );
    on(lab, "w2", &[&ofctl[..], &["del-flows", "br-int"]].concat());
    let (address, device) = (format!("{}/24", nic.gateway), format!("gw_vlan{}", nic.vlan));
    on(lab, NETNODE, &["ip", "address", "delete", &address, "dev", &device]);
    on(lab, NETNODE, &["nft", "delete", "table", "inet", "trunkline"]);
    on(lab, NETNODE, &["kill", "-KILL", &dhcp_servers(lab)[&nic.vlan]]);
}

#[test]
fn nodes_that_are_alone_repair_drift_and_survive_a_reboot() {
    let lab = fleet(&Options::default());
    apply(&lab, TOPOLOGY);
    let mut guests = Guests::start(&lab);
    let traffic = Traffic::start(&guests);
    await_in_step(&lab);
    let (before, had) = (picture::of_all(&lab), (guests.leases(), guests.holders(&lab)));

    lab.kill_daemon(CONTROLLER, CONTROLLER_PROGRAM).unwrap();
    lab.layout().nodes().iter().for_each(|node| await_alone(&lab, node));
    drift(&lab, guests.nic("shop/db.eth1"));
    await_same(&lab, &before, "drift");
    traffic.await_all();
    drop(traffic);

    for (node, program, guest) in [
        ("w1", AGENT_PROGRAM, Some("shop/web")),
        (NETNODE, NETNODE_PROGRAM, None),
    ] {
        let guest = guest.map(|name| guests.end(name));
        power_off(&lab, node, program);
        power_on(&lab, node, program);
        let start = Instant::now();
        await_same(&lab, &before, &format!("a reboot of {node}"));
        println!(
            "{node} looks as before {:.1} s after it started",
            start.elapsed().as_secs_f64()
        );
        if let Some(spec) = guest {
            guests.start_again(&lab, spec);
        }
        // The addresses that they had, also for a client that has forgotten its own.
        assert_eq!(guests.discover("shop/web.eth0"), guests.nic("shop/web.eth0").address);
        assert_eq!((guests.leases(), guests.holders(&lab)), had);
        Traffic::start(&guests);
    }

    lab.start_daemon(CONTROLLER, CONTROLLER_PROGRAM).unwrap();
    await_in_step(&lab);
    assert_eq!(
        metric(&lab, CONTROLLER, "trunkline_updates_total"),
        0.0,
        "nobody had to be told anything"
    );
    await_same(&lab, &before, "the controller's return");
}

const NEAR_AND_FAR: &str = "
slices:
  - name: shop
    vms:
      - { name: web, worker: w1, internet_enabled: true, data_interfaces_count: 2 }
      - { name: db, worker: w2, internet_enabled: true, data_interfaces_count: 2 }
    links:
      - { name: plain, ends: [web.eth1, db.eth1] }
  - name: near
    vms:
      - { name: a, worker: w1, internet_enabled: true, data_interfaces_count: 1 }
      - { name: b, worker: w1, data_interfaces_count: 1 }
    links:
      - { name: wire, ends: [a.eth1, b.eth1] }
  - name: far
    vms:
      - { name: c, worker: w1, data_interfaces_count: 2 }
      - { name: d, worker: w2, data_interfaces_count: 1 }
      - { name: e, worker: w1, data_interfaces_count: 1 }
    links:
      - { name: here, ends: [c.eth1, e.eth1] }
      - { name: across, ends: [c.eth2, d.eth1] }
";

#[test]
fn a_node_that_is_down_blocks_nobody_and_is_named() {
    let lab = fleet(&Options {
        tuning: Tuning {
            nodes: vec!["heartbeat = \"1s\"".to_owned()],
            ..Tuning::default()
        },
        ..Options::default()
    });
    apply(&lab, TOPOLOGY);
    // Nobody hears of its end: no connection is closed.
    let dead = Fault::Partition {
        host: "w2".to_owned(),
        from: PartedFrom::All,
        one_way: false,
    };
    let dead = lab.fault(dead).unwrap();
    lab.kill_daemon("w2", AGENT_PROGRAM).unwrap();
    let seen = await_state(&lab, "shop", State::Unknown, &["w2"]);
    println!("shop: {}", seen.reason);

    must_trunkctl(&lab, &["apply", "-f", &file(&lab, NEAR_AND_FAR), "--deploy", "--yes"]);
    await_ready(&lab, "near");
    let seen = await_status(&lab, "far", "to be half there", |status| {
        status
            .links
            .iter()
            .any(|link| link.name == "here" && link.state() == State::Ready)
    });
    println!("far: {}", seen.reason);
    for link in &seen.links {
        println!("far {}: {:?} {}", link.name, link.state(), link.reason);
    }
    lab.heal(Some(dead)).unwrap();
    lab.start_daemon("w2", AGENT_PROGRAM).unwrap();
    await_in_step(&lab);
}
