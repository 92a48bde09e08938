//! What the front door counts.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How connections ended up; clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct ListenerStats {
    handshakes: Family<Labels, Counter>,
    open: Gauge,
}

/// What came of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Outcome {
    Accepted,
    /// No TLS, or a certificate that one side does not take.
    Failed,
    TimedOut,
    /// Authenticated, but there was no place left.
    Full,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: Outcome,
}

impl ListenerStats {
    /// Shows the counters among the process's metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "trunkline_tls_handshakes",
            "TLS handshakes by outcome",
            self.handshakes.clone(),
        );
        registry.register(
            "trunkline_connections",
            "Authenticated connections that are open",
            self.open.clone(),
        );
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.handshakes.get_or_create(&Labels { outcome }).inc();
    }

    pub(super) fn opened(&self) {
        self.open.inc();
    }

    pub(super) fn closed(&self) {
        self.open.dec();
    }

    #[cfg(test)]
    pub(super) fn seen(&self, outcome: Outcome) -> u64 {
        self.handshakes.get_or_create(&Labels { outcome }).get()
    }
}
