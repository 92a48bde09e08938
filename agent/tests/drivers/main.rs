//! The drivers against the real thing: this kernel, ovsdb-server and ovs-vswitchd, each test in namespaces of its own. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod flows;
mod kernel;
mod openflow;
mod ovsdb;
mod stand;
mod switch;
