//! The compiler. One function for each table, in the order in which a frame goes through them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trunkline_proto::{Mac, VlanId};

use super::{Guest, Network, Policy, Purpose, Segment, ServiceAddress, Storm, Uplink};
use crate::openflow::{Action, Actions, Cookie, Field, FlowSet, Held, Match, Meter, Rule, port};

pub(super) const ADMISSION: u8 = 0;
pub(super) const GUEST: u8 = 1;
pub(super) const SECURITY: u8 = 2;
pub(super) const STORM: u8 = 3;
pub(super) const FROM_PROTECTED: u8 = 4;
pub(super) const TO_PROTECTED: u8 = 5;
/// All tables that are in use.
pub(super) const TABLES: [u8; 6] = [ADMISSION, GUEST, SECURITY, STORM, FROM_PROTECTED, TO_PROTECTED];

/// EtherTypes.
mod eth {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const ARP: u16 = 0x0806;
    pub(super) const IPV6: u16 = 0x86dd;
    /// Pause and other frames of flow control.
    pub(super) const FLOW_CONTROL: u16 = 0x8808;
    pub(super) const PROBE: u16 = 0x88b5;
    pub(super) const SLOW_PROTOCOLS: u16 = 0x8809;
    pub(super) const EAPOL: u16 = 0x888e;
    pub(super) const LLDP: u16 = 0x88cc;
    pub(super) const LOOP: u16 = 0x9000;
    /// All that are for the other end of a cable, whatever MAC they are sent to.
    pub(super) const OF_A_CABLE: [u16; 5] = [FLOW_CONTROL, SLOW_PROTOCOLS, EAPOL, LLDP, LOOP];
}

/// IP protocols.
mod ip {
    pub(super) const ICMP: u8 = 1;
    pub(super) const UDP: u8 = 17;
    pub(super) const ICMPV6: u8 = 58;
    /// No packet in this one.
    pub(super) const NOTHING: u8 = 59;
}

/// A fragment of a packet; the first one, which begins with the packet's ports or type.
const FRAGMENT: (u64, u64) = (1, 1);
const FIRST: (u64, u64) = (1, 3);

/// ICMP and ICMPv6 types that only a router sends.
const REDIRECT: u8 = 5;
const ROUTER_ADVERTISEMENT_V4: u8 = 9;
const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT_V6: u8 = 137;

/// ICMPv6 types of neighbour discovery, and the field of each that names a MAC.
const NEIGHBOURS: [(u8, Field); 2] = [(135, Field::NdSll), (136, Field::NdTll)];

/// UDP ports of DHCP and DHCPv6.
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCP6_SERVER: u16 = 547;
const DHCP6_CLIENT: u16 = 546;

const ARP_REQUEST: u16 = 1;
const BROADCAST: u64 = 0xffff_ffff_ffff;
/// The bit that group addresses have.
const GROUP: u64 = 0x0100_0000_0000;
/// Groups that bridges and switches speak in among themselves, and may act upon: 01:80:c2:00:00:00 to 3f (spanning tree of customers and
/// providers, LLDP, registration, fault management), ring protection (01:19:a7), and Cisco's (CDP, VTP, per-VLAN spanning tree).
const RESERVED: [(u64, u64); 3] = [
    (0x0180_c200_0000, 0xffff_ffff_ffc0),
    (0x0119_a700_0000, 0xffff_ffff_ff00),
    (0x0100_0ccc_ccc0, 0xffff_ffff_fff0),
];
/// MACs that the controller makes (`Mac::is_derived`): 52:54 and 52:55, 52:56.
const MADE: [(u64, u64); 2] = [
    (0x5254_0000_0000, 0xfffe_0000_0000),
    (0x5256_0000_0000, 0xffff_0000_0000),
];

/// The flows and meters of a node.
#[must_use]
pub fn compile(network: &Network) -> FlowSet {
    let mut out = Out::default();
    for table in TABLES {
        out.flow(
            table,
            0,
            Purpose::Default,
            u32::from(table),
            Match::any(),
            Actions::drop(),
        );
    }
    // The bridge's own device in the host: nothing of ours uses it.
    let local = Match::any().in_port(port::LOCAL);
    out.flow(ADMISSION, 600, Purpose::Isolated, 0, local, Actions::drop());
    uplink(&mut out, network);
    guest_rules(&mut out);
    security_rules(&mut out);
    for (number, guest) in &network.guests {
        admit(&mut out, network, *number, guest);
    }
    for (vlan, segment) in &network.segments {
        match policy(*vlan, segment) {
            Policy::Open | Policy::Secured => known_ends(&mut out, *vlan, segment),
            Policy::Protected => protected(&mut out, network, *vlan, segment),
        }
    }
    out.into_set()
}

/// VLAN 400 is shared by tenants: nobody can make it less than protected.
fn policy(vlan: VlanId, segment: &Segment) -> Policy {
    if vlan == VlanId::INTERNET {
        Policy::Protected
    } else {
        segment.policy
    }
}

fn is_protected(network: &Network, vlan: VlanId) -> bool {
    let segment = network.segments.get(&vlan);
    vlan == VlanId::INTERNET || segment.is_some_and(|segment| policy(vlan, segment) == Policy::Protected)
}

#[derive(Default)]
struct Out {
    /// By table and priority: within these they come nearly in order, which makes sorting them cheap.
    flows: BTreeMap<(u8, u16), Vec<(Match, Held)>>,
    meters: BTreeMap<u32, Meter>,
}

impl Out {
    fn flow(&mut self, table: u8, priority: u16, purpose: Purpose, of: u32, matches: Match, actions: Actions) {
        let cookie: Cookie = purpose.cookie(of);
        let line = self.flows.entry((table, priority)).or_default();
        line.push((matches, (cookie, actions)));
    }

    fn into_set(self) -> FlowSet {
        let mut all: Vec<(Rule, Held)> = Vec::with_capacity(self.flows.values().map(Vec::len).sum());
        for ((table, priority), mut line) in self.flows {
            // Of two with one rule the later one counts.
            line.sort_by(|(a, _), (b, _)| a.cmp(b));
            all.extend(line.into_iter().map(|(matches, held)| {
                let rule = Rule {
                    table,
                    priority,
                    matches,
                };
                (rule, held)
            }));
        }
        FlowSet {
            flows: Arc::new(all.into_iter().collect()),
            meters: self.meters,
        }
    }

    /// None without a limit: a rate of 0 would mean no frame at all to some switches.
    fn meter(&mut self, storm: Storm, number: u32, rate: u32) -> Option<u32> {
        let id = storm.meter(number);
        (rate > 0).then(|| {
            self.meters.insert(id, Meter { rate, burst: rate });
            id
        })
    }
}

/// Frames that are for a bridge, not through it.
fn control_frames() -> impl Iterator<Item = Match> {
    let groups = RESERVED.map(|(value, mask)| Match::any().masked(Field::EthDst, value, mask));
    let kinds = eth::OF_A_CABLE.map(|kind| Match::any().eth_type(kind));
    groups.into_iter().chain(kinds)
}

fn uplink(out: &mut Out, network: &Network) {
    let Some(Uplink { port: number, vlans }) = &network.uplink else {
        return;
    };
    let number = *number;
    for frame in control_frames() {
        out.flow(
            ADMISSION,
            500,
            Purpose::Control,
            number,
            frame.in_port(number),
            Actions::drop(),
        );
    }
    let probe = Match::any().in_port(number).eth_type(eth::PROBE);
    out.flow(ADMISSION, 400, Purpose::Probe, number, probe, Actions::drop());
    for vlan in vlans {
        if let Some(prober) = network.probe {
            probes(out, number, prober, *vlan);
        }
        // Nothing is known of who may hear it: shut, as its guests are.
        if *vlan != VlanId::INTERNET && !network.segments.contains_key(vlan) {
            continue;
        }
        let actions = if is_protected(network, *vlan) {
            Actions::goto(TO_PROTECTED)
        } else {
            Actions::normal()
        };
        let matches = Match::any().in_port(number).vlan(*vlan);
        out.flow(ADMISSION, 100, Purpose::Admission, number, matches, actions);
    }
}

/// Probe frames go between the uplink and the probe's port, with the tag that they came with, and nowhere else: no guest hears one
/// (they never meet `NORMAL`) or sends one. They try the way, not who may use it, so what holds in the VLAN does not matter. The probe's
/// port has no other flow, so nothing else leaves it; that nothing else is flooded to it is for its row (a trunk that carries none).
fn probes(out: &mut Out, uplink: u32, prober: u32, vlan: VlanId) {
    for (from, to) in [(uplink, prober), (prober, uplink)] {
        let probe = Match::any().in_port(from).eth_type(eth::PROBE).vlan(vlan);
        let there = Actions::drop().then(Action::Output(to));
        out.flow(ADMISSION, 410, Purpose::Probe, from, probe, there);
    }
}

fn guests_of(network: &Network, vlan: VlanId) -> impl Iterator<Item = (u32, &Guest)> {
    let of_it = move |(_, guest): &(&u32, &Guest)| guest.vlan == Some(vlan);
    network
        .guests
        .iter()
        .filter(of_it)
        .map(|(number, guest)| (*number, guest))
}

/// The uplink, if it carries this VLAN.
fn carrying_uplink(network: &Network, vlan: VlanId) -> Option<u32> {
    let uplink = network.uplink.as_ref()?;
    uplink.vlans.contains(&vlan).then_some(uplink.port)
}

/// A guest's way in.
fn admit(out: &mut Out, network: &Network, number: u32, guest: &Guest) {
    let from = Match::any().in_port(number);
    let segment = guest.vlan.and_then(|vlan| Some((vlan, network.segments.get(&vlan)?)));
    let Some((vlan, segment)) = segment else {
        out.flow(ADMISSION, 600, Purpose::Isolated, number, from, Actions::drop());
        return;
    };
    let remember = Actions::goto(GUEST).then(Action::SetField(Field::Reg0, u64::from(vlan.get())));
    out.flow(ADMISSION, 100, Purpose::Admission, number, from.clone(), remember);
    out.flow(
        GUEST,
        500,
        Purpose::Tagged,
        number,
        from.clone().tagged(),
        Actions::drop(),
    );
    let policy = policy(vlan, segment);
    let next = if policy == Policy::Open { STORM } else { SECURITY };
    let own = from.clone().from_mac(guest.mac);
    for (priority, matches) in [(210, own), (100, from.clone())] {
        out.flow(
            GUEST,
            priority,
            Purpose::Admission,
            number,
            matches,
            Actions::goto(next),
        );
    }
    let group = out.meter(Storm::Group, number, guest.limits.group);
    if policy == Policy::Protected {
        secure(out, number, guest, FROM_PROTECTED);
        from_protected(out, network, number, vlan, segment, group);
        return;
    }
    if policy == Policy::Secured {
        secure(out, number, guest, STORM);
        neighbours(out, number, guest);
        let anything = from.clone().from_mac(guest.mac);
        out.flow(SECURITY, 100, Purpose::Secured, number, anything, Actions::goto(STORM));
        for asked in asked(segment, &from) {
            let limited = Actions::normal().metered(group);
            out.flow(STORM, 250, Purpose::Storm, number, asked, limited);
        }
    }
    let unknown = out.meter(Storm::Unknown, number, guest.limits.unknown);
    let to_many = from.clone().masked(Field::EthDst, GROUP, GROUP);
    out.flow(
        STORM,
        300,
        Purpose::Storm,
        number,
        to_many,
        Actions::normal().metered(group),
    );
    out.flow(
        STORM,
        100,
        Purpose::Storm,
        number,
        from,
        Actions::normal().metered(unknown),
    );
}

/// What no guest may send, whatever its link allows.
fn guest_rules(out: &mut Out) {
    for frame in control_frames() {
        out.flow(GUEST, 490, Purpose::Control, 0, frame, Actions::drop());
    }
    let probe = Match::any().eth_type(eth::PROBE);
    out.flow(GUEST, 480, Purpose::Probe, 0, probe, Actions::drop());
    let group_sender = Match::any().masked(Field::EthSrc, GROUP, GROUP);
    out.flow(GUEST, 470, Purpose::Forged, 0, group_sender, Actions::drop());
    // On an open link a guest may send with any MAC, but not with one that is somebody else's for certain: a guest's, a gateway's, a
    // probe's. A switch between the hosts that learns for all VLANs alike would believe it in all of them.
    for (value, mask) in MADE {
        let made = Match::any().masked(Field::EthSrc, value, mask);
        out.flow(GUEST, 200, Purpose::Forged, 0, made, Actions::drop());
    }
}

/// What port security stops on all ports alike: playing DHCP server or router, in fragments too. The bridge shows the ports and the
/// type of a first fragment ([`Fragments::Matched`](crate::openflow::Fragments)), so it is held to the rules of a whole packet; one that
/// is too short to have them, or in which they cannot be found, goes.
///
/// A later fragment has neither. It passes, as its sender's own, because it is nothing without its first one, which was looked at: a
/// place in a packet counts by 8 bytes, ports and type stand in the 8 that the first one must have, and no receiver lets a later
/// fragment write over an earlier one (RFC 5722; Linux gives up the whole packet, in IPv4 as well). Only to all it goes, in IPv4: it
/// could complete what came to one of them by another way. In IPv6, where a guest can claim any address, it can spoil a fragmented
/// packet of another sender whose number it guesses, and not make one of its own look like another kind.
fn security_rules(out: &mut Out) {
    let v4 = |protocol: u8| Match::any().eth_type(eth::IPV4).is(Field::IpProto, protocol);
    let v6 = |protocol: u8| Match::any().eth_type(eth::IPV6).is(Field::IpProto, protocol);
    let fragment = |matches: Match, (value, mask): (u64, u64)| matches.masked(Field::IpFrag, value, mask);
    let stopped = [
        // A client looks at the port that it is sent to only, so an answer from any other port is one, too.
        v4(ip::UDP).is(Field::UdpSrc, DHCP_SERVER),
        v4(ip::UDP).is(Field::UdpDst, DHCP_CLIENT),
        v4(ip::ICMP).is(Field::IcmpType, REDIRECT),
        v4(ip::ICMP).is(Field::IcmpType, ROUTER_ADVERTISEMENT_V4),
        v6(ip::UDP).is(Field::UdpSrc, DHCP6_SERVER),
        v6(ip::UDP).is(Field::UdpDst, DHCP6_CLIENT),
        v6(ip::ICMPV6).is(Field::Icmpv6Type, ROUTER_ADVERTISEMENT),
        v6(ip::ICMPV6).is(Field::Icmpv6Type, REDIRECT_V6),
        fragment(v4(ip::UDP).masked(Field::EthDst, GROUP, GROUP), FRAGMENT),
        // First fragments that end before what they are.
        fragment(v4(ip::UDP), FIRST)
            .is(Field::UdpSrc, 0_u8)
            .is(Field::UdpDst, 0_u8),
        fragment(v6(ip::UDP), FIRST)
            .is(Field::UdpSrc, 0_u8)
            .is(Field::UdpDst, 0_u8),
        fragment(v6(ip::ICMPV6), FIRST).is(Field::Icmpv6Type, 0_u8),
        // An option header that is longer than its fragment: ovs-vswitchd then knows no protocol at all, the kernel's datapath none.
        v6(0),
        v6(ip::NOTHING),
    ];
    for matches in stopped {
        out.flow(SECURITY, 400, Purpose::Rogue, 0, matches, Actions::drop());
    }
    // A sender of ARP or IPv4, or a MAC in neighbour discovery, that no port's own rule (300) lets pass is forged.
    let mut forged = |priority: u16, matches: Match| {
        out.flow(SECURITY, priority, Purpose::Forged, 0, matches, Actions::drop());
    };
    for eth_type in [eth::ARP, eth::IPV4] {
        forged(200, Match::any().eth_type(eth_type));
    }
    for (kind, _) in NEIGHBOURS {
        forged(200, discovery(Match::any(), kind));
        // Open vSwitch reads two options of one kind as none, and others read the first of them; it forgets the target then, too.
        let unclear = discovery(Match::any(), kind).is(Field::Icmpv6Code, 0_u8);
        forged(400, unclear.is(Field::NdTarget, 0_u8));
        // The option that names a MAC could stand in a later one. None is ever so long, and hosts ignore it (RFC 6980).
        forged(
            400,
            discovery(Match::any(), kind).masked(Field::IpFrag, FIRST.0, FIRST.1),
        );
    }
}

fn discovery(matches: Match, kind: u8) -> Match {
    let icmp = matches.eth_type(eth::IPV6).is(Field::IpProto, ip::ICMPV6);
    icmp.is(Field::Icmpv6Type, kind)
}

/// IPv6 neighbour discovery of a secured link: a guest names its own MAC, or none. So it cannot send what is for one guest to another,
/// or to nobody (but for the MAC of zeros, which reads as none).
///
/// It can still say that any IPv6 address is its own: guests have no IPv6 addresses from us that this could be held against. Nor are
/// the MACs in router solicitations looked at, which only routers heed, and there are none (their advertisements are stopped).
fn neighbours(out: &mut Out, number: u32, guest: &Guest) {
    let own = Match::any().in_port(number).from_mac(guest.mac);
    let mac = crate::openflow::mac_value(guest.mac.octets());
    for (kind, named) in NEIGHBOURS {
        for value in [mac, 0] {
            let matches = discovery(own.clone(), kind).is(Field::Icmpv6Code, 0_u8);
            let matches = matches.is(named, value);
            out.flow(SECURITY, 300, Purpose::Secured, number, matches, Actions::goto(STORM));
        }
    }
}

/// What a guest may send as itself.
fn secure(out: &mut Out, number: u32, guest: &Guest, next: u8) {
    let own = Match::any().in_port(number).from_mac(guest.mac);
    let sha = crate::openflow::mac_value(guest.mac.octets());
    let arp = own.clone().eth_type(eth::ARP).is(Field::ArpSha, sha);
    let ipv4 = own.eth_type(eth::IPV4);
    let mut pass = |matches: Match| {
        out.flow(SECURITY, 300, Purpose::Secured, number, matches, Actions::goto(next));
    };
    for address in &guest.addresses {
        pass(arp.clone().ip(Field::ArpSpa, *address));
        pass(ipv4.clone().ip(Field::Ipv4Src, *address));
    }
    // Before it has an address: is it taken? and: give me one.
    pass(arp.is(Field::ArpSpa, 0_u32));
    let ask = ipv4.is(Field::Ipv4Src, 0_u32).is(Field::IpProto, ip::UDP);
    pass(ask.is(Field::UdpSrc, DHCP_CLIENT).is(Field::UdpDst, DHCP_SERVER));
}

/// Frames to an end that is known pass without a limit, also while that end is switched off and `NORMAL` floods them in the VLAN. On
/// purpose: flows cannot tell a silent end from one that speaks, and a limit would slow honest traffic to it. What is flooded so stays
/// among the guests of one slice, whose own the VLAN is, and costs the uplink no more than the same frames to an end elsewhere. Where
/// tenants meet (VLAN 400) and on protected links no frame comes here: they are never flooded, but go to two MACs only.
fn known_ends(out: &mut Out, vlan: VlanId, segment: &Segment) {
    let services = segment.services.iter().map(|service| service.mac);
    let known: BTreeSet<Mac> = segment.known.iter().copied().chain(services).collect();
    for mac in known {
        let there = Match::any().is(Field::Reg0, vlan.get()).to_mac(mac);
        out.flow(
            STORM,
            200,
            Purpose::Forward,
            u32::from(vlan.get()),
            there,
            Actions::normal(),
        );
    }
}

/// ARP to a service's own MAC. It costs the service as much as a broadcast does, so it counts as one.
fn asked(segment: &Segment, from: &Match) -> impl Iterator<Item = Match> {
    let arp = from.clone().eth_type(eth::ARP);
    segment
        .services
        .iter()
        .map(move |service| arp.clone().to_mac(service.mac))
}

/// Broadcasts of a guest that a service must hear: who has its address, and DHCP.
fn heard_by(service: &ServiceAddress, from: &Match) -> Vec<Match> {
    let to_all = from.clone().is(Field::EthDst, BROADCAST);
    let arp = to_all.clone().eth_type(eth::ARP).is(Field::ArpOp, ARP_REQUEST);
    let mut heard = vec![arp.ip(Field::ArpTpa, service.address)];
    if service.dhcp {
        let dhcp = to_all.eth_type(eth::IPV4).is(Field::IpProto, ip::UDP);
        heard.push(dhcp.is(Field::UdpSrc, DHCP_CLIENT).is(Field::UdpDst, DHCP_SERVER));
    }
    heard
}

fn from_protected(out: &mut Out, network: &Network, number: u32, vlan: VlanId, segment: &Segment, meter: Option<u32>) {
    // The services stand on a network node, behind the uplink.
    let Some(way) = carrying_uplink(network, vlan) else {
        return;
    };
    let from = Match::any().in_port(number);
    let there = Actions::drop().then_tagged(vlan, way);
    for service in &segment.services {
        for matches in heard_by(service, &from) {
            let limited = there.clone().metered(meter);
            out.flow(FROM_PROTECTED, 200, Purpose::Protected, number, matches, limited);
        }
    }
    for asked in asked(segment, &from) {
        let limited = there.clone().metered(meter);
        out.flow(FROM_PROTECTED, 200, Purpose::Protected, number, asked, limited);
    }
}

/// A protected segment's flows that are the same for all guests, and those from the uplink.
fn protected(out: &mut Out, network: &Network, vlan: VlanId, segment: &Segment) {
    let Some(way) = carrying_uplink(network, vlan) else {
        return;
    };
    let of = u32::from(vlan.get());
    for service in &segment.services {
        let matches = Match::any().is(Field::Reg0, vlan.get()).to_mac(service.mac);
        let there = Actions::drop().then_tagged(vlan, way);
        out.flow(FROM_PROTECTED, 100, Purpose::Protected, of, matches, there);
        to_guests(out, network, vlan, service);
    }
}

/// From a service behind the uplink to the guests here.
fn to_guests(out: &mut Out, network: &Network, vlan: VlanId, service: &ServiceAddress) {
    let from = Match::any().vlan(vlan).from_mac(service.mac);
    let to_all = from.clone().is(Field::EthDst, BROADCAST);
    let untagged = Actions::drop().then(Action::PopVlan);
    let mut all = untagged.clone();
    for (number, guest) in guests_of(network, vlan) {
        let there = untagged.clone().then(Action::Output(number));
        let to_it = from.clone().to_mac(guest.mac);
        out.flow(TO_PROTECTED, 100, Purpose::Protected, number, to_it, there.clone());
        for address in &guest.addresses {
            let who_has = to_all.clone().eth_type(eth::ARP).ip(Field::ArpTpa, *address);
            out.flow(TO_PROTECTED, 100, Purpose::Protected, number, who_has, there.clone());
        }
        all = all.then(Action::Output(number));
    }
    if service.dhcp && all != untagged {
        // An answer to a guest that asked for a broadcast does not say which one; all others ignore it.
        let answer = to_all.eth_type(eth::IPV4).is(Field::IpProto, ip::UDP);
        let answer = answer.is(Field::UdpSrc, DHCP_SERVER).is(Field::UdpDst, DHCP_CLIENT);
        out.flow(
            TO_PROTECTED,
            100,
            Purpose::Protected,
            u32::from(vlan.get()),
            answer,
            all,
        );
    }
}
