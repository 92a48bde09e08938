//! Open vSwitch's database, by its own protocol (RFC 7047, JSON-RPC on a Unix socket).
//!
//! [`Client`] keeps one connection for ever and mirrors the four tables we need as an immutable [`Snapshot`]. While there is no
//! connection the snapshot is `None`: that means "unknown", never "nothing there". A [`Transaction`] is a value; its answer is
//! checked operation by operation, because OVSDB reports a failed operation inside a successful reply, and commits a mutation
//! that matched no row.
//!
//! ```text
//!   ovsdb-server ==> client task ==> Snapshot + tick ==> whoever observes
//!        ^               ^
//!        '--- requests --'-- transact / commit
//! ```

mod client;
mod snapshot;
mod transaction;
mod value;
mod wire;

use std::io;
use std::time::Duration;

pub use client::Client;
pub use snapshot::{Bridge, Interface, Port, Root, Snapshot};
pub use transaction::{Outcome, Row, Transaction};
pub use value::{named_uuid, string_map, uuid, uuid_set};

/// Where Open vSwitch's packages put the database's socket.
pub const DEFAULT_SOCKET: &str = "/run/openvswitch/db.sock";

/// Why a request to the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no connection at the moment; the client is trying.
    #[error("no connection to Open vSwitch's database at {socket}")]
    NotConnected {
        /// Socket that is being tried.
        socket: String,
    },
    /// The connection broke while the answer was awaited: the transaction may or may not have been committed.
    #[error("connection to Open vSwitch's database was lost while a request was under way")]
    ConnectionLost,
    /// No answer within the time limit.
    #[error("Open vSwitch's database did not answer within {0:?}")]
    Timeout(Duration),
    /// The socket failed.
    #[error("Open vSwitch's database socket {socket}")]
    Io {
        /// Socket that was used.
        socket: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The request as a whole was refused.
    #[error("Open vSwitch's database refused {method}: {reason}")]
    Refused {
        /// JSON-RPC method.
        method: &'static str,
        /// The server's words.
        reason: String,
    },
    /// One operation failed, and with it the whole transaction: nothing was changed.
    #[error("Open vSwitch's database: operation {index} ({operation}) failed: {error}: {details}")]
    Operation {
        /// Position in the transaction.
        index: usize,
        /// The operation's kind and table; `commit` when the transaction as a whole broke a constraint.
        operation: String,
        /// The server's error code, `constraint violation` for instance.
        error: String,
        /// The server's explanation.
        details: String,
    },
    /// An operation was committed but matched another number of rows than it had to: a row has vanished meanwhile.
    #[error("Open vSwitch's database: operation {index} ({operation}) touched {count} rows instead of {expected}")]
    Count {
        /// Position in the transaction.
        index: usize,
        /// The operation's kind and table.
        operation: String,
        /// Rows that were touched.
        count: u64,
        /// Rows that had to be touched.
        expected: u64,
    },
    /// The database took the transaction, but ovs-vswitchd has not acted on it in time.
    #[error("ovs-vswitchd has not taken configuration {wanted} within {limit:?}; it is at {current}")]
    NotApplied {
        /// `next_cfg` of our transaction.
        wanted: i64,
        /// `cur_cfg` when we gave up.
        current: i64,
        /// How long was waited.
        limit: Duration,
    },
    /// The server said something that RFC 7047 or the schema does not allow.
    #[error("Open vSwitch's database sent something unexpected: {0}")]
    Protocol(String),
}
