//! A file without mistakes, as the controller is asked for it.

use trunkline_proto::wire::{InterfaceSpec, LinkSpec, SliceSpec, VmSpec};

use super::{
    read::At,
    shape::{InterfaceAt, LinkAt, SliceAt, VmAt},
};

/// In the order of the file, so that `slices[2]` is the same on both sides.
pub(super) fn slices(written: &[SliceAt]) -> Vec<SliceSpec> {
    written.iter().map(slice).collect()
}

fn slice(slice: &SliceAt) -> SliceSpec {
    SliceSpec {
        name: text(slice.name.as_ref()),
        vms: slice.vms.iter().map(vm).collect(),
        links: slice.links.iter().map(link).collect(),
        vlan_pool_size: slice.vlan_pool_size.unwrap_or(0),
    }
}

fn vm(vm: &VmAt) -> VmSpec {
    VmSpec {
        name: text(vm.name.as_ref()),
        worker: vm.worker.as_ref().map(ToString::to_string).unwrap_or_default(),
        internet_enabled: vm.internet_enabled,
        data_interfaces_count: vm.data_interfaces_count.unwrap_or(0).into(),
        interfaces: vm.interfaces.iter().map(interface).collect(),
    }
}

fn interface(interface: &InterfaceAt) -> InterfaceSpec {
    InterfaceSpec {
        name: text(interface.name.as_ref()),
        mac: text(interface.mac.as_ref()),
        address: text(interface.address.as_ref()),
    }
}

fn link(link: &LinkAt) -> LinkSpec {
    LinkSpec {
        name: text(link.name.as_ref()),
        ends: link.ends.iter().map(|end| text(end.as_ref())).collect(),
        vlan: link.vlan.as_ref().map_or(0, |vlan| vlan.value.into()),
        subnet: text(link.subnet.as_ref()),
        dhcp_off: !link.dhcp,
        mtu: link.mtu.unwrap_or(0),
        port_security: link.port_security,
        protected: link.protected.is_some(),
    }
}

/// What was left out is empty on the wire.
fn text<T: ToString>(value: Option<&At<T>>) -> String {
    value.map(|at| at.value.to_string()).unwrap_or_default()
}
