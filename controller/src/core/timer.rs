//! Ends departures when their time has come.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{Core, now};
use crate::transition::Intent;

/// Longest sleep: a clock that was set back must not hold a departure for ever.
const LONGEST: Duration = Duration::from_secs(60);

impl Core {
    /// Runs until the controller stops.
    pub async fn run_timer(self: Arc<Self>) {
        let mut commits = self.watch_commits();
        let mut latest = Instant::now() + LONGEST;
        loop {
            let wait = self.state().cluster.next_due().map_or(LONGEST, |due| {
                let millis = due.as_millis().saturating_sub(now().as_millis());
                Duration::from_millis(u64::try_from(millis).unwrap_or(0)).min(LONGEST)
            });
            // Every arm may be cancelled: none has done anything before it is ready.
            tokio::select! {
                () = self.fatal.cancelled() => return,
                // Changes may come all the time: what they wake us for puts off no tick.
                () = sleep_until(latest.min(Instant::now() + wait)) => {}
                Ok(()) = commits.changed() => continue,
            }
            latest = Instant::now() + LONGEST;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        model::Departure,
        testing::{name, store},
        transition::State,
    };

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// Sets when the only rest ends, as a clock that was ahead would have.
    fn rest(core: &Core) {
        let mut cluster = core.state().cluster.clone();
        let departure = Departure {
            slice: name("a"),
            uid: 1,
            links: BTreeMap::new(),
            addresses: BTreeMap::new(),
            waiting: BTreeMap::new(),
            free_at: Some(now().after(DAY)),
        };
        cluster.departures.insert((1, name("a")), departure);
        core.state
            .store(Arc::new(State::load(cluster, &core.settings).unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_back_is_noticed_however_often_something_changes() {
        let (core, _) = store::core().await;
        rest(&core);
        let timer = tokio::spawn(core.clone().run_timer());
        // Fewer changes than would let the rest end by itself.
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            core.commits.send_modify(|_| ());
        }
        let left = core.state().cluster.next_due();
        core.fatal.cancel();
        timer.await.unwrap();
        assert!(left.is_none_or(|due| due < now().after(DAY / 2)), "{left:?}");
    }
}
