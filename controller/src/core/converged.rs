//! Notices when a slice becomes ready, or stops being so: the journal's entry, and the end of the deployment's trace.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{Span, info_span};
use trunkline_proto::{Name, wire};

use super::Core;
use crate::{
    converge,
    transition::{NewEvent, State},
};

/// Shortest time between two looks at the whole.
const PAUSE: Duration = Duration::from_millis(100);

/// Share of the time that looking may take: one part in this many.
const SHARE: u32 = 10;

/// The same for so long as nodes come back after our start. All that they say makes us look at all slices, which takes longest while
/// nothing is ready, and little of it is news.
const RETURN_SHARE: u32 = 40;

/// When so many nodes have said something, looking at all is quicker than finding out what they have.
const MANY: usize = 200;

/// How long after our own start a slice may take to be what it was: until then its nodes only have not reported again.
const RETURN: Duration = Duration::from_secs(60);

/// Deployments that are not ready yet.
#[derive(Debug, Default)]
pub(super) struct Converging(Mutex<BTreeMap<Name, Waiting>>);

#[derive(Debug)]
struct Waiting {
    number: u32,
    since: Instant,
    /// Child of the call that deployed; it is open until the slice is ready.
    span: Span,
}

/// What may have another status than when it was looked at last: a report or a commit says of which slices and nodes it was.
#[derive(Debug, Default)]
pub(super) struct Stale {
    slices: BTreeSet<Name>,
    nodes: BTreeSet<Name>,
    /// Everything.
    all: bool,
}

impl Stale {
    /// After a commit.
    pub(super) fn commit(&mut self, old: &State, new: &State, touched: &BTreeSet<Name>) {
        let changed = old.cluster.slices.differences(&new.cluster.slices);
        let changed = changed.filter(|(_, was, is)| was != is);
        self.slices.extend(changed.map(|(name, _, _)| name.clone()));
        let records = old.cluster.nodes.differences(&new.cluster.nodes);
        let records = records.filter(|(_, was, is)| was != is).map(|(name, _, _)| name);
        self.nodes.extend(records.chain(touched).cloned());
        if old.cluster.departures != new.cluster.departures {
            let departing = [old, new]
                .into_iter()
                .flat_map(|state| state.cluster.departures.values());
            self.slices.extend(departing.map(|departure| departure.slice.clone()));
        }
        self.all |= old.cluster.meta.netnode != new.cluster.meta.netnode;
    }

    /// After a word of a node, or when it came or went.
    pub(super) fn node(&mut self, node: &Name) {
        if !self.nodes.contains(node) {
            self.nodes.insert(node.clone());
        }
    }

    /// The slices whose status may be another; `None` for all. Every slice stands on the network node.
    fn slices(mut self, state: &State) -> Option<BTreeSet<Name>> {
        let netnode = state.cluster.meta.netnode.as_ref();
        if self.all || self.nodes.len() > MANY || netnode.is_some_and(|netnode| self.nodes.contains(netnode)) {
            return None;
        }
        let on_nodes = state.desired.slices_on(&self.nodes);
        self.slices.extend(on_nodes.cloned());
        Some(self.slices)
    }
}

/// Rest after our start when something was deployed before: who comes back is answered first, and until then there is nothing to see.
const REST: Duration = Duration::from_millis(500);

/// What was seen of the slices last.
#[derive(Debug)]
struct Known {
    states: BTreeMap<Name, (u32, i32)>,
    /// Deployed before our start, and not reported on since: that they are unknown, and then ready again, is no news.
    returning: BTreeMap<Name, u32>,
    since: Instant,
    /// When all were looked at last.
    whole: Option<Instant>,
}

impl Known {
    fn new(state: &State, converging: &Converging) -> Self {
        let new = converging.0.lock().unwrap_or_else(PoisonError::into_inner);
        let deployed = state
            .cluster
            .deployed()
            .filter(|(slice, _)| !new.contains_key(&slice.name));
        Self {
            states: BTreeMap::new(),
            returning: deployed
                .map(|(slice, frozen)| (slice.name.clone(), frozen.number))
                .collect(),
            since: Instant::now(),
            whole: None,
        }
    }

    /// How long to leave to others after a look that began then: more while nodes come back, but not beyond that.
    fn pause(&self, began: Instant) -> Duration {
        let took = began.elapsed();
        let returning = RETURN.saturating_sub(self.since.elapsed());
        let at_all = self.whole.is_some_and(|whole| whole >= began);
        let more = if at_all {
            (took * RETURN_SHARE).min(returning)
        } else {
            Duration::ZERO
        };
        PAUSE.max(took * SHARE).max(more)
    }

    /// True when that is to be told. `deploying`: it has not been ready since it was deployed.
    fn is_news(&mut self, status: &wire::SliceStatus, name: &Name, deploying: bool) -> bool {
        let now = (status.deployed_number, status.state);
        if status.deployed_number == 0 {
            return false;
        }
        // What was deployed before may wait for a moment: on a long link the neighbours that are proved change every day. That is not
        // told, and so neither is that it is what it was before.
        if status.state() == wire::State::Pending && !deploying && self.states.contains_key(name) {
            return false;
        }
        if self.returning.get(name) == Some(&status.deployed_number) {
            let open = matches!(status.state(), wire::State::Unknown | wire::State::Pending);
            if open && self.since.elapsed() < RETURN {
                return false;
            }
            self.returning.remove(name);
            if status.state() == wire::State::Ready {
                self.states.insert(name.clone(), now);
                return false;
            }
        }
        self.states.insert(name.clone(), now) != Some(now)
    }
}

impl Converging {
    /// Called within the span of the change.
    pub(super) fn deployed(&self, old: &State, new: &State) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|name, one| {
            new.cluster
                .slices
                .get(name)
                .is_some_and(|slice| slice.deployed == Some(one.number))
        });
        for (name, before, slice) in old.cluster.slices.differences(&new.cluster.slices) {
            let before = before.and_then(|slice| slice.deployed);
            let number = slice.and_then(|slice| slice.deployed);
            let Some(number) = number.filter(|number| before != Some(*number)) else {
                continue;
            };
            let span = info_span!("converged", slice = %name, number, generation = new.cluster.meta.generation);
            waiting.insert(
                name.clone(),
                Waiting {
                    number,
                    since: Instant::now(),
                    span,
                },
            );
        }
    }

    fn has(&self, name: &Name) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    fn ready(&self, status: &wire::SliceStatus) -> Option<Waiting> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, _) = waiting
            .iter()
            .find(|(name, one)| name.as_str() == status.name && one.number == status.deployed_number)?;
        let name = name.clone();
        waiting.remove(&name)
    }
}

impl Core {
    /// Runs until the controller stops.
    pub async fn run_converged(self: Arc<Self>) {
        let mut status = self.watch_status();
        let mut known = Known::new(&self.state(), &self.converging);
        if !known.returning.is_empty() && self.threads {
            // Either arm may be cancelled: nothing is under way in it.
            tokio::select! {
                () = self.fatal.cancelled() => return,
                () = tokio::time::sleep(REST) => {}
            }
        }
        loop {
            let began = Instant::now();
            let core = self.clone();
            let looked = self.aside(move || {
                let events = core.look(&mut known);
                (known, events)
            });
            let Ok((next, events)) = looked.await else { return };
            known = next;
            if let Err(error) = self.record(events).await {
                tracing::warn!(%error, "the journal could not be written");
            }
            let pause = known.pause(began);
            // Every arm may be cancelled: none has done anything before it is ready.
            tokio::select! {
                () = self.fatal.cancelled() => return,
                () = async { tokio::time::sleep(pause).await; let _ = tokio::time::timeout(RETURN, status.changed()).await; } => {}
            }
        }
    }

    /// Looks at the slices that may have changed, and now and then at all: that time has passed may be news, too.
    fn look(&self, known: &mut Known) -> Vec<NewEvent> {
        let stale = std::mem::take(&mut *self.stale.lock().unwrap_or_else(PoisonError::into_inner));
        // After what is stale was taken: what comes now is looked at again.
        let state = self.state();
        let long_ago = known.whole.is_none_or(|whole| whole.elapsed() >= RETURN);
        let some = if long_ago { None } else { stale.slices(&state) };
        let views = match &some {
            Some(names) => self.views_of(&converge::nodes_of(&state, names)),
            None => self.views(),
        };
        let names: BTreeSet<Name> = match some {
            Some(names) => {
                let (with, without): (BTreeSet<_>, BTreeSet<_>) =
                    names.into_iter().partition(|name| converge::has_status(&state, name));
                known.states.retain(|name, _| !without.contains(name));
                with
            }
            None => {
                known.whole = Some(Instant::now());
                let names = converge::slices_with_status(&state).into_iter().collect();
                known.states.retain(|name, _| BTreeSet::contains(&names, name));
                names
            }
        };
        let mut events = self.live().left_out();
        for name in names {
            let status = converge::slice_status_in(&state, &views, &name, converge::Detail::Brief);
            if known.is_news(&status, &name, self.converging.has(&name)) {
                self.changed(&name, &status, state.cluster.meta.revision, &mut events);
            }
        }
        events
    }

    fn changed(&self, name: &Name, status: &wire::SliceStatus, revision: u64, events: &mut Vec<NewEvent>) {
        let (kind, message) = match status.state() {
            wire::State::Ready => (
                "slice.ready",
                format!("slice {name} is ready: {} resources", status.resources),
            ),
            wire::State::Degraded => ("slice.degraded", format!("slice {name} is degraded: {}", status.reason)),
            wire::State::Failed => ("slice.failed", format!("slice {name} has failed: {}", status.reason)),
            wire::State::Unknown => (
                "slice.unknown",
                format!("slice {name} is not known to work: {}", status.reason),
            ),
            wire::State::Pending | wire::State::Unspecified => return,
        };
        if status.state() == wire::State::Ready
            && let Some(Waiting { since, span, .. }) = self.converging.ready(status)
        {
            self.metrics.convergence.observe(since.elapsed().as_secs_f64());
            span.in_scope(|| tracing::info!(slice = %name, seconds = since.elapsed().as_secs_f64(), "slice is ready"));
        }
        let actor = "controller".to_owned();
        events.push(NewEvent {
            kind,
            actor,
            slice: Some(name.clone()),
            node: None,
            vlan: None,
            revision,
            message,
        });
    }
}
