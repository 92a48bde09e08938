#![allow(clippy::unwrap_used, clippy::expect_used)]

mod any;
mod judged;
mod properties;

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use trunkline_proto::VlanId;
use trunkline_proto::resource::{Facts, PortOwner, State, Trunk};
use uuid::Uuid;

use self::any::put_bridge;
use super::model::{apply, device, marked};
use super::*;
use crate::netlink::Link;

const MARK: &str = "w1";

const NAMES: [&str; 6] = ["tap_1", "tap_2", "tap_3", "gw_1", "trunk0", "bond0"];

fn vlan(id: u32) -> VlanId {
    VlanId::try_from(id).unwrap()
}

fn state(adopt: bool, uplink: Option<UplinkSpec>, ports: BTreeMap<String, SwitchPort>) -> SwitchState {
    SwitchState {
        mark: Mark::new(MARK),
        bridge: BridgeSpec {
            name: "br-int".into(),
            datapath: Datapath::Netdev,
            adopt,
            fail_mode: FailMode::Secure,
        },
        uplink,
        ports,
    }
}

fn tap_port(id: u32) -> SwitchPort {
    SwitchPort {
        kind: PortKind::System,
        access: Access::Vlan(vlan(id)),
        labels: Labels {
            kind: "tap".into(),
            ..Labels::default()
        },
    }
}

fn uplink(vlans: &[u32]) -> UplinkSpec {
    UplinkSpec {
        name: "trunk0".into(),
        vlans: vlans.iter().map(|id| vlan(*id)).collect(),
    }
}

/// A world with our bridge and the uplink's device.
fn world() -> Observed {
    let mut world = Observed::default();
    world.devices.insert("trunk0".into(), device("trunk0", 2));
    let state = state(false, Some(uplink(&[])), BTreeMap::new());
    apply(&plan(&state, &world).unwrap(), "br-int", &mut world);
    world
}

#[test]
fn a_bridge_whose_local_device_the_host_uses_is_not_adopted() {
    for marked_before in [false, true] {
        let mut world = Observed::default();
        put_bridge(
            &mut world,
            "br-int",
            marked_before.then_some(MARK),
            marked_before,
            "system",
        );
        let mut local = device("br-int", 9);
        local.link.up = true;
        let state = state(true, None, BTreeMap::new());
        world.devices.insert("br-int".into(), local.clone());
        assert_eq!(plan(&state, &world).unwrap().quiet_local.as_deref(), Some("br-int"));
        local.routes.push("0.0.0.0/0".parse().unwrap());
        world.devices.insert("br-int".into(), local.clone());
        assert!(plan(&state, &world).unwrap_err().contains("a route to 0.0.0.0/0"));
        local.addresses.push("192.0.2.1/24".parse().unwrap());
        world.devices.insert("br-int".into(), local);
        assert!(plan(&state, &world).unwrap_err().contains("192.0.2.1/24"));
    }
}

#[test]
fn an_empty_trunk_is_written_as_a_vlan_that_does_not_exist() {
    let world = world();
    assert_eq!(world.ports["trunk0"].columns.trunks, BTreeSet::from([4095]));
}

#[test]
fn a_port_whose_tap_was_made_anew_joins_again_though_ovs_vswitchd_names_the_new_one() {
    let mut world = world();
    world.devices.insert("tap_1".into(), device("tap_1", 30));
    let wanted = state(
        false,
        Some(uplink(&[5])),
        BTreeMap::from([("tap_1".into(), tap_port(5))]),
    );
    apply(&plan(&wanted, &world).unwrap(), "br-int", &mut world);
    assert!(plan(&wanted, &world).unwrap().is_empty());

    // It reads from the device that is gone, and looks up the index by name.
    world.devices.insert("tap_1".into(), device("tap_1", 31));
    let port = world.ports.get_mut("tap_1").unwrap();
    port.interfaces[0].ifindex = Some(31);
    let again = plan(&wanted, &world).unwrap();
    assert_eq!((again.remove.len(), again.add.len()), (1, 1), "{again:?}");
    apply(&again, "br-int", &mut world);
    assert!(plan(&wanted, &world).unwrap().is_empty());
}

#[test]
fn a_port_of_an_earlier_version_is_given_its_device_once_and_then_told_from_another() {
    let mut world = world();
    world.devices.insert("tap_1".into(), device("tap_1", 30));
    let wanted = state(
        false,
        Some(uplink(&[5])),
        BTreeMap::from([("tap_1".into(), tap_port(5))]),
    );
    apply(&plan(&wanted, &world).unwrap(), "br-int", &mut world);
    world
        .ports
        .get_mut("tap_1")
        .unwrap()
        .columns
        .external_ids
        .remove(DEVICE_KEY);
    world.behind = true;
    assert!(plan(&wanted, &world).unwrap().is_empty(), "the index may be an old one");
    world.behind = false;
    let noted = plan(&wanted, &world).unwrap();
    assert_eq!((noted.remove.len(), noted.modify.len(), noted.add.len()), (0, 1, 0));
    assert!(
        Drift::new(&wanted, &world, &noted).port("tap_1").is_empty(),
        "nobody has changed anything"
    );
    apply(&noted, "br-int", &mut world);
    assert!(plan(&wanted, &world).unwrap().is_empty());

    world.devices.insert("tap_1".into(), device("tap_1", 31));
    world.ports.get_mut("tap_1").unwrap().interfaces[0].ifindex = Some(31);
    assert_eq!(plan(&wanted, &world).unwrap().remove.len(), 1);
}

#[test]
fn a_port_that_must_be_of_another_kind_is_removed_and_added_in_one_plan() {
    let mut world = world();
    let mut wanted = state(false, Some(uplink(&[])), BTreeMap::from([("gw_1".into(), tap_port(5))]));
    apply(&plan(&wanted, &world).unwrap(), "br-int", &mut world);
    wanted.ports.get_mut("gw_1").unwrap().kind = PortKind::Internal {
        mac: "52:55:00:01:00:05".parse().unwrap(),
        mtu: 1500,
    };
    let plan = plan(&wanted, &world).unwrap();
    assert_eq!((plan.remove.len(), plan.modify.len(), plan.add.len()), (1, 0, 1));
    assert_eq!(plan.remove[0].name, plan.add[0].name);
}

#[test]
fn removals_come_first_in_the_transaction_and_the_bridge_takes_all_new_ports_at_once() {
    let mut world = world();
    let before = state(
        false,
        Some(uplink(&[])),
        BTreeMap::from([("tap_1".into(), tap_port(1)), ("tap_2".into(), tap_port(2))]),
    );
    apply(&plan(&before, &world).unwrap(), "br-int", &mut world);
    let after = state(
        false,
        Some(uplink(&[3])),
        BTreeMap::from([("tap_2".into(), tap_port(3)), ("tap_3".into(), tap_port(3))]),
    );
    let transaction = transaction(&plan(&after, &world).unwrap(), Some("00-abc-01")).unwrap();
    let params = transaction.params();
    let steps: Vec<String> = params
        .as_array()
        .unwrap()
        .iter()
        .skip(1)
        .map(|op| {
            format!(
                "{} {}",
                op["op"].as_str().unwrap(),
                op["table"]
                    .as_str()
                    .unwrap_or(op["comment"].as_str().unwrap_or_default())
            )
        })
        .collect();
    assert_eq!(
        steps,
        [
            "comment trunkline: remove 1, change 2, add 1; trace 00-abc-01",
            "wait Port",
            "mutate Bridge",
            "update Port",
            "update Port",
            "insert Interface",
            "insert Port",
            "mutate Bridge",
        ]
    );
}

#[test]
fn the_transaction_that_makes_everything_is_as_recorded() {
    let mut bare = Observed::default();
    bare.devices.insert("trunk0".into(), device("trunk0", 2));
    let gateway = SwitchPort {
        kind: PortKind::Internal {
            mac: "52:55:00:01:00:6e".parse().unwrap(),
            mtu: 1500,
        },
        access: Access::Vlan(vlan(110)),
        labels: Labels {
            kind: "gateway".into(),
            ..Labels::default()
        },
    };
    let isolated = SwitchPort {
        access: Access::Isolated,
        ..tap_port(1)
    };
    let ports = BTreeMap::from([
        ("gw_vlan110".into(), gateway),
        ("tap_1000_eth0".into(), isolated),
        ("tap_1000_eth1".into(), tap_port(110)),
    ]);
    let plan = plan(&state(false, Some(uplink(&[110])), ports), &bare).unwrap();
    let transaction = transaction(&plan, None).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&transaction.params()).unwrap());
}

#[test]
fn a_port_whose_device_was_replaced_is_taken_anew_once_vswitchd_has_caught_up() {
    let mut world = world();
    let wanted = state(
        false,
        Some(uplink(&[])),
        BTreeMap::from([("tap_1".into(), tap_port(1))]),
    );
    world.devices.insert("tap_1".into(), device("tap_1", 20));
    apply(&plan(&wanted, &world).unwrap(), "br-int", &mut world);
    world.devices.insert("tap_1".into(), device("tap_1", 21));
    world.behind = true;
    assert!(plan(&wanted, &world).unwrap().is_empty());
    world.behind = false;
    let plan = plan(&wanted, &world).unwrap();
    assert_eq!((plan.remove.len(), plan.add.len()), (1, 1));
}

#[test]
fn ipv6s_own_addresses_and_routes_do_not_speak_against_an_uplink() {
    use crate::netlink::{Address, Route};
    let link = Link {
        index: 2,
        name: "trunk0".into(),
        ..Link::default()
    };
    let address = |net: &str, link_local| Address {
        index: 2,
        net: net.parse().unwrap(),
        link_local,
    };
    let route = |net: &str| Route {
        destination: net.parse().unwrap(),
        gateway: None,
        output: Some(2),
        table: Route::MAIN,
    };
    let observed = Observed::new(
        &crate::ovsdb::Snapshot::default(),
        &[link],
        &[address("fe80::1/64", true), address("169.254.1.1/16", true)],
        &[route("fe80::/64"), route("ff00::/8"), route("10.0.0.0/8")],
    );
    let device = &observed.devices["trunk0"];
    assert_eq!(device.addresses, ["169.254.1.1/16".parse().unwrap()]);
    assert_eq!(device.routes, ["10.0.0.0/8".parse().unwrap()]);
}
