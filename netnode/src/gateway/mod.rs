//! Gateways: an internal switch port `gw_vlan{v}` in the host's namespace, with the subnet's first address.
//!
//! The port itself belongs to the switch's plan; here it gets its settings and its address. A device of ours is told by the switch's
//! mark on its port, and by an alias on the device itself, because one whose port was deleted while the switch was not running
//! stays behind with address and route.

mod execute;
mod observe;
mod plan;

pub use execute::{Error, Failures, execute};
pub use observe::{Device, ForeignRoute, Observed, observe};
pub use plan::{ALIAS, DevicePlan, Plan, Step, drift, has_leftovers, judge, plan};
