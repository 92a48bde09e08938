//! Any desired state and any world.

use super::*;

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

pub(super) fn any_state() -> impl Strategy<Value = SwitchState> {
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

pub(super) fn any_world() -> impl Strategy<Value = Observed> {
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

pub(super) fn put_bridge(world: &mut Observed, name: &str, mark: Option<&str>, adopted: bool, datapath: &str) {
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
