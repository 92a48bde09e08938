//! Takes a node's reports in, within bounds.

use std::sync::Arc;

use trunkline_proto::{Name, resource::Observation, wire};

use crate::{
    core::{Core, SessionId},
    model::Position,
    transition::Intent,
};

/// Most items of one report that are looked at.
const ITEMS: usize = 20_000;

/// Whose report it is.
pub(super) struct Reporter<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) node: &'a Name,
    pub(super) id: SessionId,
    /// Its identity, `worker/w1`.
    pub(super) actor: &'a str,
    /// What it acknowledged last.
    pub(super) held: Position,
}

pub(super) async fn take(from: Reporter<'_>, report: wire::Report) {
    let Reporter {
        core,
        node,
        id,
        actor,
        held,
    } = from;
    let wire::Report {
        mut items,
        complete,
        clean_term,
        clean_generation,
        seen_term,
        seen_generation,
        repairs: _,
        orphans: _,
        held_removals: _,
    } = report;
    let seen = Position {
        term: seen_term,
        generation: seen_generation,
    };
    let metrics = core.metrics();
    metrics.drop_items(
        "too_many",
        u64::try_from(items.len().saturating_sub(ITEMS)).unwrap_or(u64::MAX),
    );
    items.truncate(ITEMS);
    let sent = items.len();
    let items: Vec<Observation> = items
        .into_iter()
        .filter_map(|item| Observation::try_from(item).ok())
        .collect();
    metrics.drop_items("invalid", u64::try_from(sent - items.len()).unwrap_or(u64::MAX));
    let observed = {
        // Live before state, as everywhere; the state is a pointer that is read.
        let mut live = core.live();
        let observed = live.observe(node, id, actor, items, &core.state().node_desired(node));
        // It cannot have looked for what it was never told.
        live.looked(node, id, seen.min(held));
        if complete {
            live.complete(node, id);
        }
        observed
    };
    metrics.drop_items("unknown_key", observed.unknown);
    if let Err(error) = core.record(observed.events).await {
        tracing::warn!(%error, "the journal could not be written");
    }
    let clean = Position {
        term: clean_term,
        generation: clean_generation,
    };
    if clean != Position::default() {
        take_clean(&from, clean).await;
    }
    core.touch_status();
}

async fn take_clean(from: &Reporter<'_>, clean: Position) {
    let Reporter {
        core,
        node,
        id,
        actor,
        held,
    } = *from;
    if clean > held {
        // It cannot have cleaned up after what it was never told.
        core.metrics().drop_items("clean_ahead", 1);
        return;
    }
    core.live().clean(node, id, clean);
    if !core.state().cluster.awaits(node) {
        return;
    }
    let intent = Intent::NodeClean {
        name: node.clone(),
        term: clean.term,
        generation: clean.generation,
    };
    if let Err(error) = core.system(intent, actor).await {
        tracing::warn!(%error, "what the node no longer has could not be recorded");
    }
}
