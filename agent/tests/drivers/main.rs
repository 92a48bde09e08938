//! The drivers against the real thing: this kernel, ovsdb-server and ovs-vswitchd, each test in namespaces of its own. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod flows;
mod kernel;
mod openflow;
mod ovsdb;
#[allow(dead_code, reason = "some of it only the worker's tests need")]
mod stand;
mod switch;
mod tun;
