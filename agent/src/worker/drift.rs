//! What the first look of a pass found other than it should be, in words. Pure. Whether it is news is for the runtime to say.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_proto::resource::{Key, Port};

use crate::{
    node::{Desired, Repair},
    orphans::Thing,
    switch::{self, Access, Drift, Observed, SwitchPort, SwitchState},
    tap,
};

/// Kinds of thing that a worker may find left over.
pub(super) const TAP: &str = "tap";
pub(super) const SWITCH_PORT: &str = "switch port";

/// TAPs and ports that are to be there.
pub(super) fn wanted(desired: &Desired, state: &SwitchState) -> BTreeSet<Thing> {
    let taps = desired.ports().map(|(_, _, port)| Thing::new(TAP, port.tap.as_str()));
    let uplink = state.uplink.iter().map(|uplink| &uplink.name);
    let ports = state.ports.keys().chain(uplink);
    taps.chain(ports.map(|name| Thing::new(SWITCH_PORT, name))).collect()
}

/// TAPs and ports that carry our mark and are not. An uplink of before is none: two at once could make a loop.
pub(super) fn unwanted(taps: &tap::Plan, plan: Option<&switch::Plan>, observed: &Observed) -> BTreeSet<Thing> {
    let replaced: BTreeSet<&str> = plan.iter().flat_map(|plan| &plan.add).map(|add| &*add.name).collect();
    let leaves = |name: &str| {
        let uplink = observed.port(name).is_some_and(switch::ObservedPort::is_uplink);
        !replaced.contains(name) && !uplink
    };
    let ports = plan.iter().flat_map(|plan| &plan.remove).map(|removal| &removal.name);
    let ports = ports
        .filter(|name| leaves(name))
        .map(|name| Thing::new(SWITCH_PORT, name));
    taps.remove
        .iter()
        .map(|(name, _)| Thing::new(TAP, name))
        .chain(ports)
        .collect()
}

/// How many of the things that are wanted are there.
pub(super) fn there(wanted: &BTreeSet<Thing>, observed: &Observed) -> usize {
    let is_there = |thing: &&Thing| match thing.kind {
        TAP => observed.devices.contains_key(&thing.name),
        _ => observed.port(&thing.name).is_some(),
    };
    wanted.iter().filter(is_there).count()
}

/// Ports that would hear what is said in a VLAN that somebody here has, perhaps another slice by now.
pub(super) fn in_the_way(unwanted: &BTreeSet<Thing>, state: &SwitchState, observed: &Observed) -> BTreeSet<Thing> {
    let of_port = |port: &SwitchPort| match port.access {
        Access::Vlan(vlan) => Some(i64::from(vlan.get())),
        Access::Isolated | Access::Uplink => None,
    };
    let carried = state.uplink.iter().flat_map(|uplink| &uplink.vlans);
    let mut vlans: BTreeSet<i64> = carried.map(|vlan| i64::from(vlan.get())).collect();
    vlans.extend(state.ports.values().filter_map(of_port));
    let hears = |thing: &&Thing| {
        let port = (thing.kind == SWITCH_PORT)
            .then(|| observed.port(&thing.name))
            .flatten();
        port.is_some_and(|port| port.columns.tag.is_none_or(|tag| vlans.contains(&tag)))
    };
    unwanted.iter().filter(hears).cloned().collect()
}

/// Everything but flows.
pub(super) fn repairs(
    desired: &Desired,
    state: &SwitchState,
    observed: &Observed,
    taps: &tap::Plan,
    plan: Option<&switch::Plan>,
) -> Vec<Repair> {
    let Some(plan) = plan else { return Vec::new() };
    let switch = Drift::new(state, observed, plan);
    let created: BTreeSet<&str> = taps.create.iter().map(|tap| &*tap.name).collect();
    let corrected: BTreeSet<&str> = taps.correct.iter().map(|c| &*c.tap.name).collect();
    let port = |port: &Port| {
        let name = port.tap.as_str();
        let mut words = Vec::new();
        if created.contains(name) {
            words.push("the TAP was gone".to_owned());
            // That its port then holds another device is no second matter.
            if !switch.is_gone(name) {
                return words;
            }
        } else if corrected.contains(name) {
            words = amiss(port, observed);
        }
        words.extend(switch.port(name));
        words
    };
    let ports = desired.ports().flat_map(|(key, _, spec)| Repair::all(key, port(spec)));
    let mut repairs: Vec<Repair> = ports.collect();
    if let Some((key, _, _)) = desired.trunks().next() {
        repairs.extend(Repair::all(key, switch.trunk()));
    }
    repairs
}

fn amiss(port: &Port, observed: &Observed) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(device) = observed.devices.get(port.tap.as_str()) {
        if !device.link.up {
            words.push("the TAP was down".to_owned());
        }
        if device.link.mtu != u32::from(port.mtu) {
            words.push(format!("the TAP had an MTU of {}, not {}", device.link.mtu, port.mtu));
        }
    }
    words
}

/// TAPs that the host's own stack heard, and how they were found.
pub(super) fn ingress(desired: &Desired, lost: &BTreeMap<String, &'static str>) -> Vec<Repair> {
    let of_port = |(key, port): (&Key, &Port)| {
        let what = (*lost.get(port.tap.as_str())?).to_owned();
        Some(Repair { key: key.clone(), what })
    };
    desired
        .ports()
        .filter_map(|(key, _, port)| of_port((key, port)))
        .collect()
}

/// The flows of each VLAN.
pub(super) fn flows(desired: &Desired, lost: &BTreeMap<trunkline_proto::VlanId, Lost>) -> Vec<Repair> {
    let of_vlan = |(key, flows): (&Key, &trunkline_proto::resource::Flows)| {
        let what = lost.get(&flows.vlan)?.to_text()?;
        Some(Repair { key: key.clone(), what })
    };
    desired
        .flows()
        .filter_map(|(key, _, flows)| of_vlan((key, flows)))
        .collect()
}

/// What became of a VLAN's flows since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// Gone, or with other actions.
    pub(super) missing: usize,
    /// With our cookie, and not ours to have.
    pub(super) foreign: usize,
}

impl Lost {
    fn to_text(self) -> Option<String> {
        let were = |count: usize| if count == 1 { "was" } else { "were" };
        let flows = |count: usize| if count == 1 { "flow" } else { "flows" };
        match (self.missing, self.foreign) {
            (0, 0) => None,
            (missing, 0) => Some(format!("{missing} {} {} missing", flows(missing), were(missing))),
            (0, foreign) => Some(format!(
                "{foreign} {} {} not ours to have",
                flows(foreign),
                were(foreign)
            )),
            (missing, foreign) => Some(format!(
                "{missing} {} {} missing, {foreign} {} not ours to have",
                flows(missing),
                were(missing),
                were(foreign)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_told_of_in_words() {
        let text = |missing, foreign| Lost { missing, foreign }.to_text();
        assert_eq!(text(0, 0), None);
        assert_eq!(text(1, 0).unwrap(), "1 flow was missing");
        assert_eq!(text(0, 2).unwrap(), "2 flows were not ours to have");
        assert_eq!(text(3, 1).unwrap(), "3 flows were missing, 1 was not ours to have");
    }
}
