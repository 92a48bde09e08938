//! What was seen, and what of it the controller is still to be told.
//!
//! The board keeps the newest observation of each resource, so that a slow controller costs nothing but its own delay. After Hello
//! everything is told, ending with a mark; from then on only what changed: a state at once, a counter at most every ten seconds.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use prost::Message;
use tokio::{sync::Notify, time::Instant};
use trunkline_proto::{
    resource::{Facts, Key, Observation},
    wire,
};

use crate::{
    inbox::Position,
    metrics::{Counts, NodeMetrics},
    node::Repair,
    orphans::{Orphan, Thing, fingerprint},
};

/// How often counters alone may be told.
pub const COUNTERS_EVERY: Duration = Duration::from_secs(10);
/// Most items in one message: with full reasons still well under a megabyte.
const BATCH: usize = 400;
/// A message is full beyond this, however few items it holds: a DHCP server's leases can be thousands.
const BATCH_BYTES: usize = 512 * 1024;
/// Most repairs that wait for a controller. When there are more the oldest go: an operator asks for what happened lately.
const REPAIRS: usize = 1000;
/// Most orphans that are named.
const NAMED: usize = 5000;

/// The newest observations, shared by the reconcile loop (which writes) and the session (which takes what is due).
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    changed: Notify,
    metrics: NodeMetrics,
}

/// When there is something to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Now.
    Now,
    /// Counters have changed; not before this.
    At(Instant),
    /// Nothing, until something changes.
    Nothing,
}

#[derive(Debug, Default)]
struct State {
    seen: BTreeMap<Key, Observation>,
    /// How many of each kind are in each state.
    counts: Counts,
    /// True once the host has been looked at, or there is nothing to look at: a full report would be empty before.
    looked: bool,
    clean: Position,
    /// What was desired when the host was last looked at.
    looked_for: Position,
    /// What this session was not told yet.
    full: bool,
    urgent: BTreeSet<Key>,
    counters: BTreeSet<Key>,
    counters_told: Option<Instant>,
    clean_due: bool,
    looked_due: bool,
    /// What the controller gave since the host was last looked at for it, and with which desired state.
    given: BTreeMap<Key, Position>,
    /// Those that the controller has not said that it has taken, oldest first.
    repairs: VecDeque<Untaken>,
    /// Number of the last report that had some.
    receipt: u64,
    orphans: Vec<Orphan>,
    orphans_due: bool,
    /// The desired state that is held, and what was removed from it and waits for an operator's word.
    position: Position,
    waiting: wire::HeldRemovals,
    /// Leftovers that wait for one.
    strays: BTreeSet<Thing>,
    /// Both, as the controller is told of them.
    held: wire::HeldRemovals,
    held_due: bool,
    /// What of the leftovers this session was told, and what of it an operator has let go.
    strays_told: BTreeSet<Thing>,
    let_go: BTreeSet<Thing>,
}

/// A repair that the controller may not have heard of.
#[derive(Debug)]
struct Untaken {
    repair: wire::Repair,
    /// The report that told this session of it; 0: none yet.
    told: u64,
}

impl Board {
    /// One that counts what it shows.
    pub(crate) fn counting(metrics: NodeMetrics) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }

    /// What a pass saw of everything there is. `position` is that of the desired state that it went by; `clean` says that nothing
    /// undesired was left.
    pub fn publish(&self, observations: Vec<Observation>, position: Position, clean: bool) {
        let mut state = self.lock();
        let keys: BTreeSet<&Key> = observations.iter().map(|o| &o.key).collect();
        // What is no longer desired is not told: that it is gone is what `clean` says.
        state.forget(|key| !keys.contains(key));
        state.urgent.retain(|key| keys.contains(key));
        state.counters.retain(|key| keys.contains(key));
        for observation in observations {
            state.put(observation);
        }
        state.tell_given(position);
        if clean && position != state.clean {
            state.clean = position;
            state.clean_due = true;
        }
        if position != state.looked_for {
            state.looked_for = position;
            state.looked_due = true;
        }
        state.looked = true;
        self.metrics.observed(&state.counts);
        drop(state);
        self.changed.notify_one();
    }

    /// What an update brought. It is told when the host has been looked at for it, also when nothing of it is new here: a resource that
    /// was taken away and given back before anybody looked is the same to us, and the controller knows nothing of it any more.
    pub fn given(&self, keys: impl IntoIterator<Item = Key>, position: Position) {
        self.lock().given.extend(keys.into_iter().map(|key| (key, position)));
    }

    /// Counters that were read again; of resources that are known only.
    pub fn refresh(&self, observations: Vec<Observation>) {
        let (mut state, mut moved) = (self.lock(), false);
        for observation in observations {
            // A version that was refused is not overwritten by what stays realised of the one before.
            if state
                .seen
                .get(&observation.key)
                .is_some_and(|seen| seen.hash == observation.hash)
            {
                moved |= state.put(observation);
            }
        }
        if moved {
            self.metrics.observed(&state.counts);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Nothing is known: nobody has looked for a long time. What was looked for, and what is clean, stays as it was. `still` is asked
    /// where nothing else can be told between its answer and ours: who has looked by then knows better.
    pub fn unknown(&self, observations: Vec<Observation>, still: impl FnOnce() -> bool) {
        let mut state = self.lock();
        if !still() {
            return;
        }
        for observation in observations {
            state.put(observation);
        }
        state.looked = true;
        self.metrics.observed(&state.counts);
        drop(state);
        self.changed.notify_one();
    }

    /// What was changed behind our back and is right again. Answers how many older ones nobody will hear of.
    pub fn repaired(&self, repairs: Vec<Repair>, at: SystemTime) -> usize {
        let mut state = self.lock();
        state.repairs.extend(repairs.into_iter().map(|repair| Untaken {
            repair: wire::Repair {
                key: Some((&repair.key).into()),
                what: crate::cut(repair.what, Observation::MAX_REASON),
                at: Some(at.into()),
            },
            told: 0,
        }));
        let over = state.repairs.len().saturating_sub(REPAIRS);
        // What was told and has no receipt yet is heard of all the same, unless the session breaks just then.
        let lost = state.repairs.drain(..over).filter(|repair| repair.told == 0).count();
        drop(state);
        self.changed.notify_one();
        lost
    }

    /// The controller has taken the reports up to this one.
    pub fn received(&self, receipt: u64) {
        let mut state = self.lock();
        let taken = |repair: &Untaken| repair.told != 0 && repair.told <= receipt;
        while state.repairs.front().is_some_and(taken) {
            state.repairs.pop_front();
        }
    }

    /// Leftovers that are there now. Answers how many removals wait for an operator's word, theirs and others.
    pub fn orphans(&self, mut orphans: Vec<Orphan>) -> usize {
        let held = orphans.iter().filter(|orphan| orphan.held);
        let strays = held.map(|orphan| orphan.thing.clone()).collect();
        orphans.truncate(NAMED);
        let mut state = self.lock();
        state.strays = strays;
        if state.orphans != orphans {
            (state.orphans, state.orphans_due) = (orphans, true);
        }
        self.hold(state)
    }

    /// What the inbox holds back now, at its position. Answers how many removals there are, leftovers' included.
    pub fn held_removals(&self, position: Position, waiting: wire::HeldRemovals) -> usize {
        let mut state = self.lock();
        (state.position, state.waiting) = (position, waiting);
        self.hold(state)
    }

    /// An operator's word for what this session was told of leftovers at just this position. Answers how many it lets go: none, when
    /// `leftovers` is the fingerprint of others.
    pub fn confirm(&self, position: Position, leftovers: &str) -> usize {
        let mut state = self.lock();
        if position != state.position || leftovers != fingerprint(&state.strays_told) {
            return 0;
        }
        // A second word before the next pass takes nothing back of the first: what was told stays told.
        let told = state.strays_told.clone();
        let count = told.len();
        state.let_go.extend(told);
        count
    }

    /// Leftovers that an operator has let go, once.
    pub fn let_go(&self) -> BTreeSet<Thing> {
        std::mem::take(&mut self.lock().let_go)
    }

    fn hold(&self, mut state: MutexGuard<'_, State>) -> usize {
        let strays: BTreeSet<Key> = state.strays.iter().filter_map(Thing::resource).collect();
        let total = u32::try_from(strays.len())
            .unwrap_or(u32::MAX)
            .saturating_add(state.waiting.total);
        let keys = state.waiting.keys.iter().cloned().chain(strays.iter().map(Into::into));
        let keys: Vec<_> = keys.take(NAMED).collect();
        // Nothing waits nowhere in particular, so that an empty list is told once.
        let Position { term, generation } = if keys.is_empty() {
            Position::default()
        } else {
            state.position
        };
        let held = wire::HeldRemovals {
            term,
            generation,
            keys,
            total,
            reservations: state.waiting.reservations,
            leftovers: fingerprint(&state.strays),
        };
        if state.held != held {
            (state.held, state.held_due) = (held, true);
        }
        let due = state.orphans_due || state.held_due;
        drop(state);
        if due {
            self.changed.notify_one();
        }
        usize::try_from(total).unwrap_or(usize::MAX)
    }

    /// What was looked for when nothing undesired was left last.
    pub(crate) fn clean(&self) -> Position {
        self.lock().clean
    }

    /// Nothing is desired and nothing was looked at: a full report may be empty.
    pub fn nothing_to_see(&self) {
        self.lock().looked = true;
        self.changed.notify_one();
    }

    /// A session begins: it is told everything.
    pub fn begin(&self) {
        let mut state = self.lock();
        state.full = true;
        state.urgent = state.seen.keys().cloned().collect();
        state.counters.clear();
        state.clean_due = state.clean != Position::default();
        state.looked_due = state.looked_for != Position::default();
        // A new session knows of none.
        state.orphans_due = !state.orphans.is_empty();
        state.held_due = !state.held.keys.is_empty();
        state.strays_told.clear();
        // What was on its way when the last one ended may be lost.
        state.repairs.iter_mut().for_each(|repair| repair.told = 0);
    }

    /// When there is something to tell.
    pub fn due(&self, now: Instant) -> Due {
        let state = self.lock();
        if !state.looked {
            return Due::Nothing;
        }
        if state.is_urgent() {
            return Due::Now;
        }
        if state.counters.is_empty() {
            return Due::Nothing;
        }
        match state.counters_told.map(|told| told + COUNTERS_EVERY) {
            Some(at) if at > now => Due::At(at),
            _ => Due::Now,
        }
    }

    /// Returns when something may have become due.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes the next message. Call it only when something is due.
    pub fn take(&self, now: Instant) -> wire::Report {
        let mut state = self.lock();
        if !state.is_urgent() {
            state.urgent = std::mem::take(&mut state.counters);
            state.counters_told = Some(now);
        }
        let mut report = wire::Report::default();
        state.tell_rest(&mut report);
        let mut size = 0;
        while report.items.len() < BATCH
            && size < BATCH_BYTES
            && let Some(key) = state.urgent.pop_first()
        {
            state.counters.remove(&key);
            if let Some(item) = state.seen.get(&key).map(wire::Observation::from) {
                size += item.encoded_len();
                report.items.push(item);
            }
        }
        if state.urgent.is_empty() {
            // Last: a VLAN is freed by it, and everything before it should be known by then.
            if std::mem::take(&mut state.clean_due) {
                (report.clean_term, report.clean_generation) = (state.clean.term, state.clean.generation);
            }
            // The same: it speaks for everything that was said, and for what was not.
            if std::mem::take(&mut state.looked_due) {
                (report.seen_term, report.seen_generation) = (state.looked_for.term, state.looked_for.generation);
            }
            report.complete = std::mem::take(&mut state.full);
        }
        report
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half way; were it so, the newest observation would still be true.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_urgent(&self) -> bool {
        self.full
            || self.clean_due
            || self.looked_due
            || self.orphans_due
            || self.held_due
            || self.repairs.back().is_some_and(|repair| repair.told == 0)
            || !self.urgent.is_empty()
    }

    fn tell_given(&mut self, position: Position) {
        let looked_for = self.given.extract_if(.., |_, given| *given <= position);
        self.urgent
            .extend(looked_for.map(|(key, _)| key).filter(|key| self.seen.contains_key(key)));
    }

    /// What is not about the state of a resource.
    fn tell_rest(&mut self, report: &mut wire::Report) {
        let untold = self.repairs.iter_mut().filter(|repair| repair.told == 0);
        for repair in untold.take(BATCH) {
            if report.repairs.is_empty() {
                self.receipt += 1;
                report.receipt = self.receipt;
            }
            repair.told = self.receipt;
            report.repairs.push(repair.repair.clone());
        }
        if std::mem::take(&mut self.orphans_due) {
            let orphans = self.orphans.iter().map(Into::into).collect();
            report.orphans = Some(wire::Orphans { orphans });
        }
        if std::mem::take(&mut self.held_due) {
            report.held_removals = Some(self.held.clone());
            self.strays_told.clone_from(&self.strays);
        }
    }

    /// Nothing is known any more of these.
    fn forget(&mut self, gone: impl Fn(&Key) -> bool) {
        for (key, observation) in self.seen.extract_if(.., |key, _| gone(key)) {
            if let Some(count) = self.counts.get_mut(&(key.kind, observation.state)) {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// True when its state is another than before.
    fn put(&mut self, observation: Observation) -> bool {
        let (kind, state) = (observation.key.kind, observation.state);
        let Some(old) = self.seen.get_mut(&observation.key) else {
            self.urgent.insert(observation.key.clone());
            *self.counts.entry((kind, state)).or_default() += 1;
            self.seen.insert(observation.key.clone(), observation);
            return true;
        };
        if *old == observation {
            return false;
        }
        let due = match without_counters(old) == without_counters(&observation) {
            true => &mut self.counters,
            false => &mut self.urgent,
        };
        due.insert(observation.key.clone());
        let before = std::mem::replace(old, observation).state;
        if before != state {
            if let Some(count) = self.counts.get_mut(&(kind, before)) {
                *count = count.saturating_sub(1);
            }
            *self.counts.entry((kind, state)).or_default() += 1;
        }
        before != state
    }
}

/// The observation with everything that only counts set to zero.
fn without_counters(observation: &Observation) -> Observation {
    let mut still = observation.clone();
    match &mut still.facts {
        Some(Facts::Dhcp(dhcp)) => {
            dhcp.leases = 0;
            dhcp.held.clear();
        }
        Some(Facts::Port(port)) => port.received = 0,
        // That frames pass, and how large, is news; how fast they were is a count.
        Some(Facts::Probe(probe)) => probe.paths.iter_mut().for_each(|path| {
            (path.loss_permille, path.round_trip_us, path.last_seen_ms) = (0, 0, 0);
        }),
        Some(Facts::Nat(nat)) => (nat.packets, nat.bytes) = (0, 0),
        // That a limit bites is news; how often it did is a count.
        Some(Facts::Flows(flows)) => flows.storms.iter_mut().for_each(|storm| storm.dropped = 0),
        Some(Facts::Trunk(_) | Facts::Gateway(_)) | None => {}
    }
    still
}

#[cfg(test)]
mod tests;
