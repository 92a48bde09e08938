//! What one slice, or the internet for all of them, puts on each node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use trunkline_proto::{
    Hash, Mac, Name, PortName, VlanId,
    resource::{Dhcp, Envelope, Flows, Gateway, Key, Nat, Port, PortOwner, Reservation, Spec},
};

use super::probe::Keys;
use crate::{
    model::{Frozen, Interface, Link, Slice, Vm},
    settings::Settings,
};

/// What a part depends on besides what it is made of.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) netnode: Option<&'a Name>,
    /// Without them nothing is probed.
    pub(super) keys: Option<&'a Keys>,
    pub(super) settings: &'a Settings,
    pub(super) traceparent: &'a str,
}

/// Of one slice, by node.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Part {
    /// Uid and deployed number of the slice that it was made from.
    pub(super) of: (u64, u32),
    pub(super) nodes: BTreeMap<Name, Share>,
    /// Its guests on VLAN 400.
    pub(super) guests: BTreeMap<Mac, Guest>,
}

/// On VLAN 400.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Guest {
    pub(super) worker: Name,
    pub(super) reservation: Reservation,
}

/// Of one slice, on one node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Share {
    pub(super) resources: BTreeMap<Key, Arc<Envelope>>,
    /// VLANs that the node's uplink must carry for it.
    pub(super) vlans: BTreeSet<VlanId>,
}

impl Share {
    fn add(&mut self, spec: &Spec, traceparent: &str) {
        self.put(Arc::new(Envelope::seal(spec, traceparent)));
    }

    fn put(&mut self, envelope: Arc<Envelope>) {
        self.resources.insert(envelope.key.clone(), envelope);
    }

    /// The same to a node, whatever trace it came with.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.vlans == other.vlans && self.versions().eq(other.versions())
    }

    fn versions(&self) -> impl Iterator<Item = (&Key, Hash)> {
        self.resources.iter().map(|(key, envelope)| (key, envelope.hash))
    }
}

impl Part {
    /// A deployed revision. Without a network node the workers' part is all there is.
    pub(super) fn of_slice(slice: &Slice, frozen: &Frozen, around: Surroundings) -> Self {
        let Surroundings {
            netnode,
            keys,
            settings,
            traceparent,
        } = around;
        let mut part = Self {
            of: (slice.uid, frozen.number),
            ..Self::default()
        };
        for vm in frozen.vms.values() {
            let share = part.share(&vm.worker);
            for interface in &vm.interfaces {
                let link = interface.link.as_ref().and_then(|name| frozen.links.get(name));
                let port = port(&slice.name, vm, interface, link, settings);
                share.vlans.extend(port.vlan);
                share.add(&Spec::Port(port), traceparent);
            }
            part.guests.extend(internet_guest(vm));
        }
        for link in frozen.links.values() {
            let flows = Arc::new(Envelope::seal(&Spec::Flows(flows(frozen, link, settings)), traceparent));
            let vms = link.ends.iter().filter_map(|end| frozen.vms.get(&end.vm));
            let workers: BTreeSet<&Name> = vms.map(|vm| &vm.worker).collect();
            for worker in &workers {
                part.share(worker).put(flows.clone());
            }
            let probes = keys.map(|keys| keys.of_link(link.vlan, link.mtu, &workers, netnode));
            for (node, probe) in probes.into_iter().flatten() {
                part.share(node).add(&Spec::Probe(probe), traceparent);
            }
        }
        if let Some(netnode) = netnode {
            for link in frozen.links.values() {
                let share = part.share(netnode);
                share.vlans.insert(link.vlan);
                share.add(&Spec::Gateway(gateway(link)), traceparent);
                if link.dhcp {
                    share.add(&Spec::Dhcp(dhcp(frozen, link, settings)), traceparent);
                }
            }
        }
        part
    }

    /// VLAN 400, once for all slices, for as long as it has a guest: flows on the guests' workers, and the rest on the network
    /// node.
    pub(super) fn of_internet(guests: &BTreeMap<Mac, Guest>, around: Surroundings) -> Self {
        let Surroundings {
            netnode,
            keys,
            settings,
            traceparent,
        } = around;
        let mut part = Self::default();
        let flows = Arc::new(Envelope::seal(&Spec::Flows(internet_flows(settings)), traceparent));
        let workers: BTreeSet<&Name> = guests.values().map(|guest| &guest.worker).collect();
        for worker in &workers {
            // That the uplink there carries VLAN 400 is in the slices' parts, with the ports.
            part.share(worker).put(flows.clone());
        }
        if let (Some(netnode), false) = (netnode, guests.is_empty()) {
            let share = Share::of_internet(guests, settings, traceparent);
            part.nodes.insert(netnode.clone(), share);
            let probes = keys.map(|keys| keys.of_internet(settings.default_mtu, &workers, netnode));
            for (node, probe) in probes.into_iter().flatten() {
                part.share(node).add(&Spec::Probe(probe), traceparent);
            }
        }
        part
    }

    fn share(&mut self, node: &Name) -> &mut Share {
        self.nodes.entry(node.clone()).or_default()
    }
}

impl Share {
    /// The network node's.
    fn of_internet(guests: &BTreeMap<Mac, Guest>, settings: &Settings, traceparent: &str) -> Self {
        let (vlan, subnet) = (VlanId::INTERNET, settings.internet_subnet);
        let gateway = Gateway {
            vlan,
            address: subnet.gateway(),
            mac: Mac::of_gateway(vlan),
            mtu: settings.default_mtu,
        };
        let dhcp = Dhcp {
            vlan,
            address: subnet.dhcp_server(),
            mac: Mac::of_dhcp(vlan),
            mtu: settings.default_mtu,
            range: None,
            router: subnet.gateway().address,
            dns: settings.dns.clone(),
            lease: settings.lease,
            reservations: guests.values().map(|guest| guest.reservation.clone()).collect(),
        };
        let nat = Nat {
            vlan,
            subnet,
            gateway_port: PortName::gateway(vlan),
        };
        let mut share = Self {
            vlans: [vlan].into(),
            ..Self::default()
        };
        for spec in [Spec::Gateway(gateway), Spec::Dhcp(dhcp), Spec::Nat(nat)] {
            share.add(&spec, traceparent);
        }
        share
    }
}

fn port(slice: &Name, vm: &Vm, interface: &Interface, link: Option<&Arc<Link>>, settings: &Settings) -> Port {
    Port {
        tap: interface.tap.clone(),
        vlan: interface.vlan,
        mac: interface.mac,
        addresses: interface.address.into_iter().collect(),
        mtu: link.map_or(settings.default_mtu, |l| l.mtu),
        owner: PortOwner {
            slice: slice.to_string(),
            vm: vm.name.to_string(),
            interface: interface.name.to_string(),
        },
    }
}

/// The guests' protection on a link, the same on every worker that it reaches.
fn flows(frozen: &Frozen, link: &Link, settings: &Settings) -> Flows {
    let guests = link.ends.iter().filter_map(|end| {
        let vm = frozen.vms.get(&end.vm)?;
        Some(vm.interfaces.get(usize::from(end.interface.index()))?.mac)
    });
    Flows {
        vlan: link.vlan,
        gateway_mac: Mac::of_gateway(link.vlan),
        gateway_address: link.subnet.gateway().address,
        dhcp: link
            .dhcp
            .then(|| (Mac::of_dhcp(link.vlan), link.subnet.dhcp_server().address)),
        guests: guests.collect(),
        port_security: link.port_security,
        protected: link.protected,
        broadcast_limit: settings.broadcast_limit,
        unknown_unicast_limit: settings.unknown_unicast_limit,
    }
}

/// VLAN 400 is shared by tenants: each guest speaks to the gateway and the DHCP server, as itself.
fn internet_flows(settings: &Settings) -> Flows {
    let vlan = VlanId::INTERNET;
    Flows {
        vlan,
        gateway_mac: Mac::of_gateway(vlan),
        gateway_address: settings.internet_subnet.gateway().address,
        dhcp: Some((Mac::of_dhcp(vlan), settings.internet_subnet.dhcp_server().address)),
        guests: BTreeSet::new(),
        port_security: true,
        protected: true,
        broadcast_limit: settings.broadcast_limit,
        unknown_unicast_limit: settings.unknown_unicast_limit,
    }
}

fn gateway(link: &Link) -> Gateway {
    Gateway {
        vlan: link.vlan,
        address: link.subnet.gateway(),
        mac: Mac::of_gateway(link.vlan),
        mtu: link.mtu,
    }
}

fn dhcp(frozen: &Frozen, link: &Link, settings: &Settings) -> Dhcp {
    let mut reservations: Vec<Reservation> = link
        .ends
        .iter()
        .filter_map(|end| {
            let vm = frozen.vms.get(&end.vm)?;
            let interface = vm.interfaces.get(usize::from(end.interface.index()))?;
            // A guest with internet has its default route on eth0; a second one here would take half of its traffic.
            reservation(vm, interface, vm.internet)
        })
        .collect();
    reservations.sort();
    Dhcp {
        vlan: link.vlan,
        address: link.subnet.dhcp_server(),
        mac: Mac::of_dhcp(link.vlan),
        mtu: link.mtu,
        // Where guests are held to their own MAC and address nobody else can ask, and without a range the server holds each to its own
        // inside DHCP messages as well.
        range: (!link.port_security && !link.protected).then(|| link.subnet.guests()),
        router: link.subnet.gateway().address,
        dns: settings.dns.clone(),
        lease: settings.lease,
        reservations,
    }
}

fn internet_guest(vm: &Vm) -> Option<(Mac, Guest)> {
    let eth0 = vm.interfaces.first().filter(|_| vm.internet)?;
    let guest = Guest {
        worker: vm.worker.clone(),
        reservation: reservation(vm, eth0, false)?,
    };
    Some((eth0.mac, guest))
}

fn reservation(vm: &Vm, interface: &Interface, no_router: bool) -> Option<Reservation> {
    Some(Reservation {
        mac: interface.mac,
        address: interface.address?,
        hostname: vm.name.clone(),
        no_router,
    })
}
