//! What all deployed revisions have together: every VLAN, MAC, address and subnet once, and who is on which VLAN.
//!
//! It follows from the deployed revisions and nothing else. A change takes out what the slices that it touches had and puts in what they
//! have now, so looking at the whole costs what the change costs.

use std::{collections::BTreeMap, net::Ipv4Addr};

use trunkline_proto::{LinkSubnet, Mac, Name, VlanId};

use super::CheckError;
use crate::{
    model::{Cluster, Frozen, Link, SharedMap, Vm},
    settings::Settings,
};

/// What a VLAN's guests are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Protection {
    pub(super) port_security: bool,
    pub(super) protected: bool,
}

impl Protection {
    const ALL: Self = Self {
        port_security: true,
        protected: true,
    };
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Index {
    /// `shop/web--db`, and what its guests are held to.
    links: SharedMap<VlanId, (String, Protection)>,
    macs: SharedMap<Mac, ()>,
    addresses: SharedMap<(VlanId, Ipv4Addr), ()>,
    /// By their first address.
    subnets: SharedMap<Ipv4Addr, LinkSubnet>,
    /// Workers with an interface on a VLAN, and how many each has.
    workers: SharedMap<VlanId, BTreeMap<Name, u32>>,
    /// The same the other way round.
    vlans: SharedMap<Name, BTreeMap<VlanId, u32>>,
}

impl Index {
    /// Of all deployed revisions.
    pub(super) fn of(cluster: &Cluster, settings: &Settings) -> Result<Self, CheckError> {
        Self::default().follow(&Cluster::new(""), cluster, settings)
    }

    /// Of those of `after`, when this is that of `before`. Fails when two things meet.
    pub(super) fn follow(&self, before: &Cluster, after: &Cluster, settings: &Settings) -> Result<Self, CheckError> {
        let mut index = self.clone();
        let changed: Vec<_> = before
            .slices
            .differences(&after.slices)
            .map(|(name, was, is)| (name, was.and_then(|s| s.deployed()), is.and_then(|s| s.deployed())))
            .filter(|(_, was, is)| was != is)
            .collect();
        // All that leaves goes before anything joins: a value may pass from one slice to another.
        for (_, was, _) in &changed {
            was.iter().for_each(|frozen| index.leave(frozen, settings));
        }
        for (name, _, is) in &changed {
            is.iter().try_for_each(|frozen| index.join(name, frozen, settings))?;
        }
        Ok(index)
    }

    /// What guests on the VLAN are held to.
    pub(super) fn protection(&self, vlan: VlanId) -> Option<Protection> {
        match vlan {
            VlanId::INTERNET => Some(Protection::ALL),
            vlan => self.links.get(&vlan).map(|(_, protection)| *protection),
        }
    }

    /// Workers on a VLAN.
    pub(super) fn workers(&self, vlan: VlanId) -> impl Iterator<Item = &Name> {
        self.workers.get(&vlan).into_iter().flat_map(BTreeMap::keys)
    }

    /// VLANs of a worker.
    pub(super) fn vlans(&self, worker: &Name) -> impl Iterator<Item = VlanId> {
        self.vlans
            .get(worker)
            .into_iter()
            .flat_map(|vlans| vlans.keys().copied())
    }

    /// Every VLAN that some guest is on.
    pub(super) fn all_vlans(&self) -> impl Iterator<Item = VlanId> {
        self.workers.keys().copied()
    }

    fn leave(&mut self, frozen: &Frozen, settings: &Settings) {
        for link in frozen.links.values() {
            self.links.remove(&link.vlan);
            self.subnets.remove(&link.subnet.net().network());
        }
        for vm in frozen.vms.values() {
            for (vlan, address) in guests(frozen, vm, settings).filter_map(|(vlan, _, address)| Some((vlan, address?)))
            {
                self.addresses.remove(&(vlan, address));
            }
            for interface in &vm.interfaces {
                self.macs.remove(&interface.mac);
                if let Some(vlan) = interface.vlan {
                    count_down(&mut self.workers, &vlan, &vm.worker);
                    count_down(&mut self.vlans, &vm.worker, &vlan);
                }
            }
        }
    }

    fn join(&mut self, slice: &Name, frozen: &Frozen, settings: &Settings) -> Result<(), CheckError> {
        for link in frozen.links.values() {
            self.link(slice, link, settings)?;
        }
        for vm in frozen.vms.values() {
            self.vm(slice, frozen, vm, settings)?;
        }
        Ok(())
    }

    fn link(&mut self, slice: &Name, link: &Link, settings: &Settings) -> Result<(), CheckError> {
        let (name, vlan) = (format!("{slice}/{}", link.name), link.vlan);
        if settings.is_reserved(vlan) {
            return Err(CheckError::Reserved { link: name, vlan });
        }
        let protection = Protection {
            port_security: link.port_security,
            protected: link.protected,
        };
        if let Some((one, _)) = self.links.insert(vlan, (name.clone(), protection)) {
            return Err(CheckError::Vlan { vlan, one, other: name });
        }
        self.subnet(link.subnet, settings)
    }

    /// Sorted by their first address, subnets overlap only if neighbours do.
    fn subnet(&mut self, subnet: LinkSubnet, settings: &Settings) -> Result<(), CheckError> {
        let first = subnet.net().network();
        let (below, above) = self.subnets.neighbours(&first);
        let others = [below, self.subnets.get(&first), above, Some(&settings.internet_subnet)];
        if let Some(other) = others.into_iter().flatten().find(|other| subnet.overlaps(other.net())) {
            let (one, other) = if other.net().network() <= first {
                (*other, subnet)
            } else {
                (subnet, *other)
            };
            return Err(CheckError::Subnets { one, other });
        }
        self.subnets.insert(first, subnet);
        Ok(())
    }

    fn vm(&mut self, slice: &Name, frozen: &Frozen, vm: &Vm, settings: &Settings) -> Result<(), CheckError> {
        for interface in &vm.interfaces {
            let internet = vm.internet && interface.name.index() == 0;
            let link = interface.link.as_ref().and_then(|name| frozen.links.get(name));
            let vlan = if internet {
                Some(VlanId::INTERNET)
            } else {
                link.map(|link| link.vlan)
            };
            if interface.vlan != vlan || interface.link.is_some() != link.is_some() {
                let interface = format!("{slice}/{}.{}", vm.name, interface.name);
                return Err(CheckError::Interface { interface });
            }
            if self.macs.insert(interface.mac, ()).is_some() {
                return Err(CheckError::Mac(interface.mac));
            }
            if let Some(vlan) = interface.vlan {
                count_up(&mut self.workers, vlan, vm.worker.clone());
                count_up(&mut self.vlans, vm.worker.clone(), vlan);
            }
        }
        for (vlan, subnet, address) in guests(frozen, vm, settings) {
            let Some(address) = address else { continue };
            if !subnet.holds_guest(address) {
                return Err(CheckError::Outside { address, subnet });
            }
            if self.addresses.insert((vlan, address), ()).is_some() {
                return Err(CheckError::Address { address, vlan });
            }
        }
        Ok(())
    }
}

/// VLAN, subnet and address of a VM's interfaces, as its links have them.
fn guests<'a>(
    frozen: &'a Frozen,
    vm: &'a Vm,
    settings: &'a Settings,
) -> impl Iterator<Item = (VlanId, LinkSubnet, Option<Ipv4Addr>)> {
    vm.interfaces.iter().filter_map(|interface| {
        let internet = vm.internet && interface.name.index() == 0;
        let link = interface.link.as_ref().and_then(|name| frozen.links.get(name));
        let (vlan, subnet) = match link {
            _ if internet => (VlanId::INTERNET, settings.internet_subnet),
            Some(link) => (link.vlan, link.subnet),
            None => return None,
        };
        Some((vlan, subnet, interface.address))
    })
}

fn count_up<A: Ord + Clone, B: Ord + Clone>(map: &mut SharedMap<A, BTreeMap<B, u32>>, key: A, one: B) {
    match map.get_mut(&key) {
        Some(counts) => *counts.entry(one).or_default() += 1,
        None => {
            map.insert(key, [(one, 1)].into());
        }
    }
}

fn count_down<A: Ord + Clone, B: Ord + Clone>(map: &mut SharedMap<A, BTreeMap<B, u32>>, key: &A, one: &B) {
    let Some(counts) = map.get_mut(key) else { return };
    if let Some(count) = counts.get_mut(one) {
        *count -= 1;
        if *count == 0 {
            counts.remove(one);
        }
    }
    if counts.is_empty() {
        map.remove(key);
    }
}
