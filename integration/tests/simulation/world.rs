//! What outlives every crash: what each host has made true, what operators were told, and what went wrong.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use trunkline_agent::{inbox::Held, node::Wake};
use trunkline_controller::{
    core::Core,
    model::{Cluster, Position},
    transition::Intent,
};
use trunkline_proto::{
    Hash, Name, VlanId,
    resource::{Key, Spec},
};

/// A slice, told from an earlier or later one of its name.
pub(crate) type Owner = (Name, u64);

/// What an operator knows of a slice: which one, its revision, what is deployed. `None`: there is none.
pub(crate) type Known = Option<(u64, u64, Option<u32>)>;

/// One resource on a host.
#[derive(Debug, Clone)]
pub(crate) struct Real {
    pub(crate) hash: Hash,
    pub(crate) spec: Spec,
    /// Whose VLAN it was in the desired state that brought it.
    pub(crate) owner: Option<Owner>,
}

/// A host and what is on it, whatever becomes of the program that runs there.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) real: BTreeMap<Key, Real>,
    /// The newest desired state that a pass went by.
    pub(crate) at: Position,
    /// Parts in a thousand of what is to be made or removed that fail.
    pub(crate) trouble: u32,
    /// Everything on it, or its inbox, was lost then.
    pub(crate) lost: Option<Duration>,
    /// An export that was restored does not know it, and it was given nothing since.
    pub(crate) stranger: bool,
    pub(crate) held: Option<watch::Receiver<Arc<Held>>>,
    pub(crate) wake: Option<Wake>,
    pub(crate) tasks: usize,
}

/// A call of an operator.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) intent: Intent,
    /// Slices that it may change.
    pub(crate) slices: Vec<Name>,
}

/// How much happened.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) passes: u64,
    pub(crate) calls: u64,
    pub(crate) refused: u64,
    pub(crate) partitions: u64,
    pub(crate) holds: u64,
    pub(crate) kills: u64,
    pub(crate) reboots: u64,
    pub(crate) wipes: u64,
    pub(crate) controller_kills: u64,
    pub(crate) failed_commits: u64,
    pub(crate) restores: u64,
    pub(crate) ready_looks: u64,
    pub(crate) vlans_moved: u64,
    pub(crate) virtual_seconds: u64,
}

/// Everything that is shared.
pub(crate) struct World {
    pub(crate) random: fastrand::Rng,
    pub(crate) hosts: BTreeMap<Name, Host>,
    /// Whose each VLAN was, by position.
    pub(crate) owners: BTreeMap<Position, BTreeMap<VlanId, Owner>>,
    /// Who had each VLAN last.
    last: BTreeMap<VlanId, Owner>,
    /// Whose each VLAN was in the export that was restored last.
    back: Option<(Position, BTreeMap<VlanId, Owner>)>,
    /// The controller that runs.
    pub(crate) core: Option<Arc<Core>>,
    pub(crate) controller_tasks: usize,
    pub(crate) calls: VecDeque<Call>,
    /// What operators were told last.
    pub(crate) known: BTreeMap<Name, Known>,
    pub(crate) wrong: Vec<String>,
    pub(crate) figures: Figures,
    log: Vec<String>,
    digest: DefaultHasher,
}

/// The world; a clone is the same one.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(crate) fn new(seed: u64, nodes: &[&str]) -> Self {
        let hosts = nodes.iter().map(|node| (node.parse().unwrap(), Host::default()));
        Self(Arc::new(Mutex::new(World {
            random: fastrand::Rng::with_seed(seed ^ 0x5eed),
            hosts: hosts.collect(),
            owners: BTreeMap::new(),
            last: BTreeMap::new(),
            back: None,
            core: None,
            controller_tasks: 0,
            calls: VecDeque::new(),
            known: BTreeMap::new(),
            wrong: Vec::new(),
            figures: Figures::default(),
            log: Vec::new(),
            digest: DefaultHasher::new(),
        })))
    }

    /// Never held while anything is waited for.
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl World {
    /// Remembers what happened; two runs of one seed say the same.
    pub(crate) fn say(&mut self, now: Duration, what: fmt::Arguments<'_>) {
        let line = format!("{:>8} ms {what}", now.as_millis());
        line.hash(&mut self.digest);
        self.log.push(line);
    }

    pub(crate) fn blame(&mut self, what: String) {
        if !self.wrong.contains(&what) {
            self.wrong.push(what);
        }
    }

    pub(crate) fn log(&self) -> &[String] {
        &self.log
    }

    /// Of everything that was said.
    pub(crate) fn digest(&self) -> u64 {
        self.digest.finish()
    }

    pub(crate) fn host(&mut self, node: &Name) -> &mut Host {
        self.hosts.get_mut(node).unwrap()
    }

    /// The newest term.
    pub(crate) fn term(&self) -> u64 {
        self.back.as_ref().map_or(1, |(at, _)| at.term)
    }

    /// Whose a VLAN was in the newest state not after `at`. Of what a restore has overtaken only VLANs count that the export leaves open.
    pub(crate) fn owner(&self, at: Position, vlan: VlanId) -> Option<Owner> {
        if at.term < self.term()
            && let Some(owner) = self.back.as_ref().and_then(|(_, owners)| owners.get(&vlan))
        {
            return Some(owner.clone());
        }
        let (_, owners) = self.owners.range(..=at).next_back()?;
        owners.get(&vlan).cloned()
    }

    /// Another state is in force: nobody was given a VLAN that something of another slice still stands on.
    pub(crate) fn committed(&mut self, cluster: &Cluster) {
        let mut owners = BTreeMap::new();
        for slice in cluster.slices.values() {
            let deployed = slice.deployed().into_iter().flat_map(|f| f.links.values());
            for link in slice.links.values().chain(deployed) {
                owners.insert(link.vlan, (slice.name.clone(), slice.uid));
            }
        }
        let mut wrong = Vec::new();
        for (node, host) in &self.hosts {
            for (key, real) in &host.real {
                let Some(vlan) = real.spec.vlan().filter(|vlan| *vlan != VlanId::INTERNET) else {
                    continue;
                };
                if let (Some(owner), Some(other)) = (&real.owner, owners.get(&vlan))
                    && owner != other
                {
                    wrong.push(format!(
                        "VLAN {vlan} was given to slice {other:?} while {node} still has {key} of slice {owner:?}"
                    ));
                }
            }
        }
        wrong.into_iter().for_each(|wrong| self.blame(wrong));
        for (vlan, owner) in &owners {
            let before = self.last.insert(*vlan, owner.clone());
            self.figures.vlans_moved += u64::from(before.is_some_and(|before| before != *owner));
        }
        self.owners.insert(cluster.position(), owners);
    }

    /// An export is in force again. What it says of a VLAN is so from now on, whatever was deployed since then.
    pub(crate) fn restored(&mut self, cluster: &Cluster) {
        self.committed_without_looking(cluster);
        let owners = self
            .owners
            .last_key_value()
            .map(|(_, owners)| owners.clone())
            .unwrap_or_default();
        self.back = Some((cluster.position(), owners.clone()));
        for (node, host) in &mut self.hosts {
            // A node that joined after the export was made is waited for by nobody, until it shows itself.
            host.stranger = !cluster.nodes.contains_key(node);
            for real in host.real.values_mut() {
                if host.stranger {
                    real.owner = None;
                } else if let Some(owner) = real.spec.vlan().and_then(|vlan| owners.get(&vlan)) {
                    real.owner = Some(owner.clone());
                }
            }
        }
        self.known = cluster
            .slices
            .values()
            .map(|s| (s.name.clone(), known(cluster, &s.name)))
            .collect();
    }

    fn committed_without_looking(&mut self, cluster: &Cluster) {
        let (hosts, wrong) = (std::mem::take(&mut self.hosts), self.wrong.len());
        self.committed(cluster);
        self.wrong.truncate(wrong);
        self.hosts = hosts;
    }

    /// Every slice is as operators were told, but for those that a call on its way may have changed.
    pub(crate) fn nothing_lost(&mut self, cluster: &Cluster) {
        let open: Vec<Name> = self.calls.iter().flat_map(|call| call.slices.clone()).collect();
        let mut names: Vec<Name> = self.known.keys().chain(cluster.slices.keys()).cloned().collect();
        names.retain(|name| !open.contains(name));
        for name in names {
            let (told, is) = (self.known.get(&name).cloned().flatten(), known(cluster, &name));
            if told != is {
                self.blame(format!(
                    "operators were told that slice {name} is {told:?} and it is {is:?}"
                ));
            }
        }
    }
}

/// What there is to know of a slice.
pub(crate) fn known(cluster: &Cluster, name: &Name) -> Known {
    let slice = cluster.slices.get(name)?;
    Some((slice.uid, slice.revision, slice.deployed))
}

impl Figures {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self {
            passes,
            calls,
            refused,
            partitions,
            holds,
            kills,
            reboots,
            wipes,
            controller_kills,
            failed_commits,
            restores,
            ready_looks,
            vlans_moved,
            virtual_seconds,
        } = other;
        self.passes += passes;
        self.calls += calls;
        self.refused += refused;
        self.partitions += partitions;
        self.holds += holds;
        self.kills += kills;
        self.reboots += reboots;
        self.wipes += wipes;
        self.controller_kills += controller_kills;
        self.failed_commits += failed_commits;
        self.restores += restores;
        self.ready_looks += ready_looks;
        self.vlans_moved += vlans_moved;
        self.virtual_seconds += virtual_seconds;
    }
}
