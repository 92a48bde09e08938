//! A worker's life: closed, emptied, declared gone, back again. A move changes nothing but the place.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use trunkline_proto::{Name, VlanId, VmId};

use crate::{
    leftovers::{HeldBack, Word},
    model::{Frozen, Link, NodeRole, Position, Vm},
    settings::Settings,
    testing::*,
    transition::{Intent, Rejection, State, Step},
};

fn cordon(node: &str, cordoned: bool) -> Intent {
    Intent::CordonNode {
        name: node.into(),
        cordoned,
    }
}

fn drain(node: &str, onto: &str) -> Intent {
    Intent::DrainNode {
        name: node.into(),
        onto: onto.into(),
    }
}

fn gone(node: &str) -> Intent {
    Intent::DeclareNodeGone { name: node.into() }
}

fn move_vm(slice: &str, vm: &str, worker: &str) -> Intent {
    Intent::MoveVm {
        slice: slice.into(),
        name: vm.into(),
        worker: worker.into(),
        force: false,
        expected: 0,
    }
}

/// Three workers, all connected.
fn three() -> World {
    let mut world = World::new();
    world.join("w3", NodeRole::Worker);
    world.connected = ["w1", "w2", "w3", "n1"].map(name).into();
    world
}

fn refusal(world: &mut World, intent: Intent) -> (&'static str, String) {
    match world.try_do(intent) {
        Err(Rejection::Precondition { kind, description, .. }) => (kind, description),
        Err(other) => ("INVALID", other.to_string()),
        Ok(_) => panic!("it was done"),
    }
}

fn kinds(step: &Step) -> Vec<&'static str> {
    step.events.iter().map(|event| event.kind).collect()
}

#[test]
fn a_cordoned_worker_keeps_its_vms_and_takes_no_new_ones() {
    let mut world = three();
    world.apply(vec![shop("a")], true).unwrap();
    assert_eq!(kinds(&world.must(cordon("w1", true))), ["node.cordoned"]);
    assert!(world.must(cordon("w1", true)).is_noop());
    assert!(
        world.apply(vec![shop("a")], true).unwrap().is_noop(),
        "who is there stays"
    );
    let told = world.violations(vec![shop("b")]);
    assert_eq!(told[0].field, "slices[0].vms[0].worker");
    assert!(
        told[0].description.contains("cordoned") && told[0].description.contains("uncordon w1"),
        "{told:?}"
    );
    let placed = slice("c", vec![vm("x", "", 0), vm("y", "", 0), vm("z", "", 0)], vec![]);
    world.apply(vec![placed], true).unwrap();
    let on: BTreeSet<&str> = world.slice("c").vms.values().map(|vm| vm.worker.as_str()).collect();
    assert_eq!(on, ["w2", "w3"].into());
    assert_eq!(kinds(&world.must(cordon("w1", false))), ["node.uncordoned"]);
    world.apply(vec![shop("b")], true).unwrap();
}

#[test]
fn when_every_worker_is_closed_the_answer_says_why_and_what_to_do() {
    let mut world = World::new();
    world.must(cordon("w1", true));
    world.must(gone("w2"));
    let told = world.violations(vec![slice("a", vec![vm("x", "", 0)], vec![])]);
    let text = &told[0].description;
    assert!(text.contains("w1 is cordoned, w2 was declared gone at"), "{text}");
    let (kind, text) = refusal(&mut world, cordon("n1", true));
    assert!(kind == "NOT_A_WORKER" && text.contains("network node"), "{text}");
}

#[test]
fn a_moved_vm_keeps_what_it_has_and_a_deploy_takes_its_port_along() {
    let mut world = three();
    world.apply(vec![shop("a")], true).unwrap();
    let (vm, link) = (world.vm("a", "web").clone(), world.slice("a").links.clone());
    let step = world.must(move_vm("a", "web", "w3"));
    assert_eq!(kinds(&step), ["vm.moved"]);
    assert!(step.touched.is_empty(), "a draft touches no host");
    let expected = Vm {
        worker: name("w3"),
        placed: false,
        ..vm
    };
    assert_eq!((world.vm("a", "web"), &world.slice("a").links), (&expected, &link));
    let step = world.deploy("a");
    assert!(["w1", "w3"].iter().all(|node| step.touched.contains(&name(node))));
    let has = |world: &World, node: &str| {
        let desired = world.state.node_desired(&name(node));
        desired.resources.keys().any(|key| key.name.as_str() == "tap_1000_eth1")
    };
    assert!(has(&world, "w3") && !has(&world, "w1"));
    assert!(world.must(move_vm("a", "web", "w3")).is_noop());
}

#[test]
fn a_move_to_nowhere_is_refused_with_what_to_write() {
    let mut world = three();
    world.apply(vec![shop("a")], true).unwrap();
    let (_, text) = refusal(&mut world, move_vm("a", "web", "w9"));
    assert!(text.contains("write one of w1, w2, w3"), "{text}");
    let (_, text) = refusal(&mut world, move_vm("a", "web", "n1"));
    assert!(text.contains("there is no worker n1"), "{text}");
    world.must(cordon("w3", true));
    assert_eq!(refusal(&mut world, move_vm("a", "web", "w3")).0, "CORDONED");
    world.connected.remove(&name("w2"));
    world.must(gone("w2"));
    assert_eq!(refusal(&mut world, move_vm("a", "web", "w2")).0, "GONE");
    assert!(matches!(
        world.try_do(move_vm("a", "nobody", "w2")),
        Err(Rejection::NotFound { kind: "vm", .. })
    ));
}

#[test]
fn a_drained_worker_is_empty_and_every_deployed_slice_has_a_new_revision_as_before_but_for_the_moves() {
    let mut world = three();
    world.apply(vec![shop("a"), shop("b")], true).unwrap();
    world
        .apply(vec![slice("draft", vec![vm("x", "w1", 1)], vec![])], false)
        .unwrap();
    // The draft of b has gone on: that is not deployed by the way.
    let mut next = shop("b");
    next.vms.push(vm("new", "w2", 0));
    world.apply(vec![next], false).unwrap();
    let step = world.must(drain("w1", ""));
    assert_eq!(world.state.cluster.vms_on(&name("w1")), 0);
    assert!(world.state.cluster.nodes[&name("w1")].cordoned);
    let moved: Vec<String> = step
        .outcome
        .moved
        .iter()
        .map(|m| format!("{}/{} {} {}", m.slice, m.vm, m.from, m.to))
        .collect();
    assert_eq!(moved.len(), 3, "{moved:?}");
    assert_eq!(
        (
            world.slice("a").deployed,
            world.slice("b").deployed,
            world.slice("draft").deployed
        ),
        (Some(2), Some(2), None)
    );
    assert!(!world.slice("a").draft_differs() && world.slice("b").draft_differs());
    assert!(!world.slice("b").deployed().unwrap().vms.contains_key(&name("new")));
    assert!(world.state.node_desired(&name("w1")).resources.is_empty());
    let told = kinds(&step);
    for kind in ["node.cordoned", "vm.moved", "slice.deployed", "node.drained"] {
        assert!(told.contains(&kind), "{told:?}");
    }
    assert!(
        step.events
            .iter()
            .all(|e| e.actor == "operator/alice" && e.revision == step.state.cluster.meta.revision)
    );
    assert!(world.must(drain("w1", "")).is_noop());
    world.connected.remove(&name("w1"));
    world.must(Intent::RemoveNode { name: "w1".into() });
}

#[test]
fn a_node_is_replaced_by_another_that_takes_all_it_had() {
    let mut world = three();
    world.apply(vec![shop("a"), shop("b")], true).unwrap();
    for (onto, wanted) in [("w1", "emptied"), ("w9", "no worker w9"), ("n1", "no worker n1")] {
        let (_, text) = refusal(&mut world, drain("w1", onto));
        assert!(text.contains(wanted), "{text}");
    }
    world.connected.remove(&name("w3"));
    assert_eq!(refusal(&mut world, drain("w1", "w3")).0, "NOT_CONNECTED");
    assert!(!world.state.cluster.nodes[&name("w1")].cordoned, "all or nothing");
    world.connected.insert(name("w3"));
    let step = world.must(drain("w1", "w3"));
    assert!(step.outcome.moved.iter().all(|m| m.to == name("w3")) && step.outcome.moved.len() == 2);
}

#[test]
fn a_drain_with_nowhere_to_go_moves_nothing() {
    let mut world = World::new();
    world.apply(vec![shop("a")], true).unwrap();
    world.must(cordon("w2", true));
    let before = world.state.clone();
    let (kind, text) = refusal(&mut world, drain("w1", ""));
    assert!(
        kind == "NO_WORKER" && text.contains("vm web of slice a has nowhere to go"),
        "{text}"
    );
    assert_eq!(world.state, before);
}

#[test]
fn a_drain_puts_nothing_on_a_worker_that_is_away_and_says_who_could_take_it() {
    let mut world = three();
    world.apply(vec![shop("a")], true).unwrap();
    world.connected = ["w1", "n1"].map(name).into();
    world.must(cordon("w3", true));
    let before = world.state.clone();
    let (kind, text) = refusal(&mut world, drain("w1", ""));
    assert_eq!((kind, &world.state), ("NO_WORKER", &before));
    let wanted = [
        "vm web of slice a has nowhere to go",
        "w2 is not connected, w3 is cordoned",
        "node uncordon",
        "start",
    ];
    assert!(wanted.iter().all(|wanted| text.contains(wanted)), "{text}");
    // Where its draft has it already is no place for it either, while nobody is there.
    world.must(cordon("w3", false));
    world.connected.insert(name("w3"));
    world.must(move_vm("a", "web", "w3"));
    world.connected = ["w1", "w2", "n1"].map(name).into();
    let step = world.must(drain("w1", ""));
    assert_eq!(step.outcome.moved[0].to, name("w2"));
}

#[test]
fn a_move_to_a_worker_that_is_away_has_to_be_forced() {
    let mut world = three();
    world.apply(vec![shop("a")], true).unwrap();
    world.connected.remove(&name("w3"));
    let (kind, text) = refusal(&mut world, move_vm("a", "web", "w3"));
    assert!(
        kind == "NOT_CONNECTED" && text.contains("start w3") && text.contains("force"),
        "{text}"
    );
    let Intent::MoveVm {
        slice,
        name: vm,
        worker,
        expected,
        ..
    } = move_vm("a", "web", "w3")
    else {
        unreachable!()
    };
    world.must(Intent::MoveVm {
        slice,
        name: vm,
        worker,
        force: true,
        expected,
    });
    assert_eq!(world.vm("a", "web").worker, name("w3"));
    // Who is there already is moved nowhere.
    assert!(world.must(move_vm("a", "web", "w3")).is_noop());
    // No force opens a worker that an operator has closed.
    world.must(cordon("w2", true));
    let forced = Intent::MoveVm {
        slice: "a".into(),
        name: "web".into(),
        worker: "w2".into(),
        force: true,
        expected: 0,
    };
    assert_eq!(refusal(&mut world, forced).0, "CORDONED");
}

#[test]
fn a_vm_that_was_moved_in_the_draft_follows_its_draft() {
    let mut world = three();
    world.apply(vec![shop("a")], true).unwrap();
    world.must(move_vm("a", "web", "w3"));
    world.must(drain("w1", ""));
    assert_eq!(
        world.slice("a").deployed().unwrap().vms[&name("web")].worker,
        name("w3")
    );
    assert_eq!(world.vm("a", "web").worker, name("w3"));
}

#[test]
fn a_rollback_brings_a_moved_vm_back_and_says_so_unless_its_worker_is_cordoned() {
    let mut world = three();
    world.apply(vec![shop("a")], true).unwrap();
    world.must(move_vm("a", "web", "w3"));
    world.deploy("a");
    let back = Intent::Rollback {
        name: "a".into(),
        number: 1,
        expected: 0,
    };
    let step = world.must(back.clone());
    assert_eq!(step.outcome.renumbered, ["vm web: worker w3 -> w1, as it was"]);
    world.must(drain("w1", ""));
    let (kind, text) = refusal(&mut world, back);
    assert!(kind == "CORDONED" && text.contains("node uncordon w1"), "{text}");
}

#[test]
fn nobody_waits_for_a_node_that_is_declared_gone() {
    let mut world = World::new();
    world.settings.vlan_last = VlanId::try_from(103).unwrap();
    world.settings.vlan_pool_size = 4;
    world.connected = ["w1", "n1"].map(name).into();
    world.apply(vec![shop("a")], true).unwrap();
    world.delete("a");
    world.clean("w1");
    world.clean("n1");
    world.wait(3600);
    assert!(world.apply(vec![shop("b")], true).is_err(), "w2 may still have it");
    assert_eq!(refusal(&mut world, gone("w1")).0, "CONNECTED");
    let step = world.must(gone("w2"));
    assert_eq!(kinds(&step), ["node.gone", "slice.gone"]);
    assert!(world.must(gone("w2")).is_noop());
    world.wait(59);
    assert!(world.apply(vec![shop("b")], true).is_err());
    world.wait(1);
    world.apply(vec![shop("b")], true).unwrap();
    // What names it waits for it; what leaves it does not.
    world.delete("b");
    world.clean("w1");
    world.clean("n1");
    world.wait(60);
    world.apply(vec![shop("c")], true).unwrap();
    world.connected.insert(name("w2"));
    assert_eq!(kinds(&world.join("w2", NodeRole::Worker)), ["node.returned"]);
    assert!(world.join("w2", NodeRole::Worker).is_noop());
}

#[test]
fn a_node_that_comes_back_in_time_is_waited_for_again() {
    let mut world = World::new();
    world.apply(vec![shop("a")], true).unwrap();
    world.delete("a");
    world.clean("w1");
    world.clean("n1");
    world.must(gone("w2"));
    world.wait(30);
    world.join("w2", NodeRole::Worker);
    world.wait(3600);
    let departures = &world.state.cluster.departures;
    assert!(departures.values().all(|d| d.waiting.contains_key(&name("w2"))) && departures.len() == 1);
    world.clean("w2");
    world.wait(60);
    assert!(world.state.cluster.departures.is_empty());
}

#[test]
fn what_a_restore_holds_back_does_not_wait_for_a_node_that_is_gone_and_its_own_word_of_that_is_forgotten() {
    let mut world = World::new();
    world.must(gone("w2"));
    world.state = State::load(world.state.cluster.clone().restored(2), &world.settings).unwrap();
    assert_eq!(world.state.cluster.nodes[&name("w2")].gone, None);
    for node in ["w1", "n1"] {
        world.clean(node);
    }
    world.wait(3600);
    assert!(world.state.cluster.meta.hold.is_some());
    world.must(gone("w2"));
    world.wait(60);
    assert_eq!(world.state.cluster.meta.hold, None);
}

#[test]
fn a_confirmation_is_for_what_a_connected_node_holds_back_now_and_is_told() {
    let mut world = three();
    let meant = |generation, leftovers: &str| Intent::ConfirmRemovals {
        name: "w1".into(),
        word: Word {
            at: Position { term: 1, generation },
            leftovers: leftovers.into(),
        },
    };
    let confirm = |generation| meant(generation, "5eed");
    assert_eq!(refusal(&mut world, confirm(7)).0, "NOTHING_HELD");
    let keys = world
        .apply(vec![shop("a")], true)
        .map(|_| world.state.node_desired(&name("w1")))
        .unwrap();
    let held = HeldBack {
        at: Position { term: 1, generation: 7 },
        keys: keys.resources.keys().cloned().collect(),
        total: 99,
        reservations: 90,
        leftovers: "5eed".into(),
    };
    let count = held.count();
    assert_eq!(count, 99);
    world.held.insert(name("w1"), Arc::new(held));
    let (kind, text) = refusal(&mut world, confirm(8));
    assert!(
        kind == "OTHER_GENERATION" && text.contains("of term 1 generation 7, not of term 1 generation 8"),
        "{text}"
    );
    for leftovers in ["", "cafe"] {
        let (kind, text) = refusal(&mut world, meant(7, leftovers));
        assert!(
            kind == "OTHER_LEFTOVERS" && text.contains("trunkctl node show w1"),
            "others have come or gone meanwhile, or the client knows of none: {text}"
        );
    }
    let step = world.must(confirm(7));
    assert!(step.is_noop() && step.outcome.confirmed == count);
    assert_eq!(kinds(&step), ["removals.confirmed"]);
    assert_eq!(step.events[0].revision, world.state.cluster.meta.revision);
    world.connected.remove(&name("w1"));
    assert_eq!(refusal(&mut world, confirm(7)).0, "NOT_CONNECTED");
    world.held.clear();
    let unknown = Intent::ConfirmRemovals {
        name: "w9".into(),
        word: Word::default(),
    };
    assert!(matches!(
        world.try_do(unknown),
        Err(Rejection::NotFound { kind: "node", .. })
    ));
}

#[test]
fn what_new_settings_change_was_asked_for_by_nobody() {
    let mut world = three();
    world.apply(vec![shop("a")], true).unwrap();
    let unasked = |world: &World| world.state.cluster.nodes[&name("w1")].unasked;
    assert!(unasked(&world).is_start());
    world.settings = Settings {
        default_mtu: 1400,
        ..world.settings.clone()
    };
    world.state = State::load(world.state.cluster.clone(), &world.settings).unwrap();
    world.must(Intent::Tick);
    let at = world.state.cluster.position();
    assert_eq!(unasked(&world), at);
    world.must(move_vm("a", "web", "w3"));
    world.deploy("a");
    assert_eq!(unasked(&world), at, "an operator's intent leaves it");
    let record = &world.state.cluster.nodes[&name("w1")];
    assert_eq!(
        record.given_at(at),
        record.past.last().map(|given| given.digest.as_str())
    );
}

/// All that a move may not change.
fn anchored(vms: &BTreeMap<Name, Arc<Vm>>, links: &BTreeMap<Name, Arc<Link>>) -> BTreeMap<VmId, Vm> {
    let nowhere = |vm: &Arc<Vm>| Vm {
        worker: name("anywhere"),
        placed: false,
        ..Vm::clone(vm)
    };
    assert!(
        links
            .values()
            .all(|link| link.ends.iter().all(|end| vms.contains_key(&end.vm)))
    );
    vms.values().map(|vm| (vm.id, nowhere(vm))).collect()
}

type Anchored = (BTreeMap<VmId, Vm>, BTreeMap<Name, Arc<Link>>);

fn of(frozen: Option<&Arc<Frozen>>) -> Option<Anchored> {
    frozen.map(|f| (anchored(&f.vms, &f.links), f.links.clone()))
}

#[derive(Debug, Clone)]
enum Op {
    Move(usize, usize, usize),
    Drain(usize, Option<usize>),
    Cordon(usize, bool),
    Deploy(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..3usize, 0..3usize, 0..4usize).prop_map(|(s, v, w)| Op::Move(s, v, w)),
        3 => (0..4usize, prop::option::of(0..4usize)).prop_map(|(w, onto)| Op::Drain(w, onto)),
        3 => (0..4usize, any::<bool>()).prop_map(|(w, yes)| Op::Cordon(w, yes)),
        2 => (0..3usize).prop_map(Op::Deploy),
    ]
}

const WORKERS: [&str; 4] = ["w1", "w2", "w3", "w4"];
const SLICES: [&str; 3] = ["a", "b", "c"];

fn world_of_moves() -> World {
    let mut world = three();
    world.join("w4", NodeRole::Worker);
    for (i, s) in SLICES.iter().enumerate() {
        let vms = vec![online("v0", WORKERS[i], 2), vm("v1", "", 2), online("v2", "", 1)];
        let links = vec![link(&["v0.eth1", "v1.eth1", "v2.eth1"]), link(&["v0.eth2", "v1.eth2"])];
        world.apply(vec![slice(s, vms, links)], i != 2).unwrap();
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_move_never_changes_a_mac_a_vlan_or_an_address(ops in prop::collection::vec(op(), 1..25)) {
        let mut world = world_of_moves();
        for op in &ops {
            let before = world.state.clone();
            let intent = match op {
                Op::Move(s, v, w) => move_vm(SLICES[*s], &format!("v{v}"), WORKERS[*w]),
                Op::Drain(w, onto) => drain(WORKERS[*w], onto.map_or("", |w| WORKERS[w])),
                Op::Cordon(w, yes) => cordon(WORKERS[*w], *yes),
                Op::Deploy(s) => Intent::Deploy { name: SLICES[*s].into(), expected: 0 },
            };
            match world.try_do(intent) {
                Err(Rejection::Internal(bug)) => panic!("{bug}"),
                Err(_) => prop_assert_eq!(&world.state, &before),
                Ok(step) => {
                    if let Op::Drain(w, _) = op {
                        let drained = name(WORKERS[*w]);
                        prop_assert_eq!(world.state.cluster.vms_on(&drained), 0);
                        prop_assert!(step.outcome.moved.iter().all(|m| m.to != drained && m.from == drained));
                    }
                }
            }
            for (slice, old) in &before.cluster.slices {
                let new = &world.state.cluster.slices[slice];
                prop_assert_eq!(anchored(&new.vms, &new.links), anchored(&old.vms, &old.links));
                prop_assert_eq!(&new.links, &old.links);
                if matches!(op, Op::Drain(..)) {
                    prop_assert_eq!(of(new.deployed()), of(old.deployed()));
                }
            }
        }
    }
}
