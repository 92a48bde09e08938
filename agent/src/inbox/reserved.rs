//! Reservations that an update takes out of a DHCP server though no operator asked for it.
//!
//! They go with a new version of their server, so no removal names them; and the guest's port may wait to be removed on a worker, which
//! this node cannot see. Without its reservation that guest would lose its lease, and on VLAN 400 its internet. So each of them waits,
//! however few they are: it is added to whatever version of the server there is, until an operator confirms it, the guest comes back, or
//! somebody else is given its address. A node may be *clean* meanwhile: who waits for an address waits for the worker's port.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use trunkline_proto::{
    Mac, VlanId,
    resource::{Dhcp, Key, Reservation, Spec},
};

use crate::node::Item;

/// What is kept of each server, by its key and the guest's MAC.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reserved(BTreeMap<Key, BTreeMap<Mac, Reservation>>);

impl Reserved {
    /// As it was stored.
    pub(super) fn put(&mut self, server: Key, reservations: impl IntoIterator<Item = Reservation>) {
        let by_mac = reservations
            .into_iter()
            .map(|reservation| (reservation.mac, reservation));
        self.0.insert(server, by_mac.collect());
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The servers and what is kept of each.
    pub fn servers(&self) -> impl Iterator<Item = (&Key, impl Iterator<Item = &Reservation>)> {
        self.0.iter().map(|(key, kept)| (key, kept.values()))
    }

    /// A server goes, and an operator has asked for that.
    pub(super) fn forget(&mut self, server: &Key) {
        self.0.remove(server);
    }

    /// A server is given another version. `before`: what it reserved until now, unless what it loses was asked for.
    pub(super) fn follow(&mut self, server: &Key, before: Vec<Reservation>, now: &Dhcp) {
        let mut kept = self.0.remove(server).unwrap_or_default();
        kept.extend(before.into_iter().map(|reservation| (reservation.mac, reservation)));
        let taken = Taken::by(now);
        kept.retain(|_, reservation| taken.leaves(reservation));
        if !kept.is_empty() {
            self.0.insert(server.clone(), kept);
        }
    }

    /// Adds them to what is to be made true.
    pub(super) fn add_to(&self, items: &mut BTreeMap<Key, Item>) {
        for (key, kept) in &self.0 {
            if let Some(Spec::Dhcp(dhcp)) = items.get_mut(key).map(|item| &mut item.spec) {
                let taken = Taken::by(dhcp);
                let kept = kept.values().filter(|reservation| taken.leaves(reservation)).cloned();
                let kept: Vec<Reservation> = kept.collect();
                dhcp.reservations.extend(kept);
                dhcp.reservations.sort();
            }
        }
    }
}

/// What a server's own version has.
struct Taken<'a> {
    dhcp: &'a Dhcp,
    macs: BTreeSet<Mac>,
    addresses: BTreeSet<Ipv4Addr>,
}

impl<'a> Taken<'a> {
    fn by(dhcp: &'a Dhcp) -> Self {
        Self {
            dhcp,
            macs: dhcp.reservations.iter().map(|reservation| reservation.mac).collect(),
            addresses: dhcp
                .reservations
                .iter()
                .map(|reservation| reservation.address)
                .collect(),
        }
    }

    /// True for a reservation of a guest and of an address that are nobody's here. One of another subnet is of no use.
    fn leaves(&self, Reservation { mac, address, .. }: &Reservation) -> bool {
        let servers = [self.dhcp.address.address, self.dhcp.router];
        let free = !self.macs.contains(mac) && !self.addresses.contains(address) && !servers.contains(address);
        free && self.dhcp.address.network().contains(address)
    }
}

/// True for what all guests with internet stand on. There is so little of it that no share of a network node's resources would ever hold
/// it, and without it the guests whose ports wait on their workers would have neither lease nor internet.
pub(super) fn serves_internet(spec: &Spec) -> bool {
    matches!(spec, Spec::Gateway(_) | Spec::Dhcp(_) | Spec::Nat(_)) && spec.vlan() == Some(VlanId::INTERNET)
}
