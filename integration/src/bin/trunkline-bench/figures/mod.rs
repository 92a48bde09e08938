//! The figures, one file each, in the order in which they are measured.

mod broadcast;
mod bulk;
mod cold;
mod dhcp;
mod drift;
mod fleet;
mod fleet_memory;
mod intents;
mod one;
mod plan;
mod resync;
mod storm;

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
    fleet::FIGURE,
    fleet_memory::FIGURE,
    broadcast::FIGURE,
    storm::FIGURE,
    cold::FIGURE,
    intents::FIGURE,
    plan::FIGURE,
];
