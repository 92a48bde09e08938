//! The figures, one file each, in the order in which they are measured.

mod cold;
mod intents;

use crate::figure::Figure;

/// All of them.
pub(crate) const ALL: &[Figure] = &[cold::FIGURE, intents::FIGURE];
