//! Who is next. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use trunkline_proto::VlanId;

use super::frame::NodeId;

/// Names a pair.
pub type PairId = (VlanId, NodeId);

/// Moments at which pairs have something to do, in order.
#[derive(Debug, Default)]
pub struct Agenda {
    order: BTreeSet<(Duration, PairId)>,
    of: BTreeMap<PairId, Duration>,
}

impl Agenda {
    /// A pair has something to do then, and not when it said before; `None`: nothing.
    pub fn put(&mut self, pair: PairId, at: Option<Duration>) {
        let before = match at {
            Some(at) => self.of.insert(pair, at),
            None => self.of.remove(&pair),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, pair));
        }
        if let Some(at) = at {
            self.order.insert((at, pair));
        }
    }

    /// When the first one is due.
    #[must_use]
    pub fn first(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }

    /// The pairs that are due, the longest waiting first, but not more than `most`.
    #[must_use]
    pub fn due(&self, now: Duration, most: usize) -> Vec<PairId> {
        let due = self.order.iter().take_while(|(at, _)| *at <= now);
        due.take(most).map(|(_, pair)| *pair).collect()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.order.clear();
        self.of.clear();
    }
}
