//! What of a plan is done when, and what a second look finds of it. Pure.

use std::collections::BTreeSet;

use super::{Acts, desired, drift};
use crate::{
    netlink,
    node::Desired,
    orphans::Thing,
    switch::{self, Access, Observed, SwitchState},
    tap,
};

/// The way there; `None` when the bridge cannot be had.
pub(super) fn planned(state: &SwitchState, observed: &Observed, acts: &mut Acts) -> Option<switch::Plan> {
    match switch::plan(state, observed) {
        Ok(mut plan) => {
            acts.troubles.extend(plan.conflicts.clone());
            plan.remove
                .retain(|removal| !acts.keeps(drift::SWITCH_PORT, &removal.name));
            Some(plan)
        }
        Err(reason) => {
            acts.refused = Some(reason);
            None
        }
    }
}

/// Devices that a plan touches. That a port has other columns changes nothing of its device.
pub(super) fn touched(plan: &switch::Plan) -> impl Iterator<Item = String> {
    let names = plan.add.iter().map(|addition| &addition.name);
    names.chain(plan.remove.iter().map(|removal| &removal.name)).cloned()
}

/// The bridge and its uplink: nothing passes there before there are flows.
pub(super) fn without_guests(mut plan: switch::Plan, state: &SwitchState) -> switch::Plan {
    plan.add.retain(|addition| !state.ports.contains_key(&addition.name));
    plan.modify.clear();
    plan.remove.clear();
    plan
}

/// Ports leave, and guests that shall reach nothing are set apart.
pub(super) fn only_what_shuts(mut plan: switch::Plan, state: &SwitchState) -> switch::Plan {
    let isolated = |name: &str| {
        state
            .ports
            .get(name)
            .is_some_and(|port| port.access == Access::Isolated)
    };
    plan.add.clear();
    plan.modify.retain(|change| isolated(&change.name));
    plan.raise_uplink = None;
    plan
}

pub(super) fn links(observed: &Observed) -> impl Iterator<Item = &netlink::Link> {
    observed.devices.values().map(|device| &device.link)
}

/// What a second look finds that should not be there.
pub(super) struct Rest {
    /// What carries our mark and is not wanted.
    pub(super) unwanted: BTreeSet<Thing>,
    /// No port is left over, no VLAN on the uplink, no TAP.
    pub(super) is_nothing: bool,
}

impl Rest {
    pub(super) fn new(state: &SwitchState, desired: &Desired, observed: &Observed) -> Self {
        let taps = tap::plan(desired::taps(desired), links(observed));
        let switch = switch::plan(state, observed).ok();
        let tidy = |plan: &switch::Plan| plan.remove.is_empty() && plan.modify.is_empty();
        Self {
            unwanted: drift::unwanted(&taps, switch.as_ref(), observed),
            is_nothing: taps.remove.is_empty() && switch.as_ref().is_some_and(tidy) && !observed.behind,
        }
    }
}
