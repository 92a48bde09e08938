//! The operator: makes the changes, each with a request id of its own, and asks with the same id until there is an answer.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use tonic::{Code, Response, Status};
use trunkline_proto::client::Client;
use trunkline_proto::wire::{GetSliceRequest, Slice};

use super::ledger::Ledger;
use crate::LabError;
use crate::api::Api;

/// A controller that died is back by then, and a full disk empty.
const PATIENCE: Duration = Duration::from_secs(120);
const ONE_CALL: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// The operator and its book.
pub(super) struct Operator {
    pub(super) api: Api,
    pub(super) ledger: Ledger,
    /// Changes that were made.
    pub(super) acknowledged: usize,
    /// Changes that were refused.
    pub(super) refused: usize,
}

/// An answer: done, or refused for good.
pub(super) type Answer<T> = Result<T, Status>;

impl Operator {
    /// With an empty book.
    pub(super) fn new(api: Api) -> Self {
        Self {
            api,
            ledger: Ledger::default(),
            acknowledged: 0,
            refused: 0,
        }
    }

    /// Whatever the controller says that is not its word on the request leaves open whether it was done: the same again.
    pub(super) fn insist<T, F, Call>(&self, twice: bool, call: F) -> Result<Answer<T>, String>
    where
        T: PartialEq + Debug,
        F: Fn(&Client) -> Call,
        Call: Future<Output = Result<Response<T>, Status>>,
    {
        let first = self.ask(&call)?;
        if twice {
            let second = self.ask(&call)?;
            match (&first, &second) {
                (Ok(left), Ok(right)) if left == right => {}
                // A refusal is not kept: the same may be right by then.
                (Err(_), Err(_)) => {}
                _ => {
                    return Err(format!(
                        "the same request was answered with {first:?} and then {second:?}"
                    ));
                }
            }
        }
        Ok(first)
    }

    fn ask<T, F, Call>(&self, call: &F) -> Result<Answer<T>, String>
    where
        F: Fn(&Client) -> Call,
        Call: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let future = call(self.api.client());
            let answer = self
                .api
                .block_on(async { tokio::time::timeout(ONE_CALL, future).await });
            let seen = match answer {
                Ok(Ok(done)) => return Ok(Ok(done.into_inner())),
                Ok(Err(status)) if is_final(status.code()) => return Ok(Err(status)),
                Ok(Err(status)) => format!("{:?}: {}", status.code(), status.message()),
                Err(_) => "nothing".to_owned(),
            };
            if Instant::now() >= deadline {
                return Err(format!("no answer to a change within {PATIENCE:?}; last: {seen}"));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Writes an answer into the book.
    pub(super) fn note<T>(
        &mut self,
        answer: Answer<T>,
        write: impl FnOnce(&mut Ledger, T) -> Result<(), String>,
    ) -> Result<String, String> {
        match answer {
            Ok(done) => {
                self.acknowledged += 1;
                write(&mut self.ledger, done)?;
                Ok("done".to_owned())
            }
            Err(status) => {
                self.refused += 1;
                Ok(format!("refused: {}", status.message()))
            }
        }
    }

    /// The deployed slices as the API shows them, when all that was answered is as it was answered.
    pub(super) fn account(&mut self) -> Result<Vec<Slice>, String> {
        let drafts = self.api.slices().map_err(|error| error.chain())?;
        let status = self.api.status().map_err(|error| error.chain())?;
        let saw = self.ledger.saw(status.revision, Some((status.term, status.generation)));
        let names: Vec<String> = self.ledger.deployed_names().cloned().collect();
        let deployed: Result<Vec<Slice>, LabError> = names.iter().map(|name| self.deployed(name)).collect();
        let deployed = deployed.map_err(|error| error.chain())?;
        let mut wrong = self.ledger.compare(&drafts, &deployed);
        wrong.extend(saw.err());
        if wrong.is_empty() {
            Ok(deployed)
        } else {
            Err(wrong.join("\n"))
        }
    }

    fn deployed(&self, name: &str) -> Result<Slice, LabError> {
        let request = GetSliceRequest {
            name: name.to_owned(),
            deployed: true,
            number: 0,
        };
        let mut slices = self.api.client().slices();
        let answer = self.api.block_on(slices.get_slice(request));
        let what =
            |status: Status| LabError::Other(format!("{name} is deployed, and is not shown: {}", status.message()));
        Ok(answer.map_err(what)?.into_inner())
    }
}

/// The controller looked at it and said no.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::ResourceExhausted
    )
}
