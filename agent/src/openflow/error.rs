//! What can go wrong, and the switch's error codes in plain words.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// Why work on flows failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// ovs-vswitchd has no such bridge, or does not run.
    #[error("not connected to the bridge's management socket {socket}")]
    NotConnected {
        /// Its path.
        socket: String,
    },
    /// The socket failed.
    #[error("talk to {socket}")]
    Io {
        /// Its path.
        socket: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection ended before the answer.
    #[error("the connection to ovs-vswitchd was lost")]
    ConnectionLost,
    /// No answer.
    #[error("ovs-vswitchd did not answer within {0:?}")]
    Timeout(Duration),
    /// An answer did not come in time, so the connection was ended.
    #[error("ovs-vswitchd left a request without an answer")]
    Overdue,
    /// It speaks no version that we do.
    #[error("the bridge does not speak OpenFlow 1.4 ({0}); its column `protocols` must be empty or hold OpenFlow14")]
    Version(String),
    /// It said what OpenFlow does not allow, or what we do not understand.
    #[error("unexpected from ovs-vswitchd: {0}")]
    Protocol(String),
    /// It refused a request.
    #[error("ovs-vswitchd refused {what}: {reason}")]
    Refused {
        /// The request.
        what: String,
        /// Its reason.
        reason: String,
    },
    /// It cannot have these meters. What else was asked with them was done, but for flows.
    #[error("ovs-vswitchd refused {} of the meters: {}", refused.len(), refused.values().next().map_or("", String::as_str))]
    Unmetered {
        /// Why, by the meters' numbers.
        refused: BTreeMap<u32, String>,
    },
}

impl Error {
    /// True when the switch answered, so that it may be asked for other things.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Unmetered { .. } | Self::Protocol(_))
    }
}

/// An error's type and code in words. Those that a wrong flow or a full table can bring; others keep their numbers.
pub(super) fn reason(kind: u16, code: u16) -> String {
    let known = match (kind, code) {
        (0, _) => "no common OpenFlow version",
        (1, 0) => "the OpenFlow version of the message is wrong",
        (1, 1) => "the type of the message is not known",
        (1, 2) => "the type of the multipart request is not known",
        (1, 5) => "no permission",
        (1, 6) => "the message has a wrong length",
        (1, 9) => "there is no such table",
        (2, 0) => "an action is not known",
        (2, 1) => "an action has a wrong length",
        (2, 4) => "an action sends to a port that cannot be",
        (2, 5) => "an action's argument is wrong",
        (2, 7) => "too many actions",
        (2, 13) => "an action sets a field that is not known",
        (2, 14) => "an action sets a field with a wrong length",
        (2, 15) => "an action sets a field to a value that cannot be",
        (3, 0) => "an instruction is not known",
        (3, 2) => "goto leads to a table that cannot be",
        (4, 0) => "the match is of a type that is not known",
        (4, 1) => "the match has a wrong length",
        (4, 6) => "the match has a field that is not known",
        (4, 7) => "the match has a value that cannot be",
        (4, 8) => "the match has a mask that cannot be",
        (4, 9) => "a field of the match needs another field that is missing",
        (4, 10) => "the match names a field twice",
        (5, 1) => "the flow table is full",
        (5, 2) => "there is no such flow table",
        (5, 3) => "it overlaps with another flow",
        (10, 0) => "its configuration has flags that cannot be",
        (10, 2) => "no permission to change its configuration",
        (12, 1) => "the meter exists already",
        (12, 2) => "there is no such meter, or its number cannot be",
        (12, 3) => "there is no such meter",
        (12, 6) => "the meter's rate cannot be",
        (12, 7) => "the meter's burst cannot be",
        (12, 10) => "no more meters",
        (12, 11) => "no more bands for meters, or the datapath has no meters at all",
        (17, 2) => "there is no such bundle",
        (17, 3) => "the bundle exists already",
        (17, 4) => "the bundle is closed",
        (17, 5) => "too many bundles",
        (17, 10) => "this message cannot be in a bundle",
        (17, 12) => "too many messages in the bundle",
        (17, 13) => "a message of the bundle failed",
        (17, 14) => "the bundle took too long",
        _ => return format!("error type {kind}, code {code}"),
    };
    known.to_owned()
}
