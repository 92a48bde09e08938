//! How many connections each identity has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use trunkline_certs::Identity;

/// Places by identity; clones share them.
#[derive(Clone, Debug)]
pub(super) struct Members {
    most: usize,
    open: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Member {
    of: Members,
    identity: String,
}

impl Members {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            open: Arc::default(),
        }
    }

    /// A place, unless the identity has them all.
    pub(super) fn enter(&self, identity: &Identity) -> Option<Member> {
        let identity = identity.to_string();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(identity.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Member {
            of: self.clone(),
            identity,
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut open = self.of.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.identity) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.identity);
            }
        }
    }
}
