//! Every single fault, put into what the nodes report in the nodes' own words: the right step is named, and what mends it.

use trunkline_proto::resource::{Facts, State as Health};

use super::*;
use crate::converge::Refusal;
use wire::hop::Kind;

/// Frames from one node to another are lost, or those over a size.
pub(super) fn cut(fleet: &mut Fleet, from: &str, to: &str, vlan: u32, largest: u32) {
    let observed = fleet.observed(to, &format!("probe_vlan{vlan}"));
    let Some(Facts::Probe(facts)) = &mut observed.facts else {
        panic!()
    };
    facts.paths.iter_mut().find(|path| path.peer == from).unwrap().largest = largest;
    observed.state = Health::Degraded;
    observed.reason = match largest {
        0 => format!("vlan {vlan} does not pass {from} -> {to}"),
        largest => format!("vlan {vlan} does not pass {from} -> {to} at 1500 bytes (passes at {largest})"),
    };
}

fn port(fleet: &mut Fleet, reason: &str, change: impl Fn(&mut wire::PortFacts)) {
    port_of(fleet, "w1", "tap_1000_eth1", reason, change);
}

fn port_of(fleet: &mut Fleet, node: &str, tap: &str, reason: &str, change: impl Fn(&mut wire::PortFacts)) {
    let observed = fleet.observed(node, tap);
    let Some(Facts::Port(facts)) = &mut observed.facts else {
        panic!()
    };
    change(facts);
    if !reason.is_empty() {
        observed.state = Health::Failed;
        observed.reason = reason.to_owned();
    }
}

/// The uplink's list is without a VLAN, and so nothing of it passes either way.
fn narrow(fleet: &mut Fleet, node: &str, peers: &[&str], vlan: u32) {
    let observed = fleet.observed(node, "uplink");
    let Some(Facts::Trunk(facts)) = &mut observed.facts else {
        panic!()
    };
    facts.vlans.retain(|carried| *carried != vlan);
    observed.state = Health::Failed;
    observed.reason = "the switch port ens4 carries VLANs {400} instead of {100, 400}".to_owned();
    for peer in peers {
        cut(fleet, node, peer, vlan, 0);
        cut(fleet, peer, node, vlan, 0);
    }
}

fn dhcp(fleet: &mut Fleet, vlan: u32, change: impl Fn(&mut wire::DhcpFacts)) {
    let observed = fleet.observed("n1", &format!("dhcp_v{vlan}"));
    let Some(Facts::Dhcp(facts)) = &mut observed.facts else {
        panic!()
    };
    change(facts);
}

fn storm(fleet: &mut Fleet, tap: &str) {
    let reason = format!("{tap} sends more to all, or to nobody, than its limit allows: 12 frames dropped");
    fleet.says("w1", "flows_vlan100", Health::Degraded, &reason);
    let Some(Facts::Flows(facts)) = &mut fleet.observed("w1", "flows_vlan100").facts else {
        panic!()
    };
    let (port, dropped) = (tap.to_owned(), 12);
    facts.storms = vec![wire::StormFacts { port, dropped }];
}

fn nat(fleet: &mut Fleet, state: Health, reason: &str) {
    fleet.says("n1", "nat_vlan400", state, reason);
}

fn refuse(fleet: &mut Fleet, node: &str, resource: &str) {
    let (key, hash) = {
        let observed = fleet.observed(node, resource);
        (observed.key.clone(), observed.hash)
    };
    let reason = "flows is not known to this version of the node's program; upgrade it".to_owned();
    fleet
        .views
        .get_mut(&name(node))
        .unwrap()
        .refused
        .insert(key, Refusal { hash, reason });
}

struct Case {
    fault: &'static str,
    to: &'static str,
    inject: fn(&mut Fleet),
    /// The step that is to be named, and its node.
    broken: (Kind, &'static str),
    /// In what was seen.
    seen: &'static str,
    /// In what mends it.
    mend: &'static str,
}

const GUESTS: &str = "db.eth1";
const INTERNET: &str = "internet";

fn case(
    fault: &'static str,
    to: &'static str,
    inject: fn(&mut Fleet),
    broken: (Kind, &'static str),
    seen: &'static str,
    mend: &'static str,
) -> Case {
    Case {
        fault,
        to,
        inject,
        broken,
        seen,
        mend,
    }
}

/// What goes wrong on a worker.
fn on_a_worker() -> Vec<Case> {
    let itself = "w1 puts that right by itself";
    vec![
        case(
            "the TAP is gone",
            GUESTS,
            |f| {
                port(f, "the TAP tap_1000_eth1 does not exist", |p| {
                    *p = wire::PortFacts::default()
                })
            },
            (Kind::Tap, "w1"),
            "does not exist",
            itself,
        ),
        case(
            "the host's own stack hears the TAP",
            GUESTS,
            |f| {
                port(
                    f,
                    "the host itself hears what this guest sends to all: the program nft cannot be run",
                    |_| {},
                )
            },
            (Kind::Tap, "w1"),
            "the program nft",
            "install the package `nftables` on w1",
        ),
        case(
            "the TAP is down",
            GUESTS,
            |f| {
                port(f, "the TAP tap_1000_eth1 is down", |p| {
                    (p.up, p.carrier) = (false, false)
                })
            },
            (Kind::Tap, "w1"),
            "is down",
            itself,
        ),
        case(
            "the TAP is a stranger's",
            GUESTS,
            |f| port(f, "tap_1000_eth1 is not a TAP that Trunkline made", |_| ()),
            (Kind::Tap, "w1"),
            "not a TAP that Trunkline made",
            "remove or rename tap_1000_eth1 on w1",
        ),
        case(
            "the tag is wrong",
            GUESTS,
            |f| {
                let reason = "the switch port tap_1000_eth1 is access tag 120 instead of access tag 100";
                port(f, reason, |p| p.tag = 120);
            },
            (Kind::Tag, "w1"),
            "tag 120",
            itself,
        ),
        case(
            "the switch port is gone",
            GUESTS,
            |f| {
                port(f, "there is no switch port tap_1000_eth1 on br-int", |p| {
                    (p.tag, p.ofport) = (-1, 0)
                })
            },
            (Kind::Tag, "w1"),
            "no switch port",
            itself,
        ),
        case(
            "flows of the VLAN are missing",
            GUESTS,
            |f| {
                f.says("w1", "flows_vlan100", Health::Failed, "3 flows are missing");
                port(f, "a flow of this port is missing", |_| ());
            },
            (Kind::Flows, "w1"),
            "3 flows are missing",
            itself,
        ),
        case(
            "flows of the peer's port are missing",
            GUESTS,
            |f| port_of(f, "w2", "tap_1001_eth1", "a flow of this port is missing", |_| ()),
            (Kind::Flows, "w2"),
            "a flow of this port is missing",
            "w2 puts that right by itself",
        ),
        case(
            "somebody else's flows let pass what ours stop",
            GUESTS,
            |f| {
                let reason = "flows of others on br-int may let pass what ours stop: table=0 priority=9; remove them";
                f.says("w1", "flows_vlan100", Health::Degraded, reason);
            },
            (Kind::Flows, "w1"),
            "flows of others",
            "remove them on w1",
        ),
        case(
            "a storm of the guest bites",
            GUESTS,
            |f| storm(f, "tap_1000_eth1"),
            (Kind::Flows, "w1"),
            "12 frames dropped",
            "stop the flood in the guest shop/web",
        ),
        case(
            "the guest is not started",
            GUESTS,
            |f| port(f, "", |p| (p.carrier, p.received) = (false, 0)),
            (Kind::Guest, "w1"),
            "no program has opened the TAP",
            "`trunkctl vm netdev shop/web`",
        ),
        case(
            "the peer's guest is not started",
            GUESTS,
            |f| port_of(f, "w2", "tap_1001_eth1", "", |p| (p.carrier, p.received) = (false, 0)),
            (Kind::Guest, "w2"),
            "no program has opened the TAP",
            "`trunkctl vm netdev shop/db`",
        ),
        case(
            "the guest never sent",
            GUESTS,
            |f| {
                port(f, "", |p| p.received = 0);
                dhcp(f, 100, |d| (d.held, d.leases) = (Vec::new(), 0));
            },
            (Kind::Guest, "w1"),
            "no program has sent anything",
            "bring eth1 up",
        ),
        case(
            "the port is refused",
            GUESTS,
            |f| refuse(f, "w1", "tap_1000_eth1"),
            (Kind::Tap, "w1"),
            "w1 refused port tap_1000_eth1",
            "upgrade the daemon of w1",
        ),
        case(
            "the flows are refused",
            GUESTS,
            |f| refuse(f, "w2", "flows_vlan100"),
            (Kind::Flows, "w2"),
            "w2 refused flows flows_vlan100",
            "upgrade the daemon of w2",
        ),
    ]
}

/// What goes wrong between nodes.
fn on_the_wire() -> Vec<Case> {
    vec![
        case(
            "the trunk lacks the VLAN",
            GUESTS,
            |f| narrow(f, "w1", &["w2", "n1"], 100),
            (Kind::Trunk, "w1"),
            "ens4 carries 400, and not 100",
            "w1 puts that right by itself",
        ),
        case(
            "the peer's trunk lacks the VLAN",
            GUESTS,
            |f| narrow(f, "w2", &["w1", "n1"], 100),
            (Kind::Trunk, "w2"),
            "ens4 carries nothing, and not 100",
            "w2 puts that right by itself",
        ),
        case(
            "the network node's trunk lacks VLAN 400",
            INTERNET,
            |f| narrow(f, "n1", &["w1"], 400),
            (Kind::Trunk, "n1"),
            "ens4 carries 100, and not 400",
            "n1 puts that right by itself",
        ),
        case(
            "the uplink's cable is out",
            GUESTS,
            |f| {
                f.says(
                    "w1",
                    "uplink",
                    Health::Failed,
                    "the uplink ens4 is down or has no carrier; check its cable or peer",
                );
                let Some(Facts::Trunk(facts)) = &mut f.observed("w1", "uplink").facts else {
                    panic!()
                };
                facts.up = false;
            },
            (Kind::Trunk, "w1"),
            "no carrier",
            "cable of ens4 on w1",
        ),
        case(
            "the trunk is refused",
            GUESTS,
            |f| refuse(f, "w1", "uplink"),
            (Kind::Trunk, "w1"),
            "w1 refused trunk uplink",
            "upgrade the daemon of w1",
        ),
        case(
            "the VLAN passes one way only",
            GUESTS,
            |f| cut(f, "w1", "w2", 100, 0),
            (Kind::Probe, "w2"),
            "vlan 100 does not pass w1 -> w2",
            "w2 -> w1 passes, so it is one way only",
        ),
        case(
            "the VLAN passes the other way only",
            GUESTS,
            |f| cut(f, "w2", "w1", 100, 0),
            (Kind::Probe, "w1"),
            "vlan 100 does not pass w2 -> w1",
            "w1 -> w2 passes, so it is one way only",
        ),
        case(
            "the VLAN passes neither way",
            GUESTS,
            |f| {
                cut(f, "w1", "w2", 100, 0);
                cut(f, "w2", "w1", 100, 0);
            },
            (Kind::Probe, "w2"),
            "vlan 100 does not pass w1 -> w2",
            "carry vlan 100 tagged on the ports of both w1 and w2",
        ),
        case(
            "the MTU is 1400 in the middle",
            GUESTS,
            |f| {
                cut(f, "w1", "w2", 100, 1400);
                cut(f, "w2", "w1", 100, 1400);
            },
            (Kind::Probe, "w2"),
            "vlan 100 does not pass w1 -> w2 at 1500 bytes (passes at 1400)",
            "take frames of 1518 bytes, or give the link an `mtu` of 1400",
        ),
        case(
            "the peer refuses to probe",
            GUESTS,
            |f| refuse(f, "w2", "probe_vlan100"),
            (Kind::Probe, "w2"),
            "w2 refused probe probe_vlan100",
            "upgrade the daemon of w2",
        ),
        case(
            "the probe cannot be sent",
            INTERNET,
            |f| {
                f.says(
                    "n1",
                    "probe_vlan400",
                    Health::Failed,
                    "there is no port tlprobe0 on br-int",
                )
            },
            (Kind::Probe, "n1"),
            "there is no port tlprobe0 on br-int",
            "n1 puts that right by itself",
        ),
        case(
            "VLAN 400 does not pass",
            INTERNET,
            |f| {
                cut(f, "w1", "n1", 400, 0);
                cut(f, "n1", "w1", 400, 0);
            },
            (Kind::Probe, "n1"),
            "vlan 400 does not pass w1 -> n1",
            "carry vlan 400 tagged on the ports of both w1 and n1",
        ),
    ]
}

/// What goes wrong on the network node.
fn on_the_network_node() -> Vec<Case> {
    let itself = "n1 puts that right by itself";
    vec![
        case(
            "dnsmasq is dead",
            GUESTS,
            |f| {
                f.says("n1", "dhcp_v100", Health::Failed, "dnsmasq does not run");
                dhcp(f, 100, |d| (d.pid, d.current) = (0, false));
            },
            (Kind::Lease, "n1"),
            "dnsmasq does not run; the lease is good until it ends",
            itself,
        ),
        case(
            "there is no lease",
            GUESTS,
            |f| {
                dhcp(f, 100, |d| {
                    d.held.retain(|lease| lease.mac != "52:54:00:03:e8:01");
                    d.leases = 1;
                });
            },
            (Kind::Lease, "n1"),
            "has no lease for 52:54:00:03:e8:01",
            "in the guest shop/web ask for one: `udhcpc -i eth1`",
        ),
        case(
            "there is no lease because the VLAN does not come to the network node",
            GUESTS,
            |f| {
                dhcp(f, 100, |d| (d.held, d.leases) = (Vec::new(), 0));
                cut(f, "w1", "n1", 100, 0);
                cut(f, "n1", "w1", 100, 0);
            },
            (Kind::Probe, "n1"),
            "vlan 100 does not pass w1 -> n1",
            "carry vlan 100 tagged on the ports of both w1 and n1",
        ),
        case(
            "the lease is another",
            INTERNET,
            |f| dhcp(f, 400, |d| d.held[0].address = "10.60.7.77".into()),
            (Kind::Lease, "n1"),
            "it has the lease of 10.60.7.77",
            "`udhcpc -i eth0`",
        ),
        case(
            "the address of the link's gateway is gone",
            GUESTS,
            |f| {
                let reason = "its device does not have the address 10.64.100.1/24";
                f.says("n1", "gw_vlan100", Health::Failed, reason);
            },
            (Kind::Gateway, "n1"),
            "does not have the address 10.64.100.1/24",
            itself,
        ),
        case(
            "the gateway's port is a stranger's",
            GUESTS,
            |f| {
                let reason = "a port gw_vlan100 that was not made by Trunkline is on br-int";
                f.says("n1", "gw_vlan100", Health::Failed, reason);
            },
            (Kind::Gateway, "n1"),
            "was not made by Trunkline",
            "do on n1 what is said there",
        ),
        case(
            "the gateway's address is gone",
            INTERNET,
            |f| {
                let reason = "its device does not have the address 10.60.7.1/24";
                f.says("n1", "gw_vlan400", Health::Failed, reason);
                let Some(Facts::Gateway(facts)) = &mut f.observed("n1", "gw_vlan400").facts else {
                    panic!()
                };
                facts.addresses.clear();
                nat(f, Health::Degraded, &format!("its gateway is not ready: {reason}"));
            },
            (Kind::Gateway, "n1"),
            "does not have the address 10.60.7.1/24",
            itself,
        ),
        case(
            "the NAT table is flushed",
            INTERNET,
            |f| {
                nat(
                    f,
                    Health::Failed,
                    "the nftables table inet trunkline is not what it should be",
                )
            },
            (Kind::Nat, "n1"),
            "is not what it should be",
            itself,
        ),
        case(
            "the NAT table is a stranger's",
            INTERNET,
            |f| {
                let reason =
                    "the nftables table inet trunkline is there and was not made by this program; rename or delete it";
                nat(f, Health::Failed, reason);
            },
            (Kind::Nat, "n1"),
            "was not made by this program",
            "rename or delete that table on n1",
        ),
        case(
            "ip_forward is off",
            INTERNET,
            |f| {
                nat(f, Health::Failed, "net.ipv4.ip_forward is 0");
                let Some(Facts::Nat(facts)) = &mut f.observed("n1", "nat_vlan400").facts else {
                    panic!()
                };
                facts.forwarding = false;
            },
            (Kind::Nat, "n1"),
            "net.ipv4.ip_forward is 0",
            "n1 switches it on by itself",
        ),
        case(
            "a foreign chain drops what is forwarded",
            INTERNET,
            |f| {
                let reason = "forwarded packets are dropped by the policy of a foreign nftables chain: \"ip filter FORWARD\"; accept \
                              traffic from and to the gateway port there";
                nat(f, Health::Degraded, reason);
            },
            (Kind::Firewall, "n1"),
            "ip filter FORWARD",
            "in that chain on n1 accept what comes from gw_vlan400",
        ),
        case(
            "the uplink is down",
            INTERNET,
            |f| nat(f, Health::Failed, "the uplink ens3 is down"),
            (Kind::Uplink, "n1"),
            "the uplink ens3 is down",
            "`ip link set ens3 up`",
        ),
        case(
            "the uplink does not exist",
            INTERNET,
            |f| {
                let reason =
                    "the uplink ens3 does not exist; set nat.uplink to the interface that leads to the internet";
                nat(f, Health::Failed, reason);
            },
            (Kind::Uplink, "n1"),
            "does not exist",
            "set `nat.uplink` in the configuration of n1",
        ),
        case(
            "there is no default route",
            INTERNET,
            |f| {
                let reason = "there is no default route through ens3: guests reach no further than its own network";
                nat(f, Health::Degraded, reason);
            },
            (Kind::Uplink, "n1"),
            "no default route",
            "`ip route add default via ROUTER dev ens3`",
        ),
    ]
}

#[test]
fn every_single_fault_is_named_with_what_mends_it() {
    for case in [on_a_worker(), on_the_wire(), on_the_network_node()]
        .into_iter()
        .flatten()
    {
        let Case {
            fault,
            to,
            inject,
            broken,
            seen,
            mend,
        } = case;
        let mut fleet = Fleet::new();
        let from = if to == INTERNET { "web.eth0" } else { "web.eth1" };
        assert_eq!(fleet.explain(from, to).first_broken, -1, "{fault}: before it");
        inject(&mut fleet);
        let explained = fleet.explain(from, to);
        let index = usize::try_from(explained.first_broken).unwrap_or_else(|_| panic!("{fault}: {explained:#?}"));
        let hop = &explained.hops[index];
        assert_eq!((hop.kind(), hop.node.as_str()), broken, "{fault}: {hop:?}");
        assert!(hop.seen.contains(seen), "{fault}: {hop:?}");
        assert!(hop.mend.contains(mend), "{fault}: {hop:?}");
        assert!(
            !matches!(hop.state(), wire::State::Ready | wire::State::Unknown),
            "{fault}: {hop:?}"
        );
        assert!(explained.verdict.contains(seen), "{fault}: {}", explained.verdict);
    }
}

#[test]
fn a_storm_of_another_guest_stops_nobody_else() {
    let mut fleet = Fleet::new();
    storm(&mut fleet, "tap_1009_eth1");
    let explained = fleet.explain("web.eth1", "db.eth1");
    assert_eq!(explained.first_broken, -1);
    let flows = explained.hops.iter().find(|hop| hop.kind() == Kind::Flows).unwrap();
    assert_eq!(flows.seen, "14 flows; the limit of another guest bites");
}

#[test]
fn a_guest_with_a_lease_has_sent() {
    let mut fleet = Fleet::new();
    port(&mut fleet, "", |port| port.received = 0);
    assert_eq!(fleet.explain("web.eth1", "db.eth1").first_broken, -1);
}

#[test]
fn behind_a_nat_that_is_wrong_nothing_is_told_of_what_comes_after() {
    let mut fleet = Fleet::new();
    nat(&mut fleet, Health::Failed, "net.ipv4.ip_forward is 0");
    let explained = fleet.explain("web.eth0", "internet");
    let states: Vec<_> = explained
        .hops
        .iter()
        .rev()
        .take(3)
        .map(|hop| (hop.kind(), hop.state()))
        .collect();
    assert_eq!(
        states,
        [
            (Kind::Firewall, wire::State::Unknown),
            (Kind::Uplink, wire::State::Unknown),
            (Kind::Nat, wire::State::Failed)
        ]
    );
}

#[test]
fn a_switch_that_gives_no_sign_of_life_leaves_its_part_unknown() {
    let mut fleet = Fleet::new();
    let silent = "ovs-vswitchd gives no sign of life; is it running?";
    for resource in ["tap_1000_eth1", "uplink", "flows_vlan100"] {
        fleet.says("w1", resource, Health::Unknown, silent);
    }
    let explained = fleet.explain("web.eth1", "db.eth1");
    assert_eq!(explained.first_broken, -1);
    assert!(explained.verdict.ends_with(silent), "{}", explained.verdict);
    let unknown: Vec<_> = explained
        .hops
        .iter()
        .filter(|hop| hop.state() == wire::State::Unknown)
        .collect();
    assert_eq!(
        unknown.iter().map(|hop| hop.kind()).collect::<Vec<_>>(),
        [Kind::Tag, Kind::Flows, Kind::Trunk]
    );
    assert!(
        unknown.iter().all(|hop| hop.mend == "start ovs-vswitchd on w1"),
        "{unknown:?}"
    );
}
