//! The durable state: rows of text key and bytes, committed in batches.
//!
//! What is durable, and why:
//!
//! | rows | why |
//! |---|---|
//! | the cluster: meta, slices, VMs, links, revisions, nodes, departures | what operators asked for and what was allocated for it |
//! | `event/...` | the journal, bounded |
//! | `request/...` | answers to mutations, so that a retry gets the first one's answer, bounded |
//!
//! Desired state is compiled from the first kind; reports of nodes are not stored at all.
//!
//! The trait is small and has no closures, so that a remote store can stand behind it later. Nothing may leave the process
//! (an answer, a stream, a watch) before the commit it follows from has returned.

mod directory;
mod sled_store;

use std::{collections::BTreeMap, io, path::PathBuf};

use tokio::sync::watch;

pub use sled_store::SledStore;

/// Every row, by key.
pub type Rows = BTreeMap<String, Vec<u8>>;

/// What one commit changes. A key occurs once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Rows to write, new or not.
    pub puts: Vec<(String, Vec<u8>)>,
    /// Rows to delete; one that is not there is no error.
    pub deletes: Vec<String>,
}

impl Batch {
    /// True when there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }
}

/// What was durable when the store was opened.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Count of commits so far.
    pub revision: u64,
    /// All rows.
    pub rows: Rows,
}

/// A durable map with one writer at a time.
pub trait Store: Send + Sync + 'static {
    /// Everything that is durable.
    ///
    /// # Errors
    /// The rows cannot be read or are not what was written.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Writes the batch whole or not at all, and returns the new revision once it would survive a power cut.
    ///
    /// # Errors
    /// [`StoreError::Conflict`]: somebody else committed; nothing was written. Anything else: it is not known whether the batch is
    /// durable, and the caller must load again.
    fn commit(&self, expected: u64, batch: &Batch) -> Result<u64, StoreError>;

    /// False for a store that never waits for anything: its commits are made where they are asked for, without a thread of their own.
    fn waits(&self) -> bool {
        true
    }

    /// The revision, as it grows.
    fn watch(&self) -> watch::Receiver<u64>;
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The state is at another revision than the writer thinks.
    #[error("the store is at revision {actual}, not {expected}: another writer committed")]
    Conflict {
        /// What the writer thought.
        expected: u64,
        /// What is stored.
        actual: u64,
    },
    /// The directory is not one that this program may use. It is left as it is.
    #[error("refusing the state directory {}: {why}", dir.display())]
    Refused {
        /// The directory.
        dir: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("{}: cannot {what}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sled::Error),
}
