#![allow(clippy::unwrap_used, clippy::expect_used)]

mod frames;
mod standing;

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
fn on_an_open_link_any_mac_may_send_but_one_that_was_made_for_somebody_else() {
    let set = compile(&worker());
    let passes = |mac: [u8; 6]| {
        let sent = frame(10, guest_mac(10), 0xffff_ffff_ffff).with(Field::EthSrc, mac_value(mac));
        !send(&set, &sent).is_empty()
    };
    assert!(passes(guest_mac(10).octets()));
    for foreign in [
        [2, 0, 0, 0, 0, 9],
        [0x52, 0x53, 0, 0, 0, 10],
        [0x52, 0x57, 0, 0, 0, 10],
        [0x50, 0x54, 0, 0, 0, 10],
    ] {
        assert!(passes(foreign), "{foreign:x?}");
    }
    for made in [
        guest_mac(11),
        Mac::of_gateway(vlan(110)),
        Mac::of_dhcp(VlanId::INTERNET),
        Mac::of_probe(&"w1".parse().unwrap()),
    ] {
        assert!(made.is_derived() && !passes(made.octets()), "{made}");
    }
    // One with a MAC of its own choice keeps that.
    let mut network = worker();
    network.guests.get_mut(&10).unwrap().mac = Mac::try_from([2, 0, 0, 0, 0, 9]).unwrap();
    let set = compile(&network);
    let own = frame(10, Mac::try_from([2, 0, 0, 0, 0, 9]).unwrap(), 0xffff_ffff_ffff);
    assert!(!send(&set, &own).is_empty());
    assert!(send(&set, &frame(10, guest_mac(10), 0xffff_ffff_ffff)).is_empty());
}

#[test]
fn no_guest_speaks_to_switches() {
    let set = compile(&worker());
    let groups = [
        0x0180_c200_0000_u64,
        0x0180_c200_003f,
        0x0119_a700_0001,
        0x0100_0ccc_cccc,
        0x0100_0ccc_cccd,
    ];
    for from in worker().guests.keys() {
        let sent =
            |target: u64, kind: u16| send(&set, &frame(*from, guest_mac(*from), target).with(Field::EthType, kind));
        for group in groups {
            assert_eq!(sent(group, 0x1234), [], "to {group:x} from {from}");
        }
        let gateway = mac_of(Mac::of_gateway(vlan(110)));
        for kind in [0x8808, 0x8809, 0x888e, 0x88cc, 0x9000] {
            for target in [0xffff_ffff_ffff, gateway, mac_of(Mac::of_gateway(VlanId::INTERNET))] {
                assert_eq!(sent(target, kind), [], "{kind:x} from {from}");
            }
        }
    }
    // A group beside them is for whoever wants it.
    let group = frame(10, guest_mac(10), 0x0180_c200_0040).with(Field::EthType, 0x1234_u16);
    assert!(!send(&set, &group).is_empty());
}

#[test]
fn arp_to_a_services_own_mac_counts_as_a_broadcast_where_guests_are_held_to_their_own() {
    let set = compile(&worker());
    for (from, id) in [(11, 120), (12, 130), (13, 400)] {
        for service in [Mac::of_gateway(vlan(id)), Mac::of_dhcp(vlan(id))] {
            let arp = frame(from, guest_mac(from), mac_of(service))
                .with(Field::EthType, 0x0806_u16)
                .with(Field::ArpSha, mac_of(guest_mac(from)))
                .with(Field::ArpSpa, u32::from(address(from)))
                .with(Field::ArpTpa, u32::from(address(1)))
                .with(Field::ArpOp, 1_u8);
            let exits = send(&set, &arp);
            assert_eq!(exits.len(), 1, "from {from}");
            assert_eq!(exits[0].meter, Some(Storm::Group.meter(from)), "from {from}");
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
fn on_a_secured_link_a_first_fragment_is_held_to_the_rules_of_a_whole_packet() {
    let (first, later) = (1, 3);
    let set = compile(&worker());
    let passes = |frame: Frame, part: u8| !send(&set, &frame.with(Field::IpFrag, part)).is_empty();
    let from = |kind: u16| frame(11, guest_mac(11), mac_of(guest_mac(12))).with(Field::EthType, kind);
    let v4 = |ports| udp(from(0x0800), address(11), ports);
    let v6 = |protocol: u8| from(0x86dd).with(Field::IpProto, protocol);
    let v6_udp = |ports: (u16, u16)| v6(17).with(Field::UdpSrc, ports.0).with(Field::UdpDst, ports.1);
    let icmp6 = |kind: u8| v6(58).with(Field::Icmpv6Type, kind).with(Field::Icmpv6Code, 0_u8);

    assert!(passes(v4((5000, 53)), first) && passes(v4((0, 0)), later));
    assert!(passes(v6_udp((5000, 53)), first) && passes(v6(44), later));
    assert!(passes(icmp6(128), first) && passes(icmp6(129), first));
    for (what, frame) in [
        ("a DHCP answer", v4((67, 4000))),
        ("a DHCP answer from another port", v4((4000, 68))),
        ("one without ports", v4((0, 0))),
        ("a DHCPv6 answer", v6_udp((4000, 546))),
        ("one without ports, of IPv6", v6_udp((0, 0))),
        ("a router", icmp6(134)),
        ("a redirect", icmp6(137)),
        (
            "a neighbour with its own MAC",
            icmp6(136).with(Field::NdTll, mac_of(guest_mac(11))),
        ),
        ("one without a type", icmp6(0)),
        ("one whose options do not end", v6(0)),
    ] {
        assert!(!passes(frame, first), "{what}");
    }
    let to_all = v4((0, 0)).with(Field::EthDst, 0xffff_ffff_ffff_u64);
    assert!(!passes(to_all, later), "a later one to all");
    let forged = udp(from(0x0800), address(12), (0, 0));
    assert!(!passes(forged, later), "a later one of another");
}
