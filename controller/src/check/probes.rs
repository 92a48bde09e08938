//! The rules of probes: who proves a VLAN to whom, from the deployed revisions alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use trunkline_proto::{
    Name, VlanId,
    resource::{Key, Kind, Probe, Spec},
};

use super::{CheckError, Index};
use crate::{
    compile::{Desired, NodeDesired, probe::ALL_PAIRS},
    model::Cluster,
};

/// On the nodes that a change touched every VLAN that joins them to another node is probed, and no other; and whoever hears a node is
/// heard by it. Probes that were there `before` were looked at when they were new.
pub(super) fn check<'a>(
    index: &Index,
    cluster: &Cluster,
    desired: &Desired,
    before: &Desired,
    touched: impl IntoIterator<Item = &'a Name>,
) -> Result<(), CheckError> {
    let joined = Joined::of(index, cluster);
    let mut known = Known {
        desired,
        peers: BTreeMap::new(),
    };
    for node in touched {
        let (now, old) = (desired.node(node), before.node(node));
        let broken = |key: &Key| CheckError::Probe {
            node: node.clone(),
            probe: key.clone(),
        };
        let (keys, wanted) = (probes(now), joined.probed(node));
        if let Some(key) = keys.symmetric_difference(&wanted.keys().collect()).next() {
            return Err(broken(key));
        }
        for key in keys.union(&probes(old)) {
            let hash = |of: Option<&Arc<NodeDesired>>| Some(of?.resources.get(key)?.hash);
            if hash(now) == hash(old) {
                continue;
            }
            let (now, old) = (known.peers(node, key).clone(), peers(old, key));
            let shape = wanted.get(key).is_none_or(|vlan| joined.shape(node, *vlan, &now));
            let mut heard = |peer: &Name| known.peers(peer, key).contains(node);
            if !shape || old.union(&now).any(|peer| heard(peer) != now.contains(peer)) {
                return Err(broken(key));
            }
        }
    }
    Ok(())
}

/// The nodes that each VLAN is on.
struct Joined<'a> {
    index: &'a Index,
    netnode: Option<&'a Name>,
    /// Without a secret nothing is probed.
    secret: bool,
}

impl<'a> Joined<'a> {
    fn of(index: &'a Index, cluster: &'a Cluster) -> Self {
        Self {
            index,
            netnode: cluster.meta.netnode.as_ref(),
            secret: cluster.meta.probe_secret.is_some(),
        }
    }

    /// Its guests' workers, and the network node.
    fn nodes(&self, vlan: VlanId) -> BTreeSet<&'a Name> {
        let mut nodes: BTreeSet<&Name> = self.index.workers(vlan).collect();
        if !nodes.is_empty() {
            nodes.extend(self.netnode);
        }
        nodes
    }

    /// The probes of VLANs that join a node to another one that it is to hear.
    fn probed(&self, node: &Name) -> BTreeMap<Key, VlanId> {
        let joins = |vlan: &VlanId| {
            let others = self.index.workers(*vlan).chain(self.netnode).any(|other| other != node);
            others && (*vlan != VlanId::INTERNET || self.netnode.is_some())
        };
        let vlans: Vec<VlanId> = match self.netnode {
            _ if !self.secret => Vec::new(),
            Some(netnode) if netnode == node => self.index.all_vlans().collect(),
            _ => self.index.vlans(node).collect(),
        };
        let joined = vlans.into_iter().filter(joins);
        joined.filter_map(|vlan| Some((key(vlan)?, vlan))).collect()
    }

    /// True when these are the peers that a node may have.
    fn shape(&self, node: &Name, vlan: VlanId, peers: &BTreeSet<Name>) -> bool {
        let nodes = self.nodes(vlan);
        let others: BTreeSet<&Name> = nodes.iter().copied().filter(|other| *other != node).collect();
        let peers: BTreeSet<&Name> = peers.iter().collect();
        if self.netnode == Some(node) || (vlan != VlanId::INTERNET && nodes.len() <= ALL_PAIRS) {
            return peers == others;
        }
        let ring = if vlan == VlanId::INTERNET { 0 } else { 2 };
        let known = peers.is_subset(&others) && self.netnode.is_none_or(|netnode| peers.contains(netnode));
        known && peers.len() == ring + usize::from(self.netnode.is_some())
    }
}

/// Peers of the probes that were opened: those of a network node are asked for once for each of its workers.
struct Known<'a> {
    desired: &'a Desired,
    peers: BTreeMap<(Name, Key), BTreeSet<Name>>,
}

impl Known<'_> {
    fn peers(&mut self, node: &Name, key: &Key) -> &BTreeSet<Name> {
        let desired = self.desired;
        self.peers
            .entry((node.clone(), key.clone()))
            .or_insert_with(|| peers(desired.node(node), key))
    }
}

fn key(vlan: VlanId) -> Option<Key> {
    let name = Probe::name_of(vlan).parse().ok()?;
    let kind = Kind::Probe;
    Some(Key { kind, name })
}

fn probes(node: Option<&Arc<NodeDesired>>) -> BTreeSet<&Key> {
    let keys = node.into_iter().flat_map(|node| node.resources.keys());
    keys.filter(|key| key.kind == Kind::Probe).collect()
}

fn peers(node: Option<&Arc<NodeDesired>>, key: &Key) -> BTreeSet<Name> {
    let envelope = node.and_then(|node| node.resources.get(key));
    match envelope.map(|envelope| envelope.open()) {
        Some(Ok(Spec::Probe(probe))) => probe.peers,
        _ => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{model::NodeRole, testing::*};

    /// Whether what was compiled for `of` may be told for `cluster`.
    fn fits(cluster: &Cluster, of: &World) -> bool {
        let desired = &of.state.desired;
        let all: Vec<&Name> = desired.nodes().map(|(name, _)| name).collect();
        let index = Index::of(cluster, &of.settings).unwrap();
        check(&index, cluster, desired, &Desired::default(), all).is_ok()
    }

    fn three(workers: [&str; 3]) -> World {
        let mut world = World::new();
        world.join("w3", NodeRole::Worker);
        let vms = ["a", "b", "c"].iter().zip(workers);
        let vms = vms.map(|(vm, worker)| online(vm, worker, 1)).collect();
        let link = link(&["a.eth1", "b.eth1", "c.eth1"]);
        world.apply(vec![slice("s", vms, vec![link])], true).unwrap();
        world
    }

    #[test]
    fn probes_of_other_nodes_than_the_vlan_is_on_are_refused() {
        let (two, all) = (three(["w1", "w2", "w2"]), three(["w1", "w2", "w3"]));
        assert!(fits(&two.state.cluster, &two) && fits(&all.state.cluster, &all));
        assert!(!fits(&all.state.cluster, &two), "w3 is missing");
        assert!(!fits(&two.state.cluster, &all), "w3 is too many");
    }

    #[test]
    fn probes_without_a_secret_or_a_secret_without_probes_are_refused() {
        let with = three(["w1", "w2", "w3"]);
        let mut without = with.clone();
        without.state.cluster.meta.probe_secret = None;
        assert!(!fits(&without.state.cluster, &with));
        without.state.desired = Desired::compile(&without.state.cluster, &without.settings);
        assert!(fits(&without.state.cluster, &without));
        assert!(!fits(&with.state.cluster, &without));
    }

    #[test]
    fn who_is_no_longer_to_be_heard_must_have_been_told() {
        let (two, all) = (three(["w1", "w2", "w2"]), three(["w1", "w2", "w3"]));
        let index = Index::of(&two.state.cluster, &two.settings).unwrap();
        let told = |nodes: &[&str]| {
            let names: Vec<Name> = nodes.iter().copied().map(name).collect();
            check(
                &index,
                &two.state.cluster,
                &two.state.desired,
                &all.state.desired,
                &names,
            )
            .is_ok()
        };
        assert!(told(&["w1", "w2", "w3", "n1"]) && told(&["w3"]));
        // The same as before for w1, which still hears w3.
        let names = [name("w3")];
        let stale = check(
            &index,
            &two.state.cluster,
            &all.state.desired,
            &two.state.desired,
            &names,
        );
        assert!(stale.is_err());
    }
}
