//! Status of single resources.

use std::collections::BTreeMap;

use trunkline_proto::{
    Name,
    resource::{Key, State as Health},
    wire,
};

use super::{NodeView, Place, Views};
use crate::transition::State;

/// What status is read from.
pub(super) struct Reader<'a> {
    pub(super) state: &'a State,
    pub(super) views: &'a Views,
}

/// The resources that a link or VM stands on, and the worst of them.
pub(super) struct Parts {
    pub(super) health: Health,
    pub(super) reason: String,
    pub(super) list: Vec<wire::ResourceStatus>,
    places: Vec<(Place, Health)>,
}

impl Parts {
    /// By place, so that a resource under several links counts once.
    pub(super) fn counted(&self) -> BTreeMap<Place, Health> {
        self.places.iter().cloned().collect()
    }
}

impl Reader<'_> {
    pub(super) fn parts(&self, places: Vec<Place>) -> Parts {
        let mut parts = Parts {
            health: Health::Ready,
            reason: String::new(),
            list: Vec::new(),
            places: Vec::new(),
        };
        for (node, key) in places {
            let (status, health) = self.status(node.as_ref(), &key);
            if health.badness() > parts.health.badness() {
                parts.health = health;
                parts.reason.clone_from(&status.reason);
            }
            parts.list.push(status);
            parts.places.push(((node, key), health));
        }
        parts
    }

    pub(super) fn status(&self, node: Option<&Name>, key: &Key) -> (wire::ResourceStatus, Health) {
        let (health, reason, observation) = match node {
            None => (Health::Pending, "no network node has joined yet".to_owned(), None),
            Some(node) => self.on_node(node, key),
        };
        let status = wire::ResourceStatus {
            node: node.map(ToString::to_string).unwrap_or_default(),
            key: Some(key.into()),
            state: wire::State::from(health).into(),
            reason,
            observation,
        };
        (status, health)
    }

    fn on_node(&self, node: &Name, key: &Key) -> (Health, String, Option<wire::Observation>) {
        let desired = self.state.desired.node(node);
        let Some(envelope) = desired.and_then(|d| d.resources.get(key)) else {
            return (Health::Pending, format!("{node} has not been told of it yet"), None);
        };
        let view = match self.views.get(node) {
            Some(view) if view.connected && view.complete => view,
            other => return (Health::Unknown, self.silence(node, other), None),
        };
        if let Some(refusal) = view.refused.get(key).filter(|r| r.hash == envelope.hash) {
            return (
                Health::Failed,
                format!("{node} refused {key}: {}", refusal.reason),
                None,
            );
        }
        let since = desired.map(|d| d.since(key)).unwrap_or_default();
        let observed = view.observations.get(key).filter(|o| o.hash == envelope.hash);
        if let Some(seen) = observed.filter(|_| view.seen >= since) {
            let reason = match (seen.state, seen.reason.as_str()) {
                (Health::Ready, _) => String::new(),
                (state, "") => format!("{node} says that {key} is {state}"),
                (_, reason) => format!("{node}, {key}: {reason}"),
            };
            return (seen.state, reason, Some(seen.into()));
        }
        let reason = if desired.is_some_and(|d| view.acked < d.changed) {
            format!("{node} has not taken {key} yet")
        } else {
            format!("{node} has taken {key} and not reported it yet")
        };
        (Health::Pending, reason, None)
    }

    fn silence(&self, node: &Name, view: Option<&NodeView>) -> String {
        let record = self.state.cluster.nodes.get(node);
        if let Some(gone) = record.and_then(|record| record.gone) {
            return format!(
                "{node} was declared gone at {gone}; start it again, or move its VMs away with `trunkctl node drain {node}`"
            );
        }
        match view {
            Some(view) if view.connected => format!("{node} has connected; its full report has not come yet"),
            Some(NodeView {
                last_seen: Some(seen), ..
            }) => {
                format!(
                    "{node} is not connected, last heard at {seen}; start its agent or mend its way to the controller"
                )
            }
            _ => format!(
                "{node} has not connected since the controller started; start its agent or mend its way to the controller"
            ),
        }
    }
}
