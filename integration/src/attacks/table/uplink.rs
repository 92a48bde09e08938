//! The rows from the cable between the hosts: as if another node were somebody else's, or the switch between them leaked.

use super::super::what::What;
use super::super::world::Kind::{self, Wire};
use super::{Expect, Rule, rule};

const WIRE: &[Kind] = &[Wire];

/// What must not pass from there.
pub const UPLINK: &[Rule] = &[
    rule(
        "no tag, from the uplink",
        WIRE,
        What::WireUntagged,
        Expect::Dropped,
        "guests by VLAN, from the uplink",
    ),
    rule(
        "tag 0, from the uplink",
        WIRE,
        What::WireTagZero,
        Expect::Dropped,
        "guests by VLAN, from the uplink",
    ),
    rule(
        "guests on VLANs that keep them apart, from the uplink",
        WIRE,
        What::WireGuest,
        Expect::Dropped,
        "guests by VLAN, from the uplink",
    ),
    rule(
        "as another VLAN's gateway, from the uplink",
        WIRE,
        What::WireForeignGateway,
        Expect::Dropped,
        "guests by VLAN, from the uplink",
    ),
    rule(
        "gateway's broadcasts but ARP and DHCP, from the uplink",
        WIRE,
        What::WireGatewayBroadcasts,
        Expect::Dropped,
        "guests by VLAN, from the uplink",
    ),
    rule(
        "internet in a guest's name, from the uplink",
        WIRE,
        What::WireInternet,
        Expect::NoGuest,
        "internet",
    ),
    rule(
        "the fleet's probe EtherType, from the uplink",
        WIRE,
        What::WireProbe,
        Expect::NoGuest,
        "guests by VLAN, from the uplink",
    ),
    rule(
        "spanning tree, LLDP and pause, from the uplink",
        WIRE,
        What::WireControl,
        Expect::Dropped,
        "guests by VLAN, from the uplink",
    ),
    rule(
        "tags that a node does not carry, from the uplink",
        WIRE,
        What::WireForeignTags,
        Expect::Dropped,
        "guests by VLAN, from the uplink",
    ),
];
