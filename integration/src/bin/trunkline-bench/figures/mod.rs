//! The figures, one file each, in the order in which they are measured.

mod bulk;

use crate::figure::Figure;

/// All of them.
pub(crate) const ALL: &[Figure] = &[bulk::FIGURE];
