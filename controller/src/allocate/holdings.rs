//! Who holds what. It follows from the slices and the departures; a change costs what it changes.

use std::{net::Ipv4Addr, sync::Arc};

use trunkline_proto::{InterfaceName, LinkSubnet, Mac, Name, VlanId};

use super::{Holder, Stage, What};
use crate::model::{Cluster, Departure, Link, SharedMap, Slice, VlanRange, Vm};

/// Everything that is held, of one cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Holdings {
    pub(super) vlans: SharedMap<VlanId, Vec<Holder>>,
    /// VLANs that are in use with the subnet derived from them.
    pub(super) derived: SharedMap<VlanId, Vec<Holder>>,
    /// Subnets that were given.
    pub(super) given: Vec<(LinkSubnet, Holder)>,
    /// MACs that were given; derived ones cannot meet.
    pub(super) macs: SharedMap<Mac, Vec<Holder>>,
    /// Addresses of VLAN 400.
    pub(super) internet: SharedMap<Ipv4Addr, Vec<Holder>>,
    pub(super) pools: SharedMap<VlanRange, Name>,
}

impl Holdings {
    /// Of a cluster.
    pub(crate) fn of(cluster: &Cluster) -> Self {
        Self::default().follow(&Cluster::new(""), cluster)
    }

    /// Those of `after`, when these are those of `before`.
    pub(crate) fn follow(&self, before: &Cluster, after: &Cluster) -> Self {
        let mut held = self.clone();
        let same = |was: Option<&Arc<Slice>>, is: Option<&Arc<Slice>>| matches!((was, is), (Some(was), Some(is)) if Arc::ptr_eq(was, is));
        let changed = before.slices.differences(&after.slices);
        for (_, was, is) in changed.filter(|(_, was, is)| !same(*was, *is)) {
            was.iter().for_each(|slice| held.drop_slice(slice));
            is.iter().for_each(|slice| held.add_slice(slice));
        }
        if before.departures != after.departures {
            let of = |cluster: &Cluster, key| cluster.departures.contains_key(key);
            let gone = before.departures.iter().filter(|(key, _)| !of(after, key));
            gone.for_each(|(_, departure)| held.drop_departure(departure));
            let new = after.departures.iter().filter(|(key, _)| !of(before, key));
            new.for_each(|(_, departure)| held.add_departure(departure));
        }
        held
    }

    /// True when the same is held, in whatever order it came to be.
    #[cfg(test)]
    pub(crate) fn same(&self, other: &Self) -> bool {
        fn sorted<K: Ord + Clone + std::fmt::Debug>(map: &SharedMap<K, Vec<Holder>>) -> Vec<String> {
            let holders = map
                .iter()
                .flat_map(|(key, holders)| holders.iter().map(move |holder| (key, holder)));
            let mut texts: Vec<String> = holders.map(|entry| format!("{entry:?}")).collect();
            texts.sort();
            texts
        }
        let given = |of: &Self| {
            let mut texts: Vec<String> = of.given.iter().map(|entry| format!("{entry:?}")).collect();
            texts.sort();
            texts
        };
        sorted(&self.vlans) == sorted(&other.vlans)
            && sorted(&self.derived) == sorted(&other.derived)
            && sorted(&self.macs) == sorted(&other.macs)
            && sorted(&self.internet) == sorted(&other.internet)
            && given(self) == given(other)
            && self.pools == other.pools
    }

    fn add_slice(&mut self, slice: &Slice) {
        self.set_pool(&[], &slice.pool.ranges, &slice.name);
        self.state(slice, Stage::Draft, slice.vms.values(), slice.links.values());
        if let Some(frozen) = slice.deployed() {
            self.state(slice, Stage::Deployed, frozen.vms.values(), frozen.links.values());
        }
    }

    fn drop_slice(&mut self, slice: &Slice) {
        self.set_pool(&slice.pool.ranges, &[], &slice.name);
        let all = |stage| stage != Stage::Departing;
        self.forget(slice, slice.vms.values(), slice.links.values(), all);
        if let Some(frozen) = slice.deployed() {
            self.forget(slice, frozen.vms.values(), frozen.links.values(), all);
        }
    }

    /// New ranges of a slice's pool in place of the old ones.
    pub(super) fn set_pool(&mut self, old: &[VlanRange], new: &[VlanRange], slice: &Name) {
        for range in old {
            self.pools.remove(range);
        }
        for range in new {
            self.pools.insert(*range, slice.clone());
        }
    }

    fn add_departure(&mut self, departure: &Departure) {
        let holder = |what, label| Holder {
            slice: departure.slice.clone(),
            uid: departure.uid,
            what,
            label,
            stage: Stage::Departing,
        };
        for (vlan, link) in &departure.links {
            let holder = holder(What::Link(link.name.clone()), format!("link {}", link.name));
            self.hold_vlan(*vlan, link.subnet, holder);
        }
        for (address, vm) in &departure.addresses {
            let what = What::Interface(*vm, InterfaceName::MANAGEMENT);
            push(&mut self.internet, *address, holder(what, format!("vm {vm}")));
        }
    }

    fn drop_departure(&mut self, departure: &Departure) {
        // Two of one slice may hold the same: one holder of each goes.
        let theirs = |holder: &Holder| {
            holder.stage == Stage::Departing && holder.slice == departure.slice && holder.uid == departure.uid
        };
        for (vlan, link) in &departure.links {
            let this = |holder: &Holder| theirs(holder) && holder.what == What::Link(link.name.clone());
            self.release_vlan(*vlan, link.subnet, this, true);
        }
        for (address, vm) in &departure.addresses {
            let what = What::Interface(*vm, InterfaceName::MANAGEMENT);
            pull(
                &mut self.internet,
                address,
                |holder| theirs(holder) && holder.what == what,
                true,
            );
        }
    }

    fn state<'s>(
        &mut self,
        slice: &Slice,
        stage: Stage,
        vms: impl Iterator<Item = &'s Arc<Vm>>,
        links: impl Iterator<Item = &'s Arc<Link>>,
    ) {
        let holder = |what, label| Holder {
            slice: slice.name.clone(),
            uid: slice.uid,
            what,
            label,
            stage,
        };
        for link in links {
            let holder = holder(What::Link(link.name.clone()), format!("link {}", link.name));
            self.hold_vlan(link.vlan, link.subnet, holder);
        }
        for vm in vms {
            for interface in &vm.interfaces {
                let what = || What::Interface(vm.id, interface.name);
                let label = || format!("{}.{}", vm.name, interface.name);
                if interface.mac_given {
                    push(&mut self.macs, interface.mac, holder(what(), label()));
                }
                if let (Some(VlanId::INTERNET), Some(address)) = (interface.vlan, interface.address) {
                    push(&mut self.internet, address, holder(what(), label()));
                }
            }
        }
    }

    /// Takes out what a slice holds for these in the stages for which `stage` holds.
    pub(super) fn forget<'s>(
        &mut self,
        slice: &Slice,
        vms: impl Iterator<Item = &'s Arc<Vm>>,
        links: impl Iterator<Item = &'s Arc<Link>>,
        stage: impl Fn(Stage) -> bool,
    ) {
        let theirs = |holder: &Holder| holder.slice == slice.name && holder.uid == slice.uid && stage(holder.stage);
        for link in links {
            self.release_vlan(link.vlan, link.subnet, theirs, false);
        }
        for interface in vms.flat_map(|vm| &vm.interfaces) {
            if interface.mac_given {
                pull(&mut self.macs, &interface.mac, theirs, false);
            }
            if let (Some(VlanId::INTERNET), Some(address)) = (interface.vlan, interface.address) {
                pull(&mut self.internet, &address, theirs, false);
            }
        }
    }

    pub(super) fn hold_vlan(&mut self, vlan: VlanId, subnet: LinkSubnet, holder: Holder) {
        if subnet == LinkSubnet::derived(vlan) {
            push(&mut self.derived, vlan, holder.clone());
        } else {
            self.given.push((subnet, holder.clone()));
        }
        push(&mut self.vlans, vlan, holder);
    }

    fn release_vlan(&mut self, vlan: VlanId, subnet: LinkSubnet, which: impl Fn(&Holder) -> bool, one: bool) {
        if subnet == LinkSubnet::derived(vlan) {
            pull(&mut self.derived, &vlan, &which, one);
        } else {
            let mut found = 0;
            self.given.retain(|(given, holder)| {
                let goes = *given == subnet && which(holder) && (!one || found == 0);
                found += usize::from(goes);
                !goes
            });
        }
        pull(&mut self.vlans, &vlan, &which, one);
    }
}

/// One holder more.
pub(super) fn push<K: Ord + Clone>(map: &mut SharedMap<K, Vec<Holder>>, key: K, holder: Holder) {
    match map.get_mut(&key) {
        Some(holders) => holders.push(holder),
        None => {
            map.insert(key, vec![holder]);
        }
    }
}

/// These holders less, or the first of them. A key without any is none.
fn pull<K: Ord + Clone>(map: &mut SharedMap<K, Vec<Holder>>, key: &K, which: impl Fn(&Holder) -> bool, one: bool) {
    let Some(holders) = map.get_mut(key) else { return };
    match holders.iter().position(&which) {
        Some(first) if one => {
            holders.remove(first);
        }
        _ => holders.retain(|holder| !which(holder)),
    }
    if holders.is_empty() {
        map.remove(key);
    }
}
