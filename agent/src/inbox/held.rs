//! What is held, and how a change is taken. Pure: no clock, no disk.

use std::{collections::BTreeMap, sync::Arc};

use trunkline_proto::{
    Digest, Hash,
    resource::{Envelope, Key, Observation, Spec},
    wire,
};

use super::{Change, Judge, Position, TakeError};
use crate::node::{Desired, Item};

/// Everything that this node was told, refused versions included.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// Cluster that it came from; empty on a node that never held anything.
    pub cluster_id: String,
    /// Which desired state it is.
    pub position: Position,
    digest: Digest,
    entries: BTreeMap<Key, Arc<Entry>>,
}

/// One resource as it is held.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// As it came.
    pub envelope: Envelope,
    /// What this node makes of it.
    pub verdict: Verdict,
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

    /// Rebuilds it from what was stored. Everything is judged again: the program may be another version by now.
    pub fn restore(
        cluster_id: String,
        position: Position,
        stored: impl IntoIterator<Item = (Envelope, Option<Envelope>)>,
        judge: &Judge,
    ) -> Self {
        let mut held = Self {
            cluster_id,
            position,
            ..Self::default()
        };
        for (envelope, earlier) in stored {
            let before = earlier.and_then(|e| judge.open(&e).ok().map(|spec| (e, Box::new(spec))));
            held.put(judge.entry(envelope, before));
        }
        held
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
        } = change;
        let mut next = self.clone();
        (next.cluster_id, next.position) = (cluster_id, position);
        for key in removals {
            next.drop_key(&key);
        }
        for envelope in upserts {
            let before = next.entries.get(&envelope.key).and_then(|e| e.owned());
            next.put(judge.entry(envelope, before));
        }
        if next.digest == announced {
            Ok(next)
        } else {
            let got = next.digest;
            Err(TakeError::Digest { announced, got })
        }
    }

    fn put(&mut self, entry: Entry) {
        self.drop_key(&entry.envelope.key.clone());
        self.digest.add(&entry.envelope.key, entry.envelope.hash);
        self.entries.insert(entry.envelope.key.clone(), Arc::new(entry));
    }

    fn drop_key(&mut self, key: &Key) {
        if let Some(old) = self.entries.remove(key) {
            self.digest.remove(key, old.envelope.hash);
        }
    }

    /// What is to be made true: of each resource the newest version that was not refused.
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
        Desired {
            term: self.position.term,
            generation: self.position.generation,
            items: self.entries.iter().filter_map(item).collect(),
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
