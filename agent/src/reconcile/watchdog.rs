//! A pass that hangs is noticed: somebody else than the loop looks at what the loop is at.
//!
//! ```text
//!   host --step()--> Doing <--looks-- watchdog --> log, metric, board (every resource: unknown, and why)
//!                                         '------> systemd: alive, unless one step takes longer than any may wait
//! ```

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use trunkline_proto::{daemon::Lifecycle, resource::State};

use super::judge;
use crate::{inbox::Held, metrics::NodeMetrics, node::Pass, report::Board};

/// A pass that takes longer is told of: the first one over 800 ports takes seconds.
const SLOW: Duration = Duration::from_secs(60);
/// A step that does not come on for longer will not end by itself: what it waits for has limits of its own, the longest one minute.
const STUCK: Duration = Duration::from_secs(180);
/// How often it is looked; a third of the units' `WatchdogSec` at most.
const LOOK: Duration = Duration::from_secs(5);

/// What the reconcile loop is at. A host says each step of its passes; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Doing(Arc<Mutex<Option<Step>>>);

/// A step of a pass that runs.
#[derive(Debug, Clone, Copy)]
struct Step {
    what: &'static str,
    /// Since when it is at this.
    since: Instant,
    /// When it last came on with it.
    moved: Instant,
    /// When the pass began.
    began: Instant,
}

impl Step {
    fn is_stuck(&self) -> bool {
        self.moved.elapsed() >= STUCK
    }
}

impl Doing {
    /// From here on a pass does this.
    pub fn step(&self, what: &'static str) {
        let since = Instant::now();
        let mut step = self.lock();
        let began = step.map_or(since, |step| step.began);
        *step = Some(Step {
            what,
            since,
            moved: since,
            began,
        });
    }

    /// One of the many things that the step is about is done. It does not hang, however many there are.
    pub fn progress(&self) {
        if let Some(step) = &mut *self.lock() {
            step.moved = Instant::now();
        }
    }

    /// The pass has ended.
    pub(crate) fn nothing(&self) {
        *self.lock() = None;
    }

    fn now(&self) -> Option<Step> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Step>> {
        // Nothing in here can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who looks.
pub(crate) struct Watchdog {
    pub(crate) doing: Doing,
    pub(crate) held: watch::Receiver<Arc<Held>>,
    pub(crate) board: Arc<Board>,
    pub(crate) metrics: NodeMetrics,
    pub(crate) cancel: CancellationToken,
}

impl Watchdog {
    /// Looks until it is cancelled.
    pub(crate) async fn run(self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.reset();
        let mut slow: Option<Step> = None;
        loop {
            tokio::select! {
                // Nothing is half done between looks.
                () = self.cancel.cancelled() => return,
                _ = look.tick() => {}
            }
            let step = self.doing.now();
            if !step.is_some_and(|step| step.is_stuck()) {
                Lifecycle::alive();
            }
            let now = step.filter(|step| step.began.elapsed() >= SLOW);
            self.tell(slow, now);
            slow = now;
        }
    }

    /// Once for each pass, and again when it has come on to something else.
    fn tell(&self, before: Option<Step>, now: Option<Step>) {
        self.metrics.pass_hangs(now.is_some());
        let Some(step) = now else {
            if let Some(before) = before {
                let seconds = before.began.elapsed().as_secs();
                tracing::info!(seconds, "the pass that took so long has ended");
            }
            return;
        };
        if before.is_some_and(|before| before.since == step.since) {
            return;
        }
        let (seconds, at) = (step.began.elapsed().as_secs(), step.what);
        tracing::error!(seconds, at, "a pass hangs; nothing is put right on this host meanwhile");
        let reason = format!(
            "the node's pass has been running for over {} s, it is {at}; what is so here now is not known",
            SLOW.as_secs()
        );
        let held = self.held.borrow().clone();
        let desired = held.desired();
        let unknown = Pass {
            observations: desired.all(State::Unknown, &reason),
            ..Pass::default()
        };
        let still = || self.doing.now().is_some_and(|now| now.began == step.began);
        self.board.unknown(judge(&held, &desired, unknown).observations, still);
    }
}

#[cfg(test)]
mod tests {
    use trunkline_proto::wire;

    use super::*;
    use crate::reconcile::tests::held;

    fn watchdog(doing: &Doing, board: &Arc<Board>) -> Watchdog {
        Watchdog {
            doing: doing.clone(),
            held: watch::channel(Arc::new(held(1, 110, ""))).1,
            board: board.clone(),
            metrics: NodeMetrics::default(),
            cancel: CancellationToken::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_of_many_things_is_not_stuck_while_they_get_done_and_is_told_of_as_one() {
        let doing = Doing::default();
        doing.progress();
        assert!(doing.now().is_none(), "no pass runs");
        doing.step("setting up DHCP servers");
        let first = doing.now().unwrap();
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(13)).await;
            doing.progress();
        }
        let now = doing.now().unwrap();
        assert!(now.since.elapsed() > STUCK && !now.is_stuck());
        assert_eq!(
            (now.since, now.began),
            (first.since, first.began),
            "it is told of as one step"
        );
        tokio::time::sleep(STUCK).await;
        assert!(doing.now().unwrap().is_stuck());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_ended_while_it_was_looked_at_keeps_what_it_has_seen() {
        let (doing, board) = (Doing::default(), Arc::new(Board::default()));
        doing.step("looking");
        let step = doing.now();
        doing.nothing();
        watchdog(&doing, &board).tell(None, step);
        // The next one has begun.
        doing.step("looking");
        watchdog(&doing, &board).tell(
            None,
            step.map(|step| Step {
                began: step.began - SLOW,
                ..step
            }),
        );
        board.begin();
        assert_eq!(
            board.due(Instant::now()),
            crate::report::Due::Nothing,
            "nobody said that nothing is known"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_hangs_is_told_of_with_what_it_is_at_until_it_ends() {
        let (doing, board, metrics) = (Doing::default(), Arc::new(Board::default()), NodeMetrics::default());
        let cancel = CancellationToken::new();
        let watchdog = Watchdog {
            doing: doing.clone(),
            held: watch::channel(Arc::new(held(1, 110, ""))).1,
            board: board.clone(),
            metrics: metrics.clone(),
            cancel: cancel.clone(),
        };
        let task = tokio::spawn(watchdog.run());
        board.begin();
        for _ in 0..10 {
            // Passes come and go, each shorter than a minute.
            doing.step("looking");
            tokio::time::sleep(SLOW - Duration::from_secs(1)).await;
            doing.nothing();
        }
        assert!(!metrics.hangs());
        doing.step("looking");
        tokio::time::sleep(SLOW / 2).await;
        doing.step("setting flows");
        tokio::time::sleep(SLOW / 2 + LOOK).await;
        assert!(metrics.hangs());
        let report = board.take(Instant::now());
        let [item] = &report.items[..] else {
            panic!("{report:?}")
        };
        assert_eq!(item.state(), wire::State::Unknown);
        assert!(item.reason.contains("it is setting flows"), "{}", item.reason);
        assert_eq!(
            (report.seen_generation, report.clean_generation),
            (0, 0),
            "nobody has looked"
        );

        doing.nothing();
        tokio::time::sleep(LOOK).await;
        assert!(!metrics.hangs());
        cancel.cancel();
        task.await.unwrap();
    }
}
