//! A TAP on a worker and its switch port.

use std::net::Ipv4Addr;

use super::{OpenError, field, mtu_from};
use crate::{InterfaceName, Invalid, Mac, PortName, VlanId, VmId, wire};

/// A VM interface on its worker: the TAP that the guest's launcher opens, and the switch port that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The TAP's name, which is also the resource's.
    pub tap: PortName,
    /// Access VLAN. `None`: the port reaches nothing (`vlan_mode=access tag=0 protected=true`, because a port without a tag
    /// is a trunk for every VLAN).
    pub vlan: Option<VlanId>,
    /// The guest's MAC; the TAP itself has another.
    pub mac: Mac,
    /// Addresses reserved for the guest.
    pub addresses: Vec<Ipv4Addr>,
    /// Bytes of payload.
    pub mtu: u16,
    /// Whose it is; for people only.
    pub owner: PortOwner,
}

/// Whose interface a port serves. Written into the switch's `external_ids`; nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortOwner {
    /// Name of the slice.
    pub slice: String,
    /// Name of the VM.
    pub vm: String,
    /// Name of the interface.
    pub interface: String,
}

impl Port {
    pub(super) fn open(tap: &str, spec: wire::PortSpec) -> Result<Self, OpenError> {
        let wire::PortSpec {
            vlan,
            mac,
            addresses,
            mtu,
            slice,
            vm,
            interface,
        } = spec;
        Ok(Self {
            tap: tap_name(tap).map_err(field("name"))?,
            vlan: if vlan == 0 {
                None
            } else {
                Some(VlanId::try_from(vlan).map_err(field("vlan"))?)
            },
            mac: mac.parse().map_err(field("mac"))?,
            addresses: addresses
                .iter()
                .map(|a| ipv4(a))
                .collect::<Result<_, _>>()
                .map_err(field("addresses"))?,
            mtu: mtu_from(mtu)?,
            owner: PortOwner { slice, vm, interface },
        })
    }
}

impl From<&Port> for wire::PortSpec {
    fn from(port: &Port) -> Self {
        let Port {
            tap: _,
            vlan,
            mac,
            addresses,
            mtu,
            owner: PortOwner { slice, vm, interface },
        } = port;
        Self {
            vlan: vlan.map_or(0, u32::from),
            mac: mac.to_string(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            mtu: u32::from(*mtu),
            slice: slice.clone(),
            vm: vm.clone(),
            interface: interface.clone(),
        }
    }
}

/// Only `tap_{vm_id}_{interface}`: a node makes a device of this name, and the kernel would take a `%d` in it for a pattern.
fn tap_name(text: &str) -> Result<PortName, Invalid> {
    let parts = || {
        let (vm, interface) = text.strip_prefix("tap_")?.split_once('_')?;
        let vm = VmId::try_from(vm.parse::<u32>().ok()?).ok()?;
        let interface: InterfaceName = interface.parse().ok()?;
        PortName::tap(vm, interface).ok()
    };
    // `tap_007_eth1` and `tap_+7_eth1` are other names.
    parts().filter(|name| name.as_str() == text).ok_or_else(|| {
        Invalid::new(
            text,
            "the name of a TAP",
            "write tap_VMID_INTERFACE, like tap_1002_eth1",
        )
    })
}

/// Parses an IPv4 address.
pub(super) fn ipv4(text: &str) -> Result<Ipv4Addr, Invalid> {
    text.parse()
        .map_err(|_| Invalid::new(text, "an IPv4 address", "write one like 10.64.110.10"))
}
