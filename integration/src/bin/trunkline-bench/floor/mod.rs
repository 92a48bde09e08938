//! Floors: the least work that any program would have to do for the same visible result, one file each kind.

pub(crate) mod bare;
