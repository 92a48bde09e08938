//! What is kept from everybody, and who is waited for: departures, and what a restore holds back.

use crate::{
    model::{NodeRole, Position},
    testing::*,
    transition::{Intent, State},
};

const LINK: &str = "web-eth1--db-eth1";

/// Every node says that it is clean of all but what it was told last.
fn all_are_clean(world: &mut World) {
    for node in ["w1", "w2", "n1"] {
        let Position { term, generation } = world.state.cluster.nodes[&name(node)].changed;
        world.must(Intent::NodeClean {
            name: name(node),
            term,
            generation,
        });
    }
}

#[test]
fn a_departure_waits_only_for_nodes_that_were_told_something() {
    let mut world = World::new();
    world.apply(vec![shop("a")], true).unwrap();
    let mut moved = shop("a");
    moved.vms[0].worker = "w2".into();
    world.apply(vec![moved], true).unwrap();
    assert!(!world.state.cluster.departures.is_empty());
    all_are_clean(&mut world);
    world.wait(3600);
    assert!(world.state.cluster.departures.is_empty());
}

#[test]
fn a_clock_that_was_a_day_ahead_holds_nothing_for_a_day() {
    let mut world = World::new();
    let exported = world.state.cluster.clone();
    world.state = State::load(exported.restored(2), &world.settings).unwrap();
    world.apply(vec![shop("a")], true).unwrap_err();
    let now = world.now;
    world.wait(24 * 3600);
    all_are_clean(&mut world);
    assert!(world.state.cluster.meta.hold.is_some());
    world.now = now;
    world.wait(0);
    world.wait(60);
    assert_eq!(world.state.cluster.meta.hold, None);

    world.apply(vec![shop("a")], true).unwrap();
    let now = world.now;
    world.wait(24 * 3600);
    world.delete("a");
    all_are_clean(&mut world);
    assert!(!world.state.cluster.departures.is_empty());
    world.now = now;
    world.wait(0);
    assert!(!world.state.cluster.departures.is_empty(), "the rest goes on");
    world.wait(60);
    assert!(world.state.cluster.departures.is_empty());
}

#[test]
fn another_size_of_subnet_does_not_hang_a_departure() {
    let mut world = World::new();
    let mut a = shop("a");
    a.links[0].subnet = "10.99.0.0/24".into();
    world.apply(vec![a.clone()], true).unwrap();
    a.links[0].subnet = "10.99.0.0/25".into();
    world.apply(vec![a], true).unwrap();
    all_are_clean(&mut world);
    world.wait(3600);
    assert!(world.state.cluster.departures.is_empty());
}

#[test]
fn after_a_restore_what_the_export_did_not_hold_waits_for_every_node() {
    let mut world = World::new();
    world.apply(vec![shop("kept")], true).unwrap();
    let exported = world.state.cluster.clone();
    world.apply(vec![shop("lost")], true).unwrap();
    let had = world.link("lost", LINK).vlan;
    // The export is from before slice "lost"; w2 is cut off and goes on forwarding its VLAN.
    world.state = State::load(exported.restored(2), &world.settings).unwrap();
    assert!(world.must(Intent::Tick).is_noop());
    let at = world.state.cluster.position();
    for node in ["w1", "w2", "n1"] {
        assert_eq!(
            world.state.node_desired(&name(node)).changed,
            at,
            "{node} hears of the new term"
        );
    }
    assert!(
        world.apply(vec![shop("kept")], true).unwrap().is_noop(),
        "what it holds stays"
    );
    let clean = |world: &mut World, node: &str, term| {
        let generation = at.generation;
        world.must(Intent::NodeClean {
            name: name(node),
            term,
            generation,
        });
    };
    clean(&mut world, "w1", 2);
    clean(&mut world, "n1", 2);
    clean(&mut world, "w2", 1);
    world.wait(3600);
    let why = world.violations(vec![shop("new")]);
    assert!(
        why[0].description.contains("after the restore") && why[0].description.contains("w2"),
        "{why:?}"
    );
    let mut given = shop("kept");
    given.links[0].vlan = had.into();
    let why = world.violations(vec![given]);
    assert!(why[0].description.contains("not given out yet"), "{why:?}");
    clean(&mut world, "w2", 2);
    assert!(world.apply(vec![shop("new")], true).is_err(), "the quarantine runs");
    assert!(world.state.cluster.next_due().is_some());
    world.wait(60);
    world.apply(vec![shop("new")], true).unwrap();
}

#[test]
fn after_a_restore_what_was_departing_in_the_export_waits_for_every_node_too() {
    let mut world = World::new();
    world.apply(vec![shop("going")], true).unwrap();
    let had = world.link("going", LINK).vlan;
    world.delete("going");
    all_are_clean(&mut world);
    let exported = world.state.cluster.clone();
    assert!(!exported.departures.is_empty());
    // After the export its VLAN is free and becomes that of slice "lost", which w2 goes on forwarding.
    world.wait(60);
    world.apply(vec![shop("lost")], true).unwrap();
    assert_eq!(world.link("lost", LINK).vlan, had);
    world.state = State::load(exported.restored(2), &world.settings).unwrap();
    world.wait(3600);
    let mut new = shop("new");
    new.vlan_pool_size = 1;
    let why = world.violations(vec![new.clone()]);
    assert!(why[0].description.contains("after the restore"), "{why:?}");
    all_are_clean(&mut world);
    world.wait(60);
    world.apply(vec![new], true).unwrap();
    assert_eq!(world.link("new", LINK).vlan, had);
}

#[test]
fn after_a_restore_a_node_that_is_gone_for_good_is_waited_for_until_it_is_removed() {
    let mut world = World::new();
    let exported = world.state.cluster.clone();
    world.state = State::load(exported.restored(2), &world.settings).unwrap();
    let at = world.state.cluster.position();
    for node in ["w1", "n1"] {
        world.must(Intent::NodeClean {
            name: name(node),
            term: at.term,
            generation: at.generation,
        });
    }
    world.must(Intent::RemoveNode { name: "w2".into() });
    world.wait(60);
    assert_eq!(world.state.cluster.meta.hold, None);
    world.join("w2", NodeRole::Worker);
    world.apply(vec![shop("new")], true).unwrap();
}

#[test]
fn a_node_that_was_removed_and_comes_back_in_time_is_waited_for_again() {
    let mut world = World::new();
    world.apply(vec![shop("a")], true).unwrap();
    let had = world.link("a", LINK).vlan;
    world.delete("a");
    world.clean("w1");
    world.clean("n1");
    // It never heard of the deletion, and forwards the VLAN still.
    let before = world.state.node_desired(&name("w2")).changed;
    world.must(Intent::RemoveNode { name: "w2".into() });
    world.wait(30);
    world.join("w2", NodeRole::Worker);
    world.wait(3600);
    let mut new = shop("b");
    new.vlan_pool_size = 1;
    new.links[0].vlan = had.into();
    assert!(world.apply(vec![new.clone()], true).is_err(), "w2 may still have it");
    // It is told where the cluster is, so it says when it is clean as of that.
    let now = world.state.node_desired(&name("w2")).changed;
    assert!(now >= before && now == world.state.cluster.position());
    world.must(Intent::NodeClean {
        name: name("w2"),
        term: before.term,
        generation: before.generation - 1,
    });
    world.wait(3600);
    assert_eq!(
        world.state.cluster.departures.len(),
        1,
        "clean of what it was told before"
    );
    world.clean("w2");
    world.wait(60);
    assert!(world.state.cluster.departures.is_empty());
    world.apply(vec![new], true).unwrap();
}

#[test]
fn a_node_that_joins_while_something_departs_is_asked_for_its_word_like_any_other() {
    let mut world = World::new();
    world.apply(vec![shop("a")], true).unwrap();
    world.delete("a");
    world.join("w9", NodeRole::Worker);
    all_are_clean(&mut world);
    world.wait(3600);
    assert_eq!(world.state.cluster.departures.len(), 1);
    world.clean("w9");
    world.wait(60);
    assert!(world.state.cluster.departures.is_empty());
}
