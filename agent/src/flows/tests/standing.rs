//! What the report says of flows and limits.

use std::sync::Arc;

use super::*;

#[test]
fn a_limit_that_bites_is_named_once() {
    let network = worker();
    let seen = |dropped| BTreeMap::from([(Storm::Group.meter(10), MeterCounters { packets: 100, dropped })]);
    let bite = |dropped| Bite {
        port: 10,
        storm: Storm::Group,
        dropped,
    };
    assert_eq!(bites(&network, &BTreeMap::new(), &seen(5)), [bite(5)]);
    assert_eq!(bites(&network, &seen(5), &seen(5)), []);
    assert_eq!(bites(&network, &seen(5), &seen(7)), [bite(2)]);
    // Made anew in between.
    assert_eq!(bites(&network, &seen(5), &seen(3)), [bite(3)]);
}

#[test]
fn a_port_is_wrong_while_one_of_its_flows_is_missing() {
    let desired = compile(&worker());
    assert_eq!(port_problem(10, &desired, &desired), None);
    let mut observed = desired.clone();
    let tagged = observed.flows.keys().find(|rule| {
        rule.table == 1 && rule.matches.get(Field::InPort).is_some_and(|(value, _)| value == 10) && rule.priority == 500
    });
    let tagged = tagged.cloned().unwrap();
    Arc::make_mut(&mut observed.flows).remove(&tagged);
    assert!(
        port_problem(10, &desired, &observed)
            .unwrap()
            .contains("a flow of this port")
    );
    assert_eq!(port_problem(11, &desired, &observed), None);
    // A flow that all ports need is everybody's.
    let shared = desired
        .flows
        .keys()
        .find(|rule| rule.matches.get(Field::InPort).is_none())
        .cloned()
        .unwrap();
    Arc::make_mut(&mut observed.flows).remove(&shared);
    assert!(port_problem(11, &desired, &observed).is_some());
}

#[test]
fn a_ports_counters_are_of_its_own_flows() {
    let set = compile(&worker());
    let counters = set
        .flows
        .keys()
        .map(|rule| (rule.clone(), Counters { packets: 1, bytes: 60 }))
        .collect();
    let table = Table {
        set,
        counters,
        ..Table::default()
    };
    let seen = port_counters(10, &table);
    assert_eq!(
        seen,
        PortCounters {
            admitted: 1,
            refused: 1
        }
    );
}

#[test]
fn each_vlan_counts_its_own_flows_and_misses_those_that_all_share() {
    let network = worker();
    let wanted = compile(&network);
    let whole = standings(&network, &wanted, &wanted);
    assert!(
        whole
            .values()
            .all(|standing| standing.there > 0 && standing.missing == 0),
        "{whole:?}"
    );

    let mut there = wanted.clone();
    Arc::make_mut(&mut there.flows)
        .retain(|rule, _| rule.matches.get(Field::InPort).is_none_or(|(value, _)| value != 10));
    let less = standings(&network, &wanted, &there);
    assert!(
        less[&vlan(110)].missing > 0 && less[&vlan(110)].there < whole[&vlan(110)].there,
        "{less:?}"
    );
    assert_eq!(less[&vlan(120)], whole[&vlan(120)]);

    // The last line of a table is everybody's.
    there = wanted.clone();
    Arc::make_mut(&mut there.flows).retain(|rule, _| rule.priority > 0);
    assert!(
        standings(&network, &wanted, &there)
            .values()
            .all(|standing| standing.missing > 0)
    );
}
