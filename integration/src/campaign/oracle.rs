//! The oracle: what every host must have, said from the slices as the API shows them and from nothing else. It is as simple as it can
//! be, and shares no line with the product.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_proto::wire::{Interface, Link, Slice, Vm};

use crate::lab::Layout;
use crate::lab::layout::NETNODE;

/// The VLAN of everybody who may use the internet.
pub(super) const INTERNET_VLAN: u16 = 400;
/// What an Open vSwitch trunk lists that is to carry nothing: an empty list would mean all.
const NOTHING: u16 = 4095;
/// The port of probe frames.
pub(super) const PROBE: &str = "tlprobe0";
/// The place of what is in no namespace.
pub(super) const HOST: &str = "host";

/// One thing that a host has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    /// Our bridge and what it does without flows.
    Bridge { name: String, fail_mode: String },
    /// A port of our bridge.
    Port {
        name: String,
        tag: Option<u16>,
        mode: String,
        trunks: Vec<u16>,
        protected: bool,
    },
    /// A device of the kernel that was not there before us.
    Device {
        place: String,
        name: String,
        up: bool,
        mtu: Option<u32>,
    },
    /// An address of such a device.
    Address {
        place: String,
        name: String,
        address: String,
    },
    /// A named network namespace.
    Namespace(String),
    /// A DHCP server, by its folder.
    Server(String),
    /// What it is told, by its folder: MAC and address.
    Reservation {
        server: String,
        mac: String,
        address: String,
    },
    /// An nftables table.
    Table(String),
    /// A TAP whose frames the host's own stack does not hear.
    Shut(String),
    /// A device whose guests the rules know.
    Gateway(String),
    /// A guest who may use the internet.
    User { mac: String, address: String },
    /// Whether the kernel forwards.
    Forwarding(bool),
    /// A flow of the network node's bridge.
    Flow(String),
    /// Whether a worker has flows of ours.
    OurFlows(bool),
    /// Whatever nobody may ever see.
    Trouble(String),
}

/// All that a host has.
pub(super) type Facts = BTreeSet<Fact>;

/// What holds on a VLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// Guests say what they want.
    Open,
    /// Guests speak as themselves only.
    Secured,
    /// Guests reach gateway and DHCP server only.
    Protected,
}

/// An interface of a deployed VM.
#[derive(Debug, Clone)]
pub(super) struct Port {
    /// The VM's worker.
    pub(super) worker: String,
    /// `slice/vm`.
    pub(super) vm: String,
    /// As the API shows it.
    pub(super) interface: Interface,
    /// 0: none.
    pub(super) vlan: u16,
    /// Of its VLAN.
    pub(super) policy: Policy,
}

/// Every interface of every deployed VM.
pub(super) fn ports(slices: &[Slice]) -> Vec<Port> {
    let mut all = Vec::new();
    for slice in slices {
        for vm in &slice.vms {
            for interface in &vm.interfaces {
                let vlan = vlan_of(slice, vm, interface);
                all.push(Port {
                    worker: vm.worker.clone(),
                    vm: format!("{}/{}", vm.slice, vm.name),
                    interface: interface.clone(),
                    vlan,
                    policy: policy_of(slice, vlan),
                });
            }
        }
    }
    all
}

/// The link that ends at an interface, by the link's own list of ends.
fn link_of<'a>(slice: &'a Slice, vm: &Vm, interface: &Interface) -> Option<&'a Link> {
    let end = format!("{}.{}", vm.name, interface.name);
    slice.links.iter().find(|link| link.ends.contains(&end))
}

fn vlan_of(slice: &Slice, vm: &Vm, interface: &Interface) -> u16 {
    if interface.name == "eth0" {
        return if vm.internet_enabled { INTERNET_VLAN } else { 0 };
    }
    let link = link_of(slice, vm, interface);
    link.map_or(0, |link| small(link.vlan))
}

fn policy_of(slice: &Slice, vlan: u16) -> Policy {
    let link = slice.links.iter().find(|link| small(link.vlan) == vlan);
    match link {
        _ if vlan == INTERNET_VLAN => Policy::Protected,
        Some(link) if link.protected => Policy::Protected,
        Some(link) if link.port_security => Policy::Secured,
        _ => Policy::Open,
    }
}

fn small(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// What every node must have.
pub(super) fn expected(layout: Layout, slices: &[Slice], probes: bool) -> BTreeMap<String, Facts> {
    let ports = ports(slices);
    let workers = layout.workers().map(|worker| {
        let facts = of_worker(&worker, &ports, probes);
        (worker, facts)
    });
    let mut all: BTreeMap<String, Facts> = workers.collect();
    all.insert(NETNODE.to_owned(), of_netnode(slices, &ports, probes));
    all
}

/// What each node has whatever is deployed: a bridge, its own port that leads nowhere, and the uplink with exactly these VLANs.
fn bridge(fail_mode: &str, vlans: &BTreeSet<u16>, probes: bool) -> Facts {
    let carried: Vec<u16> = if vlans.is_empty() {
        vec![NOTHING]
    } else {
        vlans.iter().copied().collect()
    };
    let mut facts = Facts::new();
    facts.insert(Fact::Bridge {
        name: "br-int".to_owned(),
        fail_mode: fail_mode.to_owned(),
    });
    facts.insert(access("br-int", 0));
    facts.insert(trunk("trunk0", carried.clone()));
    if probes && !vlans.is_empty() {
        // Where no flows stand between, the probe's port hears the uplink's VLANs; a worker's flows are all that leads there.
        let heard = if fail_mode == "secure" { vec![NOTHING] } else { carried };
        facts.insert(trunk(PROBE, heard));
        facts.insert(Fact::Device {
            place: HOST.to_owned(),
            name: PROBE.to_owned(),
            up: true,
            mtu: None,
        });
    }
    facts
}

fn access(name: &str, vlan: u16) -> Fact {
    Fact::Port {
        name: name.to_owned(),
        tag: Some(vlan),
        mode: "access".to_owned(),
        trunks: Vec::new(),
        protected: vlan == 0,
    }
}

fn trunk(name: &str, trunks: Vec<u16>) -> Fact {
    Fact::Port {
        name: name.to_owned(),
        tag: None,
        mode: "trunk".to_owned(),
        trunks,
        protected: false,
    }
}

fn of_worker(worker: &str, ports: &[Port], probes: bool) -> Facts {
    let here: Vec<&Port> = ports.iter().filter(|port| port.worker == worker).collect();
    let vlans = here.iter().map(|port| port.vlan).filter(|vlan| *vlan != 0).collect();
    let mut facts = bridge("secure", &vlans, probes);
    for port in &here {
        facts.insert(access(&port.interface.tap, port.vlan));
        facts.insert(Fact::Device {
            place: HOST.to_owned(),
            name: port.interface.tap.clone(),
            up: true,
            mtu: Some(port.interface.mtu),
        });
    }
    if !here.is_empty() {
        facts.insert(Fact::Table("netdev trunkline-agent".to_owned()));
    }
    facts.extend(here.iter().map(|port| Fact::Shut(port.interface.tap.clone())));
    facts.insert(Fact::OurFlows(!here.is_empty()));
    facts.insert(Fact::Forwarding(false));
    facts
}

fn of_netnode(slices: &[Slice], ports: &[Port], probes: bool) -> Facts {
    let links: Vec<&Link> = slices.iter().flat_map(|slice| &slice.links).collect();
    let users: Vec<&Port> = ports.iter().filter(|port| port.vlan == INTERNET_VLAN).collect();
    let mut vlans: BTreeSet<u16> = links.iter().map(|link| small(link.vlan)).collect();
    vlans.extend(users.first().map(|_| INTERNET_VLAN));
    let mut facts = bridge("standalone", &vlans, probes);
    facts.insert(Fact::Flow(
        "cookie=0x54524e4b0b000000, priority=1 actions=NORMAL".to_owned(),
    ));
    facts.insert(Fact::Forwarding(!users.is_empty()));
    if !vlans.is_empty() {
        facts.extend(["inet trunkline", "arp trunkline"].map(|table| Fact::Table(table.to_owned())));
    }
    for link in links {
        let vlan = small(link.vlan);
        let prefix = link.subnet.split('/').nth(1).unwrap_or_default();
        let address = format!("{}/{prefix}", link.gateway);
        let on_it: Vec<&Port> = ports.iter().filter(|port| port.vlan == vlan).collect();
        gateway(&mut facts, vlan, address.clone(), link.mtu);
        if link.dhcp {
            server(&mut facts, vlan, &address, link.mtu, &on_it);
        }
    }
    if let Some(first) = users.first() {
        facts.insert(Fact::Table("inet trunkline-connections".to_owned()));
        let interface = &first.interface;
        let address = format!("{}/{}", interface.gateway, interface.prefix_len);
        gateway(&mut facts, INTERNET_VLAN, address.clone(), interface.mtu);
        server(&mut facts, INTERNET_VLAN, &address, interface.mtu, &users);
        facts.extend(users.iter().map(|port| Fact::User {
            mac: port.interface.mac.clone(),
            address: port.interface.address.clone(),
        }));
    }
    facts
}

fn gateway(facts: &mut Facts, vlan: u16, address: String, mtu: u32) {
    let name = format!("gw_vlan{vlan}");
    facts.insert(access(&name, vlan));
    facts.insert(Fact::Gateway(name.clone()));
    facts.insert(Fact::Address {
        place: HOST.to_owned(),
        name: name.clone(),
        address,
    });
    facts.insert(Fact::Device {
        place: HOST.to_owned(),
        name,
        up: true,
        mtu: Some(mtu),
    });
}

/// A server is at .254 of the gateway's network, in a namespace of its own.
fn server(facts: &mut Facts, vlan: u16, gateway: &str, mtu: u32, guests: &[&Port]) {
    let (name, place) = (format!("dhcp_v{vlan}"), format!("ns-dhcp-vlan{vlan}"));
    let (address, prefix) = gateway.split_once('/').unwrap_or_default();
    let network = address.rsplit_once('.').unwrap_or_default().0;
    facts.insert(access(&name, vlan));
    facts.insert(Fact::Address {
        place: place.clone(),
        name: name.clone(),
        address: format!("{network}.254/{prefix}"),
    });
    facts.insert(Fact::Device {
        place: place.clone(),
        name,
        up: true,
        mtu: Some(mtu),
    });
    facts.insert(Fact::Namespace(place));
    let server = format!("vlan{vlan}");
    facts.insert(Fact::Server(server.clone()));
    facts.extend(guests.iter().map(|port| Fact::Reservation {
        server: server.clone(),
        mac: port.interface.mac.clone(),
        address: port.interface.address.clone(),
    }));
}

/// In words: what is missing and what is too much.
pub(super) fn difference(host: &str, expected: &Facts, seen: &Facts) -> Vec<String> {
    let missing = expected.difference(seen).map(|fact| format!("{host} lacks {fact:?}"));
    let extra = seen.difference(expected).map(|fact| format!("{host} has {fact:?}"));
    missing.chain(extra).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, tap: &str, address: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            tap: tap.to_owned(),
            mac: format!("mac of {tap}"),
            address: address.to_owned(),
            prefix_len: 24,
            gateway: "10.60.7.1".to_owned(),
            mtu: 1500,
            ..Interface::default()
        }
    }

    fn vm(name: &str, worker: &str, id: u32, internet: bool) -> Vm {
        Vm {
            slice: "blue".to_owned(),
            name: name.to_owned(),
            worker: worker.to_owned(),
            internet_enabled: internet,
            interfaces: vec![
                interface("eth0", &format!("tap_{id}_eth0"), "10.60.7.10"),
                interface("eth1", &format!("tap_{id}_eth1"), "10.64.110.10"),
            ],
            ..Vm::default()
        }
    }

    fn blue() -> Slice {
        Slice {
            name: "blue".to_owned(),
            vms: vec![vm("web", "w1", 1000, true), vm("db", "w2", 1001, false)],
            links: vec![Link {
                name: "net".to_owned(),
                vlan: 110,
                subnet: "10.64.110.0/24".to_owned(),
                gateway: "10.64.110.1".to_owned(),
                dhcp: true,
                ends: vec!["db.eth1".to_owned(), "web.eth1".to_owned()],
                mtu: 1500,
                ..Link::default()
            }],
            ..Slice::default()
        }
    }

    #[test]
    fn a_worker_has_the_taps_of_its_own_vms_in_the_vlans_of_their_links() {
        let facts = expected(Layout { workers: 2 }, &[blue()], false);
        let of = &facts["w2"];
        assert!(of.contains(&access("tap_1001_eth1", 110)));
        assert!(of.contains(&access("tap_1001_eth0", 0)), "no internet, no VLAN");
        assert!(of.contains(&trunk("trunk0", vec![110])));
        assert!(!of.iter().any(|fact| format!("{fact:?}").contains("tap_1000")));
        assert!(facts["w1"].contains(&trunk("trunk0", vec![110, 400])));
    }

    #[test]
    fn the_network_node_serves_each_link_and_the_internet_where_somebody_uses_it() {
        let facts = expected(Layout { workers: 2 }, &[blue()], false);
        let of = &facts[NETNODE];
        for server in ["vlan110", "vlan400"] {
            assert!(of.contains(&Fact::Server(server.to_owned())), "{server}");
        }
        let reserved = of
            .iter()
            .filter(|fact| matches!(fact, Fact::Reservation { .. }))
            .count();
        assert_eq!(reserved, 3);
        assert!(of.contains(&Fact::Forwarding(true)));
    }

    #[test]
    fn without_slices_a_trunk_carries_nothing() {
        let facts = expected(Layout { workers: 1 }, &[], true);
        assert!(facts["w1"].contains(&trunk("trunk0", vec![4095])));
        assert!(facts["w1"].contains(&Fact::OurFlows(false)));
        assert!(!facts["w1"].contains(&trunk(PROBE, vec![4095])));
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_are_told_apart() {
        let (one, two) = (Fact::Forwarding(true), Fact::Forwarding(false));
        let wrong = difference("nn", &Facts::from([one]), &Facts::from([two]));
        assert_eq!(wrong, ["nn lacks Forwarding(true)", "nn has Forwarding(false)"]);
    }
}
