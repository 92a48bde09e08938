//! Rules between values: what is there twice, what is named and not there, what overlaps.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
};

use trunkline_proto::{Endpoint, InterfaceName, LinkSubnet};

use super::{
    Mistake, Place,
    read::At,
    shape::{LinkAt, SliceAt, VmAt},
    suggest::nearest,
};

/// All rules, over the whole file.
pub(super) fn all(slices: &[SliceAt], mistakes: &mut Vec<Mistake>) {
    let names = slices.iter().filter_map(|s| s.name.as_ref());
    twice(names, mistakes, |name| {
        (format!("there are two slices named {name}"), "give each its own name")
    });
    for slice in slices {
        in_slice(slice, mistakes);
    }
    across(slices, mistakes);
}

/// What must be unique in the cluster is unique in the file.
fn across(slices: &[SliceAt], mistakes: &mut Vec<Mistake>) {
    let interfaces = || slices.iter().flat_map(|s| &s.vms).flat_map(|vm| &vm.interfaces);
    let macs = interfaces().filter_map(|i| i.mac.as_ref());
    twice(macs, mistakes, |mac| {
        (
            format!("two interfaces have the MAC {mac}"),
            "give each its own, or leave mac out",
        )
    });
    let addresses = interfaces().filter_map(|i| i.address.as_ref());
    twice(addresses, mistakes, |ip| {
        (
            format!("two interfaces have the address {ip}"),
            "give each its own, or leave address out",
        )
    });
    let links = || slices.iter().flat_map(|s| &s.links);
    twice(links().filter_map(|l| l.vlan.as_ref()), mistakes, |vlan| {
        (
            format!("two links have VLAN {vlan}"),
            "give each its own, or leave vlan out",
        )
    });
    overlaps(links(), mistakes);
}

/// Says of each value that came before that it is here again.
fn twice<'a, T: Eq + Hash + 'a>(
    values: impl Iterator<Item = &'a At<T>>,
    mistakes: &mut Vec<Mistake>,
    say: impl Fn(&T) -> (String, &'static str),
) {
    let mut seen = HashSet::new();
    for at in values {
        if !seen.insert(&at.value) {
            let (what, instead) = say(&at.value);
            mistakes.push(Mistake::new(at.place.clone(), what, instead));
        }
    }
}

/// The subnet of a link as far as the file says: given, or derived from a given VLAN.
fn known_subnet(link: &LinkAt) -> Option<At<LinkSubnet>> {
    let derived = || {
        link.vlan.as_ref().map(|v| At {
            value: LinkSubnet::derived(v.value),
            place: v.place.clone(),
        })
    };
    link.subnet.clone().or_else(derived)
}

fn overlaps<'a>(links: impl Iterator<Item = &'a LinkAt>, mistakes: &mut Vec<Mistake>) {
    // By first address: those taken are disjoint, so only the last that begins before our end can overlap.
    let mut taken: BTreeMap<_, LinkSubnet> = BTreeMap::new();
    let mut vlans = HashSet::new();
    // Two links with one VLAN derive one subnet too: that they share the VLAN was said already.
    let links = links.filter(|l| l.subnet.is_some() || l.vlan.as_ref().is_some_and(|v| vlans.insert(v.value)));
    for At { value, place } in links.filter_map(known_subnet) {
        let (first, last) = (value.net().network(), value.net().broadcast());
        let clash = taken
            .range(..=last)
            .next_back()
            .filter(|(_, other)| other.net().broadcast() >= first);
        match clash.map(|(_, other)| *other) {
            Some(other) => mistakes.push(Mistake::new(
                place,
                format!("{value} overlaps {other} of another link"),
                "give each link its own, or leave subnet out",
            )),
            None => {
                taken.insert(first, value);
            }
        }
    }
}

fn in_slice(slice: &SliceAt, mistakes: &mut Vec<Mistake>) {
    let names = slice.vms.iter().filter_map(|vm| vm.name.as_ref());
    twice(names, mistakes, |name| {
        (
            format!("there are two VMs named {name} in this slice"),
            "give each its own name",
        )
    });
    let names = slice.links.iter().filter_map(|link| link.name.as_ref());
    twice(names, mistakes, |name| {
        (
            format!("there are two links named {name} in this slice"),
            "give each its own name",
        )
    });
    for vm in &slice.vms {
        interfaces(vm, mistakes);
    }
    ends(slice, mistakes);
    addresses(slice, mistakes);
}

fn interfaces(vm: &VmAt, mistakes: &mut Vec<Mistake>) {
    let names = vm.interfaces.iter().filter_map(|i| i.name.as_ref());
    twice(names.clone(), mistakes, |name| {
        (format!("{name} is given twice"), "keep one of the two")
    });
    for name in names {
        beyond(vm, &vm.name_text, name.value, &name.place, mistakes);
    }
    let is_eth0 = |name: &At<InterfaceName>| name.value == InterfaceName::MANAGEMENT;
    let eth0 = vm.interfaces.iter().find(|i| i.name.as_ref().is_some_and(is_eth0));
    if let Some(address) = eth0.and_then(|i| i.address.as_ref())
        && !vm.internet_enabled
    {
        mistakes.push(Mistake::new(
            address.place.clone(),
            "eth0 has no subnet without internet",
            "set internet_enabled, or leave the address out",
        ));
    }
}

/// Says so when the VM has no such interface.
fn beyond(vm: &VmAt, of: &str, interface: InterfaceName, place: &Place, mistakes: &mut Vec<Mistake>) {
    let Some(count) = vm.data_interfaces_count.filter(|count| interface.index() > *count) else {
        return;
    };
    let has = match count {
        0 => "eth0 only".to_owned(),
        1 => "eth0 and eth1 only".to_owned(),
        _ => format!("eth0 to eth{count} only"),
    };
    let instead = format!(
        "it has {has}: raise data_interfaces_count of {of} to {}",
        interface.index()
    );
    mistakes.push(Mistake::new(place.clone(), format!("{of} has no {interface}"), instead));
}

fn ends(slice: &SliceAt, mistakes: &mut Vec<Mistake>) {
    let mut linked: HashMap<&Endpoint, usize> = HashMap::new();
    for (index, link) in slice.links.iter().enumerate() {
        if link.ends.len() == 1 {
            let instead = "write two or more: [web.eth1, db.eth1]";
            mistakes.push(Mistake::new(link.place.clone(), "this link has one end", instead));
        }
        if link.ends.is_empty() && !mistakes.iter().any(|m| m.place == link.place) {
            let instead = "write two or more: [web.eth1, db.eth1]";
            mistakes.push(Mistake::new(link.place.clone(), "this link has no ends", instead));
        }
        if let Some(place) = link.protected.as_ref().filter(|_| link.ends.len() == 2) {
            let instead = "leave protected out, or write three or more ends";
            mistakes.push(Mistake::new(
                place.clone(),
                "protected keeps the only two ends of this link apart",
                instead,
            ));
        }
        for end in link.ends.iter().flatten() {
            match linked.insert(&end.value, index) {
                Some(before) if before == index => {
                    let what = format!("{} is in this link twice", end.value);
                    mistakes.push(Mistake::new(end.place.clone(), what, "name each end once"));
                }
                Some(_) => {
                    let what = format!("{} is in two links", end.value);
                    let instead = "use another interface: each is in one link at most";
                    mistakes.push(Mistake::new(end.place.clone(), what, instead));
                }
                None => known_end(slice, end, mistakes),
            }
        }
    }
}

fn known_end(slice: &SliceAt, end: &At<Endpoint>, mistakes: &mut Vec<Mistake>) {
    let Endpoint { vm, interface } = &end.value;
    if *interface == InterfaceName::MANAGEMENT {
        let instead = "write a data interface, like eth1; eth0 is for management and internet";
        mistakes.push(Mistake::new(end.place.clone(), "eth0 cannot be linked", instead));
    }
    if let Some(found) = slice.vms.iter().find(|v| v.name_text == vm.as_str()) {
        if *interface != InterfaceName::MANAGEMENT {
            beyond(found, vm.as_str(), *interface, &end.place, mistakes);
        }
        return;
    }
    // A VM with a wrong name was spoken of already; an end that means it is right.
    let misnamed = slice
        .vms
        .iter()
        .filter(|v| v.name.is_none())
        .map(|v| v.name_text.as_str());
    if nearest(vm.as_str(), misnamed.map(str::trim)).is_some() {
        return;
    }
    let names: Vec<&str> = slice
        .vms
        .iter()
        .filter_map(|v| v.name.as_ref())
        .map(|n| n.value.as_str())
        .collect();
    let instead = match nearest(vm.as_str(), names.iter().copied()) {
        Some(near) => format!("write {near}.{interface}"),
        None if names.is_empty() => "the slice has no VMs: write them under `vms:`".to_owned(),
        None => format!("the slice has {}", shortened(&names)),
    };
    mistakes.push(Mistake::new(
        end.place.clone(),
        format!("there is no VM {vm} in this slice"),
        instead,
    ));
}

fn shortened(names: &[&str]) -> String {
    const MOST: usize = 8;
    let more = if names.len() > MOST { ", ..." } else { "" };
    format!("{}{more}", names[..names.len().min(MOST)].join(", "))
}

/// A given address is one for guests of the subnet of its link, as far as the file says what that is.
fn addresses(slice: &SliceAt, mistakes: &mut Vec<Mistake>) {
    let mut subnets = HashMap::new();
    for link in &slice.links {
        let Some(subnet) = known_subnet(link) else { continue };
        subnets.extend(link.ends.iter().flatten().map(|end| (&end.value, subnet.value)));
    }
    for vm in &slice.vms {
        let Some(name) = &vm.name else { continue };
        for interface in &vm.interfaces {
            let (Some(ethernet), Some(address)) = (&interface.name, &interface.address) else {
                continue;
            };
            let end = Endpoint {
                vm: name.value.clone(),
                interface: ethernet.value,
            };
            let Some(subnet) = subnets.get(&end).filter(|s| !s.holds_guest(address.value)) else {
                continue;
            };
            let (first, last) = subnet.guests();
            let what = match subnet.net().contains(&address.value) {
                true => format!("{} of {subnet} is not for guests", address.value),
                false => format!("{} is not in {subnet}, the subnet of its link", address.value),
            };
            mistakes.push(Mistake::new(
                address.place.clone(),
                what,
                format!("write one from {first} to {last}"),
            ));
        }
    }
}
