//! Trunkline's nodes: the runtime that every node runs on, the drivers that every node needs, and the worker.
//!
//! ```text
//!   node        the runtime: what a kind of node brings (Host), and how it is run
//!     session     the stream to the controller; owns the inbox
//!     inbox       the last desired state, durable
//!     reconcile   the loop that compares the whole and owns the host
//!     report      what was seen, and what of it is still to be told
//!     orphans     leftovers with our mark: told of first, removed at a second look
//!   worker      the Host of a compute worker: TAPs and switch ports
//!   switch tap  Open vSwitch ports and TAPs as resources: observe, plan (pure), execute, judge (pure)
//!   flows       which flows make the isolation (pure)
//!   probe       frames on the wire that prove each VLAN; its task tells the board by itself
//!   ovsdb openflow netlink netns process files directories   drivers
//! ```
//!
//! Enter at [`node::run`]. Three tasks talk to whoever is outside: the session to the controller, the reconcile loop to the host,
//! the prober to the other nodes.

pub mod config;
pub mod directories;
pub mod files;
pub mod flows;
pub mod inbox;
pub mod ingress;
mod instance;
pub mod metrics;
pub mod netlink;
pub mod netns;
pub mod node;
pub mod openflow;
pub mod orphans;
pub mod ovsdb;
pub mod probe;
pub mod process;
mod reconcile;
pub mod report;
mod session;
pub mod simulation;
pub mod switch;
pub mod tap;
pub mod worker;

pub use instance::{Instance, InstanceError};

/// An error and everything behind it in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their source in their own text.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Cuts a text to at most `most` bytes, at a character's border.
pub(crate) fn cut(mut text: String, most: usize) -> String {
    const MARK: &str = "...";
    if text.len() > most {
        let end = (0..=most.saturating_sub(MARK.len()))
            .rev()
            .find(|i| text.is_char_boundary(*i));
        text.truncate(end.unwrap_or(0));
        text.push_str(MARK);
    }
    text
}
