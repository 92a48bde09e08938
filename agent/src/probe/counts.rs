//! What the prober counts. Nothing of this is logged for each frame: who sends many could fill the disk.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Unit,
};
use trunkline_proto::daemon::Metrics;

/// Why a frame does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Shorter than it says.
    Truncated,
    /// A field that cannot be.
    Malformed,
    /// From or for somebody whom the plan does not name, or on a VLAN that is not probed here.
    Stranger,
    /// Signed with a key that the plan does not have.
    Key,
    /// Not signed with the key that it names.
    Signature,
    /// It came before.
    Replayed,
    /// Of another life of the peer than the one that is heard, and no proof that it is not a recording.
    Unproven,
}

impl Refusal {
    const ALL: [Self; 7] = [
        Self::Truncated,
        Self::Malformed,
        Self::Stranger,
        Self::Key,
        Self::Signature,
        Self::Replayed,
        Self::Unproven,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Stranger => "stranger",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Replayed => "replayed",
            Self::Unproven => "unproven",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    why: &'static str,
}

/// The counters.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    sent: Counter,
    unsent: Counter,
    received: Counter,
    refused: Family<Why, Counter>,
    pairs: Gauge,
    period: Gauge<f64, AtomicU64>,
}

impl Counts {
    /// Made known to a program's metrics.
    #[must_use]
    pub fn registered(metrics: &Metrics) -> Self {
        let counts = Self::default();
        // There from the start: a series that comes later looks like a growth, and its first step is not seen.
        for refusal in Refusal::ALL {
            drop(counts.refused.get_or_create(&Why { why: refusal.name() }));
        }
        let Self {
            sent,
            unsent,
            received,
            refused,
            pairs,
            period,
        } = counts.clone();
        metrics.register(|registry| {
            registry.register("trunkline_node_probe_frames_sent", "Probe frames sent", sent);
            registry.register(
                "trunkline_node_probe_frames_unsent",
                "Probe frames that the kernel did not take",
                unsent,
            );
            registry.register(
                "trunkline_node_probe_frames_received",
                "Probe frames received and believed",
                received,
            );
            registry.register(
                "trunkline_node_probe_frames_refused",
                "Probe frames received and not believed, by why",
                refused,
            );
            registry.register(
                "trunkline_node_probe_pairs",
                "Pairs of VLAN and peer that are probed",
                pairs,
            );
            registry.register_with_unit(
                "trunkline_node_probe_period",
                "How often each pair is probed",
                Unit::Seconds,
                period,
            );
        });
        counts
    }

    pub(super) fn sent(&self, frames: usize) {
        self.sent.inc_by(u64::try_from(frames).unwrap_or(u64::MAX));
    }

    pub(super) fn unsent(&self) {
        self.unsent.inc();
    }

    pub(super) fn received(&self) {
        self.received.inc();
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        self.refused.get_or_create(&Why { why: refusal.name() }).inc();
    }

    pub(super) fn pairs(&self, pairs: u32, period: Duration) {
        self.pairs.set(pairs.into());
        self.period.set(period.as_secs_f64());
    }

    /// How many frames were refused for this.
    #[cfg(test)]
    pub(super) fn refusals(&self, refusal: Refusal) -> u64 {
        self.refused.get_or_create(&Why { why: refusal.name() }).get()
    }
}
