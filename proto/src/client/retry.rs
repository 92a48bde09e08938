//! Trying again, where that is safe.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tonic::{Code, Status};
use uuid::Uuid;

use super::connect::{DialError, find};
use super::error::is_alert;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// With the pauses above, about five seconds in all: a controller's restart.
const ATTEMPTS: usize = 6;

/// A new `request_id`. Draw it once per intent, not per attempt.
pub fn new_request_id() -> String {
    Uuid::new_v4().to_string()
}

/// Makes a call again while the controller is not there (UNAVAILABLE, or the connection broke). Only for reads and for calls that carry a `request_id`: the first
/// attempt may have been done without our hearing of it.
///
/// # Errors
/// The last attempt's, or the first that says anything but "not there".
pub async fn retry<T, F, Call>(call: F) -> Result<T, Status>
where
    F: FnMut() -> Call,
    Call: Future<Output = Result<T, Status>>,
{
    let pauses = ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_max_times(ATTEMPTS)
        .with_jitter();
    call.retry(pauses).when(may_pass).await
}

/// UNAVAILABLE, or a connection that broke under the call. A refused certificate looks like either, but does not get better by itself.
fn may_pass(status: &Status) -> bool {
    let Some(source) = status.source() else {
        return status.code() == Code::Unavailable;
    };
    let refused = matches!(find(source), Some(DialError::Tls { .. })) || is_alert(source);
    let broken = status.code() == Code::Unknown && find::<tonic::transport::Error>(source).is_some();
    (status.code() == Code::Unavailable || broken) && !refused
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;

    use super::*;

    async fn attempts(code: Code, good_after: usize) -> (usize, Result<(), Status>) {
        let made = Cell::new(0);
        let result = retry(|| {
            made.set(made.get() + 1);
            let good = made.get() > good_after;
            async move { if good { Ok(()) } else { Err(Status::new(code, "no")) } }
        })
        .await;
        (made.get(), result)
    }

    #[tokio::test]
    async fn unavailable_is_tried_again() {
        let (made, result) = attempts(Code::Unavailable, 2).await;
        assert_eq!(made, 3);
        result.unwrap();
    }

    #[tokio::test]
    async fn anything_else_is_final() {
        for code in [
            Code::InvalidArgument,
            Code::Aborted,
            Code::DeadlineExceeded,
            Code::PermissionDenied,
        ] {
            let (made, result) = attempts(code, 1).await;
            assert_eq!((made, result.unwrap_err().code()), (1, code));
        }
    }

    #[test]
    fn request_ids_differ_and_fit() {
        let (one, two) = (new_request_id(), new_request_id());
        assert_ne!(one, two);
        assert!(one.len() <= 64);
    }
}
