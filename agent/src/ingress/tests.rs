#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;

use super::*;
use crate::netlink::nft::Chain;

fn name() -> impl Strategy<Value = String> {
    (1..8_u32).prop_map(|n| format!("tap_{n}_eth1"))
}

fn tables() -> impl Strategy<Value = Table> {
    prop_oneof![
        Just(Table::Absent),
        Just(Table::Foreign),
        btree_map(name(), any::<bool>(), 0..6).prop_map(Table::Ours),
    ]
}

fn apply(plan: &Plan, table: &Table) -> Table {
    if plan.is_empty() {
        return table.clone();
    }
    if plan.delete {
        return Table::Absent;
    }
    let mut chains = match table {
        Table::Ours(chains) => chains.clone(),
        Table::Absent => BTreeMap::new(),
        Table::Foreign => panic!("a stranger's table is changed"),
    };
    chains.retain(|name, _| !plan.remove.contains(name));
    chains.extend(plan.make.iter().map(|name| (name.clone(), true)));
    Table::Ours(chains)
}

proptest! {
    #[test]
    fn after_a_plan_just_the_taps_are_shut_and_the_next_is_empty(
        taps in btree_map(name(), 1..9_u32, 0..6), fresh in btree_set(name(), 0..3), table in tables(),
    ) {
        let after = apply(&plan(&taps, &fresh, &table), &table);
        prop_assert!(plan(&taps, &BTreeSet::new(), &after).is_empty());
        match &after {
            Table::Foreign => prop_assert_eq!(&table, &Table::Foreign),
            Table::Absent => prop_assert!(taps.is_empty()),
            Table::Ours(chains) => {
                prop_assert!(chains.values().all(|drops| *drops));
                prop_assert!(chains.keys().eq(taps.keys()));
            }
        }
    }
}

#[test]
fn a_device_of_the_same_name_gets_a_chain_of_its_own() {
    let taps = Taps::from([("tap_1_eth1".to_owned(), 7)]);
    let table = Table::Ours(BTreeMap::from([("tap_1_eth1".to_owned(), true)]));
    assert!(plan(&taps, &BTreeSet::new(), &table).is_empty());
    let fresh = BTreeSet::from(["tap_1_eth1".to_owned()]);
    assert_eq!(plan(&taps, &fresh, &table).make, fresh);
}

#[test]
fn a_name_that_could_mean_something_to_nft_is_not_written() {
    let taps = ["drop", "tap_1; flush ruleset", "tap_\"", "tap_1_eth1"].map(|name| (name.to_owned(), 1));
    let plan = plan(&Taps::from(taps), &BTreeSet::new(), &Table::Absent);
    assert_eq!(plan.make, BTreeSet::from(["tap_1_eth1".to_owned()]));
}

#[test]
fn a_chain_shuts_when_it_drops_everything_from_its_own_device() {
    let chain = |name: &str, devices: &[&str], drops: bool, rules: u32| Chain {
        table: TABLE.to_owned(),
        name: name.to_owned(),
        ingress_of: devices.iter().map(ToString::to_string).collect(),
        drops,
        rules,
    };
    let mark = chain(MARK_CHAIN, &[], false, 0);
    assert_eq!(Table::read(false, Vec::new()), Table::Absent);
    assert_eq!(Table::read(true, Vec::new()), Table::Foreign);
    assert_eq!(Table::read(true, vec![chain("a", &["a"], true, 0)]), Table::Foreign);
    let theirs = Chain {
        table: "other".to_owned(),
        ..chain("g", &["g"], true, 0)
    };
    let read = Table::read(
        true,
        vec![
            mark,
            chain("a", &["a"], true, 0),
            chain("b", &["other", "b"], true, 0),
            chain("c", &["other"], true, 0),
            chain("d", &["d"], false, 0),
            chain("e", &[], true, 0),
            chain("f", &["f"], true, 1),
            theirs,
        ],
    );
    let drops = [
        ("a", true),
        ("b", true),
        ("c", false),
        ("d", false),
        ("e", false),
        ("f", false),
    ];
    let drops = drops.map(|(name, drops)| (name.to_owned(), drops));
    assert_eq!(read, Table::Ours(drops.into()));
}
