//! Deploy, undeploy, roll back, delete; nodes come and go; what leaves is kept until it is gone.

use trunkline_proto::VlanId;

use crate::{
    model::NodeRole,
    settings::Settings,
    testing::*,
    transition::{Intent, Rejection, State},
};

const LINK: &str = "web-eth1--db-eth1";

fn vlan(id: u32) -> VlanId {
    VlanId::try_from(id).unwrap()
}

/// A world in which every pool is the same four VLANs: a slice gets them only when they are free.
fn narrow() -> World {
    let mut world = World::new();
    world.settings.vlan_last = vlan(103);
    world.settings.vlan_pool_size = 4;
    world
}

#[test]
fn a_vlan_is_free_only_when_every_node_reported_it_gone_and_a_minute_passed() {
    let mut world = narrow();
    world.apply(vec![shop("a")], true).unwrap();
    world.delete("a");
    let mut b = shop("b");
    b.links[0].vlan = 100;
    let told = world.violations(vec![b.clone()]);
    assert!(told.iter().any(|v| v.description.contains("being removed")), "{told:?}");
    world.clean("w1");
    world.clean("w2");
    world.wait(3600);
    world.violations(vec![b.clone()]);
    world.clean("n1");
    world.wait(59);
    world.violations(vec![b.clone()]);
    let step = world.wait(1);
    assert_eq!(step.events[0].kind, "vlan.freed");
    world.apply(vec![b], true).unwrap();
}

#[test]
fn a_report_about_an_earlier_generation_frees_nothing() {
    let mut world = narrow();
    world.apply(vec![shop("a")], true).unwrap();
    let before = world.state.cluster.position();
    world.delete("a");
    let old = Intent::NodeClean {
        name: name("w1"),
        term: before.term,
        generation: before.generation,
    };
    assert!(world.must(old).is_noop());
    let future = Intent::NodeClean {
        name: name("w1"),
        term: 99,
        generation: 99,
    };
    assert!(
        world.must(future).is_noop(),
        "nobody can have cleaned what was not asked yet"
    );
}

#[test]
fn a_node_that_a_vlan_left_earlier_is_waited_for_too() {
    let mut world = narrow();
    world.apply(vec![shop("a")], true).unwrap();
    let mut moved = shop("a");
    moved.vms[0].worker = "w2".into();
    world.apply(vec![moved], true).unwrap();
    world.delete("a");
    world.clean("w2");
    world.clean("n1");
    world.wait(3600);
    let mut b = shop("b");
    b.links[0].vlan = 100;
    assert!(!world.violations(vec![b.clone()]).is_empty(), "w1 may still forward it");
    world.clean("w1");
    world.wait(60);
    world.apply(vec![b], true).unwrap();
}

#[test]
fn a_node_declared_gone_is_not_waited_for() {
    let mut world = narrow();
    world.apply(vec![shop("a")], true).unwrap();
    world.delete("a");
    world.clean("n1");
    world.clean("w1");
    world.connected = [name("w2")].into();
    let remove = || Intent::RemoveNode { name: "w2".into() };
    assert!(matches!(
        world.try_do(remove()),
        Err(Rejection::Precondition { kind: "CONNECTED", .. })
    ));
    world.connected.clear();
    world.must(remove());
    world.wait(60);
    assert!(world.state.cluster.departures.is_empty());
    assert!(matches!(world.try_do(remove()), Err(Rejection::NotFound { .. })));
}

#[test]
fn a_node_with_vms_cannot_be_removed() {
    let mut world = World::new();
    world.apply(vec![shop("a")], false).unwrap();
    let remove = Intent::RemoveNode { name: "w1".into() };
    assert!(matches!(
        world.try_do(remove),
        Err(Rejection::Precondition { kind: "IN_USE", .. })
    ));
}

#[test]
fn a_slice_of_the_same_name_is_another_tenant() {
    let mut world = narrow();
    world.apply(vec![shop("a")], true).unwrap();
    world.delete("a");
    let mut again = shop("a");
    again.links[0].vlan = 100;
    world.settings.vlan_last = vlan(200);
    assert!(!world.violations(vec![again]).is_empty());
    world.apply(vec![shop("a")], true).unwrap();
    assert_ne!(world.link("a", LINK).vlan, vlan(100));
}

#[test]
fn undeploy_and_deploy_again_keeps_the_vlan() {
    let mut world = World::new();
    world.apply(vec![shop("a")], true).unwrap();
    let step = world.undeploy("a");
    assert_eq!(step.touched.len(), 3);
    assert_eq!(world.state.desired.nodes().count(), 0, "nothing is left on any node");
    assert!(world.undeploy("a").is_noop());
    let step = world.deploy("a");
    assert_eq!(step.outcome.number, Some(2));
    assert_eq!(world.link("a", LINK).vlan, vlan(100));
}

#[test]
fn vlan_400_is_there_once_and_goes_with_its_last_user() {
    let mut world = World::new();
    let on_400 = |world: &World| {
        let node = world.state.node_desired(&name("n1"));
        let names = node.resources.keys().map(|k| k.name.to_string());
        names.filter(|n| n.ends_with("400")).collect::<Vec<_>>()
    };
    world.apply(vec![shop("a"), shop("b")], true).unwrap();
    assert_eq!(
        on_400(&world),
        ["gw_vlan400", "dhcp_v400", "nat_vlan400", "probe_vlan400"]
    );
    let addresses = ["a", "b"].map(|s| world.vm(s, "web").interfaces[0].address.unwrap());
    assert_ne!(addresses[0], addresses[1]);
    world.undeploy("a");
    assert_eq!(on_400(&world).len(), 4);
    world.delete("b");
    assert!(on_400(&world).is_empty());
}

#[test]
fn deleting_one_slices_link_leaves_every_resource_of_another_as_it_is() {
    let mut world = World::new();
    world.apply(vec![shop("a"), shop("b")], true).unwrap();
    let all = |world: &World| {
        let mut all = Vec::new();
        for (node, desired) in world.state.desired.nodes() {
            let own = desired.resources.iter().filter(|(k, _)| k.name.as_str() != "uplink");
            all.extend(own.map(|(k, e)| ((node.clone(), k.to_string()), e.spec.clone())));
        }
        all
    };
    let before = all(&world);
    let a = world.link("a", LINK).vlan;
    world.must(Intent::RemoveLink {
        slice: "a".into(),
        name: LINK.into(),
        expected: 0,
    });
    assert_eq!(all(&world), before, "a draft touches no host");
    world.deploy("a");
    let after = all(&world);
    let a_ids = ["web", "db"].map(|v| world.vm("a", v).id.to_string());
    let of_a = |key: &str| {
        key.ends_with(&format!("vlan{a}"))
            || key.ends_with(&format!("dhcp_v{a}"))
            || a_ids.iter().any(|id| key.contains(&format!("tap_{id}_eth1")))
    };
    let rest: Vec<_> = before.iter().filter(|((_, key), _)| !of_a(key)).collect();
    assert!(rest.iter().any(|((_, key), _)| key.contains("nat_vlan400")));
    for one in rest {
        assert!(after.contains(one), "{:?} changed", one.0);
    }
}

#[test]
fn a_rollback_brings_back_what_was_and_leaves_the_draft() {
    let mut world = World::new();
    world.apply(vec![shop("a")], true).unwrap();
    let first = world.slice("a").deployed().unwrap().clone();
    world
        .apply(vec![slice("a", vec![online("web", "w1", 1)], vec![])], true)
        .unwrap();
    let step = world.must(Intent::Rollback {
        name: "a".into(),
        number: 1,
        expected: 0,
    });
    assert_eq!((step.outcome.number, step.outcome.renumbered), (Some(3), vec![]));
    let now = world.slice("a").deployed().unwrap();
    assert_eq!((&now.vms, &now.links), (&first.vms, &first.links));
    assert!(world.slice("a").draft_differs());
    assert_eq!(world.slice("a").links.len(), 0);
}

#[test]
fn a_rollback_gets_new_values_for_what_was_taken_and_says_so() {
    let mut world = World::new();
    let mut a = shop("a");
    a.links[0].vlan = 2000;
    a.links[0].name = "core".into();
    a.vms[0].interfaces = vec![interface("eth0", "02:00:00:00:00:01", "10.60.7.200")];
    world.apply(vec![a], true).unwrap();
    world
        .apply(vec![slice("a", vec![vm("web", "w1", 1)], vec![])], true)
        .unwrap();
    for node in ["w1", "w2", "n1"] {
        world.clean(node);
    }
    world.wait(60);
    let mut b = shop("b");
    b.links[0].vlan = 2000;
    b.vms[0].interfaces = vec![interface("eth0", "02:00:00:00:00:01", "10.60.7.200")];
    world.apply(vec![b], true).unwrap();
    let step = world.must(Intent::Rollback {
        name: "a".into(),
        number: 1,
        expected: 0,
    });
    let told = step.outcome.renumbered.join("\n");
    for part in [
        "core: vlan 2000 -> 100",
        "10.60.7.200 -> ",
        "mac 02:00:00:00:00:01 -> ",
        "web.eth1: 10.71.208.10 -> 10.64.100.10",
    ] {
        assert!(told.contains(part), "{told}");
    }
    let frozen = world.slice("a").deployed().unwrap();
    assert_eq!(frozen.links[&name("core")].vlan, vlan(100));
}

#[test]
fn a_rollback_to_a_worker_that_is_gone_says_so() {
    let mut world = World::new();
    world.apply(vec![shop("a")], true).unwrap();
    let mut moved = shop("a");
    moved.vms[1].worker = "w1".into();
    world.apply(vec![moved], true).unwrap();
    world.must(Intent::RemoveNode { name: "w2".into() });
    let back = |number| Intent::Rollback {
        name: "a".into(),
        number,
        expected: 0,
    };
    assert!(matches!(
        world.try_do(back(1)),
        Err(Rejection::Precondition {
            kind: "WORKER_GONE",
            ..
        })
    ));
    assert!(matches!(world.try_do(back(9)), Err(Rejection::NotFound { .. })));
}

#[test]
fn only_the_last_few_revisions_are_kept() {
    let mut world = World::new();
    for i in 0..25 {
        world
            .apply(vec![slice("a", vec![vm("x", "w1", i % 2)], vec![])], true)
            .unwrap();
    }
    let numbers: Vec<u32> = world.slice("a").revisions.keys().copied().collect();
    assert_eq!(numbers, (16..=25).collect::<Vec<_>>());
}

#[test]
fn links_wait_for_the_network_node_and_follow_its_successor() {
    let mut world = World::empty(Settings::default());
    world.join("w1", NodeRole::Worker);
    world.join("w2", NodeRole::Worker);
    world.apply(vec![shop("a")], true).unwrap();
    assert_eq!(world.state.desired.nodes().count(), 2);
    let step = world.join("n1", NodeRole::Netnode);
    assert_eq!(
        step.touched,
        ["n1", "w1", "w2"].map(name).into(),
        "workers are told whom to probe"
    );
    assert_eq!(world.state.node_desired(&name("n1")).resources.len(), 8);
    let second = Intent::NodeJoined {
        name: name("n2"),
        role: NodeRole::Netnode,
    };
    assert!(matches!(
        world.try_do(second),
        Err(Rejection::Precondition {
            kind: "OTHER_NETNODE",
            ..
        })
    ));
    world.must(Intent::RemoveNode { name: "n1".into() });
    world.join("n2", NodeRole::Netnode);
    assert_eq!(world.state.node_desired(&name("n2")).resources.len(), 8);
}

#[test]
fn generations_rise_only_when_some_node_is_told_something() {
    let mut world = World::new();
    let generation = |w: &World| w.state.cluster.meta.generation;
    assert_eq!(generation(&world), 0);
    world.apply(vec![shop("a")], false).unwrap();
    assert_eq!(generation(&world), 0);
    let step = world.deploy("a");
    assert_eq!(generation(&world), 1);
    assert_eq!(
        step.state.cluster.slices[&name("a")]
            .deployed()
            .unwrap()
            .position
            .generation,
        1
    );
    world
        .apply(vec![slice("b", vec![vm("x", "w1", 0)], vec![])], true)
        .unwrap();
    assert_eq!(world.state.node_desired(&name("w1")).changed.generation, 2);
    assert_eq!(world.state.node_desired(&name("w2")).changed.generation, 1);
}

#[test]
fn new_settings_give_the_nodes_they_touch_a_new_generation() {
    let mut world = World::new();
    world.apply(vec![shop("a")], true).unwrap();
    world.settings.dns = vec![[9, 9, 9, 9].into()];
    world.state = State::load(world.state.cluster.clone(), &world.settings).unwrap();
    let step = world.must(Intent::Tick);
    assert_eq!(step.touched, [name("n1")].into());
    assert_eq!(world.state.node_desired(&name("n1")).changed.generation, 2);
    assert!(world.must(Intent::Tick).is_noop());
}

#[test]
fn settings_that_break_what_is_deployed_are_refused_at_start() {
    let mut world = World::new();
    world.apply(vec![shop("a")], true).unwrap();
    world.settings.internet_subnet = "10.61.0.0/24".parse().unwrap();
    assert!(State::load(world.state.cluster.clone(), &world.settings).is_err());
}
