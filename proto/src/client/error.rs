//! A failed call, readable by people and by programs.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::connect::{DialError, find};

/// What a call failed with: the gRPC code and message, and what the google.rpc details say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// gRPC code.
    pub code: Code,
    /// One sentence for a person.
    pub message: String,
    /// Every wrong field of the request.
    pub violations: Vec<Violation>,
    /// Reason for programs, `VLAN_POOL_EXHAUSTED`.
    pub reason: Option<String>,
    /// What belongs to the reason, by name.
    pub metadata: BTreeMap<String, String>,
}

/// One wrong field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, `slices[0].vms[2].name`.
    pub field: String,
    /// What is wrong and what to write instead.
    pub description: String,
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let violations = details.bad_request().map_or_else(Vec::new, |bad| {
            let violation = |v: &tonic_types::FieldViolation| Violation {
                field: v.field.clone(),
                description: v.description.clone(),
            };
            bad.field_violations.iter().map(violation).collect()
        });
        let info = details.error_info();
        Self {
            code: status.code(),
            message: message(&status),
            violations,
            reason: info.map(|info| info.reason.clone()),
            metadata: info
                .map(|info| info.metadata.clone().into_iter().collect())
                .unwrap_or_default(),
        }
    }
}

/// On one line: the message, then every violation.
impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for Violation { field, description } in &self.violations {
            write!(f, "; {field}: {description}")?;
        }
        Ok(())
    }
}

impl Error for ApiError {}

/// A call that never reached the controller says only "transport error"; what is under it is what helps.
fn message(status: &Status) -> String {
    let Some(source) = status.source() else {
        return status.message().to_owned();
    };
    if let Some(dial) = find::<DialError>(source) {
        return dial.to_string();
    }
    let (outer, inner) = (status.message(), deepest(source));
    if is_alert(source) {
        format!("the controller refused our certificate ({inner}); its log says why")
    } else if outer.contains(&inner) {
        outer.to_owned()
    } else {
        format!("{outer}: {inner}")
    }
}

/// True when the other side ended TLS, which after the handshake means that it does not take our certificate. HTTP/2 keeps only the text
/// of an error under it, so there is no type to look for.
pub(super) fn is_alert(source: &(dyn Error + 'static)) -> bool {
    deepest(source).contains("received fatal alert")
}

fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(next) = error.source() {
        error = next;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn details_are_read() {
        let mut details = ErrorDetails::with_bad_request_violation("slices[0].name", "must not be empty");
        details.set_error_info("INVALID", "trunkline", [("slice".to_owned(), "web".to_owned())]);
        let error = ApiError::from(Status::with_error_details(
            Code::InvalidArgument,
            "the request is wrong",
            details,
        ));
        assert_eq!(
            error.to_string(),
            "the request is wrong; slices[0].name: must not be empty"
        );
        assert_eq!(error.reason.as_deref(), Some("INVALID"));
        assert_eq!(error.metadata["slice"], "web");
    }

    #[test]
    fn a_bare_status_is_its_message() {
        let error = ApiError::from(Status::not_found("no slice `web`"));
        assert_eq!(
            (error.code, error.to_string().as_str()),
            (Code::NotFound, "no slice `web`")
        );
        assert!(error.violations.is_empty() && error.reason.is_none());
    }
}
