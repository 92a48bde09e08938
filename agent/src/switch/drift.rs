//! What was changed in the switch behind our back, in words. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{BridgeStep, Modification, Observed, Plan, PortColumns, SwitchState};

/// A plan of a first look as news: what it puts right.
#[derive(Debug)]
pub struct Drift<'a> {
    state: &'a SwitchState,
    observed: &'a Observed,
    plan: &'a Plan,
    added: BTreeSet<&'a str>,
    modified: BTreeMap<&'a str, &'a Modification>,
}

impl<'a> Drift<'a> {
    /// Of a plan and what it was made from.
    #[must_use]
    pub fn new(state: &'a SwitchState, observed: &'a Observed, plan: &'a Plan) -> Self {
        Self {
            state,
            observed,
            plan,
            added: plan.add.iter().map(|add| &*add.name).collect(),
            modified: plan.modify.iter().map(|m| (&*m.name, m)).collect(),
        }
    }

    /// True when a port was not there and is made.
    #[must_use]
    pub fn is_gone(&self, name: &str) -> bool {
        self.added.contains(name) && self.observed.port(name).is_none_or(|port| port.bridge.is_none())
    }

    /// An access port.
    #[must_use]
    pub fn port(&self, name: &str) -> Vec<String> {
        if let Some(modified) = self.modified.get(name) {
            return columns(modified, "switch port");
        }
        if !self.added.contains(name) {
            return Vec::new();
        }
        let bridge = self.observed.port(name).and_then(|port| port.bridge.as_ref());
        vec![match bridge {
            None => "the switch port was gone".to_owned(),
            Some((_, bridge)) if *bridge != self.state.bridge.name => format!("the switch port was on {bridge}"),
            Some(_) => "the switch port held another device".to_owned(),
        }]
    }

    /// The uplink, and the bridge as a whole, which has no resource of its own.
    #[must_use]
    pub fn trunk(&self) -> Vec<String> {
        let mut words: Vec<String> = self.bridge().into_iter().collect();
        let Some(uplink) = &self.state.uplink else { return words };
        let name = &*uplink.name;
        if let Some(modified) = self.modified.get(name) {
            words.extend(columns(modified, "uplink"));
        } else if self.added.contains(name) {
            words.push(format!("the uplink {name} was not on {}", self.state.bridge.name));
        } else if self.plan.raise_uplink.is_some() {
            let up = self.observed.devices.get(name).is_some_and(|device| device.link.up);
            words.push(if up {
                format!("the uplink {name} was not shielded from the host's own network stack")
            } else {
                format!("the uplink {name} was down")
            });
        }
        words
    }

    fn bridge(&self) -> Option<String> {
        let bridge = &self.state.bridge.name;
        match &self.plan.bridge {
            BridgeStep::Create { .. } => Some(format!("the bridge {bridge} was gone")),
            BridgeStep::Update { fail_mode, .. } => {
                let held = self.observed.bridges.get(bridge).map_or("", |held| &*held.fail_mode);
                Some(if held == fail_mode {
                    format!("the settings of the bridge {bridge} were changed")
                } else {
                    format!("the bridge {bridge} had fail_mode={held}, not {fail_mode}")
                })
            }
            BridgeStep::Keep(_) => {
                let up = self.plan.quiet_local.is_some();
                up.then(|| format!("the bridge's own device {bridge} was up"))
            }
        }
    }
}

/// One text for each thing that differs; `what` says what the row is: `switch port`, `uplink`. A number that ovs-vswitchd chose anew
/// is none.
fn columns(modification: &Modification, what: &str) -> Vec<String> {
    let Modification { before, after, .. } = modification;
    let PortColumns {
        vlan_mode,
        tag,
        trunks,
        protected,
        external_ids,
        interface,
    } = before;
    let mut words = Vec::new();
    if *tag != after.tag {
        words.push(format!("{what} had {}, not {}", tagged(*tag), number(after.tag)));
    }
    if *vlan_mode != after.vlan_mode {
        let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "none".to_owned());
        words.push(format!(
            "{what} had vlan_mode {}, not {}",
            mode(vlan_mode),
            mode(&after.vlan_mode)
        ));
    }
    if *trunks != after.trunks {
        words.push(listed(what, trunks, &after.trunks));
    }
    if *protected != after.protected {
        let not = if *protected { "" } else { "not " };
        words.push(format!("{what} was {not}protected"));
    }
    let held = &after.interface;
    if interface.mac != held.mac {
        words.push(format!("{what} had another MAC"));
    }
    if interface.mtu_request != held.mtu_request {
        words.push(format!(
            "{what} asked for an MTU of {}, not {}",
            number(interface.mtu_request),
            number(held.mtu_request)
        ));
    }
    // A port of an earlier version has no note of its device: adding it puts nothing right.
    let mut ids = after.external_ids.clone();
    if !external_ids.contains_key(super::DEVICE_KEY) {
        ids.remove(super::DEVICE_KEY);
    }
    if (external_ids, &interface.external_ids) != (&ids, &held.external_ids) {
        words.push(format!("{what}'s marks were changed"));
    }
    words
}

fn number(value: Option<i64>) -> String {
    value.map_or("none".to_owned(), |value| value.to_string())
}

fn tagged(tag: Option<i64>) -> String {
    tag.map_or("no tag".to_owned(), |tag| format!("tag {tag}"))
}

/// Most VLANs that are named of a list.
const NAMED: usize = 5;

/// An empty list means every VLAN, and one with 4095 alone means none.
fn listed(what: &str, before: &BTreeSet<i64>, after: &BTreeSet<i64>) -> String {
    if before.is_empty() {
        return format!("{what}'s VLAN list was empty, which means every VLAN");
    }
    let list = |a: &BTreeSet<i64>, b: &BTreeSet<i64>| {
        let vlans = a.difference(b).filter(|vlan| **vlan != super::NO_VLAN);
        let all: Vec<String> = vlans.map(ToString::to_string).collect();
        let named = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        match all.len().saturating_sub(NAMED) {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    };
    let (lacked, more) = (list(after, before), list(before, after));
    match (lacked.is_empty(), more.is_empty()) {
        (false, true) => format!("{what}'s VLAN list lacked {lacked}"),
        (true, false) => format!("{what}'s VLAN list had {more} too much"),
        (false, false) => format!("{what}'s VLAN list lacked {lacked} and had {more} too much"),
        (true, true) => format!("{what}'s VLAN list was changed"),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn words(what: &str, before: &PortColumns, after: &PortColumns) -> Vec<String> {
        let modification = Modification {
            name: "x".to_owned(),
            id: Uuid::nil(),
            interfaces: Vec::new(),
            before: before.clone(),
            after: after.clone(),
        };
        columns(&modification, what)
    }

    #[test]
    fn a_changed_row_is_told_of_with_before_and_after() {
        let access = |tag| PortColumns {
            tag,
            ..PortColumns::default()
        };
        assert_eq!(
            words("switch port", &access(Some(120)), &access(Some(110))),
            ["switch port had tag 120, not 110"]
        );
        assert_eq!(
            words("switch port", &access(None), &access(Some(110))),
            ["switch port had no tag, not 110"]
        );
        let trunk = |vlans: &[i64]| PortColumns {
            trunks: vlans.iter().copied().collect(),
            ..PortColumns::default()
        };
        let uplink = |before: &[i64], after: &[i64]| words("uplink", &trunk(before), &trunk(after)).join("");
        assert_eq!(uplink(&[4095], &[110, 111]), "uplink's VLAN list lacked 110, 111");
        assert_eq!(uplink(&[110, 7], &[110]), "uplink's VLAN list had 7 too much");
        assert_eq!(uplink(&[7], &[110]), "uplink's VLAN list lacked 110 and had 7 too much");
        let many: Vec<i64> = (100..900).collect();
        assert_eq!(
            uplink(&many[..400], &many[400..]),
            "uplink's VLAN list lacked 500, 501, 502, 503, 504 and 395 more and had 100, 101, 102, 103, 104 and 395 more too much"
        );
        assert_eq!(
            uplink(&[], &[110]),
            "uplink's VLAN list was empty, which means every VLAN"
        );
        let mut numbered = access(Some(110));
        numbered.interface.ofport_request = Some(7);
        assert!(words("switch port", &access(Some(110)), &numbered).is_empty());
    }
}
