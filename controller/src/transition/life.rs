//! A worker's life: closed to new VMs, emptied, declared gone. And one VM's way from one worker to another.
//!
//! A move changes where a VM is and nothing else: its MACs, addresses and VLANs stay, so its peers notice no more than a pause.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use trunkline_proto::{Name, VmId};

use super::{
    Action, Change, Context, Moved, Rejection, deploy,
    edit::{find, parse},
    event,
    node::{missing, refuse, strike_and_tell},
    rejection::Mistakes,
    state::Draft,
};
use crate::{
    allocate::{Placement, placement::refused},
    leftovers::Word,
    model::{Cluster, NodeRecord, NodeRole, Slice, Vm},
};

/// Most names that one event lists.
const TOLD: usize = 5;

pub(super) fn cordon(cluster: &mut Cluster, name: &str, cordoned: bool, cx: &Context) -> Result<Draft, Rejection> {
    let name = worker(cluster, name)?;
    let mut draft = Draft::default();
    close(cluster, &name, cordoned, cx, &mut draft);
    Ok(draft)
}

/// Nobody waits any more for a node that an operator vouches is dead and cut off.
pub(super) fn declare_gone(cluster: &mut Cluster, name: &str, cx: &Context) -> Result<Draft, Rejection> {
    let name = parse("name", name)?;
    let Some(record) = cluster.nodes.get_mut(&name) else {
        return Err(missing(&name));
    };
    if cx.connected.contains(&name) {
        let text = format!("node {name} is connected, so it is not gone; to empty it: `trunkctl node drain {name}`");
        return Err(refuse("CONNECTED", &name, text));
    }
    let mut draft = Draft::default();
    if record.gone.is_none() {
        record.gone = Some(cx.now);
        let text = format!("node {name} was declared gone: what it held may be given to others");
        let mut event = event("node.gone", cx, None, text);
        event.node = Some(name.clone());
        draft.events.push(event);
    }
    strike_and_tell(cluster, &name, cx, &mut draft, |_| true);
    Ok(draft)
}

/// Moves every VM away, in drafts and in what is deployed, all or none.
pub(super) fn drain(cluster: &mut Cluster, name: &str, onto: &str, cx: &Context) -> Result<Draft, Rejection> {
    let name = worker(cluster, name)?;
    let onto = match onto {
        "" => None,
        onto => Some(target(cluster, &name, onto, cx)?),
    };
    let mut draft = Draft::default();
    close(cluster, &name, true, cx, &mut draft);
    let before = cluster.clone();
    let mut way = Way {
        from: &name,
        onto: onto.as_ref(),
        placement: Placement::of(&before, cx.connected, BTreeSet::new()),
    };
    for slice in before.slices.values() {
        let plan = way.plan(slice)?;
        if let Some(slice) = cluster.slices.get_mut(&slice.name).filter(|_| !plan.is_empty()) {
            carry_out(Arc::make_mut(slice), &name, &plan, cx, &mut draft);
        }
    }
    if !draft.outcome.moved.is_empty() {
        let count = draft.outcome.moved.len();
        let mut event = event(
            "node.drained",
            cx,
            None,
            format!("node {name} was drained: {count} VM(s) move away"),
        );
        event.node = Some(name);
        draft.events.push(event);
    }
    Ok(draft)
}

pub(super) fn move_vm(
    cluster: &mut Cluster,
    slice: &str,
    vm: &str,
    onto: &str,
    force: bool,
    expected: u64,
    cx: &Context,
) -> Result<Draft, Rejection> {
    let slice = find(cluster, "slice", slice, expected)?;
    let (vm, onto) = (parse("name", vm)?, parse("worker", onto)?);
    let Some(old) = slice.vms.get(&vm) else {
        return Err(Rejection::NotFound {
            kind: "vm",
            name: vm.to_string(),
        });
    };
    let placement = Placement::of(cluster, cx.connected, BTreeSet::new());
    let Some(record) = placement.worker(&onto) else {
        let mut mistakes = Mistakes::default();
        mistakes.add("worker", format!("there is no worker {onto}; {}", placement.known("")));
        return Err(Rejection::Invalid(mistakes.into_list()));
    };
    let mut draft = Draft::default();
    draft.outcome.slices.push(slice.name.clone());
    draft.outcome.vm = Some(vm.clone());
    if old.worker == onto {
        return Ok(draft);
    }
    if let Some(why) = refused(&onto, record) {
        return Err(closed(&onto, record, why));
    }
    if !force && !cx.connected.contains(&onto) {
        let text = format!(
            "worker {onto} is not connected, so vm {vm} would stop when this is deployed; start {onto} first, name another, or force the \
             move when {onto} is about to come"
        );
        return Err(refuse("NOT_CONNECTED", &onto, text));
    }
    let (from, name) = (old.worker.clone(), slice.name.clone());
    if let Some(slice) = cluster.slices.get_mut(&name) {
        let new = Vm {
            worker: onto.clone(),
            placed: false,
            ..Vm::clone(old)
        };
        Arc::make_mut(slice).vms.insert(vm.clone(), Arc::new(new));
    }
    draft.changes.push(Change {
        action: Action::Updated,
        slice: name.clone(),
        what: format!("vm {vm}"),
        detail: format!("worker: {from} -> {onto}"),
    });
    let text = format!("draft of slice {name}: vm {vm} moves from {from} to {onto}");
    let mut event = event("vm.moved", cx, Some(&name), text);
    event.node = Some(from);
    draft.events.push(event);
    Ok(draft)
}

/// The word of an operator for removals that a node holds back. Nothing changes here: the node hears it.
pub(super) fn confirm(cluster: &Cluster, name: &str, word: &Word, cx: &Context) -> Result<Draft, Rejection> {
    let name = parse("name", name)?;
    if !cluster.nodes.contains_key(&name) {
        return Err(missing(&name));
    }
    if !cx.connected.contains(&name) {
        let text = format!("node {name} is not connected; start its agent, and it says again what it holds back");
        return Err(refuse("NOT_CONNECTED", &name, text));
    }
    let Some(held) = cx.held.get(&name) else {
        return Err(refuse(
            "NOTHING_HELD",
            &name,
            format!("node {name} holds no removals back"),
        ));
    };
    let at = word.at;
    if at != held.at {
        let text = format!(
            "what node {name} holds back is of term {} generation {}, not of term {} generation {}; look at it with `trunkctl node \
             show {name}`, then confirm that",
            held.at.term, held.at.generation, at.term, at.generation
        );
        return Err(refuse("OTHER_GENERATION", &name, text));
    }
    if word.leftovers != held.leftovers {
        let text = format!(
            "the leftovers that node {name} holds back are not those that this confirms; look again with `trunkctl node show {name}`, \
             then confirm what it shows"
        );
        return Err(refuse("OTHER_LEFTOVERS", &name, text));
    }
    let mut draft = Draft::default();
    draft.outcome.confirmed = held.count();
    let mut event = event(
        "removals.confirmed",
        cx,
        None,
        format!("{} on node {name}: {}", held.count_words(), held.some()),
    );
    event.node = Some(name);
    draft.events.push(event);
    Ok(draft)
}

fn close(cluster: &mut Cluster, name: &Name, cordoned: bool, cx: &Context, draft: &mut Draft) {
    let Some(record) = cluster.nodes.get_mut(name).filter(|record| record.cordoned != cordoned) else {
        return;
    };
    record.cordoned = cordoned;
    let (kind, text) = if cordoned {
        ("node.cordoned", format!("node {name} takes no new VMs"))
    } else {
        ("node.uncordoned", format!("node {name} takes new VMs again"))
    };
    let mut event = event(kind, cx, None, text);
    event.node = Some(name.clone());
    draft.events.push(event);
}

/// A worker that is known, by the name that a request gives.
fn worker(cluster: &Cluster, name: &str) -> Result<Name, Rejection> {
    let name = parse("name", name)?;
    match cluster.nodes.get(&name).map(|record| record.role) {
        None => Err(missing(&name)),
        Some(NodeRole::Worker) => Ok(name),
        Some(NodeRole::Netnode) => {
            let text = format!("{name} is the network node: no VM is ever placed there");
            Err(refuse("NOT_A_WORKER", &name, text))
        }
    }
}

/// The worker that is to take all that `from` has.
fn target(cluster: &Cluster, from: &Name, onto: &str, cx: &Context) -> Result<Name, Rejection> {
    let onto = parse("onto", onto)?;
    let placement = Placement::of(cluster, cx.connected, BTreeSet::new());
    let wrong = |text: String| {
        let mut mistakes = Mistakes::default();
        mistakes.add("onto", text);
        Rejection::Invalid(mistakes.into_list())
    };
    if onto == *from {
        return Err(wrong(format!(
            "{onto} is the node that is to be emptied; name another worker, or none"
        )));
    }
    let Some(record) = placement.worker(&onto) else {
        return Err(wrong(format!("there is no worker {onto}; {}", placement.known(""))));
    };
    if let Some(why) = refused(&onto, record) {
        return Err(closed(&onto, record, why));
    }
    if !cx.connected.contains(&onto) {
        let text =
            format!("worker {onto} is not connected, so nothing would run there; start it first, or name another");
        return Err(refuse("NOT_CONNECTED", &onto, text));
    }
    Ok(onto)
}

fn closed(name: &Name, record: &NodeRecord, why: String) -> Rejection {
    let kind = if record.gone.is_some() { "GONE" } else { "CORDONED" };
    refuse(kind, name, why)
}

/// Where the VMs of one worker go.
struct Way<'a> {
    from: &'a Name,
    onto: Option<&'a Name>,
    placement: Placement<'a>,
}

/// New workers of a slice's VMs, by id.
#[derive(Default)]
struct Plan {
    draft: BTreeMap<VmId, Name>,
    deployed: BTreeMap<VmId, Name>,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.draft.is_empty() && self.deployed.is_empty()
    }
}

impl Way<'_> {
    /// A VM that is in the draft and deployed goes to one place; one that has been moved in one of the two follows that.
    fn plan(&mut self, slice: &Slice) -> Result<Plan, Rejection> {
        let mut plan = Plan::default();
        let drafts: BTreeMap<VmId, &Arc<Vm>> = slice.vms.values().map(|vm| (vm.id, vm)).collect();
        let deployed = || slice.deployed().into_iter().flat_map(|frozen| frozen.vms.values());
        for vm in deployed().filter(|vm| vm.worker == *self.from) {
            let elsewhere = drafts.get(&vm.id).map(|vm| &vm.worker);
            let to = self.choose(elsewhere, slice, vm)?;
            plan.deployed.insert(vm.id, to);
        }
        for vm in slice.vms.values().filter(|vm| vm.worker == *self.from) {
            let to = match plan.deployed.get(&vm.id) {
                Some(to) => to.clone(),
                None => {
                    let elsewhere = deployed().find(|now| now.id == vm.id).map(|now| &now.worker);
                    self.choose(elsewhere, slice, vm)?
                }
            };
            plan.draft.insert(vm.id, to);
        }
        Ok(plan)
    }

    fn choose(&mut self, elsewhere: Option<&Name>, slice: &Slice, vm: &Vm) -> Result<Name, Rejection> {
        if let Some(onto) = self.onto {
            return Ok(onto.clone());
        }
        if let Some(there) = elsewhere.filter(|there| *there != self.from && self.placement.takes_now(there)) {
            return Ok(there.clone());
        }
        self.placement.place_now(self.from).ok_or_else(|| {
            let text = format!(
                "vm {} of slice {} has nowhere to go: {}",
                vm.name,
                slice.name,
                self.placement.full_now(self.from)
            );
            refuse("NO_WORKER", self.from, text)
        })
    }
}

fn carry_out(slice: &mut Slice, from: &Name, plan: &Plan, cx: &Context, draft: &mut Draft) {
    let mut moved: BTreeMap<VmId, Moved> = BTreeMap::new();
    let name = slice.name.clone();
    let mut note = |vm: &Vm, to: &Name| {
        moved.insert(
            vm.id,
            Moved {
                slice: name.clone(),
                vm: vm.name.clone(),
                from: from.clone(),
                to: to.clone(),
            },
        );
    };
    let vms = relocate(&slice.vms, &plan.draft, &mut note);
    slice.vms = vms;
    let now = slice.deployed().filter(|_| !plan.deployed.is_empty()).cloned();
    let number = now.map(|frozen| {
        let vms = relocate(&frozen.vms, &plan.deployed, &mut note);
        deploy::push(slice, vms, frozen.links.clone(), cx)
    });
    let named: Vec<String> = moved
        .values()
        .take(TOLD)
        .map(|m| format!("{} to {}", m.vm, m.to))
        .collect();
    let more = match moved.len() - named.len() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    let text = format!(
        "slice {}: away from {from} move vm {}{more}",
        slice.name,
        named.join(", ")
    );
    let mut told = event("vm.moved", cx, Some(&slice.name), text);
    told.node = Some(from.clone());
    draft.events.push(told);
    if let Some(number) = number {
        let text = format!(
            "slice {} was deployed as revision {number}, which is as before but for the moves",
            slice.name
        );
        draft.events.push(event("slice.deployed", cx, Some(&slice.name), text));
    }
    draft.outcome.moved.extend(moved.into_values());
}

type Vms = BTreeMap<Name, Arc<Vm>>;

fn relocate(vms: &Vms, to: &BTreeMap<VmId, Name>, note: &mut impl FnMut(&Vm, &Name)) -> Vms {
    let one = |(name, vm): (&Name, &Arc<Vm>)| {
        let vm = match to.get(&vm.id) {
            None => vm.clone(),
            Some(worker) => {
                note(vm, worker);
                Arc::new(Vm {
                    worker: worker.clone(),
                    ..Vm::clone(vm)
                })
            }
        };
        (name.clone(), vm)
    };
    vms.iter().map(one).collect()
}
