//! What a report says of a port's flows.

use std::collections::BTreeMap;

use super::{Network, Storm};
use crate::openflow::{Field, FlowSet, MeterCounters, Table};

/// What a port's own flows have seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames that came in.
    pub admitted: u64,
    /// Frames that a flow of this port's own dropped, such as tagged ones.
    pub refused: u64,
}

/// A limit that has dropped frames since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bite {
    /// OpenFlow number of the port.
    pub port: u32,
    /// Which limit.
    pub storm: Storm,
    /// Frames dropped since the last look.
    pub dropped: u64,
}

/// Which limits have bitten between two looks at the meters. A meter whose counter fell was made anew.
#[must_use]
pub fn bites(
    network: &Network,
    before: &BTreeMap<u32, MeterCounters>,
    now: &BTreeMap<u32, MeterCounters>,
) -> Vec<Bite> {
    let dropped = |counters: &BTreeMap<u32, MeterCounters>, id: u32| counters.get(&id).map_or(0, |seen| seen.dropped);
    let both = |port: &u32| [Storm::Group, Storm::Unknown].map(|storm| (*port, storm));
    let bite = |(port, storm): (u32, Storm)| {
        let (old, new) = (dropped(before, storm.meter(port)), dropped(now, storm.meter(port)));
        let dropped = new.checked_sub(old).unwrap_or(new);
        (dropped > 0).then_some(Bite { port, storm, dropped })
    };
    network.guests.keys().flat_map(both).filter_map(bite).collect()
}

/// What the flows that name a port as the frames' origin have seen.
#[must_use]
pub fn port_counters(port: u32, table: &Table) -> PortCounters {
    let mut counters = PortCounters::default();
    for (rule, _, seen) in table.ours() {
        if rule
            .matches
            .get(Field::InPort)
            .is_none_or(|(value, _)| value != u64::from(port))
        {
            continue;
        }
        if rule.table == super::compile::ADMISSION {
            counters.admitted += seen.packets;
        }
        if table
            .set
            .flows
            .get(&rule.clone())
            .is_some_and(|(_, actions)| actions.is_drop())
        {
            counters.refused += seen.packets;
        }
    }
    counters
}

/// Why a port is not protected as it should be: flows of its own that are missing or different. `None`: all are there.
#[must_use]
pub fn port_problem(port: u32, desired: &FlowSet, observed: &FlowSet) -> Option<String> {
    let of_port = |rule: &crate::openflow::Rule| {
        let from = rule.matches.get(Field::InPort);
        from.is_none_or(|(value, _)| value == u64::from(port))
    };
    let wrong = desired
        .flows
        .iter()
        .filter(|(rule, held)| of_port(rule) && observed.flows.get(*rule) != Some(*held))
        .count();
    match wrong {
        0 => None,
        1 => Some("a flow of this port is missing".to_owned()),
        count => Some(format!("{count} flows of this port are missing")),
    }
}
