use std::sync::Arc;

use proptest::prelude::*;
use trunkline_proto::{
    Digest, Mac, VlanId, VmId,
    resource::{Envelope, Kind, Port, PortOwner, Spec, Trunk},
    wire,
};

use super::*;

fn judge() -> Judge {
    Judge {
        kinds: &[Kind::Port, Kind::Trunk],
        validate: Arc::new(|spec| match spec {
            Spec::Port(port) if port.mtu == 9000 => Err("no jumbo frames here".to_owned()),
            _ => Ok(()),
        }),
    }
}

fn port(id: u32, vlan: u32, mtu: u16) -> Envelope {
    let vm = VmId::try_from(id).unwrap();
    let spec = Spec::Port(Port {
        tap: format!("tap_{id}_eth1").parse().unwrap(),
        vlan: Some(VlanId::try_from(vlan).unwrap()),
        mac: Mac::of_interface(vm, 1),
        addresses: vec![],
        mtu,
        owner: PortOwner::default(),
    });
    Envelope::seal(&spec, "")
}

fn of_slice(slice: &str, envelope: Envelope) -> Envelope {
    let Spec::Port(mut port) = envelope.open().unwrap() else {
        panic!("a port")
    };
    slice.clone_into(&mut port.owner.slice);
    Envelope::seal(&Spec::Port(port), "")
}

fn trunk(vlans: &[u32]) -> Envelope {
    let vlans = vlans.iter().map(|v| VlanId::try_from(*v).unwrap()).collect();
    Envelope::seal(&Spec::Trunk(Trunk { vlans }), "")
}

fn digest(all: &[Envelope]) -> Digest {
    Digest::of(all.iter().map(|e| (&e.key, e.hash)))
}

fn at(term: u64, generation: u64) -> Position {
    Position { term, generation }
}

/// The change that leads from `held` to just `all`.
fn change(held: &Held, position: Position, all: &[Envelope]) -> Change {
    let keeps = |key: &trunkline_proto::resource::Key| all.iter().any(|e| e.key == *key);
    let same = |e: &Envelope| {
        held.entries()
            .any(|(_, entry)| entry.envelope.key == e.key && entry.envelope.hash == e.hash)
    };
    Change {
        cluster_id: "c1".to_owned(),
        position,
        base: held.position.generation,
        digest: digest(all),
        upserts: all.iter().filter(|e| !same(e)).cloned().collect(),
        removals: held
            .entries()
            .map(|(key, _)| key.clone())
            .filter(|key| !keeps(key))
            .collect(),
        intended: true,
    }
}

fn held(all: &[Envelope]) -> Held {
    let empty = Held::default();
    empty.take(change(&empty, at(1, 5), all), &judge()).unwrap()
}

fn names(held: &Held) -> Vec<String> {
    held.desired().items.keys().map(ToString::to_string).collect()
}

#[test]
fn a_change_is_taken_as_a_whole() {
    let held = held(&[port(1000, 110, 1500), port(1001, 110, 1500), trunk(&[110])]);
    let next = [port(1001, 111, 1500), trunk(&[111]), port(1002, 111, 1500)];
    let taken = held.take(change(&held, at(1, 6), &next), &judge()).unwrap();
    assert_eq!(
        names(&taken),
        ["port tap_1001_eth1", "port tap_1002_eth1", "trunk uplink"]
    );
    assert_eq!(taken.position, at(1, 6));
    assert_eq!(taken.digest(), digest(&next));
}

#[test]
fn an_older_generation_is_refused_and_an_older_term_too() {
    let held = held(&[port(1000, 110, 1500)]);
    for position in [at(1, 4), at(0, 99)] {
        let error = held.take(change(&held, position, &[]), &judge()).unwrap_err();
        assert!(matches!(error, TakeError::Older { .. }), "{error}");
    }
    held.take(change(&held, at(2, 1), &[]), &judge()).unwrap();
}

#[test]
fn the_same_position_with_other_content_is_an_error_of_its_own() {
    let all = [port(1000, 110, 1500)];
    let held = held(&all);
    let error = held.take(change(&held, at(1, 5), &[]), &judge()).unwrap_err();
    assert!(matches!(error, TakeError::SameButDifferent(_)), "{error}");
    held.take(change(&held, at(1, 5), &all), &judge()).unwrap();
}

#[test]
fn another_cluster_is_refused() {
    let held = held(&[]);
    let mut foreign = change(&held, at(9, 9), &[]);
    foreign.cluster_id = "c2".to_owned();
    let error = held.take(foreign, &judge()).unwrap_err();
    assert!(matches!(error, TakeError::ForeignCluster { .. }), "{error}");
}

#[test]
fn a_difference_from_another_base_or_to_another_digest_is_refused() {
    let held = held(&[port(1000, 110, 1500)]);
    let mut other_base = change(&held, at(1, 6), &[]);
    other_base.base = 4;
    let error = held.take(other_base, &judge()).unwrap_err();
    assert!(matches!(error, TakeError::Base { .. }), "{error}");
    let mut other_digest = change(&held, at(1, 6), &[]);
    other_digest.digest = digest(&[trunk(&[1])]);
    let error = held.take(other_digest, &judge()).unwrap_err();
    assert!(matches!(error, TakeError::Digest { .. }), "{error}");
}

#[test]
fn a_refused_version_counts_as_held_and_the_one_before_stays_realised() {
    let good = port(1000, 110, 1500);
    let first = held(&[good.clone(), port(1001, 110, 1500)]);
    let all = [port(1000, 111, 9000), port(1001, 111, 1500)];
    let second = first.take(change(&first, at(1, 6), &all), &judge()).unwrap();
    assert_eq!(second.digest(), digest(&all));
    let refused: Vec<_> = second.refused().collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(
        (refused[0].hash, &*refused[0].reason),
        (all[0].hash, "no jumbo frames here")
    );
    assert_eq!(second.desired().items[&good.key].hash, good.hash);
    assert_eq!(second.desired().items[&all[1].key].hash, all[1].hash);

    // A second bad version changes nothing about what is realised; a good one ends it.
    let all = [port(1000, 112, 9000), port(1001, 111, 1500)];
    let third = second.take(change(&second, at(1, 7), &all), &judge()).unwrap();
    assert_eq!(third.desired().items[&good.key].hash, good.hash);
    let all = [port(1000, 112, 1500), port(1001, 111, 1500)];
    let fourth = third.take(change(&third, at(1, 8), &all), &judge()).unwrap();
    assert_eq!(fourth.refused().count(), 0);
    assert_eq!(fourth.desired().items[&good.key].hash, all[0].hash);
}

#[test]
fn a_refused_newcomer_is_held_and_not_realised() {
    let all = [port(1000, 110, 9000), trunk(&[110])];
    let held = held(&all);
    assert_eq!(held.digest(), digest(&all));
    assert_eq!(names(&held), ["trunk uplink"]);
}

#[test]
fn a_kind_that_this_node_does_not_do_is_refused_by_name() {
    let mut unknown = wire::Resource::from(&port(1000, 110, 1500));
    unknown.kind = 77;
    let nat = Envelope::seal(
        &Spec::Nat(trunkline_proto::resource::Nat {
            vlan: VlanId::INTERNET,
            subnet: trunkline_proto::LinkSubnet::INTERNET.parse().unwrap(),
            gateway_port: trunkline_proto::PortName::gateway(VlanId::INTERNET),
        }),
        "",
    );
    let held = held(&[unknown.try_into().unwrap(), nat]);
    let reasons: Vec<_> = held.refused().map(|r| r.reason).collect();
    assert!(reasons.iter().any(|r| r.contains("upgrade")), "{reasons:?}");
    assert!(reasons.iter().any(|r| r.contains("nat")), "{reasons:?}");
}

#[test]
fn what_was_refused_is_judged_again_by_a_newer_program() {
    let held = held(&[port(1000, 110, 9000)]);
    let lenient = Judge {
        validate: Arc::new(|_| Ok(())),
        ..judge()
    };
    let restored = store::decode(&store::encode(&held), &lenient).unwrap();
    assert_eq!(restored.refused().count(), 0);
    assert_eq!(restored.desired().items.len(), 1);
    assert_eq!(restored.digest(), held.digest());
}

fn part(upserts: &[Envelope], last: bool) -> wire::Update {
    wire::Update {
        cluster_id: "c1".to_owned(),
        term: 1,
        base_generation: 0,
        generation: 5,
        digest: Digest::default().to_vec(),
        upserts: upserts.iter().map(Into::into).collect(),
        removals: vec![],
        last,
        removals_intended: true,
    }
}

#[test]
fn parts_make_a_whole_only_with_the_last() {
    let mut collector = Collector::default();
    assert_eq!(collector.push(part(&[port(1000, 1, 1500)], false)).unwrap(), None);
    let whole = collector.push(part(&[port(1001, 1, 1500)], true)).unwrap().unwrap();
    assert_eq!(whole.upserts.len(), 2);
    assert_eq!(collector.push(part(&[], true)).unwrap().unwrap().upserts.len(), 0);
}

#[test]
fn parts_of_different_updates_do_not_mix() {
    for other in [
        wire::Update {
            generation: 6,
            ..part(&[], true)
        },
        wire::Update {
            cluster_id: "c2".into(),
            ..part(&[], true)
        },
        wire::Update {
            base_generation: 1,
            ..part(&[], true)
        },
        wire::Update {
            digest: vec![1; 16],
            ..part(&[], true)
        },
    ] {
        let mut collector = Collector::default();
        collector.push(part(&[], false)).unwrap();
        assert!(matches!(collector.push(other), Err(TakeError::Disagree(_))));
    }
}

#[tokio::test]
async fn a_saved_inbox_is_loaded_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    assert!(matches!(store.load(&judge()).unwrap(), Loaded::Fresh));
    let first = held(&[port(1000, 110, 1500)]);
    let second = first
        .take(change(&first, at(1, 6), &[port(1000, 111, 9000)]), &judge())
        .unwrap();
    store.save(&second).await.unwrap();
    let Loaded::Held(loaded) = store.load(&judge()).unwrap() else {
        panic!("not loaded")
    };
    assert_eq!((loaded.position, loaded.digest()), (second.position, second.digest()));
    assert_eq!(loaded.desired(), second.desired());
    assert_eq!(
        loaded.refused().collect::<Vec<_>>(),
        second.refused().collect::<Vec<_>>()
    );
}

#[test]
fn a_damaged_inbox_is_set_aside_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    std::fs::write(store.path(), b"rubbish").unwrap();
    let Loaded::SetAside { path, .. } = store.load(&judge()).unwrap() else {
        panic!("not set aside")
    };
    assert_eq!(std::fs::read(path).unwrap(), b"rubbish");
    assert!(matches!(store.load(&judge()).unwrap(), Loaded::Fresh));
}

#[test]
fn an_inbox_cut_at_any_byte_is_noticed() {
    let bytes = store::encode(&held(&[port(1000, 110, 1500), trunk(&[110])]));
    for end in 0..bytes.len() {
        assert!(store::decode(&bytes[..end], &judge()).is_err(), "cut at {end}");
    }
    store::decode(&bytes, &judge()).unwrap();
}

proptest! {
    #[test]
    fn an_inbox_with_any_byte_altered_is_noticed(at in any::<prop::sample::Index>(), with in 1_u8..) {
        let mut bytes = store::encode(&held(&[port(1000, 110, 1500), trunk(&[110])]));
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        prop_assert!(store::decode(&bytes, &judge()).is_err());
    }

    /// A writer that is killed leaves the old file whole, and beside it at most a cut new one.
    #[test]
    fn the_old_inbox_survives_a_writer_killed_at_any_byte(cut in any::<prop::sample::Index>()) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let old = held(&[port(1000, 110, 1500)]);
        std::fs::write(store.path(), store::encode(&old)).unwrap();
        let new = store::encode(&held(&[port(1001, 111, 1500), trunk(&[111])]));
        std::fs::write(dir.path().join(".inbox.new"), &new[..cut.index(new.len())]).unwrap();
        let Loaded::Held(loaded) = store.load(&judge()).unwrap() else { panic!("not loaded") };
        prop_assert_eq!(loaded.digest(), old.digest());
    }

    /// Whatever two states are, the difference between them leads from one to the other.
    #[test]
    fn a_difference_leads_from_any_state_to_any_other(
        a in proptest::collection::btree_map(1000_u32..1010, (1_u32..5, prop::bool::ANY), 0..8),
        b in proptest::collection::btree_map(1000_u32..1010, (1_u32..5, prop::bool::ANY), 0..8),
    ) {
        let make = |m: &std::collections::BTreeMap<u32, (u32, bool)>| -> Vec<Envelope> {
            m.iter().map(|(id, (vlan, bad))| port(*id, *vlan, if *bad { 9000 } else { 1500 })).collect()
        };
        let (a, b) = (make(&a), make(&b));
        let first = held(&a);
        let second = first.take(change(&first, at(1, 6), &b), &judge()).unwrap();
        prop_assert_eq!(second.digest(), digest(&b));
        prop_assert_eq!(second.entries().len(), b.len());
        prop_assert_eq!(store::decode(&store::encode(&second), &judge()).unwrap().desired(), second.desired());
    }
}

/// The change from `held` to `all` that no operator asked for.
fn unasked(held: &Held, position: Position, all: &[Envelope]) -> Change {
    Change {
        intended: false,
        ..change(held, position, all)
    }
}

fn ports(ids: std::ops::Range<u32>) -> Vec<Envelope> {
    ids.map(|id| port(id, 110, 1500)).collect()
}

#[test]
fn removals_that_nobody_asked_for_wait_when_they_are_many() {
    let first = held(&ports(1000..1030));
    let second = first
        .take(unasked(&first, at(1, 6), &ports(1000..1020)), &judge())
        .unwrap();
    assert_eq!(
        (second.position, second.digest()),
        (at(1, 6), digest(&ports(1000..1020)))
    );
    assert_eq!((second.entries().len(), second.waiting().len()), (20, 10));
    assert_eq!(second.desired().items.len(), 30, "what waits stays realised");

    // The same again as an operator's wish goes at once.
    let asked = first
        .take(change(&first, at(1, 6), &ports(1000..1020)), &judge())
        .unwrap();
    assert_eq!((asked.waiting().len(), asked.desired().items.len()), (0, 20));
}

#[test]
fn what_waits_keeps_its_vlans_on_the_uplink_and_never_meets_another_slice() {
    let shop = |vlan| (1000..1012).map(move |id| port(id, vlan, 1500));
    let before: Vec<_> = shop(110).chain([trunk(&[110])]).collect();
    let first = held(&before);
    let uplink = |held: &Held| {
        let trunk = held.desired().trunks().map(|(_, _, trunk)| trunk.vlans.clone()).next();
        trunk.unwrap().into_iter().map(u32::from).collect::<Vec<_>>()
    };
    let open = |held: &Held| {
        held.desired()
            .ports()
            .filter(|(_, _, port)| port.vlan.is_some())
            .count()
    };

    let second = first
        .take(unasked(&first, at(1, 6), &[trunk(&[120])]), &judge())
        .unwrap();
    assert_eq!(
        (second.waiting().len(), uplink(&second), open(&second)),
        (12, vec![110, 120], 12)
    );

    // The same VLAN has come back as another slice's.
    let other = of_slice("other", port(2000, 110, 1500));
    let after = [other, trunk(&[110])];
    let third = first.take(unasked(&first, at(1, 6), &after), &judge()).unwrap();
    assert_eq!(
        (third.waiting().len(), uplink(&third), open(&third)),
        (12, vec![110], 1)
    );
}

#[test]
fn few_removals_pass_and_so_does_a_small_share() {
    let first = held(&ports(1000..1012));
    let nine = first
        .take(unasked(&first, at(1, 6), &ports(1000..1003)), &judge())
        .unwrap();
    assert_eq!((nine.waiting().len(), nine.desired().items.len()), (0, 3));
    let first = held(&ports(1000..1040));
    let share = first
        .take(unasked(&first, at(1, 6), &ports(1000..1028)), &judge())
        .unwrap();
    assert_eq!(share.waiting().len(), 0, "12 of 40 are just 30%");
    let more = first
        .take(unasked(&first, at(1, 6), &ports(1000..1027)), &judge())
        .unwrap();
    assert_eq!(more.waiting().len(), 13);
    // Bit by bit is no way around it.
    let bit = more
        .take(unasked(&more, at(1, 7), &ports(1000..1026)), &judge())
        .unwrap();
    assert_eq!((bit.waiting().len(), bit.desired().items.len()), (14, 40));
}

#[test]
fn a_confirmation_carries_out_what_waits_at_just_its_position() {
    let first = held(&ports(1000..1030));
    let second = first.take(unasked(&first, at(1, 6), &[]), &judge()).unwrap();
    assert!(second.confirmed(at(1, 5)).is_none() && second.confirmed(at(2, 6)).is_none());
    assert!(first.confirmed(at(1, 5)).is_none(), "nothing waits");
    let confirmed = second.confirmed(at(1, 6)).unwrap();
    assert_eq!((confirmed.waiting().len(), confirmed.desired().items.len()), (0, 0));
    assert_eq!(
        (confirmed.position, confirmed.digest()),
        (second.position, second.digest())
    );
}

#[test]
fn what_comes_back_waits_no_longer() {
    let first = held(&ports(1000..1030));
    let second = first.take(unasked(&first, at(1, 6), &[]), &judge()).unwrap();
    let back = [port(1003, 111, 1500), port(1004, 111, 9000)];
    let third = second.take(unasked(&second, at(1, 7), &back), &judge()).unwrap();
    assert_eq!((third.entries().len(), third.waiting().len()), (2, 28));
    let desired = third.desired();
    assert_eq!(desired.items[&back[0].key].hash, back[0].hash);
    assert_eq!(
        desired.items[&back[1].key].hash,
        port(1004, 110, 1500).hash,
        "a refused version leaves the one that waited"
    );
    // An operator's removal is meant for what waits, too.
    let asked = Change {
        removals: ports(1005..1010).into_iter().map(|e| e.key).collect(),
        ..change(&third, at(1, 8), &back)
    };
    let fourth = third.take(asked, &judge()).unwrap();
    assert_eq!(fourth.waiting().len(), 23);
}

#[test]
fn what_waits_survives_a_restart_and_is_judged_again() {
    let first = held(&ports(1000..1030));
    let second = first
        .take(unasked(&first, at(1, 6), &ports(1000..1001)), &judge())
        .unwrap();
    let loaded = store::decode(&store::encode(&second), &judge()).unwrap();
    assert_eq!((loaded.digest(), loaded.waiting().len()), (second.digest(), 29));
    assert_eq!(loaded.desired(), second.desired());
    let strict = Judge {
        validate: Arc::new(|_| Err("no".to_owned())),
        ..judge()
    };
    let loaded = store::decode(&store::encode(&second), &strict).unwrap();
    assert_eq!((loaded.waiting().len(), loaded.desired().items.len()), (29, 0));
}

fn leaving(held: &Held) -> Vec<String> {
    held.leaving().map(|key| key.name.to_string()).collect()
}

#[test]
fn what_was_removed_is_remembered_over_a_restart_until_it_is_gone() {
    let all = ports(1000..1003);
    let before = held(&all);
    assert!(leaving(&before).is_empty());
    let fewer = before.take(change(&before, at(1, 6), &all[..1]), &judge()).unwrap();
    assert_eq!(leaving(&fewer), ["tap_1001_eth1", "tap_1002_eth1"]);
    assert_eq!(fewer.digest(), digest(&all[..1]), "it counts for nothing else");
    let restarted = store::decode(&store::encode(&fewer), &judge()).unwrap();
    assert_eq!(restarted.leaving().count(), 2);
    assert_eq!(restarted.desired().leaving.len(), 2);
    // One of them is wanted again, and then the rest is gone.
    let again = restarted
        .take(change(&restarted, at(1, 7), &all[..2]), &judge())
        .unwrap();
    assert_eq!(leaving(&again), ["tap_1002_eth1"]);
    assert!(leaving(&again.settled()).is_empty());
}

#[test]
fn what_waited_leaves_once_an_operator_says_so() {
    let before = held(&ports(1000..1020));
    let waits = before.take(unasked(&before, at(1, 6), &[]), &judge()).unwrap();
    assert_eq!((waits.waiting().len(), leaving(&waits).len()), (20, 0));
    let confirmed = waits.confirmed(at(1, 6)).unwrap();
    assert_eq!((confirmed.waiting().len(), leaving(&confirmed).len()), (0, 20));
}

proptest! {
    /// Whatever comes, both sides agree on what is held, nothing is lost that was not to go, and a confirmation ends it.
    #[test]
    fn held_removals_never_change_what_both_sides_agree_on(
        steps in proptest::collection::vec((proptest::collection::btree_set(1000_u32..1030, 0..30), any::<bool>()), 1..6),
    ) {
        let mut held = held(&ports(1000..1030));
        let mut asked_away = std::collections::BTreeSet::new();
        for (generation, (ids, intended)) in (6_u64..).zip(steps) {
            let all: Vec<_> = ids.iter().map(|id| port(*id, 110, 1500)).collect();
            let before: std::collections::BTreeSet<_> = held.entries().map(|(key, _)| key.clone()).collect();
            let realised = held.desired().items.len();
            let next = held.take(Change { intended, ..change(&held, at(1, generation), &all) }, &judge()).unwrap();
            prop_assert_eq!((next.digest(), next.position), (digest(&all), at(1, generation)));
            prop_assert_eq!(next.entries().len(), all.len());
            let now: std::collections::BTreeSet<_> = next.entries().map(|(key, _)| key.clone()).collect();
            if intended {
                asked_away.extend(before.difference(&now).cloned());
                prop_assert!(next.waiting().len() <= held.waiting().len());
            } else {
                let gone = realised.saturating_sub(next.desired().items.len());
                prop_assert!(gone < 10 || gone * 100 <= realised * 30, "{gone} of {realised} went unasked");
            }
            for key in &now { asked_away.remove(key); }
            prop_assert!(next.waiting().all(|(key, _)| !now.contains(key) && !asked_away.contains(key)));
            prop_assert_eq!(store::decode(&store::encode(&next), &judge()).unwrap().desired(), next.desired());
            held = next;
        }
        if let Some(end) = held.confirmed(held.position) {
            prop_assert_eq!(end.desired().items.len(), end.entries().len());
        }
    }
}
