//! The ingress of each TAP, shut for the host's own network stack.
//!
//! With the userspace datapath ovs-vswitchd reads a copy of each frame from a packet socket, and the kernel's stack gets the frame as
//! well: past all flows. Settings of the device stop most of it ([`crate::netlink`]), but not IPv4 from 0.0.0.0 to all or to a group,
//! which needs no route back; so a guest would reach the host's UDP sockets. The kernel serves packet sockets first, then the ingress
//! hook, then its stack. So a chain at that hook that drops everything stops the stack and not the switch.
//!
//! With the kernel's datapath there must be none: the hook comes before the switch's own, which takes every frame, so nothing is left
//! for the stack. The devices of the bridge and of the probe need none: no flow leads a guest's frame there. Nor has the uplink one:
//! guests of other hosts come in by it with a tag only, and what has a tag that no device is there for is heard by nobody.
//!
//! All is in one table `netdev trunkline-agent` with our mark, an empty chain: a chain for each TAP, named like it. What is there is read only when TAPs or the table have changed, and now and then.

mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tokio::sync::watch;

pub use plan::{Plan, Table, plan};
use trunkline_proto::daemon::failpoint;

use crate::netlink;

/// Our table's name; its family is `netdev`.
pub const TABLE: &str = "trunkline-agent";
/// An empty chain that says that the table is ours.
pub const MARK_CHAIN: &str = "owned-by-trunkline-agent";
/// How long a pass goes on with what went wrong, before it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// TAPs of ours that are there, by name, with their index.
pub type Taps = BTreeMap<String, u32>;

/// Keeps the ingress of TAPs shut.
#[derive(Debug)]
pub struct Ingress {
    changes: watch::Receiver<u64>,
    every: Duration,
    seen: Option<Seen>,
}

/// What the last look has left.
#[derive(Debug)]
struct Seen {
    taps: Taps,
    table: Table,
    trouble: Option<String>,
    at: Instant,
}

impl Ingress {
    /// One that looks when `changes` tells of a change of the table, and every so often.
    #[must_use]
    pub fn new(changes: watch::Receiver<u64>, every: Duration) -> Self {
        Self {
            changes,
            every,
            seen: None,
        }
    }

    /// Looks more or less often.
    pub fn every(&mut self, every: Duration) {
        self.every = every;
    }

    /// Shuts the ingress of these TAPs and of no other device. Answers which of them were found open that had been shut, and how.
    pub fn settle(&mut self, taps: &Taps) -> BTreeMap<String, &'static str> {
        if self.stands(taps) {
            return BTreeMap::new();
        }
        // What changes from here on is looked at again.
        self.changes.borrow_and_update();
        let before = self.seen.take();
        let (mut lost, mut table, mut trouble) = (BTreeMap::new(), Table::Absent, None);
        match Self::look_and_act(taps, before.as_ref()) {
            Ok((found, left)) => {
                if let Some(before) = &before {
                    lost = before.lost(taps, &found);
                }
                table = left;
            }
            Err(error) => {
                let text = crate::chain(&error);
                if before.is_none_or(|before| before.trouble.as_ref() != Some(&text)) && !taps.is_empty() {
                    tracing::warn!(error = text, "the ingress of TAPs could not be shut");
                }
                trouble = Some(text);
            }
        }
        self.seen = Some(Seen {
            taps: taps.clone(),
            table,
            trouble,
            at: Instant::now(),
        });
        lost
    }

    /// What was found, and what is there now.
    fn look_and_act(taps: &Taps, before: Option<&Seen>) -> Result<(Table, Table), netlink::Error> {
        let found = look()?;
        let fresh = |(name, index): &(&String, &u32)| {
            let known = |before: &Seen| before.taps.get(*name).is_some_and(|known| known != *index);
            before.is_some_and(known)
        };
        let fresh: BTreeSet<String> = taps.iter().filter(fresh).map(|(name, _)| name.clone()).collect();
        let plan = plan(taps, &fresh, &found);
        if plan.is_empty() {
            return Ok((found.clone(), found));
        }
        let (make, remove) = (plan.make.len(), plan.remove.len());
        failpoint::reach("ingress.before-batch");
        plan.to_batch().commit()?;
        failpoint::reach("ingress.after-batch");
        tracing::info!(make, remove, "ingress of TAPs shut");
        Ok((found, look()?))
    }

    fn stands(&self, taps: &Taps) -> bool {
        let changed = self.changes.has_changed().unwrap_or(false);
        let stands = |seen: &Seen| {
            let wait = if seen.trouble.is_some() { RETRY } else { self.every };
            !changed && seen.taps == *taps && seen.at.elapsed() < wait
        };
        self.seen.as_ref().is_some_and(stands)
    }

    /// Why the host's stack hears what comes by a TAP.
    #[must_use]
    pub fn problem(&self, tap: &str) -> Option<String> {
        let seen = self.seen.as_ref()?;
        let reason = match (&seen.trouble, &seen.table) {
            (Some(trouble), _) => trouble.clone(),
            (None, Table::Foreign) => {
                format!("a table `netdev {TABLE}` that was not made by Trunkline is there; remove or rename it")
            }
            (None, Table::Ours(chains)) if chains.get(tap) == Some(&true) => return None,
            (None, Table::Ours(_) | Table::Absent) => format!("{tap} has no chain in the table `netdev {TABLE}`"),
        };
        Some(format!("the host itself hears what this guest sends to all: {reason}"))
    }

    /// True when there is no chain of a TAP that has gone.
    #[must_use]
    pub fn is_tidy(&self) -> bool {
        let tidy = |seen: &Seen| plan(&seen.taps, &BTreeSet::new(), &seen.table).remove.is_empty();
        self.seen.as_ref().is_none_or(tidy)
    }
}

impl Seen {
    /// TAPs that were shut, are still the same devices, and are open.
    fn lost(&self, taps: &Taps, found: &Table) -> BTreeMap<String, &'static str> {
        let (Table::Ours(had), None) = (&self.table, &self.trouble) else {
            return BTreeMap::new();
        };
        let shut =
            |(name, index): &(&String, &u32)| self.taps.get(*name) == Some(*index) && had.get(*name) == Some(&true);
        let open = |(name, _): (&String, &u32)| {
            let words = match found {
                Table::Ours(chains) => match chains.get(name) {
                    Some(true) => return None,
                    Some(false) => "the TAP's nftables chain was changed",
                    None => "the TAP's nftables chain was gone",
                },
                Table::Absent | Table::Foreign => "the TAP's nftables chain was gone",
            };
            Some((name.clone(), words))
        };
        taps.iter().filter(shut).filter_map(open).collect()
    }
}

fn look() -> Result<Table, netlink::Error> {
    let (there, chains) = netlink::nft::netdev_chains(TABLE)?;
    Ok(Table::read(there, chains))
}

#[cfg(test)]
mod tests;
