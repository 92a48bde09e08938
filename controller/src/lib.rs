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
//! `model`, `intent`, `allocate`, `compile`, `check`, `converge` and `view` are pure: no clock, no network, no disk, no async. The
//! rest is thin I/O around them.

pub mod store;
pub mod config;
pub mod requests;
pub mod settings;
mod allocate;
pub mod check;
pub mod compile;
pub mod converge;
mod intent;
pub mod model;
pub mod transition;
pub mod view;
