//! The status as it changes, across restarts of the controller.

use std::time::Duration;

use tonic::{Code, Status};
use trunkline_proto::{
    client::ApiError,
    wire::{GetStatusResponse, WatchStatusRequest},
};

use crate::{failure::Failure, session::Session};

/// Pause before trying again, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// What comes next.
pub(crate) enum Next {
    /// A new status.
    Status(GetStatusResponse),
    /// The controller went away; it is tried again.
    Lost(String),
    /// A named slice does not exist (any more).
    Missing,
}

/// Follows the status of these slices (all, when none is named) until `step` says that it has seen enough. A slice that does not
/// exist is told to `step`, and is an error when that does not end it. `brief`: without what links and VMs stand on.
pub(crate) async fn follow<T>(
    session: &Session,
    slices: &[String],
    brief: bool,
    mut step: impl FnMut(Next) -> Option<T>,
) -> Result<T, Failure> {
    let mut pause = FIRST_PAUSE;
    loop {
        let ended = match watch(session, (slices, brief), &mut step, &mut pause).await {
            Ok(done) => return Ok(done),
            Err(ended) => ended,
        };
        if ended.code() == Code::NotFound
            && let Some(done) = step(Next::Missing)
        {
            return Ok(done);
        }
        if !passes(&ended) {
            return Err(ended.into());
        }
        if let Some(done) = step(Next::Lost(ApiError::from(ended).message)) {
            return Ok(done);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One stream, from its beginning to its end.
async fn watch<T>(
    session: &Session,
    (slices, brief): (&[String], bool),
    step: &mut impl FnMut(Next) -> Option<T>,
    pause: &mut Duration,
) -> Result<T, Status> {
    let request = session.request(WatchStatusRequest {
        slices: slices.to_vec(),
        brief,
    });
    let mut stream = session.client.watch().watch_status(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        *pause = FIRST_PAUSE;
        if let Some(status) = message.status
            && let Some(done) = step(Next::Status(status))
        {
            return Ok(done);
        }
    }
    Err(Status::unavailable("the controller ended the stream"))
}

/// True for what a restart of the controller, or a network that comes back, mends.
pub(crate) fn passes(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal | Code::DeadlineExceeded
    )
}
