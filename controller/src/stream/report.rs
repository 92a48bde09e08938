//! Takes a node's reports in, within bounds. What cannot be is left out and counted by its reason; the rest is taken.

use std::sync::Arc;

use trunkline_proto::{
    Name,
    resource::{Key, Observation, Spec, State as Seen},
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

/// Why nothing is known of a resource whose facts cannot be.
const FAULT: &str = "the node reports a value that cannot be: its program is at fault; look at its log, and upgrade it";

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

/// Answers whether what the node did is in the journal.
pub(super) async fn take(from: Reporter<'_>, report: wire::Report) -> bool {
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
        // The session's.
        receipt: _,
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
        let held_said = held_removals.is_some();
        let said = from.leftovers(orphans, held_removals);
        events.extend(live.leftovers(from.node, from.id, from.actor, said));
        if held_said {
            from.core.metrics().of_holding(live.holding());
        }
        (state, events)
    };
    let events = events.into_iter().map(|event| placed(event, &state)).collect();
    if seen > from.held {
        from.core.metrics().drop_items("seen_ahead", 1);
    }
    let recorded = from.core.record(events).await;
    if let Err(error) = &recorded {
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
    recorded.is_ok()
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
        metrics.drop_items("invalid", count(sent - items.len()));
        let now = now();
        for item in &mut items {
            let (reason, count) = match sane::observation(item, now) {
                Ok(left_out) => left_out,
                Err(reason) => {
                    // What it said before is not true of now, and it has looked: nothing is known.
                    (item.state, item.facts) = (Seen::Unknown, None);
                    item.reason = FAULT.to_owned();
                    (reason, 1)
                }
            };
            metrics.drop_items(reason, count);
        }
        items
    }

    /// What the node put right, for the journal.
    fn repairs(&self, live: &mut Live, desired: &NodeDesired, mut repairs: Vec<wire::Repair>) -> Vec<NewEvent> {
        let over = count(repairs.len().saturating_sub(REPAIRS));
        live.leave_out(self.node, Story::Repairs, over);
        repairs.truncate(REPAIRS);
        let (now, mut wrong, mut unknown, mut late) = (now(), 0, 0, 0);
        let mut events = Vec::new();
        for mut repair in repairs {
            let key = repair.key.take().and_then(|key| Key::try_from(key).ok());
            let (true, Some(key)) = (sane::words(&repair.what), key) else {
                wrong += 1;
                continue;
            };
            let at = sane::time(repair.at, now).unwrap_or_else(|| {
                late += 1;
                now
            });
            if !live.knows(self.node, &key, desired) {
                unknown += 1;
                continue;
            }
            // It is kept by the node until it knows that we have it, and told again after a session that ended before.
            if !live.is_new(self.node, &key, &repair) {
                continue;
            }
            if live.admits(self.node, Story::Repairs, Some(&key)) {
                events.push(self.repaired(&key, &repair.what, at, now, desired));
            }
        }
        let metrics = self.core.metrics();
        metrics.drop_items("too_many", over);
        metrics.drop_items("repair", wrong);
        metrics.drop_items(sane::CLOCK, late);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{sync::atomic::Ordering, time::Duration};

    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;
    use trunkline_proto::{
        Digest, Hash,
        resource::{Facts, Kind},
    };

    use super::*;
    use crate::{
        core::{NewSession, SessionInfo},
        model::NodeRole,
        testing::{name, store},
    };

    fn session(core: &Core) -> SessionId {
        let new = NewSession {
            node: name("w1"),
            instance: "i".into(),
            info: SessionInfo {
                facts: wire::NodeFacts::default(),
                certificate_expires: std::time::SystemTime::now(),
            },
            position: Position::default(),
            digest: Digest::default(),
            patience: Duration::from_secs(30),
            cancel: CancellationToken::new(),
            confirm: mpsc::channel(1).0,
        };
        core.live().begin(new, now()).unwrap()
    }

    fn reporter<'a>(core: &'a Arc<Core>, node: &'a Name, id: SessionId) -> Reporter<'a> {
        Reporter {
            core,
            node,
            id,
            actor: "worker/w1",
            held: Position::default(),
        }
    }

    fn leftover(name: &str) -> wire::Report {
        let orphan = wire::Orphan {
            kind: "tap".into(),
            name: name.into(),
            since: None,
        };
        wire::Report {
            orphans: Some(wire::Orphans { orphans: vec![orphan] }),
            ..wire::Report::default()
        }
    }

    #[tokio::test]
    async fn what_the_journal_could_not_take_is_not_said_to_be_taken() {
        let ((core, disk), w1) = (store::core().await, name("w1"));
        let joined = Intent::NodeJoined {
            name: w1.clone(),
            role: NodeRole::Worker,
        };
        core.system(joined, "worker/w1").await.unwrap();
        let id = session(&core);
        assert!(take(reporter(&core, &w1, id), leftover("tap_1001_eth1")).await);
        disk.broken.store(true, Ordering::Relaxed);
        assert!(!take(reporter(&core, &w1, id), leftover("tap_1002_eth1")).await);
    }

    #[tokio::test]
    async fn an_observation_that_cannot_be_says_that_nothing_is_known_instead_of_leaving_an_older_one() {
        let ((core, _), w1) = (store::core().await, name("w1"));
        let id = session(&core);
        let port = wire::PortFacts {
            ofport: -7,
            ..wire::PortFacts::default()
        };
        let seen = Observation {
            key: Key {
                kind: Kind::Port,
                name: "tap_1001_eth1".parse().unwrap(),
            },
            hash: Hash::of(b"it"),
            state: Seen::Ready,
            reason: String::new(),
            facts: Some(Facts::Port(port)),
        };
        let items = reporter(&core, &w1, id).items(vec![wire::Observation::from(&seen)]);
        let unknown = Observation {
            state: Seen::Unknown,
            reason: FAULT.into(),
            facts: None,
            ..seen
        };
        assert_eq!(items, [unknown]);
    }
}
