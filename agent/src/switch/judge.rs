//! What was read back, against what was asked for. Pure.

use std::collections::BTreeMap;

use trunkline_proto::resource::{Facts, Port, State, Trunk};
use trunkline_proto::{VlanId, wire};

use super::plan::obstacles;
use super::{Access, Device, Observed, ObservedPort, PortColumns, PortKind, SwitchPort, SwitchState, Wanted};

/// State of one resource, for the report.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// How far it is true.
    pub state: State,
    /// Empty when ready; otherwise words a person can act on.
    pub reason: String,
    /// What was read back.
    pub facts: Facts,
}

impl Judgement {
    fn new(problem: Option<(State, String)>, facts: Facts) -> Self {
        let (state, reason) = problem.unwrap_or((State::Ready, String::new()));
        Self { state, reason, facts }
    }
}

/// Judges a TAP and its switch port. `troubles`: what the plans and executors of this pass could not do, by port name.
#[must_use]
pub fn judge_port(
    port: &Port,
    desired: &SwitchState,
    observed: &Observed,
    troubles: &BTreeMap<String, String>,
) -> Judgement {
    let name = port.tap.as_str();
    let device = observed.devices.get(name);
    let row = observed.port(name);
    let facts = wire::PortFacts {
        exists: device.is_some(),
        up: device.is_some_and(|device| device.link.up),
        ofport: ofport(row),
        tag: row
            .and_then(|row| row.columns.tag)
            .and_then(|tag| i32::try_from(tag).ok())
            .unwrap_or(-1),
        carrier: device.is_some_and(|device| device.link.carrier),
        received: 0,
    };
    let problem = troubles
        .get(name)
        .cloned()
        .or_else(|| tap_problem(port, device))
        .or_else(|| {
            let access = port.vlan.map_or(Access::Isolated, Access::Vlan);
            row_problem(name, &desired.unmarked(&PortKind::System, access), desired, observed)
        });
    Judgement::new(problem.map(|reason| (State::Failed, reason)), Facts::Port(facts))
}

fn tap_problem(port: &Port, device: Option<&Device>) -> Option<String> {
    let name = &port.tap;
    let Some(Device { link, .. }) = device else {
        return Some(format!("the TAP {name} does not exist"));
    };
    if !crate::tap::is_tap(link) {
        return Some(format!("{name} is not a TAP that Trunkline made"));
    }
    if !link.up {
        return Some(format!("the TAP {name} is down"));
    }
    (link.mtu != u32::from(port.mtu))
        .then(|| format!("the TAP {name} has an MTU of {} instead of {}", link.mtu, port.mtu))
}

/// What is wrong with an access port; `None` when ovs-vswitchd forwards for it as wanted.
#[must_use]
pub fn port_problem(name: &str, port: &SwitchPort, desired: &SwitchState, observed: &Observed) -> Option<String> {
    row_problem(name, &desired.access(port), desired, observed)
}

fn row_problem(name: &str, wanted: &Wanted<'_>, desired: &SwitchState, observed: &Observed) -> Option<String> {
    let bridge = &desired.bridge.name;
    let Some(row) = observed.port(name) else {
        return Some(format!("there is no switch port {name} on {bridge}"));
    };
    if row.bridge.as_ref().is_none_or(|(_, held_by)| held_by != bridge) {
        return Some(format!("the switch port {name} is not on {bridge}"));
    }
    let held = &row.columns;
    if (held.vlan_mode.as_deref(), held.tag, held.protected) != (Some(wanted.mode), wanted.tag, wanted.protected) {
        return Some(format!(
            "the switch port {name} is {} instead of {}",
            describe(held),
            describe(&wanted.to_columns())
        ));
    }
    if held.trunks != wanted.trunks {
        return Some(format!(
            "the switch port {name} carries VLANs {:?} instead of {:?}",
            held.trunks, wanted.trunks
        ));
    }
    interface_problem(name, row, observed)
}

fn interface_problem(name: &str, row: &ObservedPort, observed: &Observed) -> Option<String> {
    for interface in &row.interfaces {
        if let Some(error) = interface.error.as_ref().filter(|error| !error.is_empty()) {
            return Some(format!("ovs-vswitchd cannot use {}: {error}", interface.name));
        }
        match interface.ofport {
            Some(ofport) if ofport > 0 => {}
            Some(_) => return Some(format!("ovs-vswitchd could not take the port {}", interface.name)),
            None => {
                return Some(format!(
                    "ovs-vswitchd has not taken the port {} yet; is it running?",
                    interface.name
                ));
            }
        }
    }
    let device = observed.devices.get(name);
    let external = row.columns.interface.kind.is_empty();
    if external && device.is_some_and(|device| row.joined_with_another(device)) {
        return Some(format!("ovs-vswitchd still holds an older device {name} open"));
    }
    let there = device.map(|device| i64::from(device.link.index));
    let open = row.interfaces.first().and_then(|interface| interface.ifindex);
    match (open, there) {
        (Some(open), Some(there)) if open > 0 && open != there && external => {
            Some(format!("ovs-vswitchd still holds an older device {name} open"))
        }
        _ => None,
    }
}

fn describe(columns: &PortColumns) -> String {
    let mode = columns.vlan_mode.as_deref().unwrap_or("a trunk for every VLAN");
    let tag = columns.tag.map(|tag| format!(" tag {tag}")).unwrap_or_default();
    let protected = if columns.protected { " protected" } else { "" };
    format!("{mode}{tag}{protected}")
}

fn ofport(row: Option<&ObservedPort>) -> i32 {
    row.and_then(ObservedPort::ofport)
        .and_then(|ofport| i32::try_from(ofport).ok())
        .unwrap_or(0)
}

/// Judges the uplink's VLAN list. `troubles` as for [`judge_port`].
#[must_use]
pub fn judge_trunk(
    trunk: &Trunk,
    desired: &SwitchState,
    observed: &Observed,
    troubles: &BTreeMap<String, String>,
) -> Judgement {
    let name = desired.uplink.as_ref().map(|uplink| uplink.name.as_str());
    let row = name
        .and_then(|name| observed.port(name))
        .filter(|row| row.is_ours(&desired.mark));
    let device = name.and_then(|name| observed.devices.get(name));
    let facts = wire::TrunkFacts {
        interface: if row.is_some() {
            name.unwrap_or_default().to_owned()
        } else {
            String::new()
        },
        vlans: row.map(carried).unwrap_or_default(),
        up: is_up(row, device, observed),
    };
    let problem = match name {
        None if trunk.vlans.is_empty() => None,
        None => Some((
            State::Failed,
            "no uplink is configured on this node; name one in its configuration".to_owned(),
        )),
        Some(name) => trunk_problem(name, trunk, desired, observed, troubles, facts.up),
    };
    Judgement::new(problem, Facts::Trunk(facts))
}

fn trunk_problem(
    name: &str,
    trunk: &Trunk,
    desired: &SwitchState,
    observed: &Observed,
    troubles: &BTreeMap<String, String>,
    up: bool,
) -> Option<(State, String)> {
    let wanted = super::UplinkSpec {
        name: name.to_owned(),
        vlans: trunk.vlans.clone(),
    };
    let failed = troubles
        .get(name)
        .cloned()
        .or_else(|| row_problem(name, &desired.uplink_port(&wanted), desired, observed))
        .or_else(|| {
            is_gone(name, observed)
                .then(|| format!("the uplink {name} is not there; name another interface or create it"))
        })
        .or_else(|| (!up).then(|| format!("the uplink {name} is down or has no carrier; check its cable or peer")));
    if let Some(reason) = failed {
        return Some((State::Failed, reason));
    }
    let device = observed.devices.get(name)?;
    obstacles(name, &device.addresses, &device.routes).map(|reason| (State::Degraded, reason))
}

/// The switch holds a port whose devices are no more: all of them, where it is a bond.
fn is_gone(name: &str, observed: &Observed) -> bool {
    let there = |interface: &super::ObservedInterface| observed.devices.contains_key(&interface.name);
    observed.port(name).is_some_and(|row| !row.interfaces.iter().any(there))
}

/// VLANs that the uplink's list lets through.
fn carried(row: &ObservedPort) -> Vec<u32> {
    row.columns
        .trunks
        .iter()
        .filter_map(|vlan| u32::try_from(*vlan).ok())
        .filter(|vlan| VlanId::try_from(*vlan).is_ok())
        .collect()
}

/// A bond is up when any of its members is.
fn is_up(row: Option<&ObservedPort>, device: Option<&Device>, observed: &Observed) -> bool {
    let works = |device: &Device| device.link.up && device.link.carrier;
    device.is_some_and(works)
        || row.is_some_and(|row| {
            row.interfaces
                .iter()
                .any(|interface| observed.devices.get(&interface.name).is_some_and(works))
        })
}
