//! What was seen, and what of it the controller is still to be told.
//!
//! The board keeps the newest observation of each resource, so that a slow controller costs nothing but its own delay. After Hello
//! everything is told, ending with a mark; from then on only what changed: a state at once, a counter at most every ten seconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use trunkline_proto::{
    resource::{Facts, Key, Observation},
    wire,
};

use crate::inbox::Position;

/// How often counters alone may be told.
pub const COUNTERS_EVERY: Duration = Duration::from_secs(10);
/// Most items in one message: with full reasons still well under a megabyte.
const BATCH: usize = 400;

/// The newest observations, shared by the reconcile loop (which writes) and the session (which takes what is due).
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    changed: Notify,
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
}

impl Board {
    /// What a pass saw of everything there is. `position` is that of the desired state that it went by; `clean` says that nothing
    /// undesired was left.
    pub fn publish(&self, observations: Vec<Observation>, position: Position, clean: bool) {
        let mut state = self.lock();
        let keys: BTreeSet<Key> = observations.iter().map(|o| o.key.clone()).collect();
        // What is no longer desired is not told: that it is gone is what `clean` says.
        state.seen.retain(|key, _| keys.contains(key));
        state.urgent.retain(|key| keys.contains(key));
        state.counters.retain(|key| keys.contains(key));
        for observation in observations {
            state.put(observation);
        }
        if clean && position != state.clean {
            state.clean = position;
            state.clean_due = true;
        }
        if position != state.looked_for {
            state.looked_for = position;
            state.looked_due = true;
        }
        state.looked = true;
        drop(state);
        self.changed.notify_one();
    }

    /// Counters that were read again; of resources that are known only.
    pub fn refresh(&self, observations: Vec<Observation>) {
        let mut state = self.lock();
        for observation in observations {
            if state.seen.contains_key(&observation.key) {
                state.put(observation);
            }
        }
        drop(state);
        self.changed.notify_one();
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
    }

    /// When there is something to tell.
    pub fn due(&self, now: Instant) -> Due {
        let state = self.lock();
        if !state.looked {
            return Due::Nothing;
        }
        if state.full || state.clean_due || state.looked_due || !state.urgent.is_empty() {
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
        if state.urgent.is_empty() && !state.full && !state.clean_due && !state.looked_due {
            state.urgent = std::mem::take(&mut state.counters);
            state.counters_told = Some(now);
        }
        let mut report = wire::Report::default();
        while report.items.len() < BATCH
            && let Some(key) = state.urgent.pop_first()
        {
            state.counters.remove(&key);
            report.items.extend(state.seen.get(&key).map(Into::into));
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
    fn put(&mut self, observation: Observation) {
        let key = observation.key.clone();
        match self.seen.get(&key) {
            Some(old) if *old == observation => return,
            Some(old) if without_counters(old) == without_counters(&observation) => self.counters.insert(key.clone()),
            _ => self.urgent.insert(key.clone()),
        };
        self.seen.insert(key, observation);
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
mod tests {
    use trunkline_proto::{
        Hash,
        resource::{Kind, State as Seen},
    };

    use super::*;

    const AT: Position = Position { term: 1, generation: 1 };

    fn dhcp(name: &str, state: Seen, leases: u32) -> Observation {
        Observation {
            key: Key {
                kind: Kind::Dhcp,
                name: name.parse().unwrap(),
            },
            hash: Hash::of(b"x"),
            state,
            reason: String::new(),
            facts: Some(Facts::Dhcp(wire::DhcpFacts {
                pid: 7,
                leases,
                current: true,
                held: vec![],
            })),
        }
    }

    fn told(board: &Board) -> wire::Report {
        assert_eq!(board.due(Instant::now()), Due::Now);
        board.take(Instant::now())
    }

    fn quiet(board: &Board) -> bool {
        board.due(Instant::now()) == Due::Nothing
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_told_before_the_host_was_looked_at() {
        let board = Board::default();
        board.begin();
        assert!(quiet(&board));
        board.publish(vec![dhcp("a", Seen::Ready, 0)], AT, false);
        let report = told(&board);
        assert!(report.complete);
        assert_eq!(report.items.len(), 1);
        assert!(quiet(&board));
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_changed_is_told_and_only_the_newest() {
        let board = Board::default();
        board.publish(vec![dhcp("a", Seen::Ready, 0), dhcp("b", Seen::Ready, 0)], AT, false);
        board.begin();
        told(&board);
        board.publish(vec![dhcp("a", Seen::Ready, 0), dhcp("b", Seen::Failed, 0)], AT, false);
        board.publish(vec![dhcp("a", Seen::Ready, 0), dhcp("b", Seen::Degraded, 0)], AT, false);
        let report = told(&board);
        assert_eq!(report.items.len(), 1);
        assert_eq!(report.items[0].state(), wire::State::Degraded);
        assert!(!report.complete);
        assert!(quiet(&board));
    }

    #[tokio::test(start_paused = true)]
    async fn counters_alone_wait_ten_seconds_and_a_state_does_not() {
        let board = Board::default();
        board.publish(vec![dhcp("a", Seen::Ready, 0)], AT, false);
        board.begin();
        told(&board);
        board.refresh(vec![dhcp("a", Seen::Ready, 1)]);
        assert_eq!(told(&board).items.len(), 1);
        for leases in 2..50 {
            board.refresh(vec![dhcp("a", Seen::Ready, leases)]);
        }
        let Due::At(at) = board.due(Instant::now()) else {
            panic!("counters are due at once")
        };
        assert_eq!(at - Instant::now(), COUNTERS_EVERY);
        tokio::time::advance(COUNTERS_EVERY).await;
        let report = told(&board);
        assert_eq!(report.items.len(), 1);
        assert!(matches!(
            report.items[0].facts,
            Some(wire::observation::Facts::Dhcp(wire::DhcpFacts { leases: 49, .. }))
        ));
        board.refresh(vec![dhcp("a", Seen::Failed, 50)]);
        assert_eq!(told(&board).items.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_full_report_comes_in_parts_and_only_the_last_is_complete() {
        let board = Board::default();
        let all = (0..1000).map(|n| dhcp(&format!("d{n}"), Seen::Ready, 0)).collect();
        let clean = Position { term: 1, generation: 9 };
        board.publish(all, clean, true);
        board.begin();
        let parts: Vec<_> = std::iter::from_fn(|| (!quiet(&board)).then(|| told(&board))).collect();
        assert_eq!(parts.iter().map(|p| p.items.len()).sum::<usize>(), 1000);
        let marks: Vec<_> = parts.iter().map(|p| (p.complete, p.clean_generation)).collect();
        assert_eq!(marks, [(false, 0), (false, 0), (true, 9)]);
        assert_eq!(parts.iter().map(|p| p.seen_generation).collect::<Vec<_>>(), [0, 0, 9]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_resource_that_went_is_not_told_of() {
        let board = Board::default();
        board.publish(vec![dhcp("a", Seen::Ready, 0)], AT, false);
        board.begin();
        board.publish(vec![], AT, false);
        let report = told(&board);
        assert!(report.items.is_empty() && report.complete);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_session_is_told_everything_again() {
        let board = Board::default();
        board.publish(vec![dhcp("a", Seen::Ready, 0)], AT, false);
        for _ in 0..3 {
            board.begin();
            let report = told(&board);
            assert!(report.complete);
            assert_eq!(report.items.len(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_looked_for_is_told_when_it_rises_even_with_nothing_else_to_say() {
        let board = Board::default();
        board.publish(vec![dhcp("a", Seen::Ready, 0)], AT, false);
        board.begin();
        assert_eq!(told(&board).seen_generation, 1);
        board.publish(vec![dhcp("a", Seen::Ready, 0)], AT, false);
        assert!(quiet(&board));
        let next = Position { term: 1, generation: 2 };
        board.publish(vec![dhcp("a", Seen::Ready, 0)], next, false);
        let report = told(&board);
        assert_eq!(
            (report.items.len(), report.seen_term, report.seen_generation),
            (0, 1, 2)
        );
        assert!(quiet(&board));
        board.begin();
        assert_eq!(told(&board).seen_generation, 2);
    }
}
