//! Filtering of the gateways' traffic, and internet for the VLANs that have it.
//!
//! ```text
//!   gateways + nats + reservations -> Filter --render--> two nftables tables, replaced whole in one batch
//!                        |                  prerouting: nothing else is even looked at, so that nothing is said about it
//!                        |                  forward: only a NAT's guests, each from its MAC, to the uplink but not to what is beside
//!                        |                           it, and replies to that
//!                        |                  input:   only ICMP echo to the own gateway
//!                        |                  output:  nothing by a gateway's port but to its own subnet
//!                        |                  postrouting: masquerade
//!                        |                  arp:     nobody speaks for an address that cannot be his
//!                        |-> limits: another table, which counts each guest's connections
//!                        `-> ip_forward, conntrack
//! ```
//!
//! The tables are `inet trunkline` and `arp trunkline`. Every rule names our interfaces, so other traffic of the host passes as if they
//! were not there.
//!
//! On disk, in `nat/` of the state directory: `table.json` (what the tables looked like when they were read back after they were
//! written, so that a later difference is seen, and the subnets and guests whose connections must be ended when they go) and
//! `ip_forward.json` (the value before ours, so that it can be put back).

mod execute;
mod foreign;
pub mod limits;
mod observe;
mod plan;
mod render;
mod way;

pub use execute::{Error, Nats};
pub use observe::{HostNetwork, Observed, Readback, Record, Served, Table, Uplink};
pub use plan::{Forwarding, ForwardingStep, Plan, TableStep, judge, plan};
pub use render::{Counter, Filter, User};
pub use way::Way;
