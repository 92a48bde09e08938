//! Entries of the journal that nobody waits for, written together: when a fleet comes back, a commit for each node would be most of the
//! work.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::Core;
use crate::transition::NewEvent;

/// An entry may wait so long for others.
const REST: Duration = Duration::from_millis(50);

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Notes {
    waiting: Mutex<Vec<NewEvent>>,
    some: Notify,
}

impl Notes {
    fn waiting(&self) -> MutexGuard<'_, Vec<NewEvent>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Puts an entry into the journal soon.
    pub fn note(&self, event: NewEvent) {
        self.notes.waiting().push(event);
        self.notes.some.notify_one();
    }

    /// Writes what was noted. Runs until the controller stops, and then once more.
    pub async fn run_notes(self: Arc<Self>) {
        loop {
            // Either arm may be cancelled: what was noted stays, and is looked for below.
            let stopping = tokio::select! {
                () = self.fatal.cancelled() => true,
                () = async { self.notes.some.notified().await; tokio::time::sleep(REST).await; } => false,
            };
            let noted = std::mem::take(&mut *self.notes.waiting());
            if let Err(error) = self.record(noted).await {
                tracing::warn!(%error, "the journal could not be written");
            }
            if stopping {
                return;
            }
        }
    }
}
