//! The end of a certificate, which is the end of the connections that it opened.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::time::{Sleep, sleep};

/// Longest time between two looks at the clock, which may be set.
const LOOK: Duration = Duration::from_secs(3600);

/// Waits for a moment on the clock.
#[derive(Debug)]
pub(super) struct Expiry {
    at: SystemTime,
    timer: Pin<Box<Sleep>>,
}

impl Expiry {
    pub(super) fn new(at: SystemTime) -> Self {
        let timer = Box::pin(sleep(until(at)));
        Self { at, timer }
    }

    /// An error from then on; before it, the task is woken in time.
    pub(super) fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.timer.as_mut().poll(cx) == Poll::Ready(()) {
            if SystemTime::now() > self.at {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the peer's certificate has expired",
                ));
            }
            self.timer = Box::pin(sleep(until(self.at)));
        }
        Ok(())
    }
}

/// A little later, so that it is over then.
fn until(at: SystemTime) -> Duration {
    let left = at.duration_since(SystemTime::now()).unwrap_or_default();
    left.saturating_add(Duration::from_millis(1)).min(LOOK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_expired_certificate_ends_the_connection_and_a_valid_one_does_not() {
        let mut expiry = Expiry::new(SystemTime::now() + Duration::from_millis(100));
        let mut looks = 0;
        let ended = std::future::poll_fn(|cx| {
            looks += 1;
            match expiry.check(cx) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(error),
            }
        });
        let error = tokio::time::timeout(Duration::from_secs(10), ended)
            .await
            .unwrap_or_else(|_| panic!("it never ends"));
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(looks > 1, "it was valid at first");
    }
}
