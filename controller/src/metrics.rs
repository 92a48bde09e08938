//! The controller's metrics. Labels are bounded: methods of the API, codes, and reasons named here; never a slice or a node.

use std::sync::Arc;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};
use trunkline_proto::daemon::Metrics;

use crate::{
    model::{NodeRecord, Slice},
    transition::State,
};

/// A call of the API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// Name of the method.
    pub method: &'static str,
    /// Name of the gRPC code.
    pub code: &'static str,
}

/// Why something was turned down.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// One of a fixed list.
    pub reason: &'static str,
}

/// Why parts of reports are dropped. All are there from the start: a series that comes later looks like a growth, and its first step is
/// not seen.
const DROPPED: [&str; 13] = [
    "clean_ahead",
    "clock",
    "held_ahead",
    "impossible",
    "invalid",
    "orphan",
    "other_kind",
    "refusal",
    "repair",
    "seen_ahead",
    "too_long",
    "too_many",
    "unknown_key",
];

/// Everything that is counted. Cloning shares the counters.
#[derive(Debug, Clone)]
pub struct CoreMetrics {
    /// Calls of the API.
    pub calls: Family<Call, Counter>,
    /// Commits of the store.
    pub commits: Counter,
    /// Time from a deployment to ready.
    pub convergence: Histogram,
    /// Updates sent to nodes.
    pub updates: Counter,
    /// Resources in those updates.
    pub resources_sent: Counter,
    /// Resource versions that nodes refused.
    pub refused: Counter,
    /// Parts of reports that were dropped.
    pub dropped: Family<Reason, Counter>,
    /// Sessions that were turned down.
    pub sessions_refused: Family<Reason, Counter>,
    /// Nodes with a session.
    pub connected: Gauge,
    nodes: Gauge,
    gone: Gauge,
    holding: Gauge,
    slices: Gauge,
    deployed: Gauge,
    departures: Gauge,
    term: Gauge,
    generation: Gauge,
    revision: Gauge,
}

impl Default for CoreMetrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            commits: Counter::default(),
            convergence: Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]),
            updates: Counter::default(),
            resources_sent: Counter::default(),
            refused: Counter::default(),
            dropped: Family::default(),
            sessions_refused: Family::default(),
            connected: Gauge::default(),
            nodes: Gauge::default(),
            gone: Gauge::default(),
            holding: Gauge::default(),
            slices: Gauge::default(),
            deployed: Gauge::default(),
            departures: Gauge::default(),
            term: Gauge::default(),
            generation: Gauge::default(),
            revision: Gauge::default(),
        }
    }
}

impl CoreMetrics {
    /// The counters, registered.
    pub fn new(metrics: &Metrics) -> Self {
        let all = Self::default();
        for reason in DROPPED {
            drop(all.dropped.get_or_create(&Reason { reason }));
        }
        metrics.register(|registry| {
            let mut gauge = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
            gauge("trunkline_nodes_connected", "Nodes with a session", &all.connected);
            gauge("trunkline_nodes", "Nodes that joined and were not removed", &all.nodes);
            gauge(
                "trunkline_nodes_gone",
                "Nodes that an operator declared gone and that have not connected since",
                &all.gone,
            );
            gauge(
                "trunkline_nodes_holding_removals",
                "Connected nodes that hold removals back until an operator confirms them",
                &all.holding,
            );
            gauge("trunkline_slices", "Slices", &all.slices);
            gauge("trunkline_slices_deployed", "Slices that are deployed", &all.deployed);
            gauge(
                "trunkline_departures",
                "Removals whose VLANs are not free yet",
                &all.departures,
            );
            gauge("trunkline_term", "Term of the desired state", &all.term);
            gauge(
                "trunkline_generation",
                "Generation of the desired state",
                &all.generation,
            );
            gauge("trunkline_revision", "Revision of the store", &all.revision);
            let mut counter =
                |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
            counter("trunkline_commits", "Commits of the store", &all.commits);
            counter("trunkline_updates", "Updates sent to nodes", &all.updates);
            counter(
                "trunkline_update_resources",
                "Resources sent and removals asked for in updates",
                &all.resources_sent,
            );
            counter(
                "trunkline_refusals",
                "Resource versions that nodes refused",
                &all.refused,
            );
            registry.register("trunkline_calls", "Calls of the API", all.calls.clone());
            registry.register(
                "trunkline_report_items_dropped",
                "Parts of reports that were dropped",
                all.dropped.clone(),
            );
            registry.register(
                "trunkline_sessions_refused",
                "Sessions of nodes turned down",
                all.sessions_refused.clone(),
            );
            let help = "Time from a deployment until the slice was ready";
            registry.register("trunkline_convergence_seconds", help, all.convergence.clone());
        });
        all
    }

    /// Counts a call.
    pub fn call(&self, method: &'static str, code: tonic::Code) {
        self.calls
            .get_or_create(&Call {
                method,
                code: code_name(code),
            })
            .inc();
    }

    /// Counts dropped parts of a report.
    pub fn drop_items(&self, reason: &'static str, count: u64) {
        debug_assert!(DROPPED.contains(&reason), "{reason} is not in the list");
        if count > 0 {
            self.dropped.get_or_create(&Reason { reason }).inc_by(count);
        }
    }

    /// Counts a session that was turned down.
    pub fn refuse_session(&self, reason: &'static str) {
        self.sessions_refused.get_or_create(&Reason { reason }).inc();
    }

    /// Takes up a state.
    pub fn of_state(&self, state: &State) {
        set(&self.gone, state.cluster.nodes.values().filter(is_gone).count());
        set(&self.deployed, state.cluster.deployed().count());
        self.of_sizes(state);
    }

    /// Follows from one state to the next, at the price of what differs.
    pub fn of_change(&self, old: &State, new: &State) {
        for (_, was, is) in old.cluster.nodes.differences(&new.cluster.nodes) {
            step(&self.gone, was.filter(is_gone).is_some(), is.filter(is_gone).is_some());
        }
        for (_, was, is) in old.cluster.slices.differences(&new.cluster.slices) {
            let deployed = |slice: Option<&Arc<Slice>>| slice.is_some_and(|slice| slice.deployed().is_some());
            step(&self.deployed, deployed(was), deployed(is));
        }
        self.of_sizes(new);
    }

    fn of_sizes(&self, state: &State) {
        let meta = &state.cluster.meta;
        set(&self.nodes, state.cluster.nodes.len());
        set(&self.slices, state.cluster.slices.len());
        set(&self.departures, state.cluster.departures.len());
        for (gauge, value) in [
            (&self.term, meta.term),
            (&self.generation, meta.generation),
            (&self.revision, meta.revision),
        ] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// Follows what nodes hold back.
    pub fn of_holding(&self, nodes: usize) {
        set(&self.holding, nodes);
    }

    /// Follows the sessions.
    pub fn of_sessions(&self, connected: usize) {
        set(&self.connected, connected);
    }
}

fn is_gone(record: &&NodeRecord) -> bool {
    record.gone.is_some()
}

/// One of what a gauge counts was, or is, there.
fn step(gauge: &Gauge, was: bool, is: bool) {
    gauge.inc_by(i64::from(is) - i64::from(was));
}

fn set(gauge: &Gauge, count: usize) {
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
}

/// As gRPC's documents write it.
fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        model::Timestamp,
        testing::{World, name, shop},
    };

    fn seen(metrics: &CoreMetrics) -> [i64; 4] {
        [&metrics.nodes, &metrics.gone, &metrics.slices, &metrics.deployed].map(Gauge::get)
    }

    #[test]
    fn following_changes_comes_to_what_taking_up_the_state_does() {
        let mut world = World::new();
        let followed = CoreMetrics::default();
        followed.of_state(&world.state);
        let follow = |old: &State, new: &State, is: [i64; 4]| {
            followed.of_change(old, new);
            let whole = CoreMetrics::default();
            whole.of_state(new);
            assert_eq!((seen(&followed), seen(&whole)), (is, is));
        };
        let empty = world.state.clone();
        world.apply(vec![shop("a")], true).unwrap();
        follow(&empty, &world.state, [3, 0, 1, 1]);
        let mut gone = world.state.clone();
        gone.cluster.nodes.get_mut(&name("w1")).unwrap().gone = Some(Timestamp::default());
        follow(&world.state, &gone, [3, 1, 1, 1]);
        let mut removed = gone.clone();
        removed.cluster.nodes.remove(&name("w1"));
        removed.cluster.slices.remove(&name("a"));
        follow(&gone, &removed, [2, 0, 0, 0]);
        follow(&removed, &empty, [3, 0, 0, 0]);
    }
}
