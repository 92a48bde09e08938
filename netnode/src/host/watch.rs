//! Looks after every dnsmasq: one that ends wakes the reconcile loop.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trunkline_agent::node::Wake;
use trunkline_agent::process::Identity;

/// Most of them are not children of this process, so the kernel does not tell us.
const EVERY: Duration = Duration::from_secs(1);

/// The task's end of it.
pub(super) struct Watch(Arc<Mutex<Vec<Identity>>>);

impl Watch {
    /// Starts the task; it ends with the program.
    pub(super) fn start(wake: Wake, cancel: CancellationToken, tasks: &TaskTracker) -> Self {
        let watched = Arc::new(Mutex::new(Vec::<Identity>::new()));
        let shared = Arc::clone(&watched);
        tasks.spawn(async move {
            // Either may be dropped: a tick and a cancellation carry nothing.
            while cancel.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
                let mut watched = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let before = watched.len();
                watched.retain(Identity::alive);
                if watched.len() < before {
                    wake.now();
                }
            }
        });
        Self(watched)
    }

    /// Whom to look after from now on.
    pub(super) fn set(&self, identities: impl Iterator<Item = Identity>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = identities.collect();
    }
}
