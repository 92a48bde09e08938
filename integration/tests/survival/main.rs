//! Nothing dies with a part: daemons of ours, of Open vSwitch and dnsmasq are killed and started again, alone and
//! together, with the controller there and without it, while guests go on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

// Each is shared with another test program, and only a part of it is used here.
#[allow(dead_code)]
#[path = "../operations/dataplane.rs"]
mod dataplane;
#[allow(dead_code)]
#[path = "../regressions/looks.rs"]
mod looks;

mod alone;
mod daemons;
mod moments;
mod picture;
mod switches;
mod traffic;
