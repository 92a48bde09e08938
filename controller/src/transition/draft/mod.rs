//! Drafts from intents: what is there and still wanted keeps its id, VLAN and addresses; the rest is allocated.
//!
//! ```text
//!   pools  ->  links: given and kept VLANs and subnets  ->  VMs: ids, workers, MACs  ->  VLANs for the other links
//!          ->  addresses  ->  interfaces
//! ```
//! Each phase runs over all slices of the request before the next, so that nothing is allocated that another of them has or
//! gives.

mod links;
mod vms;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use trunkline_proto::{Endpoint, Name, VlanId};

use super::{Context, Mistakes};
use crate::{
    allocate::{Claim, Holdings, Ledger, Placement, What},
    intent::{LinkIntent, SliceIntent, VmIntent},
    model::{Cluster, Link, Pool, Slice, Vm},
};

/// Plans the drafts of one request.
pub(super) struct Planner<'a> {
    cluster: &'a Cluster,
    cx: &'a Context<'a>,
    ledger: Ledger<'a>,
    mistakes: &'a mut Mistakes,
    next_vm_id: u32,
    placement: Placement<'a>,
}

/// One slice in the making.
struct Work<'a> {
    intent: &'a SliceIntent,
    old: Option<&'a Slice>,
    uid: u64,
    pool: Pool,
    /// The pool could not be had; that is told once, not again for each link.
    starved: bool,
    links: Vec<LinkWork<'a>>,
    vms: Vec<VmWork<'a>>,
}

struct LinkWork<'a> {
    intent: &'a LinkIntent,
    name: Name,
    ends: Vec<Endpoint>,
    old: Option<&'a Link>,
    /// Set once it has its VLAN and subnet.
    link: Option<Link>,
}

struct VmWork<'a> {
    intent: &'a VmIntent,
    old: Option<&'a Vm>,
    vm: Vm,
}

/// The new drafts; only to be used when there were no mistakes.
pub(super) struct Planned {
    pub(super) slices: Vec<Slice>,
    pub(super) next_vm_id: u32,
}

/// Plans the drafts that `intents` ask for.
pub(super) fn plan(
    cluster: &Cluster,
    held: &Holdings,
    intents: &[SliceIntent],
    cx: &Context,
    mistakes: &mut Mistakes,
) -> Planned {
    let rewritten: BTreeSet<&Name> = intents.iter().map(|i| &i.name).collect();
    let mut planner = Planner {
        cluster,
        cx,
        ledger: Ledger::of(cluster, held, cx.settings, &rewritten),
        mistakes,
        next_vm_id: cluster.meta.next_vm_id,
        placement: Placement::of(cluster, cx.connected, rewritten.iter().copied().cloned().collect()),
    };
    let mut works: Vec<Work> = intents.iter().map(|intent| planner.begin(intent)).collect();
    planner.pools(&mut works);
    planner.fixed_links(&mut works);
    planner.vms(&mut works);
    planner.free_links(&mut works);
    planner.internet_addresses(&mut works);
    planner.link_addresses(&mut works);
    Planned {
        next_vm_id: planner.next_vm_id,
        slices: works.into_iter().map(|work| work.finish(cx)).collect(),
    }
}

impl<'a> Planner<'a> {
    fn begin(&self, intent: &'a SliceIntent) -> Work<'a> {
        let old = self.cluster.slices.get(&intent.name).map(AsRef::as_ref);
        Work {
            intent,
            old,
            uid: old.map_or(self.cluster.meta.revision + 1, |s| s.uid),
            pool: old.map(|s| s.pool.clone()).unwrap_or_default(),
            starved: false,
            links: links::named(intent, old),
            vms: Vec::new(),
        }
    }

    /// New pools, and more for those that are to grow. A pool keeps clear of the VLANs that other slices of the request give.
    fn pools(&mut self, works: &mut [Work]) {
        let given: Vec<BTreeSet<VlanId>> = works
            .iter()
            .map(|w| w.intent.links.iter().filter_map(|l| l.vlan).collect())
            .collect();
        for (i, work) in works.iter_mut().enumerate() {
            let SliceIntent {
                path, pool_size, name, ..
            } = work.intent;
            let field = format!("{path}.vlan_pool_size");
            let size = work.pool.size();
            let wanted = match (*pool_size, work.old) {
                (0, None) => self.cx.settings.vlan_pool_size,
                (0, Some(_)) => size,
                (asked, _) => asked,
            };
            if *pool_size != 0 {
                work.pool.asked = *pool_size;
            }
            if wanted < size {
                let text = format!("the pool has {size} VLANs and does not shrink; write {size} or more, or 0");
                self.mistakes.add(field, text);
                continue;
            }
            let others = given.iter().enumerate().filter(|(j, _)| *j != i);
            let avoid = others.flat_map(|(_, vlans)| vlans.iter().copied()).collect();
            if let Err(room) = self.ledger.grow(name, &mut work.pool, wanted - size, &avoid) {
                let more = wanted - size;
                let text = format!(
                    "{more} more VLANs are wanted and {room} are free for pools; ask for fewer, delete a slice, or widen the \
                     controller's VLAN range{}",
                    self.ledger.held_back()
                );
                self.mistakes.exhausted(field, text);
                work.starved = true;
            }
        }
    }
}

impl Work<'_> {
    fn claim(&self, what: What, label: String) -> Claim {
        Claim {
            slice: self.intent.name.clone(),
            uid: self.uid,
            what,
            label,
            takes_over: true,
        }
    }

    fn link_claim(&self, name: &Name) -> Claim {
        self.claim(What::Link(name.clone()), format!("link {name}"))
    }

    /// Unchanged VMs and links stay the very same, so that nothing is stored again.
    fn finish(self, cx: &Context) -> Slice {
        let Work {
            intent,
            old,
            uid,
            pool,
            starved: _,
            links,
            vms,
        } = self;
        let mut slice = old.cloned().unwrap_or_else(|| Slice {
            name: intent.name.clone(),
            uid,
            owner: cx.actor.rsplit('/').next().unwrap_or_default().to_owned(),
            created: cx.now,
            revision: 0,
            pool: Pool::default(),
            vms: BTreeMap::new(),
            links: BTreeMap::new(),
            deployed: None,
            next_number: 1,
            revisions: BTreeMap::new(),
        });
        slice.pool = pool;
        let links = links
            .into_iter()
            .filter_map(|w| w.link)
            .map(|link| (link.name.clone(), link));
        slice.links = merged(&slice.links, links);
        slice.vms = merged(&slice.vms, vms.into_iter().map(|w| (w.vm.name.clone(), w.vm)));
        slice
    }
}

fn merged<T: PartialEq>(old: &BTreeMap<Name, Arc<T>>, new: impl Iterator<Item = (Name, T)>) -> BTreeMap<Name, Arc<T>> {
    new.map(|(name, value)| {
        let same = old.get(&name).filter(|o| ***o == value).cloned();
        (name, same.unwrap_or_else(|| Arc::new(value)))
    })
    .collect()
}
