//! Nodes come, report, and go; time passes.

use std::collections::BTreeSet;

use trunkline_proto::{Digest, Name};

use super::{
    Context, Rejection,
    depart::{await_again, no_later, release, strike},
    edit::parse,
    event,
    state::Draft,
};
use crate::model::{Cluster, NodeRecord, NodeRole, Position};

pub(super) fn joined(cluster: &mut Cluster, name: Name, role: NodeRole, cx: &Context) -> Result<Draft, Rejection> {
    if let Some(known) = cluster.nodes.get(&name) {
        return if known.role == role {
            Ok(returned(cluster, &name, cx))
        } else {
            Err(refuse(
                "ROLE_CHANGED",
                &name,
                format!("node {name} is known in another role; remove it first"),
            ))
        };
    }
    if role == NodeRole::Netnode {
        if let Some(other) = &cluster.meta.netnode {
            return Err(refuse(
                "OTHER_NETNODE",
                &name,
                format!("the network node is {other}; remove it before {name} takes its place"),
            ));
        }
        cluster.meta.netnode = Some(name.clone());
    }
    // It may have been here before: one that was removed, or that joined after the export which was restored, still forwards whatever it
    // was given then. So it hears where the cluster is, and what nobody has got yet waits until it is clean as of that.
    let changed = cluster.position();
    let digest = hex::encode(Digest::default().to_vec());
    let record = NodeRecord::new(role, cx.now, changed, digest);
    cluster.nodes.insert(name.clone(), record);
    await_again(cluster, &name, changed);
    let mut draft = Draft::default();
    let mut event = event("node.joined", cx, None, format!("node {name} joined"));
    event.node = Some(name);
    draft.events.push(event);
    Ok(draft)
}

/// One that was declared gone is there after all.
fn returned(cluster: &mut Cluster, name: &Name, cx: &Context) -> Draft {
    let mut draft = Draft::default();
    let Some(record) = cluster.nodes.get_mut(name) else {
        return draft;
    };
    let Some(gone) = record.gone.take() else { return draft };
    let changed = record.changed;
    await_again(cluster, name, changed);
    let text = format!(
        "node {name}, which was declared gone at {gone}, has connected again; it removes what it should no longer have"
    );
    let mut event = event("node.returned", cx, None, text);
    event.node = Some(name.clone());
    draft.events.push(event);
    draft
}

pub(super) fn remove(cluster: &mut Cluster, name: &str, cx: &Context) -> Result<Draft, Rejection> {
    let name = parse("name", name)?;
    if !cluster.nodes.contains_key(&name) {
        return Err(missing(&name));
    }
    if cx.connected.contains(&name) {
        let text = format!("node {name} is connected; stop its agent first");
        return Err(refuse("CONNECTED", &name, text));
    }
    let vms = cluster.vms_on(&name);
    if vms > 0 {
        let text = format!(
            "{vms} VM(s) are placed on node {name}; move them away with `trunkctl node drain {name}`, then try again"
        );
        return Err(refuse("IN_USE", &name, text));
    }
    cluster.nodes.remove(&name);
    if cluster.meta.netnode.as_ref() == Some(&name) {
        cluster.meta.netnode = None;
    }
    let mut draft = Draft::default();
    strike_and_tell(cluster, &name, cx, &mut draft, |_| true);
    let mut event = event("node.removed", cx, None, format!("node {name} was removed for good"));
    event.node = Some(name);
    draft.events.push(event);
    Ok(draft)
}

pub(super) fn clean(cluster: &mut Cluster, name: &Name, term: u64, generation: u64, cx: &Context) -> Draft {
    let clean = Position { term, generation };
    let mut draft = Draft::default();
    // A node cannot have cleaned what it has not been told yet.
    if clean <= cluster.position() {
        strike_and_tell(cluster, name, cx, &mut draft, |removal| removal <= clean);
    }
    draft
}

/// Strikes a node off what waits for it, and tells of slices that no node has any more.
pub(super) fn strike_and_tell(
    cluster: &mut Cluster,
    name: &Name,
    cx: &Context,
    draft: &mut Draft,
    done: impl Fn(Position) -> bool,
) {
    let before = going(cluster);
    strike(cluster, name, cx, done);
    for (slice, uid) in before.difference(&going(cluster)) {
        let now = cluster.slices.get(slice).filter(|s| s.uid == *uid);
        if now.is_none_or(|s| s.deployed.is_none()) {
            let text = format!("slice {slice} is gone from every host");
            draft.events.push(event("slice.gone", cx, Some(slice), text));
        }
    }
}

/// Slices of which some node still has to take something away.
fn going(cluster: &Cluster) -> BTreeSet<(Name, u64)> {
    let waiting = cluster.departures.values().filter(|d| !d.waiting.is_empty());
    waiting.map(|d| (d.slice.clone(), d.uid)).collect()
}

pub(super) fn tick(cluster: &mut Cluster, cx: &Context) -> Draft {
    let mut draft = Draft::default();
    no_later(cluster, cx);
    draft.events.extend(release(cluster, cx));
    cluster.departures.retain(|_, departure| {
        let over = departure.free_at.is_some_and(|at| at <= cx.now);
        if over {
            for (vlan, link) in &departure.links {
                let text = format!("vlan {vlan} of link {} is gone from every node", link.name);
                let mut event = event("vlan.freed", cx, Some(&departure.slice), text);
                event.vlan = Some(*vlan);
                draft.events.push(event);
            }
        }
        !over
    });
    draft
}

pub(super) fn missing(node: &Name) -> Rejection {
    Rejection::NotFound {
        kind: "node",
        name: node.to_string(),
    }
}

pub(super) fn refuse(kind: &'static str, node: &Name, description: String) -> Rejection {
    Rejection::Precondition {
        kind,
        subject: format!("node {node}"),
        description,
    }
}
