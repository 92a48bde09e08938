//! What speaks in another's name: forged addresses, servers and routers that are none.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Making, NOBODY, UNKNOWN};
use crate::attacks::burst::Burst;
use crate::attacks::frame::{
    ALL_NODES, Arp, BROADCAST, Mac, arp_request, datagram, dhcp, echo, ethernet, fragment, fragment6, icmp, icmp6,
    ipv4, link_local, mark, udp, udp6, with_addresses,
};
use crate::attacks::what::What;
use crate::attacks::world::{Kind, Nic};
use crate::lab::layout::INTERNET_ADDRESS;

/// Every IPv6 node of the wire.
const GROUP: (Mac, Ipv6Addr) = (ALL_NODES, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
/// Message types of DHCP.
pub(super) const DISCOVER: u8 = 1;
pub(super) const REQUEST: u8 = 3;
pub(super) const DECLINE: u8 = 4;
pub(super) const RELEASE: u8 = 7;
/// Bytes of a fragment that is not the last: as large as that of an honest offer's.
const PART: usize = 64;

impl Making<'_> {
    pub(super) fn forged(&mut self, what: What) {
        let (own, gateway) = (self.from.own(), self.from.gateway);
        let Some(peer) = self.world.peers(self.from).next().map(Nic::own) else {
            return;
        };
        // An answer to everybody. The frame's own source stays the guest's: the message alone lies.
        let claim = |ip, id| {
            let sender = (own.0, ip);
            let (operation, target) = (2, sender);
            Arp {
                operation,
                sender,
                target,
            }
            .frame(BROADCAST, own.0, id)
        };
        match what {
            What::ForgedMac => drop(self.add("everybody", |id| ethernet(BROADCAST, NOBODY, UNKNOWN, &mark(id)))),
            What::ForgedArpGateway => drop(self.add("everybody", |id| claim(gateway.1, id))),
            What::ForgedArpPeer => {
                self.add("everybody, as an answer", |id| claim(peer.1, id));
                self.add("everybody, as a question", |id| {
                    arp_request((own.0, peer.1), gateway.1, id)
                });
            }
            _ => {
                self.add("everybody", |id| {
                    echo((BROADCAST, Ipv4Addr::BROADCAST), (own.0, peer.1), id)
                });
            }
        }
        if what == What::ForgedIp && self.from.kind != Kind::Plain {
            self.add("gateway", |id| echo(gateway, (own.0, peer.1), id));
            self.add("internet", |id| {
                echo((gateway.0, INTERNET_ADDRESS), (own.0, peer.1), id)
            });
        }
    }

    /// An answer that nobody asked for, to one guest only: no broadcast gives it away.
    pub(super) fn arp_to_one(&mut self, what: What) {
        let (own, gateway) = (self.from.own(), self.from.gateway);
        for peer in self.world.peers(self.from) {
            let others = self.world.peers(self.from).filter(|other| other.mac != peer.mac);
            let claimed: Vec<Ipv4Addr> = match what {
                What::OwnArpOne => vec![own.1],
                _ => [gateway.1, peer.ip]
                    .into_iter()
                    .chain(others.map(|other| other.ip))
                    .collect(),
            };
            for ip in claimed {
                let answer = Arp {
                    operation: 2,
                    sender: (own.0, ip),
                    target: peer.own(),
                };
                let attempt = self.add(format!("{} about {ip}", peer.full()), |id| {
                    answer.frame(peer.mac, own.0, id)
                });
                attempt.target = Some(peer.clone());
            }
        }
    }

    /// To all, and to one.
    pub(super) fn neighbour(&mut self, what: What) {
        let own = (self.from.mac, link_local(self.from.mac));
        let Some(peer) = self.world.peers(self.from).next() else {
            return;
        };
        let peer_ip = link_local(peer.mac);
        // The address that is spoken of, and the hardware address that it is said to have.
        let (about, hardware) = match what {
            What::OwnNeighbour => (own.1, own.0),
            _ => (peer_ip, NOBODY),
        };
        let advertisement = |address: Ipv6Addr| [&[0x20, 0, 0, 0][..], &address.octets(), &[2, 1], &hardware].concat();
        self.add("everybody, as an answer", |id| {
            icmp6(GROUP, own, 136, &advertisement(about), id)
        });
        let to_one = self.add(format!("{}, as an answer", peer.full()), |id| {
            icmp6((peer.mac, peer_ip), own, 136, &advertisement(about), id)
        });
        to_one.target = Some(peer.clone());
        // "Who has your address?" says the asker's own, too.
        let question = [&[0; 4][..], &peer_ip.octets(), &[1, 1], &hardware].concat();
        self.add("everybody, as a question", |id| icmp6(GROUP, own, 135, &question, id));
    }

    pub(super) fn fragments(&mut self, what: What) {
        let own = self.from.own();
        let Some(peer) = self.world.peers(self.from).next() else {
            return;
        };
        let frame = |to: Mac, packet: &[u8]| ethernet(to, own.0, 0x0800, packet);
        let part = |from, to, more, place, payload: &[u8]| fragment(ipv4(from, to, 17, payload), more, place);
        let name = peer.full();
        if what == What::OwnFragments {
            let first = |id| datagram(peer.ip, own.1, (4000, 4000), &[&mark(id)[..], &[0; PART - 20]].concat());
            let to_one = self.add(format!("{name}, first part"), |id| {
                frame(peer.mac, &part(own.1, peer.ip, true, 0, &first(id)))
            });
            to_one.target = Some(peer.clone());
            let to_one = self.add(format!("{name}, last part"), |id| {
                frame(peer.mac, &part(own.1, peer.ip, false, 8, &mark(id)))
            });
            to_one.target = Some(peer.clone());
            return;
        }
        // The switch may look at the first part only.
        let others = self.world.peers(self.from).filter(|other| other.mac != peer.mac);
        let sources: Vec<Ipv4Addr> = others.map(|other| other.ip).chain([self.from.gateway.1]).collect();
        let honest = frame(
            peer.mac,
            &part(
                own.1,
                peer.ip,
                true,
                0,
                &datagram(peer.ip, own.1, (4000, 4000), &[0; PART - 8]),
            ),
        );
        for source in sources {
            let forged = self.add(format!("{name}, last part from {source}"), |id| {
                frame(peer.mac, &part(source, peer.ip, false, 8, &mark(id)))
            });
            forged.before = vec![Burst::one(&forged.burst.interface, honest.clone())];
        }
    }

    /// A DHCP server's offer whose ports only the first part shows.
    fn offer_in_parts(&mut self, peer: &Nic) {
        let own = self.from.own();
        let all = (BROADCAST, Ipv4Addr::BROADCAST);
        for (name, to) in [("everybody", all), (peer.full().as_str(), peer.own())] {
            let offer = |id| datagram(to.1, own.1, (67, 68), &dhcp(true, to.0, to.1, 2, &[], id));
            let frame = |payload: &[u8], more, place| {
                let packet = fragment(ipv4(own.1, to.1, 17, payload), more, place);
                ethernet(to.0, own.0, 0x0800, &packet)
            };
            let first = |id| {
                let offer = offer(id);
                [offer.get(..PART - 12).unwrap_or_default(), &mark(id)].concat()
            };
            self.add(format!("{name}, an offer's first part"), |id| {
                frame(&first(id), true, 0)
            });
            // As short as a fragment may be: the ports are all that is in it, so the frame's padding has the mark.
            self.add(format!("{name}, an offer's ports"), |id| {
                let ports = offer(id);
                let mut frame = frame(ports.get(..8).unwrap_or_default(), true, 0);
                frame.truncate(14 + 20 + 8);
                frame.extend(mark(id));
                frame.resize(60, 0);
                frame
            });
            // Alone the rest to one guest is nothing; to everybody it could complete what came by another way.
            if to.0 == BROADCAST {
                self.add(format!("{name}, an offer's last part"), |id| frame(&mark(id), false, 8));
            }
        }
    }

    /// Playing server or router, in parts: a switch that looks at the first part only, or at none, lets them pass, and
    /// the guest puts them together.
    pub(super) fn rogue_fragments(&mut self) {
        let Some(peer) = self.world.peers(self.from).next().cloned() else {
            return;
        };
        self.offer_in_parts(&peer);
        let own = self.from.own();
        // A redirect says at its end what it is about; its first part says that it is one.
        self.add(format!("{}, a redirect's first part", peer.full()), |id| {
            let about = [&ipv4(peer.ip, INTERNET_ADDRESS, 17, &[0; 8])[..], &[0; 8]].concat();
            let redirect = icmp(5, 1, own.1.octets(), &about, id);
            ethernet(
                peer.mac,
                own.0,
                0x0800,
                &fragment(ipv4(own.1, peer.ip, 1, &redirect), true, 0),
            )
        });
        let from = (own.0, link_local(own.0));
        for (name, to) in [
            ("everybody".to_owned(), GROUP),
            (peer.full(), (peer.mac, link_local(peer.mac))),
        ] {
            let server = |id| [&[0x02, 0x23, 0x02, 0x22, 0, 64, 0, 0, 2, 0, 0, 1][..], &mark(id)].concat();
            self.add(format!("{name}, a DHCPv6 server's first part"), |id| {
                fragment6(to, from, (17, true, 0), &server(id))
            });
            let router = |id| [&[134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0][..], &mark(id)].concat();
            self.add(format!("{name}, a router's first part"), |id| {
                fragment6(to, from, (58, true, 0), &router(id))
            });
            // What the packet is stands in its second part.
            self.add(format!("{name}, options before a router"), |id| {
                let options = [&[58, 8, 1, 68][..], &mark(id), &[0; 24]].concat();
                fragment6(to, from, (60, true, 0), &options)
            });
        }
    }

    /// The server must neither answer nor give away what another guest has.
    pub(super) fn dhcp_in_anothers_name(&mut self) {
        let own = self.from.own();
        let Some(server) = self.world.dhcp_of(self.from.vlan).cloned() else {
            return;
        };
        let server = server.at;
        let all = (BROADCAST, Ipv4Addr::BROADCAST);
        let nobody = (own.0, Ipv4Addr::UNSPECIFIED);
        let server_id = [&[54, 4][..], &server.1.octets()].concat();
        for peer in self.world.peers(self.from) {
            let name = peer.full();
            let asked = [&server_id[..], &[50, 4], &peer.ip.octets()].concat();
            let client_id = [&server_id[..], &[61, 7, 1], &peer.mac].concat();
            let nothing = Ipv4Addr::UNSPECIFIED;
            let mut send = |how: &str, to, from, message: &dyn Fn(u32) -> Vec<u8>| {
                self.add(format!("{how} of {name}"), |id| udp(to, from, (68, 67), &message(id)));
            };
            let by_mac = |kind, options: &[u8], id| dhcp(false, peer.mac, nothing, kind, options, id);
            let by_id = |kind, options: &[u8], id| dhcp(false, own.0, nothing, kind, options, id);
            let holds = |message| with_addresses(message, peer.ip, nothing);
            send("discovery", all, nobody, &|id| by_mac(DISCOVER, &[], id));
            send("request", all, nobody, &|id| by_mac(REQUEST, &asked, id));
            send("renewal", server, own, &|id| holds(by_mac(REQUEST, &[], id)));
            send("release by client id", server, own, &|id| {
                holds(by_id(RELEASE, &client_id, id))
            });
            send("release", server, own, &|id| holds(by_mac(RELEASE, &server_id, id)));
            send("decline", all, nobody, &|id| by_mac(DECLINE, &asked, id));
            // The answer goes to the relay, whoever that is.
            send("discovery through", all, nobody, &|id| {
                with_addresses(by_id(DISCOVER, &[], id), nothing, peer.ip)
            });
            send("discovery through, to the server,", server, own, &|id| {
                with_addresses(by_id(DISCOVER, &[], id), nothing, peer.ip)
            });
        }
    }

    pub(super) fn dhcp_answer(&mut self) {
        let own = self.from.own();
        let [a, b, c, d] = own.1.octets();
        let options = [54, 4, a, b, c, d, 3, 4, a, b, c, d];
        let offer = |id| dhcp(true, NOBODY, own.1, 2, &options, id);
        // Many clients look at the port that they are sent to only.
        for (how, port) in [("", 67), (", from no server's port", 4000)] {
            let all = (BROADCAST, Ipv4Addr::BROADCAST);
            self.add(format!("everybody{how}"), |id| udp(all, own, (port, 68), &offer(id)));
            for peer in self.world.peers(self.from) {
                let to_one = self.add(format!("{}{how}", peer.full()), |id| {
                    udp(peer.own(), own, (port, 68), &offer(id))
                });
                to_one.target = Some(peer.clone());
            }
        }
    }

    pub(super) fn dhcp6_answer(&mut self) {
        let from = (self.from.mac, link_local(self.from.mac));
        // An advertisement with its transaction's number, and nothing in it.
        let advertisement = |id| [&[2, 0, 0, 1][..], &mark(id)].concat();
        for (how, port) in [("", 547), (", from no server's port", 4000)] {
            self.add(format!("everybody{how}"), |id| {
                udp6(GROUP, from, (port, 546), &advertisement(id))
            });
            for peer in self.world.peers(self.from) {
                let to = (peer.mac, link_local(peer.mac));
                let to_one = self.add(format!("{}{how}", peer.full()), |id| {
                    udp6(to, from, (port, 546), &advertisement(id))
                });
                to_one.target = Some(peer.clone());
            }
        }
    }

    pub(super) fn router_advertisement(&mut self) {
        let from = (self.from.mac, link_local(self.from.mac));
        // A lifetime of nothing: a guest that takes it on a plain link does not keep it.
        let body = [64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        self.add("everybody", |id| icmp6(GROUP, from, 134, &body, id));
    }
}
