//! Metrics of a node. Labels are bounded: kinds and states, never names.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use trunkline_proto::resource::{Kind, State};

/// Every kind and state that is told apart.
const KINDS: [Kind; 7] = [
    Kind::Port,
    Kind::Trunk,
    Kind::Gateway,
    Kind::Dhcp,
    Kind::Nat,
    Kind::Flows,
    Kind::Probe,
];
const STATES: [State; 5] = [
    State::Pending,
    State::Ready,
    State::Degraded,
    State::Failed,
    State::Unknown,
];

/// How many resources of each kind were seen in each state.
pub(crate) type Counts = HashMap<(Kind, State), usize>;

/// What a node counts.
#[derive(Debug, Clone, Default)]
pub struct NodeMetrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    resources: Family<Seen, Gauge>,
    passes: Family<Outcome, Counter>,
    pass_duration: Histogram,
    pass_hangs: Gauge,
    connected: Gauge,
    acknowledged: Gauge,
    reports: Counter,
    updates: Family<Outcome, Counter>,
    repairs: Family<Repaired, Counter>,
    repairs_lost: Counter,
    orphans: Gauge,
    held_removals: Gauge,
    alone: Gauge,
    alone_since: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Repaired {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Seen {
    kind: String,
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            resources: Family::default(),
            passes: Family::default(),
            // 1 ms to 16 s: one OVS transaction is some ms, a first pass over 800 ports about a second.
            pass_duration: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            pass_hangs: Gauge::default(),
            connected: Gauge::default(),
            acknowledged: Gauge::default(),
            reports: Counter::default(),
            updates: Family::default(),
            repairs: Family::default(),
            repairs_lost: Counter::default(),
            orphans: Gauge::default(),
            held_removals: Gauge::default(),
            alone: Gauge::default(),
            alone_since: Gauge::default(),
        }
    }
}

impl NodeMetrics {
    /// Makes them known.
    pub fn register(&self, registry: &mut Registry) {
        let m = &*self.inner;
        registry.register(
            "trunkline_node_resources",
            "Resources by kind and by what was seen of them",
            m.resources.clone(),
        );
        registry.register(
            "trunkline_node_passes",
            "Reconcile passes, by whether everything undesired was gone after them",
            m.passes.clone(),
        );
        registry.register_with_unit(
            "trunkline_node_pass_duration",
            "How long a reconcile pass took",
            Unit::Seconds,
            m.pass_duration.clone(),
        );
        registry.register(
            "trunkline_node_pass_hangs",
            "1 while a reconcile pass has been running for over a minute",
            m.pass_hangs.clone(),
        );
        registry.register(
            "trunkline_node_session_connected",
            "1 while the controller has welcomed this node",
            m.connected.clone(),
        );
        registry.register(
            "trunkline_node_acknowledged_generation",
            "Generation of the desired state that this node holds",
            m.acknowledged.clone(),
        );
        registry.register(
            "trunkline_node_reports_sent",
            "Report messages sent to the controller",
            m.reports.clone(),
        );
        registry.register(
            "trunkline_node_updates",
            "Changes of desired state that came, by what became of them",
            m.updates.clone(),
        );
        // There from the start, so that the first one is seen as a step.
        for kind in KINDS.map(|kind| kind.to_string()) {
            drop(m.repairs.get_or_create(&Repaired { kind }));
        }
        registry.register(
            "trunkline_node_repairs",
            "Changes behind the node's back that were put right, by the kind of resource",
            m.repairs.clone(),
        );
        registry.register(
            "trunkline_node_repairs_lost",
            "Repairs that the controller was never told of, because too many waited for it",
            m.repairs_lost.clone(),
        );
        registry.register(
            "trunkline_node_orphans",
            "Things on the host that carry our mark and that nobody wants",
            m.orphans.clone(),
        );
        registry.register(
            "trunkline_node_held_removals",
            "Removals that wait for an operator's word",
            m.held_removals.clone(),
        );
        registry.register(
            "trunkline_node_alone",
            "1 while there is no session with the controller; what is desired stays as it was",
            m.alone.clone(),
        );
        registry.register_with_unit(
            "trunkline_node_alone_since_timestamp",
            "When the last session with the controller ended, in seconds since 1970; 0 while there is one",
            Unit::Seconds,
            m.alone_since.clone(),
        );
    }

    pub(crate) fn observed(&self, counts: &Counts) {
        for kind in KINDS {
            for state in STATES {
                let count = counts.get(&(kind, state)).copied().unwrap_or_default();
                let labels = Seen {
                    kind: kind.to_string(),
                    state: state.to_string(),
                };
                let gauge = self.inner.resources.get_or_create(&labels);
                gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }

    pub(crate) fn passed(&self, took: Duration, clean: bool) {
        let outcome = if clean { "clean" } else { "unfinished" };
        self.inner.passes.get_or_create(&Outcome { outcome }).inc();
        self.inner.pass_duration.observe(took.as_secs_f64());
    }

    pub(crate) fn pass_hangs(&self, hangs: bool) {
        self.inner.pass_hangs.set(i64::from(hangs));
    }

    #[cfg(test)]
    pub(crate) fn hangs(&self) -> bool {
        self.inner.pass_hangs.get() == 1
    }

    pub(crate) fn connected(&self, connected: bool) {
        self.inner.connected.set(i64::from(connected));
    }

    /// True while the controller has welcomed this node.
    pub fn is_connected(&self) -> bool {
        self.inner.connected.get() == 1
    }

    pub(crate) fn acknowledged(&self, generation: u64) {
        self.inner
            .acknowledged
            .set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    pub(crate) fn repaired(&self, kind: Kind) {
        let kind = kind.to_string();
        self.inner.repairs.get_or_create(&Repaired { kind }).inc();
    }

    pub(crate) fn repairs_lost(&self, lost: usize) {
        self.inner.repairs_lost.inc_by(u64::try_from(lost).unwrap_or(u64::MAX));
    }

    pub(crate) fn orphans(&self, count: usize) {
        self.inner.orphans.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn held_removals(&self, count: usize) {
        self.inner.held_removals.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// `None`: not alone.
    pub(crate) fn alone(&self, since: Option<SystemTime>) {
        let unix = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.inner.alone.set(i64::from(since.is_some()));
        self.inner
            .alone_since
            .set(i64::try_from(since.map_or(0, unix)).unwrap_or(i64::MAX));
    }

    pub(crate) fn report_sent(&self) {
        self.inner.reports.inc();
    }

    pub(crate) fn update(&self, taken: bool) {
        let outcome = if taken { "taken" } else { "rejected" };
        self.inner.updates.get_or_create(&Outcome { outcome }).inc();
    }
}
