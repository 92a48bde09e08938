//! The Trunkline controller.
//!
//! ```text
//!   api ----+                 +--> rows ---> store (sled)
//!           |                 |
//!           +--> core: transition -> compile -> check -> commit -> publish --+--> watches, status (api)
//!           |    (one owner, one writer at a time)                            |
//!   stream -+  <--------------------- desired state per node -----------------+
//!    (one session per node; reports go into the views that converge reads)
//! ```
//!
//! `model`, `intent`, `allocate`, `compile`, `check`, `converge`, `explain` and `view` are pure: no clock, no network, no disk, no async. The
//! rest is thin I/O around them.

mod allocate;
pub mod api;
pub mod authz;
pub mod backup;
pub mod check;
pub mod compile;
pub mod config;
pub mod converge;
pub mod core;
pub mod daemon;
pub mod explain;
mod intent;
pub mod journal;
pub mod leftovers;
pub mod listener;
pub mod metrics;
pub mod model;
mod parallel;
pub mod requests;
pub mod settings;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod store;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod transition;
pub mod view;
