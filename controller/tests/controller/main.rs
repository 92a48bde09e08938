//! The controller as others meet it: its store, its API, its stream to the nodes, its program. One binary, so that it is linked once.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod api;
mod backup;
mod common;
mod explain;
mod groups;
mod guards;
mod life;
mod probes;
mod program;
mod retry;
mod session;
mod store;
mod stream;
mod trace;
mod watch;
