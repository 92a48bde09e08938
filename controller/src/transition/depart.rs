//! Departures: what a node should no longer have is kept from everybody else until the node has read it back as gone, and for a
//! while after. A node that is cut off goes on forwarding; giving its VLAN away early would join two tenants.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use trunkline_proto::{Name, VlanId, VmId};

use super::{Context, NewEvent, event, state::State};
use crate::{
    compile::Desired,
    model::{Cluster, DepartingLink, Departure, Frozen, Slice},
};

/// Begins a departure for every slice whose deployed state stops using something anywhere. Only nodes that this change touched are
/// waited for: any other has nothing to take away, is told nothing, and so would never say that it is done.
pub(super) fn begin(old: &State, cluster: &mut Cluster, desired: &Desired, touched: &BTreeSet<Name>, cx: &Context) {
    let position = cluster.position();
    // Of any other nothing leaves: it is deployed as it was, and to the same nodes.
    let redeployed = old.cluster.slices.differences(&cluster.slices).map(|(name, _, _)| name);
    let names: BTreeSet<Name> = redeployed.chain(old.desired.changed_slices(desired)).cloned().collect();
    for name in names {
        let slice = old.cluster.slices.get(&name);
        let Some((slice, before)) = slice.and_then(|slice| Some((slice, slice.deployed()?))) else {
            continue;
        };
        let after = cluster.slices.get(&slice.name).filter(|s| s.uid == slice.uid);
        let after = after.and_then(|s| s.deployed()).map(AsRef::as_ref);
        let mut gone = Gone::default();
        gone.links(&slice.name, before, after, old, desired);
        gone.guests(before, after, old.cluster.meta.netnode.as_ref());
        if gone.is_empty() {
            continue;
        }
        // One that was declared gone is cut off: so an operator has vouched.
        let alive = |node: &Name| cluster.nodes.get(node).is_some_and(|record| record.gone.is_none());
        let told = gone
            .nodes
            .into_iter()
            .filter(|node| touched.contains(node) && alive(node));
        let waiting: BTreeMap<Name, _> = told.map(|node| (node, position)).collect();
        let free_at = waiting.is_empty().then(|| cx.now.after(cx.settings.quarantine));
        let departure = departure(slice, gone.links, gone.addresses, waiting, free_at);
        let key = (cluster.meta.revision, slice.name.clone());
        cluster.departures.insert(key, departure);
    }
}

fn departure(
    slice: &Slice,
    links: BTreeMap<VlanId, DepartingLink>,
    addresses: BTreeMap<Ipv4Addr, VmId>,
    waiting: BTreeMap<Name, crate::model::Position>,
    free_at: Option<crate::model::Timestamp>,
) -> Departure {
    Departure {
        slice: slice.name.clone(),
        uid: slice.uid,
        links,
        addresses,
        waiting,
        free_at,
    }
}

/// What one slice stops using, and the nodes that have it.
#[derive(Default)]
struct Gone {
    links: BTreeMap<VlanId, DepartingLink>,
    addresses: BTreeMap<Ipv4Addr, VmId>,
    nodes: BTreeSet<Name>,
}

impl Gone {
    fn is_empty(&self) -> bool {
        self.links.is_empty() && self.addresses.is_empty()
    }

    fn links(&mut self, slice: &Name, before: &Frozen, after: Option<&Frozen>, old: &State, desired: &Desired) {
        let had = old.desired.vlans_of(slice);
        let has = desired.vlans_of(slice);
        for link in before.links.values() {
            let same = |l: &&std::sync::Arc<crate::model::Link>| l.vlan == link.vlan && l.subnet == link.subnet;
            let stays = after.is_some_and(|f| f.links.values().any(|l| same(&l)));
            // A VLAN that stays may still leave one node; one with another subnet leaves all of them, as far as that goes.
            let leaves = had.iter().filter(|(node, vlans)| {
                vlans.contains(&link.vlan) && !(stays && has.get(*node).is_some_and(|v| v.contains(&link.vlan)))
            });
            let leaves: Vec<Name> = leaves.map(|(node, _)| (*node).clone()).collect();
            if !stays || !leaves.is_empty() {
                let link = (link.vlan, link.name.clone(), link.subnet);
                self.links.insert(
                    link.0,
                    DepartingLink {
                        name: link.1,
                        subnet: link.2,
                    },
                );
                self.nodes.extend(leaves);
            }
        }
    }

    fn guests(&mut self, before: &Frozen, after: Option<&Frozen>, netnode: Option<&Name>) {
        for vm in before.vms.values().filter(|vm| vm.internet) {
            let Some(address) = vm.interfaces.first().and_then(|i| i.address) else {
                continue;
            };
            let stays = after.and_then(|f| f.vms.get(&vm.name)).is_some_and(|v| {
                v.id == vm.id && v.worker == vm.worker && v.interfaces.first().and_then(|i| i.address) == Some(address)
            });
            if !stays {
                self.addresses.insert(address, vm.id);
                self.nodes.insert(vm.worker.clone());
                self.nodes.extend(netnode.cloned());
            }
        }
    }
}

/// Strikes a node off every departure for which `done` holds, and off what a restore holds back, and starts the rest of those that
/// nobody is waited for.
pub(super) fn strike(cluster: &mut Cluster, node: &Name, cx: &Context, done: impl Fn(crate::model::Position) -> bool) {
    let free_at = cx.now.after(cx.settings.quarantine);
    if let Some(hold) = &mut cluster.meta.hold
        && done(hold.position)
        && hold.waiting.remove(node)
        && hold.waiting.is_empty()
    {
        hold.free_at = Some(free_at);
    }
    for departure in cluster.departures.values_mut() {
        if departure.waiting.get(node).is_some_and(|position| done(*position)) {
            departure.waiting.remove(node);
            if departure.waiting.is_empty() {
                departure.free_at = Some(free_at);
            }
        }
    }
}

/// A node that was declared gone or removed is there after all: what nobody has got yet waits for it again, until it is clean of all
/// that it is not to have now.
pub(super) fn await_again(cluster: &mut Cluster, node: &Name, changed: crate::model::Position) {
    for departure in cluster.departures.values_mut() {
        departure.waiting.insert(node.clone(), changed);
        departure.free_at = None;
    }
    if let Some(hold) = &mut cluster.meta.hold {
        hold.waiting.insert(node.clone());
        hold.free_at = None;
    }
}

/// A rest that ends later than one that begins now was begun by a clock that was ahead: it ends no later than that one.
pub(super) fn no_later(cluster: &mut Cluster, cx: &Context) {
    let latest = cx.now.after(cx.settings.quarantine);
    let departures = cluster.departures.values_mut().map(|departure| &mut departure.free_at);
    let hold = cluster.meta.hold.as_mut().map(|hold| &mut hold.free_at);
    for free_at in departures.chain(hold).flatten() {
        *free_at = latest.min(*free_at);
    }
}

/// Time has passed: what a restore held back is given out again when nobody is waited for any more.
pub(super) fn release(cluster: &mut Cluster, cx: &Context) -> Option<NewEvent> {
    let hold = cluster.meta.hold.as_mut()?;
    if hold.waiting.is_empty() && hold.free_at.is_none() {
        hold.free_at = Some(cx.now.after(cx.settings.quarantine));
    }
    hold.free_at.filter(|at| *at <= cx.now)?;
    cluster.meta.hold = None;
    let text = "after the restore every node is clean: vlans and addresses are given out again";
    Some(event("restore.settled", cx, None, text.into()))
}
