//! The nftables tables as text: `inet trunkline` for IP, and `arp trunkline` for what guests say of themselves in ARP.
//!
//! `prerouting` stands before the kernel puts fragments together (conntrack does so at -400), so its rules see each fragment for itself:
//! nothing of a packet behind its IP header may be needed to let a NAT's guest pass there. Fragments of all guests meet in one place of
//! the kernel, which tells them apart by addresses alone; so only those come there whose source is the sender's own.
//!
//! A packet to a gateway's own address is answered to its source. The source has to be in the port's own subnet, on the VLAN of a NAT one
//! of its users with its own MAC, or the answer would go wherever this node knows a way to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use trunkline_proto::resource::{Dhcp, Gateway, Nat};
use trunkline_proto::{Cidr, Mac, PortName, VlanId};

use super::way::Way;
use crate::nft::{self, MARK_CHAIN, TABLE};

/// Of the table that filters ARP.
pub(super) const ARP: &str = "arp";
/// Echo requests to a gateway that are answered: of each link together, of each user of a NAT by itself.
const ECHOES: &str = "limit rate over 100/second burst 100 packets";
/// ARP messages of each sender that are heard.
const ASKING: &str = "limit rate over 50/second burst 100 packets";
/// Of a set that the kernel fills. One that is full would let everybody pass: it has room for many times what there can be.
const FILLED: &str = "type ifname . ipv4_addr\n\t\tsize 65536\n\t\tflags dynamic,timeout\n\t\ttimeout 1m";

/// What a masquerade rule has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counter {
    /// Packets that opened a connection: only those pass a NAT chain.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Who may use a NAT: a reservation of its VLAN. Addresses are given to others later, so the address alone says too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct User {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its MAC.
    pub mac: Mac,
}

/// Everything that the table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    way: Way,
    /// `None`: the port is only to be shut off, because it is about to go.
    gateways: BTreeMap<PortName, Option<Cidr>>,
    nats: BTreeMap<VlanId, (Nat, BTreeSet<User>)>,
}

impl Filter {
    /// For these gateways and NATs, the latter for those alone whom `servers` have reservations for, and for ports of ours that
    /// are still there but no longer wanted.
    pub fn new<'a>(
        way: &Way,
        gateways: impl IntoIterator<Item = &'a Gateway>,
        nats: impl IntoIterator<Item = &'a Nat>,
        servers: impl IntoIterator<Item = &'a Dhcp>,
        leaving: &BTreeSet<PortName>,
    ) -> Self {
        let mut ports: BTreeMap<PortName, Option<Cidr>> = leaving.iter().map(|p| (p.clone(), None)).collect();
        let mut nats: BTreeMap<VlanId, (Nat, BTreeSet<User>)> = nats
            .into_iter()
            .map(|nat| (nat.vlan, (nat.clone(), BTreeSet::new())))
            .collect();
        for server in servers {
            if let Some((nat, users)) = nats.get_mut(&server.vlan) {
                users.extend(users_of(nat, server));
            }
        }
        for gateway in gateways {
            // Tenants share the internet VLAN: without its NAT nobody is known there.
            let known = gateway.vlan != VlanId::INTERNET || nats.contains_key(&gateway.vlan);
            ports.insert(gateway.port(), known.then_some(gateway.address));
        }
        // A NAT whose gateway is not there yet is shut off like a gateway until it comes.
        for (nat, _) in nats.values() {
            ports.entry(nat.gateway_port.clone()).or_default();
        }
        Self {
            way: way.clone(),
            gateways: ports,
            nats,
        }
    }

    /// True when there is nothing to filter: then there is no table.
    pub fn is_empty(&self) -> bool {
        self.gateways.is_empty()
    }

    /// The way to the internet.
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// The NATs in it.
    pub fn nats(&self) -> impl Iterator<Item = &Nat> {
        self.nats.values().map(|(nat, _)| nat)
    }

    /// Those who may use them.
    pub fn users(&self) -> impl Iterator<Item = User> {
        self.nats.values().flat_map(|(_, users)| users.iter().copied())
    }

    /// One batch for `nft -f`: it takes away the tables as they are and puts the new ones in their place, or does nothing at all.
    /// `counters` go on from where they were.
    pub fn render(&self, counters: &BTreeMap<VlanId, Counter>) -> String {
        let mut text = nft::replace(TABLE);
        self.objects(&mut text, counters);
        let _ = writeln!(text, "\tchain {MARK_CHAIN} {{\n\t}}");
        self.prerouting(&mut text);
        self.forward(&mut text);
        input(&mut text);
        output(&mut text);
        self.postrouting(&mut text);
        text.push_str("}\n");
        self.arp(&mut text);
        text
    }

    /// A batch after which neither table is there.
    pub(super) fn removal() -> String {
        nft::delete(TABLE) + &nft::delete_of(ARP, TABLE)
    }

    fn objects(&self, text: &mut String, counters: &BTreeMap<VlanId, Counter>) {
        for vlan in self.nats.keys() {
            let Counter { packets, bytes } = counters.get(vlan).copied().unwrap_or_default();
            let _ = writeln!(
                text,
                "\tcounter nat_vlan{vlan} {{\n\t\tpackets {packets} bytes {bytes}\n\t}}"
            );
        }
        let addresses: Vec<String> = self
            .addresses()
            .map(|(port, address)| format!("\"{port}\" . {}", address.address))
            .collect();
        text.push_str(&nft::set("own_addresses", "type ifname . ipv4_addr", &addresses));
        self.ports(text);
        text.push_str(&nft::set("echoes", FILLED, &[]));
        if !self.nats.is_empty() {
            for (name, prefixes) in [("denied", &self.way.denied), ("allowed", &self.way.allowed)] {
                let prefixes: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
                text.push_str(&nft::set(name, "type ipv4_addr\n\t\tflags interval", &prefixes));
            }
        }
    }

    fn addresses(&self) -> impl Iterator<Item = (&PortName, Cidr)> {
        let ports = self.gateways.iter();
        ports.filter_map(|(port, address)| address.map(|address| (port, address)))
    }

    /// What both tables have to know.
    fn ports(&self, text: &mut String) {
        let ports: Vec<String> = self.gateways.keys().map(|port| format!("\"{port}\"")).collect();
        text.push_str(&nft::set("gateways", "type ifname", &ports));
        let subnets: Vec<String> = self
            .addresses()
            .map(|(port, address)| format!("\"{port}\" . {}", address.network()))
            .collect();
        text.push_str(&nft::set(
            "own_subnets",
            "type ifname . ipv4_addr\n\t\tflags interval",
            &subnets,
        ));
        for (vlan, (_, users)) in &self.nats {
            let users: Vec<String> = users
                .iter()
                .map(|user| format!("{} . {}", user.mac, user.address))
                .collect();
            let name = format!("users_vlan{vlan}");
            text.push_str(&nft::set(&name, "type ether_addr . ipv4_addr", &users));
        }
    }

    /// Before the kernel looks for a way: it would tell a guest that its packet's time to live is over, or of a better way, however
    /// little the packet may pass. Options of a packet make it speak as well, or name addresses of this host. An echo is not tracked:
    /// each would take a place in the kernel's table of connections.
    fn prerouting(&self, text: &mut String) {
        text.push_str(
            "\tchain prerouting {\n\t\ttype filter hook prerouting priority -450; policy accept;\n\
             \t\tiifname @gateways ip hdrlength != 5 drop\n\
             \t\tiifname . ip daddr @own_addresses ip frag-off & 0x3fff != 0 drop\n",
        );
        let own = "iifname . ip daddr @own_addresses";
        for Nat {
            vlan,
            subnet,
            gateway_port,
        } in self.nats()
        {
            let user = format!("ether saddr . ip saddr @users_vlan{vlan}");
            let echo = format!("iifname \"{gateway_port}\" {own} {user} icmp type echo-request");
            let _ = writeln!(
                text,
                "\t\t{echo} update @echoes {{ iifname . ip saddr {ECHOES} }} drop\n\
                 \t\t{echo} notrack accept\n\
                 \t\tiifname \"{gateway_port}\" ip daddr != {subnet} {user} accept\n\
                 \t\tiifname \"{gateway_port}\" drop"
            );
        }
        let echo = format!("{own} iifname . ip saddr @own_subnets icmp type echo-request");
        let _ = writeln!(
            text,
            "\t\t{echo} update @echoes {{ iifname . ip daddr {ECHOES} }} drop\n\
             \t\t{echo} notrack accept\n\
             \t\tiifname @gateways drop\n\t}}"
        );
    }

    /// Whoever asks by ARP is remembered in a table that the whole kernel shares, so one may only speak for an address of one's own
    /// subnet, or as who one is where tenants share it. One without an address asks whether another has it, and is not remembered.
    fn arp(&self, text: &mut String) {
        text.push_str(&nft::replace_of(ARP, TABLE));
        self.ports(text);
        text.push_str(&nft::set("askers", FILLED, &[]));
        let _ = write!(
            text,
            "\tchain {MARK_CHAIN} {{\n\t}}\n\
             \tchain input {{\n\t\ttype filter hook input priority filter; policy accept;\n"
        );
        for Nat { vlan, gateway_port, .. } in self.nats() {
            let _ = writeln!(
                text,
                "\t\tiifname \"{gateway_port}\" arp saddr ip != 0.0.0.0 arp saddr ether . arp saddr ip != @users_vlan{vlan} drop"
            );
        }
        let _ = write!(
            text,
            "\t\tiifname @gateways arp saddr ip != 0.0.0.0 iifname . arp saddr ip != @own_subnets drop\n\
             \t\tiifname @gateways update @askers {{ iifname . arp saddr ip {ASKING} }} drop\n\t}}\n}}\n"
        );
    }

    /// From a guest only what belongs to a connection of its own, or opens one. An ICMP error belongs to the connection that it quotes,
    /// which may be another guest's, and no rule can compare the two; what belongs to none would leave without being masqueraded.
    fn forward(&self, text: &mut String) {
        let uplink = &self.way.uplink;
        text.push_str("\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n");
        for Nat {
            vlan,
            subnet,
            gateway_port,
        } in self.nats()
        {
            let _ = writeln!(
                text,
                "\t\tiifname \"{gateway_port}\" ip daddr @denied ip daddr != @allowed drop\n\
                 \t\tiifname \"{gateway_port}\" oifname \"{uplink}\" ether saddr . ip saddr @users_vlan{vlan} ct state new,established accept\n\
                 \t\tiifname \"{uplink}\" oifname \"{gateway_port}\" ip daddr {subnet} ct state established,related accept"
            );
        }
        text.push_str("\t\tiifname @gateways drop\n\t\toifname @gateways drop\n\t}\n");
    }

    fn postrouting(&self, text: &mut String) {
        text.push_str("\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n");
        for Nat { vlan, subnet, .. } in self.nats() {
            let uplink = &self.way.uplink;
            let _ = writeln!(
                text,
                "\t\toifname \"{uplink}\" ip saddr {subnet} counter name nat_vlan{vlan} masquerade"
            );
        }
        text.push_str("\t}\n");
    }
}

/// Whom a server has an address for that will be masqueraded.
fn users_of(nat: &Nat, server: &Dhcp) -> impl Iterator<Item = User> {
    let users = server.reservations.iter().map(|reservation| User {
        address: reservation.address,
        mac: reservation.mac,
    });
    users.filter(|user| nat.subnet.net().contains(&user.address))
}

/// ARP is not IP and does not come by here.
fn input(text: &mut String) {
    text.push_str(
        "\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\
         \t\tiifname . ip daddr @own_addresses icmp type echo-request accept\n\
         \t\tiifname @gateways drop\n\t}\n",
    );
}

/// Whatever this host says by a gateway's port is for that port's own subnet, an answer to a forged source as well, should one come
/// this far.
fn output(text: &mut String) {
    text.push_str(
        "\tchain output {\n\t\ttype filter hook output priority raw; policy accept;\n\
         \t\toifname . ip daddr @own_subnets icmp type echo-reply notrack\n\
         \t\toifname . ip daddr @own_subnets accept\n\
         \t\toifname @gateways drop\n\t}\n",
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{dhcp, gateway, nat, reservation, subnet, vlan, way};

    /// A link and the internet, with two guests on each.
    fn link_and_internet() -> Filter {
        let servers = [110, 400].map(|id| {
            let guests = [(1002, "web"), (1003, "db")];
            dhcp(
                id,
                guests.map(|(vm, name)| reservation(id, vm, 0, name, false)).to_vec(),
            )
        });
        let gateways = [gateway(110), gateway(400)];
        Filter::new(&way(), &gateways, &[nat()], &servers, &BTreeSet::new())
    }

    fn golden(filter: &Filter, counters: &BTreeMap<VlanId, Counter>) -> String {
        filter.render(counters)
    }

    #[test]
    fn a_link_and_the_internet_vlan_render_as_in_the_golden_file() {
        let filter = link_and_internet();
        let counters = BTreeMap::from([(
            VlanId::INTERNET,
            Counter {
                packets: 12,
                bytes: 3456,
            },
        )]);
        assert_eq!(golden(&filter, &counters), include_str!("golden/link-and-internet.nft"));
    }

    #[test]
    fn links_without_internet_render_as_in_the_golden_file() {
        let filter = Filter::new(&way(), &[gateway(110), gateway(366)], &[], &[], &BTreeSet::new());
        assert_eq!(golden(&filter, &BTreeMap::new()), include_str!("golden/links.nft"));
    }

    #[test]
    fn a_port_that_is_about_to_go_is_shut_off_as_in_the_golden_file() {
        let leaving = BTreeSet::from([gateway(110).port()]);
        let filter = Filter::new(&way(), &[], &[], &[], &leaving);
        assert_eq!(golden(&filter, &BTreeMap::new()), include_str!("golden/leaving.nft"));
    }

    #[test]
    fn masquerade_is_only_for_the_subnet_of_the_nat_and_only_out_of_the_uplink() {
        let filter = link_and_internet();
        let text = filter.render(&BTreeMap::new());
        let rules: Vec<&str> = text.lines().filter(|line| line.contains("masquerade")).collect();
        assert_eq!(
            rules,
            ["\t\toifname \"ens3\" ip saddr 10.60.7.0/24 counter name nat_vlan400 masquerade"]
        );
    }

    #[test]
    fn only_reservations_in_the_subnet_of_the_nat_may_use_it() {
        let mut server = dhcp(400, vec![reservation(400, 1002, 0, "web", false)]);
        let mut elsewhere = server.reservations[0].clone();
        elsewhere.address = subnet(vlan(110)).gateway().address;
        server.reservations.push(elsewhere);
        let filter = Filter::new(&way(), &[], &[nat()], &[server.clone()], &BTreeSet::new());
        let users: Vec<Ipv4Addr> = filter.users().map(|user| user.address).collect();
        assert_eq!(users, [server.reservations[0].address]);
    }

    #[test]
    fn every_accepting_rule_names_one_of_our_ports() {
        let filter = link_and_internet();
        for line in filter
            .render(&BTreeMap::new())
            .lines()
            .filter(|l| l.ends_with("accept") || l.ends_with("drop"))
        {
            assert!(
                line.contains("gw_vlan400")
                    || line.contains("@gateways")
                    || line.contains("@own_addresses")
                    || line.contains("@own_subnets"),
                "{line}"
            );
        }
    }

    #[test]
    fn the_internet_vlan_is_shut_off_while_nobody_is_known_there() {
        let filter = Filter::new(&way(), &[gateway(400)], &[], &[], &BTreeSet::new());
        let text = filter.render(&BTreeMap::new());
        assert!(!text.contains("10.60.7") && text.contains("\"gw_vlan400\""), "{text}");
    }

    #[test]
    fn no_gateways_mean_no_table() {
        assert!(Filter::new(&way(), &[], &[], &[], &BTreeSet::new()).is_empty());
        assert!(!Filter::new(&way(), &[], &[nat()], &[], &BTreeSet::new()).is_empty());
    }
}
