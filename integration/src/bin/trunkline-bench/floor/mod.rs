//! Floors: the least work that any program would have to do for the same visible result, written as straight as possible.
//! No check, no note of what was done, no second look. What is asked of a floor is, where it can be, what our own daemons have
//! left on a host just before ([`held`]), so that both sides do the same.
//!
//! One that is measured as a process, or that serves, is this program again under a name that no person types.

pub(crate) mod acknowledge;
pub(crate) mod bare;
pub(crate) mod bridge;
pub(crate) mod database;
pub(crate) mod dhcp;
pub(crate) mod held;
pub(crate) mod kernel;
pub(crate) mod netlink;
pub(crate) mod openflow;
pub(crate) mod ovsdb;
pub(crate) mod repair;
pub(crate) mod script;
pub(crate) mod site;
pub(crate) mod sync;
pub(crate) mod tap;
pub(crate) mod trees;
