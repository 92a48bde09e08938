//! Resources for the unit tests.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::config::NatSection;
use crate::nat::Way;
use trunkline_agent::node::{Desired, Item};
use trunkline_proto::resource::{Dhcp, Envelope, Gateway, Nat, Reservation, Spec};
use trunkline_proto::{LinkSubnet, Mac, PortName, VlanId, VmId};

pub(crate) fn vlan(id: u32) -> VlanId {
    VlanId::try_from(id).unwrap()
}

pub(crate) fn way() -> Way {
    let section = NatSection {
        allow: vec!["203.0.113.53/32".parse().unwrap()],
        ..NatSection::default()
    };
    Way::new(&section, &BTreeSet::from(["203.0.113.0/24".parse().unwrap()]))
}

pub(crate) fn subnet(vlan: VlanId) -> LinkSubnet {
    if vlan == VlanId::INTERNET {
        LinkSubnet::INTERNET.parse().unwrap()
    } else {
        LinkSubnet::derived(vlan)
    }
}

pub(crate) fn gateway(id: u32) -> Gateway {
    let vlan = vlan(id);
    Gateway {
        vlan,
        address: subnet(vlan).gateway(),
        mac: Mac::of_gateway(vlan),
        mtu: 1500,
    }
}

pub(crate) fn dhcp(id: u32, reservations: Vec<Reservation>) -> Dhcp {
    let vlan = vlan(id);
    let subnet = subnet(vlan);
    Dhcp {
        vlan,
        address: subnet.dhcp_server(),
        mac: Mac::of_dhcp(vlan),
        mtu: 1500,
        range: (vlan != VlanId::INTERNET).then(|| subnet.guests()),
        router: subnet.gateway().address,
        dns: vec![Ipv4Addr::new(8, 8, 8, 8)],
        lease: Duration::from_secs(3600),
        reservations,
    }
}

pub(crate) fn reservation(dhcp_vlan: u32, vm: u32, index: u8, hostname: &str, no_router: bool) -> Reservation {
    let first = u32::from(subnet(vlan(dhcp_vlan)).guests().0);
    Reservation {
        mac: Mac::of_interface(VmId::try_from(vm).unwrap(), index),
        address: Ipv4Addr::from(first + vm - VmId::MIN),
        hostname: hostname.parse().unwrap(),
        no_router,
    }
}

pub(crate) fn nat() -> Nat {
    let vlan = VlanId::INTERNET;
    Nat {
        vlan,
        subnet: subnet(vlan),
        gateway_port: PortName::gateway(vlan),
    }
}

/// Everything desired, as it comes from the inbox.
pub(crate) fn desired(specs: impl IntoIterator<Item = Spec>) -> Desired {
    let items = specs.into_iter().map(|spec| {
        let envelope = Envelope::seal(&spec, "");
        (
            envelope.key,
            Item {
                spec,
                hash: envelope.hash,
                traceparent: String::new(),
            },
        )
    });
    Desired {
        term: 1,
        generation: 1,
        items: items.collect(),
        ..Desired::default()
    }
}
