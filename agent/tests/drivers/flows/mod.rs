//! Frames through the real ovs-vswitchd with the compiled flows: who hears what.
//!
//! Each port is a TAP whose other side is this test. After each frame two sentinels go from `a` to `b`: when the second has come,
//! ovs-vswitchd has been round all its ports, so what has not come till then was dropped.

mod fragments;
mod frames;
mod open;
mod probe;
mod rig;
mod secured;
mod storms;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::time::Instant;

use trunkline_agent::flows::{
    self, Guest, Network, Policy, Segment, ServiceAddress, Storm, StormLimits, Uplink, compile,
};
use trunkline_proto::{Mac, VlanId};

use self::frames::*;
use self::rig::Rig;
use super::openflow::{Bridge, ofctl};
use super::stand::{LIMIT, alone, run};
use super::tun::tap;

/// Ports by name: OpenFlow number and VLAN. `a b g` on an open link, `c d` on a secured one, `e f` on VLAN 400, `x y` isolated.
const PORTS: [(&str, u32, u32); 9] = [
    ("a", 10, 110),
    ("b", 11, 110),
    ("g", 12, 110),
    ("c", 13, 120),
    ("d", 14, 120),
    ("e", 15, 400),
    ("f", 16, 400),
    ("x", 17, 0),
    ("y", 18, 0),
];

const UPLINK: &str = "up";
/// The probe's port, and its number.
const PROBE: (&str, u32) = ("p", 2);

const ALL: [u8; 6] = [0xff; 6];

const IPV4: u16 = 0x0800;

const ARP: u16 = 0x0806;

const IPV6: u16 = 0x86dd;

fn vlan(id: u32) -> VlanId {
    VlanId::try_from(id).unwrap()
}

fn number(name: &str) -> u32 {
    PORTS.iter().find(|port| port.0 == name).unwrap().1
}

fn mac(name: &str) -> Mac {
    Mac::try_from([0x52, 0x54, 0, 0, 0, u8::try_from(number(name)).unwrap()]).unwrap()
}

fn ip(name: &str) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(number(name)).unwrap())
}

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn network(limits: StormLimits) -> Network {
    let guest = |(name, number, id): &(&str, u32, u32)| {
        let guest = Guest {
            vlan: VlanId::try_from(*id).ok(),
            mac: mac(name),
            addresses: BTreeSet::from([ip(name)]),
            limits,
        };
        (*number, guest)
    };
    let segment = |id: u32, policy| {
        let services = [
            (Mac::of_gateway(vlan(id)), GATEWAY, false),
            (Mac::of_dhcp(vlan(id)), Ipv4Addr::new(10, 0, 0, 254), true),
        ];
        let service = |(mac, address, dhcp)| ServiceAddress { mac, address, dhcp };
        let known = PORTS
            .iter()
            .filter(|port| port.2 == id)
            .map(|port| mac(port.0))
            .collect();
        let services = services.into_iter().map(service).collect();
        (
            vlan(id),
            Segment {
                policy,
                services,
                known,
            },
        )
    };
    Network {
        uplink: Some(Uplink {
            port: 1,
            vlans: [110, 120, 400].map(vlan).into(),
        }),
        probe: Some(PROBE.1),
        guests: PORTS.iter().map(guest).collect(),
        segments: [
            segment(110, Policy::Open),
            segment(120, Policy::Secured),
            segment(400, Policy::Open),
        ]
        .into(),
    }
}
