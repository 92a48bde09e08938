//! What a session says next, given what the node said and what it should hold. No I/O and no clock.

use std::{collections::BTreeMap, sync::Arc};

use trunkline_proto::{
    Digest, Hash,
    resource::Key,
    wire::{self, Update},
};

use super::{difference, hello::Greeting};
use crate::{
    compile::NodeDesired,
    converge::Refusal,
    model::{NodeRecord, Position},
};

/// Most entries of an inventory. The largest node has some thousands of resources.
const INVENTORY: usize = 200_000;

/// Most bytes of a refusal's reason.
const REASON_BYTES: usize = 1024;

/// What the node should hold, and the order in which it says so.
#[derive(Debug, Clone)]
pub(super) struct Target<'a> {
    pub(super) desired: Arc<NodeDesired>,
    /// The cluster's position, of the same moment.
    pub(super) position: Position,
    /// What is known of the node for good; `None` for one that is being removed.
    pub(super) record: Option<&'a NodeRecord>,
}

/// The node, or we, broke the protocol; the session ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("an inventory came that was not asked for")]
    Inventory,
    #[error("the inventory has more than {INVENTORY} entries")]
    InventorySize,
    #[error("the inventory cannot be read: {0}")]
    InventoryEntry(String),
    #[error("an acknowledgement of term {term} generation {generation} came, which is not what was sent")]
    Ack { term: u64, generation: u64 },
    #[error(
        "the node holds other content at term {term} generation {generation} than was given to it: stop it, remove its state directory and start it again"
    )]
    SameButOther { term: u64, generation: u64 },
}

/// What to do.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Nothing until something changes.
    Wait,
    /// Ask what the node holds.
    Inventory,
    /// Send these, then wait for the acknowledgement.
    Update(Vec<Update>),
}

/// What the node took.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) position: Position,
    pub(super) digest: Digest,
    pub(super) refused: Vec<(Key, Refusal)>,
    /// Removals that it holds back until an operator confirms them.
    pub(super) held_removals: u32,
    /// Refusals of what was never sent.
    pub(super) unknown: u64,
}

#[derive(Debug)]
enum Phase {
    /// What the node holds is not known.
    Unknown,
    /// It is listing it.
    Listing(BTreeMap<Key, Hash>),
    /// It holds this.
    Known(BTreeMap<Key, Hash>),
    /// It is taking this.
    Taking {
        target: Arc<NodeDesired>,
        position: Position,
    },
}

/// One session's state.
#[derive(Debug)]
pub(super) struct Protocol {
    cluster_id: String,
    /// What the node said last.
    position: Position,
    /// The node never held anything of this cluster: it must hear its name once, even if there is nothing for it.
    fresh: bool,
    /// It acknowledged in this session what it holds: then that is just what it was given.
    acked: bool,
    digest: Digest,
    /// What it said of itself at first.
    greeted: Digest,
    phase: Phase,
}

impl Protocol {
    pub(super) fn new(cluster_id: &str, greeting: &Greeting) -> Self {
        let empty = greeting.digest == Digest::default();
        let phase = if empty {
            Phase::Known(BTreeMap::new())
        } else {
            Phase::Unknown
        };
        Self {
            cluster_id: cluster_id.to_owned(),
            position: greeting.position,
            fresh: greeting.fresh,
            acked: false,
            digest: greeting.digest,
            greeted: greeting.digest,
            phase,
        }
    }

    /// True while the node owes an answer.
    pub(super) fn waiting(&self) -> bool {
        matches!(self.phase, Phase::Taking { .. } | Phase::Listing(_))
    }

    /// Where the node is.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    pub(super) fn next(&mut self, target: &Target) -> Result<Next, Broken> {
        if self.waiting() {
            return Ok(Next::Wait);
        }
        let in_step = self.digest == target.desired.digest;
        if in_step && self.position >= target.desired.changed && !self.fresh {
            return Ok(Next::Wait);
        }
        let held = match &self.phase {
            // It has everything already and only hears where it is.
            _ if in_step => difference::held(&target.desired),
            Phase::Known(held) => held.clone(),
            Phase::Unknown | Phase::Listing(_) | Phase::Taking { .. } => {
                self.phase = Phase::Listing(BTreeMap::new());
                return Ok(Next::Inventory);
            }
        };
        let position = self.new_position(target)?;
        let removals_intended = self.only_asked_for(target) && (self.acked || self.fits(target, &held));
        let head = Update {
            cluster_id: self.cluster_id.clone(),
            term: position.term,
            base_generation: self.position.generation,
            generation: position.generation,
            digest: target.desired.digest.to_vec(),
            upserts: Vec::new(),
            removals: Vec::new(),
            last: false,
            removals_intended,
        };
        let parts = difference::update(&head, &held, &target.desired);
        self.phase = Phase::Taking {
            target: target.desired.clone(),
            position,
        };
        Ok(Next::Update(parts))
    }

    /// True when nothing but operators' intents lies between what the node holds and the target: no restore, no other settings.
    fn only_asked_for(&self, target: &Target) -> bool {
        let unasked = target.record.map(|record| record.unasked).unwrap_or_default();
        self.position.term == target.position.term && self.position >= unasked
    }

    /// True when the node holds what it was given where it says it is, as far as that is still known.
    fn fits(&self, target: &Target, held: &BTreeMap<Key, Hash>) -> bool {
        let given = target.record.and_then(|record| record.given_at(self.position));
        let same = given.is_none_or(|given| given == hex::encode(self.digest.to_vec()));
        let old = |key: &Key| target.desired.since(key) <= self.position;
        let resources = &target.desired.resources;
        let same = same && self.digest == self.greeted;
        same && resources
            .iter()
            .all(|(key, envelope)| !old(key) || held.get(key) == Some(&envelope.hash))
    }

    /// Where the desired state last changed; after a restore, or for a new node, where the cluster is.
    fn new_position(&self, target: &Target) -> Result<Position, Broken> {
        let changed = target.desired.changed;
        let position = if !self.fresh && changed > self.position {
            changed
        } else {
            target.position
        };
        if !self.fresh && position <= self.position {
            let Position { term, generation } = self.position;
            return Err(Broken::SameButOther { term, generation });
        }
        Ok(position)
    }

    pub(super) fn on_inventory(&mut self, inventory: wire::Inventory) -> Result<(), Broken> {
        let Phase::Listing(held) = &mut self.phase else {
            return Err(Broken::Inventory);
        };
        if held.len() + inventory.held.len() > INVENTORY {
            return Err(Broken::InventorySize);
        }
        for entry in inventory.held {
            let (key, hash) = parse_held(entry).map_err(Broken::InventoryEntry)?;
            held.insert(key, hash);
        }
        if inventory.last {
            let held = std::mem::take(held);
            self.digest = Digest::of(held.iter().map(|(key, hash)| (key, *hash)));
            self.phase = Phase::Known(held);
        }
        Ok(())
    }

    pub(super) fn on_ack(&mut self, ack: wire::Ack) -> Result<Taken, Broken> {
        let wire::Ack {
            term,
            generation,
            refused,
            held_removals,
        } = ack;
        let broken = Broken::Ack { term, generation };
        let Phase::Taking { target, position } = &self.phase else {
            return Err(broken);
        };
        if *position != (Position { term, generation }) {
            return Err(broken);
        }
        let (target, position) = (target.clone(), *position);
        let sent = refused.len();
        let refused: Vec<_> = refused
            .into_iter()
            .filter_map(|refusal| parse_refusal(refusal, &target))
            .collect();
        // A refused version counts as held.
        self.digest = target.digest;
        self.position = position;
        self.fresh = false;
        self.acked = true;
        self.phase = Phase::Known(difference::held(&target));
        let unknown = u64::try_from(sent - refused.len()).unwrap_or(u64::MAX);
        Ok(Taken {
            held_removals,
            position,
            digest: target.digest,
            refused,
            unknown,
        })
    }
}

fn parse_held(entry: wire::Held) -> Result<(Key, Hash), String> {
    let key = entry.key.ok_or("an entry without a key")?;
    let key = Key::try_from(key).map_err(|e| e.to_string())?;
    let hash = Hash::try_from(entry.hash.as_slice()).map_err(|e| e.to_string())?;
    Ok((key, hash))
}

/// `None` for a refusal of something that was not sent.
fn parse_refusal(refusal: wire::Refusal, target: &NodeDesired) -> Option<(Key, Refusal)> {
    let key = Key::try_from(refusal.key?).ok()?;
    let hash = Hash::try_from(refusal.hash.as_slice()).ok()?;
    target.resources.get(&key).filter(|envelope| envelope.hash == hash)?;
    let mut reason = refusal.reason;
    if reason.len() > REASON_BYTES {
        let end = (0..=REASON_BYTES)
            .rev()
            .find(|at| reason.is_char_boundary(*at))
            .unwrap_or(0);
        reason.truncate(end);
    }
    Some((key, Refusal { hash, reason }))
}
