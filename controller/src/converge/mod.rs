//! How far what is desired is true, from what the nodes reported.
//!
//! One resource's status, first rule that fits:
//!
//! 1. its node is not connected, or has not finished the full report of its session: `unknown`, since when;
//! 2. the node refused this version: `failed`, with the node's reason;
//! 3. the node observed this version, and has looked since the resource got it: what it said. An observation of another version is
//!    ignored, and so is one of the same version from before the resource was another for a while;
//! 4. otherwise: `pending`, and what is being waited for.
//!
//! A link, VM or slice is as bad as its worst part ([`Health::worst`]). A link stands on the probes of its nodes as on everything
//! else, and a VM with internet on what its worker and the network node prove to each other; what a probe says of each direction is
//! in `path.rs`.

mod path;
mod resource;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use trunkline_proto::{
    Hash, Name, PortName, VlanId,
    resource::{Flows, Key, Kind, Observation, Probe, State as Health, Trunk},
    wire,
};

use crate::{
    leftovers::{HeldBack, Orphan},
    model::{Frozen, Link, Position, Slice, Timestamp, Vm},
    transition::State,
};
use path::{Path, tell};
use resource::Reader;

/// What is known of a node from its sessions; kept in memory only.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeView {
    /// It has a session.
    pub connected: bool,
    /// Its last heartbeat.
    pub last_seen: Option<Timestamp>,
    /// Its full report has come in this session: from here on silence means unchanged.
    pub complete: bool,
    /// What it last acknowledged.
    pub acked: Position,
    /// It holds just what it should.
    pub in_step: bool,
    /// Versions that it did not take.
    pub refused: BTreeMap<Key, Refusal>,
    /// The newest of each resource.
    pub observations: BTreeMap<Key, Observation>,
    /// What was desired when it last looked: what it has not said is unchanged as of then.
    pub seen: Position,
    /// Up to where it read back as gone what it should no longer have.
    pub clean: Position,
    /// Things with our mark that it found and nobody wants.
    pub orphans: Vec<Orphan>,
    /// Removals that wait for an operator.
    pub held: Option<Arc<HeldBack>>,
}

/// A version that a node did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which version.
    pub hash: Hash,
    /// The node's words.
    pub reason: String,
}

/// By name of node.
pub type Views = BTreeMap<Name, NodeView>;

/// Slices that have a status: deployed, or with something still on its way out.
pub fn slices_with_status(state: &State) -> Vec<Name> {
    let deployed = state.cluster.deployed().map(|(slice, _)| slice.name.clone());
    let leaving = state.cluster.departures.values().filter(|d| !d.waiting.is_empty());
    let names: BTreeSet<Name> = deployed.chain(leaving.map(|d| d.slice.clone())).collect();
    names.into_iter().collect()
}

/// True for a slice that has a status.
pub fn has_status(state: &State, name: &Name) -> bool {
    let slice = state.cluster.slices.get(name);
    slice.is_some_and(|slice| slice.deployed().is_some()) || !holding(state, name).is_empty()
}

/// Nodes of which the status of these slices speaks.
pub fn nodes_of<'a>(state: &'a State, slices: &BTreeSet<Name>) -> BTreeSet<&'a Name> {
    let departures = state.cluster.departures.values();
    let waiting = departures.filter(|departure| slices.contains(&departure.slice));
    let waiting = waiting.flat_map(|departure| departure.waiting.keys());
    let have = slices.iter().flat_map(|slice| state.desired.nodes_of(slice));
    let netnode = state.cluster.meta.netnode.as_ref();
    waiting.chain(have).chain(netnode).collect()
}

/// Status of a slice. One that is not deployed has no state of its own; while hosts still hold something of it, it is pending.
pub fn slice_status(state: &State, views: &Views, name: &Name) -> wire::SliceStatus {
    let holding = holding(state, name);
    let mut status = wire::SliceStatus {
        name: name.to_string(),
        removing: !holding.is_empty(),
        ..wire::SliceStatus::default()
    };
    let slice = state.cluster.slices.get(name);
    match slice.and_then(|s| Some((s, s.deployed()?))) {
        Some((slice, frozen)) => deployed_status(state, views, slice, frozen, &mut status),
        None if status.removing => {
            status.set_state(wire::State::Pending);
            status.reason = removing_reason(views, &holding);
        }
        None => status.reason = "not deployed".into(),
    }
    status
}

/// Status of a node, as far as its desired state goes.
pub fn node_status(state: &State, views: &Views, name: &Name) -> wire::NodeStatus {
    let resources = node_resources(state, views, name);
    let view = views.get(name);
    wire::NodeStatus {
        name: name.to_string(),
        connected: view.is_some_and(|v| v.connected),
        generation: view.map_or(0, |v| v.acked.generation),
        in_step: view.is_some_and(|v| v.connected && v.in_step),
        resources: count(resources.len()),
        resources_ready: count(resources.iter().filter(|r| r.state() == wire::State::Ready).count()),
    }
}

/// Status of everything that a node should have.
pub fn node_resources(state: &State, views: &Views, name: &Name) -> Vec<wire::ResourceStatus> {
    let reader = Reader { state, views };
    let node = state.desired.node(name);
    let keys = node.into_iter().flat_map(|n| n.resources.keys());
    keys.map(|key| reader.status(Some(name), key, None).0).collect()
}

fn deployed_status(state: &State, views: &Views, slice: &Slice, frozen: &Frozen, status: &mut wire::SliceStatus) {
    let reader = Reader { state, views };
    let mut whole = Whole::default();
    let mut counted = BTreeMap::new();
    for link in frozen.links.values() {
        let parts = reader.parts(link_parts(state, frozen, link), None);
        parts.count(&mut counted);
        let probes = probes(state, link.vlan, &nodes(state, frozen, link));
        let probes: Vec<(&Name, &Key, Probe)> = probes
            .iter()
            .filter_map(|(node, key)| Some((node, key, reader.probe(node, key)?)))
            .collect();
        let paths = paths(&reader, &probes);
        let reason = tell(parts.reason, &paths, state.cluster.meta.netnode.as_ref());
        whole.take(&parts.health, || format!("link {}: {reason}", link.name));
        status.links.push(wire::LinkStatus {
            name: link.name.to_string(),
            vlan: link.vlan.into(),
            state: wire::State::from(parts.health).into(),
            reason,
            resources: parts.list,
            paths: paths.into_iter().map(wire::PathStatus::from).collect(),
        });
    }
    for vm in frozen.vms.values() {
        let parts = reader.parts(vm_parts(state, vm), Some(&vm.worker));
        parts.count(&mut counted);
        whole.take(&parts.health, || format!("vm {}: {}", vm.name, parts.reason));
        status.vms.push(wire::VmStatus {
            name: vm.name.to_string(),
            worker: vm.worker.to_string(),
            state: wire::State::from(parts.health).into(),
            reason: parts.reason,
            resources: parts.list,
        });
    }
    status.set_state(whole.health.into());
    status.reason = whole.reason;
    status.deployed_number = frozen.number;
    status.generation = frozen.position.generation;
    status.resources = count(counted.len());
    status.resources_ready = count(counted.values().filter(|h| **h == Health::Ready).count());
    debug_assert_eq!(slice.deployed, Some(frozen.number));
}

/// The worst so far, and the first reason for it.
struct Whole {
    health: Health,
    reason: String,
}

impl Default for Whole {
    fn default() -> Self {
        Self {
            health: Health::Ready,
            reason: String::new(),
        }
    }
}

impl Whole {
    fn take(&mut self, health: &Health, reason: impl FnOnce() -> String) {
        if health.badness() > self.health.badness() {
            self.health = *health;
            self.reason = reason();
        }
    }
}

/// Where a part is, and which. Without a node: nobody is there to have it.
type Place = (Option<Name>, Key);

/// Every direction between a link's nodes that is probed, by name.
fn paths<'a>(reader: &Reader, probes: &'a [(&'a Name, &'a Key, Probe)]) -> Vec<Path<'a>> {
    let to = |(node, key, probe): &'a (&'a Name, &'a Key, Probe)| {
        let peers = probe.peers.iter();
        peers.map(move |peer| reader.path(peer, node, key, probe))
    };
    let mut paths: Vec<Path> = probes.iter().flat_map(to).collect();
    paths.sort_by_key(|path| (path.from, path.to));
    paths
}

/// Workers of its ends, and the network node.
fn nodes(state: &State, frozen: &Frozen, link: &Link) -> BTreeSet<Name> {
    let vms = link.ends.iter().filter_map(|end| frozen.vms.get(&end.vm));
    let workers = vms.map(|vm| vm.worker.clone());
    workers.chain(state.cluster.meta.netnode.clone()).collect()
}

/// Where a VLAN is proved: nowhere, while only one node has it.
fn probes(state: &State, vlan: VlanId, nodes: &BTreeSet<Name>) -> Vec<(Name, Key)> {
    let Some(key) = key(Kind::Probe, &Probe::name_of(vlan)) else {
        return Vec::new();
    };
    let probed = |node: &&Name| {
        let desired = state.desired.node(node);
        desired.is_some_and(|desired| desired.resources.contains_key(&key))
    };
    let nodes = nodes.iter().filter(probed);
    nodes.map(|node| (node.clone(), key.clone())).collect()
}

/// Ports of its ends, the flows and the trunks under them, what the network node gives, and the proof that they meet: last, for a
/// node that is missing says more than who misses it.
fn link_parts(state: &State, frozen: &Frozen, link: &Link) -> Vec<Place> {
    let mut places = Vec::new();
    let mut workers = BTreeSet::new();
    for end in &link.ends {
        let Some(vm) = frozen.vms.get(&end.vm) else { continue };
        let interface = vm.interfaces.get(usize::from(end.interface.index()));
        places.extend(interface.and_then(|i| Some((Some(vm.worker.clone()), port_key(&i.tap)?))));
        workers.insert(vm.worker.clone());
    }
    for worker in workers {
        places.extend(worker_parts(worker, link.vlan));
    }
    places.extend(network_parts(state, link.vlan, link.dhcp, false));
    places.extend(proof(state, link.vlan, &nodes(state, frozen, link)));
    places
}

/// Its own ports outside links, and with internet all of VLAN 400 that it stands on.
fn vm_parts(state: &State, vm: &Vm) -> Vec<Place> {
    let worker = Some(vm.worker.clone());
    let own = vm.interfaces.iter().filter(|i| i.link.is_none());
    let mut places: Vec<Place> = own.filter_map(|i| Some((worker.clone(), port_key(&i.tap)?))).collect();
    if vm.internet {
        places.extend(worker_parts(vm.worker.clone(), VlanId::INTERNET));
        places.extend(network_parts(state, VlanId::INTERNET, true, true));
        let netnode = state.cluster.meta.netnode.clone();
        let nodes = netnode.into_iter().chain(worker).collect();
        places.extend(proof(state, VlanId::INTERNET, &nodes));
    }
    places
}

fn proof(state: &State, vlan: VlanId, nodes: &BTreeSet<Name>) -> impl Iterator<Item = Place> {
    let probes = probes(state, vlan, nodes);
    probes.into_iter().map(|(node, key)| (Some(node), key))
}

/// What every guest of the VLAN on this worker stands on.
fn worker_parts(worker: Name, vlan: VlanId) -> impl Iterator<Item = Place> {
    let keys = [key(Kind::Flows, &Flows::name_of(vlan)), trunk_key()];
    keys.into_iter().flatten().map(move |key| (Some(worker.clone()), key))
}

fn network_parts(state: &State, vlan: VlanId, dhcp: bool, nat: bool) -> Vec<Place> {
    let netnode = state.cluster.meta.netnode.clone();
    let mut keys = vec![key(Kind::Gateway, PortName::gateway(vlan).as_str())];
    if dhcp {
        keys.push(key(Kind::Dhcp, PortName::dhcp(vlan).as_str()));
    }
    if nat {
        keys.push(key(Kind::Nat, &format!("nat_vlan{vlan}")));
    }
    if netnode.is_some() {
        keys.push(trunk_key());
    }
    keys.into_iter().flatten().map(|key| (netnode.clone(), key)).collect()
}

fn port_key(tap: &PortName) -> Option<Key> {
    key(Kind::Port, tap.as_str())
}

fn trunk_key() -> Option<Key> {
    key(Kind::Trunk, Trunk::NAME)
}

/// Every name given here is a valid one.
fn key(kind: Kind, name: &str) -> Option<Key> {
    let name = name.parse().ok()?;
    Some(Key { kind, name })
}

/// Nodes that still hold something of a slice that is to go.
fn holding(state: &State, slice: &Name) -> BTreeSet<Name> {
    let departures = state.cluster.departures.values().filter(|d| d.slice == *slice);
    departures.flat_map(|d| d.waiting.keys().cloned()).collect()
}

fn removing_reason(views: &Views, holding: &BTreeSet<Name>) -> String {
    let mut parts = Vec::new();
    for node in holding {
        let connected = views.get(node).is_some_and(|v| v.connected);
        parts.push(if connected {
            format!("{node} is removing it")
        } else {
            format!("{node} is not connected and still holds it")
        });
    }
    parts.join("; ")
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
