//! What follows from every transition alike: the nodes' new desired state and its generation, departures, the check, the rows.

use std::{collections::BTreeSet, sync::Arc};

use trunkline_proto::Name;

use super::{
    Context, NewEvent, Rejection, depart,
    state::{Draft, State, Step},
};
use crate::{
    check::check_change,
    compile::Desired,
    model::{Cluster, Position, Slice, rows},
};

/// Finishes a transition from `old` to `cluster`, or finds that nothing changed.
pub(super) fn settle(old: &State, mut cluster: Cluster, draft: Draft, cx: &Context) -> Result<Step, Rejection> {
    let compile = || old.desired.next(&old.cluster, &cluster, cx.settings, cx.traceparent);
    let (mut desired, mut touched) = tracing::info_span!("compile").in_scope(compile);
    let recorded = old.cluster.nodes.differences(&cluster.nodes).map(|(name, _, _)| name);
    let suspects: BTreeSet<&Name> = recorded.chain(old.astray.iter()).collect();
    for node in suspects {
        if !touched.contains(node) && is_astray(&cluster, &desired, node) {
            touched.insert(node.clone());
            desired.all_changed(node);
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
            // Before this step, so by other settings or another version than when the state was stored.
            if old.astray.contains(node) {
                record.unasked = position;
            }
        }
    }
    mark(&old.cluster, &mut cluster, position);
    depart::begin(old, &mut cluster, &desired, &touched, cx);
    let before = (&old.cluster, &old.index);
    let index = check_change(before, &cluster, &desired, &old.desired, &touched, cx.settings);
    let index = index.map_err(Rejection::Internal)?;
    let holdings = old.holdings.follow(&old.cluster, &cluster);
    let batch = rows::diff(&old.cluster, &cluster);
    let revision = cluster.meta.revision;
    let events = told_at(draft.events, revision);
    Ok(Step {
        state: State {
            cluster,
            desired,
            // Each of them was touched.
            astray: Arc::default(),
            index,
            holdings,
        },
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

/// True when a node's desired state is not what its record says: it was changed by this transition, or by new settings.
pub(super) fn is_astray(cluster: &Cluster, desired: &Desired, node: &Name) -> bool {
    let record = cluster.nodes.get(node);
    record.is_some_and(|record| record.digest != digest(desired, node))
}

pub(super) fn digest(desired: &Desired, node: &Name) -> String {
    let digest = desired.node(node).map(|n| n.digest).unwrap_or_default();
    hex::encode(digest.to_vec())
}

/// Gives every slice that changed its new revision, and every new deployment its position.
fn mark(old: &Cluster, cluster: &mut Cluster, position: Position) {
    let revision = cluster.meta.revision;
    let changed = old
        .slices
        .differences(&cluster.slices)
        .filter(|(_, was, is)| is.is_some() && was != is);
    let changed: Vec<(Name, Option<Arc<Slice>>)> = changed.map(|(name, was, _)| (name.clone(), was.cloned())).collect();
    for (name, before) in changed {
        let Some(slice) = cluster.slices.get_mut(&name) else {
            continue;
        };
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
