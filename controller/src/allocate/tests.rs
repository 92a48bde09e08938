#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeSet, net::Ipv4Addr};

use proptest::prelude::*;
use trunkline_proto::{LinkSubnet, VlanId};

use super::*;
use crate::{model::Pool, testing::name};

fn vlan(id: u32) -> VlanId {
    VlanId::try_from(id).unwrap()
}

#[test]
fn a_derived_subnet_is_found_from_any_part_of_it() {
    for id in [1, 110, 366, 4094] {
        assert_eq!(vlan_of_derived(LinkSubnet::derived(vlan(id))), Some(vlan(id)));
    }
    assert_eq!(vlan_of_derived("10.64.110.128/25".parse().unwrap()), Some(vlan(110)));
    for other in ["10.63.1.0/24", "10.80.1.0/24", "192.168.64.0/24", "10.64.0.0/24"] {
        assert_eq!(vlan_of_derived(other.parse().unwrap()), None, "{other}");
    }
}

#[test]
fn a_pool_is_one_range_when_there_is_room_and_pieces_when_not() {
    let settings = Settings {
        vlan_first: vlan(100),
        vlan_last: vlan(109),
        reserved_vlans: [vlan(103)].into(),
        ..Settings::default()
    };
    let cluster = Cluster::new("x");
    let mut ledger = Ledger::of(&cluster, &Holdings::of(&cluster), &settings, &BTreeSet::new());
    let grow = |ledger: &mut Ledger, slice: &str, n| {
        let mut pool = Pool::default();
        let result = ledger.grow(&name(slice), &mut pool, n, &BTreeSet::new());
        result.map(|()| {
            pool.ranges
                .iter()
                .map(|r| (r.first.get(), r.last.get()))
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(
        grow(&mut ledger, "a", 4),
        Ok(vec![(104, 107)]),
        "100 to 102 is too short"
    );
    assert_eq!(grow(&mut ledger, "b", 4), Ok(vec![(100, 102), (108, 108)]));
    assert_eq!(grow(&mut ledger, "c", 2), Err(1));
}

proptest! {
    #[test]
    fn ends_have_addresses_of_their_own_and_keep_them(
        wants in prop::collection::vec((prop::option::of(0..260u32), prop::option::of(0..260u32)), 1..40),
        avoid in prop::collection::btree_set(0..260u32, 0..40),
    ) {
        let subnet: LinkSubnet = "10.1.0.0/24".parse().unwrap();
        let at = |host: u32| Ipv4Addr::from(u32::from(subnet.net().network()) + host);
        let wants: Vec<Want> = wants.iter().map(|(g, k)| Want { given: g.map(at), kept: k.map(at) }).collect();
        let avoid: BTreeSet<Ipv4Addr> = avoid.into_iter().map(at).collect();
        let results = assign(subnet, &wants, &avoid);
        let mut seen = BTreeSet::new();
        for (want, result) in wants.iter().zip(&results) {
            match result {
                Ok(address) => {
                    prop_assert!(subnet.holds_guest(*address) && seen.insert(*address));
                    prop_assert!(want.given.is_none_or(|g| g == *address));
                    prop_assert!(want.given == Some(*address) || want.kept == Some(*address) || !avoid.contains(address));
                }
                Err(AddressProblem::Full) => prop_assert!(false, "a /24 holds 40"),
                Err(_) => prop_assert!(want.given.is_some()),
            }
        }
        // With what they have now, they keep it, in whatever company.
        let kept: Vec<Want> = results.iter().map(|r| Want { given: None, kept: r.ok() }).collect();
        let again = assign(subnet, &kept, &avoid);
        for (before, after) in results.iter().zip(again) {
            prop_assert!(before.is_err() || *before == after);
        }
    }
}
