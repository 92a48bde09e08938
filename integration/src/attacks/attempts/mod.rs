//! From a row of the table to frames: one attempt for each sender and target, each with a number of its own.

mod bare;
mod deeper;
mod forged;
mod wire;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::MACHINES;
use super::burst::Burst;
use super::frame::{
    ALL_NODES, BROADCAST, Mac, arp_request, dhcp, echo, ethernet, icmp, icmp6, ipv4, link_local, mark, syn, tagged, udp,
};
use super::table::Rule;
use super::what::What;
use super::world::{Nic, World};
use crate::lab::layout::{INTERNET_ADDRESS, UPLINK_NEIGHBOUR};

/// A MAC that nobody has.
const NOBODY: Mac = [0x02, 0xbd, 0xbd, 0, 0, 1];
/// Another, which nobody ever spoke from: no switch has learned it.
const UNHEARD: Mac = [0x02, 0xbd, 0xbd, 0, 0, 2];
const ALL_ROUTERS: Mac = [0x33, 0x33, 0, 0, 0, 2];
const VLANS: u16 = 4096;
/// Well above what a limit lets through in the time that it takes.
const FLOOD: u32 = 12_000;
const TRICKLE: u32 = 100;
const UNKNOWN: u16 = 0x88b6;
const PROBE: u16 = 0x88b5;
/// SSH, DNS, HTTP, the controller, and where the daemons tell their metrics.
const PORTS: [u16; 7] = [22, 53, 80, 7443, 9464, 9465, 9466];

/// One thing that is tried.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Its number, or the first of them.
    pub id: u32,
    /// How many numbers, when each of its frames has its own.
    pub ids: u32,
    /// Who tries.
    pub from: Nic,
    /// For whom it is meant, in words.
    pub to: String,
    /// The interface that it is meant for.
    pub target: Option<Nic>,
    /// An ARP answer for this address answers it.
    pub arp: Option<Ipv4Addr>,
    /// What others send before, unmarked: guest and burst.
    pub others: Vec<(String, Burst)>,
    /// What others send when it is sent, unmarked.
    pub others_after: Vec<(String, Burst)>,
    /// What is sent before, unmarked.
    pub before: Vec<Burst>,
    /// What is sent.
    pub burst: Burst,
}

/// Hands out numbers, never one twice.
#[derive(Debug)]
pub struct Numbers(u32);

impl Default for Numbers {
    fn default() -> Self {
        Self(0x10_0000)
    }
}

impl Numbers {
    fn take(&mut self, count: u32) -> u32 {
        let first = self.0;
        self.0 += count;
        first
    }
}

/// Collects the attempts of one sender.
struct Making<'a> {
    from: &'a Nic,
    world: &'a World,
    numbers: &'a mut Numbers,
    made: Vec<Attempt>,
}

impl Making<'_> {
    fn add(&mut self, to: impl Into<String>, frame: impl FnOnce(u32) -> Vec<u8>) -> &mut Attempt {
        let id = self.numbers.take(1);
        self.made.push(Attempt {
            id,
            ids: 1,
            from: self.from.clone(),
            to: to.into(),
            target: None,
            arp: None,
            others: Vec::new(),
            others_after: Vec::new(),
            before: Vec::new(),
            burst: Burst::one(&self.from.name, frame(id)),
        });
        let last = self.made.len() - 1;
        &mut self.made[last]
    }

    fn arp(&mut self, to: impl Into<String>, ip: Ipv4Addr) -> &mut Attempt {
        let own = self.from.own();
        let attempt = self.add(to, |id| arp_request(own, ip, id));
        attempt.arp = Some(ip);
        attempt
    }

    fn echo(&mut self, to: impl Into<String>, at: (Mac, Ipv4Addr)) -> &mut Attempt {
        let own = self.from.own();
        self.add(to, |id| echo(at, own, id))
    }

    /// TCP to every port that could be open, and UDP to one that is closed.
    fn services(&mut self, to: &str, at: (Mac, Ipv4Addr)) {
        let own = self.from.own();
        for port in PORTS {
            self.add(format!("{to} TCP {port}"), |id| syn(at, port, own, id));
        }
        for port in [53, 67, 33_434] {
            self.add(format!("{to} UDP {port}"), |id| udp(at, own, (4000, port), &mark(id)));
        }
    }

    /// The same frame with the tags before it, and a VLAN id that goes from `first` to before `end`.
    fn sweep(&mut self, to: &str, tags: &[(u16, u16)], first: u16, end: u16) {
        let count = u32::from(end - first);
        let id = self.numbers.take(count);
        let own = self.from.own();
        let payload = icmp(8, 0, [0x74, 0x6c, 0, 1], &[], id);
        // A protocol for experiments: its checksum would not fit the numbers that follow.
        let payload = ipv4(own.1, Ipv4Addr::BROADCAST, 253, &payload);
        let frame = tagged(&ethernet(BROADCAST, own.0, 0x0800, &payload), tags);
        let vlan = 12 + 4 * tags.len() - 2;
        let number = vlan + 2 + 2 + 20 + 8 + 8;
        let attempt = self.add(to, |_| frame);
        (attempt.id, attempt.ids, attempt.burst.count) = (id, count, count);
        attempt.burst.growing = vec![(vlan, 2), (number, 4)];
    }
}

/// All attempts of a row.
pub fn attempts(rule: &Rule, world: &World, numbers: &mut Numbers) -> Vec<Attempt> {
    let mut seen = BTreeSet::new();
    let mut all: Vec<&Nic> = world.nics.iter().chain(&world.wires).chain(&world.hosts).collect();
    // Namespaces first: a real machine is too slow for a flood.
    all.sort_by_key(|nic| MACHINES.contains(&nic.guest.as_str()));
    let senders = all.into_iter().filter(|nic| rule.from.contains(&nic.kind));
    let senders = senders.filter(|nic| {
        // Thousands of frames each: one of each kind and worker is enough.
        let many = rule.what.sweeps() || rule.what.floods();
        let host = (!rule.what.floods()).then(|| nic.tap.host.clone());
        !many || seen.insert((format!("{:?}", nic.kind), host))
    });
    let each = senders.flat_map(|from| {
        let mut making = Making {
            from,
            world,
            numbers,
            made: Vec::new(),
        };
        making.make(rule.what);
        making.made
    });
    each.collect()
}

impl Making<'_> {
    fn make(&mut self, what: What) {
        match what {
            What::EchoPeers | What::ArpPeers | What::Redirect | What::RedirectOwn => self.peers(what),
            What::EchoStrangers | What::ArpStrangers | What::RouteStrangers => self.strangers(what),
            What::Gateway | What::Internet | What::InternetAnyhow | What::GatewayServices => self.gateway(what),
            What::ForeignServers => self.foreign_servers(),
            What::NodesIpv4 => self.nodes_ipv4(),
            What::NodesIpv6 => self.nodes_ipv6(),
            What::NodesMac => self.nodes_mac(),
            What::UplinkSubnet => self.uplink_subnet(),
            What::Discover => self.discover(),
            What::AnyBroadcast => self.any_broadcast(),
            What::EveryTag | What::TagZero | What::DoubleTags | What::ZeroThenTag => self.tags(what),
            What::ForgedMac | What::ForgedArpGateway | What::ForgedArpPeer | What::ForgedIp => self.forged(what),
            What::ForgedArpOne | What::OwnArpOne => self.arp_to_one(what),
            What::ForgedNeighbour | What::OwnNeighbour => self.neighbour(what),
            What::ForgedFragments | What::OwnFragments => self.fragments(what),
            What::RogueFragments => self.rogue_fragments(),
            What::DhcpInAnothersName => self.dhcp_in_anothers_name(),
            What::DhcpAnswer => self.dhcp_answer(),
            What::Dhcp6Answer => self.dhcp6_answer(),
            What::RouterAdvertisement => self.router_advertisement(),
            What::Broadcast | What::Probe | What::Stp | What::Lldp | What::Pause => self.bare(what),
            What::Trickle | What::FloodBroadcast | What::FloodUnknown | What::FloodArp => self.many(what),
            What::LargeInternet => self.large_internet(),
            What::ForgedEcho => self.forged_echo(),
            What::ForeignLastPart => self.foreign_last_part(),
            What::FloodFragments => self.flood_of_fragments(),
            What::ForeignErrors => self.foreign_errors(),
            What::HostDatagrams => self.host_datagrams(),
            What::DhcpReflection => self.dhcp_reflection(),
            What::DhcpTakeAway => self.dhcp_take_away(),
            What::FleetMacs => self.fleet_macs(),
            What::Control => self.more_control(),
            What::WireHonest
            | What::WireForeignTags
            | What::WireUntagged
            | What::WireTagZero
            | What::WireGuest
            | What::WireForeignGateway
            | What::WireGatewayBroadcasts
            | What::WireInternet
            | What::WireProbe
            | What::WireControl => self.wire(what),
        }
    }

    fn peers(&mut self, what: What) {
        let (own, gateway) = (self.from.own(), self.from.gateway);
        for peer in self.world.peers(self.from) {
            let to = peer.full();
            let redirect = |from: Ipv4Addr, id| {
                // "For the internet, ask me": the packet it speaks of is one that the peer could have sent.
                let about = ipv4(peer.ip, INTERNET_ADDRESS, 17, &[0; 8]);
                let message = icmp(5, 1, own.1.octets(), &about, id);
                ethernet(peer.mac, own.0, 0x0800, &ipv4(from, peer.ip, 1, &message))
            };
            let attempt = match what {
                What::ArpPeers => self.arp(to, peer.ip),
                What::Redirect => self.add(to, |id| redirect(gateway.1, id)),
                What::RedirectOwn => self.add(to, |id| redirect(own.1, id)),
                _ => self.echo(to, peer.own()),
            };
            attempt.target = Some(peer.clone());
        }
    }

    fn strangers(&mut self, what: What) {
        let own_slice = self.from.slice.clone();
        for other in self.world.nics.iter().filter(|nic| nic.slice != own_slice) {
            let to = other.full();
            let attempt = match what {
                What::ArpStrangers => self.arp(to, other.ip),
                What::RouteStrangers => self.echo(to, (self.from.gateway.0, other.ip)),
                _ => self.echo(to, other.own()),
            };
            attempt.target = Some(other.clone());
        }
    }

    fn gateway(&mut self, what: What) {
        let (own, gateway) = (self.from.own(), self.from.gateway);
        let internet = (gateway.0, INTERNET_ADDRESS);
        match what {
            What::Gateway => {
                self.arp("gateway", gateway.1);
                self.echo("gateway", gateway);
            }
            What::GatewayServices => self.services("gateway", gateway),
            What::Internet => drop(self.echo("internet", internet)),
            _ => {
                self.echo("internet", internet);
                self.add("internet TCP 80", |id| syn(internet, 80, own, id));
                self.echo("internet, to everybody", (BROADCAST, INTERNET_ADDRESS));
                self.arp("internet", INTERNET_ADDRESS);
            }
        }
    }

    fn foreign_servers(&mut self) {
        let (own, gateway) = (self.from.own(), self.from.gateway.0);
        let servers = self.world.gateways.iter().chain(&self.world.dhcp);
        for server in servers.filter(|server| Some(server.vlan) != self.from.vlan) {
            let to = format!("VLAN {}'s {}", server.vlan, server.at.1);
            self.arp(&to, server.at.1);
            for mac in [gateway, server.at.0, BROADCAST] {
                self.echo(&to, (mac, server.at.1));
            }
            self.add(format!("{to} TCP 53"), |id| syn((gateway, server.at.1), 53, own, id));
        }
    }

    fn nodes_ipv4(&mut self) {
        let gateway = self.from.gateway.0;
        for ip in &self.world.node_ipv4 {
            let to = ip.to_string();
            self.arp(&to, *ip);
            self.echo(&to, (gateway, *ip));
            self.services(&to, (gateway, *ip));
        }
    }

    fn nodes_ipv6(&mut self) {
        let own = (self.from.mac, link_local(self.from.mac));
        let group = |last| Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, last);
        let gateways = self.world.gateways.iter().chain(&self.world.dhcp);
        let devices = gateways.map(|server| (server.at.0, link_local(server.at.0)));
        let mut targets = vec![(ALL_NODES, group(1)), (ALL_ROUTERS, group(2))];
        targets.extend(devices);
        targets.extend(&self.world.node_ipv6);
        for (mac, ip) in targets {
            // To its own address, and to everybody for a device whose address a switch does not know.
            for mac in [mac, ALL_NODES] {
                self.add(ip.to_string(), |id| icmp6((mac, ip), own, 128, &[0x74, 0x6c, 0, 1], id));
            }
        }
    }

    fn nodes_mac(&mut self) {
        let own = self.from.own();
        for (device, mac) in &self.world.node_macs {
            self.add(device, |id| ethernet(*mac, own.0, UNKNOWN, &mark(id)));
            self.add(format!("{device} by IPv6"), |id| {
                let from = (own.0, link_local(own.0));
                icmp6((*mac, link_local(*mac)), from, 128, &[0x74, 0x6c, 0, 1], id)
            });
        }
    }

    fn uplink_subnet(&mut self) {
        let own = self.from.own();
        let neighbour = (self.from.gateway.0, UPLINK_NEIGHBOUR);
        self.echo("the uplink's neighbour", neighbour);
        for port in [22, 80] {
            let to = format!("the uplink's neighbour TCP {port}");
            self.add(to, |id| syn(neighbour, port, own, id));
        }
        self.add("the uplink's neighbour UDP", |id| {
            udp(neighbour, own, (4000, 53), &mark(id))
        });
        let [a, b, c, _] = UPLINK_NEIGHBOUR.octets();
        self.echo("the uplink's broadcast", (neighbour.0, Ipv4Addr::new(a, b, c, 255)));
    }

    fn discover(&mut self) {
        let mac = self.from.mac;
        self.add("DHCP", |id| {
            let options = [55, 3, 1, 3, 6];
            let message = dhcp(false, mac, Ipv4Addr::UNSPECIFIED, 1, &options, id);
            let (to, from) = ((BROADCAST, Ipv4Addr::BROADCAST), (mac, Ipv4Addr::UNSPECIFIED));
            udp(to, from, (68, 67), &message)
        });
    }

    fn any_broadcast(&mut self) {
        let own = self.from.own();
        self.arp("ARP", Ipv4Addr::new(10, 60, 7, 252));
        self.echo("IPv4", (BROADCAST, Ipv4Addr::BROADCAST));
        self.echo("IPv4 multicast", ([1, 0, 0x5e, 0, 0, 1], Ipv4Addr::new(224, 0, 0, 1)));
        let from = (own.0, link_local(own.0));
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        self.add("IPv6", |id| icmp6((ALL_NODES, group), from, 128, &[0; 4], id));
        self.add("an unknown EtherType", |id| {
            ethernet(BROADCAST, own.0, UNKNOWN, &mark(id))
        });
        self.echo("an unknown address", (UNHEARD, Ipv4Addr::new(10, 60, 7, 252)));
        if self.from.vlan.is_none() {
            self.discover();
        }
    }
}
