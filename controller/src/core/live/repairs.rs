//! Repairs that nodes tell more than once: a node keeps each until it knows that it was heard, and tells it again in the next session.

use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use trunkline_proto::{Name, resource::Key, wire};

use super::Live;

/// Repairs of one node that are remembered: twice as many as a node keeps.
const REMEMBERED: usize = 2000;

/// What a node has told, in whatever session; the oldest are forgotten first. In memory only: what is told again to a controller that has
/// started anew is in the journal twice.
#[derive(Debug, Default)]
pub(super) struct Heard {
    marks: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Heard {
    fn note(&mut self, mark: u64) -> bool {
        if !self.marks.insert(mark) {
            return false;
        }
        self.order.push_back(mark);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.marks.remove(&oldest);
        }
        true
    }
}

impl Live {
    /// True for a repair that the node has not told before: another resource, other words or another time by its own clock. One without
    /// a time is always new.
    pub fn is_new(&mut self, node: &Name, key: &Key, repair: &wire::Repair) -> bool {
        let Some(at) = &repair.at else { return true };
        let mut mark = DefaultHasher::new();
        (key, &repair.what, at.seconds, at.nanos).hash(&mut mark);
        self.repairs.entry(node.clone()).or_default().note(mark.finish())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_repair_is_new_once_for_each_node_resource_time_and_text() {
        let mut live = Live::default();
        let key = |name: &str| Key {
            kind: trunkline_proto::resource::Kind::Port,
            name: name.parse().unwrap(),
        };
        let (w1, w2): (Name, Name) = ("w1".parse().unwrap(), "w2".parse().unwrap());
        let repair = |what: &str, seconds: Option<i64>| wire::Repair {
            key: None,
            what: what.into(),
            at: seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 5 }),
        };
        assert!(live.is_new(&w1, &key("tap_1"), &repair("tag", Some(1))));
        assert!(!live.is_new(&w1, &key("tap_1"), &repair("tag", Some(1))), "told twice");
        assert!(live.is_new(&w2, &key("tap_1"), &repair("tag", Some(1))));
        assert!(live.is_new(&w1, &key("tap_2"), &repair("tag", Some(1))));
        assert!(live.is_new(&w1, &key("tap_1"), &repair("down", Some(1))));
        assert!(
            live.is_new(&w1, &key("tap_1"), &repair("tag", Some(2))),
            "it happened again"
        );
        for _ in 0..2 {
            assert!(live.is_new(&w1, &key("tap_1"), &repair("tag", None)));
        }
        for second in 0..100_000 {
            live.is_new(&w1, &key("tap_3"), &repair("loop", Some(second)));
        }
        let heard = &live.repairs[&w1];
        assert_eq!((heard.marks.len(), heard.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!live.is_new(&w1, &key("tap_3"), &repair("loop", Some(99_000))));
    }
}
