//! Who has which VLAN, subnet, MAC and address, and what is free.
//!
//! A value is held by a draft, by a deployed revision, or by a departure (a node may still have it). What the controller
//! chooses is held by nobody at all. What an operator gives may be held by the same slice's own deployed or departing state:
//! a link that is renamed may keep its VLAN. Nothing passes from one slice to another before its departure is over.

mod addresses;
mod holdings;
pub(crate) mod placement;
mod pool;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, net::Ipv4Addr};

use trunkline_proto::{InterfaceName, LinkSubnet, Mac, Name, VlanId, VmId};

pub(crate) use addresses::{AddressProblem, Want, assign};
pub(crate) use holdings::Holdings;
pub(crate) use placement::Placement;

use holdings::push;

use crate::{
    model::{Cluster, Hold},
    settings::Settings,
    transition::Conflict,
};

/// What holds a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Link(Name),
    Interface(VmId, InterfaceName),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Draft,
    Deployed,
    Departing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    slice: Name,
    uid: u64,
    what: What,
    /// As people call it.
    label: String,
    stage: Stage,
}

/// Who asks for a value.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) slice: Name,
    pub(crate) uid: u64,
    pub(crate) what: What,
    /// As people call it: `link a--b`, `web.eth1`.
    pub(crate) label: String,
    /// May take over what the slice's own deployed or departing state holds.
    pub(crate) takes_over: bool,
}

/// What is held, of one cluster, in the course of one request.
#[derive(Debug)]
pub(crate) struct Ledger<'a> {
    settings: &'a Settings,
    held: Holdings,
    /// What a restore holds back.
    hold: Option<Hold>,
}

impl<'a> Ledger<'a> {
    /// Without the drafts of the slices that are rewritten: those are claimed anew.
    pub(crate) fn of(cluster: &Cluster, held: &Holdings, settings: &'a Settings, rewritten: &BTreeSet<&Name>) -> Self {
        let mut held = held.clone();
        for slice in rewritten.iter().filter_map(|name| cluster.slices.get(*name)) {
            held.forget(slice, slice.vms.values(), slice.links.values(), |stage| {
                stage == Stage::Draft
            });
        }
        Self {
            settings,
            held,
            hold: cluster.meta.hold.clone(),
        }
    }

    /// Why things that are free are not given out, when that is so; to be put behind a sentence.
    pub(crate) fn held_back(&self) -> String {
        self.hold
            .as_ref()
            .map(|hold| format!(" ({})", hold.reason()))
            .unwrap_or_default()
    }

    fn holds_back(&self, vlan: VlanId) -> bool {
        self.hold.as_ref().is_some_and(|hold| !hold.vlans.contains(&vlan))
    }

    /// Takes a VLAN and a subnet for a link, or says what stands in the way of which.
    pub(crate) fn claim_link(&mut self, vlan: VlanId, subnet: LinkSubnet, claim: &Claim) -> Result<(), LinkConflict> {
        self.vlan_is_free(vlan, claim).map_err(LinkConflict::Vlan)?;
        self.subnet_is_free(subnet, claim).map_err(LinkConflict::Subnet)?;
        self.held.hold_vlan(vlan, subnet, claim.holder());
        Ok(())
    }

    fn vlan_is_free(&self, vlan: VlanId, claim: &Claim) -> Result<(), Conflict> {
        if vlan == VlanId::INTERNET {
            return conflict("vlan 400 is that of internet access; write another, or leave it out".into());
        }
        if self.settings.is_reserved(vlan) {
            return conflict(format!("vlan {vlan} is reserved; write another, or leave it out"));
        }
        if self.holds_back(vlan) {
            return conflict(format!("vlan {vlan} is not given out yet{}", self.held_back()));
        }
        let pool = self.held.pools.iter().find(|(r, _)| (r.first..=r.last).contains(&vlan));
        if let Some((range, owner)) = pool
            && *owner != claim.slice
        {
            let (first, last) = (range.first, range.last);
            return conflict(format!(
                "vlan {vlan} belongs to the pool {first} to {last} of slice {owner}; write another, or leave it out"
            ));
        }
        match self.held.vlans.get(&vlan).and_then(|h| claim.blocked_by(h)) {
            Some(holder) => conflict(format!(
                "vlan {vlan} is taken by {holder}; write another, or leave it out"
            )),
            None => Ok(()),
        }
    }

    fn subnet_is_free(&self, subnet: LinkSubnet, claim: &Claim) -> Result<(), Conflict> {
        let internet = self.settings.internet_subnet;
        if subnet.overlaps(internet.net()) {
            return conflict(format!("subnet {subnet} overlaps {internet} of internet access"));
        }
        if let Some(server) = self.dns_in(subnet) {
            return conflict(format!(
                "subnet {subnet} holds the DNS server {server}, which its guests could not reach any more; write another"
            ));
        }
        for (other, holder) in &self.held.given {
            if subnet.overlaps(other.net()) && claim.is_blocked(holder) {
                return conflict(format!("subnet {subnet} overlaps {other} of {holder}; write another"));
            }
        }
        let under = vlan_of_derived(subnet).and_then(|v| self.held.derived.get(&v));
        match under.and_then(|holders| claim.blocked_by(holders)) {
            Some(holder) => conflict(format!("subnet {subnet} overlaps that of {holder}; write another")),
            None => Ok(()),
        }
    }

    /// The lowest VLAN of `vlans` that nobody holds and, when the subnet is to be derived, whose subnet nobody has given away.
    pub(crate) fn free_vlan(&self, vlans: impl Iterator<Item = VlanId>, derive: bool) -> Option<VlanId> {
        let mut vlans = vlans
            .filter(|v| !self.settings.is_reserved(*v) && !self.held.vlans.contains_key(v) && !self.holds_back(*v));
        vlans.find(|v| !derive || self.derivable(*v))
    }

    fn dns_in(&self, subnet: LinkSubnet) -> Option<Ipv4Addr> {
        self.settings
            .dns
            .iter()
            .copied()
            .find(|server| subnet.contains(*server))
    }

    fn derivable(&self, vlan: VlanId) -> bool {
        let subnet = LinkSubnet::derived(vlan);
        !subnet.overlaps(self.settings.internet_subnet.net())
            && self.dns_in(subnet).is_none()
            && !self.held.given.iter().any(|(given, _)| subnet.overlaps(given.net()))
    }

    /// How many of `vlans` are held by nothing but departures.
    pub(crate) fn resting(&self, vlans: impl Iterator<Item = VlanId>) -> usize {
        let resting = |h: &Vec<Holder>| h.iter().all(|h| h.stage == Stage::Departing);
        vlans.filter(|v| self.held.vlans.get(v).is_some_and(resting)).count()
    }

    /// Takes a MAC that was given.
    pub(crate) fn claim_mac(&mut self, mac: Mac, claim: &Claim) -> Result<(), Conflict> {
        if let Some(holder) = self.held.macs.get(&mac).and_then(|holders| claim.blocked_by(holders)) {
            return conflict(format!(
                "mac {mac} is taken by {holder}; write another, or leave it out"
            ));
        }
        push(&mut self.held.macs, mac, claim.holder());
        Ok(())
    }

    /// Takes an address of VLAN 400.
    pub(crate) fn claim_internet(&mut self, address: Ipv4Addr, claim: &Claim) -> Result<(), Conflict> {
        let subnet = self.settings.internet_subnet;
        if !subnet.holds_guest(address) {
            let (first, last) = subnet.guests();
            return conflict(format!(
                "{address} is not an address for guests on vlan 400; write one from {first} to {last}"
            ));
        }
        if self
            .hold
            .as_ref()
            .is_some_and(|hold| !hold.addresses.contains(&address))
        {
            return conflict(format!("address {address} is not given out yet{}", self.held_back()));
        }
        let holders = self.held.internet.get(&address);
        if let Some(holder) = holders.and_then(|holders| claim.blocked_by(holders)) {
            return conflict(format!(
                "address {address} is taken by {holder}; write another, or leave it out"
            ));
        }
        push(&mut self.held.internet, address, claim.holder());
        Ok(())
    }

    /// The lowest address of VLAN 400 that nobody holds.
    pub(crate) fn free_internet(&self) -> Option<Ipv4Addr> {
        let held_back = |a: &Ipv4Addr| self.hold.as_ref().is_some_and(|hold| !hold.addresses.contains(a));
        let taken = |a: &Ipv4Addr| held_back(a) || self.held.internet.get(a).is_some_and(|h| !h.is_empty());
        self.settings.internet_subnet.guest_addresses().find(|a| !taken(a))
    }
}

/// What of a link is taken.
#[derive(Debug)]
pub(crate) enum LinkConflict {
    Vlan(Conflict),
    Subnet(Conflict),
}

impl Claim {
    fn holder(&self) -> Holder {
        Holder {
            slice: self.slice.clone(),
            uid: self.uid,
            what: self.what.clone(),
            label: self.label.clone(),
            stage: Stage::Draft,
        }
    }

    fn is_blocked(&self, holder: &Holder) -> bool {
        let own = holder.uid == self.uid && holder.slice == self.slice;
        let itself = holder.what == self.what && !(self.takes_over && holder.stage == Stage::Draft);
        !(own && (itself || (self.takes_over && holder.stage != Stage::Draft)))
    }

    fn blocked_by<'h>(&self, holders: &'h [Holder]) -> Option<&'h Holder> {
        holders.iter().find(|h| self.is_blocked(h))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of slice {}", self.label, self.slice)?;
        match self.stage {
            Stage::Draft => Ok(()),
            Stage::Deployed => f.write_str(" (deployed)"),
            Stage::Departing => {
                f.write_str(" (being removed from the hosts; free soon after every node reported it gone)")
            }
        }
    }
}

fn conflict(text: String) -> Result<(), Conflict> {
    Err(Conflict(text))
}

/// The VLAN whose derived subnet holds this one, which is a /24 or smaller.
fn vlan_of_derived(subnet: LinkSubnet) -> Option<VlanId> {
    let [a, b, c, _] = subnet.net().network().octets();
    let high = b.checked_sub(64).filter(|high| a == 10 && *high < 16)?;
    VlanId::try_from(u32::from(high) << 8 | u32::from(c)).ok()
}
