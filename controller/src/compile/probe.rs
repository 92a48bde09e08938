//! Which nodes prove a VLAN to each other.
//!
//! Up to 16 nodes: every pair. More: the network node with every worker, and each worker with two others on a ring, whose order is
//! another in every epoch. So nobody has more than a few, a worker that comes concerns its two neighbours only, and what one epoch
//! does not see another may. On VLAN 400 guests never speak across workers: the network node with every worker, and that is all.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_proto::{
    Hash, Name, VlanId,
    resource::{Envelope, Probe, ProbeKey, Spec},
};

use crate::model::{Meta, ProbeSecret};

/// Most nodes that are proved pair by pair: 15 peers for each.
pub(crate) const ALL_PAIRS: usize = 16;

/// True when two versions of a probe are the same for whoever is proved by them.
pub(super) fn only_keys_differ(one: &Envelope, other: &Envelope) -> bool {
    let shape = |envelope: &Envelope| match envelope.open() {
        Ok(Spec::Probe(Probe {
            vlan,
            mtu,
            peers,
            keys: _,
        })) => Some((vlan, mtu, peers)),
        _ => None,
    };
    shape(one).is_some_and(|one| shape(other) == Some(one))
}

/// What every probe's keys are made from, in one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    secret: ProbeSecret,
    epoch: u32,
}

impl Keys {
    /// None before the cluster has a secret: then there are no probes.
    pub(super) fn of(meta: &Meta) -> Option<Self> {
        Some(Self {
            secret: meta.probe_secret.clone()?,
            epoch: meta.probe_epoch,
        })
    }

    /// The present key, which is signed with; the next one, which those sign with who hear of the change earlier; and the one before,
    /// which those sign with who hear of it later. So two nodes understand each other for as long as neither is a whole epoch behind.
    fn on(&self, vlan: VlanId) -> Vec<ProbeKey> {
        let before = self.epoch.checked_sub(1).filter(|id| *id > 0);
        let ids = [Some(self.epoch), self.epoch.checked_add(1), before];
        ids.into_iter().flatten().map(|id| self.secret.key(vlan, id)).collect()
    }

    /// The probes of a link's VLAN.
    pub(super) fn of_link<'a>(
        &self,
        vlan: VlanId,
        mtu: u16,
        workers: &BTreeSet<&'a Name>,
        netnode: Option<&'a Name>,
    ) -> Vec<(&'a Name, Probe)> {
        let nodes: BTreeSet<&Name> = workers.iter().copied().chain(netnode).collect();
        let mut pairs = Pairs::default();
        if nodes.len() <= ALL_PAIRS {
            for one in &nodes {
                nodes.iter().for_each(|other| pairs.join(one, other));
            }
        } else {
            for (one, other) in self.ring(vlan, workers) {
                pairs.join(one, other);
            }
            if let Some(netnode) = netnode {
                workers.iter().for_each(|worker| pairs.join(netnode, worker));
            }
        }
        self.probes(vlan, mtu, pairs)
    }

    /// The probes of VLAN 400.
    pub(super) fn of_internet<'a>(
        &self,
        mtu: u16,
        workers: &BTreeSet<&'a Name>,
        netnode: &'a Name,
    ) -> Vec<(&'a Name, Probe)> {
        let mut pairs = Pairs::default();
        workers.iter().for_each(|worker| pairs.join(netnode, worker));
        self.probes(VlanId::INTERNET, mtu, pairs)
    }

    /// Each with the next one, and the last with the first.
    fn ring<'a>(&self, vlan: VlanId, workers: &BTreeSet<&'a Name>) -> Vec<(&'a Name, &'a Name)> {
        let place = |node: &Name| Hash::of(format!("{} {vlan} {node}", self.epoch).as_bytes()).to_vec();
        let mut ring: Vec<&Name> = workers.iter().copied().collect();
        ring.sort_by_cached_key(|node| place(node));
        let next = ring.iter().copied().cycle().skip(1);
        ring.iter().copied().zip(next).collect()
    }

    fn probes<'a>(&self, vlan: VlanId, mtu: u16, pairs: Pairs<'a>) -> Vec<(&'a Name, Probe)> {
        let keys = self.on(vlan);
        let probe = |(node, peers): (&'a Name, BTreeSet<&Name>)| {
            let peers = peers.into_iter().cloned().collect();
            let keys = keys.clone();
            (node, Probe { vlan, mtu, peers, keys })
        };
        pairs.0.into_iter().map(probe).collect()
    }
}

/// The peers of each node that has any.
#[derive(Default)]
struct Pairs<'a>(BTreeMap<&'a Name, BTreeSet<&'a Name>>);

impl<'a> Pairs<'a> {
    /// Both ways; a node is never its own peer.
    fn join(&mut self, one: &'a Name, other: &'a Name) {
        if one != other {
            self.0.entry(one).or_default().insert(other);
            self.0.entry(other).or_default().insert(one);
        }
    }
}
