//! The reconcile loop: owns the host, compares the whole again whenever something may have changed.
//!
//! Triggers only wake it. Whatever comes while a pass runs is one more pass after it. There is no debounce: it starts at once. Only
//! when the host wakes it without end, because somebody undoes what we do, are such passes spaced out.

mod drift;
mod watchdog;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use trunkline_proto::{
    Hash,
    daemon::telemetry,
    resource::{Key, Kind, Observation, State},
};

use self::drift::Drift;
pub use self::watchdog::Doing;
pub(crate) use self::watchdog::Watchdog;
use crate::{
    inbox::{Held, Position},
    metrics::NodeMetrics,
    node::{Desired, Host, HostFacts, Item, Pass, Repair, Wake},
    report::{Board, COUNTERS_EVERY},
};

/// A full re-read, in case a trigger was lost.
const REREAD_EVERY: Duration = Duration::from_secs(60);
/// First pause before what failed is tried again; doubled up to [`RETRY_MOST`].
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// How many passes the host may cause at once, and how often one more is allowed when they are used up.
const BURST: u32 = 20;
const BURST_REFILL: Duration = Duration::from_millis(250);

/// The loop's parts.
pub(crate) struct Reconcile<H> {
    pub(crate) host: H,
    pub(crate) held: watch::Receiver<Arc<Held>>,
    pub(crate) wake: Wake,
    pub(crate) board: Arc<Board>,
    pub(crate) facts: watch::Sender<HostFacts>,
    /// Becomes true when the first pass was tried, or there was nothing to try.
    pub(crate) tried: watch::Sender<bool>,
    pub(crate) metrics: NodeMetrics,
    pub(crate) doing: Doing,
    pub(crate) cancel: CancellationToken,
}

/// What the loop remembers from pass to pass.
struct Memory {
    position: Position,
    /// What is held, and what follows from it: nothing of that changes until something else is held.
    held: Arc<Held>,
    desired: Desired,
    /// It was looked at since by a pass that left nothing undone.
    done: bool,
    /// The last desired state that nothing was left beside.
    clean: Option<Position>,
    /// What was desired in the last pass that left nothing undone: what differs from it is what a new pass changes.
    before: BTreeMap<Key, Hash>,
    drift: Drift,
    retries: ExponentialBackoff,
    troubled: bool,
    next: Instant,
    pace: Pace,
}

/// Spaces out the passes that the host causes.
struct Pace {
    left: u32,
    refilled: Instant,
}

impl<H: Host> Reconcile<H> {
    pub(crate) async fn run(mut self) {
        let held = self.held.borrow().clone();
        let desired = held.desired();
        let mut memory = Memory {
            position: Position::default(),
            clean: None,
            // Traces of changes that were realised by an earlier process are over.
            before: versions(&desired),
            drift: Drift::after_start(&desired),
            done: false,
            held,
            desired,
            retries: retries(),
            troubled: false,
            next: Instant::now(),
            pace: Pace {
                left: BURST,
                refilled: Instant::now(),
            },
        };
        let mut counters = interval_at(Instant::now() + COUNTERS_EVERY, COUNTERS_EVERY);
        counters.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::select! {
            // Nothing has begun.
            () = self.cancel.cancelled() => return,
            () = self.host.known() => self.tell_facts(),
        }
        loop {
            self.turn(&mut memory).await;
            self.tried.send_replace(true);
            let not_before = memory.pace.next(Instant::now());
            loop {
                tokio::select! {
                    // Between passes nothing is half done.
                    () = self.cancel.cancelled() => return,
                    // A permit that was taken leads to a pass at once.
                    () = woken(&self.wake, not_before) => break,
                    // The value stays; only "seen" is marked.
                    changed = self.held.changed() => if changed.is_err() { return } else { break },
                    () = sleep_until(memory.next) => break,
                    _ = counters.tick() => self.count(&memory).await,
                }
            }
        }
    }

    /// One pass, unless nothing is known.
    async fn turn(&mut self, memory: &mut Memory) {
        self.wake.covered();
        let held = self.held.borrow_and_update().clone();
        if !held.is_known() {
            // Silence is no order: nothing of ours is torn down until the controller has spoken.
            self.board.nothing_to_see();
            self.tell_facts();
            memory.next = Instant::now() + REREAD_EVERY;
            return;
        }
        memory.follow(&held);
        self.host.let_go(self.board.let_go());
        let mut pass = self.traced(memory).await;
        let desired = &memory.desired;
        let repairs = memory
            .drift
            .news(desired, std::mem::take(&mut pass.repairs), &pass.observations);
        let good = judge(&held, desired, pass);
        memory.plan(&good);
        if good.clean {
            memory.settle();
        }
        self.metrics.orphans(good.orphans.len());
        self.metrics.held_removals(self.board.orphans(good.orphans));
        self.board.publish(good.observations, held.position, good.clean);
        self.tell_repairs(&held, repairs);
        self.tell_facts();
    }

    fn tell_repairs(&self, held: &Held, repairs: Vec<Repair>) {
        for repair in &repairs {
            tracing::warn!(resource = %repair.key, what = repair.what, "changed behind our back, and put right");
            self.metrics.repaired(repair.key.kind);
        }
        // The controller knows nothing any more of what it has removed.
        let told: Vec<_> = repairs.into_iter().filter(|r| !held.is_waiting(&r.key)).collect();
        if !told.is_empty() {
            let lost = self.board.repaired(told, SystemTime::now());
            if lost > 0 {
                tracing::warn!(
                    lost,
                    "too many repairs wait for the controller; the oldest are forgotten"
                );
                self.metrics.repairs_lost(lost);
            }
        }
    }

    async fn traced(&mut self, memory: &Memory) -> Pass {
        let desired = &memory.desired;
        let Desired {
            term,
            generation,
            items,
            leaving: _,
        } = desired;
        let span = tracing::info_span!("pass", term, generation, resources = items.len());
        let changed = |(key, item): &(&Key, &Item)| memory.before.get(*key) != Some(&item.hash);
        let fresh = items.iter().filter(|_| !memory.done).filter(changed);
        // Of several traces the one with the most changed resources would be fairest; one that is there is good enough.
        if let Some((_, item)) = fresh.into_iter().find(|(_, item)| !item.traceparent.is_empty()) {
            telemetry::set_parent(&span, &item.traceparent);
        }
        let began = Instant::now();
        self.doing.step("beginning a pass");
        let pass = self.host.pass(desired).instrument(span).await;
        self.doing.nothing();
        self.metrics.passed(began.elapsed(), pass.clean);
        pass
    }

    async fn count(&mut self, memory: &Memory) {
        let held = &memory.held;
        if held.is_known() {
            self.doing.step("reading counters");
            let counted = self.host.counters(&memory.desired).await;
            self.doing.nothing();
            let known = |o: &Observation| !held.is_waiting(&o.key);
            self.board.refresh(counted.into_iter().filter(known).collect());
        }
    }

    fn tell_facts(&self) {
        let facts = self.host.facts();
        self.facts.send_if_modified(|old| {
            let changed = *old != facts;
            *old = facts;
            changed
        });
    }
}

/// Waits for a wake, and for the time when one may be heard.
async fn woken(wake: &Wake, not_before: Instant) {
    sleep_until(not_before).await;
    wake.woken().await;
}

impl Pace {
    /// A pass was run: the earliest time of the next one that the host may cause.
    fn next(&mut self, now: Instant) -> Instant {
        while self.left < BURST && now.duration_since(self.refilled) >= BURST_REFILL {
            self.left += 1;
            self.refilled += BURST_REFILL;
        }
        if self.left == BURST {
            self.refilled = now;
        }
        if self.left == 0 {
            // This one is paid for in advance.
            self.refilled += BURST_REFILL;
            return self.refilled;
        }
        self.left -= 1;
        now
    }
}

impl Memory {
    /// A pass begins, for this.
    fn follow(&mut self, held: &Arc<Held>) {
        if !Arc::ptr_eq(&self.held, held) {
            (self.desired, self.done) = (held.desired(), false);
            self.held = held.clone();
        }
        if self.clean == Some(held.position) {
            // All of it is gone; what turns up under a name of those is something else.
            self.desired.leaving.clear();
        }
        if held.position != self.position {
            self.position = held.position;
            self.retries = retries();
        }
    }

    /// A pass has left nothing undone.
    fn settle(&mut self) {
        if !self.done {
            self.before = versions(&self.desired);
            self.done = true;
        }
        self.clean = Some(self.position);
    }

    /// When to look again, if nothing wakes us before.
    fn plan(&mut self, pass: &Pass) {
        let trouble = pass.observations.iter().find(|o| !is_settled(o));
        let whole = pass.clean && trouble.is_none();
        if whole {
            if self.troubled {
                tracing::info!(generation = self.position.generation, "everything is as desired again");
            }
            self.retries = retries();
        } else if !self.troubled {
            // Once per spell of trouble: every pass would fill the log. The reports name each item.
            let (what, reason) = trouble.map_or(("leftovers".into(), "not everything undesired is gone".into()), |o| {
                (o.key.to_string(), o.reason.clone())
            });
            tracing::warn!(
                generation = self.position.generation,
                resource = what,
                reason,
                "not everything is as desired"
            );
        }
        self.troubled = !whole;
        let mut pause = if whole {
            REREAD_EVERY
        } else {
            self.retries.next().unwrap_or(RETRY_MOST)
        };
        if let Some(sooner) = pass.retry_after {
            pause = pause.min(sooner);
        }
        self.next = Instant::now() + pause;
    }
}

/// True when another pass would change nothing. Frames that do not come from another node are not mended by one here.
fn is_settled(observation: &Observation) -> bool {
    match observation.state {
        State::Ready => true,
        State::Pending | State::Degraded => observation.key.kind == Kind::Probe,
        State::Failed | State::Unknown => false,
    }
}

/// One observation of each desired resource, whatever the host has answered.
fn each_once(desired: &Desired, observations: Vec<Observation>) -> Vec<Observation> {
    let mut seen: Vec<Observation> = Vec::with_capacity(desired.items.len());
    let mut keys = BTreeSet::new();
    for observation in observations {
        if desired.items.contains_key(&observation.key) && keys.insert(observation.key.clone()) {
            seen.push(observation);
        }
    }
    for (key, item) in &desired.items {
        if !keys.contains(key) {
            seen.push(item.observation(
                key,
                State::Failed,
                "the node has not looked at it; look into its log",
                None,
            ));
        }
    }
    seen
}

/// Makes a pass's answer whole: every desired resource has one observation, and what was refused says so.
fn judge(held: &Held, desired: &Desired, pass: Pass) -> Pass {
    let Pass {
        observations,
        clean,
        retry_after,
        repairs,
        orphans,
    } = pass;
    let refused: Vec<_> = held.refused().collect();
    // What stays realised of an earlier version is in nobody's desired state any more: its VLANs and addresses are still in use.
    let outdated = refused.iter().any(|refused| refused.earlier);
    let mut seen = observations;
    if !seen.iter().map(|o| &o.key).eq(desired.items.keys()) {
        seen = each_once(desired, seen);
    }
    // A refused version is told by its own hash; what remains of the version before it is nobody's question. Nor is what the
    // controller has removed, while it waits for an operator's word.
    let is_refused: BTreeSet<&Key> = refused.iter().map(|r| &r.key).collect();
    seen.retain(|o| !is_refused.contains(&o.key) && !held.is_waiting(&o.key));
    seen.extend(refused.into_iter().map(|refused| {
        let stays = if refused.earlier {
            "; the version before it stays"
        } else {
            ""
        };
        Observation {
            reason: crate::cut(format!("refused: {}{stays}", refused.reason), Observation::MAX_REASON),
            key: refused.key,
            hash: refused.hash,
            state: State::Failed,
            facts: None,
        }
    }));
    // Reservations that wait are no matter of this: who waits for an address waits for the port on its worker.
    Pass {
        observations: seen,
        clean: clean && !outdated && orphans.is_empty() && held.waiting().len() == 0,
        retry_after,
        repairs,
        orphans,
    }
}

fn versions(desired: &Desired) -> BTreeMap<Key, Hash> {
    let version = |(key, item): (&Key, &Item)| (key.clone(), item.hash);
    desired.items.iter().map(version).collect()
}

fn retries() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(RETRY_FIRST)
        .with_max_delay(RETRY_MOST)
        .with_factor(2.0)
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests;
