//! The expected table: what is tried, by whom, and who must not hear of it. Each row that must be dropped names the row
//! that must pass in its place.

use super::what::What;
use super::world::Kind::{self, Internet, Nowhere, Plain, Protected, Secure};

/// What must come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// The interface it is meant for hears it, whatever else happens.
    Reaches,
    /// Every other interface on the VLAN hears it.
    ReachesPeers,
    /// It is answered.
    Answered,
    /// Nobody outside the sender's VLAN hears it, and none but a guest of that VLAN answers.
    Confined,
    /// As `Confined`, and no other guest hears it either.
    NoGuest,
    /// Nobody hears it at all: it ends at the sender's own port.
    Dropped,
    /// A part of it reaches the peers: the limit bites, and shows.
    Limited,
}

impl Expect {
    /// Must something pass?
    pub fn passes(self) -> bool {
        matches!(self, Self::Reaches | Self::ReachesPeers | Self::Answered)
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its name.
    pub id: &'static str,
    /// From which interfaces.
    pub from: &'static [Kind],
    /// What.
    pub what: What,
    /// What must come of it.
    pub expect: Expect,
    /// The row that must pass, so that a dead wire cannot look like a safe one. Empty for a row that passes itself.
    pub twin: &'static str,
}

const fn pass(id: &'static str, from: &'static [Kind], what: What, expect: Expect) -> Rule {
    let twin = "";
    Rule {
        id,
        from,
        what,
        expect,
        twin,
    }
}

const fn rule(id: &'static str, from: &'static [Kind], what: What, expect: Expect, twin: &'static str) -> Rule {
    Rule {
        id,
        from,
        what,
        expect,
        twin,
    }
}

const ALL: &[Kind] = &[Plain, Secure, Protected, Internet, Nowhere];
const WIRED: &[Kind] = &[Plain, Secure, Protected, Internet];
const LINKS: &[Kind] = &[Plain, Secure, Protected];
const OPEN: &[Kind] = &[Plain, Secure];
const GUARDED: &[Kind] = &[Secure, Protected, Internet];

/// What must pass. Tried first, and all of it again when the attacks are over.
pub const HONEST: &[Rule] = &[
    pass("peers by ping", OPEN, What::EchoPeers, Expect::Reaches),
    pass("peers by ARP", OPEN, What::ArpPeers, Expect::Answered),
    pass("own gateway", WIRED, What::Gateway, Expect::Answered),
    pass("internet", &[Internet], What::Internet, Expect::Answered),
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
        "ICMP redirect on VLAN 400",
        &[Internet],
        What::RedirectOwn,
        Expect::NoGuest,
        "a lab's own router redirects on a plain link",
    ),
];

/// Tags. Tried after the others: thousands of frames could use up a limit, and hide what the others let through.
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

/// Storms: one port at a time.
pub const STORMS: &[Rule] = &[
    rule(
        "flood of broadcasts",
        &[Plain],
        What::FloodBroadcast,
        Expect::Limited,
        "broadcasts below the limit",
    ),
    rule(
        "flood to an unknown address",
        &[Plain],
        What::FloodUnknown,
        Expect::Limited,
        "broadcasts below the limit",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_that_must_not_pass_has_a_twin_that_must() {
        for row in HOSTILE.iter().chain(TAGS).chain(STORMS) {
            assert!(!row.expect.passes(), "{}", row.id);
            let twin = HONEST.iter().find(|honest| honest.id == row.twin);
            assert!(twin.is_some_and(|twin| twin.expect.passes()), "{}", row.id);
        }
    }

    #[test]
    fn every_kind_of_interface_is_attacked_from() {
        for kind in ALL {
            assert!(
                HOSTILE.iter().filter(|row| row.from.contains(kind)).count() > 5,
                "{kind:?}"
            );
        }
    }
}
