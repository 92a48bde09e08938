//! What wakes the reconcile loop.

use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Wakes the reconcile loop. It carries no hint of what happened, so any number of wakes before a pass are one.
#[derive(Debug, Clone)]
pub struct Wake {
    notify: Arc<Notify>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Wake {
    /// One for a node's tasks.
    pub fn new(tasks: TaskTracker, cancel: CancellationToken) -> Self {
        let notify = Arc::default();
        Self { notify, tasks, cancel }
    }

    /// Wakes the loop.
    pub fn now(&self) {
        self.notify.notify_one();
    }

    /// Wakes the loop at every change of `source`, for as long as it has a sender.
    pub fn follow<T: Send + Sync + 'static>(&self, mut source: watch::Receiver<T>) {
        let wake = self.clone();
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    // Nothing is lost when this is cut: the program ends.
                    () = wake.cancel.cancelled() => return,
                    // A change that came while nobody waited is seen by the next call.
                    changed = source.changed() => if changed.is_err() { return },
                }
                wake.now();
            }
        });
    }

    /// Forgets every wake until now: a pass that begins covers them.
    pub(crate) fn covered(&self) {
        let _ = self.notify.notified().now_or_never();
    }

    /// Waits for a wake; one that came before counts.
    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }
}
