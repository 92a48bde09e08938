//! Frames of all kinds through all kinds of networks.

use super::*;

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
    // Whole, a first fragment, a later one.
    let parts = prop_oneof![3 => Just(0_u8), 1 => Just(1), 1 => Just(3)];
    let kinds = prop_oneof![Just(0x0800_u16), Just(0x0806), Just(0x86dd), Just(0x88b5), Just(0x8808)];
    (
        ports,
        tags,
        (macs(), macs(), macs()),
        (addresses.clone(), addresses),
        udp_ports,
        kinds,
        parts,
    )
        .prop_map(|(from, tag, (source, target, sender), (spa, tpa), ports, kind, part)| {
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
                0x0800 => udp(frame, spa.into(), if part == 3 { (0, 0) } else { ports }).with(Field::IpFrag, part),
                0x0806 => frame
                    .with(Field::ArpOp, 1_u16)
                    .with(Field::ArpSpa, spa)
                    .with(Field::ArpTpa, tpa)
                    .with(Field::ArpSha, sender),
                0x86dd if part == 3 => frame.with(Field::IpProto, 44_u8).with(Field::IpFrag, part),
                0x86dd => {
                    let icmp = frame.with(Field::IpProto, 58_u8).with(Field::IpFrag, part);
                    icmp.with(Field::Icmpv6Type, 134_u8)
                }
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
