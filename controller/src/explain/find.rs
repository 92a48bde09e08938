//! Interfaces by the names that people give them: `web.eth1`, or `shop/web.eth1`.

use std::{fmt, sync::Arc};

use trunkline_proto::{Endpoint, Invalid, Name};

use super::{Unnamed, site::Placed};
use crate::model::{Cluster, Slice, Vm};

/// What a way ends at besides an interface.
const INTERNET: &str = "internet";

/// Longest name that is looked for, in bytes: a slice, a VM and an interface have 72.
const LONGEST: usize = 100;

/// Most names that an error lists.
const LISTED: usize = 20;

/// An interface of a VM that is in a slice's draft, or deployed, or both.
#[derive(Debug, Clone)]
pub(super) struct End<'a> {
    pub(super) slice: &'a Slice,
    pub(super) endpoint: Endpoint,
    /// Not always with the interface.
    pub(super) draft: Option<&'a Vm>,
    deployed: Option<&'a Vm>,
}

impl PartialEq for End<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.slice.name == other.slice.name && self.endpoint == other.endpoint
    }
}

impl fmt::Display for End<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.slice.name, self.endpoint)
    }
}

impl End<'_> {
    /// Within its slice.
    pub(super) fn short(&self) -> String {
        self.endpoint.to_string()
    }

    /// As it is on its worker; none when it is in the draft only.
    pub(super) fn placed(&self) -> Option<Placed<'_>> {
        let vm = self.deployed?;
        let interface = vm.interfaces.iter().find(|i| i.name == self.endpoint.interface)?;
        Some(Placed {
            slice: &self.slice.name,
            vm,
            interface,
        })
    }

    /// It is deployed with internet.
    pub(super) fn is_online(&self) -> bool {
        self.deployed.is_some_and(|vm| vm.internet)
    }
}

/// Where a way ends.
#[derive(Debug)]
pub(super) enum Target<'a> {
    Guest(End<'a>),
    Internet,
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(end) => end.fmt(f),
            Self::Internet => f.write_str(INTERNET),
        }
    }
}

pub(super) fn target<'a>(cluster: &'a Cluster, field: &'static str, text: &str) -> Result<Target<'a>, Unnamed> {
    if text == INTERNET {
        return Ok(Target::Internet);
    }
    end(cluster, field, text).map(Target::Guest)
}

pub(super) fn end<'a>(cluster: &'a Cluster, field: &'static str, text: &str) -> Result<End<'a>, Unnamed> {
    let unclear = |description: String| Unnamed {
        field,
        missing: None,
        description,
    };
    let missing = |kind: &'static str, name: &str, there: String| Unnamed {
        field,
        missing: Some((kind, name.to_owned())),
        description: format!("there is no {kind} {name}; {there}"),
    };
    if text.len() > LONGEST {
        return Err(unclear(format!(
            "that is no interface: write at most {LONGEST} characters"
        )));
    }
    if text == INTERNET {
        return Err(unclear(
            "the internet is where a way ends, not where it begins; name an interface first".to_owned(),
        ));
    }
    let (within, name) = match text.split_once('/') {
        Some((slice, name)) => {
            let found = slice.parse::<Name>().ok().and_then(|name| cluster.slices.get(&name));
            let slices = || list("the slices are", cluster.slices.keys());
            (Some(found.ok_or_else(|| missing("slice", slice, slices()))?), name)
        }
        None => (None, text),
    };
    let slices: Vec<&Slice> = match within {
        Some(slice) => vec![slice],
        None => cluster.slices.values().map(Arc::as_ref).collect(),
    };
    let endpoint: Endpoint = name.parse().map_err(|error: Invalid| {
        let vm: Option<Name> = name.parse().ok();
        let there = vm.and_then(|vm| slices.iter().find_map(|slice| interfaces(slice, &vm)));
        unclear(match there {
            Some(there) => format!("{name} is a vm: {there}"),
            None => format!("\"{text}\" is no interface: {}", error.instead()),
        })
    })?;
    let has = |slice: &&Slice| vms(slice, &endpoint.vm).next().is_some();
    let found: Vec<&Slice> = slices.iter().copied().filter(has).collect();
    let slice = match found[..] {
        [slice] => slice,
        [] => return Err(missing("vm", endpoint.vm.as_str(), all_vms(&slices, within.is_some()))),
        _ => {
            let names = found.iter().map(|slice| format!("{}/{endpoint}", slice.name));
            return Err(unclear(list(
                &format!("{} is in several slices; write one of", endpoint.vm),
                names,
            )));
        }
    };
    let end = End {
        slice,
        draft: slice.vms.get(&endpoint.vm).map(AsRef::as_ref),
        deployed: slice
            .deployed()
            .and_then(|frozen| frozen.vms.get(&endpoint.vm))
            .map(AsRef::as_ref),
        endpoint,
    };
    let known = |vm: &Vm| vm.interfaces.iter().any(|i| i.name == end.endpoint.interface);
    if vms(slice, &end.endpoint.vm).any(known) {
        Ok(end)
    } else {
        let there = interfaces(slice, &end.endpoint.vm).unwrap_or_default();
        Err(missing("interface", &end.short(), there))
    }
}

/// As deployed, and as in the draft.
fn vms<'a>(slice: &'a Slice, name: &Name) -> impl Iterator<Item = &'a Vm> {
    let deployed = slice.deployed().and_then(|frozen| frozen.vms.get(name));
    deployed.into_iter().chain(slice.vms.get(name)).map(AsRef::as_ref)
}

fn interfaces(slice: &Slice, vm: &Name) -> Option<String> {
    let most = vms(slice, vm).max_by_key(|vm| vm.interfaces.len())?;
    let names = most.interfaces.iter().map(|i| format!("{vm}.{}", i.name));
    Some(list("its interfaces are", names))
}

fn all_vms(slices: &[&Slice], short: bool) -> String {
    let names = slices.iter().flat_map(|slice| {
        let deployed = slice.deployed().into_iter().flat_map(|frozen| frozen.vms.keys());
        let names: std::collections::BTreeSet<&Name> = slice.vms.keys().chain(deployed).collect();
        names.into_iter().map(move |name| match short {
            true => name.to_string(),
            false => format!("{}/{name}", slice.name),
        })
    });
    list("the vms are", names)
}

/// `the slices are blue, green and 3 more`.
fn list(intro: &str, names: impl Iterator<Item = impl ToString>) -> String {
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    let shown = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        _ if names.is_empty() => "there are none".to_owned(),
        0 => format!("{intro} {shown}"),
        more => format!("{intro} {shown} and {more} more"),
    }
}
