//! What an attacker, or an honest guest, may send.

/// What is sent. How it looks stands in `attempts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Echo request to each peer's own addresses.
    EchoPeers,
    /// Who has each peer's address?
    ArpPeers,
    /// Echo request and ARP to the own gateway.
    Gateway,
    /// Echo request to the internet host.
    Internet,
    /// A DHCP discovery.
    Discover,
    /// Broadcast of an EtherType that nobody knows.
    Broadcast,
    /// A few broadcasts, far below any limit.
    Trickle,
    /// Echo request to each guest's own addresses, in the other slice.
    EchoStrangers,
    /// Who has each address of the other slice?
    ArpStrangers,
    /// The same addresses through the own gateway.
    RouteStrangers,
    /// Echo, TCP and ARP to every gateway and DHCP server that is not the own one.
    ForeignServers,
    /// Echo, TCP and UDP through the gateway to every address of every node.
    NodesIpv4,
    /// TCP and UDP to the own gateway.
    GatewayServices,
    /// Echo requests over IPv6 to all nodes, all routers and every address that a node has.
    NodesIpv6,
    /// Echo and TCP to the internet host, through whatever gateway.
    InternetAnyhow,
    /// Broadcasts of every kind: ARP, echo, IPv6, DHCP.
    AnyBroadcast,
    /// One tag, ids 1 to 4095.
    EveryTag,
    /// One tag with id 0: a frame with a priority and no VLAN.
    TagZero,
    /// The own VLAN outside, ids 0 to 4095 inside; the same with a provider's tag outside.
    DoubleTags,
    /// Id 0 outside, ids 0 to 4095 inside.
    ZeroThenTag,
    /// Frames and echo requests to every hardware address of every node, and to the link-local address made of it.
    NodesMac,
    /// Echo and TCP to another host on the network node's own outer network.
    UplinkSubnet,
    /// Another source MAC.
    ForgedMac,
    /// "The gateway's address is mine", to everybody.
    ForgedArpGateway,
    /// ARP with another guest's address as its sender.
    ForgedArpPeer,
    /// An IPv4 source that is another guest's.
    ForgedIp,
    /// An answer to one guest: "the gateway's address, and yours, is mine".
    ForgedArpOne,
    /// An ARP answer to one guest, in the own name.
    OwnArpOne,
    /// Neighbour advertisement and solicitation with a hardware address that is not the own one.
    ForgedNeighbour,
    /// The same, in the own name.
    OwnNeighbour,
    /// An honest first fragment, then another guest's.
    ForgedFragments,
    /// Offers of DHCP servers, redirects and router advertisements in fragments.
    RogueFragments,
    /// Parts of a datagram in the own name.
    OwnFragments,
    /// DHCP to the server in another guest's name: by its MAC, by its client id, and with a relay's address.
    DhcpInAnothersName,
    /// A DHCP server's offer, to everybody and to one.
    DhcpAnswer,
    /// A DHCPv6 server's advertisement.
    Dhcp6Answer,
    /// A router advertisement.
    RouterAdvertisement,
    /// An ICMP redirect to each peer, in the gateway's name.
    Redirect,
    /// The same, in the own name.
    RedirectOwn,
    /// EtherType 0x88B5: the fleet's own probes.
    Probe,
    /// A spanning tree's root.
    Stp,
    /// A neighbour's introduction.
    Lldp,
    /// "Stop sending".
    Pause,
    /// 64-byte broadcasts as fast as they go.
    FloodBroadcast,
    /// 64-byte frames to an address that nobody has.
    FloodUnknown,
    /// "Who has the gateway's address?", as fast as it goes.
    FloodArp,
    /// Echo request to the internet host, in three parts.
    LargeInternet,
    /// Echo request to the own gateway in the name of a guest elsewhere, of the internet host and of the nodes.
    ForgedEcho,
    /// The last part of a datagram that another guest has begun to send to the internet host.
    ForeignLastPart,
    /// Parts of packets that never become whole, as fast as they go.
    FloodFragments,
    /// ICMP errors about what another guest has sent to the internet host.
    ForeignErrors,
    /// UDP that a host's own stack could take for its own.
    HostDatagrams,
    /// DHCP with another guest's address as the client's: the server's answer would go there.
    DhcpReflection,
    /// "I do not need this address any more", and "it is taken", in another guest's name.
    DhcpTakeAway,
    /// Source MACs that are a gateway's, a DHCP server's or another guest's.
    FleetMacs,
    /// What bridges and switches tell each other beside spanning tree, LLDP and pause.
    Control,
    /// From the cable, with the tag of a VLAN: a frame to each guest that may get it.
    WireHonest,
    /// From the cable: every VLAN id that the node does not carry.
    WireForeignTags,
    /// From the cable: no tag.
    WireUntagged,
    /// From the cable: tag 0, and tag 0 before a VLAN's.
    WireTagZero,
    /// From the cable, on VLANs that keep guests apart: as a guest from elsewhere, to the guests here.
    WireGuest,
    /// From the cable, on VLANs that keep guests apart: as another VLAN's gateway.
    WireForeignGateway,
    /// From the cable, on VLANs that keep guests apart: what gateway and DHCP server do not send to all.
    WireGatewayBroadcasts,
    /// From the cable, at the network node: to the internet from a guest's address, by a MAC that is not its own.
    WireInternet,
    /// From the cable: EtherType 0x88B5 to the guests.
    WireProbe,
    /// From the cable: spanning tree, LLDP, pause.
    WireControl,
}

impl What {
    /// Every VLAN id, thousands of frames.
    pub fn sweeps(self) -> bool {
        matches!(self, Self::EveryTag | Self::DoubleTags | Self::ZeroThenTag)
    }

    /// As many frames as the wire takes.
    pub fn floods(self) -> bool {
        matches!(
            self,
            Self::FloodBroadcast | Self::FloodUnknown | Self::FloodArp | Self::FloodFragments
        )
    }
}
