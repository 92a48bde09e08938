//! The Trunkline network node: gateways, DHCP and NAT.
//!
//! Enter at [`host::NetworkNode`]: the runtime of `trunkline-agent` gives it what should be, and it makes one pass:
//!
//! ```text
//!   observe the switch, the host's network, our table
//!     -> filter first   everything that is wanted or still there is shut off but for what it may do
//!     -> removals       dnsmasq, namespaces
//!     -> switch         all ports in one OVSDB transaction
//!     -> bridge         its flow
//!     -> gateways       settings, address, up
//!     -> DHCP           namespace, device, files, dnsmasq
//!     -> filter last    without what has gone
//!     -> read back      and judge
//! ```
//!
//! Each resource is one folder: `plan.rs` (pure), `observe.rs`, `execute.rs`, and `render.rs` where a file is rendered, with golden
//! files beside it. No task runs but the runtime's own, the bridge's connection, and a small one that looks after dnsmasq
//! every second.

mod boot;
mod bridge;
pub mod config;
pub mod dhcp;
mod fingerprint;
pub mod gateway;
pub mod host;
mod metrics;
pub mod nat;
pub mod nft;
mod ports;
mod setup;
#[cfg(test)]
mod testing;

use ipnet::{IpNet, Ipv4Net};
use trunkline_proto::Cidr;

pub use boot::BootId;
pub use fingerprint::Fingerprint;
pub use ports::{Made, Ours};

/// An address with its prefix length, as netlink has it.
pub(crate) fn ip_net(cidr: Cidr) -> IpNet {
    // The length was checked when the value was made.
    IpNet::V4(Ipv4Net::new_assert(cidr.address, cidr.prefix_len))
}
