//! Desired against observed: an ordered plan. Pure.

use std::collections::{BTreeMap, BTreeSet};

use itertools::{EitherOrBoth, Itertools};
use uuid::Uuid;

use super::observe::keep_others;
use super::wanted::Wanted;
use super::{ADOPTED_KEY, DEVICE_KEY, Device, FailMode, MARK_KEY, Observed, ObservedPort, PortColumns, SwitchState};

/// Master that the kernel datapath gives to every device on a bridge.
const KERNEL_DATAPATH_MASTER: &str = "ovs-system";
/// The numbers that a port may ask for.
const OFPORTS: std::ops::RangeInclusive<i64> = 1..=65_279;

/// What to do with the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BridgeStep {
    /// Nothing.
    Keep(Uuid),
    /// Make it, with its local port.
    Create {
        /// Its name.
        name: String,
        /// `system` or `netdev`.
        datapath: String,
        /// Failure mode.
        fail_mode: String,
        /// Marks.
        external_ids: BTreeMap<String, String>,
        /// Of the local port.
        local: Box<PortColumns>,
    },
    /// Change it.
    Update {
        /// Its row.
        id: Uuid,
        /// `system` or `netdev`.
        datapath: String,
        /// Failure mode.
        fail_mode: String,
        /// Marks.
        external_ids: BTreeMap<String, String>,
    },
}

/// A port to take off its bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Its name.
    pub name: String,
    /// Its row.
    pub id: Uuid,
    /// Row of the bridge that holds it.
    pub bridge: Uuid,
}

/// A port whose columns change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modification {
    /// Its name.
    pub name: String,
    /// Its row.
    pub id: Uuid,
    /// Rows of its interfaces.
    pub interfaces: Vec<Uuid>,
    /// As it is.
    pub before: PortColumns,
    /// As it shall be.
    pub after: PortColumns,
}

/// A port to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: PortColumns,
}

/// All that has to be done to Open vSwitch, in this order. Removals come first: they free names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The bridge; without one nothing else is done.
    pub bridge: BridgeStep,
    /// Ports to remove.
    pub remove: Vec<Removal>,
    /// Ports to change.
    pub modify: Vec<Modification>,
    /// Ports to make.
    pub add: Vec<Addition>,
    /// The bridge's local device has to be set down and deaf.
    pub quiet_local: Option<String>,
    /// The uplink's device has to be set up and shielded.
    pub raise_uplink: Option<String>,
    /// Wanted ports that cannot be had, with the reason; their siblings go on.
    pub conflicts: BTreeMap<String, String>,
}

impl Plan {
    /// True when everything that can be had is as it should be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            bridge,
            remove,
            modify,
            add,
            quiet_local,
            raise_uplink,
            conflicts: _,
        } = self;
        matches!(bridge, BridgeStep::Keep(_))
            && remove.is_empty()
            && modify.is_empty()
            && add.is_empty()
            && quiet_local.is_none()
            && raise_uplink.is_none()
    }
}

/// Plans the way from observed to desired.
///
/// # Errors
/// The reason, for people, when the bridge cannot be had: then nothing may be done at all.
pub fn plan(desired: &SwitchState, observed: &Observed) -> Result<Plan, String> {
    let bridge = plan_bridge(desired, observed)?;
    let mut planner = Planner {
        desired,
        observed,
        free: None,
        members: None,
        plan: Plan {
            bridge,
            remove: Vec::new(),
            modify: Vec::new(),
            add: Vec::new(),
            quiet_local: quiet_local(desired, observed),
            raise_uplink: None,
            conflicts: BTreeMap::new(),
        },
    };
    // All three are in order of names, so one way along them is enough.
    let there = observed
        .ports
        .iter()
        .merge_join_by(&observed.devices, |(port, _), (device, _)| port.cmp(device));
    let there = there.map(|there| match there {
        EitherOrBoth::Both((name, port), (_, device)) => (name.as_str(), Some(port), Some(device)),
        EitherOrBoth::Left((name, port)) => (name.as_str(), Some(port), None),
        EitherOrBoth::Right((name, device)) => (name.as_str(), None, Some(device)),
    });
    for side in desired
        .wanted()
        .merge_join_by(there, |(wanted, _), (name, ..)| (*wanted).cmp(name))
    {
        let ((name, port, device), wanted) = match side {
            EitherOrBoth::Right((name, port, _)) => {
                if let Some(port) = port {
                    planner.remove_unwanted(name, port);
                }
                continue;
            }
            EitherOrBoth::Left((name, wanted)) => ((name, None, None), wanted),
            EitherOrBoth::Both((_, wanted), there) => (there, wanted),
        };
        planner.want(&Seat { name, port, device }, &wanted);
    }
    planner.raise_uplink();
    Ok(planner.plan)
}

fn plan_bridge(desired: &SwitchState, observed: &Observed) -> Result<BridgeStep, String> {
    let spec = &desired.bridge;
    let mark = (MARK_KEY.to_owned(), desired.mark.0.clone());
    let Some(held) = observed.bridges.get(&spec.name) else {
        // A port of this name on another bridge would make the database refuse the transaction.
        if let Some((_, port)) = observed.holder(&spec.name) {
            return Err(format!(
                "{} cannot be made: a port of that name is on {}",
                spec.name,
                bridge_name(port)
            ));
        }
        return Ok(BridgeStep::Create {
            name: spec.name.clone(),
            datapath: spec.datapath.as_str().to_owned(),
            fail_mode: spec.fail_mode.as_str().to_owned(),
            external_ids: BTreeMap::from([mark]),
            local: Box::new(desired.local_port().to_columns()),
        });
    };
    let ours = desired.mark.is_on(&held.external_ids);
    if !ours && !spec.adopt {
        return Err(format!(
            "the bridge {} is there and was not made by Trunkline; give it to this node with `adopt = true`, or remove it",
            spec.name
        ));
    }
    let adopted = !ours || held.external_ids.contains_key(ADOPTED_KEY);
    if let Some(device) = observed.devices.get(&spec.name)
        && adopted
        && (!ours || device.link.up)
    {
        // It would be set down, and a host that is reached over it would be cut off.
        if let Some(use_of) = host_use(&device.addresses, &device.routes) {
            return Err(format!(
                "the bridge {0} cannot be used: the host uses its local device {0}, which has {use_of}; move that elsewhere",
                spec.name
            ));
        }
    }
    let mut external_ids = BTreeMap::from([mark]);
    keep_others(&mut external_ids, &held.external_ids);
    if adopted {
        external_ids.insert(ADOPTED_KEY.to_owned(), "true".to_owned());
    }
    // How an adopted bridge forwards is its operator's business, unless what keeps guests apart hangs on it.
    let datapath = if adopted {
        held.datapath.clone()
    } else {
        spec.datapath.as_str().to_owned()
    };
    let fail_mode = match spec.fail_mode {
        FailMode::Standalone if adopted => held.fail_mode.clone(),
        wanted => wanted.as_str().to_owned(),
    };
    let same = (&held.datapath, &held.fail_mode, &held.external_ids) == (&datapath, &fail_mode, &external_ids);
    Ok(if same {
        BridgeStep::Keep(held.id)
    } else {
        BridgeStep::Update {
            id: held.id,
            datapath,
            fail_mode,
            external_ids,
        }
    })
}

fn quiet_local(desired: &SwitchState, observed: &Observed) -> Option<String> {
    let name = &desired.bridge.name;
    let up = observed.devices.get(name).is_some_and(|device| device.link.up);
    (up || !observed.bridges.contains_key(name)).then(|| name.clone())
}

fn bridge_name(port: &ObservedPort) -> &str {
    port.bridge.as_ref().map_or("no bridge", |(_, name)| name)
}

/// OpenFlow numbers that no port has or asks for, lowest first. One that leaves in this very pass keeps its number until the next:
/// flows of the old port must not meet a new one.
fn free_numbers(observed: &Observed) -> impl Iterator<Item = i64> + use<> {
    let numbers = |port: &ObservedPort| {
        let held = port.interfaces.iter().filter_map(|interface| interface.ofport);
        held.chain(port.columns.interface.ofport_request).collect::<Vec<_>>()
    };
    let taken: BTreeSet<i64> = observed.ports.values().flat_map(numbers).collect();
    OFPORTS.filter(move |number| !taken.contains(number))
}

/// What is there under the name of a wanted port.
struct Seat<'a> {
    name: &'a str,
    port: Option<&'a ObservedPort>,
    device: Option<&'a Device>,
}

struct Planner<'a> {
    desired: &'a SwitchState,
    observed: &'a Observed,
    /// Made when the first one is asked for.
    free: Option<Box<dyn Iterator<Item = i64>>>,
    /// Ports by the names of those interfaces that are called otherwise; made when it is asked for.
    members: Option<BTreeMap<&'a str, (&'a str, &'a ObservedPort)>>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn remove_unwanted(&mut self, name: &str, port: &ObservedPort) {
        let local = self.observed.bridges.contains_key(name);
        if !local && port.is_ours(&self.desired.mark) {
            self.remove(name, port);
        }
    }

    fn remove(&mut self, name: &str, port: &ObservedPort) {
        // A port without a bridge is on its way out already.
        if let Some((bridge, _)) = port.bridge {
            self.plan.remove.push(Removal {
                name: name.to_owned(),
                id: port.id,
                bridge,
            });
        }
    }

    fn want(&mut self, seat: &Seat<'a>, wanted: &Wanted<'_>) {
        let name = seat.name;
        match seat.port.map(|port| (name, port)).or_else(|| self.holder(name)) {
            Some((holder, port)) => match self.obstacle(name, holder, port, wanted.is_uplink) {
                Some(reason) => self.conflict(name, reason),
                None => self.adjust(seat, port, wanted),
            },
            None => match wanted.is_uplink.then(|| self.uplink_obstacle(seat)).flatten() {
                Some(reason) => self.conflict(name, reason),
                None => self.add(seat, wanted),
            },
        }
    }

    /// The port, of another name, that holds an interface of this one.
    fn holder(&mut self, interface: &str) -> Option<(&'a str, &'a ObservedPort)> {
        let observed = self.observed;
        let members = self.members.get_or_insert_with(|| observed.members().collect());
        members.get(interface).copied()
    }

    fn conflict(&mut self, name: &str, reason: String) {
        self.plan.conflicts.insert(name.to_owned(), reason);
    }

    /// Why a port that is there under this name cannot be ours.
    fn obstacle(&self, name: &str, holder: &str, port: &ObservedPort, uplink: bool) -> Option<String> {
        if self.observed.bridges.contains_key(holder) {
            return Some(format!("{name} is the name of a bridge"));
        }
        if holder != name {
            return Some(format!(
                "{name} is a member of the port {holder}, which was not made by Trunkline"
            ));
        }
        if port.is_ours(&self.desired.mark) {
            return None;
        }
        let on_our_bridge = bridge_name(port) == self.desired.bridge.name;
        if uplink && on_our_bridge && self.desired.bridge.adopt {
            return None;
        }
        let remedy = if uplink {
            "; give it to this node with `adopt = true`, or remove it"
        } else {
            "; remove it"
        };
        Some(format!(
            "a port {name} that was not made by Trunkline is on {}{remedy}",
            bridge_name(port)
        ))
    }

    /// Changes a port in place, or replaces it where that is impossible.
    fn adjust(&mut self, seat: &Seat<'_>, port: &ObservedPort, wanted: &Wanted<'_>) {
        let elsewhere = bridge_name(port) != self.desired.bridge.name;
        let other_kind = port.columns.interface.kind != wanted.kind;
        // An uplink may be a bond; any other port has one interface.
        let other_shape = !wanted.is_uplink && port.interfaces.len() != 1;
        let stale = !wanted.is_uplink && self.is_stale(seat, port);
        if elsewhere || (other_kind && !wanted.is_uplink) || other_shape || stale {
            self.remove(seat.name, port);
            self.add(seat, wanted);
            return;
        }
        let held = &port.columns;
        let noted = held.external_ids.get(DEVICE_KEY);
        let joined = self.joined(seat, port).filter(|_| noted.is_none() && !wanted.is_uplink);
        let number = pinned(port);
        if joined.is_none() && number == held.interface.ofport_request && wanted.is_in(held) {
            return;
        }
        let mut after = wanted.to_columns().onto(held);
        let device = noted.cloned().or_else(|| joined.map(|index| index.to_string()));
        after
            .external_ids
            .extend(device.map(|device| (DEVICE_KEY.to_owned(), device)));
        if wanted.is_uplink {
            // What an uplink's interface is, and its MAC and MTU, are the operator's.
            let held = &held.interface;
            after.interface.kind.clone_from(&held.kind);
            after.interface.mac.clone_from(&held.mac);
            after.interface.mtu_request = held.mtu_request;
        }
        after.interface.ofport_request = number;
        self.plan.modify.push(Modification {
            name: seat.name.to_owned(),
            id: port.id,
            interfaces: port.interfaces.iter().map(|interface| interface.id).collect(),
            before: held.clone(),
            after,
        });
    }

    /// The device of a port that an earlier version made, which noted none: the one that ovs-vswitchd says it has open.
    fn joined(&self, seat: &Seat<'_>, port: &ObservedPort) -> Option<u32> {
        let external = port.columns.interface.kind.is_empty() && !self.observed.behind;
        let there = seat.device.filter(|_| external)?.link.index;
        let held = port.interfaces.first().and_then(|interface| interface.ifindex);
        (held == Some(i64::from(there))).then_some(there)
    }

    /// True when ovs-vswitchd holds open a device that is no more, while another of the same name is there.
    fn is_stale(&self, seat: &Seat<'_>, port: &ObservedPort) -> bool {
        let external = port.columns.interface.kind.is_empty();
        let Some(there) = seat.device.filter(|_| external && !self.observed.behind) else {
            return false;
        };
        let held = port.interfaces.first().and_then(|interface| interface.ifindex);
        let another = held.is_some_and(|held| held > 0 && held != i64::from(there.link.index));
        another || port.joined_with_another(there)
    }

    fn uplink_obstacle(&self, seat: &Seat<'_>) -> Option<String> {
        let name = seat.name;
        let Some(device) = seat.device else {
            return Some(format!(
                "the uplink {name} is not there; name another interface or create it"
            ));
        };
        if let Some(master) = device
            .master
            .as_ref()
            .filter(|master| *master != KERNEL_DATAPATH_MASTER)
        {
            return Some(format!(
                "the uplink {name} belongs to {master}; release it or name another interface"
            ));
        }
        obstacles(name, &device.addresses, &device.routes)
    }

    fn add(&mut self, seat: &Seat<'_>, wanted: &Wanted<'_>) {
        let mut columns = wanted.to_columns();
        let device = seat.device.filter(|_| !wanted.is_uplink);
        if let Some(device) = device.filter(|_| columns.interface.kind.is_empty()) {
            let index = device.link.index.to_string();
            columns.external_ids.insert(DEVICE_KEY.to_owned(), index);
        }
        let observed = self.observed;
        let free = self.free.get_or_insert_with(|| Box::new(free_numbers(observed)));
        columns.interface.ofport_request = free.next();
        self.plan.add.push(Addition {
            name: seat.name.to_owned(),
            columns,
        });
    }

    fn raise_uplink(&mut self) {
        let Some(uplink) = &self.desired.uplink else { return };
        let name = &uplink.name;
        let ours = !self.plan.conflicts.contains_key(name);
        let joins = self.plan.add.iter().any(|addition| addition.name == *name);
        let adopted = self
            .plan
            .modify
            .iter()
            .any(|change| change.name == *name && !self.desired.mark.is_on(&change.before.external_ids));
        let device = self.observed.devices.get(name);
        let amiss = device.is_some_and(|device| !device.link.up || !device.shielded);
        if ours && (joins || adopted || amiss) {
            self.plan.raise_uplink = Some(name.clone());
        }
    }
}

/// The number that a port has, so that it has the same one when ovs-vswitchd starts again. The members of a bond have one each.
fn pinned(port: &ObservedPort) -> Option<i64> {
    let requested = port.columns.interface.ofport_request;
    match &port.interfaces[..] {
        [interface] => interface.ofport.filter(|number| OFPORTS.contains(number)).or(requested),
        _ => requested,
    }
}

/// Why a device that the host itself uses cannot be an uplink.
pub(super) fn obstacles(name: &str, addresses: &[ipnet::IpNet], routes: &[ipnet::IpNet]) -> Option<String> {
    host_use(addresses, routes).map(|use_of| format!("the uplink {name} has {use_of}; an uplink has none"))
}

/// What the host uses a device for.
fn host_use(addresses: &[ipnet::IpNet], routes: &[ipnet::IpNet]) -> Option<String> {
    let list = |nets: &[ipnet::IpNet]| {
        let texts: BTreeSet<String> = nets.iter().map(ToString::to_string).collect();
        texts.into_iter().collect::<Vec<_>>().join(", ")
    };
    if !addresses.is_empty() {
        return Some(format!("the address {}", list(addresses)));
    }
    (!routes.is_empty()).then(|| format!("a route to {}", list(routes)))
}
