//! What every Trunkline program does alike: configuration, logs and traces, metrics, an orderly end.
//!
//! ```text
//!   config::load          a TOML file, every key known or refused by name
//!   telemetry::init       logs to standard error, traces by OTLP when an endpoint is configured
//!   Metrics               the registry, served as text on a loopback port
//!   exit                  one line and an exit code for what stops a program
//!   Lifecycle             SIGTERM/SIGINT -> one cancellation token -> every task joined, within a time limit
//! ```
//!
//! A daemon's `main` does these four in this order, then its own work; at the end [`Lifecycle::finish`], then
//! [`telemetry::Telemetry::shutdown`], so that the last spans leave.

pub mod config;
pub mod exit;
pub mod failpoint;
pub mod lifecycle;
pub mod metrics;
pub mod telemetry;

pub use config::{ConfigError, DurationText, load};
pub use lifecycle::Lifecycle;
pub use metrics::{Metrics, MetricsConfig, MetricsServer};
pub use telemetry::{LogFormat, Telemetry, TelemetryConfig, TelemetryError};
