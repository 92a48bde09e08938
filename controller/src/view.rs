//! The model as the API shows it.

use trunkline_proto::{Endpoint, LinkSubnet, wire};

use crate::{
    model::{Frozen, Interface, Link, Slice, Vm},
    settings::Settings,
};

/// A slice with its draft.
pub fn slice(slice: &Slice, settings: &Settings) -> wire::Slice {
    let used = slice.links.values().filter(|l| slice.pool.contains(l.vlan)).count();
    let ranges = slice.pool.ranges.iter().map(|r| wire::VlanRange {
        first: r.first.into(),
        last: r.last.into(),
    });
    wire::Slice {
        name: slice.name.to_string(),
        owner: slice.owner.clone(),
        revision: slice.revision,
        vlan_pool: Some(wire::VlanPool {
            ranges: ranges.collect(),
            size: slice.pool.size(),
            used: u32::try_from(used).unwrap_or(u32::MAX),
        }),
        vms: slice.vms.values().map(|v| vm(slice, v, settings)).collect(),
        links: slice.links.values().map(|l| link(slice, l)).collect(),
        deployed: slice.deployed().map(|f| deployment(f)),
        draft_differs: slice.draft_differs(),
        created: Some(slice.created.into()),
        spec: Some(spec(slice)),
    }
}

/// A slice with the VMs and links of one of its revisions in place of its draft.
pub fn frozen(of: &Slice, frozen: &Frozen, settings: &Settings) -> wire::Slice {
    let then = Slice {
        vms: frozen.vms.clone(),
        links: frozen.links.clone(),
        ..of.clone()
    };
    wire::Slice {
        draft_differs: of.draft_differs(),
        ..slice(&then, settings)
    }
}

/// A VM of a slice's draft.
pub fn vm(slice: &Slice, vm: &Vm, settings: &Settings) -> wire::Vm {
    wire::Vm {
        slice: slice.name.to_string(),
        name: vm.name.to_string(),
        vm_id: vm.id.into(),
        worker: vm.worker.to_string(),
        placed: vm.placed,
        internet_enabled: vm.internet,
        interfaces: vm
            .interfaces
            .iter()
            .map(|i| interface(slice, vm, i, settings))
            .collect(),
    }
}

/// A link of a slice's draft.
pub fn link(slice: &Slice, link: &Link) -> wire::Link {
    wire::Link {
        slice: slice.name.to_string(),
        name: link.name.to_string(),
        vlan: link.vlan.into(),
        subnet: link.subnet.to_string(),
        gateway: link.subnet.gateway().address.to_string(),
        dhcp: link.dhcp,
        ends: link.ends.iter().map(Endpoint::to_string).collect(),
        mtu: link.mtu.into(),
        port_security: link.port_security,
        protected: link.protected,
    }
}

/// A revision.
pub fn deployment(frozen: &Frozen) -> wire::Deployment {
    wire::Deployment {
        number: frozen.number,
        term: frozen.position.term,
        generation: frozen.position.generation,
        at: Some(frozen.at.into()),
        by: frozen.by.clone(),
    }
}

/// What was asked for, such that applying it changes nothing.
pub fn spec(slice: &Slice) -> wire::SliceSpec {
    wire::SliceSpec {
        name: slice.name.to_string(),
        vms: slice.vms.values().map(|v| vm_spec(v)).collect(),
        links: slice.links.values().map(|l| link_spec(l)).collect(),
        vlan_pool_size: slice.pool.asked,
    }
}

fn vm_spec(vm: &Vm) -> wire::VmSpec {
    let given = |i: &&Interface| i.mac_given || i.address_given.is_some();
    let interfaces = vm.interfaces.iter().filter(given).map(|i| wire::InterfaceSpec {
        name: i.name.to_string(),
        mac: if i.mac_given { i.mac.to_string() } else { String::new() },
        address: i.address_given.map(|a| a.to_string()).unwrap_or_default(),
    });
    wire::VmSpec {
        name: vm.name.to_string(),
        worker: if vm.placed {
            String::new()
        } else {
            vm.worker.to_string()
        },
        internet_enabled: vm.internet,
        data_interfaces_count: vm.data_interfaces(),
        interfaces: interfaces.collect(),
    }
}

fn link_spec(link: &Link) -> wire::LinkSpec {
    wire::LinkSpec {
        name: link.name.to_string(),
        ends: link.ends.iter().map(Endpoint::to_string).collect(),
        vlan: if link.vlan_given { link.vlan.into() } else { 0 },
        subnet: if link.subnet_given {
            link.subnet.to_string()
        } else {
            String::new()
        },
        dhcp_off: !link.dhcp,
        mtu: if link.mtu_given { link.mtu.into() } else { 0 },
        port_security: link.port_security,
        protected: link.protected,
    }
}

fn interface(slice: &Slice, vm: &Vm, interface: &Interface, settings: &Settings) -> wire::Interface {
    let link = interface.link.as_ref().and_then(|name| slice.links.get(name));
    let internet = vm.internet && interface.name.index() == 0;
    let subnet: Option<LinkSubnet> = if internet {
        Some(settings.internet_subnet)
    } else {
        link.map(|l| l.subnet)
    };
    wire::Interface {
        name: interface.name.to_string(),
        tap: interface.tap.to_string(),
        mac: interface.mac.to_string(),
        vlan: interface.vlan.map_or(0, u32::from),
        address: interface.address.map(|a| a.to_string()).unwrap_or_default(),
        prefix_len: subnet.map_or(0, |s| s.prefix_len().into()),
        gateway: subnet.map(|s| s.gateway().address.to_string()).unwrap_or_default(),
        link: interface.link.as_ref().map(ToString::to_string).unwrap_or_default(),
        mtu: link.map_or(settings.default_mtu, |l| l.mtu).into(),
    }
}
