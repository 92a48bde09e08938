//! What the switch has refused, so that it is not asked for it again and again.

use std::collections::BTreeMap;

use super::Unmetered;
use crate::openflow::Meter;

/// Meters that the switch has refused on this connection: it would refuse them again at each pass.
#[derive(Debug, Default)]
pub(in crate::worker) struct Refusals {
    connection: Option<u64>,
    meters: BTreeMap<u32, (Meter, String)>,
}

impl Refusals {
    /// Those of the wanted ones that need not be asked for.
    pub(super) fn known(&mut self, connection: Option<u64>, wanted: &BTreeMap<u32, Meter>) -> Unmetered {
        if self.connection != connection {
            *self = Self {
                connection,
                ..Self::default()
            };
        }
        self.meters.retain(|id, (meter, _)| wanted.get(id) == Some(meter));
        let known = self.meters.iter().map(|(id, (_, reason))| (*id, reason.clone()));
        known.collect()
    }

    pub(super) fn note(&mut self, refused: &Unmetered, wanted: &BTreeMap<u32, Meter>) {
        let meter = |(id, reason): (&u32, &String)| Some((*id, (*wanted.get(id)?, reason.clone())));
        self.meters.extend(refused.iter().filter_map(meter));
    }
}
