//! From what a node holds to what it should hold, as messages of a bounded size.

use std::collections::BTreeMap;

use prost::Message;
use trunkline_proto::{
    Hash,
    resource::Key,
    wire::{self, Update},
};

use crate::compile::NodeDesired;

/// Largest part of an update. One resource more never makes it twice that: the largest, a DHCP server with a /20's reservations, is
/// about 300 KB.
const PART_BYTES: usize = 1 << 20;

/// Bytes that an element of a list costs besides itself: tag and length.
const FRAMING: usize = 6;

/// The exact difference, in at least one part; the last one is marked. `head` says everything but the lists.
pub(super) fn update(head: &Update, held: &BTreeMap<Key, Hash>, desired: &NodeDesired) -> Vec<Update> {
    let mut parts = Parts {
        head,
        done: Vec::new(),
        open: head.clone(),
        size: 0,
    };
    for key in held.keys().filter(|key| !desired.resources.contains_key(*key)) {
        let key = wire::ResourceKey::from(key);
        parts.make_room(key.encoded_len());
        parts.open.removals.push(key);
    }
    for (key, envelope) in &desired.resources {
        if held.get(key) != Some(&envelope.hash) {
            let resource = wire::Resource::from(envelope.as_ref());
            parts.make_room(resource.encoded_len());
            parts.open.upserts.push(resource);
        }
    }
    parts.finish()
}

/// What a node holds once it took the whole of its desired state.
pub(super) fn held(desired: &NodeDesired) -> BTreeMap<Key, Hash> {
    desired
        .resources
        .iter()
        .map(|(key, envelope)| (key.clone(), envelope.hash))
        .collect()
}

struct Parts<'a> {
    head: &'a Update,
    done: Vec<Update>,
    open: Update,
    size: usize,
}

impl Parts<'_> {
    fn make_room(&mut self, bytes: usize) {
        if self.size > 0 && self.size + bytes + FRAMING > PART_BYTES {
            self.done.push(std::mem::replace(&mut self.open, self.head.clone()));
            self.size = 0;
        }
        self.size += bytes + FRAMING;
    }

    fn finish(mut self) -> Vec<Update> {
        self.open.last = true;
        self.done.push(self.open);
        self.done
    }
}
