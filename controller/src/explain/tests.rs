#![allow(clippy::unwrap_used, clippy::expect_used)]

mod faults;
mod names;

use trunkline_proto::resource::{Facts, Observation, Spec, State as Health};

use super::*;
use crate::{testing::*, transition::Intent};

/// `web` on w1 with internet and `db` on w2, joined on VLAN 100, with a spare interface each; all as it should be.
struct Fleet {
    world: World,
    views: Views,
}

fn shop() -> wire::SliceSpec {
    slice(
        "shop",
        vec![online("web", "w1", 2), vm("db", "w2", 2)],
        vec![link(&["web.eth1", "db.eth1"])],
    )
}

impl Fleet {
    fn new() -> Self {
        Self::of(vec![shop()])
    }

    fn of(slices: Vec<wire::SliceSpec>) -> Self {
        let mut world = World::new();
        world.apply(slices, true).unwrap();
        let views = healthy(&world);
        Self { world, views }
    }

    fn observed(&mut self, node: &str, resource: &str) -> &mut Observation {
        let view = self.views.get_mut(&name(node)).unwrap();
        let mut all = view.observations.values_mut();
        all.find(|o| o.key.name.as_str() == resource).unwrap()
    }

    /// The node says that a resource is not as it should be.
    fn says(&mut self, node: &str, resource: &str, state: Health, reason: &str) {
        let observed = self.observed(node, resource);
        observed.state = state;
        observed.reason = reason.to_owned();
    }

    fn explain(&self, from: &str, to: &str) -> wire::ExplainResponse {
        explain(&self.world.state, &self.views, from, to).unwrap()
    }
}

/// Every node is connected and has read back everything as it should be.
fn healthy(world: &World) -> Views {
    world.reported_ready(|envelope| Some(facts(&envelope.open().unwrap())))
}

fn facts(spec: &Spec) -> Facts {
    match spec {
        Spec::Port(port) => Facts::Port(wire::PortFacts {
            exists: true,
            up: true,
            ofport: 3,
            tag: port.vlan.map_or(0, |vlan| vlan.get().into()),
            carrier: true,
            received: 214,
        }),
        Spec::Trunk(trunk) => Facts::Trunk(wire::TrunkFacts {
            interface: "ens4".into(),
            vlans: trunk.vlans.iter().map(|vlan| (*vlan).into()).collect(),
            up: true,
        }),
        Spec::Gateway(gateway) => Facts::Gateway(wire::GatewayFacts {
            up: true,
            ofport: 2,
            addresses: vec![gateway.address.to_string()],
        }),
        Spec::Dhcp(dhcp) => {
            let lease = |reservation: &trunkline_proto::resource::Reservation| wire::LeaseFacts {
                mac: reservation.mac.to_string(),
                address: reservation.address.to_string(),
                expires: 1_700_003_600,
            };
            let held: Vec<_> = dhcp.reservations.iter().map(lease).collect();
            Facts::Dhcp(wire::DhcpFacts {
                pid: 4711,
                leases: u32::try_from(held.len()).unwrap(),
                current: true,
                held,
            })
        }
        Spec::Nat(_) => Facts::Nat(wire::NatFacts {
            uplink: "ens3".into(),
            packets: 7,
            bytes: 700,
            forwarding: true,
        }),
        Spec::Flows(_) => Facts::Flows(wire::FlowsFacts {
            flows: 14,
            storms: Vec::new(),
        }),
        Spec::Probe(probe) => {
            let path = |peer: &trunkline_proto::Name| wire::ProbePath {
                peer: peer.to_string(),
                largest: probe.mtu.into(),
                loss_permille: 0,
                round_trip_us: 430,
                last_seen_ms: 1_700_000_000_000,
                largest_heard: probe.mtu.into(),
            };
            Facts::Probe(wire::ProbeFacts {
                paths: probe.peers.iter().map(path).collect(),
                period_ms: 1000,
            })
        }
    }
}

/// `kind node what: state`, a line each.
fn steps(explained: &wire::ExplainResponse) -> Vec<String> {
    let hops = explained.hops.iter();
    hops.map(|hop| {
        let state = Health::try_from(hop.state).unwrap();
        let kind = hop.kind().as_str_name().trim_start_matches("KIND_").to_lowercase();
        format!("{kind} {} {}: {state}", hop.node, hop.what)
    })
    .collect()
}

#[test]
fn a_guest_that_reaches_another_passes_every_step_in_order() {
    let explained = Fleet::new().explain("web.eth1", "db.eth1");
    assert_eq!(
        steps(&explained),
        [
            "joined  link web-eth1--db-eth1: ready",
            "node w1 w1: ready",
            "guest w1 shop/web: ready",
            "tap w1 tap_1000_eth1: ready",
            "tag w1 tap_1000_eth1: ready",
            "flows w1 flows_vlan100: ready",
            "trunk w1 uplink: ready",
            "node w2 w2: ready",
            "trunk w2 uplink: ready",
            "probe w2 w1 -> w2: ready",
            "probe w1 w2 -> w1: ready",
            "flows w2 flows_vlan100: ready",
            "tag w2 tap_1001_eth1: ready",
            "tap w2 tap_1001_eth1: ready",
            "guest w2 shop/db: ready",
            "node n1 n1: ready",
            "lease n1 web.eth1: ready",
            "lease n1 db.eth1: ready",
            "gateway n1 gw_vlan100: ready",
        ]
    );
    assert_eq!(explained.first_broken, -1);
    assert_eq!(explained.verdict, "web.eth1 reaches db.eth1");
    assert_eq!(
        (explained.from.as_str(), explained.to.as_str()),
        ("shop/web.eth1", "shop/db.eth1")
    );
    let idle = |hop: &&wire::Hop| hop.seen.is_empty() || hop.expected.is_empty() || !hop.mend.is_empty();
    assert_eq!(
        explained.hops.iter().find(idle),
        None,
        "it says what is seen, and mends nothing"
    );
}

#[test]
fn a_guest_that_reaches_the_internet_passes_every_step_in_order() {
    let explained = Fleet::new().explain("shop/web.eth0", "internet");
    assert_eq!(
        steps(&explained),
        [
            "joined  internet: ready",
            "node w1 w1: ready",
            "guest w1 shop/web: ready",
            "tap w1 tap_1000_eth0: ready",
            "tag w1 tap_1000_eth0: ready",
            "flows w1 flows_vlan400: ready",
            "trunk w1 uplink: ready",
            "node n1 n1: ready",
            "trunk n1 uplink: ready",
            "probe n1 w1 -> n1: ready",
            "probe w1 n1 -> w1: ready",
            "lease n1 web.eth0: ready",
            "gateway n1 gw_vlan400: ready",
            "nat n1 nat_vlan400: ready",
            "uplink n1 ens3: ready",
            "firewall n1 firewalls of others: ready",
        ]
    );
    assert_eq!(explained.verdict, "web.eth0 reaches the internet");
}

#[test]
fn two_guests_of_one_worker_need_no_wire() {
    let spec = slice(
        "shop",
        vec![vm("web", "w1", 1), vm("db", "w1", 1)],
        vec![link(&["web.eth1", "db.eth1"])],
    );
    let explained = Fleet::of(vec![spec]).explain("web.eth1", "db.eth1");
    let steps = steps(&explained);
    let wire = |step: &&String| ["trunk", "probe", "node w2"].iter().any(|kind| step.starts_with(kind));
    assert_eq!(steps.iter().find(wire), None, "{steps:?}");
    assert_eq!(steps.iter().filter(|step| step.starts_with("node w1")).count(), 1);
    assert_eq!(explained.first_broken, -1);
}

#[test]
fn what_a_silent_node_has_is_unknown_and_neither_broken_nor_fine() {
    let mut fleet = Fleet::new();
    fleet.views.get_mut(&name("w2")).unwrap().connected = false;
    let explained = fleet.explain("web.eth1", "db.eth1");
    assert_eq!(explained.first_broken, -1);
    assert_eq!(
        explained.verdict,
        "it is not known whether web.eth1 reaches db.eth1: w2 is not connected, last heard at 2023-11-14T22:13:20Z"
    );
    for hop in &explained.hops {
        let ours = hop.node == "w2" || hop.kind() == wire::hop::Kind::Probe;
        assert_eq!(hop.state() == wire::State::Unknown, ours, "{hop:?}");
    }
    let node = explained.hops.iter().find(|hop| hop.what == "w2").unwrap();
    assert!(node.mend.contains("start the daemon of w2"), "{node:?}");

    fleet.views.remove(&name("w1"));
    let explained = fleet.explain("web.eth1", "db.eth1");
    assert!(
        explained
            .verdict
            .ends_with("w1 has not connected since the controller started"),
        "{}",
        explained.verdict
    );
}

#[test]
fn a_break_is_told_also_where_another_node_is_silent() {
    let mut fleet = Fleet::new();
    fleet.views.get_mut(&name("w1")).unwrap().connected = false;
    fleet.says("w2", "flows_vlan100", Health::Failed, "3 flows are missing");
    let explained = fleet.explain("web.eth1", "db.eth1");
    let broken = &explained.hops[usize::try_from(explained.first_broken).unwrap()];
    assert_eq!((broken.kind(), broken.node.as_str()), (wire::hop::Kind::Flows, "w2"));
    assert_eq!(
        explained.verdict,
        "web.eth1 does not reach db.eth1: flows_vlan100 on w2: 3 flows are missing"
    );
}

#[test]
fn the_steps_after_the_first_break_are_told_and_counted() {
    let mut fleet = Fleet::new();
    fleet.says("w1", "flows_vlan100", Health::Failed, "3 flows are missing");
    fleet.says("w2", "flows_vlan100", Health::Failed, "2 flows are missing");
    let explained = fleet.explain("web.eth1", "db.eth1");
    assert_eq!(explained.hops.len(), 19);
    assert_eq!(
        explained.verdict,
        "web.eth1 does not reach db.eth1: flows_vlan100 on w1: 3 flows are missing; 1 step more is broken"
    );
}

#[test]
fn the_worst_on_the_way_gives_the_verdict_and_the_first_its_reason() {
    let mut fleet = Fleet::new();
    faults::cut(&mut fleet, "w1", "w2", 100, 1400);
    let verdict = |fleet: &Fleet| fleet.explain("web.eth1", "db.eth1").verdict;
    let small = "vlan 100 does not pass w1 -> w2 at 1500 bytes (passes at 1400)";
    assert_eq!(
        verdict(&fleet),
        format!("web.eth1 does not reach db.eth1 as it should: {small}")
    );
    fleet.says("w2", "flows_vlan100", Health::Failed, "2 flows are missing");
    assert_eq!(
        verdict(&fleet),
        format!("web.eth1 does not reach db.eth1: {small}; 1 step more is broken")
    );
}

#[test]
fn what_was_just_deployed_waits() {
    let mut fleet = Fleet::new();
    let view = fleet.views.get_mut(&name("w2")).unwrap();
    view.observations.retain(|key, _| key.name.as_str() != "tap_1001_eth1");
    let explained = fleet.explain("web.eth1", "db.eth1");
    assert_eq!(
        explained.verdict,
        "web.eth1 does not reach db.eth1 yet: tap_1001_eth1 on w2: w2 has taken port tap_1001_eth1 and not reported it yet"
    );
}

#[test]
fn on_a_vlan_of_many_nodes_two_that_are_not_neighbours_are_proved_by_way_of_the_network_node() {
    let mut world = World::empty(crate::settings::Settings::default());
    let (mut vms, mut ends) = (Vec::new(), Vec::new());
    for number in 1..=20 {
        let worker = format!("w{number}");
        world.join(&worker, crate::model::NodeRole::Worker);
        vms.push(vm(&format!("a{number}"), &worker, 1));
        ends.push(format!("a{number}.eth1"));
    }
    world.join("n1", crate::model::NodeRole::Netnode);
    let ends: Vec<&str> = ends.iter().map(String::as_str).collect();
    world.apply(vec![slice("big", vms, vec![link(&ends)])], true).unwrap();
    let views = healthy(&world);
    let mut fleet = Fleet { world, views };
    let ways = |fleet: &Fleet, to: &str| {
        let explained = fleet.explain("a1.eth1", to);
        let probes = explained
            .hops
            .into_iter()
            .filter(|hop| hop.kind() == wire::hop::Kind::Probe);
        probes.map(|hop| hop.what).collect::<Vec<_>>()
    };
    let all: Vec<(String, Vec<String>)> = (2..=20)
        .map(|n| (format!("a{n}.eth1"), ways(&fleet, &format!("a{n}.eth1"))))
        .collect();
    let (far, ways_of_far) = all.iter().find(|(_, ways)| ways.len() == 4).unwrap();
    let worker = far.trim_start_matches('a').trim_end_matches(".eth1");
    assert_eq!(
        *ways_of_far,
        [
            "w1 -> n1".to_owned(),
            "n1 -> w1".to_owned(),
            format!("n1 -> w{worker}"),
            format!("w{worker} -> n1")
        ]
    );
    assert_eq!(
        all.iter().filter(|(_, ways)| ways.len() == 2).count(),
        2,
        "its neighbours on the ring"
    );
    let (far, worker) = (far.clone(), format!("w{worker}"));
    faults::cut(&mut fleet, "n1", &worker, 100, 0);
    let explained = fleet.explain("a1.eth1", &far);
    assert_eq!(
        explained.verdict,
        format!("a1.eth1 does not reach {far}: vlan 100 does not pass n1 -> {worker}")
    );
}

#[test]
fn without_a_network_node_the_lease_and_the_internet_wait() {
    let mut world = World::empty(crate::settings::Settings::default());
    world.join("w1", crate::model::NodeRole::Worker);
    world.join("w2", crate::model::NodeRole::Worker);
    world.apply(vec![shop()], true).unwrap();
    let views = healthy(&world);
    let fleet = Fleet { world, views };
    let explained = fleet.explain("web.eth0", "internet");
    assert_eq!(
        explained.verdict,
        "web.eth0 does not reach the internet yet: no network node has joined yet"
    );
    let explained = fleet.explain("web.eth1", "db.eth1");
    assert_eq!(
        explained.verdict,
        "web.eth1 reaches db.eth1 on the wire, but not as it should: no network node has joined yet"
    );
}

#[test]
fn a_network_node_that_is_silent_does_not_make_the_wire_unknown() {
    let mut fleet = Fleet::new();
    fleet.views.get_mut(&name("n1")).unwrap().connected = false;
    let away = "n1 is not connected, last heard at 2023-11-14T22:13:20Z";
    let verdict = |fleet: &Fleet| fleet.explain("web.eth1", "db.eth1").verdict;
    assert_eq!(
        verdict(&fleet),
        format!("web.eth1 reaches db.eth1 on the wire; what else they need is not known: {away}")
    );
    assert_eq!(
        fleet.explain("web.eth0", "internet").verdict,
        format!("it is not known whether web.eth0 reaches the internet: {away}")
    );
    // Half of the wire is not known, and beside it something is broken.
    let mut fleet = Fleet::new();
    fleet.views.get_mut(&name("w2")).unwrap().connected = false;
    fleet.says("n1", "gw_vlan100", Health::Failed, "its device is down");
    assert_eq!(
        verdict(&fleet),
        "it is not known whether web.eth1 reaches db.eth1: w2 is not connected, last heard at 2023-11-14T22:13:20Z; besides, \
         gw_vlan100 on n1: its device is down"
    );
}

#[test]
fn a_link_without_dhcp_has_no_leases() {
    let mut spec = shop();
    spec.links[0].dhcp_off = true;
    let explained = Fleet::of(vec![spec]).explain("web.eth1", "db.eth1");
    assert!(!steps(&explained).iter().any(|step| step.starts_with("lease")));
    assert_eq!(explained.first_broken, -1);
}

#[test]
fn a_slice_that_was_undeployed_is_explained_as_not_deployed() {
    let mut fleet = Fleet::new();
    fleet.world.must(Intent::Undeploy {
        name: "shop".into(),
        expected: 0,
    });
    let explained = fleet.explain("web.eth1", "db.eth1");
    assert_eq!(steps(&explained), ["joined  link web-eth1--db-eth1: failed"]);
    assert_eq!(explained.hops[0].mend, "`trunkctl slice deploy shop`");
    assert_eq!(
        explained.verdict,
        "web.eth1 does not reach db.eth1: the slice shop is not deployed"
    );
}
