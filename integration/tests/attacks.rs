//! Isolation, tried from inside guests by their root: what must not pass does not, what must pass does, and the suite
//! itself sees a hole where there is one.
#![allow(clippy::unwrap_used)]

mod support;

use trunkline_integration::attacks::{Attack, MACHINES, Outcome, TOPOLOGY, as_table};
use trunkline_integration::demo::start_guests;
use trunkline_integration::lab::{AGENT_PROGRAM, Lab, NETNODE_PROGRAM, Options};

use support::{api, apply, fleet};

fn attacked(machines: &[&str], how: impl FnOnce(&Lab, &mut Attack<'_>) -> Vec<Outcome>) -> Vec<Outcome> {
    let lab = fleet(&Options::default());
    apply(&lab, TOPOLOGY);
    let slices = api(&lab).slices().unwrap();
    let guests = start_guests(&lab, &slices, machines).unwrap();
    let mut attack = Attack::prepare(&lab, &slices, &guests).unwrap();
    how(&lab, &mut attack)
}

#[test]
fn nothing_passes_that_must_not_and_all_that_must() {
    let outcomes = attacked(&MACHINES, |_, attack| attack.run().unwrap());
    assert!(outcomes.iter().all(|outcome| outcome.ok), "\n{}", as_table(&outcomes));
}

/// Everything that isolates is taken away by hand, with the daemons dead that would put it back.
fn open_every_hole(lab: &Lab) {
    for worker in lab.layout().workers() {
        lab.kill_daemon(&worker, AGENT_PROGRAM).unwrap();
        let host = lab.host(&worker).unwrap();
        host.must(&["ovs-ofctl", "--timeout=10", "del-flows", "br-int"])
            .unwrap();
        host.must(&["ovs-ofctl", "--timeout=10", "add-flow", "br-int", "actions=NORMAL"])
            .unwrap();
        let ports = host
            .must(&["ovs-vsctl", "--timeout=10", "list-ports", "br-int"])
            .unwrap();
        for port in ports.lines().filter(|port| port.ends_with("_eth0")) {
            let tag = host
                .must(&["ovs-vsctl", "--timeout=10", "get", "port", port, "tag"])
                .unwrap();
            if tag.trim() == "0" {
                let argv = ["ovs-vsctl", "--timeout=10", "clear", "port", port, "tag", "vlan_mode"];
                host.must(&argv).unwrap();
            }
        }
    }
    lab.kill_daemon("nn", NETNODE_PROGRAM).unwrap();
    let host = lab.host("nn").unwrap();
    host.must(&["nft", "flush", "ruleset"]).unwrap();
}

#[test]
fn holes_made_by_hand_are_found() {
    const ROWS: [&str; 10] = [
        "other slice through the gateway",
        "other slice by MAC, from VLAN 400",
        "foreign gateways and DHCP servers",
        "services on the own gateway",
        "internet through a link's gateway",
        "guests on VLAN 400 by MAC",
        "tags 1 to 4095",
        "the fleet's probe EtherType",
        "forged source MAC",
        "rogue DHCP server",
    ];
    let outcomes = attacked(&[], |lab, attack| {
        open_every_hole(lab);
        attack.hostile(&ROWS).unwrap()
    });
    assert_eq!(outcomes.len(), ROWS.len());
    assert!(outcomes.iter().all(|outcome| !outcome.ok), "\n{}", as_table(&outcomes));
}
