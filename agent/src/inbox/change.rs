//! An update, put together from its parts.

use trunkline_proto::{
    Digest,
    resource::{Envelope, Key},
    wire,
};

use super::{Position, TakeError};

/// Most resources in one update. A node holds hundreds; this bounds what a mad controller can make us keep in memory.
const MOST: usize = 200_000;

/// A whole update, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Cluster that it comes from.
    pub cluster_id: String,
    /// What the node holds once it is taken.
    pub position: Position,
    /// Generation that it was made from.
    pub base: u64,
    /// Digest of everything held once it is taken.
    pub digest: Digest,
    /// New resources and new versions.
    pub upserts: Vec<Envelope>,
    /// Resources that go.
    pub removals: Vec<Key>,
    /// Every removal follows from what an operator asked for.
    pub intended: bool,
}

impl Change {
    /// Trace context of the newest resource that has one: the end of the list, for want of a clock.
    pub fn traceparent(&self) -> &str {
        let traced = self.upserts.iter().rev().find(|e| !e.traceparent.is_empty());
        traced.map_or("", |e| &e.traceparent)
    }
}

/// Collects parts until the last one. What was collected dies with the session that it came in, so a torn update changes nothing.
#[derive(Debug, Default)]
pub struct Collector {
    begun: Option<Change>,
}

impl Collector {
    /// Takes one part; answers the whole when it was the last.
    pub fn push(&mut self, part: wire::Update) -> Result<Option<Change>, TakeError> {
        let wire::Update {
            cluster_id,
            term,
            base_generation,
            generation,
            digest,
            upserts,
            removals,
            last,
            removals_intended: intended,
        } = part;
        let head = Change {
            cluster_id,
            position: Position { term, generation },
            base: base_generation,
            digest: Digest::try_from(&digest[..])?,
            upserts: Vec::new(),
            removals: Vec::new(),
            intended,
        };
        let whole = match &mut self.begun {
            None => self.begun.insert(head),
            Some(begun) => {
                agree(begun, &head)?;
                begun
            }
        };
        if whole.upserts.len() + whole.removals.len() + upserts.len() + removals.len() > MOST {
            return Err(TakeError::TooLarge { most: MOST });
        }
        for resource in upserts {
            whole.upserts.push(resource.try_into()?);
        }
        for key in removals {
            whole.removals.push(key.try_into()?);
        }
        Ok(if last { self.begun.take() } else { None })
    }
}

fn agree(a: &Change, b: &Change) -> Result<(), TakeError> {
    if a.cluster_id != b.cluster_id {
        Err(TakeError::Disagree("cluster_id"))
    } else if a.position != b.position {
        Err(TakeError::Disagree("term or generation"))
    } else if a.base != b.base {
        Err(TakeError::Disagree("base_generation"))
    } else if a.digest != b.digest {
        Err(TakeError::Disagree("digest"))
    } else if a.intended != b.intended {
        Err(TakeError::Disagree("removals_intended"))
    } else {
        Ok(())
    }
}
