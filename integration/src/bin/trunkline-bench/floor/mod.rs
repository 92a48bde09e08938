//! Floors: the least work that any program would have to do for the same visible result, written as straight as possible.
//! What is asked of a floor is what our own daemons have left on a host just before ([`held`]), so that both sides do the
//! same.

pub(crate) mod held;
pub(crate) mod netlink;
pub(crate) mod openflow;
pub(crate) mod ovsdb;
pub(crate) mod script;
pub(crate) mod site;
pub(crate) mod tap;
