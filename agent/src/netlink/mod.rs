//! The kernel's network devices, addresses and routes, by rtnetlink.
//!
//! One small typed interface over `rtnetlink` and `netlink-packet-route`, which change their own between releases. A [`Handle`]
//! speaks to one network namespace; clones share a socket, and requests are pipelined on it, so many are best sent together
//! (`join_all`). "Already there" is success when adding an address, "already gone" when deleting: nowhere else.
//!
//! TAPs cannot be made by netlink, only by ioctl: [`Handle::create_taps`] hides that.

mod handle;
mod here;
mod link;
pub mod nft;
mod route;
mod tun;
mod watch;

use std::io;
use std::time::Duration;

use nix::errno::Errno;

pub use handle::Handle;
pub use here::Here;
pub use link::{Ipv4Settings, Link, LinkChange};
pub use route::{Address, Route};
pub use tun::TapRequest;
pub(crate) use tun::{is_shielded, shield};
pub use watch::{watch, watch_rules, watch_table};

/// Why the kernel could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused.
    #[error("{what}: {errno}")]
    Kernel {
        /// What was asked for.
        what: String,
        /// Its answer.
        errno: Errno,
    },
    /// A socket or device file could not be used.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel did not answer in time.
    #[error("{what}: no answer from the kernel within {limit:?}")]
    Timeout {
        /// What was asked for.
        what: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The socket's task has ended.
    #[error("the netlink socket is closed")]
    Closed,
    /// The kernel's list changed while it was read, again and again.
    #[error("{0}: the kernel's list kept changing while it was read")]
    Unstable(&'static str),
    /// A link group that we had chosen for deletion holds a device that we did not put there; nothing was deleted.
    #[error("link group {group} holds the device {stranger}, which is not ours; nothing was deleted")]
    StrangerInGroup {
        /// The group.
        group: u32,
        /// The device.
        stranger: String,
    },
}

impl Error {
    /// The kernel's error number, if it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}
