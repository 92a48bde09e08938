//! Addresses and routes as the kernel describes them.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

/// An address of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The device.
    pub index: u32,
    /// Address with prefix length.
    pub net: IpNet,
    /// True for addresses that are valid on the link only, such as IPv6's `fe80::`, which the kernel makes by itself.
    pub link_local: bool,
}

impl Address {
    /// None for messages that carry no address.
    pub(super) fn from_message(message: &AddressMessage) -> Option<Self> {
        // IFA_LOCAL is the address of this end; IFA_ADDRESS may be the other end's.
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let address = local.or_else(|| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
        })?;
        Some(Self {
            index: message.header.index,
            net: IpNet::new(address, message.header.prefix_len).ok()?,
            link_local: message.header.scope == AddressScope::Link,
        })
    }

    /// The request's message.
    pub(super) fn message(index: u32, net: IpNet) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = net.prefix_len();
        message.header.family = family(net.addr());
        message.attributes.push(AddressAttribute::Local(net.addr()));
        message.attributes.push(AddressAttribute::Address(net.addr()));
        if let IpNet::V4(net) = net
            && net.prefix_len() < 31
        {
            message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
        }
        message
    }
}

/// A unicast route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to; a default route has prefix length 0.
    pub destination: IpNet,
    /// By which router.
    pub gateway: Option<IpAddr>,
    /// By which device.
    pub output: Option<u32>,
    /// Routing table; 254 is the main one.
    pub table: u32,
}

impl Route {
    /// The main routing table's number (`RT_TABLE_MAIN` in linux/rtnetlink.h).
    pub const MAIN: u32 = 254;

    /// None for routes that are not unicast (local, broadcast, multicast ones that the kernel makes by itself).
    pub(super) fn from_message(message: &RouteMessage) -> Option<Self> {
        if message.header.kind != RouteType::Unicast {
            return None;
        }
        let any: IpAddr = match message.header.address_family {
            AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let mut route = Route {
            destination: IpNet::new(any, message.header.destination_prefix_length).ok()?,
            gateway: None,
            output: None,
            table: u32::from(message.header.table),
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => {
                    route.destination = IpNet::new(ip(address)?, message.header.destination_prefix_length).ok()?;
                }
                RouteAttribute::Gateway(address) => route.gateway = ip(address),
                RouteAttribute::Oif(index) => route.output = Some(*index),
                RouteAttribute::Table(table) => route.table = *table,
                _ => {}
            }
        }
        Some(route)
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
