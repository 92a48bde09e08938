//! The figures, one file each, in the order in which they are measured.

mod dhcp;
mod drift;
mod resync;

use crate::figure::Figure;

/// All of them.
pub(crate) const ALL: &[Figure] = &[dhcp::FIGURE, drift::FIGURE, resync::FIGURE];
