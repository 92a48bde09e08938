//! The figures, one file each, in the order in which they are measured.

mod bulk;
mod dhcp;
mod drift;
mod one;
mod resync;

use crate::figure::Figure;

/// All of them.
pub(crate) const ALL: &[Figure] = &[
    bulk::BULK,
    bulk::SCRIPT,
    one::ONE,
    one::PROVEN,
    bulk::REMOVE,
    dhcp::FIGURE,
    drift::FIGURE,
    resync::FIGURE,
];
