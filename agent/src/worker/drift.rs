//! What the first look of a pass found other than it should be, in words. Pure. Whether it is news is for the runtime to say.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_proto::resource::{Key, Port};

use crate::{
    node::{Desired, Repair},
    orphans::Thing,
    switch::{self, BridgeStep, Modification, Observed, SwitchState},
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

/// Everything but flows.
pub(super) fn repairs(
    desired: &Desired,
    state: &SwitchState,
    observed: &Observed,
    taps: &tap::Plan,
    plan: Option<&switch::Plan>,
) -> Vec<Repair> {
    let Some(plan) = plan else { return Vec::new() };
    let changes = Changes {
        observed,
        created: taps.create.iter().map(|tap| &*tap.name).collect(),
        corrected: taps.correct.iter().map(|c| &*c.tap.name).collect(),
        added: plan.add.iter().map(|add| &*add.name).collect(),
        removed: plan.remove.iter().map(|removal| &*removal.name).collect(),
        modified: plan.modify.iter().map(|m| (&*m.name, m)).collect(),
    };
    let ports = desired
        .ports()
        .flat_map(|(key, _, port)| Repair::all(key, changes.port(port, state)));
    let mut repairs: Vec<Repair> = ports.collect();
    if let Some((key, _, _)) = desired.trunks().next() {
        repairs.extend(Repair::all(key, changes.trunk(state, plan)));
    }
    repairs
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

/// The plans of a first look, by name.
struct Changes<'a> {
    observed: &'a Observed,
    created: BTreeSet<&'a str>,
    corrected: BTreeSet<&'a str>,
    added: BTreeSet<&'a str>,
    removed: BTreeSet<&'a str>,
    modified: BTreeMap<&'a str, &'a Modification>,
}

impl Changes<'_> {
    fn port(&self, port: &Port, state: &SwitchState) -> Vec<String> {
        let name = port.tap.as_str();
        let mut words = Vec::new();
        let link = self.observed.devices.get(name).map(|device| &device.link);
        if self.created.contains(name) {
            words.push("the TAP was gone".to_owned());
        } else if let Some(link) = link.filter(|_| self.corrected.contains(name)) {
            if !link.up {
                words.push("the TAP was down".to_owned());
            }
            if link.mtu != u32::from(port.mtu) {
                words.push(format!("the TAP had an MTU of {}, not {}", link.mtu, port.mtu));
            }
        }
        words.extend(self.switch_port(name, state));
        words
    }

    fn switch_port(&self, name: &str, state: &SwitchState) -> Vec<String> {
        if let Some(modified) = self.modified.get(name) {
            return switch::drift(modified, "switch port");
        }
        if !self.added.contains(name) {
            return Vec::new();
        }
        let bridge = self.observed.port(name).and_then(|port| port.bridge.as_ref());
        match bridge {
            None if !self.removed.contains(name) => vec!["the switch port was gone".to_owned()],
            Some((_, bridge)) if *bridge != state.bridge.name => vec![format!("the switch port was on {bridge}")],
            // What became of its TAP says it all.
            _ if self.created.contains(name) => Vec::new(),
            _ => vec!["the switch port held another device".to_owned()],
        }
    }

    fn trunk(&self, state: &SwitchState, plan: &switch::Plan) -> Vec<String> {
        let bridge = &state.bridge.name;
        let mut words = Vec::new();
        match &plan.bridge {
            BridgeStep::Create { .. } => words.push(format!("the bridge {bridge} was gone")),
            BridgeStep::Update { fail_mode, .. } => {
                let held = self.observed.bridges.get(bridge).map_or("", |held| &*held.fail_mode);
                words.push(if held == fail_mode {
                    format!("the settings of the bridge {bridge} were changed")
                } else {
                    format!("the bridge {bridge} had fail_mode={held}, not {fail_mode}")
                });
            }
            BridgeStep::Keep(_) if plan.quiet_local.is_some() => {
                words.push(format!("the bridge's own device {bridge} was up"));
            }
            BridgeStep::Keep(_) => {}
        }
        let Some(uplink) = &state.uplink else { return words };
        let name = &*uplink.name;
        if let Some(modified) = self.modified.get(name) {
            words.extend(switch::drift(modified, "uplink"));
        } else if self.added.contains(name) {
            words.push(format!("the uplink {name} was not on {bridge}"));
        } else if plan.raise_uplink.is_some() {
            let up = self.observed.devices.get(name).is_some_and(|device| device.link.up);
            words.push(if up {
                format!("the uplink {name} was not shielded from the host's own network stack")
            } else {
                format!("the uplink {name} was down")
            });
        }
        words
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
