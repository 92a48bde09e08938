//! What the attacks know of the fleet: every interface of every guest, the gateways, the nodes' addresses. An attacker
//! is given all of it; what it cannot do may not hang on what it does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use trunkline_proto::wire::{Interface, Slice, Vm};

use super::frame::Mac;
use super::sniff::{Point, hardware};
use crate::LabError;
use crate::lab::Lab;
use crate::lab::layout::{FABRIC, NETNODE};

/// A node's end of its cable to the others.
const UPLINK: &str = "trunk0";

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
    /// No guest: a node's own network stack.
    Host,
    /// No guest: the cable between a node and the switch between the hosts.
    Wire,
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
    /// The cable of each node, as a sender: another node that somebody else has, or a switch that leaks.
    pub wires: Vec<Nic>,
    /// The own network stack of each node, as a sender.
    pub hosts: Vec<Nic>,
    /// The host's end of each guest's cable, and its hardware address.
    pub taps: Vec<(Point, Mac)>,
    /// Gateways.
    pub gateways: Vec<Server>,
    /// DHCP servers.
    pub dhcp: Vec<Server>,
    /// Every IPv4 address of every node and of the controller that is not a gateway's or a DHCP server's.
    pub node_ipv4: Vec<Ipv4Addr>,
    /// Every IPv6 address of every node's interfaces, and its hardware address.
    pub node_ipv6: Vec<(Mac, Ipv6Addr)>,
    /// Every interface of every node that is no guest's, in words, and its hardware address.
    pub node_macs: Vec<(String, Mac)>,
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
        let nics = nics.collect();
        let (node_ipv4, node_ipv6) = nodes(lab, &gateways)?;
        let wires = (1..)
            .zip(lab.layout().nodes())
            .map(|(number, node)| wire(number, &node, any));
        Ok(Self {
            nics,
            wires: wires.collect(),
            hosts: lab.layout().nodes().iter().map(|node| own_stack(node, any)).collect(),
            taps: taps(lab)?,
            node_macs: own_devices(lab)?,
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

    /// VLANs of the guests on a node.
    pub fn carried(&self, node: &str) -> BTreeSet<u16> {
        // The network node has a gateway on each.
        let guests = self.nics.iter().filter(|nic| nic.tap.host == node || node == NETNODE);
        guests.filter_map(|nic| nic.vlan).collect()
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

/// The fabric's end of a node's cable. What is sent there comes in at the node's uplink.
fn wire(number: u8, node: &str, gateway: (Mac, Ipv4Addr)) -> Nic {
    Nic {
        guest: FABRIC.to_owned(),
        slice: String::new(),
        name: format!("t-{node}"),
        tap: Point {
            host: node.to_owned(),
            interface: UPLINK.to_owned(),
        },
        mac: [0x02, 0xbd, 0xbd, 0, 1, number],
        ip: Ipv4Addr::new(10, 60, 7, 248),
        vlan: None,
        kind: Kind::Wire,
        gateway,
    }
}

/// A node that speaks to itself.
fn own_stack(node: &str, gateway: (Mac, Ipv4Addr)) -> Nic {
    let loopback = "lo".to_owned();
    Nic {
        guest: node.to_owned(),
        slice: String::new(),
        name: loopback.clone(),
        tap: Point {
            host: node.to_owned(),
            interface: loopback,
        },
        mac: [0; 6],
        ip: Ipv4Addr::UNSPECIFIED,
        vlan: None,
        kind: Kind::Host,
        gateway,
    }
}

fn taps(lab: &Lab) -> Result<Vec<(Point, Mac)>, LabError> {
    let mut found = Vec::new();
    for host in lab.layout().workers() {
        let devices = hardware(lab.host(&host)?)?.into_iter();
        let taps = devices.filter(|(device, _)| device.starts_with("tap_"));
        found.extend(taps.map(|(interface, mac)| {
            let host = host.clone();
            (Point { host, interface }, mac)
        }));
    }
    Ok(found)
}

fn own_devices(lab: &Lab) -> Result<Vec<(String, Mac)>, LabError> {
    let mut found = Vec::new();
    for node in lab.layout().nodes() {
        let devices = hardware(lab.host(&node)?)?.into_iter();
        let own = devices.filter(|(device, _)| !device.starts_with("tap_"));
        found.extend(own.map(|(device, mac)| (format!("{node}:{device}"), mac)));
    }
    Ok(found)
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
