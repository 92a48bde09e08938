//! Where the steps are read from: the status of the slices that the two are in.

use std::collections::BTreeSet;

use trunkline_proto::{
    Name, PortName, VlanId,
    resource::{Facts, Flows, Key, Kind, Probe, Spec, State as Health, Trunk},
    wire::{self, hop},
};

use super::{find::End, step::Step};
use crate::{
    converge::{NodeView, Views, slice_status},
    model::{Interface, Vm},
    transition::State,
};

/// An interface on a worker, as deployed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'a> {
    pub(super) slice: &'a Name,
    pub(super) vm: &'a Vm,
    pub(super) interface: &'a Interface,
}

impl Placed<'_> {
    pub(super) fn worker(&self) -> &Name {
        &self.vm.worker
    }
}

/// What was reported of everything on the way.
pub(super) struct Site<'a> {
    state: &'a State,
    views: &'a Views,
    resources: Vec<wire::ResourceStatus>,
    links: Vec<wire::LinkStatus>,
}

/// What a node told of a resource.
pub(super) enum Told<'a> {
    /// It looked at the version that it should have.
    Seen {
        health: Health,
        /// The node's own words; empty when ready.
        reason: &'a str,
        /// What that comes to, beside what its peers have said.
        judged: &'a str,
        facts: Option<&'a Facts>,
    },
    /// Nothing that counts, and why.
    Nothing { health: Health, reason: &'a str },
}

impl<'a> Site<'a> {
    pub(super) fn new(state: &'a State, views: &'a Views, ends: &[&End]) -> Self {
        let slices: BTreeSet<&Name> = ends.iter().map(|end| &end.slice.name).collect();
        let (mut resources, mut links) = (Vec::new(), Vec::new());
        for slice in slices {
            let of_slice = ends.iter().filter(|end| end.slice.name == *slice);
            let placed: Vec<Placed> = of_slice.filter_map(|end| end.placed()).collect();
            let link = |link: &wire::LinkStatus| {
                let named = |placed: &Placed| placed.interface.link.as_ref().is_some_and(|l| l.as_str() == link.name);
                placed.iter().any(named)
            };
            let vm = |vm: &wire::VmStatus| placed.iter().any(|placed| placed.vm.name.as_str() == vm.name);
            let status = slice_status(state, views, slice);
            resources.extend(status.vms.into_iter().filter(vm).flat_map(|vm| vm.resources));
            links.extend(status.links.into_iter().filter(link));
        }
        Self {
            state,
            views,
            resources,
            links,
        }
    }

    pub(super) fn told(&self, node: &Name, kind: Kind, name: &str) -> Told<'_> {
        let is_it = |status: &&wire::ResourceStatus| {
            let key = status.key.as_ref();
            status.node == node.as_str() && key.is_some_and(|key| key.kind == kind.number() && key.name == name)
        };
        let Some(status) = self.all().find(is_it) else {
            return Told::Nothing {
                health: Health::Pending,
                reason: "the node has not been told of it yet",
            };
        };
        let health = Health::try_from(status.state).unwrap_or(Health::Unknown);
        match &status.observation {
            Some(seen) => Told::Seen {
                health,
                reason: &seen.reason,
                judged: &status.reason,
                facts: seen.facts.as_ref(),
            },
            None => Told::Nothing {
                health,
                reason: &status.reason,
            },
        }
    }

    pub(super) fn flows(&self, node: &Name, vlan: VlanId) -> Told<'_> {
        self.told(node, Kind::Flows, &Flows::name_of(vlan))
    }

    /// What a node should have.
    pub(super) fn spec(&self, node: &Name, kind: Kind, name: &str) -> Option<Spec> {
        let key = Key {
            kind,
            name: name.parse().ok()?,
        };
        self.state.desired.node(node)?.resources.get(&key)?.open().ok()
    }

    /// What a node is told to probe on a VLAN.
    pub(super) fn probe(&self, node: &Name, vlan: VlanId) -> Option<Probe> {
        match self.spec(node, Kind::Probe, &Probe::name_of(vlan))? {
            Spec::Probe(probe) => Some(probe),
            _ => None,
        }
    }

    /// The directions on a link's VLAN.
    pub(super) fn paths(&self, vlan: VlanId) -> impl Iterator<Item = &wire::PathStatus> {
        let links = self.links.iter().filter(move |link| link.vlan == u32::from(vlan));
        links.flat_map(|link| &link.paths)
    }

    pub(super) fn netnode_name(&self) -> Option<&'a Name> {
        self.state.cluster.meta.netnode.as_ref()
    }

    /// The network node; also when there is none.
    pub(super) fn netnode(&self) -> Step {
        match self.netnode_name() {
            Some(node) => self.node(node),
            None => Step::new(hop::Kind::Node, None, "network node", "it has joined").waits(
                "no network node has joined yet",
                "start trunkline-netnode on the host that gives gateways, DHCP and NAT",
            ),
        }
    }

    /// A node, as far as it can be heard. One that is silent may still forward; one that an operator declared gone does not.
    pub(super) fn node(&self, node: &Name) -> Step {
        let step = Step::new(
            hop::Kind::Node,
            Some(node),
            node.as_str(),
            "it is connected and has reported",
        );
        let mend = format!("start the daemon of {node}, or mend its way to the controller");
        if let Some(gone) = self.gone(node) {
            let mend = format!("start {node} again, or move its VMs away with `trunkctl node drain {node}`");
            return step.stops(gone, mend);
        }
        match self.views.get(node) {
            Some(view) if view.connected && view.complete => step.passes("connected"),
            Some(view) if view.connected => step.unknown(
                "has connected; its full report has not come yet",
                "wait a moment and ask again",
            ),
            Some(NodeView {
                last_seen: Some(seen), ..
            }) => step.unknown(format!("is not connected, last heard at {seen}"), mend),
            _ => step.unknown("has not connected since the controller started", mend),
        }
    }

    /// That an operator has declared a node gone, and when.
    fn gone(&self, node: &Name) -> Option<String> {
        let gone = self.state.cluster.nodes.get(node)?.gone?;
        Some(format!("was declared gone at {gone}"))
    }

    fn all(&self) -> impl Iterator<Item = &wire::ResourceStatus> {
        let of_links = self.links.iter().flat_map(|link| &link.resources);
        self.resources.iter().chain(of_links)
    }

    pub(super) fn trunk(&self, node: &Name, vlan: VlanId) -> Step {
        let step = Step::new(
            hop::Kind::Trunk,
            Some(node),
            Trunk::NAME,
            format!("it is up and carries vlan {vlan}"),
        );
        let (health, reason, facts) = match self.told(node, Kind::Trunk, Trunk::NAME) {
            Told::Nothing { health, reason } => return untold(step, node, health, reason),
            Told::Seen {
                health, reason, facts, ..
            } => (health, reason, facts),
        };
        let again = again(node, reason);
        match (health, facts) {
            (Health::Unknown, _) => step.unknown(reason, find_out(node, reason)),
            (_, Some(Facts::Trunk(facts))) if health != Health::Ready && facts.interface.is_empty() => step.stops(
                reason,
                format!("name the right uplink in the configuration of {node}; {again}"),
            ),
            (_, Some(Facts::Trunk(facts))) if health != Health::Ready && !facts.vlans.contains(&vlan.into()) => {
                let carries: Vec<String> = facts.vlans.iter().map(ToString::to_string).collect();
                let carries = if carries.is_empty() {
                    "nothing".to_owned()
                } else {
                    carries.join(" ")
                };
                step.stops(format!("{} carries {carries}, and not {vlan}", facts.interface), again)
            }
            (_, Some(Facts::Trunk(facts))) if health != Health::Ready && reason.contains(" is not there") => {
                let mend = format!(
                    "create {0} on {node}, or name the right uplink in the configuration of {node}",
                    facts.interface
                );
                step.stops(reason, mend)
            }
            (_, Some(Facts::Trunk(facts))) if health != Health::Ready && !facts.up => {
                let mend = format!("look at the cable of {} on {node}, and at its peer", facts.interface);
                step.stops(reason, mend)
            }
            (Health::Ready, Some(Facts::Trunk(facts))) => step.passes(format!("{} is up", facts.interface)),
            (Health::Ready, _) => step.passes("right"),
            (Health::Degraded, _) => step.hinders(reason, format!("on {node} do what is said there")),
            (health, _) => step.broken(health, super::Effect::Hinders, reason, again),
        }
    }
}

/// A step of which nothing was told: as that is.
pub(super) fn untold(step: Step, node: &Name, health: Health, reason: &str) -> Step {
    match health {
        // Why, and what to do about it, is said where the node is told of.
        Health::Unknown => step.unknown(format!("{node} has not told"), ""),
        Health::Failed => step.stops(reason, refused(node.as_str())),
        _ => step.waits(reason, "wait a moment and ask again"),
    }
}

/// What helps against a refusal.
pub(super) fn refused(node: &str) -> String {
    format!(
        "upgrade the daemon of {node} to the controller's version; `trunkctl node show {node}` lists what it refuses"
    )
}

/// What a node mends without being asked.
pub(super) fn again(node: &Name, reason: &str) -> String {
    if reason.contains("not made by") {
        return format!("do on {node} what is said there: it is somebody else's, and Trunkline does not change it");
    }
    format!(
        "{node} puts that right by itself; if it stays, `trunkctl events --node {node}` and its log say what is in the way"
    )
}

/// What makes known what a node itself does not know.
pub(super) fn find_out(node: &Name, reason: &str) -> String {
    if reason.contains("ovs-vswitchd") || reason.contains("management socket") {
        format!("start ovs-vswitchd on {node}")
    } else if reason.contains("Open vSwitch") {
        format!("start ovsdb-server on {node}: without it nobody knows what its switch does")
    } else {
        format!("mend on {node} what is said there; its daemon looks again by itself")
    }
}

/// The network node's port of a VLAN.
pub(super) fn gateway_port(vlan: VlanId) -> String {
    PortName::gateway(vlan).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::{World, name},
        transition::Intent,
    };

    #[test]
    fn a_node_that_was_declared_gone_stops_what_comes_to_it() {
        let mut world = World::new();
        world.connected.remove(&name("w2"));
        world.must(Intent::DeclareNodeGone { name: "w2".into() });
        let views = Views::new();
        let site = Site::new(&world.state, &views, &[]);
        let hop = wire::Hop::from(site.node(&name("w2")));
        assert_eq!(
            (hop.state(), hop.seen.as_str()),
            (wire::State::Failed, &*format!("was declared gone at {}", world.now))
        );
        assert!(hop.mend.contains("`trunkctl node drain w2`"), "{hop:?}");
        assert_eq!(site.node(&name("w1")).effect, super::super::Effect::Unknown);
    }
}
