use std::collections::BTreeSet;

use trunkline_proto::{
    Name,
    resource::{Envelope, Kind, Probe, Spec},
};

use crate::{
    model::{NodeRole, ProbeSecret},
    settings::Settings,
    testing::*,
    transition::{Intent, State},
};

const DAY: u64 = 24 * 3600;

fn probe(world: &World, node: &str, vlan: u16) -> Option<Probe> {
    let node = world.state.node_desired(&name(node));
    let resource = format!("probe_vlan{vlan}");
    let found = node.resources.values().find(|e| e.key.name.as_str() == resource)?;
    match found.open().unwrap() {
        Spec::Probe(probe) => Some(probe),
        other => panic!("{other:?}"),
    }
}

fn peers(world: &World, node: &str, vlan: u16) -> Vec<String> {
    let probe = probe(world, node, vlan).map(|probe| probe.peers);
    probe.into_iter().flatten().map(|peer| peer.to_string()).collect()
}

/// A slice with a VM on each of these workers, all on one link; every VM has internet.
fn wide(workers: &[String]) -> trunkline_proto::wire::SliceSpec {
    let vms = workers.iter().map(|worker| online(&format!("vm-{worker}"), worker, 1));
    let ends: Vec<String> = workers.iter().map(|worker| format!("vm-{worker}.eth1")).collect();
    let ends: Vec<&str> = ends.iter().map(String::as_str).collect();
    let mut link = link(&ends);
    link.name = "wide".into();
    slice("wide", vms.collect(), vec![link])
}

fn workers(count: usize) -> Vec<String> {
    (1..=count).map(|i| format!("w{i:02}")).collect()
}

/// A cluster with that many workers and a slice over all of them.
fn spread(count: usize) -> World {
    let mut world = World::empty(Settings::default());
    for worker in workers(count + 1) {
        world.join(&worker, NodeRole::Worker);
    }
    world.join("nn", NodeRole::Netnode);
    world.apply(vec![wide(&workers(count))], true).unwrap();
    world
}

#[test]
fn every_pair_of_a_links_nodes_proves_its_vlan_at_its_mtu() {
    let mut world = World::new();
    let mut spec = shop("shop");
    spec.links[0].mtu = 1400;
    world.apply(vec![spec], true).unwrap();
    assert_eq!(peers(&world, "w1", 100), ["n1", "w2"]);
    assert_eq!(peers(&world, "w2", 100), ["n1", "w1"]);
    assert_eq!(peers(&world, "n1", 100), ["w1", "w2"]);
    let link = probe(&world, "w1", 100).unwrap();
    assert_eq!((link.vlan.get(), link.mtu), (100, 1400));
    let internet = probe(&world, "w1", 400).unwrap();
    assert_eq!((internet.vlan.get(), internet.mtu), (400, 1500));
    assert_eq!(
        link.keys,
        probe(&world, "n1", 100).unwrap().keys,
        "one key for all of a VLAN"
    );
    assert_ne!(link.keys, internet.keys, "and another for each VLAN");
}

#[test]
fn on_vlan_400_the_network_node_and_every_worker_prove_it_and_workers_not_to_each_other() {
    let world = spread(3);
    assert_eq!(peers(&world, "nn", 400), ["w01", "w02", "w03"]);
    for worker in workers(3) {
        assert_eq!(peers(&world, &worker, 400), ["nn"]);
    }
    assert_eq!(peers(&world, "w04", 400), Vec::<String>::new(), "no guest there");
}

#[test]
fn a_node_alone_on_its_vlan_proves_nothing() {
    let mut world = World::empty(Settings::default());
    world.join("w1", NodeRole::Worker);
    let pair = vec![online("a", "w1", 1), online("b", "w1", 1)];
    let link = vec![link(&["a.eth1", "b.eth1"])];
    world.apply(vec![slice("s", pair, link)], true).unwrap();
    assert!(!has_probes(&world, "w1"));
    world.join("n1", NodeRole::Netnode);
    assert_eq!(peers(&world, "w1", 100), ["n1"]);
    assert_eq!(peers(&world, "n1", 400), ["w1"]);
}

fn has_probes(world: &World, node: &str) -> bool {
    let node = world.state.node_desired(&name(node));
    node.resources.keys().any(|key| key.kind == Kind::Probe)
}

#[test]
fn up_to_16_nodes_are_proved_pair_by_pair_and_more_on_a_ring_with_the_network_node() {
    let world = spread(15);
    for worker in workers(15) {
        assert_eq!(peers(&world, &worker, 100).len(), 15);
    }
    let mut world = spread(40);
    let rings = [0, DAY, DAY].map(|later| {
        world.wait(later);
        assert_eq!(peers(&world, "nn", 100), workers(40));
        let of = |worker: &String| peers(&world, worker, 100);
        let rings: Vec<_> = workers(40).iter().map(of).collect();
        for (worker, peers) in workers(40).iter().zip(&rings) {
            assert_eq!(peers.len(), 3, "{peers:?}");
            assert!(peers.contains(&"nn".to_owned()) && !peers.contains(worker), "{peers:?}");
            let back = |peer: &String| rings[workers(40).iter().position(|w| w == peer).unwrap()].contains(worker);
            assert!(peers.iter().filter(|peer| *peer != "nn").all(back), "{peers:?}");
        }
        rings
    });
    assert!(rings[0] != rings[1] && rings[1] != rings[2], "others every day");
}

#[test]
fn a_third_worker_changes_the_probe_of_all_its_links_nodes_and_nothing_else() {
    let mut world = World::new();
    world.join("w3", NodeRole::Worker);
    let three = |count: usize| {
        let vms = (1..=3).map(|i| vm(&format!("vm{i}"), &format!("w{i}"), 1));
        let ends: Vec<String> = (1..=count).map(|i| format!("vm{i}.eth1")).collect();
        let mut long = link(&ends.iter().map(String::as_str).collect::<Vec<_>>());
        long.name = "long".into();
        slice("s", vms.collect(), vec![long])
    };
    world.apply(vec![shop("shop"), three(2)], true).unwrap();
    let before = world.state.clone();
    world.apply(vec![three(3)], true).unwrap();
    for node in ["w1", "w2"] {
        assert_eq!(
            changed(&before, &world.state, node),
            ["flows flows_vlan120", "probe probe_vlan120"]
        );
    }
    let on_n1 = changed(&before, &world.state, "n1");
    assert_eq!(on_n1, ["dhcp dhcp_v120", "probe probe_vlan120"]);
    assert_eq!(peers(&world, "w3", 120), ["n1", "w1", "w2"]);
}

/// Resources of a node that are not the very same as they were.
fn changed(before: &State, after: &State, node: &str) -> Vec<String> {
    let (before, after) = (before.node_desired(&name(node)), after.node_desired(&name(node)));
    let differs = |e: &&std::sync::Arc<Envelope>| before.resources.get(&e.key).map(|old| old.hash) != Some(e.hash);
    let changed = after.resources.values().filter(differs);
    changed.map(|envelope| envelope.key.to_string()).collect()
}

#[test]
fn on_a_long_link_a_worker_more_concerns_its_neighbours_and_the_network_node() {
    let mut world = spread(40);
    let before = world.state.clone();
    world.apply(vec![wide(&workers(41))], true).unwrap();
    let probes = |node: &String| {
        let changed = changed(&before, &world.state, node);
        changed.iter().filter(|key| *key == "probe probe_vlan100").count()
    };
    let told: usize = workers(40).iter().map(probes).sum();
    assert_eq!((told, probes(&"nn".into()), probes(&"w41".into())), (2, 1, 1));
}

#[test]
fn keys_change_daily_on_every_node_that_probes_and_nothing_else_does() {
    let mut world = World::new();
    world.join("w3", NodeRole::Worker);
    let alone = slice("alone", vec![vm("x", "w3", 1)], vec![]);
    world.apply(vec![shop("shop"), alone], true).unwrap();
    let ids = |world: &World| -> Vec<u32> {
        let probe = probe(world, "w2", 100).unwrap();
        probe.keys.iter().map(|key| key.id).collect()
    };
    assert_eq!(ids(&world), [1, 2], "in use, and the next");
    assert!(world.wait(DAY - 1).is_noop());
    let (before, first) = (world.state.clone(), probe(&world, "w2", 100).unwrap().keys);
    let step = world.wait(1);
    assert_eq!(step.touched, ["n1", "w1", "w2"].map(name).into());
    assert_eq!(changed(&before, &world.state, "w2"), ["probe probe_vlan100"]);
    assert_eq!(
        changed(&before, &world.state, "w1"),
        ["probe probe_vlan100", "probe probe_vlan400"]
    );
    assert_eq!(ids(&world), [2, 3, 1], "the one before is still understood");
    let now = probe(&world, "w2", 100).unwrap().keys;
    assert_eq!(
        (&now[2], &now[0]),
        (&first[0], &first[1]),
        "and nobody learns of it only now"
    );
    world.wait(DAY);
    assert_eq!(ids(&world), [3, 4, 2]);
    assert!(world.wait(0).is_noop());
}

#[test]
fn a_database_from_before_there_were_probes_gets_its_secret_at_the_first_tick() {
    let mut world = World::new();
    world.apply(vec![shop("shop")], true).unwrap();
    let mut old = world.state.cluster.clone();
    (old.meta.probe_secret, old.meta.probe_epoch) = (None, 0);
    let names: Vec<Name> = old.nodes.keys().cloned().collect();
    let told = State::load(old.clone(), &world.settings).unwrap();
    // Their records say what they have been told: nothing of probes.
    for node in &names {
        old.nodes.get_mut(node).unwrap().digest = hex::encode(told.node_desired(node).digest.to_vec());
    }
    world.state = State::load(old, &world.settings).unwrap();
    assert!(names.iter().all(|node| !has_probes(&world, node.as_str())));
    let step = world.must(Intent::Tick);
    assert_eq!(step.touched, names.iter().cloned().collect::<BTreeSet<_>>());
    assert_eq!(world.state.cluster.meta.probe_secret, Some(ProbeSecret::new([8; 32])));
    assert!(names.iter().all(|node| has_probes(&world, node.as_str())));
    assert!(world.must(Intent::Tick).is_noop(), "once");
}
