//! Trunkline's contract: what crosses the wire, and the validated types that both sides think in.
//!
//! ```text
//!   trunkline/v1/*.proto  --build.rs-->  wire     generated messages, clients and servers
//!                                          |  TryFrom: parsed once, with an error that says what to write instead
//!                                          v
//!                              Name VmId VlanId Mac PortName ...   a value that exists is valid
//!                              resource::{Port, Trunk, Gateway, Dhcp, Nat}
//! ```
//!
//! The domain types need no TLS and no runtime. Behind the feature `client` is the SDK; behind `daemon` is what every
//! Trunkline program does alike (logs, traces, metrics, readiness).

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "daemon")]
pub mod daemon;
mod digest;
mod invalid;
mod mac;
mod name;
pub mod resource;
mod subnet;
mod vlan;
pub mod wire;

pub use digest::{Digest, Hash};
pub use invalid::Invalid;
pub use mac::Mac;
pub use name::{Endpoint, InterfaceName, Name, PortName, VmId};
pub use subnet::{Cidr, DERIVED_POOL, LinkSubnet};
pub use vlan::VlanId;
