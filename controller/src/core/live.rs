//! What is known only while the controller runs: sessions of nodes, and what they report. Not stored: nodes say it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use prost::Message;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_proto::{
    Digest, Name,
    resource::{Envelope, Key, Observation, Spec, State as ResourceState},
    wire,
};

use crate::{
    compile::NodeDesired,
    converge::{NodeView, Refusal, Views},
    model::{Position, Timestamp},
    transition::{NewEvent, State},
};

/// Largest encoded facts of one observation that are kept; a list of all VLANs is about 8 KB.
const FACTS_BYTES: usize = 32 << 10;

/// Most journal entries that one report may cause: a node that fails altogether is one story, not a thousand.
const EVENTS_PER_REPORT: usize = 20;

/// One session among all since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionId(u64);

/// What a session begins with.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// From the certificate.
    pub node: Name,
    /// Tells a restart from a second node.
    pub instance: String,
    /// Details for people.
    pub info: SessionInfo,
    /// What the node says it holds.
    pub position: Position,
    /// The same.
    pub digest: Digest,
    /// After this long without a word an earlier session of another instance counts as dead.
    pub patience: Duration,
    /// Cancelled when a newer session takes over.
    pub cancel: CancellationToken,
}

/// What people see of a session, also after it ended.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// As the node says.
    pub facts: wire::NodeFacts,
    /// End of its certificate.
    pub certificate_expires: SystemTime,
}

/// Another process with the same certificate is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken;

#[derive(Debug)]
struct Session {
    id: SessionId,
    instance: String,
    cancel: CancellationToken,
    heard: Instant,
    held: Digest,
}

/// What came of a report.
#[derive(Debug, Default)]
pub struct Observed {
    /// Items about nothing that the node should have.
    pub unknown: u64,
    /// For the journal.
    pub events: Vec<NewEvent>,
}

/// Sessions and reports.
#[derive(Debug, Default)]
pub struct Live {
    views: Views,
    infos: BTreeMap<Name, SessionInfo>,
    sessions: BTreeMap<Name, Session>,
    last_id: u64,
}

impl Live {
    /// A session begins, and ends an earlier one of the same process.
    ///
    /// # Errors
    /// Another process with the same identity is alive.
    pub fn begin(&mut self, new: NewSession, now: Timestamp) -> Result<SessionId, Taken> {
        let NewSession {
            node,
            instance,
            info,
            position,
            digest,
            patience,
            cancel,
        } = new;
        if let Some(other) = self.sessions.get(&node) {
            if other.instance != instance && other.heard.elapsed() < patience {
                return Err(Taken);
            }
            other.cancel.cancel();
        }
        self.last_id += 1;
        let id = SessionId(self.last_id);
        self.sessions.insert(
            node.clone(),
            Session {
                id,
                instance,
                cancel,
                heard: Instant::now(),
                held: digest,
            },
        );
        self.infos.insert(node.clone(), info);
        // A new session reports everything again: what an earlier one said is no longer known to be so.
        let view = NodeView {
            connected: true,
            last_seen: Some(now),
            acked: position,
            ..NodeView::default()
        };
        self.views.insert(node, view);
        Ok(id)
    }

    /// True while this is the node's session.
    fn is_current(&self, node: &Name, id: SessionId) -> bool {
        self.sessions.get(node).is_some_and(|session| session.id == id)
    }

    /// The node lives.
    pub fn heard(&mut self, node: &Name, id: SessionId, now: Timestamp) {
        if let Some(session) = self.sessions.get_mut(node).filter(|session| session.id == id) {
            session.heard = Instant::now();
            if let Some(view) = self.views.get_mut(node) {
                view.last_seen = Some(now);
            }
        }
    }

    /// The session is over. False when another one had taken its place.
    pub fn end(&mut self, node: &Name, id: SessionId) -> bool {
        let current = self.is_current(node, id);
        if current {
            self.sessions.remove(node);
            if let Some(view) = self.views.get_mut(node) {
                view.connected = false;
                view.complete = false;
            }
        }
        current
    }

    /// The node holds this now, and refused that of it. `desired` is what it should hold at this moment.
    pub fn holds(
        &mut self,
        node: &Name,
        id: SessionId,
        held: (Position, Digest),
        refused: &[(Key, Refusal)],
        desired: &NodeDesired,
    ) {
        let Some(session) = self.sessions.get_mut(node).filter(|session| session.id == id) else {
            return;
        };
        session.held = held.1;
        let Some(view) = self.views.get_mut(node) else { return };
        view.acked = held.0;
        view.refused.extend(refused.iter().cloned());
        settle(view, held.1, desired);
    }

    /// Takes a report in. Only what is about something that the node should have is kept, so a node cannot fill the memory.
    pub fn observe(
        &mut self,
        node: &Name,
        id: SessionId,
        actor: &str,
        items: Vec<Observation>,
        desired: &NodeDesired,
    ) -> Observed {
        let mut observed = Observed::default();
        if !self.is_current(node, id) {
            return observed;
        }
        let Some(view) = self.views.get_mut(node) else {
            return observed;
        };
        for mut item in items {
            let wanted = desired.resources.get(&item.key);
            if wanted.is_none() && !view.observations.contains_key(&item.key) {
                observed.unknown += 1;
                continue;
            }
            let report = wire::Observation {
                facts: item.facts.clone(),
                ..wire::Observation::default()
            };
            if report.encoded_len() > FACTS_BYTES {
                item.facts = None;
            }
            if let Some(wanted) = wanted.filter(|wanted| wanted.hash == item.hash)
                && observed.events.len() < EVENTS_PER_REPORT
            {
                let before = view.observations.get(&item.key).map(|before| before.state);
                observed.events.extend(event(node, actor, before, &item, wanted));
            }
            view.observations.insert(item.key.clone(), item);
        }
        observed
    }

    /// Everything said so far, and silence, is of when this was desired.
    pub fn looked(&mut self, node: &Name, id: SessionId, position: Position) {
        if self.is_current(node, id)
            && let Some(view) = self.views.get_mut(node)
        {
            view.seen = view.seen.max(position);
        }
    }

    /// The full report after the session's start is in.
    pub fn complete(&mut self, node: &Name, id: SessionId) {
        if self.is_current(node, id)
            && let Some(view) = self.views.get_mut(node)
        {
            view.complete = true;
        }
    }

    /// The node read back that nothing is left of what it should not have.
    pub fn clean(&mut self, node: &Name, id: SessionId, position: Position) {
        if self.is_current(node, id)
            && let Some(view) = self.views.get_mut(node)
        {
            view.clean = view.clean.max(position);
        }
    }

    /// A commit changed what these nodes should hold.
    pub(super) fn follow(&mut self, state: &State, touched: &BTreeSet<Name>) {
        for node in touched {
            let (Some(view), Some(session)) = (self.views.get_mut(node), self.sessions.get(node)) else {
                continue;
            };
            settle(view, session.held, &state.node_desired(node));
        }
        let known = |node: &Name| state.cluster.nodes.contains_key(node) || self.sessions.contains_key(node);
        self.views.retain(|node, _| known(node));
        self.infos.retain(|node, _| known(node));
    }

    /// What nodes report.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// Nodes with a session.
    pub fn connected(&self) -> BTreeSet<Name> {
        self.sessions.keys().cloned().collect()
    }

    /// Of the node's last session.
    pub fn info(&self, node: &Name) -> Option<&SessionInfo> {
        self.infos.get(node)
    }
}

/// After a change of what is held or of what should be: are they the same? Then what was said of things that are gone is forgotten; not
/// before, because a thing may come back before the node heard that it should go, and then the node says nothing new of it.
fn settle(view: &mut NodeView, held: Digest, desired: &NodeDesired) {
    view.in_step = held == desired.digest && view.acked >= desired.changed;
    if view.in_step {
        view.observations.retain(|key, _| desired.resources.contains_key(key));
    }
    view.refused.retain(|key, refusal| {
        desired
            .resources
            .get(key)
            .is_some_and(|wanted| wanted.hash == refusal.hash)
    });
}

fn event(
    node: &Name,
    actor: &str,
    before: Option<ResourceState>,
    item: &Observation,
    wanted: &Envelope,
) -> Option<NewEvent> {
    let failed = item.state == ResourceState::Failed;
    let (kind, message) = match (before == Some(ResourceState::Failed), failed) {
        (false, true) => ("resource.failed", format!("{} on {node}: {}", item.key, item.reason)),
        (true, false) => (
            "resource.recovered",
            format!("{} on {node} is {}", item.key, item.state),
        ),
        (true, true) | (false, false) => return None,
    };
    let spec = wanted.open().ok();
    let slice = spec.as_ref().and_then(|spec| match spec {
        Spec::Port(port) => port.owner.slice.parse().ok(),
        Spec::Trunk(_) | Spec::Gateway(_) | Spec::Dhcp(_) | Spec::Nat(_) | Spec::Flows(_) | Spec::Probe(_) => None,
    });
    let vlan = spec.and_then(|spec| spec.vlan());
    Some(NewEvent {
        kind,
        actor: actor.to_owned(),
        slice,
        node: Some(node.clone()),
        vlan,
        revision: 0,
        message,
    })
}
