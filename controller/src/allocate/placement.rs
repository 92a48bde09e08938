//! Where VMs go that nobody gave a worker.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_proto::Name;

use crate::model::{Cluster, NodeRecord, NodeRole};

/// The workers, and how many VMs each has; that is counted when somebody is to be placed.
#[derive(Debug)]
pub(crate) struct Placement<'a> {
    cluster: &'a Cluster,
    connected: &'a BTreeSet<Name>,
    /// Slices of which the drafts do not count.
    without: BTreeSet<Name>,
    /// VMs that are there besides.
    more: Vec<Name>,
    counts: Option<BTreeMap<&'a Name, u32>>,
}

impl<'a> Placement<'a> {
    /// Counts the VMs in all drafts but those of some slices.
    pub(crate) fn of(cluster: &'a Cluster, connected: &'a BTreeSet<Name>, without: BTreeSet<Name>) -> Self {
        Self {
            cluster,
            connected,
            without,
            more: Vec::new(),
            counts: None,
        }
    }

    /// One VM more is there.
    pub(crate) fn count(&mut self, worker: &Name) {
        match &mut self.counts {
            Some(counts) => {
                if let Some(vms) = counts.get_mut(worker) {
                    *vms += 1;
                }
            }
            None => self.more.push(worker.clone()),
        }
    }

    /// The worker of that name.
    pub(crate) fn worker(&self, name: &Name) -> Option<&'a NodeRecord> {
        self.cluster
            .nodes
            .get(name)
            .filter(|record| record.role == NodeRole::Worker)
    }

    fn workers(&self) -> impl Iterator<Item = (&'a Name, &'a NodeRecord)> + use<'a> {
        self.cluster
            .nodes
            .iter()
            .filter(|(_, record)| record.role == NodeRole::Worker)
    }

    /// True when new VMs may go there.
    pub(crate) fn takes(&self, name: &Name) -> bool {
        self.worker(name).is_some_and(NodeRecord::takes_vms)
    }

    /// Places one VM: on the worker with the fewest, on one that is connected for choice, on none that takes no new ones.
    pub(crate) fn place(&mut self) -> Option<Name> {
        let open = self.workers().filter(|(_, record)| record.takes_vms());
        self.place_on_one(open)
    }

    /// Places one VM that runs already: on the connected worker with the fewest, and on none that is not connected, where it would stop.
    pub(crate) fn place_now(&mut self, not_on: &Name) -> Option<Name> {
        let connected = self.connected;
        let open = self
            .workers()
            .filter(|(name, record)| *name != not_on && record.takes_vms() && connected.contains(*name));
        self.place_on_one(open)
    }

    /// True when a VM that runs already may go there.
    pub(crate) fn takes_now(&self, name: &Name) -> bool {
        self.takes(name) && self.connected.contains(name)
    }

    fn place_on_one(&mut self, open: impl Iterator<Item = (&'a Name, &'a NodeRecord)>) -> Option<Name> {
        let counts = self.counts.take().unwrap_or_else(|| self.counted());
        let vms = |name: &Name| counts.get(name).copied().unwrap_or_default();
        let best = open.min_by_key(|(name, _)| (!self.connected.contains(*name), vms(name)));
        let name = best.map(|(name, _)| name.clone());
        self.counts = Some(counts);
        let name = name?;
        self.count(&name);
        Some(name)
    }

    fn counted(&self) -> BTreeMap<&'a Name, u32> {
        let mut counts: BTreeMap<&Name, u32> = self.workers().map(|(name, _)| (name, 0)).collect();
        let slices = self
            .cluster
            .slices
            .values()
            .filter(|slice| !self.without.contains(&slice.name));
        let theirs = slices.flat_map(|slice| slice.vms.values()).map(|vm| &vm.worker);
        for worker in theirs.chain(&self.more) {
            if let Some(vms) = counts.get_mut(worker) {
                *vms += 1;
            }
        }
        counts
    }

    /// What to write instead of a worker that there is not: one of these, `or` something else.
    pub(crate) fn known(&self, or: &str) -> String {
        let names: Vec<&str> = self.workers().take(8).map(|(name, _)| name.as_str()).collect();
        if names.is_empty() {
            "no worker has joined yet; start one, then try again".to_owned()
        } else {
            format!("write one of {}{or}", names.join(", "))
        }
    }

    /// Why nothing can be placed, and what to do.
    pub(crate) fn full(&self) -> String {
        if self.workers().next().is_none() {
            return "no worker has joined yet, so there is nowhere to place it; start one, then try again".to_owned();
        }
        let closed = self
            .workers()
            .filter_map(|(name, record)| Some(format!("{name} {}", closed(record)?)));
        let closed: Vec<String> = closed.take(8).collect();
        format!(
            "no worker takes new VMs: {}; start another worker, or open one again with `trunkctl node uncordon`",
            closed.join(", ")
        )
    }
}

impl Placement<'_> {
    /// Why nothing that runs can go to any worker but this one, and what to do.
    pub(crate) fn full_now(&self, but: &Name) -> String {
        let others = self.workers().filter(|(name, _)| *name != but);
        let why = |name: &Name, record| match closed(record) {
            Some(closed) => Some(format!("{name} {closed}")),
            None if !self.connected.contains(name) => Some(format!("{name} is not connected")),
            None => None,
        };
        let why: Vec<String> = others.filter_map(|(name, record)| why(name, record)).take(8).collect();
        if why.is_empty() {
            return "there is no other worker; start one, then try again".to_owned();
        }
        format!(
            "no other worker is connected and takes new VMs: {}; start one of them or another one, or open one again with `trunkctl node \
             uncordon`",
            why.join(", ")
        )
    }
}

/// Why a worker takes no new VMs.
fn closed(record: &NodeRecord) -> Option<String> {
    match record.gone {
        Some(at) => Some(format!("was declared gone at {at}")),
        None => record.cordoned.then(|| "is cordoned".to_owned()),
    }
}

/// What to do about a worker that takes no new VMs.
pub(crate) fn refused(name: &Name, record: &NodeRecord) -> Option<String> {
    let closed = closed(record)?;
    let open = if record.gone.is_some() {
        format!("start {name}, which takes that back")
    } else {
        format!("open it again with `trunkctl node uncordon {name}`")
    };
    Some(format!(
        "worker {name} {closed} and takes no new VMs; name another, or {open}"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{model::Timestamp, testing::name};

    fn cluster(workers: &[(&str, bool, bool)]) -> Cluster {
        let mut cluster = Cluster::new("c");
        for (worker, cordoned, gone) in workers {
            let mut record = NodeRecord::new(
                NodeRole::Worker,
                Timestamp::default(),
                Default::default(),
                String::new(),
            );
            record.cordoned = *cordoned;
            record.gone = gone.then(Timestamp::default);
            cluster.nodes.insert(name(worker), record);
        }
        cluster
    }

    #[test]
    fn nothing_new_goes_to_a_worker_that_is_cordoned_or_gone() {
        let connected = [name("w1"), name("w2")].into();
        let closed = cluster(&[("w1", true, false), ("w2", false, true)]);
        let mut placement = Placement::of(&closed, &connected, BTreeSet::new());
        assert_eq!(placement.place(), None);
        let cluster = cluster(&[("w1", true, false), ("w2", false, true), ("w3", false, false)]);
        let mut placement = Placement::of(&cluster, &connected, BTreeSet::new());
        assert_eq!(placement.place(), Some(name("w3")), "the only one, be it not connected");
        let why = placement.full();
        assert!(why.contains("w1 is cordoned, w2 was declared gone at 1970"), "{why}");
        assert!(placement.takes(&name("w3")) && !placement.takes(&name("w1")));
    }

    #[test]
    fn what_runs_goes_to_nobody_who_is_away_and_the_answer_names_each() {
        let cluster = cluster(&[
            ("w1", false, false),
            ("w2", false, false),
            ("w3", true, false),
            ("w4", false, true),
        ]);
        let connected = [name("w1"), name("w3"), name("w4")].into();
        let mut placement = Placement::of(&cluster, &connected, BTreeSet::new());
        assert_eq!(placement.place_now(&name("w1")), None);
        assert_eq!(placement.place_now(&name("w2")), Some(name("w1")));
        assert!(placement.takes(&name("w2")) && !placement.takes_now(&name("w2")));
        let why = placement.full_now(&name("w1"));
        assert!(
            why.contains("w2 is not connected, w3 is cordoned, w4 was declared gone at"),
            "{why}"
        );
        let alone = self::cluster(&[("w1", false, false)]);
        let why = Placement::of(&alone, &connected, BTreeSet::new()).full_now(&name("w1"));
        assert!(why.contains("there is no other worker"), "{why}");
    }

    #[test]
    fn the_emptiest_of_the_connected_is_taken() {
        let cluster = cluster(&[("w1", false, false), ("w2", false, false), ("w3", false, false)]);
        let connected = [name("w2"), name("w3")].into();
        let mut placement = Placement::of(&cluster, &connected, BTreeSet::new());
        let placed: Vec<Name> = std::iter::from_fn(|| placement.place()).take(4).collect();
        assert_eq!(placed, [name("w2"), name("w3"), name("w2"), name("w3")]);
    }
}
