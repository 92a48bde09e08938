//! Every single fault, put into what the nodes report in the nodes' own words: the right step is named, and what mends it.

mod between;
mod network;
mod worker;

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

#[test]
fn every_single_fault_is_named_with_what_mends_it() {
    for case in [worker::rows(), between::rows(), network::rows()].into_iter().flatten() {
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

#[test]
fn connections_of_another_guest_stop_nobody_else() {
    let mut fleet = Fleet::new();
    nat(
        &mut fleet,
        Health::Degraded,
        "10.60.7.99 had 16 connections open within the last minute and got no more; nat.connections_per_guest is the limit",
    );
    let explained = fleet.explain("web.eth0", "internet");
    assert_eq!(explained.first_broken, -1);
    let nat = explained.hops.iter().find(|hop| hop.kind() == Kind::Nat).unwrap();
    assert_eq!(nat.seen, "masquerades; another guest has as many connections as it may");
}

/// The first of which nothing is known, and how that is mended.
fn unknown(fleet: &Fleet) -> (Kind, String) {
    let explained = fleet.explain("web.eth1", "db.eth1");
    assert_eq!(explained.first_broken, -1, "{explained:#?}");
    let mut unknown = explained.hops.iter().filter(|hop| hop.state() == wire::State::Unknown);
    let hop = unknown.find(|hop| !hop.mend.is_empty()).unwrap();
    assert!(explained.verdict.ends_with(&hop.seen), "{}", explained.verdict);
    (hop.kind(), hop.mend.clone())
}

#[test]
fn a_switch_without_its_database_is_named_and_not_the_guest_that_nobody_sees() {
    let mut fleet = Fleet::new();
    let reason = "no connection to Open vSwitch's database at /run/openvswitch/db.sock";
    for resource in ["tap_1000_eth1", "uplink", "flows_vlan100", "probe_vlan100"] {
        fleet.says("w1", resource, Health::Unknown, reason);
        fleet.observed("w1", resource).facts = None;
    }
    // Its peers hear nothing of it any more.
    cut(&mut fleet, "w1", "w2", 100, 0);
    cut(&mut fleet, "w1", "n1", 100, 0);
    let (kind, mend) = unknown(&fleet);
    assert_eq!(kind, Kind::Tap);
    assert!(mend.starts_with("start ovsdb-server on w1"), "{mend}");
}

#[test]
fn files_of_a_dhcp_server_that_cannot_be_read_are_not_the_switchs_fault() {
    let mut fleet = Fleet::new();
    fleet.says(
        "n1",
        "dhcp_v100",
        Health::Unknown,
        "the DHCP server's files: Is a directory",
    );
    fleet.observed("n1", "dhcp_v100").facts = None;
    let (kind, mend) = unknown(&fleet);
    assert_eq!(kind, Kind::Lease);
    assert_eq!(mend, "mend on n1 what is said there; its daemon looks again by itself");
}

/// It changes nothing there, so what passed still does.
#[test]
fn a_network_node_whose_bridge_is_anothers_is_named_and_stops_nothing() {
    let mut fleet = Fleet::new();
    let reason = "the bridge br-int is there and was not made by Trunkline; give it to this node with `adopt = true`, or remove it";
    for resource in ["uplink", "probe_vlan400", "dhcp_v400", "gw_vlan400", "nat_vlan400"] {
        fleet.says("n1", resource, Health::Failed, reason);
    }
    cut(&mut fleet, "n1", "w1", 400, 0);
    let explained = fleet.explain("web.eth0", "internet");
    assert!(
        explained
            .verdict
            .starts_with("web.eth0 does not reach the internet as it should: uplink on n1: the bridge br-int"),
        "{}",
        explained.verdict
    );
    let broken = |hop: &&wire::Hop| !hop.mend.is_empty();
    for hop in explained.hops.iter().filter(broken) {
        assert_eq!(
            hop.mend, "do on n1 what is said there: it is somebody else's, and Trunkline does not change it",
            "{hop:?}"
        );
        assert_eq!(hop.node, "n1", "{hop:?}");
    }
}
