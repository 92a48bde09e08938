//! Why a command failed: what happened, what to do, and the exit code.
//!
//! | code | gRPC | otherwise |
//! |---|---|---|
//! | 1 | INTERNAL, all others | |
//! | 2 | INVALID_ARGUMENT, OUT_OF_RANGE, RESOURCE_EXHAUSTED | usage, a wrong topology file, an ambiguous name |
//! | 3 | NOT_FOUND | a name that nothing has |
//! | 4 | ABORTED, ALREADY_EXISTS, FAILED_PRECONDITION | |
//! | 5 | UNAVAILABLE, UNAUTHENTICATED, PERMISSION_DENIED, DEADLINE_EXCEEDED, CANCELLED | no connection |
//! | 6 | | waited in vain; not reached, as `explain` finds |

use std::{error::Error, fmt::Write, io};

use thiserror::Error;
use tonic::Code;
use trunkline_proto::client::{ApiError, ConnectError, EndpointError};

use crate::{console::Console, topology::Wrong};

/// A command that did not do what was asked.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The command line asks for something that makes no sense.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to write instead.
        instead: String,
    },
    /// A file cannot be read.
    #[error("cannot read {file}")]
    File {
        /// As given.
        file: String,
        #[source]
        source: io::Error,
    },
    /// The topology file has mistakes.
    #[error("{0}")]
    Topology(Box<Wrong>),
    /// The controller said no, and where in the topology file.
    #[error("{wrong}")]
    Refused {
        /// Its violations, as mistakes of the file.
        wrong: Box<Wrong>,
        /// As it came.
        error: ApiError,
    },
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The controller said no.
    #[error("{}", .0.message)]
    Api(ApiError),
    /// Nothing has this name.
    #[error("there is no {kind} {name}")]
    NotFound {
        /// `VM`.
        kind: &'static str,
        /// As given.
        name: String,
        /// How to see what there is.
        instead: String,
    },
    /// It did not become so.
    #[error("{what}")]
    NotReady {
        /// `not ready after 5m`.
        what: String,
        /// What is not ready, and why.
        missing: Vec<String>,
    },
    /// Standard output cannot be written to.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    #[error("cannot write the output as JSON")]
    Json(#[source] serde_json::Error),
    #[error("cannot write the output as YAML: {0}")]
    Yaml(String),
    /// Traces cannot be sent.
    #[error(transparent)]
    Telemetry(#[from] trunkline_proto::daemon::TelemetryError),
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        Self::Api(status.into())
    }
}

impl Failure {
    /// As the help documents them.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } | Self::File { .. } | Self::Topology(_) | Self::Telemetry(_) => 2,
            Self::Connect(ConnectError::Endpoint(EndpointError::Plaintext(_) | EndpointError::Form(_))) => 2,
            Self::Connect(_) => 5,
            Self::NotFound { .. } => 3,
            Self::NotReady { .. } => 6,
            Self::Output(_) | Self::Json(_) | Self::Yaml(_) => 1,
            Self::Api(error) | Self::Refused { error, .. } => match error.code {
                Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted => 2,
                Code::NotFound => 3,
                Code::Aborted | Code::AlreadyExists | Code::FailedPrecondition => 4,
                Code::Unavailable | Code::Unauthenticated | Code::PermissionDenied => 5,
                Code::DeadlineExceeded | Code::Cancelled => 5,
                _ => 1,
            },
        }
    }

    /// True when whoever read our output has gone, as `head` does: nothing to complain about.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What to do, where that is known.
    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Usage { instead, .. } | Self::NotFound { instead, .. } => instead.clone(),
            Self::Connect(ConnectError::Bundle(_)) => {
                "--bundle (or TRUNKLINE_BUNDLE) names the directory that `trunkline-certs issue` made for you".to_owned()
            }
            Self::Connect(ConnectError::Dial(_) | ConnectError::Transport { .. }) => {
                "--controller (or TRUNKLINE_CONTROLLER) says where it listens, --server-name what its certificate is for"
                    .to_owned()
            }
            Self::Api(error) => match error.code {
                Code::Unavailable => "look whether the controller runs, then do the same again: it is safe".to_owned(),
                Code::PermissionDenied => "viewers may only read; changes need a bundle of the role operator".to_owned(),
                Code::Unauthenticated => "get a bundle of this controller's authority: `trunkline-certs issue`".to_owned(),
                Code::Aborted => "look at it again with `trunkctl slice show`, then repeat with its revision".to_owned(),
                Code::DeadlineExceeded | Code::Cancelled => {
                    "the controller took too long to answer; look with `trunkctl status` whether it was done".to_owned()
                }
                _ => return None,
            },
            _ => return None,
        })
    }

    /// For standard error.
    pub(crate) fn render(&self, console: &Console) -> String {
        use crate::console::Tone;
        if let Self::Topology(wrong) | Self::Refused { wrong, .. } = self {
            return if console.terminal_errors {
                wrong.pretty(console.paint_errors.0, 100)
            } else {
                wrong.to_string()
            };
        }
        let paint = console.paint_errors;
        let mut out = format!("{} {self}\n", paint.tone(Tone::Bad, "error:"));
        let mut causes = Vec::new();
        let mut next = self.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        let said = self.to_string();
        // A cause that is told already, by the error or by the cause before it, adds nothing.
        let mut told = said.clone();
        causes.retain(|cause| {
            let new = !told.contains(cause.as_str());
            told.push_str(cause);
            new
        });
        let violations = match self {
            Self::Api(error) => error
                .violations
                .iter()
                .map(|v| format!("{}: {}", v.field, v.description))
                .filter(|line| *line != said)
                .collect(),
            _ => Vec::new(),
        };
        let missing = match self {
            Self::NotReady { missing, .. } => missing.as_slice(),
            _ => &[],
        };
        for line in causes
            .iter()
            .map(|c| format!("because {c}"))
            .chain(violations)
            .chain(missing.iter().cloned())
        {
            let _ = writeln!(out, "  {line}");
        }
        if let Some(advice) = self.advice() {
            let _ = writeln!(out, "{} {advice}", paint.tone(Tone::Good, "hint:"));
        }
        out
    }
}
