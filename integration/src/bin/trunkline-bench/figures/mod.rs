//! The figures, one file each, in the order in which they are measured.

mod cold;
mod intents;
mod plan;

use crate::figure::Figure;

/// All of them.
pub(crate) const ALL: &[Figure] = &[cold::FIGURE, intents::FIGURE, plan::FIGURE];
