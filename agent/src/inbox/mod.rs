//! The inbox: the last desired state that the controller sent and this node took.
//!
//! ```text
//!   Update parts --Collector--> Change --Held::take (pure)--> Held --Store::save (durable)--> Ack
//!                                                               |
//!                                                               '--> Desired, for the reconcile loop
//! ```
//!
//! A change is taken as a whole or not at all. A resource that is invalid or not understood is *refused*: its version counts as
//! held, so that both sides' digests agree, and the version before it stays realised.

mod change;
mod held;
mod reserved;
mod store;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use trunkline_proto::{Digest, Invalid};

pub use change::{Change, Collector};
pub(crate) use held::is_too_much;
pub use held::{Entry, Held, Refused, Stored, Verdict};
pub use reserved::Reserved;
pub use store::{Loaded, Store};

use crate::node::Validate;

/// What this node understands, and what it could realise.
#[derive(Clone)]
pub struct Judge {
    /// Kinds that it knows what to do with.
    pub kinds: &'static [trunkline_proto::resource::Kind],
    /// Refuses what could never be realised here.
    pub validate: Validate,
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judge")
            .field("kinds", &self.kinds)
            .finish_non_exhaustive()
    }
}

/// Term and generation: the order of desired states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Rises with every restore and every change of leader.
    pub term: u64,
    /// Rises with every change within a term.
    pub generation: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "generation {} of term {}", self.generation, self.term)
    }
}

/// Why an update as a whole was not taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeError {
    /// A key, hash or digest cannot be read.
    #[error("the update cannot be read: {0}")]
    Malformed(#[from] Invalid),
    /// Its parts are not parts of one update.
    #[error("the parts of the update disagree in {0}")]
    Disagree(&'static str),
    /// It is larger than anything sane.
    #[error("the update names more than {most} resources")]
    TooLarge {
        /// Most that are taken in one update.
        most: usize,
    },
    /// It comes from another cluster.
    #[error(
        "the update is of cluster {sent}, but this node belongs to cluster {held}; to move it, stop it and remove the inbox from \
         its state directory"
    )]
    ForeignCluster {
        /// Cluster that this node belongs to.
        held: String,
        /// Cluster that the update names.
        sent: String,
    },
    /// It was overtaken.
    #[error("the update is {sent}, older than {held} which this node holds")]
    Older {
        /// What is held.
        held: Position,
        /// What was sent.
        sent: Position,
    },
    /// Two different states claim the same position.
    #[error("the update says {0} as this node holds it, with other content")]
    SameButDifferent(Position),
    /// It was made from another state than the one held.
    #[error("the update was made from generation {base}, but this node holds generation {held}")]
    Base {
        /// Generation that is held.
        held: u64,
        /// Generation that it was made from.
        base: u64,
    },
    /// Applied, it does not give what the controller computed.
    #[error("the update does not lead to the digest that it announces ({announced:?}, got {got:?})")]
    Digest {
        /// As the controller said.
        announced: Digest,
        /// As it came out.
        got: Digest,
    },
}

/// Why the inbox cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file cannot be read.
    #[error("cannot read the inbox {path}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file cannot be written, so nothing was taken.
    #[error("cannot write the inbox {path}")]
    Write {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A damaged file cannot be moved out of the way.
    #[error("cannot set the damaged inbox aside as {path}")]
    SetAside {
        /// The new path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}
