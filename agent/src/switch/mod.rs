//! Open vSwitch ports: all of a node's, as one state, one plan and one transaction.
//!
//! ```text
//!   SwitchState (desired) --.
//!                            >-- plan (pure) --> Plan --> execute: one transaction, then the devices
//!   Observed (rows+devices) -'
//!                            >-- judge (pure) --> State and facts for the report
//! ```
//!
//! Rows that carry our mark in `external_ids` are ours; no other row is changed or deleted. The one exception is what an operator
//! hands over by `adopt`: the bridge, and the configured uplink on it.

mod drift;
mod execute;
mod judge;
mod observe;
mod plan;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use trunkline_proto::resource::Port;
use trunkline_proto::{Mac, VlanId};

pub use drift::Drift;
pub use execute::{Error, execute, prove_alive, transaction};
pub use judge::{Judgement, judge_port, judge_trunk, port_problem};
pub use observe::{
    Device, InterfaceColumns, Observed, ObservedBridge, ObservedInterface, ObservedPort, PortColumns, observe,
    observe_again, observe_beside,
};
pub use plan::{Addition, BridgeStep, Modification, Plan, Removal, plan};
use wanted::{NO_VLAN, Wanted};

/// Key of our mark in `external_ids`; its value is a [`Mark`].
pub const MARK_KEY: &str = "trunkline";
/// On a bridge that an operator handed over: its datapath stays as it was, and but for a worker's its failure mode.
pub const ADOPTED_KEY: &str = "trunkline-adopted";
/// Key of a port's kind, [`Labels::kind`].
const KIND_KEY: &str = "trunkline-kind";
/// Key of the kernel's index of the device that a port joined with. What the database says of it is of no use: ovs-vswitchd tells the
/// index of whatever device has the name now, and may still read from one that is no more.
const DEVICE_KEY: &str = "trunkline-device";
/// Kind of an uplink's port.
const UPLINK: &str = "uplink";
/// Keys that start so are ours to set and to remove on a row that is ours.
const KEY_PREFIX: &str = "trunkline";

/// What marks a row as this node's: its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// The mark of a node.
    #[must_use]
    pub fn new(node: impl Into<String>) -> Self {
        Self(node.into())
    }

    fn is_on(&self, external_ids: &BTreeMap<String, String>) -> bool {
        external_ids.get(MARK_KEY) == Some(&self.0)
    }
}

/// Which implementation of a bridge moves the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datapath {
    /// The kernel's module `openvswitch`.
    System,
    /// ovs-vswitchd itself.
    Netdev,
}

impl Datapath {
    /// The kernel's when it has the module, loaded or built in.
    #[must_use]
    pub fn detect() -> Self {
        if Path::new("/sys/module/openvswitch").exists() {
            Self::System
        } else {
            Self::Netdev
        }
    }

    /// As written in the database and in facts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Netdev => "netdev",
        }
    }
}

/// What a bridge does with frames that no flow matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailMode {
    /// It forwards by itself, by port tags and trunk lists alone. The network node's: it is given no rules per VLAN, and all that is
    /// on its bridge is ours (gateways and DHCP servers) but for the uplink. An adopted bridge keeps the mode that it has.
    Standalone,
    /// It drops them. A worker's, adopted or not: guests stand on its bridge, and what keeps them apart are flows.
    Secure,
}

impl FailMode {
    /// As written in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Secure => "secure",
        }
    }
}

/// The bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec {
    /// `br-int`.
    pub name: String,
    /// Datapath of a bridge that we make.
    pub datapath: Datapath,
    /// Take over a bridge that is there without our mark, and the uplink on it.
    pub adopt: bool,
    /// What it does without flows.
    pub fail_mode: FailMode,
}

/// The port to the other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkSpec {
    /// A network device, or with `adopt` a bond that is on the bridge already.
    pub name: String,
    /// Exactly the VLANs that it carries.
    pub vlans: BTreeSet<VlanId>,
}

/// What is behind a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortKind {
    /// A network device that exists already, such as a TAP.
    System,
    /// A device that ovs-vswitchd makes.
    Internal {
        /// Its MAC.
        mac: Mac,
        /// Its MTU in bytes. Always asked for: without that, one small port pulls all others down.
        mtu: u16,
    },
}

/// Which frames a port exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Those of one VLAN, untagged.
    Vlan(VlanId),
    /// None: a port without a tag would be a trunk for every VLAN, so it is alone, and protected, on VLAN 0, which no uplink carries.
    Isolated,
    /// Tagged, those of the VLANs that the uplink carries; on a bridge that is ruled by flows only what they lead there.
    Uplink,
}

/// Who a port is for; for people only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// `tap`, `gateway`, `dhcp`, ...
    pub kind: String,
    /// Name of the slice; may be empty.
    pub slice: String,
    /// Name of the VM; may be empty.
    pub vm: String,
    /// Name of the VM's interface; may be empty.
    pub interface: String,
}

/// An access port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchPort {
    /// What is behind it.
    pub kind: PortKind,
    /// Which frames it exchanges.
    pub access: Access,
    /// Who it is for.
    pub labels: Labels,
}

impl From<&Port> for SwitchPort {
    fn from(port: &Port) -> Self {
        Self {
            kind: PortKind::System,
            access: port.vlan.map_or(Access::Isolated, Access::Vlan),
            labels: Labels {
                kind: "tap".to_owned(),
                slice: port.owner.slice.clone(),
                vm: port.owner.vm.clone(),
                interface: port.owner.interface.clone(),
            },
        }
    }
}

/// Everything that a node wants of Open vSwitch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchState {
    /// Our mark.
    pub mark: Mark,
    /// The bridge.
    pub bridge: BridgeSpec,
    /// The uplink, if one is configured.
    pub uplink: Option<UplinkSpec>,
    /// Access ports by name.
    pub ports: BTreeMap<String, SwitchPort>,
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
