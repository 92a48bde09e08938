#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use proptest::collection::btree_map;
use proptest::prelude::*;

use super::*;

type World = BTreeMap<String, Link>;

fn tap(name: &str, mtu: u32) -> Tap {
    Tap {
        name: name.to_owned(),
        mtu,
    }
}

fn apply(plan: &Plan, world: &mut World) {
    let Plan {
        create,
        correct,
        remove,
        conflicts: _,
    } = plan;
    for tap in create {
        let link = Link {
            index: 1000 + u32::try_from(world.len()).unwrap(),
            name: tap.name.clone(),
            kind: Some("tun".into()),
            alias: Some(ALIAS.into()),
            mtu: tap.mtu,
            up: true,
            ..Link::default()
        };
        assert!(world.insert(tap.name.clone(), link).is_none(), "the name is taken");
    }
    for Correction { index, tap } in correct {
        let link = world.get_mut(&tap.name).unwrap();
        assert_eq!(link.index, *index);
        (link.mtu, link.up) = (tap.mtu, true);
    }
    for (name, index) in remove {
        assert_eq!(world.remove(name).unwrap().index, *index);
    }
}

fn any_name() -> impl Strategy<Value = String> {
    (1..8_u32).prop_map(|n| format!("tap_{n}_eth1"))
}

fn any_link() -> impl Strategy<Value = Link> {
    let kind = prop_oneof![3 => Just(Some("tun".to_owned())), 1 => Just(Some("veth".to_owned())), 1 => Just(None)];
    let alias = prop_oneof![3 => Just(Some(ALIAS.to_owned())), 1 => Just(Some("theirs".to_owned())), 1 => Just(None)];
    (kind, alias, 1400..1402_u32, any::<bool>(), 1..1000_u32).prop_map(|(kind, alias, mtu, up, index)| Link {
        index,
        kind,
        alias,
        mtu,
        up,
        ..Link::default()
    })
}

fn any_world() -> impl Strategy<Value = World> {
    btree_map(any_name(), any_link(), 0..6).prop_map(|links| {
        links
            .into_iter()
            .map(|(name, link)| (name.clone(), Link { name, ..link }))
            .collect()
    })
}

fn any_desired() -> impl Strategy<Value = Vec<Tap>> {
    btree_map(any_name(), 1400..1402_u32, 0..6)
        .prop_map(|taps| taps.iter().map(|(name, mtu)| tap(name, *mtu)).collect())
}

fn plan<'a>(desired: &[Tap], observed: impl IntoIterator<Item = &'a Link>) -> Plan {
    let desired = desired.iter().map(|tap| Tap {
        name: tap.name.as_str(),
        mtu: tap.mtu,
    });
    super::plan(desired, observed)
}

proptest! {
    #[test]
    fn after_a_plan_was_carried_out_the_next_one_is_empty(desired in any_desired(), mut world in any_world()) {
        let first = plan(&desired, world.values());
        apply(&first, &mut world);
        let next = plan(&desired, world.values());
        prop_assert!(next.is_empty(), "{next:?}");
        prop_assert_eq!(next.conflicts, first.conflicts);
    }

    #[test]
    fn no_device_without_our_mark_is_touched(desired in any_desired(), world in any_world()) {
        let mut after = world.clone();
        apply(&plan(&desired, world.values()), &mut after);
        for (name, link) in world.iter().filter(|(_, link)| !is_tap(link)) {
            prop_assert_eq!(after.get(name), Some(link));
        }
    }

    #[test]
    fn what_is_there_afterwards_is_what_is_wanted(desired in any_desired(), mut world in any_world()) {
        let plan = plan(&desired, world.values());
        apply(&plan, &mut world);
        for tap in &desired {
            let link = &world[&tap.name];
            let conflict = plan.conflicts.contains_key(&tap.name);
            prop_assert!(conflict != (is_tap(link) && link.up && link.mtu == tap.mtu));
        }
        prop_assert!(world.values().filter(|link| is_tap(link)).all(|link| desired.iter().any(|tap| tap.name == link.name)));
    }
}

#[test]
fn removing_vm_1_does_not_touch_vm_10() {
    let links: Vec<Link> = ["tap_1_eth1", "tap_10_eth1"]
        .iter()
        .zip(1..)
        .map(|(name, index)| Link {
            index,
            name: (*name).to_owned(),
            kind: Some("tun".into()),
            alias: Some(ALIAS.into()),
            mtu: 1500,
            up: true,
            ..Link::default()
        })
        .collect();
    let plan = plan(&[tap("tap_10_eth1", 1500)], &links);
    assert_eq!(plan.remove, [("tap_1_eth1".to_owned(), 1)]);
    assert!(plan.create.is_empty() && plan.correct.is_empty());
}
