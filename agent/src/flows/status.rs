//! What a report says of a port's flows.

use std::collections::BTreeMap;

use trunkline_proto::VlanId;

use super::{Network, Storm};
use crate::openflow::{Field, FlowSet, MeterCounters, Rule, Table, VLAN_PRESENT, beside};

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

/// How many of a VLAN's flows are in the switch, and how many are not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// In the switch as they should be.
    pub there: usize,
    /// Missing or different.
    pub missing: usize,
}

/// Counts the flows of each VLAN: those of its guests' ports, of its tag, and of its number in the register. Those that all VLANs
/// share are counted for all, but only when they are missing.
#[must_use]
pub fn standings(network: &Network, desired: &FlowSet, observed: &FlowSet) -> BTreeMap<VlanId, Standing> {
    let mut standings: BTreeMap<VlanId, Standing> = network
        .segments
        .keys()
        .map(|vlan| (*vlan, Standing::default()))
        .collect();
    let mut shared = 0;
    for (rule, wanted, held) in beside(&desired.flows, &observed.flows) {
        if wanted.is_none() {
            continue;
        }
        let right = held == wanted;
        match (belongs_to(rule, network), right) {
            (Some(vlan), true) => standings.entry(vlan).or_default().there += 1,
            (Some(vlan), false) => standings.entry(vlan).or_default().missing += 1,
            (None, false) => shared += 1,
            (None, true) => {}
        }
    }
    for standing in standings.values_mut() {
        standing.missing += shared;
    }
    standings
}

/// How many of these flows belong to no VLAN, or to one that nothing is known of.
#[must_use]
pub fn shared(network: &Network, set: &FlowSet) -> usize {
    let known = |rule: &Rule| belongs_to(rule, network).is_some_and(|vlan| network.segments.contains_key(&vlan));
    set.flows.keys().filter(|rule| !known(rule)).count()
}

fn belongs_to(rule: &Rule, network: &Network) -> Option<VlanId> {
    let value = |field| rule.matches.get(field).map(|(value, _)| value);
    let vlan = |id: u64| VlanId::try_from(u32::try_from(id).ok()?).ok();
    let by_tag = value(Field::VlanVid).and_then(|tag| vlan(tag & !u64::from(VLAN_PRESENT)));
    let by_port = || {
        let port = u32::try_from(value(Field::InPort)?).ok()?;
        network.guests.get(&port)?.vlan
    };
    by_tag.or_else(|| vlan(value(Field::Reg0)?)).or_else(by_port)
}
