//! Ends departures when their time has come.

use std::{sync::Arc, time::Duration};

use super::{Core, now};
use crate::transition::Intent;

/// Longest sleep: a clock that was set back must not hold a departure for ever.
const LONGEST: Duration = Duration::from_secs(60);

impl Core {
    /// Runs until the controller stops.
    pub async fn run_timer(self: Arc<Self>) {
        let mut status = self.watch_status();
        loop {
            let wait = self.state().cluster.next_due().map_or(LONGEST, |due| {
                let millis = due.as_millis().saturating_sub(now().as_millis());
                Duration::from_millis(u64::try_from(millis).unwrap_or(0)).min(LONGEST)
            });
            // Every arm may be cancelled: none has done anything before it is ready.
            tokio::select! {
                () = self.fatal.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                Ok(()) = status.changed() => continue,
            }
            if let Err(error) = self.system(Intent::Tick, "controller").await {
                tracing::warn!(%error, "what is due could not be ended");
                // It is due still: without a pause this would be all that we do.
                tokio::select! {
                    () = self.fatal.cancelled() => return,
                    () = tokio::time::sleep(LONGEST) => {}
                }
            }
        }
    }
}
