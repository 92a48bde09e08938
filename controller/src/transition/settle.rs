//! What follows from every transition alike: the nodes' new desired state and its generation, departures, the check, the rows.

use std::{collections::BTreeSet, sync::Arc};

use trunkline_proto::Name;

use super::{
    Context, NewEvent, Rejection, depart,
    state::{Draft, State, Step},
};
use crate::{
    check::check,
    compile::Desired,
    model::{Cluster, Position, rows},
};

/// Finishes a transition from `old` to `cluster`, or finds that nothing changed.
pub(super) fn settle(old: &State, mut cluster: Cluster, draft: Draft, cx: &Context) -> Result<Step, Rejection> {
    // Before this step, so by other settings or another version than when the state was stored.
    let unasked: BTreeSet<Name> = out_of_record(&old.cluster, &old.desired).into_iter().collect();
    let compile = || old.desired.next(&cluster, cx.settings, cx.traceparent);
    let (mut desired, mut touched) = tracing::info_span!("compile").in_scope(compile);
    for node in out_of_record(&cluster, &desired) {
        if touched.insert(node.clone()) {
            desired.all_changed(&node);
        }
    }
    touched.retain(|node| cluster.nodes.contains_key(node));
    if cluster == old.cluster && touched.is_empty() {
        return Ok(unchanged(old, draft));
    }
    cluster.meta.revision += 1;
    if !touched.is_empty() {
        cluster.meta.generation += 1;
    }
    let position = cluster.position();
    for node in &touched {
        desired.stamp(node, position);
        if let Some(record) = cluster.nodes.get_mut(node) {
            record.change(position, digest(&desired, node));
            if unasked.contains(node) {
                record.unasked = position;
            }
        }
    }
    mark(&old.cluster, &mut cluster, position);
    depart::begin(old, &mut cluster, &desired, &touched, cx);
    check(&cluster, &desired, &old.desired, &touched, cx.settings).map_err(Rejection::Internal)?;
    let batch = rows::diff(&old.cluster, &cluster);
    let revision = cluster.meta.revision;
    let events = told_at(draft.events, revision);
    Ok(Step {
        state: State { cluster, desired },
        batch,
        changes: draft.changes,
        events,
        outcome: draft.outcome,
        touched,
    })
}

fn told_at(mut events: Vec<NewEvent>, revision: u64) -> Vec<NewEvent> {
    events.iter_mut().for_each(|event| event.revision = revision);
    events
}

fn unchanged(old: &State, draft: Draft) -> Step {
    Step {
        state: old.clone(),
        batch: rows::Batch::default(),
        changes: Vec::new(),
        // An order that changes nothing here, but somewhere else.
        events: told_at(draft.events, old.cluster.meta.revision),
        outcome: draft.outcome,
        touched: BTreeSet::new(),
    }
}

/// Nodes whose desired state is not what their record says: it was changed by this transition, or by new settings.
fn out_of_record(cluster: &Cluster, desired: &Desired) -> Vec<Name> {
    let nodes = cluster.nodes.iter();
    nodes
        .filter(|(name, record)| record.digest != digest(desired, name))
        .map(|(name, _)| name.clone())
        .collect()
}

pub(super) fn digest(desired: &Desired, node: &Name) -> String {
    let digest = desired.node(node).map(|n| n.digest).unwrap_or_default();
    hex::encode(digest.to_vec())
}

/// Gives every slice that changed its new revision, and every new deployment its position.
fn mark(old: &Cluster, cluster: &mut Cluster, position: Position) {
    let revision = cluster.meta.revision;
    for (name, slice) in &mut cluster.slices {
        let before = old.slices.get(name);
        if before == Some(slice) {
            continue;
        }
        let slice = Arc::make_mut(slice);
        slice.revision = revision;
        if let Some(number) = slice.deployed
            && !before.is_some_and(|b| b.revisions.contains_key(&number))
            && let Some(frozen) = slice.revisions.get_mut(&number)
        {
            Arc::make_mut(frozen).position = position;
        }
    }
}
