//! From start to an orderly end.
//!
//! One cancellation token ends everything: SIGTERM or SIGINT cancels it, every task watches it, [`Lifecycle::finish`] joins them all.
//! systemd is told when we are ready and when we stop; without systemd that does nothing.

use std::future::Future;
use std::io;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Exit code of a program that was told twice to stop, as a shell has it for SIGINT.
const EXIT_IMPATIENT: i32 = 130;

/// The life of a daemon.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Lifecycle {
    /// Takes over SIGTERM and SIGINT. The first cancels the token; a second one ends the process at once. Must be called within a
    /// runtime.
    ///
    /// # Errors
    /// The system refuses the signal handlers.
    pub fn start() -> io::Result<Self> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let life = Self::without_signals();
        let token = life.token.clone();
        // Not tracked: it outlives the others, to hear a second signal.
        tokio::spawn(async move {
            let signal = either(&mut term, &mut int).await;
            tracing::info!(signal, "stopping");
            notify(&[NotifyState::Stopping]);
            token.cancel();
            let signal = either(&mut term, &mut int).await;
            tracing::warn!(signal, "told twice to stop, ending at once");
            std::process::exit(EXIT_IMPATIENT);
        });
        Ok(life)
    }

    /// The same without signals, for tests and for programs inside others.
    pub fn without_signals() -> Self {
        Self {
            token: CancellationToken::new(),
            tracker: TaskTracker::new(),
        }
    }

    /// Cancelled when the daemon is to end.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Ends the daemon from within.
    pub fn stop(&self) {
        self.token.cancel();
    }

    /// Waits until the daemon is to end.
    pub async fn stopped(&self) {
        self.token.cancelled().await;
    }

    /// Spawns a task that [`Lifecycle::finish`] waits for; it must watch the token.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Tells systemd that the daemon does its work.
    pub fn ready(&self) {
        notify(&[NotifyState::Ready]);
    }

    /// Tells systemd that the daemon has not hung, where a unit asks for that with `WatchdogSec`.
    pub fn alive() {
        if sd_notify::watchdog_enabled().is_some() {
            notify(&[NotifyState::Watchdog]);
        }
    }

    /// A line for `systemctl status`.
    pub fn status(&self, text: &str) {
        notify(&[NotifyState::Status(text)]);
    }

    /// Cancels the token and waits for every task. False when some did not end within `limit`.
    pub async fn finish(self, limit: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        let ended = tokio::time::timeout(limit, self.tracker.wait()).await.is_ok();
        if !ended {
            tracing::warn!(tasks = self.tracker.len(), "tasks did not end in time");
        }
        ended
    }
}

async fn either(term: &mut Signal, int: &mut Signal) -> &'static str {
    // Both arms may be cancelled: a signal that comes meanwhile is kept by the handle.
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not told");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[tokio::test]
    async fn sigterm_ends_the_daemon() {
        let life = Lifecycle::start().unwrap();
        let process = std::process::id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-TERM", &process])
            .status()
            .unwrap();
        assert!(sent.success());
        tokio::time::timeout(Duration::from_secs(10), life.stopped())
            .await
            .expect("the signal was not taken");
    }

    #[tokio::test]
    async fn finish_joins_every_task() {
        let life = Lifecycle::without_signals();
        let token = life.token();
        let task = life.spawn(async move { token.cancelled().await });
        assert!(life.finish(Duration::from_secs(10)).await);
        assert!(task.is_finished());
    }

    #[tokio::test]
    async fn finish_does_not_wait_for_ever() {
        let life = Lifecycle::without_signals();
        life.spawn(std::future::pending::<()>());
        assert!(!life.finish(Duration::from_millis(20)).await);
    }

    #[tokio::test]
    async fn stop_is_seen_by_every_clone() {
        let life = Lifecycle::without_signals();
        life.clone().stop();
        life.stopped().await;
    }
}
