#![allow(clippy::unwrap_used, clippy::field_reassign_with_default)]

use std::{collections::BTreeMap, sync::Arc};

use trunkline_proto::{
    Digest,
    resource::{Envelope, Spec, Trunk},
    wire,
};

use super::{
    difference,
    hello::Greeting,
    protocol::{Broken, Next, Protocol, Target},
};
use crate::{
    compile::NodeDesired,
    model::{NodeRecord, NodeRole, Position, Timestamp},
};

fn at(term: u64, generation: u64) -> Position {
    Position { term, generation }
}

fn desired(changed: Position, vlans: &[u32]) -> Arc<NodeDesired> {
    let vlans = vlans.iter().map(|vlan| (*vlan).try_into().unwrap()).collect();
    let envelope = Envelope::seal(&Spec::Trunk(Trunk { vlans }), "");
    let digest = Digest::of([(&envelope.key, envelope.hash)]);
    let resources = BTreeMap::from([(envelope.key.clone(), Arc::new(envelope))]);
    let mut desired = NodeDesired::default();
    (desired.changed, desired.digest, desired.resources) = (changed, digest, resources);
    Arc::new(desired)
}

fn greeting(position: Position, digest: Digest) -> Greeting {
    Greeting {
        node: "w1".parse().unwrap(),
        role: NodeRole::Worker,
        fresh: position == Position::default(),
        position,
        digest,
        instance: "i".into(),
        facts: wire::NodeFacts::default(),
        traceparent: String::new(),
    }
}

fn target(desired: &Arc<NodeDesired>, position: Position) -> Target<'static> {
    Target {
        desired: desired.clone(),
        position,
        record: None,
    }
}

fn update(next: Next) -> wire::Update {
    match next {
        Next::Update(mut parts) if parts.len() == 1 => parts.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_node_hears_of_the_cluster_even_if_there_is_nothing_for_it() {
    let mut protocol = Protocol::new("c1", &greeting(Position::default(), Digest::default()));
    let nothing = target(&Arc::default(), at(1, 7));
    let update = update(protocol.next(&nothing).unwrap());
    assert_eq!(
        (update.term, update.generation, update.base_generation, update.last),
        (1, 7, 0, true)
    );
    assert!(update.upserts.is_empty() && update.removals.is_empty());
    protocol
        .on_ack(wire::Ack {
            term: 1,
            generation: 7,
            ..wire::Ack::default()
        })
        .unwrap();
    assert_eq!(protocol.next(&nothing).unwrap(), Next::Wait);
}

#[test]
fn a_node_that_holds_the_same_at_an_older_position_is_only_moved() {
    let held = desired(at(1, 9), &[110]);
    let mut protocol = Protocol::new("c1", &greeting(at(1, 5), held.digest));
    let update = update(protocol.next(&target(&held, at(1, 12))).unwrap());
    assert_eq!(
        (update.generation, update.base_generation, update.upserts.len()),
        (9, 5, 0)
    );
    assert_eq!(update.digest, held.digest.to_vec());
}

#[test]
fn after_a_restore_a_node_is_told_under_the_new_term() {
    let held = desired(at(1, 50), &[110]);
    let wanted = desired(at(1, 40), &[120]);
    let mut protocol = Protocol::new("c1", &greeting(at(1, 50), held.digest));
    assert_eq!(protocol.next(&target(&wanted, at(2, 40))).unwrap(), Next::Inventory);
    let entry = held.resources.values().map(|e| wire::Held {
        key: Some((&e.key).into()),
        hash: e.hash.to_vec(),
    });
    protocol
        .on_inventory(wire::Inventory {
            held: entry.collect(),
            last: true,
        })
        .unwrap();
    let update = update(protocol.next(&target(&wanted, at(2, 40))).unwrap());
    assert_eq!((update.term, update.generation, update.upserts.len()), (2, 40, 1));
}

/// What a node that says it is at `position` and holds `held` is told of its removals, on the way to `wanted`.
fn intended(position: Position, held: &NodeDesired, wanted: &Arc<NodeDesired>, record: &NodeRecord) -> bool {
    let mut protocol = Protocol::new("c1", &greeting(position, held.digest));
    let target = Target {
        record: Some(record),
        ..target(wanted, wanted.changed)
    };
    assert_eq!(protocol.next(&target).unwrap(), Next::Inventory);
    let entry = |e: &Arc<Envelope>| wire::Held {
        key: Some((&e.key).into()),
        hash: e.hash.to_vec(),
    };
    let held = held.resources.values().map(entry).collect();
    protocol.on_inventory(wire::Inventory { held, last: true }).unwrap();
    update(protocol.next(&target).unwrap()).removals_intended
}

#[test]
fn removals_are_intended_when_nothing_but_intents_lies_between_what_the_node_holds_and_the_target() {
    let (given, wanted) = (desired(at(2, 5), &[110, 120]), desired(at(2, 9), &[110]));
    let hex = |of: &NodeDesired| hex::encode(of.digest.to_vec());
    let mut record = NodeRecord::new(NodeRole::Worker, Timestamp::default(), given.changed, hex(&given));
    record.change(wanted.changed, hex(&wanted));
    assert!(intended(at(2, 5), &given, &wanted, &record));
    assert!(
        intended(at(2, 8), &given, &wanted, &record),
        "nothing changed for it meanwhile"
    );
    assert!(
        intended(at(2, 3), &given, &wanted, &record),
        "what it had then is no longer known"
    );
    assert!(!intended(at(1, 99), &given, &wanted, &record), "before a restore");
    let stray = desired(at(2, 5), &[110, 130]);
    assert!(!intended(at(2, 5), &stray, &wanted, &record), "it was never given that");
    record.unasked = at(2, 7);
    assert!(!intended(at(2, 5), &given, &wanted, &record), "other settings since");
    assert!(intended(at(2, 7), &given, &wanted, &record), "it has had that");
}

#[test]
fn other_content_at_the_same_position_is_an_error_of_its_own() {
    let wanted = desired(at(1, 5), &[120]);
    let mut protocol = Protocol::new("c1", &greeting(at(1, 5), Digest::default()));
    let broken = protocol.next(&target(&wanted, at(1, 5))).unwrap_err();
    assert_eq!(broken, Broken::SameButOther { term: 1, generation: 5 });
}

#[test]
fn only_one_update_is_on_its_way() {
    let first = desired(at(1, 5), &[110]);
    let mut protocol = Protocol::new("c1", &greeting(Position::default(), Digest::default()));
    update(protocol.next(&target(&first, at(1, 5))).unwrap());
    let second = desired(at(1, 6), &[110, 120]);
    assert_eq!(protocol.next(&target(&second, at(1, 6))).unwrap(), Next::Wait);
    protocol
        .on_ack(wire::Ack {
            term: 1,
            generation: 5,
            ..wire::Ack::default()
        })
        .unwrap();
    assert_eq!(
        update(protocol.next(&target(&second, at(1, 6))).unwrap()).base_generation,
        5
    );
    let unasked = wire::Inventory::default();
    assert_eq!(protocol.on_inventory(unasked), Err(Broken::Inventory));
}

#[test]
fn a_large_difference_comes_in_parts_that_agree_and_only_the_last_is_marked() {
    let big = |n: u32| {
        let mut envelope = Envelope::seal(
            &Spec::Trunk(Trunk {
                vlans: Default::default(),
            }),
            "",
        );
        envelope.key.name = format!("r{n}").parse().unwrap();
        envelope.spec = vec![0; 400_000].into();
        envelope
    };
    let resources: BTreeMap<_, _> = (0..7).map(big).map(|e| (e.key.clone(), Arc::new(e))).collect();
    let mut node = NodeDesired::default();
    node.resources = resources;
    let head = wire::Update {
        cluster_id: "c1".into(),
        generation: 3,
        ..wire::Update::default()
    };
    let gone = [("gone", 1), ("too", 2)].map(|(name, n)| {
        let mut key = big(n).key;
        key.name = name.parse().unwrap();
        (key, big(n).hash)
    });
    let parts = difference::update(&head, &BTreeMap::from(gone), &node);
    assert!(parts.iter().all(|part| prost::Message::encoded_len(part) <= 1 << 20));
    assert_eq!(parts.iter().map(|part| part.upserts.len()).sum::<usize>(), 7);
    assert_eq!(parts.iter().map(|part| part.removals.len()).sum::<usize>(), 2);
    let last: Vec<bool> = parts.iter().map(|part| part.last).collect();
    assert_eq!(last, [false, false, false, true]);
    assert!(parts.iter().all(|part| part.cluster_id == "c1" && part.generation == 3));
}
