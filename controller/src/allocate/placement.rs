//! Where VMs go that nobody gave a worker.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_proto::Name;

use crate::model::{Cluster, NodeRecord, NodeRole, Slice};

/// The workers, and how many VMs each has.
#[derive(Debug)]
pub(crate) struct Placement<'a> {
    workers: BTreeMap<Name, (&'a NodeRecord, u32)>,
    connected: &'a BTreeSet<Name>,
}

impl<'a> Placement<'a> {
    /// Counts the VMs in the drafts of these slices.
    pub(crate) fn of(cluster: &'a Cluster, connected: &'a BTreeSet<Name>, counted: impl Fn(&Slice) -> bool) -> Self {
        let workers = cluster.nodes.iter().filter(|(_, n)| n.role == NodeRole::Worker);
        let mut placement = Self {
            workers: workers.map(|(name, record)| (name.clone(), (record, 0))).collect(),
            connected,
        };
        for slice in cluster.slices.values().filter(|slice| counted(slice)) {
            slice.vms.values().for_each(|vm| placement.count(&vm.worker));
        }
        placement
    }

    /// One VM more is there.
    pub(crate) fn count(&mut self, worker: &Name) {
        if let Some((_, vms)) = self.workers.get_mut(worker) {
            *vms += 1;
        }
    }

    /// The worker of that name.
    pub(crate) fn worker(&self, name: &Name) -> Option<&'a NodeRecord> {
        self.workers.get(name).map(|(record, _)| *record)
    }

    /// True when new VMs may go there.
    pub(crate) fn takes(&self, name: &Name) -> bool {
        self.worker(name).is_some_and(NodeRecord::takes_vms)
    }

    /// Places one VM: on the worker with the fewest, on one that is connected for choice, on none that takes no new ones.
    pub(crate) fn place(&mut self) -> Option<Name> {
        let open = self.workers.iter().filter(|(_, (record, _))| record.takes_vms());
        let best = open.min_by_key(|(name, (_, vms))| (!self.connected.contains(*name), *vms));
        let name = best.map(|(name, _)| name.clone())?;
        self.count(&name);
        Some(name)
    }

    /// Places one VM that runs already: on the connected worker with the fewest, and on none that is not connected, where it would stop.
    pub(crate) fn place_now(&mut self, not_on: &Name) -> Option<Name> {
        let open = self
            .workers
            .iter()
            .filter(|(name, _)| *name != not_on && self.takes_now(name));
        let name = open.min_by_key(|(_, (_, vms))| *vms).map(|(name, _)| name.clone())?;
        self.count(&name);
        Some(name)
    }

    /// True when a VM that runs already may go there.
    pub(crate) fn takes_now(&self, name: &Name) -> bool {
        self.takes(name) && self.connected.contains(name)
    }

    /// What to write instead of a worker that there is not: one of these, `or` something else.
    pub(crate) fn known(&self, or: &str) -> String {
        let names: Vec<&str> = self.workers.keys().take(8).map(Name::as_str).collect();
        if names.is_empty() {
            "no worker has joined yet; start one, then try again".to_owned()
        } else {
            format!("write one of {}{or}", names.join(", "))
        }
    }

    /// Why nothing can be placed, and what to do.
    pub(crate) fn full(&self) -> String {
        if self.workers.is_empty() {
            return "no worker has joined yet, so there is nowhere to place it; start one, then try again".to_owned();
        }
        let closed = self
            .workers
            .iter()
            .filter_map(|(name, (record, _))| Some(format!("{name} {}", closed(record)?)));
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
        let others = self.workers.iter().filter(|(name, _)| *name != but);
        let why = |name: &Name, record| match closed(record) {
            Some(closed) => Some(format!("{name} {closed}")),
            None if !self.connected.contains(name) => Some(format!("{name} is not connected")),
            None => None,
        };
        let why: Vec<String> = others
            .filter_map(|(name, (record, _))| why(name, record))
            .take(8)
            .collect();
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
        let mut placement = Placement::of(&closed, &connected, |_| true);
        assert_eq!(placement.place(), None);
        let cluster = cluster(&[("w1", true, false), ("w2", false, true), ("w3", false, false)]);
        let mut placement = Placement::of(&cluster, &connected, |_| true);
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
        let mut placement = Placement::of(&cluster, &connected, |_| true);
        assert_eq!(placement.place_now(&name("w1")), None);
        assert_eq!(placement.place_now(&name("w2")), Some(name("w1")));
        assert!(placement.takes(&name("w2")) && !placement.takes_now(&name("w2")));
        let why = placement.full_now(&name("w1"));
        assert!(
            why.contains("w2 is not connected, w3 is cordoned, w4 was declared gone at"),
            "{why}"
        );
        let alone = self::cluster(&[("w1", false, false)]);
        let why = Placement::of(&alone, &connected, |_| true).full_now(&name("w1"));
        assert!(why.contains("there is no other worker"), "{why}");
    }

    #[test]
    fn the_emptiest_of_the_connected_is_taken() {
        let cluster = cluster(&[("w1", false, false), ("w2", false, false), ("w3", false, false)]);
        let connected = [name("w2"), name("w3")].into();
        let mut placement = Placement::of(&cluster, &connected, |_| true);
        let placed: Vec<Name> = std::iter::from_fn(|| placement.place()).take(4).collect();
        assert_eq!(placed, [name("w2"), name("w3"), name("w2"), name("w3")]);
    }
}
