//! Every error of the API, by one table. Each carries a `google.rpc.ErrorInfo` with domain `trunkline` and the reason given here.
//!
//! | code | reason | further details | when |
//! |---|---|---|---|
//! | INVALID_ARGUMENT | `INVALID_FIELDS` | BadRequest: every mistake | a field breaks a rule |
//! | INVALID_ARGUMENT | `REQUEST_ID_REUSED` | BadRequest: `request_id` | the id was used for another request |
//! | INVALID_ARGUMENT | `HELLO_INVALID`, `PROTOCOL` | | a node's message makes no sense |
//! | RESOURCE_EXHAUSTED | `POOL_EXHAUSTED` | BadRequest: what found no room | a VLAN pool, a subnet or the ids ran out |
//! | NOT_FOUND | `NOT_FOUND` | ResourceInfo | what is named does not exist |
//! | ALREADY_EXISTS | `ALREADY_EXISTS` | ResourceInfo | what would be made exists |
//! | ALREADY_EXISTS | `IDENTITY_IN_USE` | | another process of this node is connected |
//! | ABORTED | `REVISION_MISMATCH` | metadata `slice`, `expected`, `actual` | `expected_revision` is not the slice's |
//! | ABORTED | `SESSION_REPLACED` | | a newer session of the same node took over |
//! | FAILED_PRECONDITION | `LINKED`, `CONNECTED`, `IN_USE`, `OTHER_NETNODE`, `ROLE_CHANGED`, `WORKER_GONE`, `NOT_DEPLOYED`, `NOT_A_WORKER`, `CORDONED`, `GONE`, `NO_WORKER`, `NOT_CONNECTED`, `NOTHING_HELD`, `OTHER_GENERATION` | PreconditionFailure | something else must be done first |
//! | FAILED_PRECONDITION | `OTHER_CLUSTER`, `NODE_AHEAD`, `PROTOCOL` | | what the node holds does not fit this controller |
//! | OUT_OF_RANGE | `REVISION_COMPACTED` | metadata `oldest` | a watch cannot resume there: list again |
//! | PERMISSION_DENIED | `ROLE_NOT_ALLOWED`, `METHOD_NOT_LISTED`, `IDENTITY_MISMATCH` | | the certificate's role or name |
//! | DEADLINE_EXCEEDED | `HELLO_MISSING`, `NODE_SILENT`, `NO_ANSWER` | | a node was not heard |
//! | UNAVAILABLE | `SESSION_LOST` | | the node went away before it heard the confirmation: confirm again |
//! | UNAVAILABLE | `STOPPING` | | try again, with the same `request_id` |
//! | UNAVAILABLE | `STORE_FAILED` | | not known whether it was done: try again, with the same `request_id` |
//! | INTERNAL | `INCONSISTENT` | | a bug of the controller; nothing was changed |

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use trunkline_proto::Name;

use crate::{
    core::{Compacted, CoreError},
    transition::{Rejection, Violation},
};

/// `domain` of every ErrorInfo.
const DOMAIN: &str = "trunkline";

/// Type of a ResourceInfo: `trunkline.v1/slice`.
const RESOURCE_TYPES: &str = "trunkline.v1";

/// An error with its reason and nothing more.
pub fn with_reason(code: Code, reason: &str, message: impl Into<String>) -> Status {
    Status::with_error_details(code, message, info(reason, []))
}

/// One wrong field.
pub fn field(field: &str, description: impl Into<String>) -> Status {
    let violation = Violation {
        field: field.into(),
        description: description.into(),
        exhausted: false,
    };
    of_rejection(Rejection::Invalid(vec![violation]))
}

/// What is named does not exist.
pub fn not_found(kind: &'static str, name: &str) -> Status {
    of_rejection(Rejection::NotFound {
        kind,
        name: name.to_owned(),
    })
}

/// A slice of which nothing is on any host.
pub fn not_deployed(slice: &Name) -> Status {
    of_rejection(Rejection::Precondition {
        kind: "NOT_DEPLOYED",
        subject: format!("slice {slice}"),
        description: format!("slice {slice} is not deployed"),
    })
}

/// A watch that cannot resume.
pub fn compacted(from: u64, Compacted { oldest }: Compacted) -> Status {
    let message = format!(
        "changes after revision {from} are no longer kept (the oldest kept is {oldest}): list again, then watch from the list's revision"
    );
    Status::with_error_details(
        Code::OutOfRange,
        message,
        info("REVISION_COMPACTED", [("oldest", oldest.to_string())]),
    )
}

/// A change that was not made.
pub fn of_core(error: CoreError) -> Status {
    match error {
        CoreError::Rejected(rejection) => of_rejection(rejection),
        CoreError::RequestReused(_) => {
            let mut details = info("REQUEST_ID_REUSED", []);
            details.add_bad_request_violation("request_id", "use a new id for a new request");
            Status::with_error_details(Code::InvalidArgument, error.to_string(), details)
        }
        CoreError::Store(_) => with_reason(
            Code::Unavailable,
            "STORE_FAILED",
            "the change could not be stored and may or may not be done; try again with the same request_id",
        ),
        CoreError::Stopping => with_reason(Code::Unavailable, "STOPPING", "the controller is stopping; try again"),
    }
}

/// An intent that was turned down.
pub fn of_rejection(rejection: Rejection) -> Status {
    let message = rejection.to_string();
    let (code, details) = match rejection {
        Rejection::Invalid(violations) => (Code::InvalidArgument, violated("INVALID_FIELDS", violations)),
        Rejection::Exhausted(violations) => (Code::ResourceExhausted, violated("POOL_EXHAUSTED", violations)),
        Rejection::NotFound { kind, name } => (Code::NotFound, resource("NOT_FOUND", kind, name, &message)),
        Rejection::AlreadyExists { kind, name } => {
            (Code::AlreadyExists, resource("ALREADY_EXISTS", kind, name, &message))
        }
        Rejection::Aborted {
            slice,
            expected,
            actual,
        } => {
            let metadata = [
                ("slice", slice),
                ("expected", expected.to_string()),
                ("actual", actual.to_string()),
            ];
            (Code::Aborted, info("REVISION_MISMATCH", metadata))
        }
        Rejection::Precondition {
            kind,
            subject,
            description,
        } => {
            let mut details = info(kind, []);
            details.add_precondition_failure_violation(kind, subject, description);
            (Code::FailedPrecondition, details)
        }
        Rejection::Internal(error) => {
            tracing::error!(%error, "a change would have been inconsistent; nothing was stored");
            (Code::Internal, info("INCONSISTENT", []))
        }
    };
    Status::with_error_details(code, message, details)
}

fn info<const N: usize>(reason: &str, metadata: [(&str, String); N]) -> ErrorDetails {
    let metadata: HashMap<String, String> = metadata
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

fn violated(reason: &str, violations: Vec<Violation>) -> ErrorDetails {
    let mut details = info(reason, []);
    for Violation {
        field,
        description,
        exhausted: _,
    } in violations
    {
        details.add_bad_request_violation(field, description);
    }
    details
}

fn resource(reason: &str, kind: &str, name: String, message: &str) -> ErrorDetails {
    let mut details = info(reason, [("kind", kind.to_owned()), ("name", name.clone())]);
    details.set_resource_info(format!("{RESOURCE_TYPES}/{kind}"), name, "", message);
    details
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_rejection_has_a_reason_of_our_domain() {
        let name = || "web".to_owned();
        let violations = || {
            vec![Violation {
                field: "slices[0].name".into(),
                description: "bad".into(),
                exhausted: false,
            }]
        };
        for (rejection, code, reason) in [
            (
                Rejection::Invalid(violations()),
                Code::InvalidArgument,
                "INVALID_FIELDS",
            ),
            (
                Rejection::Exhausted(violations()),
                Code::ResourceExhausted,
                "POOL_EXHAUSTED",
            ),
            (
                Rejection::NotFound {
                    kind: "vm",
                    name: name(),
                },
                Code::NotFound,
                "NOT_FOUND",
            ),
            (
                Rejection::AlreadyExists {
                    kind: "vm",
                    name: name(),
                },
                Code::AlreadyExists,
                "ALREADY_EXISTS",
            ),
            (
                Rejection::Aborted {
                    slice: name(),
                    expected: 1,
                    actual: 2,
                },
                Code::Aborted,
                "REVISION_MISMATCH",
            ),
            (
                Rejection::Precondition {
                    kind: "LINKED",
                    subject: "vm web".into(),
                    description: "remove the link".into(),
                },
                Code::FailedPrecondition,
                "LINKED",
            ),
        ] {
            let status = of_rejection(rejection);
            let info = status.get_details_error_info().unwrap();
            assert_eq!(
                (status.code(), info.reason.as_str(), info.domain.as_str()),
                (code, reason, "trunkline")
            );
            let table = include_str!("errors.rs");
            assert!(table.contains(&format!("`{reason}`")), "{reason} is not in the table");
        }
    }
}
