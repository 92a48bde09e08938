//! A node without its controller says so: once when it begins, once when it is over, and in its metrics all the while.

use std::time::SystemTime;

use tokio::time::Instant;

use crate::metrics::NodeMetrics;

/// Whether the node is alone, and since when.
pub(super) struct Alone {
    node: String,
    metrics: NodeMetrics,
    since: Option<Instant>,
    reason: String,
}

impl Alone {
    pub(super) fn new(node: String, metrics: NodeMetrics) -> Self {
        Self {
            node,
            metrics,
            since: None,
            reason: String::new(),
        }
    }

    /// A session ended, or none came about.
    pub(super) fn ended(&mut self, controller: &str, reason: &str) {
        let node = &self.node;
        if self.since.is_none() {
            let now = SystemTime::now();
            self.since = Some(Instant::now());
            self.metrics.alone(Some(now));
            let since = unix(now);
            tracing::warn!(
                node,
                controller,
                since,
                reason,
                "alone: no session with the controller; the last desired state stays, and drift is put right"
            );
        } else if self.reason != reason {
            tracing::info!(node, controller, reason, "still alone");
        }
        reason.clone_into(&mut self.reason);
    }

    /// The controller has welcomed us.
    pub(super) fn over(&mut self) {
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(node = self.node, seconds, "no longer alone");
            self.reason.clear();
        }
        self.metrics.alone(None);
    }
}

/// Seconds since 1970: the log's own time stamp is what a person reads.
fn unix(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    #[tokio::test]
    async fn a_node_without_its_controller_says_so_until_it_is_over() {
        let (metrics, mut registry) = (NodeMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        let shown = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            let since = "trunkline_node_alone_since_timestamp_seconds ";
            let since: u64 = text
                .lines()
                .find_map(|line| line.strip_prefix(since))
                .unwrap()
                .parse()
                .unwrap();
            (text.contains("trunkline_node_alone 1\n"), since)
        };
        let mut alone = Alone::new("w1".to_owned(), metrics);
        assert_eq!(shown(), (false, 0));
        alone.ended("https://c", "refused");
        let (is_alone, since) = shown();
        assert!(is_alone && since > 1_700_000_000);
        alone.ended("https://c", "no route");
        assert_eq!(shown(), (true, since), "since when does not move");
        alone.over();
        assert_eq!(shown(), (false, 0));
    }
}
