#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use trunkline_proto::{
    Mac, VmId,
    resource::{Envelope, PortOwner, Spec},
};
use uuid::Uuid;

use super::*;
use crate::{
    config::SwitchSection,
    node::Item,
    switch::{Addition, BridgeStep, FailMode, ObservedInterface},
    worker::desired::{self, Base},
};

const TAP: &str = "tap_1001_eth1";

fn vlan(id: u32) -> VlanId {
    VlanId::try_from(id).unwrap()
}

fn rules(id: u32) -> Spec {
    let vlan = vlan(id);
    Spec::Flows(Flows {
        vlan,
        gateway_mac: Mac::of_gateway(vlan),
        gateway_address: "10.0.0.1".parse().unwrap(),
        dhcp: None,
        guests: [].into(),
        port_security: false,
        protected: false,
        broadcast_limit: NonZeroU32::new(50),
        unknown_unicast_limit: NonZeroU32::new(20),
    })
}

fn guest_port(id: u32) -> Spec {
    Spec::Port(Port {
        tap: TAP.parse().unwrap(),
        vlan: Some(vlan(id)),
        mac: Mac::of_interface(VmId::try_from(1001).unwrap(), 1),
        addresses: vec![],
        mtu: 1500,
        owner: PortOwner {
            slice: "shop".to_owned(),
            vm: "web".to_owned(),
            interface: "eth1".to_owned(),
        },
    })
}

fn desired(specs: &[Spec]) -> Desired {
    let item = |spec: &Spec| {
        let Envelope { key, hash, .. } = Envelope::seal(spec, "");
        let item = Item {
            spec: spec.clone(),
            hash,
            traceparent: String::new(),
        };
        (key, item)
    };
    Desired {
        items: specs.iter().map(item).collect(),
        ..Desired::default()
    }
}

fn base() -> Base {
    let switch = SwitchSection {
        uplink: Some("up0".to_owned()),
        ..SwitchSection::default()
    };
    Base::new("w1", &switch, FailMode::Secure)
}

/// A guest that is to be on VLAN 111, and the bridge with its port as `change` leaves it.
fn moving_guest(change: impl FnOnce(&mut ObservedPort)) -> (Desired, SwitchState, Observed) {
    let desired = desired(&[guest_port(111), rules(110), rules(111)]);
    let state = desired::switch(&base(), &desired);
    let mut port = ObservedPort {
        bridge: Some((Uuid::new_v4(), state.bridge.name.clone())),
        interfaces: vec![ObservedInterface {
            name: TAP.to_owned(),
            ofport: Some(7),
            ..ObservedInterface::default()
        }],
        ..ObservedPort::default()
    };
    port.columns.vlan_mode = Some("access".to_owned());
    port.columns.tag = Some(111);
    port.columns
        .external_ids
        .insert("trunkline".to_owned(), "w1".to_owned());
    change(&mut port);
    let observed = Observed {
        ports: BTreeMap::from([(TAP.to_owned(), port)]),
        ..Observed::default()
    };
    (desired, state, observed)
}

fn guests(network: &Network) -> Vec<(u32, Option<u32>)> {
    let guest = |(number, guest): (&u32, &Guest)| (*number, guest.vlan.map(|vlan| u32::from(vlan.get())));
    network.guests.iter().map(guest).collect()
}

#[test]
fn a_guest_is_shut_until_its_row_has_its_vlan() {
    let rows = [
        ("access", Some(111), Some(111)),
        ("access", Some(110), None),
        ("access", Some(0), None),
        ("access", None, None),
        ("trunk", Some(111), None),
    ];
    for (mode, tag, seen) in rows {
        let (desired, state, observed) = moving_guest(|port| {
            port.columns.vlan_mode = Some(mode.to_owned());
            port.columns.tag = tag;
        });
        let network = network(&desired, &state, &observed, None, &BTreeSet::new());
        assert_eq!(guests(&network), [(7, seen)], "{:?}", observed.ports);
        let set = compile(&network);
        let admitted = |(rule, (_, actions)): (&openflow::Rule, &(_, openflow::Actions))| {
            rule.matches.get(openflow::Field::InPort) == Some((7, 0xffff_ffff)) && !actions.is_drop()
        };
        assert_eq!(set.flows.iter().any(admitted), seen.is_some());
    }
}

#[test]
fn a_row_alone_opens_nobody_while_vswitchd_has_not_read_it() {
    let (desired, state, mut observed) = moving_guest(|port| port.columns.tag = Some(110));
    let first = network(&desired, &state, &observed, None, &BTreeSet::new());
    let shut = moving(&desired, &first, &observed);
    assert_eq!(shut, BTreeSet::from([TAP.to_owned()]));

    observed.ports.get_mut(TAP).unwrap().columns.tag = Some(111);
    for (behind, shut, seen) in [
        (true, &shut, None),
        (false, &shut, Some(111)),
        (true, &BTreeSet::new(), Some(111)),
    ] {
        observed.behind = behind;
        assert_eq!(guests(&network(&desired, &state, &observed, None, shut)), [(7, seen)]);
    }
}

#[test]
fn a_port_that_joins_has_its_flows_first_even_in_the_place_of_an_old_one() {
    let (desired, state, observed) = moving_guest(|port| port.columns.tag = Some(110));
    let mut columns = observed.ports[TAP].columns.clone();
    columns.tag = Some(111);
    columns.interface.ofport_request = Some(9);
    let plan = Plan {
        bridge: BridgeStep::Keep(Uuid::new_v4()),
        remove: Vec::new(),
        modify: Vec::new(),
        add: vec![Addition {
            name: TAP.to_owned(),
            columns,
        }],
        quiet_local: None,
        raise_uplink: None,
        conflicts: BTreeMap::new(),
    };
    let network = network(&desired, &state, &observed, Some(&plan), &BTreeSet::new());
    assert_eq!(guests(&network), [(9, Some(111))]);
}

#[test]
fn an_uplink_that_is_a_bond_is_named_and_carries_nothing() {
    let (desired, state, mut observed) = moving_guest(|_| {});
    let mut bond = observed.ports[TAP].clone();
    bond.interfaces.push(bond.interfaces[0].clone());
    observed.ports.insert("up0".to_owned(), bond);
    let (name, reason) = uplink_problem(&state, &observed).unwrap();
    assert_eq!(name, "up0");
    assert!(
        reason.contains("bond of 2 interfaces") && reason.contains("name one interface"),
        "{reason}"
    );
    assert_eq!(
        network(&desired, &state, &observed, None, &BTreeSet::new()).uplink,
        None
    );

    observed.ports.get_mut("up0").unwrap().interfaces.pop();
    assert_eq!(uplink_problem(&state, &observed), None);
    assert!(
        network(&desired, &state, &observed, None, &BTreeSet::new())
            .uplink
            .is_some()
    );
}

/// What the meters of port 7 say after so many frames were dropped.
fn meters(group: u64, unknown: u64) -> BTreeMap<u32, MeterCounters> {
    let seen = |storm: Storm, dropped| {
        let counters = MeterCounters { packets: 1000, dropped };
        (storm.meter(7), counters)
    };
    BTreeMap::from([seen(Storm::Group, group), seen(Storm::Unknown, unknown)])
}

#[test]
fn a_limit_that_bites_degrades_its_vlan_until_a_look_without() {
    let (desired, state, observed) = moving_guest(|_| {});
    let network = network(&desired, &state, &observed, None, &BTreeSet::new());
    let mut storms = Storms {
        network,
        names: BTreeMap::from([(7, TAP.to_owned())]),
        ..Storms::default()
    };
    for (_, item, rules) in desired.flows() {
        let key = Envelope::seal(&Spec::Flows(rules.clone()), "").key;
        let facts = Facts::Flows(wire::FlowsFacts::default());
        let judged = item.observation(&key, State::Ready, "", Some(facts));
        storms.judged.insert(key, judged);
    }
    // What was dropped before the first look may be long ago.
    assert_eq!(storms.count(&desired, meters(5, 0)), []);
    assert_eq!(storms.count(&desired, meters(5, 0)), []);

    for (group, unknown) in [(8, 0), (8, 4)] {
        let told = storms.count(&desired, meters(group, unknown));
        let state = |id: u32| {
            let of_it = |o: &&Observation| o.key.name.as_str() == Flows::name_of(vlan(id));
            told.iter().find(of_it).unwrap().clone()
        };
        assert_eq!(state(110).state, State::Ready);
        let hit = state(111);
        assert_eq!(hit.state, State::Degraded);
        let words = format!(
            "{TAP} sends more to all, or to nobody, than its limit allows: {} frames",
            group + unknown
        );
        assert!(hit.reason.contains(&words), "{}", hit.reason);
    }

    let told = storms.count(&desired, meters(8, 4));
    assert!(
        told.iter().all(|o| o.state == State::Ready && o.reason.is_empty()),
        "{told:#?}"
    );
    // What did not change is not told again.
    assert_eq!(storms.count(&desired, meters(8, 4)), []);
}

#[test]
fn a_switch_that_hides_fragments_is_a_reason_where_guests_are_held_to_what_they_are() {
    let flows = |id: u32, port_security, protected| {
        let Spec::Flows(flows) = rules(id) else { panic!() };
        Flows {
            port_security,
            protected,
            ..flows
        }
    };
    let reason = |flows: &Flows, fragments| crate::worker::judge::unseen("br-int", flows, fragments);
    for flows in [
        flows(111, true, false),
        flows(111, false, true),
        flows(400, false, false),
    ] {
        let text = reason(&flows, Fragments::Hidden).unwrap();
        assert!(text.contains("br-int handles fragments as `normal`"), "{text}");
        assert!(reason(&flows, Fragments::Dropped).is_some());
        assert_eq!(reason(&flows, Fragments::Matched), None);
    }
    assert_eq!(reason(&flows(111, false, false), Fragments::Hidden), None);
}
