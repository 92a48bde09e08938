#![allow(clippy::unwrap_used, clippy::expect_used)]

mod probes;

use std::collections::BTreeSet;

use trunkline_proto::{
    Mac, Name,
    resource::{Flows, Key, Kind, Spec},
};

use crate::{model::NodeRole, settings::Settings, testing::*, transition::State};

fn spec(world: &World, node: &str, kind: Kind, resource: &str) -> Spec {
    let key = Key {
        kind,
        name: resource.parse().unwrap(),
    };
    world.state.node_desired(&name(node)).resources[&key].open().unwrap()
}

#[test]
fn a_link_becomes_ports_flows_trunks_gateway_dhcp_and_probes() {
    let mut world = World::new();
    world.apply(vec![shop("shop")], true).unwrap();
    let names = |node: &str| {
        let desired = world.state.node_desired(&name(node));
        desired.resources.keys().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        names("w1"),
        [
            "port tap_1000_eth0",
            "port tap_1000_eth1",
            "trunk uplink",
            "flows flows_vlan100",
            "flows flows_vlan400",
            "probe probe_vlan100",
            "probe probe_vlan400"
        ]
    );
    assert_eq!(
        names("w2"),
        [
            "port tap_1001_eth0",
            "port tap_1001_eth1",
            "trunk uplink",
            "flows flows_vlan100",
            "probe probe_vlan100"
        ]
    );
    assert_eq!(
        names("n1"),
        [
            "trunk uplink",
            "gateway gw_vlan100",
            "gateway gw_vlan400",
            "dhcp dhcp_v100",
            "dhcp dhcp_v400",
            "nat nat_vlan400",
            "probe probe_vlan100",
            "probe probe_vlan400"
        ]
    );
    let Spec::Trunk(trunk) = spec(&world, "w1", Kind::Trunk, "uplink") else {
        panic!()
    };
    assert_eq!(trunk.vlans.iter().map(|v| v.get()).collect::<Vec<_>>(), [100, 400]);
    let Spec::Trunk(trunk) = spec(&world, "w2", Kind::Trunk, "uplink") else {
        panic!()
    };
    assert_eq!(trunk.vlans.iter().map(|v| v.get()).collect::<Vec<_>>(), [100]);
    let Spec::Port(eth0) = spec(&world, "w2", Kind::Port, "tap_1001_eth0") else {
        panic!()
    };
    assert_eq!(
        (eth0.vlan, eth0.addresses),
        (None, vec![]),
        "eth0 without internet reaches nothing"
    );
}

fn flows(world: &World, node: &str, vlan: u16) -> Flows {
    match spec(world, node, Kind::Flows, &format!("flows_vlan{vlan}")) {
        Spec::Flows(flows) => flows,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_flows_of_a_link_name_every_guest_of_it_on_any_worker() {
    let mut world = World::new();
    world.apply(vec![shop("shop")], true).unwrap();
    let on_w1 = flows(&world, "w1", 100);
    assert_eq!(on_w1, flows(&world, "w2", 100));
    let guests: BTreeSet<Mac> = [("web", 1), ("db", 1)]
        .map(|(vm, i): (_, usize)| world.vm("shop", vm).interfaces[i].mac)
        .into();
    assert_eq!(on_w1.guests, guests);
    assert_eq!(on_w1.gateway_mac, Mac::of_gateway(on_w1.vlan));
    assert_eq!(on_w1.dhcp.map(|(mac, _)| mac), Some(Mac::of_dhcp(on_w1.vlan)));
    assert!(!on_w1.port_security && !on_w1.protected, "a choice, off by default");
    let limits = [on_w1.broadcast_limit, on_w1.unknown_unicast_limit];
    assert_eq!(limits.map(|limit| limit.unwrap().get()), [1000, 1000]);
}

#[test]
fn vlan_400_is_protected_on_every_worker_with_a_guest_there_and_stays_so() {
    let mut world = World::new();
    world.join("w3", NodeRole::Worker);
    let mut far = shop("far");
    far.vms[0].worker = "w3".into();
    world.apply(vec![shop("shop"), far], true).unwrap();
    let internet = flows(&world, "w1", 400);
    assert_eq!(internet, flows(&world, "w3", 400));
    assert!(internet.port_security && internet.protected && internet.guests.is_empty());
    assert!(!has_flows(&world, "w2", 400), "no guest of w2 has internet");
    let before = world.state.node_desired(&name("w1"));
    world.undeploy("far");
    assert!(!has_flows(&world, "w3", 400) && has_flows(&world, "w1", 400));
    assert_eq!(
        world.state.node_desired(&name("w1")),
        before,
        "another's guest is not its business"
    );
    world.undeploy("shop");
    assert!(world.state.desired.node(&name("w1")).is_none());
}

fn has_flows(world: &World, node: &str, vlan: u16) -> bool {
    let node = world.state.node_desired(&name(node));
    let flows = format!("flows_vlan{vlan}");
    node.resources.keys().any(|key| key.name.as_str() == flows)
}

#[test]
fn without_a_network_node_guests_have_their_flows_nonetheless() {
    let mut world = World::empty(Settings::default());
    world.join("w1", NodeRole::Worker);
    world.join("w2", NodeRole::Worker);
    world.apply(vec![shop("shop")], true).unwrap();
    assert!(has_flows(&world, "w1", 400) && has_flows(&world, "w2", 100));
}

#[test]
fn dhcp_has_the_range_the_options_and_a_reservation_for_every_end() {
    let mut world = World::new();
    world.apply(vec![shop("shop")], true).unwrap();
    let Spec::Dhcp(dhcp) = spec(&world, "n1", Kind::Dhcp, "dhcp_v100") else {
        panic!()
    };
    let (first, last) = dhcp.range.unwrap();
    assert_eq!(
        (first.to_string(), last.to_string()),
        ("10.64.100.10".into(), "10.64.100.250".into())
    );
    assert_eq!(dhcp.router.to_string(), "10.64.100.1");
    assert_eq!(dhcp.address.to_string(), "10.64.100.254/24");
    assert_eq!(dhcp.dns[0].to_string(), "8.8.8.8");
    let told: Vec<_> = dhcp
        .reservations
        .iter()
        .map(|r| (r.hostname.as_str(), r.no_router))
        .collect();
    assert_eq!(
        told,
        [("web", true), ("db", false)],
        "web has its default route on eth0"
    );
    let Spec::Dhcp(internet) = spec(&world, "n1", Kind::Dhcp, "dhcp_v400") else {
        panic!()
    };
    assert_eq!((internet.range, internet.reservations.len()), (None, 1));
    assert!(!internet.reservations[0].no_router);
}

#[test]
fn dhcp_of_a_link_with_port_security_or_protection_serves_reservations_only() {
    for (port_security, protected) in [(true, false), (false, true), (true, true)] {
        let mut world = World::new();
        let vms = ["a", "b", "c"].map(|name| vm(name, "w1", 1)).to_vec();
        let mut wanted = slice("lab", vms, vec![link(&["a.eth1", "b.eth1", "c.eth1"])]);
        (wanted.links[0].port_security, wanted.links[0].protected) = (port_security, protected);
        world.apply(vec![wanted], true).unwrap();
        let Spec::Dhcp(dhcp) = spec(&world, "n1", Kind::Dhcp, "dhcp_v100") else {
            panic!()
        };
        assert_eq!((dhcp.range, dhcp.reservations.len()), (None, 3));
    }
}

#[test]
fn a_link_without_dhcp_has_a_gateway_only() {
    let mut world = World::new();
    let mut spec = shop("shop");
    spec.links[0].dhcp_off = true;
    world.apply(vec![spec], true).unwrap();
    let node = world.state.node_desired(&name("n1"));
    let has = |n: &str| node.resources.keys().any(|k| k.name.as_str() == n);
    assert!(has("gw_vlan100") && !has("dhcp_v100"));
    assert_eq!(flows(&world, "w1", 100).dhcp, None);
}

#[test]
fn a_node_with_isolated_ports_only_has_an_empty_trunk() {
    let mut world = World::new();
    world
        .apply(vec![slice("lab", vec![vm("a", "w1", 2)], vec![])], true)
        .unwrap();
    let Spec::Trunk(trunk) = spec(&world, "w1", Kind::Trunk, "uplink") else {
        panic!()
    };
    assert!(trunk.vlans.is_empty());
    assert!(world.state.desired.node(&name("n1")).is_none());
}

#[test]
fn a_change_touches_only_the_nodes_that_it_concerns_and_keeps_the_others_very_bytes() {
    let mut world = World::new();
    world.join("w3", NodeRole::Worker);
    world.apply(vec![shop("a")], true).unwrap();
    let before = world.state.desired.node(&name("w2")).unwrap().clone();
    world.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into();
    let other = slice(
        "b",
        vec![vm("x", "w1", 1), vm("y", "w3", 1)],
        vec![link(&["x.eth1", "y.eth1"])],
    );
    let step = world.apply(vec![other], true).unwrap();
    let touched: Vec<&str> = step.touched.iter().map(Name::as_str).collect();
    assert_eq!(touched, ["n1", "w1", "w3"]);
    assert!(std::sync::Arc::ptr_eq(
        &before,
        world.state.desired.node(&name("w2")).unwrap()
    ));
    let node = world.state.node_desired(&name("w1"));
    let traced: Vec<String> = node
        .resources
        .values()
        .filter(|e| !e.traceparent.is_empty())
        .map(|e| e.key.to_string())
        .collect();
    assert_eq!(
        traced,
        [
            "port tap_1002_eth0",
            "port tap_1002_eth1",
            "trunk uplink",
            "flows flows_vlan120",
            "probe probe_vlan120"
        ],
        "the rest was not changed by it"
    );
}

#[test]
fn a_restart_compiles_the_very_same() {
    let mut world = World::new();
    world.apply(vec![shop("a"), shop("b")], true).unwrap();
    world.undeploy("a");
    let loaded = State::load(world.state.cluster.clone(), &world.settings).unwrap();
    world.state.desired = world.state.desired.after_a_restart();
    assert_eq!(loaded, world.state);
}
