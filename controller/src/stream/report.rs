//! Takes a node's reports in, within bounds. What cannot be is left out and counted by its reason; the rest is taken.

use std::sync::Arc;

use trunkline_proto::{
    Name,
    resource::{Key, Observation, Spec},
    wire,
};

use super::sane;
use crate::{
    compile::NodeDesired,
    core::{self, Core, Leftovers, Live, SessionId, Story, now},
    leftovers::{self, plain},
    model::{Position, Timestamp},
    transition::{Intent, NewEvent, State},
};

/// Most items of one report that are looked at.
const ITEMS: usize = 20_000;

/// Most repairs of one report that are looked at.
const REPAIRS: usize = 1000;

/// A repair that old is told with its time.
const LATE_MILLIS: i64 = 60_000;

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
    let wire::Report {
        items,
        complete,
        clean_term,
        clean_generation,
        seen_term,
        seen_generation,
        repairs,
        orphans,
        held_removals,
    } = report;
    let items = from.items(items);
    let seen = Position {
        term: seen_term,
        generation: seen_generation,
    };
    let (state, events) = {
        // Live before state, as everywhere; the state is a pointer that is read.
        let mut live = from.core.live();
        let state = from.core.state();
        let desired = state.node_desired(from.node);
        // What is repaired is judged by what was known before this report.
        let mut events = from.repairs(&mut live, &desired, repairs);
        let observed = live.observe(from.node, from.id, from.actor, items, &desired);
        from.core.metrics().drop_items("unknown_key", observed.unknown);
        events.extend(observed.events);
        // It cannot have looked for what it was never told.
        live.looked(from.node, from.id, seen.min(from.held));
        if complete {
            live.complete(from.node, from.id);
        }
        let said = from.leftovers(orphans, held_removals);
        events.extend(live.leftovers(from.node, from.id, from.actor, said));
        (state, events)
    };
    let events = events.into_iter().map(|event| placed(event, &state)).collect();
    if seen > from.held {
        from.core.metrics().drop_items("seen_ahead", 1);
    }
    if let Err(error) = from.core.record(events).await {
        tracing::warn!(%error, "the journal could not be written");
    }
    let clean = Position {
        term: clean_term,
        generation: clean_generation,
    };
    if !clean.is_start() {
        take_clean(&from, clean).await;
    }
    from.core.touch_status(from.node);
}

impl Reporter<'_> {
    fn items(&self, mut items: Vec<wire::Observation>) -> Vec<Observation> {
        let metrics = self.core.metrics();
        metrics.drop_items("too_many", count(items.len().saturating_sub(ITEMS)));
        items.truncate(ITEMS);
        let sent = items.len();
        let mut items: Vec<Observation> = items
            .into_iter()
            .filter_map(|item| Observation::try_from(item).ok())
            .collect();
        let read = items.len();
        metrics.drop_items("invalid", count(sent - read));
        let now = now();
        items.retain(|item| item.facts.as_ref().is_none_or(|facts| sane::facts(facts, now)));
        metrics.drop_items("impossible", count(read - items.len()));
        items
    }

    /// What the node put right, for the journal.
    fn repairs(&self, live: &mut Live, desired: &NodeDesired, mut repairs: Vec<wire::Repair>) -> Vec<NewEvent> {
        let over = count(repairs.len().saturating_sub(REPAIRS));
        live.leave_out(self.node, Story::Repairs, over);
        repairs.truncate(REPAIRS);
        let (now, mut wrong, mut unknown) = (now(), 0, 0);
        let mut events = Vec::new();
        for repair in repairs {
            let at = sane::repair(&repair, now);
            let key = repair.key.and_then(|key| Key::try_from(key).ok());
            let (Some(at), Some(key)) = (at, key) else {
                wrong += 1;
                continue;
            };
            if !live.knows(self.node, &key, desired) {
                unknown += 1;
                continue;
            }
            if live.admits(self.node, Story::Repairs) {
                events.push(self.repaired(&key, &repair.what, at, now, desired));
            }
        }
        let metrics = self.core.metrics();
        metrics.drop_items("too_many", over);
        metrics.drop_items("repair", wrong);
        metrics.drop_items("unknown_key", unknown);
        events
    }

    fn repaired(&self, key: &Key, what: &str, at: Timestamp, now: Timestamp, desired: &NodeDesired) -> NewEvent {
        let spec = desired.resources.get(key).and_then(|envelope| envelope.open().ok());
        let when = if now.as_millis().saturating_sub(at.as_millis()).abs() > LATE_MILLIS {
            format!(" (at {at}, by its own clock)")
        } else {
            String::new()
        };
        NewEvent {
            kind: "drift.repaired",
            actor: self.actor.to_owned(),
            slice: spec.as_ref().and_then(core::owner),
            node: Some(self.node.clone()),
            vlan: spec.as_ref().and_then(Spec::vlan),
            revision: 0,
            message: format!("{} put right {key}: {}{when}", self.node, plain(what)),
        }
    }

    fn leftovers(&self, orphans: Option<wire::Orphans>, held: Option<wire::HeldRemovals>) -> Leftovers {
        let mut said = Leftovers::default();
        let mut left = Vec::new();
        if let Some(orphans) = orphans {
            let (kept, more) = leftovers::orphans(orphans, now());
            said.orphans = Some(kept);
            left.extend(more);
        }
        if let Some(held) = held {
            let (kept, more) = leftovers::held(held, self.held);
            said.held = Some(kept);
            left.extend(more);
        }
        for (reason, count) in left {
            self.core.metrics().drop_items(reason, count);
        }
        said
    }
}

/// What serves one VLAN is the matter of the slice whose link has it.
fn placed(event: NewEvent, state: &State) -> NewEvent {
    let slice = match (&event.slice, event.vlan) {
        (None, Some(vlan)) => state.cluster.slice_on(vlan).cloned(),
        _ => return event,
    };
    NewEvent { slice, ..event }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
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
