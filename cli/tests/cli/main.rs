//! The program as operators and scripts meet it: run against a controller that says what a test wants, over real mutual TLS.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod exit_codes;
mod explain;
mod fake;
mod fixtures;
mod output;
mod run;
mod terminal;
mod trace;
mod waiting;
