//! TAP devices: what a guest's launcher opens. A worker makes one for each port, before the port joins the switch, and removes it
//! after the port has left.
//!
//! A device is ours when it is a TAP with our alias. A device of a wanted name without it is a conflict and is not touched.

mod execute;
mod plan;

use crate::netlink::Link;

pub use execute::{create_and_correct, remove};
pub use plan::{Correction, Plan, Tap, plan};

/// Our mark, as the device's alias.
pub const ALIAS: &str = "trunkline";

/// True for a TAP that we made.
#[must_use]
pub fn is_tap(link: &Link) -> bool {
    link.kind.as_deref() == Some("tun") && link.alias.as_deref() == Some(ALIAS)
}

#[cfg(test)]
mod tests;
