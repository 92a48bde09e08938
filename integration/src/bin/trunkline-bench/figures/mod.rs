//! The figures, one file each, in the order in which they are measured.

mod broadcast;
mod fleet;
mod fleet_memory;
mod storm;

use crate::figure::Figure;

/// All of them.
pub(crate) const ALL: &[Figure] = &[fleet::FIGURE, fleet_memory::FIGURE, broadcast::FIGURE, storm::FIGURE];
