//! The file's own shape, to write one: what was asked for can be shown, edited and applied again.

use serde::Serialize;
use trunkline_proto::wire::{InterfaceSpec, LinkSpec, SliceSpec, VmSpec};

/// A whole file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopologyFile {
    /// Its slices.
    pub slices: Vec<SliceFile>,
}

/// A slice of a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SliceFile {
    /// Its name.
    pub name: String,
    /// VLANs kept for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_pool_size: Option<u32>,
    /// Its VMs.
    pub vms: Vec<VmFile>,
    /// Its links.
    pub links: Vec<LinkFile>,
}

/// A VM of a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VmFile {
    /// Its name.
    pub name: String,
    /// Worker, when one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Internet on eth0.
    pub internet_enabled: bool,
    /// eth1 to ethN.
    pub data_interfaces_count: u32,
    /// What is not derived.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceFile>,
}

/// What is given of an interface.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InterfaceFile {
    /// `eth1`.
    pub name: String,
    /// Its MAC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its IPv4 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// A link of a file: its ends alone when nothing else is given.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum LinkFile {
    /// `[web.eth1, db.eth1]`.
    Ends(Vec<String>),
    /// With more.
    Full {
        /// Its name.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// `vm.interface`, two or more.
        ends: Vec<String>,
        /// Its VLAN.
        #[serde(skip_serializing_if = "Option::is_none")]
        vlan: Option<u32>,
        /// Its subnet.
        #[serde(skip_serializing_if = "Option::is_none")]
        subnet: Option<String>,
        /// Whether a DHCP server answers on it.
        dhcp: bool,
        /// Bytes of payload.
        #[serde(skip_serializing_if = "Option::is_none")]
        mtu: Option<u32>,
        /// Guests send with their own addresses only.
        #[serde(skip_serializing_if = "is_off")]
        port_security: bool,
        /// The ends reach the gateway and the DHCP server, not each other.
        #[serde(skip_serializing_if = "is_off")]
        protected: bool,
    },
}

/// Empty on the wire is left out in the file.
fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// What is off when left out is left out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_off(flag: &bool) -> bool {
    !flag
}

fn number(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

impl From<&[SliceSpec]> for TopologyFile {
    fn from(slices: &[SliceSpec]) -> Self {
        Self {
            slices: slices.iter().map(SliceFile::from).collect(),
        }
    }
}

impl From<&SliceSpec> for SliceFile {
    fn from(slice: &SliceSpec) -> Self {
        Self {
            name: slice.name.clone(),
            vlan_pool_size: number(slice.vlan_pool_size),
            vms: slice.vms.iter().map(VmFile::from).collect(),
            links: slice.links.iter().map(LinkFile::from).collect(),
        }
    }
}

impl From<&VmSpec> for VmFile {
    fn from(vm: &VmSpec) -> Self {
        Self {
            name: vm.name.clone(),
            worker: given(&vm.worker),
            internet_enabled: vm.internet_enabled,
            data_interfaces_count: vm.data_interfaces_count,
            interfaces: vm.interfaces.iter().map(InterfaceFile::from).collect(),
        }
    }
}

impl From<&InterfaceSpec> for InterfaceFile {
    fn from(interface: &InterfaceSpec) -> Self {
        Self {
            name: interface.name.clone(),
            mac: given(&interface.mac),
            address: given(&interface.address),
        }
    }
}

impl From<&LinkSpec> for LinkFile {
    fn from(link: &LinkSpec) -> Self {
        let LinkSpec {
            name,
            ends,
            vlan,
            subnet,
            dhcp_off,
            mtu,
            port_security,
            protected,
        } = link;
        let plain = !dhcp_off && !port_security && !protected;
        if name.is_empty() && *vlan == 0 && subnet.is_empty() && *mtu == 0 && plain {
            return Self::Ends(ends.clone());
        }
        Self::Full {
            name: given(name),
            ends: ends.clone(),
            vlan: number(*vlan),
            subnet: given(subnet),
            dhcp: !dhcp_off,
            mtu: number(*mtu),
            port_security: *port_security,
            protected: *protected,
        }
    }
}
