//! What an earlier system of this kind got wrong, seen from inside guests and hosts.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod accidents;
mod drafts;
mod forbidden;
mod frames;
mod looks;
mod midway;
mod neighbours;
mod streams;
mod tags;
