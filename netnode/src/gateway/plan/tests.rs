#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::testing::gateway;

/// A device as the switch has just made it, or as somebody left it.
fn device(index: u32, change: u8) -> Device {
    let changed = |bit: u8| change & (1 << bit) != 0;
    Device {
        index,
        up: changed(0),
        mtu: if changed(1) { 1300 } else { 1500 },
        mac: changed(2).then_some([2, 0, 0, 0, 0, 9]),
        alias: changed(3).then(|| "somebody's".to_owned()),
        addresses: if changed(4) {
            vec!["192.168.1.1/24".parse().unwrap()]
        } else {
            Vec::new()
        },
        arp_guarded: changed(5),
        ipv6_off: changed(6),
        sources_guarded: changed(7),
    }
}

fn apply(plan: &Plan, observed: &mut Observed) {
    for name in plan.orphans.keys() {
        observed.orphans.remove(name);
    }
    for DevicePlan { port, index, steps } in plan.devices.values() {
        let device = observed.devices.get_mut(port).unwrap();
        assert_eq!(device.index, *index);
        for step in steps {
            match step {
                Step::DisableIpv6 => device.ipv6_off = true,
                Step::IgnoreForeignArp => device.arp_guarded = true,
                Step::RefuseForeignSources => device.sources_guarded = true,
                Step::SetAlias => device.alias = Some(ALIAS.to_owned()),
                Step::SetMac(mac) => device.mac = Some(*mac),
                Step::SetMtu(mtu) => device.mtu = u32::from(*mtu),
                Step::RemoveAddress(address) => device.addresses.retain(|held| held != address),
                Step::AddAddress(address) => device.addresses.push(ip_net(*address)),
                Step::SetUp => {
                    assert!(
                        device.arp_guarded && device.ipv6_off && device.sources_guarded,
                        "up before it was guarded"
                    );
                    device.up = true;
                }
            }
        }
    }
}

fn wanted(ids: &BTreeSet<u32>) -> BTreeMap<VlanId, Gateway> {
    ids.iter().map(|id| (gateway(*id).vlan, gateway(*id))).collect()
}

proptest! {
    #[test]
    fn applied_to_the_model_the_next_plan_is_empty(
        ids in proptest::collection::btree_set(1_u32..4095, 0..8),
        changes in proptest::collection::vec(any::<u8>(), 8),
        orphans in proptest::collection::btree_map("gw_vlan[1-9]", 1_u32..99, 0..3),
    ) {
        let wanted = wanted(&ids);
        let devices = ids.iter().zip(1..).zip(&changes).map(|((id, index), change)| (gateway(*id).port(), device(index, *change)));
        let mut host = Observed { devices: devices.collect(), orphans, foreign_routes: Vec::new() };
        apply(&plan(&wanted, &host), &mut host);
        prop_assert!(plan(&wanted, &host).is_empty());
        for gateway in wanted.values() {
            prop_assert_eq!(judge(gateway, &host, Some(1)).0, State::Ready);
        }
    }

    #[test]
    fn devices_of_gateways_that_are_not_wanted_are_not_touched(change in any::<u8>()) {
        let host = Observed { devices: BTreeMap::from([(gateway(7).port(), device(3, change))]), ..Observed::default() };
        prop_assert!(plan(&wanted(&BTreeSet::from([8])), &host).is_empty());
    }
}

#[test]
fn a_subnet_that_overlaps_a_route_of_the_node_is_not_realised_and_says_so() {
    let devices = BTreeMap::from([(gateway(110).port(), device(3, 0)), (gateway(111).port(), device(4, 0))]);
    for destination in ["10.64.0.0/17", "10.64.110.128/25", "10.64.110.0/24"] {
        let route = ForeignRoute {
            destination: destination.parse().unwrap(),
            device: "ens4".into(),
        };
        let host = Observed {
            devices: devices.clone(),
            foreign_routes: vec![route],
            ..Observed::default()
        };
        let plan = plan(&wanted(&BTreeSet::from([110])), &host);
        assert!(plan.is_empty());
        let (state, reason, _) = judge(&gateway(110), &host, Some(1));
        assert_eq!(state, State::Failed);
        assert_eq!(
            reason,
            format!("its subnet 10.64.110.0/24 overlaps the route {destination} by ens4 of this node")
        );
    }
    let route = ForeignRoute {
        destination: "10.64.111.0/24".parse().unwrap(),
        device: "ens4".into(),
    };
    let host = Observed {
        devices,
        foreign_routes: vec![route],
        ..Observed::default()
    };
    let plan = plan(&wanted(&BTreeSet::from([110, 111])), &host);
    assert_eq!(plan.devices.len(), 1, "its sibling goes on");
    assert_eq!(plan.blocked.len(), 1);
}

#[test]
fn a_gateway_without_device_or_port_number_is_not_ready() {
    let host = Observed::default();
    assert_eq!(
        judge(&gateway(110), &host, None).1,
        "the switch has made no device gw_vlan110"
    );
    let mut host = Observed {
        devices: BTreeMap::from([(gateway(110).port(), device(3, 0))]),
        ..host
    };
    let wanted = wanted(&BTreeSet::from([110]));
    apply(&plan(&wanted, &host), &mut host);
    assert_eq!(judge(&gateway(110), &host, Some(-1)).0, State::Failed);
    assert_eq!(judge(&gateway(110), &host, Some(4)).0, State::Ready);
}
