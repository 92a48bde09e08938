//! What goes for that which guests share without seeing it: the stacks of the network node and of the hosts, the DHCP
//! servers' memory, and the addresses of the fleet.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::forged::{DECLINE, DISCOVER, RELEASE, REQUEST};
use super::{Making, UNKNOWN};
use crate::attacks::burst::Burst;
use crate::attacks::frame::{
    BROADCAST, Mac, datagram, dhcp, echo, ethernet, fragment, icmp, ipv4, mark, numbered, udp, with_addresses,
};
use crate::attacks::sniff::STACK_PORT;
use crate::attacks::world::{Kind, Nic};
use crate::lab::layout::{INTERNET_ADDRESS, UPLINK_NEIGHBOUR};

/// "I have an address; tell me the rest."
const INFORM: u8 = 8;
/// Bytes of the large ping's message, and of each of its parts.
const LARGE: usize = 3000;
const PART: usize = 1000;
/// More than the network node's stack keeps for all guests, which is 4 MiB.
const PARTS: u32 = 3000;
const ALL_HOSTS: (Mac, Ipv4Addr) = ([1, 0, 0x5e, 0, 0, 1], Ipv4Addr::new(224, 0, 0, 1));
const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// What tells one packet's parts from another's.
fn short(id: u32) -> u16 {
    let [_, _, a, b] = id.to_be_bytes();
    u16::from_be_bytes([a, b])
}

impl Making<'_> {
    /// Guests with internet, but the sender.
    fn others_with_internet(&self) -> Vec<Nic> {
        let others = self.world.nics.iter().filter(|nic| nic.kind == Kind::Internet);
        others.filter(|nic| nic.guest != self.from.guest).cloned().collect()
    }

    pub(super) fn large_internet(&mut self) {
        let (own, gateway, name) = (self.from.own(), self.from.gateway.0, self.from.name.clone());
        let mut before = Vec::new();
        let attempt = self.add("internet, in parts", |id| {
            let body = [0; LARGE - 8 - 12];
            let message = icmp(8, 0, [0x74, 0x6c, 0, 3], &body, id);
            let mut parts: Vec<Vec<u8>> = (0_u16..)
                .zip(message.chunks(PART))
                .map(|(number, part)| {
                    let packet = numbered(ipv4(own.1, INTERNET_ADDRESS, 1, part), short(id));
                    let more = usize::from(number + 1) * PART < LARGE;
                    ethernet(gateway, own.0, 0x0800, &fragment(packet, more, number * 125))
                })
                .collect();
            // The mark stands in the last.
            let last = parts.pop().unwrap_or_default();
            before.extend(parts.into_iter().map(|part| Burst::one(&name, part)));
            last
        });
        attempt.before = before;
    }

    pub(super) fn forged_echo(&mut self) {
        let (own, gateway) = (self.from.own(), self.from.gateway);
        let strangers = self.world.nics.iter().filter(|nic| nic.slice != self.from.slice);
        // One of each kind; of VLAN 400 everybody, in the own slice as well.
        let mut names: BTreeMap<String, Ipv4Addr> = BTreeMap::new();
        for stranger in strangers.filter(|nic| nic.vlan.is_some() && nic.vlan != self.from.vlan) {
            names.entry(format!("{:?}", stranger.kind)).or_insert(stranger.ip);
        }
        names.extend(self.others_with_internet().into_iter().map(|nic| (nic.full(), nic.ip)));
        names.insert("the internet host".to_owned(), INTERNET_ADDRESS);
        names.insert("the uplink's neighbour".to_owned(), UPLINK_NEIGHBOUR);
        names.extend(self.world.node_ipv4.iter().map(|ip| (ip.to_string(), *ip)));
        for (name, ip) in names {
            self.add(format!("gateway, as {name}"), |id| echo(gateway, (own.0, ip), id));
        }
    }

    /// The other guest's first part has no mark: where the mark is heard, the parts were put together, or the last went
    /// on its own.
    pub(super) fn foreign_last_part(&mut self) {
        let (own, gateway) = (self.from.own(), self.from.gateway.0);
        for victim in self.others_with_internet() {
            let mut first = Vec::new();
            let attempt = self.add(format!("internet, as {}", victim.full()), |id| {
                let whole = datagram(
                    INTERNET_ADDRESS,
                    victim.ip,
                    (5000, 9999),
                    &[&[0; 16][..], &mark(id)].concat(),
                );
                let (begin, end) = whole.split_at(24);
                let part = |payload: &[u8], more, place| {
                    let packet = numbered(ipv4(victim.ip, INTERNET_ADDRESS, 17, payload), short(id));
                    fragment(packet, more, place)
                };
                first = ethernet(victim.gateway.0, victim.mac, 0x0800, &part(begin, true, 0));
                ethernet(gateway, own.0, 0x0800, &part(end, false, 3))
            });
            // What comes last makes it whole, and decides whose it is.
            attempt.others_after = vec![(victim.guest.clone(), Burst::one(&victim.name, first))];
        }
    }

    pub(super) fn flood_of_fragments(&mut self) {
        let (own, gateway) = (self.from.own(), self.from.gateway);
        for (name, to) in [("internet", INTERNET_ADDRESS), ("gateway", gateway.1)] {
            let attempt = self.add(format!("{name}, {PARTS} parts"), |id| {
                let payload = [&mark(id)[..], &[0; PART]].concat();
                let part = |number| {
                    let packet = numbered(ipv4(own.1, to, 17, &payload), number);
                    ethernet(gateway.0, own.0, 0x0800, &fragment(packet, true, 3))
                };
                // The checksum must not pass zero on its way down.
                let frame = part(0);
                if frame.get(24).is_some_and(|high| *high > 0x10) {
                    frame
                } else {
                    part(0x7000)
                }
            });
            attempt.burst.count = PARTS;
            // The number of the packet, and its checksum.
            attempt.burst.growing = vec![(18, 2)];
            attempt.burst.falling = vec![(24, 2)];
        }
    }

    /// "What you sent did not arrive": an answer to a packet that the sender never got.
    pub(super) fn foreign_errors(&mut self) {
        let (own, gateway) = (self.from.own(), self.from.gateway.0);
        let ports = (5001, 9998);
        for victim in self.others_with_internet() {
            let there = (victim.gateway.0, INTERNET_ADDRESS);
            let flow = Burst::one(&victim.name, udp(there, victim.own(), ports, &[0; 16]));
            let answer = datagram(victim.ip, INTERNET_ADDRESS, (ports.1, ports.0), &[0; 16]);
            let about = ipv4(INTERNET_ADDRESS, victim.ip, 17, &answer);
            for (name, kind, code, rest) in [
                ("unreachable", 3, 3, [0; 4]),
                ("too large", 3, 4, [0, 0, 2, 40]),
                ("too far", 11, 0, [0; 4]),
            ] {
                for source in [own.1, victim.ip] {
                    // As the other guest only where any source passes.
                    if source == victim.ip && self.from.kind != Kind::Plain {
                        continue;
                    }
                    let to = format!("internet, \"{name}\" of {} from {source}", victim.full());
                    let attempt = self.add(to, |id| {
                        let message = icmp(kind, code, rest, &about, id);
                        ethernet(gateway, own.0, 0x0800, &ipv4(source, INTERNET_ADDRESS, 1, &message))
                    });
                    attempt.others = vec![(victim.guest.clone(), flow.clone())];
                }
            }
        }
    }

    /// To everybody, and to the host's end of the own cable, whose address a guest can learn.
    pub(super) fn host_datagrams(&mut self) {
        let own = self.from.own();
        let all = [(BROADCAST, Ipv4Addr::BROADCAST), ALL_HOSTS, (BROADCAST, NONE)];
        let ports = (STACK_PORT, STACK_PORT);
        if self.from.kind == Kind::Host {
            for to in all {
                self.add(to.1.to_string(), |id| udp((own.0, to.1), own, ports, &mark(id)));
            }
            return;
        }
        let mut to: Vec<(Mac, Ipv4Addr)> = all.to_vec();
        to.push((self.from.gateway.0, Ipv4Addr::BROADCAST));
        let end = self.world.taps.iter().find(|(point, _)| *point == self.from.tap);
        let addresses = self.world.node_ipv4.iter().chain(all.iter().map(|(_, ip)| ip));
        to.extend(
            end.into_iter()
                .flat_map(|(_, mac)| addresses.clone().map(|ip| (*mac, *ip))),
        );
        for source in [NONE, own.1] {
            for to in &to {
                let name = format!("{} at {:02x?} from {source}", to.1, to.0);
                self.add(name, |id| udp(*to, (own.0, source), ports, &mark(id)));
            }
        }
    }

    /// In the own name, with another's address in it.
    pub(super) fn dhcp_reflection(&mut self) {
        let own = self.from.own();
        let Some(server) = self.world.dhcp_of(self.from.vlan).map(|server| server.at) else {
            return;
        };
        let all = (BROADCAST, Ipv4Addr::BROADCAST);
        let ways = [
            ("", all, (own.0, NONE)),
            (" in the own name", all, own),
            (" to the server", server, own),
        ];
        for victim in self.others_with_internet() {
            for (name, kind) in [("discovery", DISCOVER), ("request", REQUEST), ("inform", INFORM)] {
                for (how, to, from) in ways {
                    self.add(format!("{name}{how} with the address of {}", victim.full()), |id| {
                        let message = dhcp(false, own.0, NONE, kind, &[55, 2, 1, 3], id);
                        udp(to, from, (68, 67), &with_addresses(message, victim.ip, NONE))
                    });
                }
            }
        }
    }

    pub(super) fn dhcp_take_away(&mut self) {
        let own = self.from.own();
        let Some(server) = self.world.dhcp_of(self.from.vlan).map(|server| server.at) else {
            return;
        };
        let all = (BROADCAST, Ipv4Addr::BROADCAST);
        for peer in self.world.peers(self.from) {
            let server_id = [&[54, 4][..], &server.1.octets()].concat();
            let asked = [&server_id[..], &[50, 4], &peer.ip.octets()].concat();
            let client_id = [&server_id[..], &[61, 7, 1], &peer.mac].concat();
            for (name, to, from, client, kind, options) in [
                ("release", server, own, peer.mac, RELEASE, &server_id),
                ("release by client id", server, own, own.0, RELEASE, &client_id),
                ("decline", server, own, peer.mac, DECLINE, &asked),
                ("decline to all", all, (own.0, NONE), peer.mac, DECLINE, &asked),
            ] {
                self.add(format!("{name} of {}", peer.full()), |id| {
                    let message = dhcp(false, client, NONE, kind, options, id);
                    let holds = if kind == RELEASE { peer.ip } else { NONE };
                    udp(to, from, (68, 67), &with_addresses(message, holds, NONE))
                });
            }
        }
    }

    pub(super) fn fleet_macs(&mut self) {
        let servers = self.world.gateways.iter().chain(&self.world.dhcp);
        let mut names: BTreeMap<Mac, String> = servers
            .map(|server| (server.at.0, format!("{} of VLAN {}", server.at.1, server.vlan)))
            .collect();
        let guests = self.world.nics.iter().filter(|nic| nic.guest != self.from.guest);
        names.extend(guests.map(|nic| (nic.mac, nic.full())));
        for (mac, name) in names {
            self.add(format!("everybody, as {name}"), |id| {
                ethernet(BROADCAST, mac, UNKNOWN, &mark(id))
            });
        }
    }

    pub(super) fn more_control(&mut self) {
        let own = self.from.mac;
        let group = |last| [0x01, 0x80, 0xc2, 0, 0, last];
        let far = [0xcf, 0, 0, 0, 0, 0];
        for (name, to, kind) in [
            ("MMRP", group(0x20), 0x88f6),
            ("MVRP", group(0x21), 0x88f5),
            ("CFM", group(0x37), 0x8902),
            ("LLDP to everybody", BROADCAST, 0x88cc),
            ("LACP", group(2), 0x8809),
            ("LACP to everybody", BROADCAST, 0x8809),
            ("802.1X", group(3), 0x888e),
            ("802.1X to everybody", BROADCAST, 0x888e),
            ("a loop's test", far, 0x9000),
            ("a loop's test to everybody", BROADCAST, 0x9000),
        ] {
            self.add(name, |id| ethernet(to, own, kind, &mark(id)));
        }
        // Its length stands where others have their type.
        self.add("GVRP", |id| {
            let message = [&[0x42, 0x42, 0x03, 0, 1, 1][..], &[0; 20], &mark(id)].concat();
            let length = u16::try_from(message.len()).unwrap_or_default();
            ethernet(group(0x21), own, length, &message)
        });
    }
}
