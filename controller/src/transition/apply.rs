//! Drafts made exactly what a request says.

use std::{collections::BTreeMap, sync::Arc};

use trunkline_proto::{Name, wire};

use super::{Action, Change, Context, Mistakes, Rejection, deploy, draft::plan, event, state::Draft};
use crate::{
    allocate::Holdings,
    intent::parse,
    model::{Cluster, Interface, Link, Slice, Vm},
};

/// Most changes of a draft that its event names.
const TOLD: usize = 5;

pub(super) fn apply(
    cluster: &mut Cluster,
    held: &Holdings,
    specs: &[wire::SliceSpec],
    expected: &BTreeMap<String, u64>,
    deploy: bool,
    cx: &Context,
) -> Result<Draft, Rejection> {
    for (name, expected) in expected {
        let slice = name.parse().ok().and_then(|name: Name| cluster.slices.get(&name));
        expect(name, slice, *expected)?;
    }
    let mut draft = rewrite(cluster, held, specs, cx)?;
    if deploy {
        for name in draft.outcome.slices.clone() {
            deploy::freeze(cluster, &name, cx, &mut draft)?;
        }
    }
    Ok(draft)
}

/// Fails unless the slice is at the revision that the caller last saw; 0 is not checked.
pub(super) fn expect(name: &str, slice: Option<&Arc<Slice>>, expected: u64) -> Result<(), Rejection> {
    let actual = slice.map_or(0, |s| s.revision);
    if expected == 0 || expected == actual {
        return Ok(());
    }
    Err(Rejection::Aborted {
        slice: name.to_owned(),
        expected,
        actual,
    })
}

/// Replaces the drafts of the slices that are named, all or none.
pub(super) fn rewrite(
    cluster: &mut Cluster,
    held: &Holdings,
    specs: &[wire::SliceSpec],
    cx: &Context,
) -> Result<Draft, Rejection> {
    let mut mistakes = Mistakes::default();
    let intents = parse(specs, &mut mistakes);
    let planned = plan(cluster, held, &intents, cx, &mut mistakes);
    mistakes.finish()?;
    let mut draft = Draft::default();
    cluster.meta.next_vm_id = planned.next_vm_id;
    for slice in planned.slices {
        let old = cluster.slices.get(&slice.name);
        let changes = compare(old.map(AsRef::as_ref), &slice);
        if !changes.is_empty() {
            let text = told(&slice.name, &changes);
            draft.events.push(event("slice.applied", cx, Some(&slice.name), text));
        }
        draft.changes.extend(changes);
        draft.outcome.slices.push(slice.name.clone());
        if old.is_none_or(|o| **o != slice) {
            cluster.slices.insert(slice.name.clone(), Arc::new(slice));
        }
    }
    Ok(draft)
}

/// One sentence of what became of a draft. The first few changes are named: an event is kept for long, and a topology may change
/// thousands of things at once.
fn told(slice: &Name, changes: &[Change]) -> String {
    let one = |change: &Change| {
        let verb = match change.action {
            Action::Created => "created",
            Action::Updated => "changed",
            Action::Removed => "removed",
            Action::Deployed => "deployed",
        };
        format!("{} {verb}", change.what)
    };
    let named: Vec<String> = changes.iter().take(TOLD).map(one).collect();
    let more = match changes.len() - named.len() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    format!("draft of slice {slice}: {}{more}", named.join(", "))
}

/// What differs between two drafts, for people.
fn compare(old: Option<&Slice>, new: &Slice) -> Vec<Change> {
    let mut changes = Vec::new();
    let change = |action, what: String, detail| Change {
        action,
        slice: new.name.clone(),
        what,
        detail,
    };
    let ranges = |s: &Slice| {
        let ranges = s.pool.ranges.iter().map(|r| format!("{}-{}", r.first, r.last));
        ranges.collect::<Vec<_>>().join(", ")
    };
    match old {
        None => changes.push(change(
            Action::Created,
            "slice".into(),
            format!("vlans {}", ranges(new)),
        )),
        Some(old) => {
            let mut detail = Details::default();
            detail.field("vlans", ranges(old), ranges(new));
            detail.field("vlan_pool_size", old.pool.asked, new.pool.asked);
            if let Some(detail) = detail.finish() {
                changes.push(change(Action::Updated, "slice".into(), detail));
            }
        }
    }
    let none = BTreeMap::new();
    let before = old.map_or(&none, |o| &o.vms);
    for (action, name, detail) in parts(before, &new.vms, vm_new, vm_differs) {
        changes.push(change(action, format!("vm {name}"), detail));
    }
    let none = BTreeMap::new();
    let before = old.map_or(&none, |o| &o.links);
    for (action, name, detail) in parts(before, &new.links, link_new, link_differs) {
        changes.push(change(action, format!("link {name}"), detail));
    }
    changes
}

fn parts<T: PartialEq>(
    old: &BTreeMap<Name, Arc<T>>,
    new: &BTreeMap<Name, Arc<T>>,
    created: impl Fn(&T) -> String,
    differs: impl Fn(&T, &T) -> Option<String>,
) -> Vec<(Action, Name, String)> {
    let gone = old.keys().filter(|name| !new.contains_key(name));
    let mut list: Vec<_> = gone
        .map(|name| (Action::Removed, name.clone(), String::new()))
        .collect();
    for (name, value) in new {
        match old.get(name) {
            None => list.push((Action::Created, name.clone(), created(value))),
            Some(before) => list.extend(differs(before, value).map(|d| (Action::Updated, name.clone(), d))),
        }
    }
    list
}

fn vm_new(vm: &Vm) -> String {
    format!("id {}, on {}", vm.id, vm.worker)
}

/// `None` when only the links' side of it changed, which the link tells.
fn vm_differs(old: &Vm, new: &Vm) -> Option<String> {
    let mut detail = Details::default();
    detail.field("worker", &old.worker, &new.worker);
    detail.field("internet_enabled", old.internet, new.internet);
    detail.field("data_interfaces_count", old.data_interfaces(), new.data_interfaces());
    if old.worker == new.worker {
        detail.field("placed", old.placed, new.placed);
    }
    for (old, new) in old.interfaces.iter().zip(&new.interfaces) {
        let address = |i: &Interface| i.address.map_or_else(|| "none".into(), |a| a.to_string());
        detail.field(&format!("{} mac", new.name), old.mac, new.mac);
        if old.link == new.link && old.vlan == new.vlan {
            detail.field(&format!("{} address", new.name), address(old), address(new));
        }
        if old.address_given != new.address_given && old.address == new.address {
            let fixed = |i: &Interface| {
                if i.address_given.is_some() {
                    "operator"
                } else {
                    "controller"
                }
            };
            detail.field(&format!("{} address chosen by", new.name), fixed(old), fixed(new));
        }
    }
    detail.finish()
}

fn link_new(link: &Link) -> String {
    format!("vlan {}, {}", link.vlan, link.subnet)
}

fn link_differs(old: &Link, new: &Link) -> Option<String> {
    let ends = |l: &Link| l.ends.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let fixed = |given: bool| if given { "operator" } else { "controller" };
    let mut detail = Details::default();
    detail.field("ends", ends(old), ends(new));
    detail.field("vlan", old.vlan, new.vlan);
    detail.field("subnet", old.subnet, new.subnet);
    detail.field("dhcp", old.dhcp, new.dhcp);
    detail.field("mtu", old.mtu, new.mtu);
    detail.field("port_security", old.port_security, new.port_security);
    detail.field("protected", old.protected, new.protected);
    detail.field("vlan chosen by", fixed(old.vlan_given), fixed(new.vlan_given));
    detail.field("subnet chosen by", fixed(old.subnet_given), fixed(new.subnet_given));
    detail.field("mtu is", fixed(old.mtu_given), fixed(new.mtu_given));
    detail.finish()
}

/// `internet_enabled: false -> true, worker: w1 -> w2`.
#[derive(Default)]
struct Details(Vec<String>);

impl Details {
    fn field<T: PartialEq + ToString>(&mut self, name: &str, old: T, new: T) {
        if old != new {
            self.0
                .push(format!("{name}: {} -> {}", old.to_string(), new.to_string()));
        }
    }

    fn finish(self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join(", "))
    }
}
