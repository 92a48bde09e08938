//! Status of single resources.

use std::collections::BTreeMap;

use trunkline_proto::{
    Name,
    resource::{Key, Kind, Observation, State as Health},
    wire,
};

use super::{
    Detail, NodeView, Place, Views,
    path::{Told, narrowed},
};
use crate::transition::State;

/// What status is read from.
#[derive(Clone, Copy)]
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
    /// Counts by place, so that a resource under several links counts once, and as the worst that it is for any of them.
    pub(super) fn count(&self, counted: &mut BTreeMap<Place, Health>) {
        for (place, health) in &self.places {
            let known = counted.entry(place.clone()).or_insert(*health);
            *known = Health::worst([*known, *health]);
        }
    }
}

/// How a resource is, why, and what its node read back.
type Found<'a> = (Health, String, Option<&'a Observation>);

fn told(
    node: Option<&Name>,
    key: &Key,
    toward: Option<&Name>,
    (health, reason, seen): Found<'_>,
) -> wire::ResourceStatus {
    let observation = seen.map(|seen| match toward.filter(|_| key.kind == Kind::Probe) {
        Some(peer) => (&narrowed(seen, peer)).into(),
        None => seen.into(),
    });
    wire::ResourceStatus {
        node: node.map(ToString::to_string).unwrap_or_default(),
        key: Some(key.into()),
        state: wire::State::from(health).into(),
        reason,
        observation,
    }
}

impl<'a> Reader<'a> {
    /// Of a link, or of a VM on this worker: then of what nodes prove to others only what concerns that one.
    pub(super) fn parts(&self, places: Vec<Place>, worker: Option<&Name>, detail: Detail) -> Parts {
        let mut parts = Parts {
            health: Health::Ready,
            reason: String::new(),
            list: Vec::new(),
            places: Vec::new(),
        };
        for (node, key) in places {
            let toward = worker.filter(|worker| node.as_ref() != Some(worker));
            let (health, reason, observation) = self.health(node.as_ref(), &key, toward);
            if health.badness() > parts.health.badness() {
                parts.health = health;
                parts.reason.clone_from(&reason);
            }
            if detail == Detail::Whole {
                parts
                    .list
                    .push(told(node.as_ref(), &key, toward, (health, reason, observation)));
            }
            parts.places.push(((node, key), health));
        }
        parts
    }

    /// `toward`: of a probe only the direction from there.
    pub(super) fn status(&self, node: Option<&Name>, key: &Key, toward: Option<&Name>) -> wire::ResourceStatus {
        told(node, key, toward, self.health(node, key, toward))
    }

    /// How it is, why, and what the node read back.
    pub(super) fn health(&self, node: Option<&Name>, key: &Key, toward: Option<&Name>) -> Found<'a> {
        match node {
            None => (Health::Pending, "no network node has joined yet".to_owned(), None),
            Some(node) => self.on_node(node, key, toward),
        }
    }

    fn on_node(&self, node: &Name, key: &Key, toward: Option<&Name>) -> Found<'a> {
        let seen = match self.observed(node, key) {
            Ok(seen) => seen,
            Err((health, reason)) => return (health, reason, None),
        };
        // Who is to blame for a frame that does not come is not known to the node that misses it.
        if key.kind == Kind::Probe
            && matches!(seen.state, Health::Pending | Health::Degraded)
            && let Some((health, reason)) = self.worst_path(node, key, seen, toward)
        {
            return (health, reason, Some(seen));
        }
        let reason = match (seen.state, seen.reason.as_str()) {
            (Health::Ready, _) => String::new(),
            (state, "") => format!("{node} says that {key} is {state}"),
            (_, reason) => format!("{node}, {key}: {reason}"),
        };
        (seen.state, reason, Some(seen))
    }

    /// What a node said of the version that it should have, or why there is nothing that counts.
    pub(super) fn observed(&self, node: &Name, key: &Key) -> Told<'a> {
        let desired = self.state.desired.node(node);
        let Some(envelope) = desired.and_then(|d| d.resources.get(key)) else {
            return Err((Health::Pending, format!("{node} has not been told of it yet")));
        };
        let view = match self.views.get(node) {
            Some(view) if view.connected && view.complete => view,
            other => return Err((Health::Unknown, self.why_silent(node, other))),
        };
        if let Some(refusal) = view.refused.get(key).filter(|r| r.hash == envelope.hash) {
            return Err((Health::Failed, format!("{node} refused {key}: {}", refusal.reason)));
        }
        let since = desired.map(|d| d.since(key)).unwrap_or_default();
        let observed: Option<&Observation> = view.observations.get(key).filter(|o| o.hash == envelope.hash);
        if let Some(seen) = observed.filter(|_| view.seen >= since) {
            return Ok(seen);
        }
        let reason = if desired.is_some_and(|d| view.acked < d.changed) {
            format!("{node} has not taken {key} yet")
        } else {
            format!("{node} has taken {key} and not reported it yet")
        };
        Err((Health::Pending, reason))
    }

    /// Why nothing is known of a node; none when it has a session and has reported.
    pub(super) fn silence(&self, node: &Name) -> Option<String> {
        match self.views.get(node) {
            Some(view) if view.connected && view.complete => None,
            other => Some(self.why_silent(node, other)),
        }
    }

    fn why_silent(&self, node: &Name, view: Option<&NodeView>) -> String {
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
