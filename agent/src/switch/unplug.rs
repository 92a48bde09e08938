//! Ports whose device is gone leave before there is a new one. Pure.
//!
//! ovs-vswitchd opens a device once. Where it hears of the old one's end and of a new one of that name together, it keeps the old
//! one open, tells of the new one's index, and lets no frame pass: nothing that it says shows that.

use std::collections::{BTreeMap, BTreeSet};

use super::{BridgeStep, Observed, ObservedPort, Plan, SwitchState, plan};

/// Takes ports of ours off the bridge that ovs-vswitchd still has open. `None` when there are none.
#[must_use]
pub fn unplug(desired: &SwitchState, observed: &Observed, gone: &BTreeSet<&str>) -> Option<Plan> {
    let is_open = |name: &str| {
        let number = observed.port(name).and_then(ObservedPort::ofport);
        number.is_some_and(|number| number > 0)
    };
    if !gone.iter().any(|name| is_open(name)) {
        return None;
    }
    let mut rest = desired.clone();
    rest.ports.retain(|name, _| !gone.contains(name.as_str()));
    let Plan { bridge, mut remove, .. } = plan(&rest, observed).ok()?;
    remove.retain(|removal| gone.contains(&*removal.name) && is_open(&removal.name));
    let is_there = matches!(bridge, BridgeStep::Keep(_)) && !remove.is_empty();
    is_there.then_some(Plan {
        bridge,
        remove,
        modify: Vec::new(),
        add: Vec::new(),
        quiet_local: None,
        raise_uplink: None,
        conflicts: BTreeMap::new(),
    })
}
