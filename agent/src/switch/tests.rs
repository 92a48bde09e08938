#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use trunkline_proto::VlanId;
use trunkline_proto::resource::{Facts, PortOwner, State, Trunk};
use uuid::Uuid;

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

fn any_access() -> impl Strategy<Value = Access> {
    prop_oneof![(1..6_u32).prop_map(|id| Access::Vlan(vlan(id))), Just(Access::Isolated)]
}

fn any_port() -> impl Strategy<Value = SwitchPort> {
    let mac: Mac = "52:55:00:01:00:01".parse().unwrap();
    let kind = prop_oneof![
        Just(PortKind::System),
        (1280..1290_u16).prop_map(move |mtu| PortKind::Internal { mac, mtu })
    ];
    (kind, any_access(), "[a-b]?").prop_map(|(kind, access, slice)| SwitchPort {
        kind,
        access,
        labels: Labels {
            kind: "port".into(),
            slice,
            ..Labels::default()
        },
    })
}

fn any_state() -> impl Strategy<Value = SwitchState> {
    let uplink = btree_set(1..6_u32, 0..4).prop_map(|ids| uplink(&ids.into_iter().collect::<Vec<_>>()));
    let ports = btree_map(
        proptest::sample::select(&NAMES[..]).prop_map(str::to_owned),
        any_port(),
        0..5,
    );
    (any::<bool>(), option::of(uplink), ports).prop_map(|(adopt, uplink, ports)| state(adopt, uplink, ports))
}

fn any_mark() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![3 => Just(Some(MARK)), 1 => Just(Some("another-node")), 2 => Just(None)]
}

fn any_columns() -> impl Strategy<Value = PortColumns> {
    (
        any_mark(),
        option::of(0..6_i64),
        btree_set(0..6_i64, 0..3),
        any::<bool>(),
        "(internal)?",
        any::<bool>(),
    )
        .prop_map(|(mark, tag, trunks, protected, kind, note)| {
            let mut columns = PortColumns {
                tag,
                trunks,
                protected,
                ..marked(mark)
            };
            columns.interface.kind = kind;
            if note {
                columns.external_ids.insert("their".into(), "note".into());
                columns.external_ids.insert("trunkline-slice".into(), "old".into());
            }
            columns
        })
}

#[derive(Debug, Clone)]
struct HeldPort {
    on_ours: bool,
    columns: PortColumns,
    bond: bool,
    stale: bool,
}

fn any_world() -> impl Strategy<Value = Observed> {
    let held = (
        any::<bool>(),
        any_columns(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(on_ours, columns, bond, stale)| HeldPort {
            on_ours,
            columns,
            bond,
            stale,
        });
    let ports = btree_map(proptest::sample::select(&NAMES[..]), held, 0..6);
    let devices = btree_map(
        proptest::sample::select(&NAMES[..]),
        (any::<bool>(), any::<bool>()),
        0..6,
    );
    let bridge = option::of((any_mark(), any::<bool>(), vec(any::<bool>(), 2)));
    (ports, devices, bridge).prop_map(|(ports, devices, bridge)| {
        let mut world = Observed::default();
        for (at, (name, (up, used))) in devices.into_iter().enumerate() {
            let mut device = device(name, 10 + u32::try_from(at).unwrap());
            device.link.up = up;
            if used {
                device.addresses.push("192.0.2.1/24".parse().unwrap());
            }
            world.devices.insert(name.into(), device);
        }
        put_bridge(&mut world, "br-x", None, false, "system");
        let ours = bridge.is_some();
        if let Some((mark, adopted, flags)) = bridge {
            put_bridge(
                &mut world,
                "br-int",
                mark,
                adopted && mark == Some(MARK),
                if flags[0] { "netdev" } else { "system" },
            );
            let mut local = device("br-int", 9);
            local.link.up = flags[1];
            world.devices.insert("br-int".into(), local);
        }
        for (name, port) in ports {
            put_port(&mut world, name, port, ours);
        }
        world
    })
}

fn put_bridge(world: &mut Observed, name: &str, mark: Option<&str>, adopted: bool, datapath: &str) {
    let mut external_ids = marked(mark).external_ids;
    if adopted {
        external_ids.insert(ADOPTED_KEY.into(), "true".into());
    }
    let id = Uuid::new_v4();
    let bridge = ObservedBridge {
        id,
        datapath: datapath.into(),
        fail_mode: "standalone".into(),
        external_ids,
    };
    world.bridges.insert(name.into(), bridge);
    let interface = ObservedInterface {
        id: Uuid::new_v4(),
        name: name.into(),
        ..ObservedInterface::default()
    };
    let local = ObservedPort {
        id: Uuid::new_v4(),
        bridge: Some((id, name.into())),
        columns: marked(mark),
        interfaces: vec![interface],
    };
    world.ports.insert(name.into(), local);
}

fn put_port(world: &mut Observed, name: &str, port: HeldPort, ours: bool) {
    let HeldPort {
        on_ours,
        columns,
        bond,
        stale,
    } = port;
    let bridge = if on_ours && ours { "br-int" } else { "br-x" };
    let ifindex = world
        .devices
        .get(name)
        .map(|device| i64::from(device.link.index) + i64::from(stale));
    let interface = |name: String| ObservedInterface {
        id: Uuid::new_v4(),
        name,
        ofport: Some(1),
        ifindex,
        ..ObservedInterface::default()
    };
    // The members of a bond have names of their own.
    let interfaces = if bond {
        vec![interface(format!("{name}a")), interface(format!("{name}b"))]
    } else {
        vec![interface(name.into())]
    };
    let bridge = Some((world.bridges[bridge].id, bridge.to_owned()));
    world.ports.insert(
        name.into(),
        ObservedPort {
            id: Uuid::new_v4(),
            bridge,
            columns,
            interfaces,
        },
    );
}

fn is_ours(port: &ObservedPort) -> bool {
    port.is_ours(&Mark::new(MARK))
}

proptest! {
    #[test]
    fn after_a_plan_was_carried_out_the_next_one_is_empty(state in any_state(), mut world in any_world()) {
        if let Ok(first) = plan(&state, &world) {
            apply(&first, "br-int", &mut world);
            let next = plan(&state, &world).unwrap();
            prop_assert!(next.is_empty(), "{next:#?}");
            prop_assert_eq!(next.conflicts, first.conflicts);
        }
    }

    #[test]
    fn nothing_without_our_mark_is_touched_but_an_adopted_uplink(state in any_state(), world in any_world()) {
        let mut after = world.clone();
        match plan(&state, &world) {
            Ok(plan) => apply(&plan, "br-int", &mut after),
            Err(_) => return Ok(()),
        }
        for (name, port) in world.ports.iter().filter(|(_, port)| !is_ours(port)) {
            let adopted = state.bridge.adopt && state.uplink.as_ref().is_some_and(|uplink| uplink.name == *name);
            if !adopted {
                prop_assert_eq!(after.ports.get(name), Some(port));
            }
        }
        prop_assert_eq!(&after.bridges["br-x"], &world.bridges["br-x"]);
    }

    #[test]
    fn what_others_wrote_on_a_port_of_ours_stays(state in any_state(), world in any_world()) {
        let notes = |port: &ObservedPort| {
            let foreign = |(key, _): &(&String, &String)| !key.starts_with("trunkline");
            port.columns.external_ids.iter().filter(foreign).map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
        };
        let mut after = world.clone();
        match plan(&state, &world) {
            Ok(plan) => apply(&plan, "br-int", &mut after),
            Err(_) => return Ok(()),
        }
        for (name, port) in &world.ports {
            if let Some(kept) = after.ports.get(name).filter(|kept| kept.id == port.id) {
                prop_assert_eq!(notes(kept), notes(port));
            }
        }
    }

    #[test]
    fn every_wanted_port_is_there_as_wanted_or_a_conflict(state in any_state(), mut world in any_world()) {
        if let Ok(plan) = plan(&state, &world) {
            apply(&plan, "br-int", &mut world);
            for (name, wanted) in state.wanted() {
                if plan.conflicts.contains_key(name) {
                    continue;
                }
                let held = &world.ports[name];
                prop_assert_eq!(&held.bridge.as_ref().unwrap().1, "br-int");
                prop_assert_eq!(
                    (&held.columns.vlan_mode, held.columns.tag, &held.columns.trunks, held.columns.protected),
                    (&wanted.vlan_mode, wanted.tag, &wanted.trunks, wanted.protected)
                );
                let uplink = state.uplink.as_ref().is_some_and(|uplink| uplink.name == name);
                prop_assert!(uplink || held.interfaces.len() == 1, "{} is a bond", name);
                // A port with neither would carry every VLAN.
                prop_assert!(held.columns.tag.is_some() || !held.columns.trunks.is_empty());
            }
            let wanted = state.wanted();
            for (name, port) in &world.ports {
                prop_assert!(!is_ours(port) || wanted.contains_key(name.as_str()) || world.bridges.contains_key(name), "{} is left", name);
            }
        }
    }

    #[test]
    fn a_new_port_asks_for_a_number_that_no_port_has_or_had_a_moment_ago(state in any_state(), world in any_world()) {
        if let Ok(plan) = plan(&state, &world) {
            let mut taken: BTreeSet<i64> = world
                .ports
                .values()
                .flat_map(|port| port.interfaces.iter().filter_map(|interface| interface.ofport))
                .collect();
            for addition in &plan.add {
                let asked = addition.columns.interface.ofport_request.unwrap();
                prop_assert!((1..=65_279).contains(&asked) && taken.insert(asked), "{} asks for {}", addition.name, asked);
            }
            for change in plan.modify.iter().filter(|change| change.interfaces.len() == 1) {
                prop_assert_eq!(change.after.interface.ofport_request, world.ports[&change.name].ofport());
            }
        }
    }

    #[test]
    fn a_bridge_for_guests_is_secure_whoever_made_it(state in any_state(), mut world in any_world()) {
        if let Ok(plan) = plan(&state, &world) {
            apply(&plan, "br-int", &mut world);
            prop_assert_eq!(&world.bridges["br-int"].fail_mode, "secure");
        }
    }

    #[test]
    fn a_bridge_without_our_mark_is_refused_exactly_when_it_is_not_adopted(state in any_state(), world in any_world()) {
        let strange = world.bridges.get("br-int").is_some_and(|bridge| !state.mark.is_on(&bridge.external_ids));
        prop_assert_eq!(plan(&state, &world).is_err(), strange && !state.bridge.adopt);
    }
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

fn tap_resource() -> Port {
    Port {
        tap: "tap_1000_eth1".parse().unwrap(),
        vlan: Some(vlan(110)),
        mac: "52:54:00:03:e8:01".parse().unwrap(),
        addresses: Vec::new(),
        mtu: 1500,
        owner: PortOwner::default(),
    }
}

/// A world in which the port of [`tap_resource`] is ready.
fn good_world() -> (SwitchState, Observed) {
    let mut world = world();
    let mut tap = device("tap_1000_eth1", 30);
    tap.link = Link {
        up: true,
        kind: Some("tun".into()),
        alias: Some(crate::tap::ALIAS.into()),
        ..tap.link
    };
    world.devices.insert("tap_1000_eth1".into(), tap);
    let port = tap_resource();
    let wanted = state(
        false,
        Some(uplink(&[110])),
        BTreeMap::from([(port.tap.to_string(), SwitchPort::from(&port))]),
    );
    apply(&plan(&wanted, &world).unwrap(), "br-int", &mut world);
    world.devices.get_mut("trunk0").unwrap().link.carrier = true;
    (wanted, world)
}

#[test]
fn a_port_is_ready_only_when_everything_was_read_back() {
    let none = BTreeMap::new();
    let (wanted, world) = good_world();
    let judge = |world: &Observed| judge_port(&tap_resource(), &wanted, world, &none);
    let good = judge(&world);
    assert_eq!((good.state, good.reason.as_str()), (State::Ready, ""));
    let Facts::Port(facts) = good.facts else {
        panic!("facts of another kind")
    };
    assert_eq!(
        (facts.exists, facts.up, facts.ofport, facts.tag, facts.carrier),
        (true, true, 2, 110, false)
    );

    type Break = fn(&mut Observed);
    let breaks: [(&str, Break); 9] = [
        ("does not exist", |world| drop(world.devices.remove("tap_1000_eth1"))),
        ("is down", |world| {
            world.devices.get_mut("tap_1000_eth1").unwrap().link.up = false
        }),
        ("MTU of 1400", |world| {
            world.devices.get_mut("tap_1000_eth1").unwrap().link.mtu = 1400
        }),
        ("not a TAP", |world| {
            world.devices.get_mut("tap_1000_eth1").unwrap().link.alias = None
        }),
        ("no switch port", |world| drop(world.ports.remove("tap_1000_eth1"))),
        ("tag 111 instead of access tag 110", |world| {
            world.ports.get_mut("tap_1000_eth1").unwrap().columns.tag = Some(111)
        }),
        ("trunk for every VLAN", |world| {
            let columns = &mut world.ports.get_mut("tap_1000_eth1").unwrap().columns;
            (columns.tag, columns.vlan_mode) = (None, None);
        }),
        ("has not taken", |world| {
            world.ports.get_mut("tap_1000_eth1").unwrap().interfaces[0].ofport = None
        }),
        ("cannot use", |world| {
            world.ports.get_mut("tap_1000_eth1").unwrap().interfaces[0].error = Some("could not open".into());
        }),
    ];
    for (words, damage) in breaks {
        let mut damaged = world.clone();
        damage(&mut damaged);
        let judgement = judge(&damaged);
        assert_eq!(judgement.state, State::Failed, "{words}");
        assert!(judgement.reason.contains(words), "{words}: {}", judgement.reason);
    }
    let troubles = BTreeMap::from([("tap_1000_eth1".to_owned(), "somebody has the name".to_owned())]);
    assert_eq!(
        judge_port(&tap_resource(), &wanted, &world, &troubles).reason,
        "somebody has the name"
    );
}

#[test]
fn a_trunk_is_ready_only_when_it_carries_exactly_its_vlans() {
    let none = BTreeMap::new();
    let (wanted, world) = good_world();
    let trunk = Trunk {
        vlans: BTreeSet::from([vlan(110)]),
    };
    let good = judge_trunk(&trunk, &wanted, &world, &none);
    assert_eq!((good.state, good.reason.as_str()), (State::Ready, ""));
    let Facts::Trunk(facts) = good.facts else {
        panic!("facts of another kind")
    };
    assert_eq!(
        (facts.interface.as_str(), facts.vlans, facts.up),
        ("trunk0", vec![110], true)
    );

    let mut damaged = world.clone();
    damaged.ports.get_mut("trunk0").unwrap().columns.trunks.clear();
    assert_eq!(judge_trunk(&trunk, &wanted, &damaged, &none).state, State::Failed);

    let mut damaged = world.clone();
    damaged.devices.get_mut("trunk0").unwrap().link.carrier = false;
    assert!(
        judge_trunk(&trunk, &wanted, &damaged, &none)
            .reason
            .contains("no carrier")
    );

    let mut damaged = world;
    damaged
        .devices
        .get_mut("trunk0")
        .unwrap()
        .addresses
        .push("192.0.2.1/24".parse().unwrap());
    assert_eq!(judge_trunk(&trunk, &wanted, &damaged, &none).state, State::Degraded);

    let without = SwitchState { uplink: None, ..wanted };
    assert!(
        judge_trunk(&trunk, &without, &Observed::default(), &none)
            .reason
            .contains("no uplink is configured")
    );
    assert_eq!(
        judge_trunk(&Trunk::default(), &without, &Observed::default(), &none).state,
        State::Ready
    );
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
