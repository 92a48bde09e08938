//! What can go wrong in the lab, in words for the person who ran it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Any failure of the lab or of a guest.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces, OVS and TAPs need it.
    #[error("the lab needs root: run it as root or with sudo")]
    NotRoot,
    /// A program that set-up builds or installs is not there.
    #[error(
        "{program} was not found in {looked_in}: run ./integration/setup, it installs and builds what the lab needs"
    )]
    MissingProgram {
        /// Its name.
        program: String,
        /// Where it should be.
        looked_in: String,
    },
    /// The system refused something.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A command in a host ended with another status than 0.
    #[error("{command} on {host} ended with {status}: {stderr}")]
    Command {
        /// Host it ran on.
        host: String,
        /// Its arguments, joined.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// A condition did not come true in time.
    #[error("{what} did not happen within {after:?}; last seen: {seen}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
        /// What was there instead.
        seen: String,
    },
    /// No host has this name.
    #[error("there is no host {name:?} in this lab; there are: {known}")]
    UnknownHost {
        /// As asked for.
        name: String,
        /// All names, joined.
        known: String,
    },
    /// A daemon's log says why.
    #[error("{program} on {host} ended early ({status}); the end of {log}:\n{tail}", log = .log.display())]
    DaemonEnded {
        /// Host it ran on.
        host: String,
        /// Program's name.
        program: String,
        /// How it ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// Whatever else, in words.
    #[error("{0}")]
    Other(String),
}

impl LabError {
    /// Wraps an I/O error with what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The whole chain in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

impl From<nix::Error> for LabError {
    fn from(errno: nix::Error) -> Self {
        Self::Io {
            what: "a system call failed".to_owned(),
            source: errno.into(),
        }
    }
}
