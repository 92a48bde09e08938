//! Deployed revisions, as resources on nodes.
//!
//! ```text
//!   Frozen of slice A --share--> A's part of each node --+
//!   Frozen of slice B --share--> B's part of each node --+--> NodeDesired: the parts and the trunk over all of them
//!   guests of VLAN 400 of all --> the internet's part ---+
//! ```
//!
//! The parts are kept, so a change costs what the slices and nodes cost that it touches; the result is the same as from scratch.
//! An envelope whose hash stays is kept as it is, with the trace context that it came with.

pub(crate) mod probe;
mod share;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use trunkline_proto::{
    Digest, Hash, Mac, Name, VlanId,
    resource::{Envelope, Key, Kind, Spec, Trunk},
};

use crate::{
    model::{Cluster, Position, SharedMap},
    parallel,
    settings::Settings,
};
use probe::Keys;
use share::{Guest, Part, Share, Surroundings};

/// The desired state of every node. Cloning is cheap.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    nodes: SharedMap<Name, Arc<NodeDesired>>,
    slices: SharedMap<Name, Arc<Part>>,
    internet: Arc<Part>,
    netnode: Option<Name>,
    keys: Option<Keys>,
}

/// The desired state of one node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeDesired {
    /// Where it last changed.
    pub changed: Position,
    /// Over all resources.
    pub digest: Digest,
    /// By kind and name.
    pub resources: BTreeMap<Key, Arc<Envelope>>,
    /// Where each resource got its present version, as far as that is known; see [`Self::since`].
    versions: BTreeMap<Key, Position>,
    /// Versions before the present one that differ from it in their keys only, and since when they were; see [`Self::renewed`].
    renewed: BTreeMap<Key, (Hash, Position)>,
    /// VLANs that its uplink carries, with the number of parts that need each.
    pub(crate) vlans: BTreeMap<VlanId, u32>,
}

impl Desired {
    /// From scratch, with every node's position from its record.
    pub fn compile(cluster: &Cluster, settings: &Settings) -> Self {
        let (mut desired, _) = Self::default().next(&Cluster::new(""), cluster, settings, "");
        for (name, record) in &cluster.nodes {
            desired.stamp(name, record.changed);
        }
        desired
    }

    /// What a node should have; `None` when it should have nothing.
    pub fn node(&self, name: &Name) -> Option<&Arc<NodeDesired>> {
        self.nodes.get(name)
    }

    /// Every node that should have something.
    pub fn nodes(&self) -> impl Iterator<Item = (&Name, &Arc<NodeDesired>)> {
        self.nodes.iter()
    }

    /// The desired state of `cluster`, and the nodes for which it is not what it was, that of `before`. Their position is left to
    /// [`Self::stamp`].
    pub(crate) fn next(
        &self,
        before: &Cluster,
        cluster: &Cluster,
        settings: &Settings,
        traceparent: &str,
    ) -> (Self, BTreeSet<Name>) {
        let netnode = cluster.meta.netnode.clone();
        let keys = Keys::of(&cluster.meta);
        let around = Surroundings {
            netnode: netnode.as_ref(),
            keys: keys.as_ref(),
            settings,
            traceparent,
        };
        let moved = netnode != self.netnode || keys != self.keys;
        let mut next = self.clone();
        next.netnode.clone_from(&netnode);
        next.keys.clone_from(&keys);
        let mut edits = Edits::default();
        // With other keys or another network node every part is another.
        let all = moved.then(|| self.slices.keys().chain(cluster.slices.keys()));
        let some = before.slices.differences(&cluster.slices).map(|(name, _, _)| name);
        let names: BTreeSet<&Name> = all.into_iter().flatten().chain(some).collect();
        let (mut guests, mut new) = (moved, Vec::new());
        for name in names {
            let deployed = cluster
                .slices
                .get(name)
                .and_then(|slice| Some((slice, slice.deployed()?)));
            let of = deployed.map(|(slice, frozen)| (slice.uid, frozen.number));
            let part = self.slices.get(name);
            if !moved && part.map(|part| part.of) == of {
                continue;
            }
            if let Some(part) = part {
                guests |= !part.guests.is_empty();
                edits.drop_part(part);
                next.slices.remove(name);
            }
            new.extend(deployed);
        }
        let weight = new.iter().map(|(_, frozen)| frozen.vms.len()).sum();
        let parts = parallel::map(&new, weight, |(slice, frozen)| {
            Arc::new(Part::of_slice(slice, frozen, around))
        });
        for ((slice, _), part) in new.into_iter().zip(parts) {
            guests |= !part.guests.is_empty();
            edits.add_part(&part);
            next.slices.insert(slice.name.clone(), part);
        }
        if guests {
            let internet = Arc::new(Part::of_internet(&next.guests(), around));
            if internet != self.internet {
                edits.replace_part(&self.internet, &internet);
                next.internet = internet;
            }
        }
        let touched = edits.apply(&mut next.nodes, traceparent);
        (next, touched)
    }

    /// Sets where a node's desired state last changed, and with it every resource that changed.
    pub(crate) fn stamp(&mut self, node: &Name, position: Position) {
        if let Some(desired) = self.nodes.get_mut(node) {
            let desired = Arc::make_mut(desired);
            desired.changed = position;
            let versions = &desired.versions;
            let new = desired.resources.keys().filter(|key| !versions.contains_key(*key));
            let new: BTreeMap<Key, Position> = new.map(|key| (key.clone(), position)).collect();
            // Where all are new they need not find their places one by one.
            if versions.is_empty() {
                desired.versions = new;
            } else {
                desired.versions.extend(new);
            }
        }
    }

    /// Any resource of the node may have changed: other settings than when its position was recorded.
    pub(crate) fn all_changed(&mut self, node: &Name) {
        if let Some(desired) = self.nodes.get_mut(node) {
            let desired = Arc::make_mut(desired);
            desired.versions.clear();
            desired.renewed.clear();
        }
    }

    /// Without what is known only since the start.
    #[cfg(test)]
    pub(crate) fn after_a_restart(mut self) -> Self {
        let names: Vec<Name> = self.nodes.keys().cloned().collect();
        for name in names {
            let changed = self.nodes[&name].changed;
            self.all_changed(&name);
            self.stamp(&name, changed);
        }
        self
    }

    /// Slices that do not put the same on nodes as in `later`.
    pub(crate) fn changed_slices<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = &'a Name> {
        let parts = self.slices.differences(&later.slices);
        let same = |was: Option<&Arc<Part>>, is: Option<&Arc<Part>>| matches!((was, is), (Some(was), Some(is)) if Arc::ptr_eq(was, is));
        parts
            .filter(move |(_, was, is)| !same(*was, *is))
            .map(|(name, _, _)| name)
    }

    /// Slices that put something on one of these nodes.
    pub(crate) fn slices_on<'a>(&'a self, nodes: &'a BTreeSet<Name>) -> impl Iterator<Item = &'a Name> {
        let parts = self.slices.iter();
        let on = move |part: &Part| nodes.iter().any(|node| part.nodes.contains_key(node));
        parts.filter(move |(_, part)| on(part)).map(|(name, _)| name)
    }

    /// Nodes that a slice puts something on.
    pub(crate) fn nodes_of(&self, slice: &Name) -> impl Iterator<Item = &Name> {
        self.slices.get(slice).into_iter().flat_map(|part| part.nodes.keys())
    }

    /// VLANs that a slice's deployed revision has on each node.
    pub(crate) fn vlans_of(&self, slice: &Name) -> BTreeMap<&Name, &BTreeSet<VlanId>> {
        let part = self.slices.get(slice);
        part.into_iter()
            .flat_map(|p| p.nodes.iter().map(|(node, share)| (node, &share.vlans)))
            .collect()
    }

    fn guests(&self) -> BTreeMap<Mac, Guest> {
        let guests = self.slices.values().flat_map(|part| &part.guests);
        guests.map(|(mac, guest)| (*mac, guest.clone())).collect()
    }
}

/// What parts leave and join the nodes' desired state.
#[derive(Default)]
struct Edits<'a> {
    dropped: BTreeMap<Name, Vec<&'a Share>>,
    /// Parts that have a share for the node.
    added: BTreeMap<Name, Vec<Arc<Part>>>,
}

impl<'a> Edits<'a> {
    fn drop_part(&mut self, part: &'a Part) {
        for (node, share) in &part.nodes {
            self.dropped.entry(node.clone()).or_default().push(share);
        }
    }

    fn add_part(&mut self, part: &Arc<Part>) {
        for node in part.nodes.keys() {
            self.added.entry(node.clone()).or_default().push(part.clone());
        }
    }

    /// Nodes for which both are the same are left alone: there may be a thousand, and one guest more concerns two of them.
    fn replace_part(&mut self, old: &'a Part, new: &Arc<Part>) {
        for (node, share) in &old.nodes {
            if !new.nodes.get(node).is_some_and(|n| n.is_same(share)) {
                self.dropped.entry(node.clone()).or_default().push(share);
            }
        }
        for (node, share) in &new.nodes {
            if !old.nodes.get(node).is_some_and(|o| o.is_same(share)) {
                self.added.entry(node.clone()).or_default().push(new.clone());
            }
        }
    }

    fn apply(self, nodes: &mut SharedMap<Name, Arc<NodeDesired>>, traceparent: &str) -> BTreeSet<Name> {
        let names: BTreeSet<&Name> = self.dropped.keys().chain(self.added.keys()).collect();
        let names: Vec<&Name> = names.into_iter().collect();
        let edit = |name: &&Name| {
            let old = nodes.get(*name).cloned().unwrap_or_default();
            let mut new = NodeDesired::clone(&old);
            let dropped = self.dropped.get(*name).map_or(&[][..], Vec::as_slice);
            let added = self.added.get(*name).into_iter().flatten();
            let added: Vec<&Share> = added.filter_map(|part| part.nodes.get(*name)).collect();
            new.edit(&old, dropped, &added, traceparent);
            (new.digest != old.digest, new)
        };
        let of = |(name, parts): (&Name, &Vec<Arc<Part>>)| {
            let shares = parts.iter().filter_map(|part| part.nodes.get(name));
            shares.map(|share| share.resources.len()).sum::<usize>()
        };
        let edited = parallel::map(&names, self.added.iter().map(of).sum(), edit);
        let names: Vec<Name> = names.into_iter().cloned().collect();
        let mut touched = BTreeSet::new();
        for (name, (other, new)) in names.into_iter().zip(edited) {
            if other {
                touched.insert(name.clone());
            }
            if new.resources.is_empty() {
                nodes.remove(&name);
            } else {
                nodes.insert(name, Arc::new(new));
            }
        }
        touched
    }
}

impl NodeDesired {
    /// Nothing at all, since `changed`.
    pub fn nothing(changed: Position) -> Self {
        Self {
            changed,
            ..Self::default()
        }
    }

    /// Where a resource got the version that it has; nobody has it from before. After a restart it is where the node last changed.
    pub fn since(&self, key: &Key) -> Position {
        self.versions.get(key).copied().unwrap_or(self.changed)
    }

    /// The version before the present one, and since when it was, of a probe that got new keys and nothing else: what a node says of
    /// it proves as much, because both versions' frames count at every peer.
    pub fn renewed(&self, key: &Key) -> Option<(Hash, Position)> {
        self.renewed.get(key).copied()
    }

    /// All that leaves goes before anything joins, so that a key may pass from one part to another.
    fn edit(&mut self, old: &Self, dropped: &[&Share], added: &[&Share], traceparent: &str) {
        for share in dropped {
            share.resources.keys().for_each(|key| self.remove(key));
            for vlan in &share.vlans {
                let count = self.vlans.remove(vlan).unwrap_or(1) - 1;
                if count > 0 {
                    self.vlans.insert(*vlan, count);
                }
            }
        }
        // What has nothing yet is filled at once; otherwise each finds its place.
        let first = self.resources.is_empty() && old.resources.is_empty();
        if first {
            let all = added.iter().flat_map(|share| share.resources.values());
            self.resources = all.map(|envelope| (envelope.key.clone(), envelope.clone())).collect();
            for (key, envelope) in &self.resources {
                self.digest.add(key, envelope.hash);
            }
        }
        for share in added {
            for envelope in share.resources.values().filter(|_| !first) {
                self.put(old, envelope.clone());
            }
            for vlan in &share.vlans {
                *self.vlans.entry(*vlan).or_default() += 1;
            }
        }
        self.trunk(old, traceparent);
        let hash = |of: &BTreeMap<Key, Arc<Envelope>>, key: &Key| of.get(key).map(|envelope| envelope.hash);
        let resources = &self.resources;
        self.renewed
            .retain(|key, _| resources.contains_key(key) && hash(resources, key) == hash(&old.resources, key));
        for (key, now) in resources.iter().filter(|(key, _)| key.kind == Kind::Probe) {
            let before = old.resources.get(key).filter(|before| before.hash != now.hash);
            if let Some(before) = before.filter(|before| probe::only_keys_differ(before, now)) {
                self.renewed.insert(key.clone(), (before.hash, old.since(key)));
            }
        }
        self.versions
            .retain(|key, _| resources.contains_key(key) && hash(resources, key) == hash(&old.resources, key));
    }

    /// A node that has anything has a trunk, be it an empty one.
    fn trunk(&mut self, old: &Self, traceparent: &str) {
        let trunk = Spec::Trunk(Trunk {
            vlans: self.vlans.keys().copied().collect(),
        });
        let envelope = Envelope::seal(&trunk, traceparent);
        self.remove(&envelope.key);
        if !self.resources.is_empty() {
            self.put(old, Arc::new(envelope));
        }
    }

    fn put(&mut self, old: &Self, envelope: Arc<Envelope>) {
        let kept = old.resources.get(&envelope.key).filter(|o| o.hash == envelope.hash);
        let envelope = kept.cloned().unwrap_or(envelope);
        self.remove(&envelope.key);
        self.digest.add(&envelope.key, envelope.hash);
        self.resources.insert(envelope.key.clone(), envelope);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(gone) = self.resources.remove(key) {
            self.digest.remove(key, gone.hash);
        }
    }
}
