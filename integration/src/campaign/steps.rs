//! What a campaign is made of. Every step is one line of JSON, and so can be written down, replayed and left out.

use std::fmt;

use serde::{Deserialize, Serialize};
use trunkline_proto::wire::{self, InterfaceSpec, LinkSpec, SliceSpec, VmSpec};

use super::drift::Drift;
use crate::LabError;
use crate::lab::Fault;

/// One thing that is done. Faults begin `after_ms` from their turn and stand beside what comes next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum Step {
    /// Makes a slice's draft what is wished, and deploys it where asked.
    Apply { slice: Wish, deploy: bool, twice: bool },
    /// Deploys a draft.
    Deploy { slice: String, twice: bool },
    /// Takes a slice off every host.
    Undeploy { slice: String, twice: bool },
    /// Deploys an earlier revision.
    Rollback { slice: String, number: u32, twice: bool },
    /// Deletes a slice.
    Delete { slice: String, twice: bool },
    /// Kills programs, all at once, and starts them again.
    Kill {
        targets: Vec<Target>,
        after_ms: u64,
        down_ms: u64,
    },
    /// Something between the hosts is wrong for a while.
    Network { fault: Fault, after_ms: u64, for_ms: u64 },
    /// The disk under a daemon's state is full for a while.
    Full { host: String, after_ms: u64, for_ms: u64 },
    /// A client that watches and never reads.
    Deaf { after_ms: u64, for_ms: u64 },
    /// Somebody changes a host by hand.
    Drift {
        host: String,
        what: Drift,
        pick: usize,
        after_ms: u64,
    },
    /// Everything is healed, everything must be as the slices say.
    Quiet,
}

/// A program on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Target {
    /// The host.
    pub(super) host: String,
    /// `ovs-vswitchd`, `trunkline-agent`, `dnsmasq`, ...
    pub(super) program: String,
}

/// A slice as its operator wishes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wish {
    /// Its name.
    pub(super) name: String,
    /// By name.
    pub(super) vms: Vec<WishedVm>,
    /// By name.
    pub(super) links: Vec<WishedLink>,
}

/// A VM as it is wished.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct WishedVm {
    /// Its name.
    pub(super) name: String,
    /// Its worker.
    pub(super) worker: String,
    /// Whether `eth0` leads to the internet.
    pub(super) internet: bool,
    /// How many interfaces beside `eth0`.
    pub(super) data: u32,
}

/// A link as it is wished.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct WishedLink {
    /// Its name.
    pub(super) name: String,
    /// `vm.ethN`, sorted.
    pub(super) ends: Vec<String>,
    /// Bytes of payload.
    pub(super) mtu: u32,
    /// Whether it has a DHCP server.
    pub(super) dhcp: bool,
    /// Port security.
    pub(super) secured: bool,
    /// Guests reach gateway and DHCP server only.
    pub(super) protected: bool,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Step {
    /// Reads one line.
    pub(super) fn parse(line: &str) -> Result<Self, LabError> {
        serde_json::from_str(line).map_err(|error| LabError::Other(format!("{line:?} is no step: {error}")))
    }

    /// Reads a list, one step a line; empty lines and comments are left out.
    pub(super) fn parse_all(text: &str) -> Result<Vec<Self>, LabError> {
        let lines = text.lines().map(str::trim);
        lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(Self::parse)
            .collect()
    }
}

impl Wish {
    /// As the API takes it.
    pub(super) fn spec(&self) -> SliceSpec {
        let vm = |vm: &WishedVm| VmSpec {
            name: vm.name.clone(),
            worker: vm.worker.clone(),
            internet_enabled: vm.internet,
            data_interfaces_count: vm.data,
            interfaces: Vec::<InterfaceSpec>::new(),
        };
        let link = |link: &WishedLink| LinkSpec {
            name: link.name.clone(),
            ends: link.ends.clone(),
            dhcp_off: !link.dhcp,
            mtu: link.mtu,
            port_security: link.secured,
            protected: link.protected,
            ..LinkSpec::default()
        };
        SliceSpec {
            name: self.name.clone(),
            vms: self.vms.iter().map(vm).collect(),
            links: self.links.iter().map(link).collect(),
            vlan_pool_size: 0,
        }
    }

    /// What the API shows, in the same words.
    pub(super) fn shown(slice: &wire::Slice) -> Self {
        let vm = |vm: &wire::Vm| WishedVm {
            name: vm.name.clone(),
            worker: vm.worker.clone(),
            internet: vm.internet_enabled,
            data: u32::try_from(vm.interfaces.len().saturating_sub(1)).unwrap_or(u32::MAX),
        };
        let link = |link: &wire::Link| {
            let mut ends = link.ends.clone();
            ends.sort();
            WishedLink {
                name: link.name.clone(),
                ends,
                mtu: link.mtu,
                dhcp: link.dhcp,
                secured: link.port_security,
                protected: link.protected,
            }
        };
        let mut wish = Self {
            name: slice.name.clone(),
            vms: slice.vms.iter().map(vm).collect(),
            links: slice.links.iter().map(link).collect(),
        };
        wish.vms.sort();
        wish.links.sort();
        wish
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::random::Dice;

    #[test]
    fn a_step_is_one_line_and_comes_back_from_it() {
        let mut dice = Dice::new(7, 2);
        for _ in 0..40 {
            for step in dice.round() {
                let line = step.to_string();
                assert!(!line.contains('\n'), "{line}");
                assert_eq!(Step::parse(&line).unwrap(), step);
            }
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_steps() {
        let rounds = |seed| {
            let mut dice = Dice::new(seed, 2);
            (0..5).map(|_| dice.round()).collect::<Vec<_>>()
        };
        assert_eq!(rounds(3), rounds(3));
        assert_ne!(rounds(3), rounds(4));
    }
}
