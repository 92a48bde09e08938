//! OpenFlow, natively over a bridge's management socket (`/run/openvswitch/br-int.mgmt`).
//!
//! ```text
//!   FlowSet (desired) --.
//!                        >-- plan (pure) --> Plan --> execute: meters, then all flows as one bundle
//!   FlowSet (observed) -'                                       |
//!        ^                                                      v
//!        '----------------- Client: one connection, which also says when somebody else changed a flow
//! ```
//!
//! Version 1.4 is spoken: it is the lowest with bundles and with the standard's flow monitor, Open vSwitch offers it without any
//! setting, and its statistics are simpler than those of 1.5. Only flows that carry our cookie are ever changed or deleted, and of
//! meters only those of our range.
//!
//! One setting of the bridge is ours, too: matches see the ports of first [`Fragments`]. It is read with the flows, and set before them.
//!
//! The flow monitor tells all flows when a connection begins, and each change from then on, our own by its number: that is what [`Client::told`]
//! answers, while [`Client::table`] asks for all of them anew.
//!
//! The socket is there while ovs-vswitchd has the bridge. A restart loses all flows and breaks the connection, so it shows as a tick
//! of [`Client::changes`], like a flow that was deleted by hand.

mod client;
mod codec;
mod error;
mod field;
mod flow;
mod fragments;
mod mirror;
mod plan;
mod session;
mod wire;

pub use client::{Client, Table};
pub use error::Error;
pub(crate) use field::mac_value;
pub use field::{Field, Match, VLAN_PRESENT};
pub use flow::{
    Action, Actions, Cookie, Counters, Flow, FlowSet, Held, Meter, MeterCounters, Rule, Rules, beside, port,
};
pub use fragments::Fragments;
pub use plan::{Plan, execute, plan};

#[cfg(test)]
mod tests;
