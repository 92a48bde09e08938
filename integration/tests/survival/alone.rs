//! Nodes without their controller, and a fleet without one of its nodes.

use std::time::Instant;

use trunkline_integration::lab::layout::{CONTROLLER, INTERNET_ADDRESS, NETNODE};
use trunkline_integration::lab::{
    AGENT_PROGRAM, CONTROLLER_PROGRAM, Fault, Lab, NETNODE_PROGRAM, OVSDB, Options, PartedFrom, VSWITCHD,
};
use trunkline_integration::wait::until;
use trunkline_proto::wire::{Interface, SliceStatus, State};

use crate::dataplane::{DataPlane, await_in_step};
use crate::looks::{await_state, await_status, dhcp_servers, file, interface, on, try_on};
use crate::picture::{self, await_same};
use crate::support::{LIMIT, apply, await_ready, fleet, guests, must_trunkctl, scrape};
use crate::traffic::{EVERY_MS, Guests, TOPOLOGY, Traffic};

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
    let program = if node == NETNODE {
        NETNODE_PROGRAM
    } else {
        AGENT_PROGRAM
    };
    let log = lab.host(node).unwrap().folder().join(format!("log/{program}.log"));
    let says = "no session with the controller;";
    until(&format!("{node} to write that it is alone"), LIMIT, || {
        let text = std::fs::read_to_string(&log).unwrap();
        let end = text
            .rsplit("session with the controller node=")
            .next()
            .unwrap_or_default();
        if end.contains(says) {
            Ok(())
        } else {
            Err(end.to_owned())
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
    let traffic = Traffic::start(&guests, EVERY_MS);
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
        Traffic::start(&guests, EVERY_MS);
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

/// A controller that misses a node after three seconds.
fn attentive() -> Options {
    let mut options = Options::default();
    options.tuning.nodes.push("heartbeat = \"1s\"".to_owned());
    options
}

#[test]
fn a_node_that_is_parted_from_its_controller_goes_on_and_comes_back_by_itself() {
    let lab = fleet(&attentive());
    apply(&lab, TOPOLOGY);
    let guests = Guests::start(&lab);
    let traffic = Traffic::start(&guests, EVERY_MS);
    await_in_step(&lab);
    let network = DataPlane::of(&lab);
    let start = Instant::now();
    // Who is parted, from whom, whether only its own words are lost, and who then is alone.
    let all = lab.layout().nodes();
    let (w1, nn) = (vec!["w1".to_owned()], vec![NETNODE.to_owned()]);
    for (host, from, one_way, alone) in [
        ("w1", PartedFrom::Controller, false, w1),
        (NETNODE, PartedFrom::Controller, true, nn),
        (CONTROLLER, PartedFrom::All, true, all),
    ] {
        let parted = Instant::now();
        let fault = Fault::Partition {
            host: host.to_owned(),
            from,
            one_way,
        };
        let id = lab.fault(fault.clone()).unwrap();
        alone.iter().for_each(|node| await_alone(&lab, node));
        await_status(&lab, "shop", "to be unknown", |status| {
            let named = alone
                .iter()
                .any(|node| status.reason.contains(&format!("{node} is not connected")));
            status.state() == State::Unknown && named
        });
        let noticed = parted.elapsed().as_secs_f64();
        let healed = Instant::now();
        lab.heal(Some(id)).unwrap();
        await_in_step(&lab);
        let back = healed.elapsed().as_secs_f64();
        println!("{fault}: noticed after {noticed:.1} s, back {back:.1} s after it was healed");
        assert_eq!(DataPlane::of(&lab), network, "{fault}");
    }
    for (path, account) in traffic.since(start) {
        assert_eq!(account.lost, 0, "{path}: {account:?}");
    }
}

/// One slice without the dead worker, and one with a link of either kind.
const NEAR_AND_FAR: &str = "
slices:
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
    let lab = fleet(&attentive());
    apply(&lab, TOPOLOGY);
    // First it is silent, so that nobody hears of its end: no connection is closed.
    let silent = Fault::Partition {
        host: "w2".to_owned(),
        from: PartedFrom::All,
        one_way: false,
    };
    let silent = lab.fault(silent).unwrap();
    power_off(&lab, "w2", AGENT_PROGRAM);
    await_state(&lab, "shop", State::Unknown, &["w2 is not connected"]);

    must_trunkctl(&lab, &["apply", "-f", &file(&lab, NEAR_AND_FAR), "--deploy"]);
    await_ready(&lab, "near");
    let guests = guests(&lab, &["near"]);
    let to = guests["near/b"].await_lease("eth1", LIMIT).unwrap().address;
    guests["near/a"].await_lease("eth0", LIMIT).unwrap();
    assert!(guests["near/a"].ping(to).unwrap());
    assert!(guests["near/a"].http_get(INTERNET_ADDRESS).unwrap().is_some());
    let ready = |status: &SliceStatus, link: &str| {
        let found = status.links.iter().find(|each| each.name == link);
        found.is_some_and(|link| link.state() == State::Ready)
    };
    let far = await_status(&lab, "far", "to be half there", |status| ready(status, "here"));
    assert!(!ready(&far, "across"));
    let across = far.links.iter().find(|link| link.name == "across").unwrap();
    assert!(across.reason.contains("w2 is not connected"), "{}", across.reason);
    // The living end is there already: its tap waits for the other one.
    let tap = interface(&lab, "far/c.eth2");
    until("the living end of the link", LIMIT, || {
        let tag = try_on(
            &lab,
            "w1",
            &["ovs-vsctl", "--timeout=10", "get", "port", &tap.tap, "tag"],
        );
        if tag.stdout.trim() == tap.vlan.to_string() {
            Ok(())
        } else {
            Err(tag.stdout + &tag.stderr)
        }
    })
    .unwrap();

    lab.heal(Some(silent)).unwrap();
    power_on(&lab, "w2", AGENT_PROGRAM);
    await_in_step(&lab);
}
