//! The rows about what guests share without seeing it: the network node's stack, the hosts' own stacks, the DHCP
//! servers' memory, and the addresses of the fleet.

use super::super::what::What;
use super::super::world::Kind::{self, Internet, Nowhere, Plain, Protected, Secure};
use super::rows::{ALL, GUARDED, LINKS, WIRED};
use super::{Expect, Rule, rule};

const NAMED: &[Kind] = &[Secure, Protected, Internet, Nowhere];

/// The row after which the leases on secured and protected links must be as they were.
pub const DHCP_TAKEN_AWAY: &str = "another guest's lease given back";

/// What must not pass.
pub const DEEPER: &[Rule] = &[
    // The network node's stack.
    rule(
        "own gateway in another's name",
        &[Plain],
        What::ForgedEcho,
        Expect::Confined,
        "own gateway",
    ),
    rule(
        "own gateway in another's name, where names are checked",
        NAMED,
        What::ForgedEcho,
        Expect::Dropped,
        "own gateway",
    ),
    rule(
        "ICMP errors about another's flow",
        LINKS,
        What::ForeignErrors,
        Expect::Confined,
        "internet",
    ),
    rule(
        "ICMP errors about another's flow, from VLAN 400",
        &[Internet],
        What::ForeignErrors,
        Expect::Inside,
        "internet",
    ),
    // The hosts' own stacks.
    rule(
        "datagrams to the hosts themselves",
        WIRED,
        What::HostDatagrams,
        Expect::Confined,
        "a host's own datagrams",
    ),
    rule(
        "datagrams to the hosts themselves from eth0 without internet",
        &[Nowhere],
        What::HostDatagrams,
        Expect::Dropped,
        "a host's own datagrams",
    ),
    // DHCP servers.
    rule(
        "DHCP answers sent to another guest",
        &[Internet],
        What::DhcpReflection,
        Expect::NoOther,
        "DHCP",
    ),
    rule(
        DHCP_TAKEN_AWAY,
        &[Secure, Protected],
        What::DhcpTakeAway,
        Expect::Confined,
        "DHCP",
    ),
    // What is between switches.
    rule(
        "control frames of bridges and switches",
        ALL,
        What::Control,
        Expect::Dropped,
        "any EtherType on a plain link",
    ),
    // The last: a switch that learns one of them sends others' frames elsewhere.
    rule(
        "source MAC of a gateway or of another guest",
        &[Plain],
        What::FleetMacs,
        Expect::Dropped,
        "any source MAC on a plain link",
    ),
    rule(
        "source MAC of a gateway or of another guest, where names are checked",
        GUARDED,
        What::FleetMacs,
        Expect::Dropped,
        "any source MAC on a plain link",
    ),
];

/// Parts of others' packets. On their own: the network node forgets parts after half a minute, or when the same guest
/// sends many others.
pub const PARTS: &[Rule] = &[
    rule(
        "last part of another's datagram",
        &[Plain],
        What::ForeignLastPart,
        Expect::Confined,
        "large ping to the internet",
    ),
    rule(
        "last part of another's datagram, where names are checked",
        NAMED,
        What::ForeignLastPart,
        Expect::Dropped,
        "large ping to the internet",
    ),
];

/// Parts of packets that never become whole. The twin is tried right behind them, in what they leave of the network
/// node's memory.
pub const FRAGMENTS: &[Rule] = &[rule(
    "flood of fragments",
    LINKS,
    What::FloodFragments,
    Expect::Confined,
    "large ping to the internet",
)];
