//! Why an intent is not done.

use trunkline_proto::{Invalid, Name};

use crate::check::CheckError;

/// An intent that was turned down; nothing has changed. The API maps these to codes by one table.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// Every mistake of the request.
    #[error("{}", mistakes(.0))]
    Invalid(Vec<Violation>),
    /// Nothing wrong with the request, but a pool or a counter has run out.
    #[error("{}", first(.0))]
    Exhausted(Vec<Violation>),
    /// It names something that does not exist.
    #[error("there is no {kind} {name:?}")]
    NotFound {
        /// `slice`, `vm`, `link`, `node`, `revision`.
        kind: &'static str,
        /// As it was asked for; a valid name.
        name: String,
    },
    /// It would create something that exists.
    #[error("the {kind} {name:?} exists already")]
    AlreadyExists {
        /// `vm`, `link`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The slice has changed since the caller read it.
    #[error("slice {slice} is at revision {actual}, not {expected}; read it again")]
    Aborted {
        /// The slice.
        slice: String,
        /// What the caller expected.
        expected: u64,
        /// What it is; 0 when there is no such slice.
        actual: u64,
    },
    /// Something else must be done first.
    #[error("{description}")]
    Precondition {
        /// As the table of the API's errors lists them.
        kind: &'static str,
        /// `vm web`, `node w1`.
        subject: String,
        /// What to do first.
        description: String,
    },
    /// A bug: the result broke a rule, and was not stored.
    #[error("the change would make the desired state inconsistent; this is a bug, nothing was changed")]
    Internal(#[source] CheckError),
}

/// One mistake of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, in the names of the .proto files: `slices[0].vms[2].interfaces[0].mac`.
    pub field: String,
    /// What is wrong and what to write instead.
    pub description: String,
    /// True when the value is fine but something has run out.
    pub exhausted: bool,
}

/// What stands in the way of a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Conflict(pub String);

/// Collects every mistake of a request.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<Violation>);

impl Mistakes {
    pub(crate) fn add(&mut self, field: impl Into<String>, description: impl ToString) {
        self.0.push(Violation {
            field: field.into(),
            description: description.to_string(),
            exhausted: false,
        });
    }

    pub(crate) fn exhausted(&mut self, field: impl Into<String>, description: impl ToString) {
        self.0.push(Violation {
            field: field.into(),
            description: description.to_string(),
            exhausted: true,
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value, or a mistake in its place.
    pub(crate) fn take<T>(&mut self, field: impl Into<String>, value: Result<T, Invalid>) -> Option<T> {
        value.map_err(|problem| self.add(field, problem)).ok()
    }

    /// All of them.
    pub(crate) fn into_list(self) -> Vec<Violation> {
        self.0
    }

    /// `Ok` when there was none. Only when nothing but exhaustion was found is it called that.
    pub(crate) fn finish(self) -> Result<(), Rejection> {
        if self.0.is_empty() {
            Ok(())
        } else if self.0.iter().all(|v| v.exhausted) {
            Err(Rejection::Exhausted(self.0))
        } else {
            Err(Rejection::Invalid(self.0))
        }
    }
}

impl Rejection {
    /// The same, with the paths of its violations put through `f`.
    pub(crate) fn map_fields(self, f: impl Fn(String) -> String) -> Self {
        let map = |list: Vec<Violation>| {
            let path = |v: Violation| Violation { field: f(v.field), ..v };
            list.into_iter().map(path).collect()
        };
        match self {
            Self::Invalid(list) => Self::Invalid(map(list)),
            Self::Exhausted(list) => Self::Exhausted(map(list)),
            other => other,
        }
    }

    pub(crate) fn no_slice(name: &Name) -> Self {
        Self::NotFound {
            kind: "slice",
            name: name.to_string(),
        }
    }
}

/// One is told; of several the details tell each.
fn mistakes(violations: &[Violation]) -> String {
    match violations {
        [_] => first(violations),
        several => format!(
            "the request has {} mistakes; the first is {}",
            several.len(),
            first(several)
        ),
    }
}

fn first(violations: &[Violation]) -> String {
    violations
        .first()
        .map_or_else(String::new, |v| format!("{}: {}", v.field, v.description))
}
