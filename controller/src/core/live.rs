//! What is known only while the controller runs: sessions of nodes, and what they report. Not stored: nodes say it again.

mod leftovers;
mod repairs;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use prost::Message;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use trunkline_proto::{
    Digest, Name, PortName, VlanId,
    resource::{Envelope, Facts, Key, Kind, Observation, Probe, Spec, State as ResourceState},
    wire,
};

pub use leftovers::Leftovers;
use leftovers::Told;
use repairs::Heard;

use super::quota::{Quotas, Story};
use crate::{
    compile::NodeDesired,
    converge::{NodeView, Refusal, Views},
    leftovers::Word,
    model::{NodeRole, Position, Timestamp},
    transition::{NewEvent, State},
};

/// Largest encoded facts of one observation that are kept; a list of all VLANs is about 8 KB. Those of a probe are bounded by what the
/// node was asked: one path for each of its peers, which is 17 KB for 241 of them.
const FACTS_BYTES: usize = 32 << 10;

/// The same for what is about VLAN 400, which the whole fleet shares: thousands of leases, hundreds of peers.
const SHARED_FACTS_BYTES: usize = 512 << 10;

/// After this long without another attempt the next one is news again.
const SPELL: Duration = Duration::from_secs(600);

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
    /// Takes an operator's word for removals that the node holds back.
    pub confirm: mpsc::Sender<Word>,
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
pub struct Taken {
    /// It is the first such attempt for a while.
    pub news: bool,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    instance: String,
    cancel: CancellationToken,
    confirm: mpsc::Sender<Word>,
    /// Its node is known for good, and nobody was told that it is gone.
    joined: bool,
    heard: Instant,
    held: Digest,
    /// When another process was turned away last.
    duplicate: Option<Instant>,
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
    quotas: Quotas,
    told: BTreeMap<Name, Told>,
    repairs: BTreeMap<Name, Heard>,
    last_id: u64,
    /// Names of all sessions, for as long as none comes or goes.
    connected: Option<Arc<BTreeSet<Name>>>,
    /// Nodes whose session has ended since the last commit.
    ended: BTreeSet<Name>,
    /// Nodes that held removals back when they last spoke of it.
    held_by: BTreeSet<Name>,
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
            confirm,
        } = new;
        if let Some(other) = self.sessions.get_mut(&node) {
            if other.instance != instance && other.heard.elapsed() < patience {
                let before = other.duplicate.replace(Instant::now());
                return Err(Taken {
                    news: before.is_none_or(|before| before.elapsed() >= SPELL),
                });
            }
            other.cancel.cancel();
        }
        self.connected = None;
        self.held_by.remove(&node);
        self.last_id += 1;
        let id = SessionId(self.last_id);
        self.sessions.insert(
            node.clone(),
            Session {
                id,
                instance,
                cancel,
                confirm,
                joined: false,
                heard: Instant::now(),
                held: digest,
                duplicate: None,
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
            self.connected = None;
            self.sessions.remove(node);
            self.ended.insert(node.clone());
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
            let wanted = wanted.filter(|wanted| wanted.hash == item.hash);
            bound(&mut item, wanted.map(AsRef::as_ref));
            if let Some(wanted) = wanted {
                let before = view.observations.get(&item.key).map(|before| before.state);
                if changed(before, item.state)
                    && self.quotas.admits(node, Story::States, Some(&item.key), Instant::now())
                {
                    observed.events.extend(event(node, actor, before, &item, wanted));
                }
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

    /// What of this, said by a node of one of its resources or of itself, may go into the journal.
    pub fn admits(&mut self, node: &Name, story: Story, about: Option<&Key>) -> bool {
        self.quotas.admits(node, story, about, Instant::now())
    }

    /// More of it came than is looked at.
    pub fn leave_out(&mut self, node: &Name, story: Story, count: u64) {
        if count > 0 {
            self.quotas.leave_out(node, story, count, Instant::now());
        }
    }

    /// What was left out of the journal and is to be told now.
    pub(super) fn left_out(&mut self) -> Vec<NewEvent> {
        self.quotas.over(Instant::now())
    }

    /// True when the node should have this, or had it not long ago.
    pub fn knows(&self, node: &Name, key: &Key, desired: &NodeDesired) -> bool {
        let seen = |view: &NodeView| view.observations.contains_key(key);
        desired.resources.contains_key(key) || self.views.get(node).is_some_and(seen)
    }

    /// A commit changed what these nodes should hold.
    pub(super) fn follow(&mut self, old: &State, state: &State, touched: &BTreeSet<Name>) {
        for node in touched {
            let (Some(view), Some(session)) = (self.views.get_mut(node), self.sessions.get(node)) else {
                continue;
            };
            settle(view, session.held, &state.node_desired(node));
        }
        let records = old.cluster.nodes.differences(&state.cluster.nodes);
        let left = records.filter(|(node, was, _)| was.is_some() && stays(state, node).is_none());
        for (node, _, record) in left {
            let session = self.sessions.get(node);
            // It was let in by the state before this one, and joins anew by this one.
            if let Some(session) = session.filter(|session| session.joined) {
                session.cancel.cancel();
            }
            if record.is_none() {
                self.ended.insert(node.clone());
            }
        }
        // One that was not let in, or is not known any more.
        for node in std::mem::take(&mut self.ended) {
            if !state.cluster.nodes.contains_key(&node) && !self.sessions.contains_key(&node) {
                self.forget(&node);
            }
        }
    }

    /// Nothing is left of a node that is not known and has no session.
    fn forget(&mut self, node: &Name) {
        self.views.remove(node);
        self.infos.remove(node);
        self.told.remove(node);
        self.repairs.remove(node);
        self.held_by.remove(node);
    }

    /// What nodes report.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// Nodes with a session.
    pub fn connected(&mut self) -> Arc<BTreeSet<Name>> {
        let sessions = &self.sessions;
        let all = || Arc::new(sessions.keys().cloned().collect());
        self.connected.get_or_insert_with(all).clone()
    }

    /// How many there are.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Marks the session as one of a node that `state`, the present one, knows in this role and not as gone: then its coming changes nothing
    /// that is durable. A commit that makes it unknown or gone ends the session.
    pub fn joins(&mut self, node: &Name, id: SessionId, role: NodeRole, state: &State) -> bool {
        let known = stays(state, node).is_some_and(|known| known == role);
        match self.sessions.get_mut(node).filter(|session| session.id == id) {
            Some(session) => {
                session.joined = known;
                known
            }
            // A newer one has taken over, and joins by itself.
            None => true,
        }
    }

    /// Of the node's last session.
    pub fn info(&self, node: &Name) -> Option<&SessionInfo> {
        self.infos.get(node)
    }
}

/// The role of a node that is known, and not as gone.
fn stays(state: &State, node: &Name) -> Option<NodeRole> {
    let record = state.cluster.nodes.get(node).filter(|record| record.gone.is_none())?;
    Some(record.role)
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

/// Leaves out what a node may not say, or not so much of. `wanted` is what it speaks of, when that is the present version.
fn bound(item: &mut Observation, wanted: Option<&Envelope>) {
    if item.facts.is_none() {
        return;
    }
    if let (Some(Facts::Probe(facts)), Some(Ok(Spec::Probe(probe)))) = (&mut item.facts, wanted.map(Envelope::open)) {
        let mut peers: BTreeSet<&str> = probe.peers.iter().map(Name::as_str).collect();
        facts.paths.retain(|path| peers.remove(path.peer.as_str()));
        return;
    }
    let facts = item.facts.take();
    let report = wire::Observation {
        facts,
        ..wire::Observation::default()
    };
    if report.encoded_len() <= most_facts(&item.key) {
        item.facts = report.facts;
    }
}

/// The slice that a resource says it is of. What serves a whole VLAN does not say.
pub fn owner(spec: &Spec) -> Option<Name> {
    match spec {
        Spec::Port(port) => port.owner.slice.parse().ok(),
        Spec::Trunk(_) | Spec::Gateway(_) | Spec::Dhcp(_) | Spec::Nat(_) | Spec::Flows(_) | Spec::Probe(_) => None,
    }
}

fn most_facts(key: &Key) -> usize {
    let shared = [
        (Kind::Dhcp, PortName::dhcp(VlanId::INTERNET).to_string()),
        (Kind::Probe, Probe::name_of(VlanId::INTERNET)),
    ];
    let is_shared = shared
        .iter()
        .any(|(kind, name)| key.kind == *kind && key.name.as_str() == name);
    if is_shared { SHARED_FACTS_BYTES } else { FACTS_BYTES }
}

/// It failed, or it no longer fails.
fn changed(before: Option<ResourceState>, now: ResourceState) -> bool {
    (before == Some(ResourceState::Failed)) != (now == ResourceState::Failed)
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
    let slice = spec.as_ref().and_then(owner);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use trunkline_proto::resource::{Probe, ProbeKey, Trunk};

    use super::*;
    use crate::testing::{World, name};

    fn session(node: &str) -> (NewSession, CancellationToken) {
        let cancel = CancellationToken::new();
        let session = NewSession {
            node: name(node),
            instance: "i".to_owned(),
            info: SessionInfo {
                facts: wire::NodeFacts::default(),
                certificate_expires: SystemTime::UNIX_EPOCH,
            },
            position: Position::default(),
            digest: Digest::default(),
            patience: Duration::from_secs(1),
            cancel: cancel.clone(),
            confirm: mpsc::channel(1).0,
        };
        (session, cancel)
    }

    #[test]
    fn a_commit_that_makes_a_node_unknown_or_gone_ends_the_session_that_it_came_with() {
        let known = World::new().state;
        let (mut removed, mut gone) = (known.clone(), known.clone());
        removed.cluster.nodes.remove(&name("w1"));
        gone.cluster.nodes.get_mut(&name("w1")).unwrap().gone = Some(Timestamp::default());
        let none = BTreeSet::new();
        for (next, ends) in [(&known, false), (&removed, true), (&gone, true)] {
            let (mut live, (new, cancel)) = (Live::default(), session("w1"));
            let id = live.begin(new, Timestamp::default()).unwrap();
            assert!(live.joins(&name("w1"), id, NodeRole::Worker, &known));
            live.follow(&known, next, &none);
            assert_eq!(cancel.is_cancelled(), ends);
        }
        // One that is not let in yet waits for the writer, and is not ended by what it did not build on.
        let (mut live, (new, cancel)) = (Live::default(), session("w9"));
        let id = live.begin(new, Timestamp::default()).unwrap();
        assert!(!live.joins(&name("w9"), id, NodeRole::Worker, &known));
        assert!(!live.joins(&name("w9"), id, NodeRole::Netnode, &known));
        live.follow(&known, &removed, &none);
        assert!(!cancel.is_cancelled());
        // Nothing is kept of it once it has left.
        live.end(&name("w9"), id);
        live.follow(&known, &removed, &none);
        assert!(live.views().iter().next().is_none() && live.info(&name("w9")).is_none());
    }

    fn probe(peers: usize) -> Envelope {
        let peer = |i| format!("worker-with-a-rather-long-n-{i:04}").parse().unwrap();
        let secret = [1; 32];
        let probe = Probe {
            vlan: trunkline_proto::VlanId::INTERNET,
            mtu: 1500,
            peers: (0..peers).map(peer).collect(),
            keys: vec![ProbeKey { id: 1, secret }],
        };
        Envelope::seal(&Spec::Probe(probe), "")
    }

    fn says(of: &Envelope, peers: impl IntoIterator<Item = String>) -> Observation {
        let path = |peer| wire::ProbePath {
            peer,
            largest: 1500,
            loss_permille: 1000,
            round_trip_us: u32::MAX,
            last_seen_ms: u64::MAX,
            largest_heard: 1500,
        };
        Observation {
            key: of.key.clone(),
            hash: of.hash,
            state: ResourceState::Ready,
            reason: String::new(),
            facts: Some(Facts::Probe(wire::ProbeFacts {
                paths: peers.into_iter().map(path).collect(),
                period_ms: 1000,
            })),
        }
    }

    fn peers(of: &Envelope) -> Vec<String> {
        match of.open() {
            Ok(Spec::Probe(probe)) => probe.peers.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn heard(item: &Observation) -> Vec<String> {
        match &item.facts {
            Some(Facts::Probe(facts)) => facts.paths.iter().map(|path| path.peer.clone()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_paths_of_however_many_peers_are_kept() {
        for count in [241, 2000] {
            let wanted = probe(count);
            let mut item = says(&wanted, peers(&wanted));
            bound(&mut item, Some(&wanted));
            assert_eq!(heard(&item).len(), count);
        }
    }

    #[test]
    fn a_path_from_a_stranger_or_told_twice_is_dropped() {
        let wanted = probe(2);
        let asked = peers(&wanted);
        let told = asked.iter().chain(&asked).cloned();
        let mut item = says(
            &wanted,
            ["stranger".to_owned(), "x".repeat(1 << 20)].into_iter().chain(told),
        );
        bound(&mut item, Some(&wanted));
        assert_eq!(heard(&item), asked);
    }

    #[test]
    fn facts_of_another_version_or_kind_are_kept_while_they_are_small() {
        let wanted = probe(2);
        let (few, many) = (peers(&wanted), (0..20_000).map(|i| format!("{i:032}")));
        let mut small = says(&wanted, few);
        bound(&mut small, None);
        assert_eq!(heard(&small).len(), 2);
        let mut large = says(&wanted, many.clone());
        bound(&mut large, None);
        assert_eq!(large.facts, None);
        let trunk = Envelope::seal(&Spec::Trunk(Trunk { vlans: [].into() }), "");
        let mut other = says(&wanted, many);
        bound(&mut other, Some(&trunk));
        assert_eq!(other.facts, None);
    }
}
