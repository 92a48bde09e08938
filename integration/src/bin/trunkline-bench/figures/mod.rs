//! The figures, one file each, in the order in which they are measured.

use crate::figure::Figure;

/// All of them.
pub(crate) const ALL: &[Figure] = &[];
