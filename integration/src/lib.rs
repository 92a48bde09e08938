//! The lab: a whole Trunkline fleet on one machine, for the demo, for the end-to-end tests and to play with.
//!
//! Every host of the fleet is a set of namespaces of its own (network, mounts, processes, host name), held by one
//! small process. The [`lab::Lab`] that started them holds a pipe to each; when it ends, however it ends, the pipes
//! close, the hosts' first processes exit, and the kernel takes away everything that lived in them.
//!
//! ```text
//!                  10.0.10.0/24 (mgmt0)
//!   ctl ---------+-----------+-----------+
//!                w1 .. wN    |           nn ---- ens3 ---- inet
//!                trunk0 -----+---------- trunk0            198.51.100.1, HTTP
//!                      tagged frames
//! ```
//!
//! [`guest`] holds the guests: a namespace behind a frame pump, or a real machine under qemu. Both stand on the TAP
//! that the worker's agent made.

pub mod api;
pub mod attacks;
pub mod bench_traffic;
pub mod campaign;
pub mod demo;
pub mod error;
pub mod guest;
pub mod lab;
pub mod program;
pub mod wait;

pub use error::LabError;
