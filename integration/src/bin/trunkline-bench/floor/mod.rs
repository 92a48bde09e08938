//! The floors: the least work that any program would have to do for the same visible result, as straight as it can be written.
//! No check, no note of what was done, no second look.

pub(crate) mod database;
pub(crate) mod dhcp;
pub(crate) mod kernel;
pub(crate) mod openflow;
pub(crate) mod program;
pub(crate) mod repair;
pub(crate) mod sync;
