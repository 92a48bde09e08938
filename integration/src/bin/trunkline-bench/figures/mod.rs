//! The figures, one file each, in the order in which they are measured.

mod bulk;
mod one;

use crate::figure::Figure;

/// All of them.
pub(crate) const ALL: &[Figure] = &[bulk::BULK, bulk::SCRIPT, one::ONE, one::PROVEN, bulk::REMOVE];
