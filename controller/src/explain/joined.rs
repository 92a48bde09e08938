//! Whether the two are joined at all: what an operator asked for, before any host is looked at.

use std::{collections::BTreeMap, sync::Arc};

use trunkline_proto::{Endpoint, InterfaceName, Name, VlanId, wire::hop::Kind};

use super::{find::End, step::Step};
use crate::model::{Interface, Link, Vm};

/// The link that they are deployed on.
pub(super) fn guests<'a>(from: &'a End<'a>, to: &'a End<'a>) -> (Option<&'a Link>, Step) {
    let slice = from.slice;
    let step = |what: String| Step::new(Kind::Joined, None, what, "one deployed link joins both");
    if slice.name != to.slice.name {
        let seen = format!("{from} and {to} are in different slices, which share nothing by design");
        let mend = "put both VMs into one slice: a link joins interfaces of one slice only";
        return (None, step("no link".to_owned()).stops(seen, mend));
    }
    let joint = |links: &'a BTreeMap<Name, Arc<Link>>| {
        let both = |link: &&Link| link.ends.contains(&from.endpoint) && link.ends.contains(&to.endpoint);
        links.values().map(AsRef::as_ref).find(both)
    };
    if let Some(link) = slice.deployed().and_then(|frozen| joint(&frozen.links)) {
        let step = step(format!("link {}", link.name));
        let step = if link.protected {
            let seen = format!(
                "link {} is protected: its guests reach the gateway and the DHCP server, and not each other, by design",
                link.name
            );
            step.stops(seen, format!("where they are to meet, {}", instead(from, to)))
        } else {
            step.passes(format!("vlan {}, {}", link.vlan, link.subnet))
        };
        return (Some(link), step);
    }
    if let Some(link) = joint(&slice.links) {
        let seen = match slice.deployed {
            None => format!("the slice {} is not deployed", slice.name),
            Some(_) => format!("link {} is in the draft of {} and not deployed", link.name, slice.name),
        };
        let mend = format!("`trunkctl slice deploy {}`", slice.name);
        return (None, step(format!("link {}", link.name)).stops(seen, mend));
    }
    let seen = format!(
        "{} is {}, {} {}: no link joins them",
        from.short(),
        place(from),
        to.short(),
        place(to)
    );
    (None, step("no link".to_owned()).stops(seen, instead(from, to)))
}

/// True when it is deployed with the internet on this interface.
pub(super) fn internet(from: &End) -> (bool, Step) {
    let (slice, vm) = (&from.slice.name, &from.endpoint.vm);
    let step = Step::new(Kind::Joined, None, "internet", "eth0 of a VM with internet, deployed");
    let ask = format!(
        "set `internet_enabled: true` for {vm} in the topology file of {slice}, then `trunkctl apply -f FILE --deploy`"
    );
    if from.endpoint.interface != InterfaceName::MANAGEMENT {
        let seen = format!("{} is a data interface; only eth0 leads to the internet", from.short());
        let mend = if from.is_online() {
            format!("use {vm}.eth0")
        } else {
            ask
        };
        return (false, step.stops(seen, mend));
    }
    if from.is_online() {
        return (true, step.passes("vlan 400"));
    }
    let wanted = from.draft.is_some_and(|vm| vm.internet);
    let (seen, mend) = match (from.slice.deployed, wanted) {
        (None, true) => (
            format!("the slice {slice} is not deployed"),
            format!("`trunkctl slice deploy {slice}`"),
        ),
        (Some(_), true) => (
            format!("the internet of {vm} is in the draft of {slice} and not deployed"),
            format!("`trunkctl slice deploy {slice}`"),
        ),
        (_, false) => (format!("{vm} has no internet"), ask),
    };
    (false, step.stops(seen, mend))
}

fn place(end: &End) -> String {
    let draft = || interface(end.draft?, end.endpoint.interface);
    let placed = end.placed().map(|placed| placed.interface).or_else(draft);
    match placed {
        Some(Interface {
            vlan: Some(VlanId::INTERNET),
            ..
        }) => "for the internet only".to_owned(),
        Some(Interface { vlan: Some(vlan), .. }) => format!("on vlan {vlan}"),
        _ => "in no link".to_owned(),
    }
}

fn interface(vm: &Vm, name: InterfaceName) -> Option<&Interface> {
    vm.interfaces.iter().find(|interface| interface.name == name)
}

/// How two VMs could meet that these interfaces do not join.
fn instead(from: &End, to: &End) -> String {
    let slice = from.slice;
    let of = |link: &Link, end: &End| {
        link.ends
            .iter()
            .find(|e| e.vm == end.endpoint.vm)
            .map(Endpoint::to_string)
    };
    let other = slice.links.values().filter(|link| !link.protected).find_map(|link| {
        let (one, two) = (of(link, from)?, of(link, to)?);
        (one != two).then(|| format!("use {one} and {two}, which the link {} joins", link.name))
    });
    let add = || {
        let (one, two) = (free(from)?, free(to)?);
        (one != two).then(|| {
            format!(
                "`trunkctl link add {0}/{one} {two}`, then `trunkctl slice deploy {0}`",
                slice.name
            )
        })
    };
    other.or_else(add).unwrap_or_else(|| {
        format!(
            "give both VMs a data interface that is in no link (`data_interfaces_count` in the topology file of {0}), join these \
             with `trunkctl link add`, then `trunkctl slice deploy {0}`",
            slice.name
        )
    })
}

/// The interface itself when it may be an end of a new link, or another of its VM.
fn free(end: &End) -> Option<String> {
    let vm = end.draft?;
    let free = |i: &&Interface| i.name != InterfaceName::MANAGEMENT && i.link.is_none();
    let own = interface(vm, end.endpoint.interface).filter(free);
    let interface = own.or_else(|| vm.interfaces.iter().find(free))?;
    Some(format!("{}.{}", vm.name, interface.name))
}
