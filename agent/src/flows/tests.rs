#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use proptest::prelude::*;
use trunkline_proto::{Mac, VlanId};

use super::model::{Exit, Frame, send};
use super::*;
use crate::openflow::{Counters, Field, FlowSet, MeterCounters, Table, VLAN_PRESENT, mac_value, port};

const UPLINK: u32 = 1;
const PROBE: u32 = 2;

fn vlan(id: u32) -> VlanId {
    VlanId::try_from(id).unwrap()
}

fn guest_mac(number: u32) -> Mac {
    Mac::try_from([0x52, 0x54, 0, 0, 0, u8::try_from(number).unwrap()]).unwrap()
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(number).unwrap())
}

fn guest(number: u32, id: Option<u32>) -> Guest {
    Guest {
        vlan: id.map(vlan),
        mac: guest_mac(number),
        addresses: BTreeSet::from([address(number)]),
        limits: StormLimits::default(),
    }
}

fn segment(id: u32, policy: Policy) -> (VlanId, Segment) {
    let id = vlan(id);
    let service = |mac, last, dhcp| ServiceAddress {
        mac,
        address: Ipv4Addr::new(10, 0, 0, last),
        dhcp,
    };
    let segment = Segment {
        policy,
        services: BTreeSet::from([
            service(Mac::of_gateway(id), 1, false),
            service(Mac::of_dhcp(id), 254, true),
        ]),
        known: (10..16).map(guest_mac).collect(),
    };
    (id, segment)
}

fn segments() -> BTreeMap<VlanId, Segment> {
    BTreeMap::from([
        segment(110, Policy::Open),
        segment(120, Policy::Secured),
        segment(130, Policy::Protected),
        // What is asked for VLAN 400 does not matter.
        segment(400, Policy::Open),
    ])
}

fn worker() -> Network {
    Network {
        uplink: Some(Uplink {
            port: UPLINK,
            vlans: [110, 120, 130, 400].map(vlan).into(),
        }),
        probe: Some(PROBE),
        guests: BTreeMap::from([
            (10, guest(10, Some(110))),
            (11, guest(11, Some(120))),
            (12, guest(12, Some(130))),
            (13, guest(13, Some(400))),
            (14, guest(14, Some(400))),
            (15, guest(15, None)),
        ]),
        segments: segments(),
    }
}

#[test]
fn the_flows_of_a_worker_are_as_recorded() {
    insta::assert_snapshot!(compile(&worker()));
}

#[test]
fn a_node_without_anything_drops_everything() {
    let set = compile(&Network::default());
    assert!(set.flows.values().all(|(_, actions)| actions.is_drop()), "{set}");
    assert!(set.meters.is_empty());
}

fn frame(from: u32, source: Mac, target: u64) -> Frame {
    Frame::default()
        .with(Field::InPort, from)
        .with(Field::EthSrc, mac_value(source.octets()))
        .with(Field::EthDst, target)
        .with(Field::EthType, 0x0800_u16)
}

fn mac_of(mac: Mac) -> u64 {
    mac_value(mac.octets())
}

fn udp(frame: Frame, source: Ipv4Addr, ports: (u16, u16)) -> Frame {
    frame
        .with(Field::Ipv4Src, u32::from(source))
        .with(Field::IpProto, 17_u8)
        .with(Field::UdpSrc, ports.0)
        .with(Field::UdpDst, ports.1)
}

#[test]
fn guests_of_vlan_400_reach_the_gateway_and_not_each_other() {
    let set = compile(&worker());
    let to = |target: u64| {
        let frame = frame(13, guest_mac(13), target).with(Field::Ipv4Src, u32::from(address(13)));
        send(&set, &frame)
    };
    let out = Exit {
        port: UPLINK,
        tag: Some(400),
        meter: None,
    };
    assert_eq!(to(mac_of(Mac::of_gateway(VlanId::INTERNET))), [out]);
    assert_eq!(to(mac_of(guest_mac(14))), []);
    assert_eq!(to(0xffff_ffff_ffff), []);
}

#[test]
fn probe_frames_go_between_uplink_and_probe_only_and_keep_their_tag() {
    let mut network = worker();
    // One whose rules have not come: the way is tried all the same.
    network.uplink.as_mut().unwrap().vlans.insert(vlan(777));
    let set = compile(&network);
    let probe = |from: u32, tag: Option<u16>, kind: u16| {
        let frame = frame(from, guest_mac(1), 0xffff_ffff_ffff).with(Field::EthType, kind);
        let frame = match tag {
            Some(tag) => frame.with(Field::VlanVid, tag | VLAN_PRESENT),
            None => frame,
        };
        send(&set, &frame)
    };
    for tag in [110, 120, 130, 400, 777] {
        for (from, to) in [(UPLINK, PROBE), (PROBE, UPLINK)] {
            let out = Exit {
                port: to,
                tag: Some(u64::from(tag)),
                meter: None,
            };
            assert_eq!(probe(from, Some(tag), 0x88b5), [out], "VLAN {tag} from {from}");
        }
    }
    for from in [UPLINK, PROBE] {
        assert_eq!(probe(from, None, 0x88b5), []);
        assert_eq!(probe(from, Some(778), 0x88b5), []);
    }
    // The probe's port is for probes.
    assert_eq!(probe(PROBE, Some(110), 0x0800), []);
    assert_eq!(probe(PROBE, None, 0x0800), []);
    for guest in network.guests.keys() {
        assert_eq!(probe(*guest, None, 0x88b5), []);
        assert_eq!(probe(*guest, Some(110), 0x88b5), []);
    }
    // Without a probe nobody hears one.
    network.probe = None;
    let set = compile(&network);
    let tagged = frame(UPLINK, guest_mac(1), 0xffff_ffff_ffff)
        .with(Field::EthType, 0x88b5_u16)
        .with(Field::VlanVid, 110 | VLAN_PRESENT);
    assert_eq!(send(&set, &tagged), []);
}

#[test]
fn a_guest_whose_segment_is_not_known_reaches_nothing() {
    let mut network = worker();
    network.segments.clear();
    let set = compile(&network);
    for (number, guest) in &network.guests {
        let sent = frame(*number, guest.mac, 0xffff_ffff_ffff);
        assert_eq!(send(&set, &udp(sent, address(*number), (68, 67))), []);
    }
}

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
    observed.flows.remove(&tagged);
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
    observed.flows.remove(&shared);
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
    let table = Table { set, counters };
    let seen = port_counters(10, &table);
    assert_eq!(
        seen,
        PortCounters {
            admitted: 1,
            refused: 1
        }
    );
}

fn networks() -> impl Strategy<Value = Network> {
    let ids = prop_oneof![
        Just(Some(110)),
        Just(Some(120)),
        Just(Some(130)),
        Just(Some(400)),
        Just(Some(999)),
        Just(None)
    ];
    let guests = proptest::collection::btree_map(10_u32..16, ids, 0..6);
    let carried = proptest::sample::subsequence(vec![110_u32, 120, 130, 400, 777], 0..=5);
    (guests, proptest::option::of(carried), any::<bool>()).prop_map(|(guests, carried, probe)| Network {
        uplink: carried.map(|vlans| Uplink {
            port: UPLINK,
            vlans: vlans.into_iter().map(vlan).collect(),
        }),
        probe: probe.then_some(PROBE),
        guests: guests
            .into_iter()
            .map(|(number, id)| (number, guest(number, id)))
            .collect(),
        segments: segments(),
    })
}

fn macs() -> impl Strategy<Value = u64> {
    let ids = prop_oneof![Just(110_u32), Just(130), Just(400)];
    prop_oneof![
        (10_u32..17).prop_map(|number| mac_of(guest_mac(number))),
        (ids, any::<bool>()).prop_map(|(id, dhcp)| {
            let id = vlan(id);
            mac_of(if dhcp { Mac::of_dhcp(id) } else { Mac::of_gateway(id) })
        }),
        Just(0xffff_ffff_ffff),
        Just(0x0180_c200_000e),
        Just(0x3333_0000_0001),
    ]
}

/// Frames of all kinds from all ports. Most are made by nobody honest.
fn frames() -> impl Strategy<Value = Frame> {
    let ports = prop_oneof![Just(UPLINK), Just(PROBE), Just(port::LOCAL), 10_u32..16, 20_u32..26];
    let tags = prop_oneof![
        3 => Just(None),
        3 => prop_oneof![Just(0_u16), Just(110), Just(120), Just(130), Just(400), Just(777), Just(4095)].prop_map(Some),
    ];
    let addresses = (10_u32..17).prop_map(|number| u32::from(address(number)));
    let addresses = prop_oneof![Just(0_u32), Just(u32::from(address(1))), addresses];
    let udp_ports = prop_oneof![Just((68_u16, 67_u16)), Just((67, 68)), Just((5000, 53))];
    let kinds = prop_oneof![Just(0x0800_u16), Just(0x0806), Just(0x86dd), Just(0x88b5), Just(0x8808)];
    (
        ports,
        tags,
        (macs(), macs(), macs()),
        (addresses.clone(), addresses),
        udp_ports,
        kinds,
    )
        .prop_map(|(from, tag, (source, target, sender), (spa, tpa), ports, kind)| {
            let frame = Frame::default()
                .with(Field::InPort, from)
                .with(Field::EthSrc, source)
                .with(Field::EthDst, target)
                .with(Field::EthType, kind);
            let frame = match tag {
                Some(tag) => frame.with(Field::VlanVid, tag | VLAN_PRESENT),
                None => frame,
            };
            match kind {
                0x0800 => udp(frame, spa.into(), ports),
                0x0806 => frame
                    .with(Field::ArpOp, 1_u16)
                    .with(Field::ArpSpa, spa)
                    .with(Field::ArpTpa, tpa)
                    .with(Field::ArpSha, sender),
                0x86dd => frame.with(Field::IpProto, 58_u8).with(Field::Icmpv6Type, 134_u8),
                _ => frame,
            }
        })
}

/// The VLAN that a frame belongs to, by where it came in. `None`: it belongs nowhere.
fn origin(network: &Network, frame: &Frame) -> Option<VlanId> {
    let from = u32::try_from(frame.get(Field::InPort)?).ok()?;
    let tag = frame.tag();
    if let Some(guest) = network.guests.get(&from) {
        return guest
            .vlan
            .filter(|vlan| tag.is_none() && network.segments.contains_key(vlan));
    }
    let uplink = network.uplink.as_ref()?;
    let carried = vlan_of(tag?).filter(|vlan| uplink.vlans.contains(vlan));
    let probing = network.probe == Some(from) && frame.get(Field::EthType) == Some(0x88b5);
    carried.filter(|_| from == uplink.port || probing)
}

fn vlan_of(tag: u64) -> Option<VlanId> {
    VlanId::try_from(u32::try_from(tag).ok()?).ok()
}

fn protected(vlan: VlanId) -> bool {
    [130, 400].contains(&vlan.get())
}

fn check_exit(network: &Network, frame: &Frame, exit: &Exit) -> Result<(), TestCaseError> {
    let vlan = origin(network, frame);
    prop_assert!(vlan.is_some(), "a frame that belongs nowhere gets out");
    let vlan = vlan.unwrap();
    let is_probe = frame.get(Field::EthType) == Some(0x88b5);
    let from_guest =
        u32::try_from(frame.get(Field::InPort).unwrap()).is_ok_and(|from| network.guests.contains_key(&from));
    prop_assert!(!(is_probe && from_guest));
    if exit.is_normal() {
        prop_assert!(!protected(vlan));
        return Ok(());
    }
    if network.probe == Some(exit.port) {
        prop_assert!(is_probe);
        return Ok(());
    }
    if let Some(uplink) = network.uplink.as_ref().filter(|uplink| uplink.port == exit.port) {
        prop_assert_eq!(exit.tag, Some(u64::from(vlan.get())));
        prop_assert!(uplink.vlans.contains(&vlan));
    } else {
        let held = network.guests.get(&exit.port).and_then(|guest| guest.vlan);
        prop_assert_eq!(held, Some(vlan), "out of a port of another VLAN");
        prop_assert_eq!(exit.tag, None);
    }
    Ok(())
}

/// On a protected VLAN one side of each frame is a service.
fn check_protected(network: &Network, frame: &Frame, exits: &[Exit]) -> Result<(), TestCaseError> {
    let Some(vlan) = origin(network, frame).filter(|vlan| protected(*vlan)) else {
        return Ok(());
    };
    let services = [Mac::of_gateway(vlan), Mac::of_dhcp(vlan)].map(mac_of);
    let source = frame.get(Field::EthSrc).unwrap();
    let (group, probe) = (0xffff_ffff_ffff, frame.get(Field::EthType) == Some(0x88b5));
    if exits.is_empty() || probe {
        return Ok(());
    }
    for exit in exits.iter().filter(|exit| network.guests.contains_key(&exit.port)) {
        prop_assert!(services.contains(&source), "{exit:?}");
    }
    let from = u32::try_from(frame.get(Field::InPort).unwrap()).unwrap();
    if let Some(guest) = network.guests.get(&from) {
        let target = frame.get(Field::EthDst).unwrap();
        prop_assert!(services.contains(&target) || target == group);
        prop_assert_eq!(source, mac_of(guest.mac));
        let own = guest.addresses.iter().map(|ip| u64::from(u32::from(*ip))).chain([0]);
        let own: Vec<u64> = own.collect();
        let claimed = frame.get(Field::ArpSpa).or(frame.get(Field::Ipv4Src));
        prop_assert!(claimed.is_some_and(|ip| own.contains(&ip)));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_frame_leaves_its_vlan(network in networks(), frames in proptest::collection::vec(frames(), 30)) {
        let set = compile(&network);
        for frame in &frames {
            let exits = send(&set, frame);
            for exit in &exits {
                check_exit(&network, frame, exit)?;
                prop_assert_ne!(u64::from(exit.port), frame.get(Field::InPort).unwrap());
            }
            check_protected(&network, frame, &exits)?;
        }
    }

    #[test]
    fn every_port_has_its_flows_and_an_isolated_one_only_drops(network in networks()) {
        let set = compile(&network);
        for (number, guest) in &network.guests {
            let own: Vec<_> = set.flows.iter().filter(|(rule, _)| {
                rule.matches.get(Field::InPort).is_some_and(|(value, _)| value == u64::from(*number))
            }).collect();
            prop_assert!(!own.is_empty());
            let reaches_nothing = guest.vlan.is_none_or(|vlan| !network.segments.contains_key(&vlan));
            prop_assert_eq!(own.iter().all(|(_, (_, actions))| actions.is_drop()), reaches_nothing);
        }
    }

    #[test]
    fn every_meter_that_a_flow_names_is_there_and_ours(network in networks()) {
        let set: FlowSet = compile(&network);
        let named: BTreeSet<u32> = set.flows.values().filter_map(|(_, actions)| actions.meter).collect();
        let made: BTreeSet<u32> = set.meters.keys().copied().collect();
        prop_assert!(named.is_subset(&made));
        prop_assert!(made.iter().all(|id| crate::openflow::Meter::is_ours(*id)));
    }

    #[test]
    fn what_a_guest_sends_to_many_is_limited(network in networks(), frames in proptest::collection::vec(frames(), 30)) {
        let set = compile(&network);
        for frame in &frames {
            let from = u32::try_from(frame.get(Field::InPort).unwrap()).unwrap();
            let group = frame.get(Field::EthDst).unwrap() & 0x0100_0000_0000 != 0;
            if network.guests.contains_key(&from) && group {
                let limit = Some(Storm::Group.meter(from));
                prop_assert!(send(&set, frame).iter().all(|exit| exit.meter == limit));
            }
        }
    }
}

#[test]
fn a_limit_of_zero_is_no_limit() {
    let mut network = worker();
    network.guests.retain(|number, _| *number == 10);
    let limits = &mut network.guests.get_mut(&10).unwrap().limits;
    *limits = StormLimits { group: 0, unknown: 7 };
    let set = compile(&network);
    assert_eq!(
        set.meters.keys().copied().collect::<Vec<_>>(),
        [Storm::Unknown.meter(10)]
    );
    let metered = set.flows.values().filter(|(_, actions)| actions.meter.is_some());
    assert_eq!(metered.count(), 1);
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
    there
        .flows
        .retain(|rule, _| rule.matches.get(Field::InPort).is_none_or(|(value, _)| value != 10));
    let less = standings(&network, &wanted, &there);
    assert!(
        less[&vlan(110)].missing > 0 && less[&vlan(110)].there < whole[&vlan(110)].there,
        "{less:?}"
    );
    assert_eq!(less[&vlan(120)], whole[&vlan(120)]);

    // The last line of a table is everybody's.
    there = wanted.clone();
    there.flows.retain(|rule, _| rule.priority > 0);
    assert!(
        standings(&network, &wanted, &there)
            .values()
            .all(|standing| standing.missing > 0)
    );
}
