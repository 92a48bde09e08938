//! A node that is to hold nothing any more. Pure, as the goal that it is part of.

use trunkline_proto::wire::{GetStatusResponse, NodeStatus};

use super::goal::{Progress, Verdict};

/// A node that everything is moved away from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Emptied {
    pub(crate) node: String,
    /// An operator vouched that it is gone: it says nothing, and nobody waits for it.
    pub(crate) gone: bool,
}

impl Emptied {
    pub(super) fn judge(&self, status: &GetStatusResponse) -> Verdict {
        let empty = self
            .status(status)
            .is_none_or(|node| node.in_step && node.clean && node.resources == 0);
        match self.gone || empty {
            true => Verdict::Done,
            false => Verdict::NotYet,
        }
    }

    /// None for one that was forgotten meanwhile: it holds nothing that anybody waits for.
    fn status<'a>(&self, status: &'a GetStatusResponse) -> Option<&'a NodeStatus> {
        status.nodes.iter().find(|node| node.name == self.node)
    }

    pub(super) fn words(&self, status: &GetStatusResponse) -> String {
        match self.status(status) {
            _ if self.gone => "declared gone, and nobody waits for it".to_owned(),
            None => "forgotten".to_owned(),
            Some(node) if !node.connected => {
                "not connected, so it may still hold what it had; start its agent, or vouch with `trunkctl node gone` that it is dead"
                    .to_owned()
            }
            Some(node) if !node.in_step => "it has not let go of what it had yet".to_owned(),
            Some(node) if !node.clean => {
                let name = &self.node;
                format!("it is taking away what it had; `trunkctl node show {name}` says whether it holds something back")
            }
            Some(node) if node.resources > 0 => format!("it is to hold {} resources again", node.resources),
            Some(_) => "it holds nothing".to_owned(),
        }
    }

    /// Without a status: it says nothing of this yet.
    pub(super) fn progress(&self, status: Option<&GetStatusResponse>) -> Progress {
        let done = status.is_some_and(|status| self.judge(status) == Verdict::Done);
        Progress {
            slice: self.node.clone(),
            ready: 0,
            of: 0,
            words: status.map_or_else(|| "waiting for the controller".to_owned(), |status| self.words(status)),
            done,
        }
    }
}

#[cfg(test)]
mod tests {
    use trunkline_proto::wire;

    use super::*;
    use crate::wait::{Goal, Until};

    fn status(generation: u64, slices: Vec<wire::SliceStatus>) -> GetStatusResponse {
        GetStatusResponse {
            term: 1,
            generation,
            slices,
            ..GetStatusResponse::default()
        }
    }

    #[test]
    fn a_node_is_emptied_when_it_holds_nothing_and_what_was_moved_is_ready_elsewhere() {
        let slice = |name: &str, state: wire::State, removing| wire::SliceStatus {
            name: name.to_owned(),
            state: state.into(),
            deployed_number: 1,
            removing,
            resources: 4,
            resources_ready: 2,
            ..wire::SliceStatus::default()
        };
        let node = |in_step, resources, connected| wire::NodeStatus {
            name: "w1".to_owned(),
            connected,
            in_step,
            resources,
            clean: in_step,
            ..wire::NodeStatus::default()
        };
        let with = |generation, slices, node| GetStatusResponse {
            nodes: vec![node],
            ..status(generation, slices)
        };
        let goal = |gone, slices: &[&str]| Goal {
            slices: slices.iter().map(|s| (*s).to_owned()).collect(),
            until: Until::Ready,
            after: (1, 5),
            emptied: Some(Emptied {
                node: "w1".to_owned(),
                gone,
            }),
        };
        let others = slice("other", wire::State::Failed, false);
        let moved = |state| vec![slice("a", state, false), others.clone()];
        let (empty, full) = (node(true, 0, true), node(false, 0, true));
        let both = goal(false, &["a", "draft"]);
        assert_eq!(
            both.judge(&with(5, moved(wire::State::Ready), empty.clone())),
            Verdict::Done
        );
        assert_eq!(
            both.judge(&with(4, moved(wire::State::Ready), empty.clone())),
            Verdict::NotYet
        );
        let pending = with(5, moved(wire::State::Pending), empty.clone());
        assert_eq!(both.judge(&pending), Verdict::NotYet);
        assert_eq!(both.missing(&pending), ["a: 2/4 ready, pending"]);
        let dirty = wire::NodeStatus {
            clean: false,
            ..empty.clone()
        };
        assert_eq!(both.judge(&with(5, moved(wire::State::Ready), dirty)), Verdict::NotYet);
        let held = with(5, moved(wire::State::Ready), full.clone());
        assert_eq!(both.judge(&held), Verdict::NotYet);
        assert_eq!(both.missing(&held), ["w1: it has not let go of what it had yet"]);
        let going = with(5, vec![slice("a", wire::State::Ready, true)], empty);
        assert_eq!(
            both.judge(&going),
            Verdict::NotYet,
            "some node has not said that it is clean"
        );
        // Nothing was moved: it is about the node alone.
        assert_eq!(goal(false, &[]).judge(&held), Verdict::NotYet);
        assert_eq!(goal(false, &[]).progress(&held).len(), 1);
        assert_eq!(goal(true, &[]).judge(&held), Verdict::Done, "declared gone");
        assert_eq!(
            goal(false, &[]).judge(&status(5, moved(wire::State::Failed))),
            Verdict::Done,
            "forgotten"
        );
        let away = with(5, vec![], node(false, 0, false));
        assert!(goal(false, &[]).missing(&away)[0].contains("trunkctl node gone"));
    }
}
