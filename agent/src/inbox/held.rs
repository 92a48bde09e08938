//! What is held, and how a change is taken. Pure: no clock, no disk.
//!
//! A change that takes away much without an operator having asked for it is only half believed: its removals *wait*. They count as
//! gone for digest, inventory and position, so that both sides agree, but what they name stays realised until a person says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use trunkline_proto::{
    Digest, Hash, VlanId,
    resource::{Envelope, Key, Observation, Spec},
    wire,
};

use super::{Change, Judge, Position, Reserved, TakeError, reserved::serves_internet};
use crate::node::{Desired, Item};

/// Removals that no operator asked for wait when they would take more than this share of what is held,
const MOST_PERCENT: usize = 30;
/// and at least so many resources.
const LEAST: usize = 10;
/// Most removals that wait and are named; how many there are is told beside them.
const NAMED: usize = 5000;

/// Most resources that are remembered as leaving.
const LEAVING: usize = 10_000;

/// Whether so many of all are too many to remove without an operator's word.
pub(crate) fn is_too_much(gone: usize, all: usize) -> bool {
    gone >= LEAST && gone * 100 > all * MOST_PERCENT
}

/// Everything that this node was told, refused versions included.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// Cluster that it came from; empty on a node that never held anything.
    pub cluster_id: String,
    /// Which desired state it is.
    pub position: Position,
    digest: Digest,
    entries: BTreeMap<Key, Arc<Entry>>,
    /// Removed by the controller, and realised until an operator confirms it.
    waiting: BTreeMap<Key, Arc<Entry>>,
    /// Reservations that were taken out of DHCP servers, and that stay until an operator confirms it.
    reserved: Reserved,
    /// Removed by the controller, and not read back as gone yet. Durable, so that whoever starts anew knows them from what nobody
    /// ever told it of.
    leaving: BTreeSet<Key>,
}

/// One resource as it is held.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// As it came.
    pub envelope: Envelope,
    /// What this node makes of it.
    pub verdict: Verdict,
}

/// One resource as it was stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// As it came.
    pub envelope: Envelope,
    /// Of a refused version: the one that stays realised.
    pub earlier: Option<Envelope>,
    /// Its removal waits for an operator's word.
    pub waiting: bool,
}

/// What a node makes of a version.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is realised.
    Taken(Box<Spec>),
    /// It is held but not realised.
    Refused {
        /// Why, in words.
        reason: String,
        /// The version before it, which stays realised.
        earlier: Option<(Envelope, Box<Spec>)>,
    },
}

/// A refusal, as the controller is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which resource.
    pub key: Key,
    /// Which version.
    pub hash: Hash,
    /// Why.
    pub reason: String,
    /// True when a version before it stays realised.
    pub earlier: bool,
}

impl From<&Refused> for wire::Refusal {
    fn from(refused: &Refused) -> Self {
        Self {
            key: Some((&refused.key).into()),
            hash: refused.hash.to_vec(),
            reason: refused.reason.clone(),
        }
    }
}

impl Judge {
    /// Opens and validates one envelope.
    fn open(&self, envelope: &Envelope) -> Result<Spec, String> {
        // The whole chain of causes in one line: the controller shows it to a person.
        let spec = envelope.open().map_err(|e| crate::chain(&e))?;
        if !self.kinds.contains(&envelope.key.kind) {
            return Err(format!(
                "this node does not realise resources of kind {}",
                envelope.key.kind
            ));
        }
        (self.validate)(&spec)?;
        Ok(spec)
    }

    /// Judges a version; `before` is what was realised until now.
    fn entry(&self, envelope: Envelope, before: Option<(Envelope, Box<Spec>)>) -> Entry {
        let verdict = match self.open(&envelope) {
            Ok(spec) => Verdict::Taken(Box::new(spec)),
            Err(reason) => Verdict::Refused {
                reason: crate::cut(reason, Observation::MAX_REASON),
                earlier: before,
            },
        };
        Entry { envelope, verdict }
    }
}

impl Entry {
    /// The version that is realised, if any.
    pub fn realised(&self) -> Option<(&Envelope, &Spec)> {
        match &self.verdict {
            Verdict::Taken(spec) => Some((&self.envelope, spec)),
            Verdict::Refused { earlier, .. } => earlier.as_ref().map(|(envelope, spec)| (envelope, &**spec)),
        }
    }

    fn owned(&self) -> Option<(Envelope, Box<Spec>)> {
        self.realised().map(|(e, s)| (e.clone(), Box::new(s.clone())))
    }
}

impl Held {
    /// False on a node that was never told anything: it must not take silence for an order to remove things.
    pub fn is_known(&self) -> bool {
        !self.cluster_id.is_empty()
    }

    /// Digest over every key and hash held.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Every resource held.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&Key, &Entry)> {
        self.entries.iter().map(|(key, entry)| (key, &**entry))
    }

    /// Resources whose removal waits for an operator's word.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = (&Key, &Entry)> {
        self.waiting.iter().map(|(key, entry)| (key, &**entry))
    }

    /// Reservations whose removal waits for an operator's word.
    pub fn reserved(&self) -> &Reserved {
        &self.reserved
    }

    /// How many removals wait, of resources and of reservations.
    pub fn held_back(&self) -> usize {
        self.waiting.len() + self.reserved.len()
    }

    /// What waits, as the controller is told of it. A DHCP server that is to stay is named for its reservations.
    pub fn removals(&self) -> wire::HeldRemovals {
        let servers = self.reserved.servers().map(|(key, _)| key);
        let servers = servers.filter(|key| !self.waiting.contains_key(key));
        let keys: Vec<_> = self.waiting.keys().chain(servers).take(NAMED).map(Into::into).collect();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        // Nothing waits nowhere in particular, so that an empty list is told once.
        let Position { term, generation } = match keys.is_empty() {
            true => Position::default(),
            false => self.position,
        };
        wire::HeldRemovals {
            term,
            generation,
            keys,
            total: count(self.held_back()),
            reservations: count(self.reserved.len()),
            // Theirs is not the inbox's matter.
            leftovers: String::new(),
        }
    }

    /// Resources that were removed and may still be there.
    pub fn leaving(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.leaving.iter()
    }

    /// With these, too.
    #[must_use]
    pub(super) fn and_leaving(mut self, keys: impl IntoIterator<Item = Key>) -> Self {
        self.leaving.extend(keys);
        self
    }

    /// Everything that was to go is gone.
    #[must_use]
    pub(crate) fn settled(&self) -> Self {
        Self {
            leaving: BTreeSet::new(),
            ..self.clone()
        }
    }

    /// True for a resource whose removal waits for an operator's word: the controller no longer knows it.
    pub fn is_waiting(&self, key: &Key) -> bool {
        self.waiting.contains_key(key)
    }

    /// Rebuilds it from what was stored. Everything is judged again: the program may be another version by now.
    pub fn restore(
        cluster_id: String,
        position: Position,
        stored: impl IntoIterator<Item = Stored>,
        reserved: Reserved,
        judge: &Judge,
    ) -> Self {
        let mut held = Self {
            cluster_id,
            position,
            reserved,
            ..Self::default()
        };
        for stored in stored {
            let Stored {
                envelope,
                earlier,
                waiting,
            } = stored;
            let before = earlier.and_then(|e| judge.open(&e).ok().map(|spec| (e, Box::new(spec))));
            let entry = judge.entry(envelope, before);
            if waiting {
                held.waiting.insert(entry.envelope.key.clone(), Arc::new(entry));
            } else {
                held.put(entry);
            }
        }
        held
    }

    /// An operator has confirmed the removals that wait at just this position; `None` when there is nothing to confirm there.
    pub fn confirmed(&self, position: Position) -> Option<Self> {
        (position == self.position && self.held_back() > 0).then(|| {
            let mut next = self.clone();
            let confirmed = std::mem::take(&mut next.waiting);
            next.leave(confirmed.into_keys());
            next.reserved = Reserved::default();
            next
        })
    }

    /// Takes a change as a whole, or says why not and stays as it is.
    pub fn take(&self, change: Change, judge: &Judge) -> Result<Self, TakeError> {
        if self.is_known() && self.cluster_id != change.cluster_id {
            return Err(TakeError::ForeignCluster {
                held: self.cluster_id.clone(),
                sent: change.cluster_id,
            });
        }
        let (held, sent) = (self.position, change.position);
        if sent < held {
            return Err(TakeError::Older { held, sent });
        }
        if sent == held && self.is_known() {
            // Said twice: nothing to do. Anything else under the same number is a fault of the controller.
            return if change.digest == self.digest {
                Ok(self.clone())
            } else {
                Err(TakeError::SameButDifferent(sent))
            };
        }
        if change.base != held.generation {
            let (held, base) = (held.generation, change.base);
            return Err(TakeError::Base { held, base });
        }
        self.applied(change, judge)
    }

    fn applied(&self, change: Change, judge: &Judge) -> Result<Self, TakeError> {
        let Change {
            cluster_id,
            position,
            base: _,
            digest: announced,
            upserts,
            removals,
            intended,
        } = change;
        let mut next = self.clone();
        (next.cluster_id, next.position) = (cluster_id, position);
        let wait = !intended && self.is_too_much(&removals);
        for key in removals {
            let gone = next.drop_key(&key);
            let served = |entry: &Arc<Entry>| entry.realised().is_some_and(|(_, spec)| serves_internet(spec));
            if !wait && (intended || !gone.as_ref().is_some_and(served)) {
                next.waiting.remove(&key);
                next.reserved.forget(&key);
                next.leave([key]);
            } else if let Some(entry) = gone {
                next.waiting.insert(key, entry);
            }
        }
        for envelope in upserts {
            let before = next
                .entries
                .get(&envelope.key)
                .or_else(|| next.waiting.get(&envelope.key));
            let before = before.and_then(|e| e.owned());
            // Whoever brings a server back has not said a word of the guests that it kept while it waited.
            let waited = next.waiting.remove(&envelope.key).is_some();
            next.leaving.remove(&envelope.key);
            let reservations = match before.as_ref().map(|(_, spec)| &**spec) {
                Some(Spec::Dhcp(dhcp)) if !intended || waited => dhcp.reservations.clone(),
                _ => Vec::new(),
            };
            let entry = judge.entry(envelope, before);
            if let Some((_, Spec::Dhcp(now))) = entry.realised() {
                next.reserved.follow(&entry.envelope.key, reservations, now);
            }
            next.put(entry);
        }
        if next.digest == announced {
            Ok(next)
        } else {
            let got = next.digest;
            Err(TakeError::Digest { announced, got })
        }
    }

    /// Whether removals, with those that wait already, would take away more than may go without an operator's word.
    fn is_too_much(&self, removals: &[Key]) -> bool {
        let named: BTreeSet<&Key> = removals.iter().filter(|key| self.entries.contains_key(key)).collect();
        let gone = named.len() + self.waiting.len();
        let realised = self.entries.len() + self.waiting.len();
        !named.is_empty() && is_too_much(gone, realised)
    }

    /// Where more leave than are remembered, the rest are strange to whoever starts anew meanwhile, who then asks an operator.
    fn leave(&mut self, keys: impl IntoIterator<Item = Key>) {
        let room = LEAVING.saturating_sub(self.leaving.len());
        self.leaving.extend(keys.into_iter().take(room));
    }

    fn put(&mut self, entry: Entry) {
        self.drop_key(&entry.envelope.key.clone());
        self.digest.add(&entry.envelope.key, entry.envelope.hash);
        self.entries.insert(entry.envelope.key.clone(), Arc::new(entry));
    }

    fn drop_key(&mut self, key: &Key) -> Option<Arc<Entry>> {
        let old = self.entries.remove(key)?;
        self.digest.remove(key, old.envelope.hash);
        Some(old)
    }

    /// What is to be made true: of each resource the newest version that was not refused, those whose removal waits included.
    pub fn desired(&self) -> Desired {
        let item = |(key, entry): (&Key, &Arc<Entry>)| {
            let (envelope, spec) = entry.realised()?;
            let item = Item {
                spec: spec.clone(),
                hash: envelope.hash,
                traceparent: envelope.traceparent.clone(),
            };
            Some((key.clone(), item))
        };
        // No key is in both.
        let mut items = self.waiting.iter().chain(&self.entries).filter_map(item).collect();
        self.keep_what_waits(&mut items);
        self.reserved.add_to(&mut items);
        Desired {
            term: self.position.term,
            generation: self.position.generation,
            items,
            leaving: self.leaving.clone(),
        }
    }

    /// What waits to be removed needs its VLANs on the uplink, where the new list may lack them. A port whose VLAN is another slice's by
    /// now is shut: two tenants in one VLAN would be worse than a guest that is cut off.
    fn keep_what_waits(&self, items: &mut BTreeMap<Key, Item>) {
        if self.waiting.is_empty() {
            return;
        }
        let port = |entry: &Arc<Entry>| match entry.realised()?.1 {
            Spec::Port(port) => Some((port.vlan?, port.owner.slice.clone())),
            _ => None,
        };
        let owners: BTreeMap<VlanId, String> = self.entries.values().filter_map(port).collect();
        let mut vlans = BTreeSet::new();
        for (_, item) in items.iter_mut().filter(|(key, _)| self.waiting.contains_key(*key)) {
            if let Spec::Port(port) = &mut item.spec
                && let Some(vlan) = port.vlan.filter(|vlan| *vlan != VlanId::INTERNET)
                && owners.get(&vlan).is_some_and(|slice| *slice != port.owner.slice)
            {
                port.vlan = None;
            }
            vlans.extend(item.spec.vlan());
        }
        for item in items.values_mut() {
            if let Spec::Trunk(trunk) = &mut item.spec {
                trunk.vlans.extend(vlans.iter().copied());
            }
        }
    }

    /// Every version that is held but not realised.
    pub fn refused(&self) -> impl Iterator<Item = Refused> + '_ {
        self.entries.iter().filter_map(|(key, entry)| match &entry.verdict {
            Verdict::Taken(_) => None,
            Verdict::Refused { reason, earlier } => Some(Refused {
                key: key.clone(),
                hash: entry.envelope.hash,
                reason: reason.clone(),
                earlier: earlier.is_some(),
            }),
        })
    }
}
