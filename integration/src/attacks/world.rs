//! What the attacks know of the fleet: every interface of every guest, the gateways, the nodes' addresses. An attacker
//! is given all of it; what it cannot do may not hang on what it does not know.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use trunkline_proto::wire::{Interface, Slice, Vm};

use super::frame::Mac;
use super::sniff::{Point, hardware};
use crate::LabError;
use crate::lab::Lab;
use crate::lab::layout::NETNODE;

/// What an interface of a guest stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A link without options.
    Plain,
    /// A link with `port_security`.
    Secure,
    /// A link with `protected`.
    Protected,
    /// `eth0` with internet: VLAN 400.
    Internet,
    /// `eth0` without internet.
    Nowhere,
}

/// One interface of a guest.
#[derive(Debug, Clone)]
pub struct Nic {
    /// `slice/vm`.
    pub guest: String,
    /// Its slice.
    pub slice: String,
    /// `eth0`, `eth1`, ...
    pub name: String,
    /// Where its TAP is.
    pub tap: Point,
    /// Its hardware address.
    pub mac: Mac,
    /// Its address; one that nobody has for an interface without.
    pub ip: Ipv4Addr,
    /// Its VLAN.
    pub vlan: Option<u16>,
    /// What it stands on.
    pub kind: Kind,
    /// Its gateway. For an interface that has none, a gateway of somebody else.
    pub gateway: (Mac, Ipv4Addr),
}

impl Nic {
    /// `slice/vm.eth1`.
    pub fn full(&self) -> String {
        format!("{}.{}", self.guest, self.name)
    }

    /// Both its addresses.
    pub fn own(&self) -> (Mac, Ipv4Addr) {
        (self.mac, self.ip)
    }
}

/// A gateway or a DHCP server.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its VLAN.
    pub vlan: u16,
    /// Its addresses.
    pub at: (Mac, Ipv4Addr),
}

/// The whole fleet.
#[derive(Debug)]
pub struct World {
    /// Interfaces of guests.
    pub nics: Vec<Nic>,
    /// Gateways.
    pub gateways: Vec<Server>,
    /// DHCP servers.
    pub dhcp: Vec<Server>,
    /// Every IPv4 address of every node and of the controller that is not a gateway's or a DHCP server's.
    pub node_ipv4: Vec<Ipv4Addr>,
    /// Every IPv6 address of every node's interfaces, and its hardware address.
    pub node_ipv6: Vec<(Mac, Ipv6Addr)>,
}

impl World {
    /// Looks at the fleet.
    pub fn look(lab: &Lab, slices: &[Slice]) -> Result<Self, LabError> {
        let devices = hardware(lab.host(NETNODE)?)?;
        let mut gateways = servers(slices, &devices, "gw_vlan", |gateway| gateway);
        gateways.extend(internet_server(slices, &devices, "gw_vlan400"));
        let mut dhcp = servers(slices, &devices, "dhcp_v", |gateway| {
            let [a, b, c, _] = gateway.octets();
            Ipv4Addr::new(a, b, c, 254)
        });
        dhcp.extend(internet_server(slices, &devices, "dhcp_v400").map(|server| {
            let [a, b, c, _] = server.at.1.octets();
            let at = (server.at.0, Ipv4Addr::new(a, b, c, 254));
            Server { at, ..server }
        }));
        let any = gateways
            .first()
            .map(|server| server.at)
            .ok_or_else(|| LabError::Other("the network node has no gateway".to_owned()))?;
        let nics = slices.iter().flat_map(|slice| &slice.vms).flat_map(|vm| {
            let gateways = &gateways;
            vm.interfaces
                .iter()
                .filter_map(move |interface| nic(vm, interface, gateways, any))
        });
        let (node_ipv4, node_ipv6) = nodes(lab, &gateways)?;
        Ok(Self {
            nics: nics.collect(),
            gateways,
            dhcp,
            node_ipv4,
            node_ipv6,
        })
    }

    /// The interface behind a TAP.
    pub fn behind(&self, point: &Point) -> Option<&Nic> {
        self.nics.iter().find(|nic| &nic.tap == point)
    }

    /// Other interfaces on the same VLAN.
    pub fn peers<'a>(&'a self, nic: &'a Nic) -> impl Iterator<Item = &'a Nic> {
        let others = self.nics.iter().filter(move |other| other.mac != nic.mac);
        others.filter(move |other| nic.vlan.is_some() && other.vlan == nic.vlan)
    }

    /// The DHCP server of a VLAN.
    pub fn dhcp_of(&self, vlan: Option<u16>) -> Option<&Server> {
        self.dhcp.iter().find(|server| Some(server.vlan) == vlan)
    }
}

fn nic(vm: &Vm, interface: &Interface, gateways: &[Server], any: (Mac, Ipv4Addr)) -> Option<Nic> {
    let vlan = u16::try_from(interface.vlan).ok().filter(|vlan| *vlan != 0);
    let kind = match (interface.link.as_str(), vlan) {
        ("secure", _) => Kind::Secure,
        ("protected", _) => Kind::Protected,
        ("", Some(_)) => Kind::Internet,
        ("", None) => Kind::Nowhere,
        _ => Kind::Plain,
    };
    let gateway = gateways.iter().find(|server| Some(server.vlan) == vlan);
    Some(Nic {
        guest: format!("{}/{}", vm.slice, vm.name),
        slice: vm.slice.clone(),
        name: interface.name.clone(),
        tap: Point {
            host: vm.worker.clone(),
            interface: interface.tap.clone(),
        },
        mac: mac(&interface.mac)?,
        ip: interface.address.parse().unwrap_or(Ipv4Addr::new(10, 60, 7, 251)),
        vlan,
        kind,
        gateway: gateway.map_or(any, |server| server.at),
    })
}

/// The links' gateways, or the servers beside them.
fn servers(
    slices: &[Slice],
    devices: &BTreeMap<String, Mac>,
    prefix: &str,
    address: impl Fn(Ipv4Addr) -> Ipv4Addr,
) -> Vec<Server> {
    let links = slices.iter().flat_map(|slice| &slice.links);
    let server = |link: &trunkline_proto::wire::Link| {
        let mac = *devices.get(&format!("{prefix}{}", link.vlan))?;
        let ip = address(link.gateway.parse().ok()?);
        let vlan = u16::try_from(link.vlan).ok()?;
        Some(Server { vlan, at: (mac, ip) })
    };
    links.filter_map(server).collect()
}

fn internet_server(slices: &[Slice], devices: &BTreeMap<String, Mac>, device: &str) -> Option<Server> {
    let interfaces = slices.iter().flat_map(|slice| &slice.vms).flat_map(|vm| &vm.interfaces);
    let ip = interfaces
        .filter(|interface| interface.vlan == 400)
        .find_map(|interface| interface.gateway.parse().ok())?;
    let at = (*devices.get(device)?, ip);
    Some(Server { vlan: 400, at })
}

/// IPv4 addresses, and IPv6 addresses with the hardware addresses that they stand on.
type Addresses = (Vec<Ipv4Addr>, Vec<(Mac, Ipv6Addr)>);

fn nodes(lab: &Lab, gateways: &[Server]) -> Result<Addresses, LabError> {
    let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
    for name in lab.layout().nodes().into_iter().chain(["ctl".to_owned()]) {
        let host = lab.host(&name)?;
        let devices = hardware(host)?;
        for line in host.must(&["ip", "-o", "address"])?.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, device, family, address, ..] = words[..] else {
                continue;
            };
            let address = address.split('/').next().unwrap_or_default();
            match (family, devices.get(device)) {
                (_, None) => {}
                ("inet", _) => ipv4.extend(address.parse::<Ipv4Addr>().ok()),
                (_, Some(mac)) => ipv6.extend(address.parse::<Ipv6Addr>().ok().map(|ip| (*mac, ip))),
            }
        }
    }
    ipv4.retain(|ip| gateways.iter().all(|server| server.at.1 != *ip));
    Ok((ipv4, ipv6))
}

/// A hardware address out of its text.
pub(super) fn mac(text: &str) -> Option<Mac> {
    let bytes = text.split(':').map(|part| u8::from_str_radix(part, 16).ok());
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}
