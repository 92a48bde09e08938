//! The program as operators and scripts meet it: run against a controller that says what a test wants, over real mutual TLS.

mod exit_codes;
mod fake;
mod fixtures;
mod output;
mod run;
mod waiting;
