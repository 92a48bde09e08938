//! What comes in over the cable between the hosts: another node that somebody else has, or a switch that leaks.

use std::net::Ipv4Addr;

use super::{Making, PROBE, UNHEARD, UNKNOWN, VLANS};
use crate::attacks::frame::{ALL_NODES, BROADCAST, Mac, arp_request, dhcp, echo, ethernet, mark, tagged, udp};
use crate::attacks::what::What;
use crate::attacks::world::{Kind, Nic};
use crate::lab::layout::{INTERNET_ADDRESS, NETNODE};

/// A tag of this VLAN, and no other.
fn on(vlan: u16, frame: &[u8]) -> Vec<u8> {
    tagged(frame, &[(0x8100, vlan)])
}

impl Making<'_> {
    pub(super) fn wire(&mut self, what: What) {
        match what {
            What::WireForeignTags => self.foreign_tags(),
            What::WireUntagged => {
                self.bare_of(&[]);
                self.node_addresses();
            }
            What::WireTagZero => {
                self.bare_of(&[0]);
                for vlan in self.world.carried(&self.from.tap.host) {
                    self.bare_of(&[0, vlan]);
                }
            }
            What::WireControl => self.control(),
            What::WireInternet if self.from.tap.host == NETNODE => self.internet(),
            // What is said of guests holds where there are guests.
            _ if self.from.tap.host == NETNODE => {}
            What::WireHonest => self.honest(),
            What::WireProbe => self.probes(),
            What::WireGuest => self.as_a_guest(),
            What::WireForeignGateway => self.as_a_foreign_gateway(),
            _ => self.as_the_gateway(),
        }
    }

    /// Guests behind this cable.
    fn behind(&self) -> impl Iterator<Item = &Nic> {
        self.world.nics.iter().filter(|nic| nic.tap.host == self.from.tap.host)
    }

    /// Those whose VLAN keeps them apart, and the VLAN.
    fn kept_apart(&self) -> Vec<(Nic, u16)> {
        let apart = self.behind().filter(|nic| apart(nic));
        apart.filter_map(|nic| Some((nic.clone(), nic.vlan?))).collect()
    }

    fn honest(&mut self) {
        let here: Vec<Nic> = self.behind().cloned().collect();
        for nic in here {
            let Some(vlan) = nic.vlan else { continue };
            // On a VLAN that keeps guests apart only gateway and DHCP server speak to them.
            let from = if apart(&nic) { nic.gateway.0 } else { self.from.mac };
            let to = nic.full();
            let attempt = self.add(to, |id| on(vlan, &ethernet(nic.mac, from, UNKNOWN, &mark(id))));
            attempt.target = Some(nic);
        }
    }

    fn foreign_tags(&mut self) {
        let carried = self.world.carried(&self.from.tap.host);
        let mut first = 1;
        for end in carried.into_iter().chain([VLANS]) {
            if end > first {
                let to = format!("tags {first} to {}", end - 1);
                self.sweep(&to, &[(0x8100, first)], first, end);
            }
            first = end + 1;
        }
    }

    /// To everybody, to every guest and to the node itself, with these tags.
    fn bare_of(&mut self, tags: &[u16]) {
        let tags: Vec<(u16, u16)> = tags.iter().map(|tag| (0x8100, *tag)).collect();
        let own = self.from.own();
        let node = format!("{}:", self.from.tap.host);
        let devices = self
            .world
            .node_macs
            .iter()
            .filter(|(device, _)| device.starts_with(&node));
        let guests = self.behind().map(|nic| (nic.full(), nic.mac));
        let everybody = ("everybody".to_owned(), BROADCAST);
        let targets: Vec<(String, Mac)> = guests.chain(devices.cloned()).chain([everybody]).collect();
        for (name, mac) in targets {
            self.add(format!("{name} tagged {tags:?}"), |id| {
                tagged(&ethernet(mac, own.0, UNKNOWN, &mark(id)), &tags)
            });
        }
    }

    /// A node has its own addresses on other interfaces, and on none of these.
    fn node_addresses(&mut self) {
        for ip in self.world.node_ipv4.clone() {
            self.arp(format!("{ip} by ARP"), ip);
            let node = format!("{}:", self.from.tap.host);
            let devices = self
                .world
                .node_macs
                .iter()
                .filter(|(device, _)| device.starts_with(&node));
            for (device, mac) in devices.cloned().collect::<Vec<_>>() {
                self.echo(format!("{ip} at {device}"), (mac, ip));
            }
        }
    }

    fn control(&mut self) {
        let mac = self.from.mac;
        let mut tags: Vec<Vec<(u16, u16)>> = vec![Vec::new()];
        let carried = self.world.carried(&self.from.tap.host);
        tags.extend(carried.into_iter().map(|vlan| vec![(0x8100, vlan)]));
        for tags in tags {
            for (name, last, kind) in [("spanning tree", 0, 60), ("LLDP", 0x0e, 0x88cc), ("pause", 1, 0x8808)] {
                let to = [0x01, 0x80, 0xc2, 0, 0, last];
                self.add(format!("{name} tagged {tags:?}"), |id| {
                    tagged(&ethernet(to, mac, kind, &mark(id)), &tags)
                });
            }
        }
    }

    /// The network node knows its users by address and MAC together.
    fn internet(&mut self) {
        let guests = self.world.nics.iter().filter(|nic| nic.kind == Kind::Internet);
        for nic in guests {
            let Some(vlan) = nic.vlan else { continue };
            let peers = self.world.peers(nic).map(|peer| (peer.full(), peer.mac));
            for (name, mac) in peers.chain([("nobody".to_owned(), self.from.mac)]).collect::<Vec<_>>() {
                let to = format!("internet as {} by the MAC of {name}", nic.full());
                let internet = (nic.gateway.0, INTERNET_ADDRESS);
                let attempt = self.add(to, |id| on(vlan, &echo(internet, (mac, nic.ip), id)));
                // Gateway and DHCP server of that VLAN may hear it.
                attempt.from.vlan = Some(vlan);
            }
        }
    }

    fn probes(&mut self) {
        let mac = self.from.mac;
        let here: Vec<(u16, Mac, String)> = self
            .behind()
            .filter_map(|nic| Some((nic.vlan?, nic.mac, nic.full())))
            .collect();
        for (vlan, guest, name) in here {
            for (to, how) in [(guest, ""), (BROADCAST, ", to everybody")] {
                self.add(format!("{name}{how}"), |id| {
                    on(vlan, &ethernet(to, mac, PROBE, &mark(id)))
                });
            }
        }
    }

    /// In the name of every guest of the VLAN, of those behind this cable too, and of nobody.
    fn as_a_guest(&mut self) {
        for (nic, vlan) in self.kept_apart() {
            let peers = self.world.peers(&nic).map(|peer| (peer.full(), peer.own()));
            let nobody = ("nobody".to_owned(), self.from.own());
            for (name, from) in peers.chain([nobody]).collect::<Vec<_>>() {
                let to = format!("{} as {name}", nic.full());
                self.add(&to, |id| on(vlan, &echo(nic.own(), from, id)));
                self.add(&to, |id| on(vlan, &echo((BROADCAST, nic.ip), from, id)));
                self.add(&to, |id| on(vlan, &arp_request(from, nic.ip, id)));
                self.add(&to, |id| on(vlan, &ethernet(nic.mac, from.0, UNKNOWN, &mark(id))));
            }
        }
    }

    /// The MACs of gateways and DHCP servers are good on their own VLAN only.
    fn as_a_foreign_gateway(&mut self) {
        let servers: Vec<_> = self.world.gateways.iter().chain(&self.world.dhcp).cloned().collect();
        for (nic, vlan) in self.kept_apart() {
            for server in servers.iter().filter(|server| server.vlan != vlan) {
                let to = format!("{} as VLAN {}'s {}", nic.full(), server.vlan, server.at.1);
                self.add(&to, |id| on(vlan, &echo(nic.own(), server.at, id)));
                self.add(&to, |id| on(vlan, &arp_request(server.at, nic.ip, id)));
            }
        }
    }

    /// To all guests at once gateway and DHCP server send ARP for one of them, and the server its answers: no more.
    fn as_the_gateway(&mut self) {
        let vlans = self.kept_apart().into_iter().map(|(_, vlan)| vlan);
        let vlans: std::collections::BTreeSet<u16> = vlans.collect();
        let servers: Vec<_> = self.world.gateways.iter().chain(&self.world.dhcp).cloned().collect();
        for server in servers.iter().filter(|server| vlans.contains(&server.vlan)) {
            let (vlan, at) = (server.vlan, server.at);
            let to = format!("VLAN {vlan} as {}", at.1);
            let all = (BROADCAST, Ipv4Addr::BROADCAST);
            self.add(&to, |id| on(vlan, &ethernet(BROADCAST, at.0, UNKNOWN, &mark(id))));
            self.add(&to, |id| on(vlan, &ethernet(ALL_NODES, at.0, 0x86dd, &mark(id))));
            self.add(&to, |id| on(vlan, &ethernet(UNHEARD, at.0, UNKNOWN, &mark(id))));
            self.add(&to, |id| on(vlan, &echo(all, at, id)));
            self.add(&to, |id| on(vlan, &arp_request(at, Ipv4Addr::new(10, 60, 7, 252), id)));
        }
        // The gateway is no DHCP server.
        let gateways: Vec<_> = self
            .world
            .gateways
            .iter()
            .filter(|at| vlans.contains(&at.vlan))
            .cloned()
            .collect();
        for gateway in gateways {
            self.add(format!("VLAN {}, an offer of its gateway", gateway.vlan), |id| {
                let message = dhcp(true, self.from.mac, gateway.at.1, 2, &[], id);
                let all = (BROADCAST, Ipv4Addr::BROADCAST);
                on(gateway.vlan, &udp(all, gateway.at, (67, 68), &message))
            });
        }
    }
}

fn apart(nic: &Nic) -> bool {
    matches!(nic.kind, Kind::Internet | Kind::Protected)
}
