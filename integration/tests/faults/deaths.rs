//! Parts that die, hang, or are given up.

use nix::sys::signal::Signal;
use trunkline_integration::lab::layout::{CONTROLLER, NETNODE};
use trunkline_integration::lab::{AGENT_PROGRAM, CONTROLLER_PROGRAM, NETNODE_PROGRAM, OVSDB, VSWITCHD};
use trunkline_integration::wait::until;

use crate::scene::{GUESTS, INTERNET, Scene, daemon_of};
use crate::support::LIMIT;
use crate::table::{Heal, Row};

fn dies(scene: &Scene, host: &'static str, program: &'static str) -> Heal {
    scene.lab.kill_daemon(host, program).unwrap();
    Box::new(move |scene| scene.lab.start_daemon(host, program).unwrap())
}

fn hangs(scene: &Scene, host: &'static str, program: &'static str) -> Heal {
    scene.signal(host, program, Signal::SIGSTOP);
    Box::new(move |scene| scene.signal(host, program, Signal::SIGCONT))
}

/// Nothing of the node moves any more, and an operator says so.
fn declared_gone(scene: &mut Scene) -> Heal {
    for program in [AGENT_PROGRAM, VSWITCHD] {
        scene.lab.kill_daemon("w2", program).unwrap();
    }
    until("w2 to be declared gone", LIMIT, || {
        let output = scene.trunkctl(&["node", "gone", "w2", "--yes"]);
        if output.ok() { Ok(()) } else { Err(output.stderr) }
    })
    .unwrap();
    Box::new(|scene| {
        for program in [VSWITCHD, AGENT_PROGRAM] {
            scene.lab.start_daemon("w2", program).unwrap();
        }
    })
}

/// Switch and daemon at once, as when the power goes.
fn goes_down(scene: &Scene, host: &'static str) -> Heal {
    for program in [daemon_of(host), VSWITCHD, OVSDB] {
        scene.lab.kill_daemon(host, program).unwrap();
    }
    Box::new(move |scene| {
        for program in [OVSDB, VSWITCHD, daemon_of(host)] {
            scene.lab.start_daemon(host, program).unwrap();
        }
    })
}

/// The controller has heard of it, but never from it.
fn restarted_without(scene: &Scene, host: &'static str) -> Heal {
    scene.lab.kill_daemon(host, daemon_of(host)).unwrap();
    scene.lab.kill_daemon(CONTROLLER, CONTROLLER_PROGRAM).unwrap();
    scene.lab.start_daemon(CONTROLLER, CONTROLLER_PROGRAM).unwrap();
    Box::new(move |scene| scene.lab.start_daemon(host, daemon_of(host)).unwrap())
}

fn database_wiped(scene: &Scene, host: &'static str) -> Heal {
    for program in [VSWITCHD, OVSDB] {
        scene.lab.kill_daemon(host, program).unwrap();
    }
    scene.on(host, &["rm", "/var/lib/openvswitch/conf.db"]);
    for program in [OVSDB, VSWITCHD] {
        scene.lab.start_daemon(host, program).unwrap();
    }
    crate::table::nothing()
}

pub(crate) fn rows() -> Vec<Row> {
    [of_ours(), of_the_switch()].concat()
}

fn of_ours() -> Vec<Row> {
    vec![
        Row::unknown(
            "a worker's daemon dies",
            GUESTS,
            |s| dies(s, "w1", AGENT_PROGRAM),
            ("node", "w1"),
            "is not connected, last heard at",
            "start the daemon of w1",
        ),
        Row::unknown(
            "a worker's daemon hangs",
            GUESTS,
            |s| hangs(s, "w2", AGENT_PROGRAM),
            ("node", "w2"),
            "is not connected, last heard at",
            "start the daemon of w2",
        ),
        Row::unknown(
            "the network node's daemon dies",
            INTERNET,
            |s| dies(s, NETNODE, NETNODE_PROGRAM),
            ("node", "nn"),
            "is not connected, last heard at",
            "start the daemon of nn",
        ),
        Row::unknown(
            "a whole worker goes down",
            GUESTS,
            |s| goes_down(s, "w2"),
            ("node", "w2"),
            "is not connected, last heard at",
            "start the daemon of w2",
        ),
        Row::unknown(
            "the whole network node goes down",
            INTERNET,
            |s| goes_down(s, NETNODE),
            ("node", "nn"),
            "is not connected, last heard at",
            "start the daemon of nn",
        ),
        Row::silence(
            "the controller dies",
            GUESTS,
            |s| dies(s, CONTROLLER, CONTROLLER_PROGRAM),
            "controller",
        ),
        Row::unknown(
            "a worker is away when the controller starts",
            GUESTS,
            |s| restarted_without(s, "w1"),
            ("node", "w1"),
            "has not connected since the controller started",
            "start the daemon of w1",
        ),
        Row::broken(
            "a worker was declared gone",
            GUESTS,
            declared_gone,
            ("node", "w2"),
            "was declared gone at",
            "start w2 again, or move its VMs away with `trunkctl node drain w2`",
        ),
    ]
}

fn of_the_switch() -> Vec<Row> {
    vec![
        Row::unknown(
            "ovs-vswitchd dies on a worker",
            GUESTS,
            |s| dies(s, "w1", VSWITCHD),
            ("tag", "w1"),
            "ovs-vswitchd",
            "start ovs-vswitchd on w1",
        ),
        Row::unknown(
            "ovs-vswitchd hangs at the peer",
            GUESTS,
            |s| hangs(s, "w2", VSWITCHD),
            ("trunk", "w2"),
            "ovs-vswitchd",
            "start ovs-vswitchd on w2",
        ),
        Row::unknown(
            "ovs-vswitchd dies on the network node",
            INTERNET,
            |s| dies(s, NETNODE, VSWITCHD),
            ("trunk", "nn"),
            "ovs-vswitchd",
            "start ovs-vswitchd on nn",
        ),
        Row::unknown(
            "ovsdb-server dies on a worker",
            GUESTS,
            |s| dies(s, "w1", OVSDB),
            ("tap", "w1"),
            "Open vSwitch's database",
            "start ovsdb-server on w1",
        ),
        Row::unknown(
            "ovsdb-server dies on the network node",
            INTERNET,
            |s| dies(s, NETNODE, OVSDB),
            ("trunk", "nn"),
            "Open vSwitch's database",
            "start ovsdb-server on nn",
        ),
        Row::repaired(
            "a worker's switch database is wiped",
            GUESTS,
            |s| database_wiped(s, "w2"),
            "the bridge br-int was gone",
        ),
        Row::repaired(
            "the network node's switch database is wiped",
            INTERNET,
            |s| database_wiped(s, NETNODE),
            "the bridge br-int was gone",
        ),
    ]
}
