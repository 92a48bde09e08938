//! Things on the host that carry our mark and that nobody wants: leftovers of an earlier life.
//!
//! What an update takes away goes at once, also when another life of this program took it. What neither this process nor its inbox
//! ever wanted may be there by a mistake (an inbox that was lost, a state directory of another time), so it is told of first, and goes
//! when a second look some seconds later still finds it unwanted. When that is so much of all that is ours here that a mistake is
//! likelier than a leftover, it is *held back* until an operator says so, or until it is wanted again. Pure: whoever looks says what
//! time it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use trunkline_proto::{
    resource::{Key, Kind},
    wire,
};

use crate::inbox::is_too_much;

/// How long a leftover stays between the first look and the one that lets it go.
pub const SECOND_LOOK: Duration = Duration::from_secs(5);

/// One thing on the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thing {
    /// `tap`, `switch port`, `gateway`, `namespace`, `dnsmasq`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

impl Thing {
    /// A thing.
    pub fn new(kind: &'static str, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { kind, name }
    }

    /// The resource that it is a part of, by its name.
    #[must_use]
    pub fn resource(&self) -> Option<Key> {
        let server = |start: &str| Some(format!("dhcp_v{}", self.name.strip_prefix(start)?));
        let (kind, name) = match self.kind {
            "namespace" => (Kind::Dhcp, server("ns-dhcp-vlan")?),
            "dnsmasq" => (Kind::Dhcp, server("vlan")?),
            _ if self.name.starts_with("gw_vlan") => (Kind::Gateway, self.name.clone()),
            _ if self.name.starts_with("dhcp_v") => (Kind::Dhcp, self.name.clone()),
            _ if self.name == crate::probe::PORT => (Kind::Probe, self.name.clone()),
            _ => (Kind::Port, self.name.clone()),
        };
        let name = name.parse().ok()?;
        Some(Key { kind, name })
    }
}

/// Tells one set of leftovers from another; empty for none.
#[must_use]
pub fn fingerprint(things: &BTreeSet<Thing>) -> String {
    if things.is_empty() {
        return String::new();
    }
    let mut sum = Sha256::new();
    for Thing { kind, name } in things {
        // Neither has a zero byte.
        sum.update(format!("{kind}\0{name}\0"));
    }
    let sum: [u8; 32] = sum.finalize().into();
    sum.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A leftover, as the controller is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// What it is.
    pub thing: Thing,
    /// When it was first seen.
    pub since: SystemTime,
    /// It stays until an operator says that it may go.
    pub held: bool,
}

impl From<&Orphan> for wire::Orphan {
    fn from(Orphan { thing, since, held: _ }: &Orphan) -> Self {
        Self {
            kind: thing.kind.to_owned(),
            name: thing.name.clone(),
            since: Some((*since).into()),
        }
    }
}

/// One look at the whole host.
#[derive(Debug, Default)]
pub struct Look<'a> {
    /// What is to be there.
    pub wanted: BTreeSet<Thing>,
    /// How much of it is.
    pub there: usize,
    /// What is there with our mark and is not to be.
    pub unwanted: BTreeSet<Thing>,
    /// What cannot stay for long, whatever stays with it: it would be in the way of something that is wanted.
    pub in_the_way: BTreeSet<Thing>,
    /// Resources that an update took away and that may still be there.
    pub leaving: Option<&'a BTreeSet<Key>>,
}

/// What is known of the leftovers of one host.
#[derive(Debug)]
pub struct Orphans {
    wait: Duration,
    /// Wanted now, or earlier in this life and still there.
    known: BTreeSet<Thing>,
    /// First seen, by two clocks: one that is never set, and one that people read.
    seen: BTreeMap<Thing, (Instant, SystemTime)>,
    /// Those that stay until an operator says that they may go.
    held: BTreeSet<Thing>,
    /// Those of which one has said so.
    let_go: BTreeSet<Thing>,
}

impl Default for Orphans {
    fn default() -> Self {
        Self::new(SECOND_LOOK)
    }
}

impl Orphans {
    /// None yet; `wait` is the time between the two looks.
    #[must_use]
    pub fn new(wait: Duration) -> Self {
        Self {
            wait,
            known: BTreeSet::new(),
            seen: BTreeMap::new(),
            held: BTreeSet::new(),
            let_go: BTreeSet::new(),
        }
    }

    /// Takes what a look has found. Answers what of the unwanted may not go yet.
    pub fn look(&mut self, look: Look<'_>, now: Instant) -> BTreeSet<Thing> {
        let Look {
            wanted,
            there,
            unwanted,
            in_the_way,
            leaving,
        } = look;
        // What went is forgotten: under the same name something else may turn up.
        self.known.retain(|thing| unwanted.contains(thing));
        self.known.extend(wanted);
        let leaves = |thing: &Thing| {
            leaving
                .zip(thing.resource())
                .is_some_and(|(all, key)| all.contains(&key))
        };
        let strange = unwanted.difference(&self.known).filter(|thing| !leaves(thing));
        let strange: BTreeSet<Thing> = strange.cloned().collect();
        self.seen.retain(|thing, _| strange.contains(thing));
        self.let_go.retain(|thing| strange.contains(thing));
        self.hold(&strange, &in_the_way, there + unwanted.len());
        let mut kept = BTreeSet::new();
        for thing in strange {
            let (first, _) = self.seen.entry(thing.clone()).or_insert_with(|| {
                tracing::warn!(
                    kind = thing.kind,
                    name = thing.name,
                    "an orphan: ours by its mark, wanted by nobody"
                );
                (now, SystemTime::now())
            });
            let waits = now < *first + self.wait || now == *first;
            if self.held.contains(&thing) || (waits && !self.let_go.contains(&thing)) {
                kept.insert(thing);
            }
        }
        kept
    }

    /// What is held once stays held, however few it is by now: it was told of.
    fn hold(&mut self, strange: &BTreeSet<Thing>, in_the_way: &BTreeSet<Thing>, all: usize) {
        let stays = |thing: &Thing| strange.contains(thing) && !in_the_way.contains(thing);
        self.held.retain(stays);
        let open = strange.difference(&self.let_go);
        if !is_too_much(open.clone().count(), all) {
            return;
        }
        let before = self.held.len();
        self.held.extend(open.filter(|thing| stays(thing)).cloned());
        if self.held.len() > before {
            let (held, all) = (self.held.len(), all);
            tracing::warn!(
                held,
                all,
                "so much of what is ours here is wanted by nobody that it stays until an operator confirms its removal, or until it \
                 is wanted again"
            );
        }
    }

    /// An operator has said that these are to go.
    pub fn let_go(&mut self, things: BTreeSet<Thing>) {
        self.held.retain(|thing| !things.contains(thing));
        self.let_go.extend(things);
    }

    /// Those that are still there at the end of a pass.
    pub fn list(&mut self, unwanted: &BTreeSet<Thing>) -> Vec<Orphan> {
        self.seen.retain(|thing, _| unwanted.contains(thing));
        self.held.retain(|thing| unwanted.contains(thing));
        let orphan = |(thing, (_, since)): (&Thing, &(Instant, SystemTime))| Orphan {
            thing: thing.clone(),
            since: *since,
            held: self.held.contains(thing),
        };
        self.seen.iter().map(orphan).collect()
    }

    /// How long until the next one may go. One that could have gone and is still there is tried again as whatever fails is.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Duration> {
        let open = self.seen.iter().filter(|(thing, _)| !self.held.contains(thing));
        let due = open.map(|(_, (first, _))| *first + self.wait);
        let due = due.filter(|due| *due > now).min()?;
        Some(due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests;
