//! What one slice, or the internet for all of them, puts on each node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use trunkline_proto::{
    Mac, Name, PortName, VlanId,
    resource::{Dhcp, Envelope, Gateway, Key, Nat, Port, PortOwner, Reservation, Spec},
};

use crate::{
    model::{Frozen, Interface, Link, Slice, Vm},
    settings::Settings,
};

/// Of one slice, by node.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Part {
    /// Uid and deployed number of the slice that it was made from.
    pub(super) of: (u64, u32),
    pub(super) nodes: BTreeMap<Name, Share>,
    /// Its guests on VLAN 400.
    pub(super) guests: BTreeMap<Mac, Reservation>,
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
        let envelope = Envelope::seal(spec, traceparent);
        self.resources.insert(envelope.key.clone(), Arc::new(envelope));
    }
}

impl Part {
    /// A deployed revision. Without a network node the workers' part is all there is.
    pub(super) fn of_slice(
        slice: &Slice,
        frozen: &Frozen,
        netnode: Option<&Name>,
        settings: &Settings,
        traceparent: &str,
    ) -> Self {
        let mut part = Self {
            of: (slice.uid, frozen.number),
            ..Self::default()
        };
        for vm in frozen.vms.values() {
            let share = part.nodes.entry(vm.worker.clone()).or_default();
            for interface in &vm.interfaces {
                let link = interface.link.as_ref().and_then(|name| frozen.links.get(name));
                let port = port(&slice.name, vm, interface, link, settings);
                share.vlans.extend(port.vlan);
                share.add(&Spec::Port(port), traceparent);
            }
            part.guests.extend(internet_guest(vm));
        }
        if let Some(netnode) = netnode {
            for link in frozen.links.values() {
                let share = part.nodes.entry(netnode.clone()).or_default();
                share.vlans.insert(link.vlan);
                share.add(&Spec::Gateway(gateway(link)), traceparent);
                if link.dhcp {
                    share.add(&Spec::Dhcp(dhcp(frozen, link, settings)), traceparent);
                }
            }
        }
        part
    }

    /// VLAN 400, once for all slices, for as long as it has a guest.
    pub(super) fn of_internet(
        guests: &BTreeMap<Mac, Reservation>,
        netnode: Option<&Name>,
        settings: &Settings,
        traceparent: &str,
    ) -> Self {
        let (Some(netnode), false) = (netnode, guests.is_empty()) else {
            return Self::default();
        };
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
            reservations: guests.values().cloned().collect(),
        };
        let nat = Nat {
            vlan,
            subnet,
            gateway_port: PortName::gateway(vlan),
        };
        let mut share = Share {
            vlans: [vlan].into(),
            ..Share::default()
        };
        for spec in [Spec::Gateway(gateway), Spec::Dhcp(dhcp), Spec::Nat(nat)] {
            share.add(&spec, traceparent);
        }
        Self {
            nodes: [(netnode.clone(), share)].into(),
            ..Self::default()
        }
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
        range: Some(link.subnet.guests()),
        router: link.subnet.gateway().address,
        dns: settings.dns.clone(),
        lease: settings.lease,
        reservations,
    }
}

fn internet_guest(vm: &Vm) -> Option<(Mac, Reservation)> {
    let eth0 = vm.interfaces.first().filter(|_| vm.internet)?;
    Some((eth0.mac, reservation(vm, eth0, false)?))
}

fn reservation(vm: &Vm, interface: &Interface, no_router: bool) -> Option<Reservation> {
    Some(Reservation {
        mac: interface.mac,
        address: interface.address?,
        hostname: vm.name.clone(),
        no_router,
    })
}
