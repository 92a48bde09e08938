//! The rows, as data.

use super::super::what::What;
use super::super::world::Kind::{self, Host, Internet, Nowhere, Plain, Protected, Secure, Wire};
use super::{Expect, Rule, pass, rule};

pub(super) const ALL: &[Kind] = &[Plain, Secure, Protected, Internet, Nowhere];
pub(super) const WIRED: &[Kind] = &[Plain, Secure, Protected, Internet];
pub(super) const LINKS: &[Kind] = &[Plain, Secure, Protected];
const OPEN: &[Kind] = &[Plain, Secure];
pub(super) const GUARDED: &[Kind] = &[Secure, Protected, Internet];
const SHUT: &[Kind] = &[Protected, Internet, Nowhere];
const APART: &[Kind] = &[Protected, Internet];

/// The row after which the others' leases must be as they were.
pub const DHCP_IN_ANOTHERS_NAME: &str = "DHCP in another guest's name";

/// What must pass. Tried first, and all of it again when the attacks are over.
pub const HONEST: &[Rule] = &[
    pass("peers by ping", OPEN, What::EchoPeers, Expect::Reaches),
    pass("peers by ARP", OPEN, What::ArpPeers, Expect::Answered),
    pass("own gateway", WIRED, What::Gateway, Expect::Answered),
    pass("internet", &[Internet], What::Internet, Expect::Answered),
    pass(
        "large ping to the internet",
        &[Internet],
        What::LargeInternet,
        Expect::Answered,
    ),
    pass("a host's own datagrams", &[Host], What::HostDatagrams, Expect::Heard),
    pass("DHCP", WIRED, What::Discover, Expect::Answered),
    pass(
        "any EtherType on a plain link",
        &[Plain],
        What::Broadcast,
        Expect::ReachesPeers,
    ),
    pass(
        "any source MAC on a plain link",
        &[Plain],
        What::ForgedMac,
        Expect::ReachesPeers,
    ),
    pass(
        "any IPv4 source on a plain link",
        &[Plain],
        What::ForgedIp,
        Expect::ReachesPeers,
    ),
    pass(
        "a lab's own DHCP server on a plain link",
        &[Plain],
        What::DhcpAnswer,
        Expect::ReachesPeers,
    ),
    pass(
        "a lab's own IPv6 router on a plain link",
        &[Plain],
        What::RouterAdvertisement,
        Expect::ReachesPeers,
    ),
    pass(
        "a lab's own router redirects on a plain link",
        &[Plain],
        What::RedirectOwn,
        Expect::Reaches,
    ),
    pass(
        "a lab's own DHCPv6 server on a plain link",
        &[Plain],
        What::Dhcp6Answer,
        Expect::ReachesPeers,
    ),
    pass("ARP answers to one guest", OPEN, What::OwnArpOne, Expect::Reaches),
    pass("IPv6 neighbours", OPEN, What::OwnNeighbour, Expect::ReachesPeers),
    pass("fragments", OPEN, What::OwnFragments, Expect::Reaches),
    pass(
        "guests by VLAN, from the uplink",
        &[Wire],
        What::WireHonest,
        Expect::Reaches,
    ),
    pass(
        "broadcasts below the limit",
        &[Plain],
        What::Trickle,
        Expect::ReachesPeers,
    ),
];

/// What must not pass.
pub const HOSTILE: &[Rule] = &[
    // Slice against slice: every interface of the one to every interface of the other.
    rule(
        "other slice by MAC",
        LINKS,
        What::EchoStrangers,
        Expect::Confined,
        "peers by ping",
    ),
    rule(
        "other slice by ARP",
        LINKS,
        What::ArpStrangers,
        Expect::Confined,
        "peers by ARP",
    ),
    rule(
        "other slice through the gateway",
        LINKS,
        What::RouteStrangers,
        Expect::Confined,
        "own gateway",
    ),
    rule(
        "other slice by MAC, from VLAN 400",
        &[Internet],
        What::EchoStrangers,
        Expect::NoGuest,
        "own gateway",
    ),
    rule(
        "other slice by ARP, from VLAN 400",
        &[Internet],
        What::ArpStrangers,
        Expect::NoGuest,
        "own gateway",
    ),
    rule(
        "other slice through VLAN 400's gateway",
        &[Internet],
        What::RouteStrangers,
        Expect::NoGuest,
        "internet",
    ),
    // Gateways and nodes.
    rule(
        "foreign gateways and DHCP servers",
        WIRED,
        What::ForeignServers,
        Expect::Confined,
        "own gateway",
    ),
    rule(
        "nodes' IPv4 addresses",
        WIRED,
        What::NodesIpv4,
        Expect::Confined,
        "own gateway",
    ),
    rule(
        "services on the own gateway",
        WIRED,
        What::GatewayServices,
        Expect::Confined,
        "own gateway",
    ),
    rule("nodes by IPv6", WIRED, What::NodesIpv6, Expect::Confined, "own gateway"),
    rule(
        "nodes by MAC and the IPv6 address made of it",
        WIRED,
        What::NodesMac,
        Expect::Confined,
        "own gateway",
    ),
    rule(
        "hosts on the uplink's own network",
        &[Internet],
        What::UplinkSubnet,
        Expect::Inside,
        "internet",
    ),
    // Without internet.
    rule(
        "internet through a link's gateway",
        LINKS,
        What::InternetAnyhow,
        Expect::Confined,
        "internet",
    ),
    rule(
        "internet from eth0 without it",
        &[Nowhere],
        What::InternetAnyhow,
        Expect::Dropped,
        "internet",
    ),
    rule(
        "guests by MAC from eth0 without internet",
        &[Nowhere],
        What::EchoStrangers,
        Expect::Dropped,
        "peers by ping",
    ),
    rule(
        "broadcasts from eth0 without internet",
        &[Nowhere],
        What::AnyBroadcast,
        Expect::Dropped,
        "peers by ARP",
    ),
    rule(
        "nodes by IPv6 from eth0 without internet",
        &[Nowhere],
        What::NodesIpv6,
        Expect::Dropped,
        "own gateway",
    ),
    rule(
        "nodes' IPv4 addresses from eth0 without internet",
        &[Nowhere],
        What::NodesIpv4,
        Expect::Dropped,
        "own gateway",
    ),
    rule(
        "gateways and DHCP servers from eth0 without internet",
        &[Nowhere],
        What::ForeignServers,
        Expect::Dropped,
        "own gateway",
    ),
    rule(
        "nodes by MAC from eth0 without internet",
        &[Nowhere],
        What::NodesMac,
        Expect::Dropped,
        "own gateway",
    ),
    // Others on VLAN 400, and on a protected link.
    rule(
        "guests on VLAN 400 by MAC",
        &[Internet],
        What::EchoPeers,
        Expect::NoGuest,
        "own gateway",
    ),
    rule(
        "guests on VLAN 400 by ARP",
        &[Internet],
        What::ArpPeers,
        Expect::NoGuest,
        "own gateway",
    ),
    rule(
        "broadcasts on VLAN 400",
        &[Internet],
        What::AnyBroadcast,
        Expect::NoGuest,
        "DHCP",
    ),
    rule(
        "peers on a protected link by MAC",
        &[Protected],
        What::EchoPeers,
        Expect::NoGuest,
        "own gateway",
    ),
    rule(
        "peers on a protected link by ARP",
        &[Protected],
        What::ArpPeers,
        Expect::NoGuest,
        "own gateway",
    ),
    rule(
        "broadcasts on a protected link",
        &[Protected],
        What::AnyBroadcast,
        Expect::NoGuest,
        "DHCP",
    ),
    // What belongs to the fleet or to a cable.
    rule(
        "the fleet's probe EtherType",
        ALL,
        What::Probe,
        Expect::Dropped,
        "any EtherType on a plain link",
    ),
    rule(
        "spanning tree",
        ALL,
        What::Stp,
        Expect::Dropped,
        "any EtherType on a plain link",
    ),
    rule(
        "LLDP",
        ALL,
        What::Lldp,
        Expect::Dropped,
        "any EtherType on a plain link",
    ),
    rule(
        "pause",
        ALL,
        What::Pause,
        Expect::Dropped,
        "any EtherType on a plain link",
    ),
    // Port security, which protected links have as well.
    rule(
        "forged source MAC",
        GUARDED,
        What::ForgedMac,
        Expect::Dropped,
        "any source MAC on a plain link",
    ),
    rule(
        "ARP for the gateway",
        GUARDED,
        What::ForgedArpGateway,
        Expect::Dropped,
        "peers by ARP",
    ),
    rule(
        "ARP for another guest",
        GUARDED,
        What::ForgedArpPeer,
        Expect::Dropped,
        "peers by ARP",
    ),
    rule(
        "IPv4 source of another guest",
        GUARDED,
        What::ForgedIp,
        Expect::Dropped,
        "any IPv4 source on a plain link",
    ),
    rule(
        "rogue DHCP server",
        GUARDED,
        What::DhcpAnswer,
        Expect::Dropped,
        "a lab's own DHCP server on a plain link",
    ),
    rule(
        "rogue router advertisement",
        GUARDED,
        What::RouterAdvertisement,
        Expect::Dropped,
        "a lab's own IPv6 router on a plain link",
    ),
    rule(
        "ICMP redirect for the gateway",
        GUARDED,
        What::Redirect,
        Expect::Dropped,
        "a lab's own router redirects on a plain link",
    ),
    rule(
        "ICMP redirect in the own name",
        GUARDED,
        What::RedirectOwn,
        Expect::Dropped,
        "a lab's own router redirects on a plain link",
    ),
    rule(
        "ARP answer to one guest",
        GUARDED,
        What::ForgedArpOne,
        Expect::Dropped,
        "ARP answers to one guest",
    ),
    rule(
        "rogue DHCPv6 server",
        GUARDED,
        What::Dhcp6Answer,
        Expect::Dropped,
        "a lab's own DHCPv6 server on a plain link",
    ),
    rule(
        "fragments of another guest",
        GUARDED,
        What::ForgedFragments,
        Expect::Dropped,
        "fragments",
    ),
    rule(
        "rogue servers and routers in fragments",
        GUARDED,
        What::RogueFragments,
        Expect::Dropped,
        "fragments",
    ),
    rule(
        DHCP_IN_ANOTHERS_NAME,
        &[Internet],
        What::DhcpInAnothersName,
        Expect::NoGuest,
        "DHCP",
    ),
    // Link-layer options of IPv6.
    rule(
        "IPv6 neighbour with another's hardware address",
        GUARDED,
        What::ForgedNeighbour,
        Expect::Dropped,
        "IPv6 neighbours",
    ),
];

/// Tags, each with every VLAN id. Tried after the others: thousands of frames could use up a limit, and hide what the others let through.
pub const TAGS: &[Rule] = &[
    rule("tags 1 to 4095", ALL, What::EveryTag, Expect::Dropped, "peers by ping"),
    rule(
        "tag 0",
        WIRED,
        What::TagZero,
        Expect::Confined,
        "any EtherType on a plain link",
    ),
    rule(
        "tag 0 from eth0 without internet",
        &[Nowhere],
        What::TagZero,
        Expect::Dropped,
        "any EtherType on a plain link",
    ),
    rule("double tags", ALL, What::DoubleTags, Expect::Dropped, "peers by ping"),
    rule(
        "tag 0, then another",
        WIRED,
        What::ZeroThenTag,
        Expect::Confined,
        "peers by ping",
    ),
    rule(
        "tag 0, then another, from eth0 without internet",
        &[Nowhere],
        What::ZeroThenTag,
        Expect::Dropped,
        "peers by ping",
    ),
];

/// Storms: far more than the limit of a port, from one port of each kind.
pub const STORMS: &[Rule] = &[
    rule(
        "flood of broadcasts",
        OPEN,
        What::FloodBroadcast,
        Expect::Limited,
        "broadcasts below the limit",
    ),
    rule(
        "flood to an unknown address",
        OPEN,
        What::FloodUnknown,
        Expect::Limited,
        "broadcasts below the limit",
    ),
    rule(
        "flood of ARP where guests are kept apart",
        APART,
        What::FloodArp,
        Expect::Limited,
        "own gateway",
    ),
    rule(
        "flood of broadcasts where nobody may hear them",
        SHUT,
        What::FloodBroadcast,
        Expect::Dropped,
        "broadcasts below the limit",
    ),
    rule(
        "flood to an unknown address where nobody may hear it",
        SHUT,
        What::FloodUnknown,
        Expect::Dropped,
        "broadcasts below the limit",
    ),
];
