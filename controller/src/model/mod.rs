//! What the controller knows for good: plain data, shared by `Arc` where a change leaves a part alone.
//!
//! ```text
//!   Cluster --- meta, nodes, departures
//!      `-- Slice --- pool, draft (vms, links)          edited freely, touches no host
//!             `----- revisions: number -> Frozen       `deployed` names the one that is desired state
//! ```
//!
//! A VLAN or an address of VLAN 400 is in use while a draft, a deployed revision or a departure holds it.

mod hold;
mod node;
mod probe;
pub mod rows;
mod shared_map;
mod slice;
mod time;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use trunkline_proto::{LinkSubnet, Name, VlanId, VmId};

pub use hold::Hold;
pub use node::{Given, NodeRecord, NodeRole};
pub use probe::ProbeSecret;
pub use shared_map::SharedMap;
pub use slice::{Frozen, Interface, Link, Pool, Slice, VlanRange, Vm};
pub use time::Timestamp;

/// Everything that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Counters.
    pub meta: Meta,
    /// By name.
    pub slices: SharedMap<Name, Arc<Slice>>,
    /// Every node that ever joined and was not removed.
    pub nodes: SharedMap<Name, NodeRecord>,
    /// What is on its way out. Keyed by the revision that began it and the slice's name.
    pub departures: BTreeMap<(u64, Name), Departure>,
}

/// The counters of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Drawn when the cluster was made.
    pub cluster_id: String,
    /// Rises with every restore.
    pub term: u64,
    /// One more with every commit.
    pub revision: u64,
    /// One more with every commit that changes a node's desired state.
    pub generation: u64,
    /// The next VM gets this id; ids are never used again.
    pub next_vm_id: u32,
    /// The network node, once one has joined.
    pub netnode: Option<Name>,
    /// For a while after a restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// What the keys of probe frames are made from. Rows from before there were probes do not have it; the first
    /// [`Intent::Tick`](crate::transition::Intent::Tick) gives them one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_secret: Option<ProbeSecret>,
    /// Id of the keys in use; rises with every rotation.
    #[serde(default)]
    pub probe_epoch: u32,
    /// When the keys were last rotated.
    #[serde(default)]
    pub probe_rotated: Timestamp,
}

/// (term, generation): the order of everything that a node is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Position {
    /// Compared first.
    pub term: u64,
    /// Within a term it only rises.
    pub generation: u64,
}

impl Position {
    /// Nothing was ever told.
    pub fn is_start(&self) -> bool {
        *self == Self::default()
    }
}

/// What a deployed revision stopped using. Its VLANs and addresses are nobody else's until it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// Name of the slice, which may be gone.
    pub slice: Name,
    /// Which slice of that name.
    pub uid: u64,
    /// What each VLAN was.
    pub links: BTreeMap<VlanId, DepartingLink>,
    /// Addresses of VLAN 400, with the VM that had each.
    pub addresses: BTreeMap<Ipv4Addr, VmId>,
    /// Nodes that have not reported it gone, with the position that they must have cleaned.
    pub waiting: BTreeMap<Name, Position>,
    /// Set once nobody is waited for.
    pub free_at: Option<Timestamp>,
}

/// The link that a departing VLAN was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepartingLink {
    /// Its name.
    pub name: Name,
    /// Its subnet.
    pub subnet: LinkSubnet,
}

impl Cluster {
    /// A cluster with nothing in it. `id` is drawn by the caller, and so is what [`Meta::probe_with`] is given.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            meta: Meta {
                cluster_id: id.into(),
                term: 1,
                revision: 0,
                generation: 0,
                next_vm_id: VmId::MIN,
                netnode: None,
                hold: None,
                probe_secret: None,
                probe_epoch: 0,
                probe_rotated: Timestamp::default(),
            },
            slices: SharedMap::new(),
            nodes: SharedMap::new(),
            departures: BTreeMap::new(),
        }
    }

    /// Term and generation of now.
    pub fn position(&self) -> Position {
        Position {
            term: self.meta.term,
            generation: self.meta.generation,
        }
    }

    /// The deployed revision of every slice that has one.
    pub fn deployed(&self) -> impl Iterator<Item = (&Arc<Slice>, &Arc<Frozen>)> {
        self.slices
            .values()
            .filter_map(|slice| Some((slice, slice.deployed()?)))
    }

    /// The slice whose deployed link has this VLAN. VLAN 400 is everybody's.
    pub fn slice_on(&self, vlan: VlanId) -> Option<&Name> {
        let has = |frozen: &Frozen| frozen.links.values().any(|link| link.vlan == vlan);
        let found = self.deployed().find(|(_, frozen)| has(frozen));
        found.map(|(slice, _)| &slice.name)
    }

    /// VMs placed on a node, in drafts or deployed; one that is in both counts once.
    pub fn vms_on(&self, node: &Name) -> u32 {
        let mut ids = BTreeSet::new();
        for slice in self.slices.values() {
            let deployed = slice.deployed().into_iter().flat_map(|f| f.vms.values());
            let vms = slice.vms.values().chain(deployed);
            ids.extend(vms.filter(|vm| vm.worker == *node).map(|vm| vm.id));
        }
        u32::try_from(ids.len()).unwrap_or(u32::MAX)
    }

    /// When the next departure is over or the probes' keys are due, for the caller's timer: call
    /// [`Intent::Tick`](crate::transition::Intent::Tick) then.
    pub fn next_due(&self) -> Option<Timestamp> {
        let hold = self.meta.hold.iter().filter_map(|hold| hold.free_at);
        let departures = self.departures.values().filter_map(|d| d.free_at);
        departures.chain(hold).chain(self.meta.rotation_due()).min()
    }
}
