#![allow(clippy::unwrap_used, clippy::expect_used)]

mod probes;

use trunkline_proto::{Hash, resource::State as Health};

use super::*;
use crate::testing::*;

/// All nodes are connected and report everything ready.
fn ready(world: &World) -> Views {
    world.reported_ready(|_| None)
}

fn deployed() -> World {
    let mut world = World::new();
    world.apply(vec![shop("shop")], true).unwrap();
    world
}

fn status(world: &World, views: &Views) -> (wire::State, String) {
    let status = slice_status(&world.state, views, &name("shop"));
    (status.state(), status.reason)
}

fn of<'a>(views: &'a mut Views, node: &str, resource: &str) -> &'a mut Observation {
    let view = views.get_mut(&name(node)).unwrap();
    view.observations
        .values_mut()
        .find(|o| o.key.name.as_str() == resource)
        .unwrap()
}

#[test]
fn a_slice_is_ready_when_every_resource_on_every_node_is() {
    let world = deployed();
    let status = slice_status(&world.state, &ready(&world), &name("shop"));
    assert_eq!((status.state(), status.reason.as_str()), (wire::State::Ready, ""));
    assert_eq!(
        (status.resources, status.resources_ready),
        (20, 20),
        "a trunk under a link and a VM counts once"
    );
    assert_eq!(
        (status.links.len(), status.vms.len(), status.deployed_number),
        (1, 2, 1)
    );
    assert_eq!(
        status.links[0].resources.len(),
        12,
        "two ports, two flows, three trunks, gateway, dhcp, three probes"
    );
    let node = node_status(&world.state, &ready(&world), &name("n1"));
    assert_eq!((node.resources, node.resources_ready, node.in_step), (8, 8, true));
}

#[test]
fn an_observation_of_another_version_does_not_count() {
    let world = deployed();
    let mut views = ready(&world);
    of(&mut views, "w1", "tap_1000_eth1").hash = Hash::of(b"older");
    let (state, reason) = status(&world, &views);
    assert_eq!(state, wire::State::Pending);
    assert!(
        reason.contains("w1 has taken port tap_1000_eth1 and not reported it yet"),
        "{reason}"
    );
    views.get_mut(&name("w1")).unwrap().acked = Position::default();
    assert!(
        status(&world, &views)
            .1
            .contains("w1 has not taken port tap_1000_eth1 yet")
    );
}

#[test]
fn a_node_that_is_away_makes_it_unknown_since_then() {
    let world = deployed();
    let mut views = ready(&world);
    views.get_mut(&name("w2")).unwrap().connected = false;
    let (state, reason) = status(&world, &views);
    assert_eq!(state, wire::State::Unknown);
    assert!(
        reason.contains("w2 is not connected, last heard at 2023-11-14T22:13:20Z"),
        "{reason}"
    );
    views.remove(&name("w2"));
    assert!(
        status(&world, &views)
            .1
            .contains("w2 has not connected since the controller started")
    );
    let mut views = ready(&world);
    views.get_mut(&name("w2")).unwrap().complete = false;
    assert_eq!(status(&world, &views).0, wire::State::Unknown);
}

#[test]
fn a_refused_version_fails_with_the_nodes_reason() {
    let world = deployed();
    let mut views = ready(&world);
    let seen = of(&mut views, "n1", "dhcp_v100").clone();
    let refusal = Refusal {
        hash: seen.hash,
        reason: "upgrade it".into(),
    };
    views.get_mut(&name("n1")).unwrap().refused.insert(seen.key, refusal);
    let (state, reason) = status(&world, &views);
    assert_eq!(state, wire::State::Failed);
    assert_eq!(reason, "link web-eth1--db-eth1: n1 refused dhcp dhcp_v100: upgrade it");
}

#[test]
fn the_worst_part_gives_the_slices_state_and_reason() {
    let world = deployed();
    let mut views = ready(&world);
    let nat = of(&mut views, "n1", "nat_vlan400");
    nat.state = Health::Degraded;
    nat.reason = "table filter drops forwarded frames".into();
    let (state, reason) = status(&world, &views);
    assert_eq!(state, wire::State::Degraded);
    assert_eq!(
        reason,
        "vm web: n1, nat nat_vlan400: table filter drops forwarded frames"
    );
    of(&mut views, "w2", "tap_1001_eth1").state = Health::Failed;
    assert_eq!(status(&world, &views).0, wire::State::Failed);
}

#[test]
fn a_link_and_a_vm_with_internet_are_as_good_as_their_flows() {
    let world = deployed();
    for (node, flows, reason) in [
        (
            "w2",
            "flows_vlan100",
            "link web-eth1--db-eth1: w2, flows flows_vlan100: gone",
        ),
        ("w1", "flows_vlan400", "vm web: w1, flows flows_vlan400: gone"),
    ] {
        let mut views = ready(&world);
        let seen = of(&mut views, node, flows);
        seen.state = Health::Failed;
        seen.reason = "gone".into();
        assert_eq!(status(&world, &views), (wire::State::Failed, reason.to_owned()));
    }
}

#[test]
fn without_a_network_node_a_link_waits_and_says_for_what() {
    let mut world = World::empty(crate::settings::Settings::default());
    world.join("w1", crate::model::NodeRole::Worker);
    world.join("w2", crate::model::NodeRole::Worker);
    world.apply(vec![shop("shop")], true).unwrap();
    let (state, reason) = status(&world, &ready(&world));
    assert_eq!(state, wire::State::Pending);
    assert_eq!(reason, "link web-eth1--db-eth1: no network node has joined yet");
}

#[test]
fn a_slice_that_goes_away_has_a_status_until_every_node_has_cleaned() {
    let mut world = deployed();
    let views = ready(&world);
    world.delete("shop");
    assert_eq!(slices_with_status(&world.state), [name("shop")]);
    let now = slice_status(&world.state, &views, &name("shop"));
    assert!(now.removing && now.deployed_number == 0);
    assert_eq!(now.reason, "n1 is removing it; w1 is removing it; w2 is removing it");
    for node in ["w1", "w2", "n1"] {
        world.clean(node);
    }
    assert!(slices_with_status(&world.state).is_empty());
    assert!(!slice_status(&world.state, &views, &name("shop")).removing);
}

#[test]
fn an_observation_from_before_the_resource_was_another_does_not_count() {
    let mut world = deployed();
    let mut views = ready(&world);
    let mut other = shop("shop");
    other.links[0].mtu = 1400;
    world.apply(vec![other], true).unwrap();
    assert_eq!(status(&world, &views).0, wire::State::Pending);
    world.must(crate::transition::Intent::Rollback {
        name: "shop".into(),
        number: 1,
        expected: 0,
    });
    let (state, reason) = status(&world, &views);
    assert_eq!(state, wire::State::Pending, "{reason}");
    // Nodes that never took the version in between have nothing new to say, but that they have looked.
    for (node, view) in views.iter_mut() {
        view.acked = world.state.node_desired(node).changed;
        view.seen = view.acked;
    }
    assert_eq!(status(&world, &views).0, wire::State::Ready);
}

#[test]
fn what_did_not_change_stays_ready_while_the_node_takes_something_else() {
    let mut world = deployed();
    let views = ready(&world);
    world
        .apply(vec![slice("other", vec![vm("x", "w1", 1)], vec![])], true)
        .unwrap();
    let status = slice_status(&world.state, &views, &name("shop"));
    let unready: Vec<_> = status
        .vms
        .iter()
        .filter(|vm| vm.state() != wire::State::Ready)
        .collect();
    assert!(unready.iter().all(|vm| vm.reason.contains("trunk")), "{unready:?}");
}
