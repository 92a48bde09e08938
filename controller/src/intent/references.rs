//! What the parts of one slice say of each other: names once each, ends that exist, each in one link.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_proto::{Endpoint, Name};

use super::{LinkIntent, VmIntent};
use crate::transition::Mistakes;

/// Lists what does not fit, and marks the links that it concerns.
pub(super) fn check(vms: &[VmIntent], links: &mut [LinkIntent], mistakes: &mut Mistakes) {
    let mut by_name: BTreeMap<&Name, &VmIntent> = BTreeMap::new();
    for vm in vms {
        // The first one counts, so that a link to it is not told of the second one's interfaces.
        if by_name.contains_key(&vm.name) {
            let text = format!("vm {} is there twice; write it once", vm.name);
            mistakes.add(format!("{}.name", vm.path), text);
        } else {
            by_name.insert(&vm.name, vm);
        }
    }
    let mut names = BTreeSet::new();
    let mut used: BTreeMap<Endpoint, String> = BTreeMap::new();
    for link in links {
        let before = mistakes.len();
        if let Some(name) = &link.name
            && !names.insert(name.clone())
        {
            mistakes.add(
                format!("{}.name", link.path),
                format!("link {name} is there twice; write it once"),
            );
        }
        for (i, end) in link.ends.iter().enumerate() {
            let Some(end) = end else { continue };
            if let Err(text) = fits(end, &by_name, &mut used, &link.path) {
                mistakes.add(format!("{}.ends[{i}]", link.path), text);
            }
        }
        link.broken |= mistakes.len() > before;
    }
}

fn fits(
    end: &Endpoint,
    vms: &BTreeMap<&Name, &VmIntent>,
    used: &mut BTreeMap<Endpoint, String>,
    path: &str,
) -> Result<(), String> {
    let Endpoint { vm: name, interface } = end;
    let Some(vm) = vms.get(name) else {
        return Err(format!(
            "there is no vm {name} in this slice; add it, or write the name of one that is there"
        ));
    };
    if interface.index() == 0 {
        return Err("eth0 is the management interface and cannot be linked; write eth1 or higher".into());
    }
    if interface.index() > vm.data_interfaces {
        let count = interface.index();
        return Err(format!(
            "{name} has no {interface}; raise its data_interfaces_count to {count}"
        ));
    }
    match used.insert(end.clone(), path.to_owned()) {
        Some(other) if other == path => Err(format!("{end} is there twice in this link; write two different ends")),
        Some(other) => Err(format!(
            "{end} is an end of {other} already; an interface is in one link at most"
        )),
        None => Ok(()),
    }
}
