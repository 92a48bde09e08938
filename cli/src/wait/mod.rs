//! Waiting: status as it comes, until what was asked for is so, or the time is up.

mod display;
mod follow;
mod goal;

pub(crate) use display::{Display, line};
pub(crate) use follow::{Next, follow, passes};
pub(crate) use goal::{Goal, Until};

use std::time::Duration;

use trunkline_proto::wire::GetStatusResponse;

use crate::{failure::Failure, session::Session};

/// Waits for a goal, showing how far it is. Survives a controller's restart.
pub(crate) async fn wait(session: &Session, goal: &Goal, timeout: Duration) -> Result<(), Failure> {
    let mut display = Display::new(&session.console);
    let mut last: Option<GetStatusResponse> = None;
    let mut lost = false;
    let watched = follow(session, &goal.slices, true, |next| match next {
        Next::Lost(why) => {
            if !std::mem::replace(&mut lost, true) {
                display.note(&format!("lost the controller, trying again: {why}"));
            }
            None
        }
        // A slice that does not exist is on no host.
        Next::Missing => (goal.until == Until::Gone).then_some(Ok(())),
        Next::Status(status) => {
            if std::mem::replace(&mut lost, false) {
                display.note("the controller is back");
            }
            let verdict = goal.judge(&status);
            display.show(&goal.progress(&status));
            last = Some(status);
            verdict.finished()
        }
    });
    let outcome = tokio::time::timeout(timeout, watched).await;
    display.finish();
    match outcome {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(never))) => Err(Failure::NotReady {
            what: never,
            missing: Vec::new(),
        }),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::NotReady {
            what: match timeout.is_zero() {
                true => format!("it is not {}", goal.wish()),
                false => format!("waited {timeout:?}, and it is still not {}", goal.wish()),
            },
            missing: last.map_or_else(
                || vec!["the controller never said how far it is".to_owned()],
                |s| goal.missing(&s),
            ),
        }),
    }
}
