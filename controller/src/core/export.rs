//! What was committed since the last export.

use std::{collections::BTreeMap, sync::PoisonError};

use super::Core;
use crate::store::Batch;

/// The newest value of each row that was written; without one it was deleted.
pub type Unexported = BTreeMap<String, Option<Vec<u8>>>;

impl Core {
    /// What came into force since this was asked for last. `None` the first time: from then on it is kept.
    pub fn unexported(&self) -> Option<Unexported> {
        let mut unexported = self.unexported.lock().unwrap_or_else(PoisonError::into_inner);
        unexported.replace(Unexported::default())
    }

    /// A commit is in force.
    pub(super) fn to_export(&self, batch: Batch) {
        let Batch { puts, deletes } = batch;
        let mut unexported = self.unexported.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unexported) = &mut *unexported {
            unexported.extend(puts.into_iter().map(|(key, value)| (key, Some(value))));
            unexported.extend(deletes.into_iter().map(|key| (key, None)));
        }
    }
}
