//! What whoever operates a fleet relies on: restarts, the way back after a damaged database, metrics, traces, access,
//! what `trunkctl` says to scripts, bad input, and many links at once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

// Each is shared with another test program, and only a part of it is used here.
#[allow(dead_code)]
#[path = "../regressions/looks.rs"]
mod looks;
#[allow(dead_code)]
#[path = "../regressions/streams.rs"]
mod streams;

mod access;
mod damage;
mod dataplane;
mod endings;
mod handshakes;
mod life;
mod many_links;
mod metrics;
mod mistakes;
mod restarts;
mod scripts;
mod trace;
