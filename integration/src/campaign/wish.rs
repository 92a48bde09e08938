//! What an operator wishes of a slice, and how single parts of it are asked for.

use serde::{Deserialize, Serialize};
use trunkline_proto::wire::{self, InterfaceSpec, LinkSpec, SliceSpec, VmSpec};

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

impl WishedVm {
    /// As the API takes it.
    pub(super) fn spec(&self) -> VmSpec {
        VmSpec {
            name: self.name.clone(),
            worker: self.worker.clone(),
            internet_enabled: self.internet,
            data_interfaces_count: self.data,
            interfaces: Vec::<InterfaceSpec>::new(),
        }
    }
}

impl WishedLink {
    /// As the API takes it.
    pub(super) fn spec(&self) -> LinkSpec {
        LinkSpec {
            name: self.name.clone(),
            ends: self.ends.clone(),
            dhcp_off: !self.dhcp,
            mtu: self.mtu,
            port_security: self.secured,
            protected: self.protected,
            ..LinkSpec::default()
        }
    }
}

impl Wish {
    /// As the API takes it.
    pub(super) fn spec(&self) -> SliceSpec {
        SliceSpec {
            name: self.name.clone(),
            vms: self.vms.iter().map(WishedVm::spec).collect(),
            links: self.links.iter().map(WishedLink::spec).collect(),
            vlan_pool_size: 0,
        }
    }

    /// The same in order of names, as the book and the API's answers are compared.
    pub(super) fn sorted(mut self) -> Self {
        self.vms.sort();
        self.links.sort();
        self
    }

    /// Every VM that is on one worker is on another.
    pub(super) fn relocate(&mut self, from: &str, to: &str) -> bool {
        let mut any = false;
        for vm in self.vms.iter_mut().filter(|vm| vm.worker == from) {
            to.clone_into(&mut vm.worker);
            any = true;
        }
        any
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
        let wish = Self {
            name: slice.name.clone(),
            vms: slice.vms.iter().map(vm).collect(),
            links: slice.links.iter().map(link).collect(),
        };
        wish.sorted()
    }
}
