//! A model of Open vSwitch and the kernel for the planner's tests: what a plan would make of a world.

#![allow(clippy::expect_used)]

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    Addition, BridgeStep, Device, Modification, Observed, ObservedBridge, ObservedInterface, ObservedPort, Plan,
    PortColumns, Removal,
};
use crate::netlink::Link;

/// Carries out a plan on a world. Panics where the real database would refuse.
pub(super) fn apply(plan: &Plan, bridge_name: &str, world: &mut Observed) {
    let Plan {
        bridge,
        remove,
        modify,
        add,
        quiet_local,
        raise_uplink,
        conflicts: _,
    } = plan;
    for Removal { name, id, bridge } in remove {
        let port = world.ports.remove(name).expect("a removed port exists");
        assert_eq!((port.id, port.bridge.map(|(id, _)| id)), (*id, Some(*bridge)));
        if port.columns.interface.kind == "internal" {
            world.devices.remove(name);
        }
    }
    for Modification {
        name,
        id,
        interfaces,
        before,
        after,
    } in modify
    {
        let port = world.ports.get_mut(name).expect("a modified port exists");
        assert_eq!((port.id, &port.columns), (*id, before));
        assert_eq!(
            port.interfaces.iter().map(|interface| interface.id).collect::<Vec<_>>(),
            *interfaces
        );
        port.columns = after.clone();
    }
    let id = apply_bridge(bridge, bridge_name, world);
    for Addition { name, columns } in add {
        add_port(world, name, columns, (id, bridge_name.to_owned()));
    }
    let mut set_up = |name: &Option<String>, up| {
        if let Some(device) = name.as_ref().and_then(|name| world.devices.get_mut(name)) {
            (device.link.up, device.shielded) = (up, true);
        }
    };
    set_up(quiet_local, false);
    set_up(raise_uplink, true);
}

fn apply_bridge(step: &BridgeStep, bridge_name: &str, world: &mut Observed) -> Uuid {
    match step {
        BridgeStep::Keep(id) => *id,
        BridgeStep::Update {
            id,
            datapath,
            fail_mode,
            external_ids,
        } => {
            let held = world.bridges.get_mut(bridge_name).expect("an updated bridge exists");
            assert_eq!(held.id, *id);
            *held = ObservedBridge {
                id: *id,
                datapath: datapath.clone(),
                fail_mode: fail_mode.clone(),
                external_ids: external_ids.clone(),
            };
            *id
        }
        BridgeStep::Create {
            name,
            datapath,
            fail_mode,
            external_ids,
            local,
        } => {
            let id = Uuid::new_v4();
            let fresh = ObservedBridge {
                id,
                datapath: datapath.clone(),
                fail_mode: fail_mode.clone(),
                external_ids: external_ids.clone(),
            };
            assert!(
                world.bridges.insert(name.clone(), fresh).is_none(),
                "the bridge exists already"
            );
            add_port(world, name, local, (id, name.clone()));
            id
        }
    }
}

fn add_port(world: &mut Observed, name: &str, columns: &PortColumns, bridge: (Uuid, String)) {
    let taken = world
        .ports
        .values()
        .any(|port| port.interfaces.iter().any(|interface| interface.name == name));
    assert!(!taken && !world.ports.contains_key(name), "the name {name} is taken");
    if columns.interface.kind == "internal" {
        // A device that a dead ovs-vswitchd left behind is taken over.
        world
            .devices
            .entry(name.to_owned())
            .or_insert_with(|| device(name, 7000));
    }
    let ifindex = world.devices.get(name).map(|device| i64::from(device.link.index));
    let interface = ObservedInterface {
        id: Uuid::new_v4(),
        name: name.to_owned(),
        // The bridge's own port asks for none.
        ofport: columns.interface.ofport_request.or(Some(65_534)),
        ifindex,
        ..ObservedInterface::default()
    };
    let port = ObservedPort {
        id: Uuid::new_v4(),
        bridge: Some(bridge),
        columns: columns.clone(),
        interfaces: vec![interface],
    };
    world.ports.insert(name.to_owned(), port);
}

pub(super) fn device(name: &str, index: u32) -> Device {
    Device {
        link: Link {
            index,
            name: name.to_owned(),
            mtu: 1500,
            ..Link::default()
        },
        ..Device::default()
    }
}

/// Columns with a mark and nothing else.
pub(super) fn marked(mark: Option<&str>) -> PortColumns {
    let external_ids: BTreeMap<String, String> = mark
        .map(|mark| (super::MARK_KEY.to_owned(), mark.to_owned()))
        .into_iter()
        .collect();
    PortColumns {
        external_ids,
        ..PortColumns::default()
    }
}
