//! Drafts frozen as numbered revisions, which become desired state; and the way back.

use std::sync::Arc;

use trunkline_proto::Name;

use super::{Action, Change, Context, Rejection, edit::find, event, rollback, state::Draft};
use crate::{
    allocate::Holdings,
    model::{Cluster, Frozen, Position, Slice},
};

pub(super) fn deploy(cluster: &mut Cluster, name: &str, expected: u64, cx: &Context) -> Result<Draft, Rejection> {
    let slice = find(cluster, "name", name, expected)?;
    let mut draft = named(&slice);
    freeze(cluster, &slice.name, cx, &mut draft)?;
    Ok(draft)
}

/// Deploys the draft of a slice; does nothing when it is what is deployed.
pub(super) fn freeze(cluster: &mut Cluster, name: &Name, cx: &Context, draft: &mut Draft) -> Result<(), Rejection> {
    let slice = cluster.slices.get_mut(name).ok_or_else(|| Rejection::no_slice(name))?;
    let same = slice
        .deployed()
        .filter(|f| f.vms == slice.vms && f.links == slice.links);
    if let Some(frozen) = same {
        draft.outcome.number = Some(frozen.number);
        return Ok(());
    }
    let (vms, links) = (slice.vms.clone(), slice.links.clone());
    let number = push(Arc::make_mut(slice), vms, links, cx);
    draft.outcome.number = Some(number);
    draft.changes.push(deployed(name, format!("revision {number}")));
    let text = format!("slice {name} was deployed as revision {number}");
    draft.events.push(event("slice.deployed", cx, Some(name), text));
    Ok(())
}

pub(super) fn rollback(
    cluster: &mut Cluster,
    held: &Holdings,
    name: &str,
    number: u32,
    expected: u64,
    cx: &Context,
) -> Result<Draft, Rejection> {
    let slice = find(cluster, "name", name, expected)?;
    let wanted = slice.revisions.get(&number).ok_or_else(|| Rejection::NotFound {
        kind: "revision",
        name: number.to_string(),
    })?;
    let mut draft = named(&slice);
    let (vms, links, renumbered) = rollback::restore(cluster, held, &slice, wanted, cx)?;
    if let Some(now) = slice.deployed().filter(|f| f.vms == vms && f.links == links) {
        draft.outcome.number = Some(now.number);
        return Ok(draft);
    }
    let Some(slice) = cluster.slices.get_mut(&slice.name) else {
        return Err(Rejection::no_slice(&slice.name));
    };
    let new = push(Arc::make_mut(slice), vms, links, cx);
    draft.outcome.number = Some(new);
    draft.outcome.renumbered = renumbered;
    let name = &slice.name;
    draft
        .changes
        .push(deployed(name, format!("revision {new}, which is {number} again")));
    let text = format!("slice {name} was rolled back to revision {number}, as revision {new}");
    draft.events.push(event("slice.rolledback", cx, Some(name), text));
    Ok(draft)
}

pub(super) fn undeploy(cluster: &mut Cluster, name: &str, expected: u64, cx: &Context) -> Result<Draft, Rejection> {
    let slice = find(cluster, "name", name, expected)?;
    let mut draft = named(&slice);
    if slice.deployed.is_none() {
        return Ok(draft);
    }
    if let Some(slice) = cluster.slices.get_mut(&slice.name) {
        Arc::make_mut(slice).deployed = None;
    }
    draft.changes.push(gone(&slice.name, "deployment"));
    let text = format!("slice {} is to be taken off every host", slice.name);
    draft
        .events
        .push(event("slice.undeployed", cx, Some(&slice.name), text));
    Ok(draft)
}

pub(super) fn delete(cluster: &mut Cluster, name: &str, expected: u64, cx: &Context) -> Result<Draft, Rejection> {
    let slice = find(cluster, "name", name, expected)?;
    let mut draft = named(&slice);
    cluster.slices.remove(&slice.name);
    draft.changes.push(gone(&slice.name, "slice"));
    let hosts = if slice.deployed.is_some() {
        ", and is to be taken off every host"
    } else {
        ""
    };
    let text = format!("slice {} was deleted{hosts}", slice.name);
    draft.events.push(event("slice.deleted", cx, Some(&slice.name), text));
    Ok(draft)
}

type Vms = std::collections::BTreeMap<Name, Arc<crate::model::Vm>>;
type Links = std::collections::BTreeMap<Name, Arc<crate::model::Link>>;

/// Adds a revision, makes it the deployed one, and lets the oldest go. Its position is set once it is known.
pub(super) fn push(slice: &mut Slice, vms: Vms, links: Links, cx: &Context) -> u32 {
    let number = slice.next_number;
    let frozen = Frozen {
        number,
        position: Position::default(),
        at: cx.now,
        by: cx.actor.to_owned(),
        vms,
        links,
    };
    slice.next_number += 1;
    slice.revisions.insert(number, Arc::new(frozen));
    slice.deployed = Some(number);
    while slice.revisions.len() > cx.settings.revisions_kept.max(1) {
        slice.revisions.pop_first();
    }
    number
}

fn named(slice: &Slice) -> Draft {
    let mut draft = Draft::default();
    draft.outcome.slices.push(slice.name.clone());
    draft
}

fn deployed(slice: &Name, detail: String) -> Change {
    Change {
        action: Action::Deployed,
        slice: slice.clone(),
        what: "slice".into(),
        detail,
    }
}

fn gone(slice: &Name, what: &str) -> Change {
    Change {
        action: Action::Removed,
        slice: slice.clone(),
        what: what.into(),
        detail: String::new(),
    }
}
