//! When a connection must end: with the certificate that it was opened with, and soon after we stop.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Longest time between two looks at the clock, which may be set.
const LOOK: Duration = Duration::from_secs(3600);

/// How long an orderly end may take a connection: a peer that does not read what it asked for would never let it end.
const FAREWELL: Duration = Duration::from_secs(3);

/// The end of one connection.
pub(super) struct Ending(Option<Pin<Box<dyn Future<Output = &'static str> + Send + Sync>>>);

impl Ending {
    pub(super) fn new(certificate_expires: SystemTime, stop: CancellationToken) -> Self {
        Self(Some(Box::pin(async move {
            // Either arm may be cancelled: both only wait.
            tokio::select! {
                () = expired(certificate_expires) => "the peer's certificate has expired",
                () = async { stop.cancelled().await; sleep(FAREWELL).await } => "the controller has stopped",
            }
        })))
    }

    /// An error from the end on; before it, the task is woken in time.
    pub(super) fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let ended = |why| Err(io::Error::new(io::ErrorKind::TimedOut, why));
        let Some(wait) = &mut self.0 else {
            return ended("the connection is over");
        };
        match wait.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(why) => {
                self.0 = None;
                ended(why)
            }
        }
    }
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ending").finish_non_exhaustive()
    }
}

async fn expired(at: SystemTime) {
    while let Ok(left) = at.duration_since(SystemTime::now()) {
        // A little later, so that it is over then.
        sleep(left.saturating_add(Duration::from_millis(1)).min(LOOK)).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    async fn end(mut ending: Ending) -> (String, u32) {
        let mut looks = 0;
        let ended = std::future::poll_fn(|cx| {
            looks += 1;
            match ending.check(cx) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(error.to_string()),
            }
        });
        let why = tokio::time::timeout(Duration::from_secs(10), ended).await;
        (why.expect("it never ends"), looks)
    }

    #[tokio::test]
    async fn an_expired_certificate_ends_the_connection_and_a_valid_one_does_not() {
        let soon = SystemTime::now() + Duration::from_millis(100);
        let (why, looks) = end(Ending::new(soon, CancellationToken::new())).await;
        assert!(why.contains("expired") && looks > 1, "{why} after {looks}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_does_not_outlive_our_end_by_long() {
        let stop = CancellationToken::new();
        stop.cancel();
        let (why, _) = end(Ending::new(SystemTime::now() + LOOK, stop)).await;
        assert!(why.contains("stopped"), "{why}");
    }
}
