//! Isolation, tried from inside guests by their root: what must not pass does not, what must pass does, and the suite
//! itself sees a hole where there is one.
#![allow(clippy::unwrap_used)]

mod support;

use trunkline_integration::attacks::table::hostile;
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

/// A way to take isolation away by hand, and the rows that must see it.
struct Hole {
    name: &'static str,
    make: fn(&Lab),
    seen_by: &'static [&'static str],
}

/// One behind the other: what an earlier one opens stays open.
const HOLES: [Hole; 5] = [
    Hole {
        name: "the network node's rules are gone, and it takes packets from whatever source",
        make: |lab| {
            on(lab, "nn", "nft flush ruleset");
            for device in on(lab, "nn", "ls /proc/sys/net/ipv4/conf").lines() {
                on(lab, "nn", &format!("sysctl -qw net/ipv4/conf/{device}/rp_filter=0"));
            }
            for netns in on(lab, "nn", "ip netns list").lines() {
                let netns = netns.split_whitespace().next().unwrap();
                on(lab, "nn", &format!("ip netns exec {netns} nft flush ruleset"));
            }
        },
        seen_by: &[
            "other slice through the gateway",
            "other slice through VLAN 400's gateway",
            "foreign gateways and DHCP servers",
            "nodes' IPv4 addresses",
            "services on the own gateway",
            "internet through a link's gateway",
            "hosts on the uplink's own network",
            "internet in a guest's name, from the uplink",
            "DHCP in another guest's name",
            "own gateway in another's name",
            "last part of another's datagram",
            "ICMP errors about another's flow",
            "ICMP errors about another's flow, from VLAN 400",
            "datagrams to the hosts themselves",
            "DHCP answers sent to another guest",
            "another guest's lease given back",
            "flood of fragments",
        ],
    },
    Hole {
        name: "the workers' rules and flows are gone, and one flow lets everything pass",
        make: |lab| {
            for worker in lab.layout().workers() {
                on(lab, &worker, "ovs-ofctl --timeout=10 del-flows br-int");
                on(lab, &worker, "ovs-ofctl --timeout=10 add-flow br-int actions=NORMAL");
                on(lab, &worker, "nft flush ruleset");
            }
        },
        seen_by: &[
            "other slice by MAC, from VLAN 400",
            "other slice by ARP, from VLAN 400",
            "guests on VLAN 400 by MAC",
            "guests on VLAN 400 by ARP",
            "broadcasts on VLAN 400",
            "peers on a protected link by MAC",
            "peers on a protected link by ARP",
            "broadcasts on a protected link",
            "the fleet's probe EtherType",
            "forged source MAC",
            "ARP for the gateway",
            "ARP for another guest",
            "IPv4 source of another guest",
            "rogue DHCP server",
            "rogue router advertisement",
            "ICMP redirect for the gateway",
            "ICMP redirect in the own name",
            "ARP answer to one guest",
            "rogue DHCPv6 server",
            "fragments of another guest",
            "rogue servers and routers in fragments",
            "IPv6 neighbour with another's hardware address",
            "guests on VLANs that keep them apart, from the uplink",
            "as another VLAN's gateway, from the uplink",
            "gateway's broadcasts but ARP and DHCP, from the uplink",
            "the fleet's probe EtherType, from the uplink",
            "own gateway in another's name, where names are checked",
            "last part of another's datagram, where names are checked",
            "datagrams to the hosts themselves from eth0 without internet",
            "control frames of bridges and switches",
            "source MAC of a gateway or of another guest",
            "source MAC of a gateway or of another guest, where names are checked",
            "flood of broadcasts",
            "flood to an unknown address",
            "flood of ARP where guests are kept apart",
            "flood of broadcasts where nobody may hear them",
            "flood to an unknown address where nobody may hear it",
        ],
    },
    Hole {
        name: "the guests' ports have no access tag",
        make: |lab| {
            for (worker, port) in ports(lab, |port| port.starts_with("tap_")) {
                on(
                    lab,
                    &worker,
                    &format!("ovs-vsctl --timeout=10 clear port {port} tag vlan_mode"),
                );
            }
        },
        seen_by: &[
            "other slice by MAC",
            "other slice by ARP",
            "nodes by IPv6",
            "nodes by MAC and the IPv6 address made of it",
            "tag 0",
            "tag 0, then another",
            "broadcasts from eth0 without internet",
            "internet from eth0 without it",
            "guests by MAC from eth0 without internet",
            "nodes' IPv4 addresses from eth0 without internet",
            "nodes by IPv6 from eth0 without internet",
            "nodes by MAC from eth0 without internet",
            "gateways and DHCP servers from eth0 without internet",
            "tags 1 to 4095",
            "tag 0 from eth0 without internet",
            "double tags",
            "tag 0, then another, from eth0 without internet",
        ],
    },
    Hole {
        name: "the uplinks carry every VLAN",
        make: |lab| {
            for (worker, port) in ports(lab, |port| port == "trunk0") {
                on(
                    lab,
                    &worker,
                    &format!("ovs-vsctl --timeout=10 clear port {port} trunks"),
                );
            }
        },
        seen_by: &[
            "no tag, from the uplink",
            "tag 0, from the uplink",
            "tags that a node does not carry, from the uplink",
        ],
    },
    Hole {
        name: "the bridges forward what is for a bridge",
        make: |lab| {
            for worker in lab.layout().workers() {
                on(
                    lab,
                    &worker,
                    "ovs-vsctl --timeout=10 set bridge br-int other_config:forward-bpdu=true",
                );
            }
        },
        seen_by: &[
            "spanning tree",
            "LLDP",
            "pause",
            "spanning tree, LLDP and pause, from the uplink",
        ],
    },
];

/// A command on a host that must end well; what it said.
fn on(lab: &Lab, host: &str, command: &str) -> String {
    let argv: Vec<&str> = command.split(' ').collect();
    lab.host(host).unwrap().must(&argv).unwrap()
}

/// Ports of the workers' bridges: worker and name.
fn ports(lab: &Lab, wanted: fn(&str) -> bool) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for worker in lab.layout().workers() {
        let list = on(lab, &worker, "ovs-vsctl --timeout=10 list-ports br-int");
        let wanted = list.lines().filter(|port| wanted(port));
        found.extend(wanted.map(|port| (worker.clone(), port.to_owned())));
    }
    found
}

#[test]
fn each_kind_of_hole_made_by_hand_is_found() {
    attacked(&[], |lab, attack| {
        // Nobody may mend what is broken here.
        lab.kill_daemon("nn", NETNODE_PROGRAM).unwrap();
        for worker in lab.layout().workers() {
            lab.kill_daemon(&worker, AGENT_PROGRAM).unwrap();
        }
        for hole in HOLES {
            let rows = |name: &str| hole.seen_by.contains(&name);
            (hole.make)(lab);
            let outcomes = attack.hostile(rows).unwrap();
            let seen = broken(&outcomes);
            let blind: Vec<&&str> = hole.seen_by.iter().filter(|row| !seen.contains(row)).collect();
            assert!(
                blind.is_empty(),
                "{}: not seen by {blind:?}\n{}",
                hole.name,
                as_table(&outcomes)
            );
        }
        Vec::new()
    });
}

#[test]
fn every_row_that_must_not_pass_is_shown_a_hole() {
    let rows = hostile().map(|row| row.id);
    let shown: Vec<&str> = HOLES.iter().flat_map(|hole| hole.seen_by).copied().collect();
    let rest: Vec<&str> = rows.filter(|row| !shown.contains(row)).collect();
    assert!(rest.is_empty(), "{rest:?}");
}

/// Rows that saw something pass, not those that could not be tried.
fn broken(outcomes: &[Outcome]) -> Vec<&str> {
    let leaks = outcomes.iter().filter(|outcome| outcome.leaks > 0);
    leaks.map(|outcome| outcome.name.as_str()).collect()
}
