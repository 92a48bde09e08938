//! What goes wrong on the network node.

use super::*;

pub(super) fn rows() -> Vec<Case> {
    let itself = "n1 puts that right by itself";
    vec![
        case(
            "dnsmasq is dead",
            GUESTS,
            |f| {
                f.says("n1", "dhcp_v100", Health::Failed, "dnsmasq does not run");
                dhcp(f, 100, |d| (d.pid, d.current) = (0, false));
            },
            (Kind::Lease, "n1"),
            "dnsmasq does not run; the lease is good until it ends",
            itself,
        ),
        case(
            "there is no lease",
            GUESTS,
            |f| {
                dhcp(f, 100, |d| {
                    d.held.retain(|lease| lease.mac != "52:54:00:03:e8:01");
                    d.leases = 1;
                });
            },
            (Kind::Lease, "n1"),
            "has no lease for 52:54:00:03:e8:01",
            "in the guest shop/web ask for one: `udhcpc -i eth1`",
        ),
        case(
            "there is no lease because the VLAN does not come to the network node",
            GUESTS,
            |f| {
                dhcp(f, 100, |d| (d.held, d.leases) = (Vec::new(), 0));
                cut(f, "w1", "n1", 100, 0);
                cut(f, "n1", "w1", 100, 0);
            },
            (Kind::Probe, "n1"),
            "vlan 100 does not pass w1 -> n1",
            "carry vlan 100 tagged on the ports of both w1 and n1",
        ),
        case(
            "the lease is another",
            INTERNET,
            |f| dhcp(f, 400, |d| d.held[0].address = "10.60.7.77".into()),
            (Kind::Lease, "n1"),
            "it has the lease of 10.60.7.77",
            "`udhcpc -i eth0`",
        ),
        case(
            "the address of the link's gateway is gone",
            GUESTS,
            |f| {
                let reason = "its device does not have the address 10.64.100.1/24";
                f.says("n1", "gw_vlan100", Health::Failed, reason);
            },
            (Kind::Gateway, "n1"),
            "does not have the address 10.64.100.1/24",
            itself,
        ),
        case(
            "the gateway's port is a stranger's",
            GUESTS,
            |f| {
                let reason = "a port gw_vlan100 that was not made by Trunkline is on br-int";
                f.says("n1", "gw_vlan100", Health::Failed, reason);
            },
            (Kind::Gateway, "n1"),
            "was not made by Trunkline",
            "do on n1 what is said there",
        ),
        case(
            "the gateway's address is gone",
            INTERNET,
            |f| {
                let reason = "its device does not have the address 10.60.7.1/24";
                f.says("n1", "gw_vlan400", Health::Failed, reason);
                let Some(Facts::Gateway(facts)) = &mut f.observed("n1", "gw_vlan400").facts else {
                    panic!()
                };
                facts.addresses.clear();
                nat(f, Health::Degraded, &format!("its gateway is not ready: {reason}"));
            },
            (Kind::Gateway, "n1"),
            "does not have the address 10.60.7.1/24",
            itself,
        ),
        case(
            "the NAT table is flushed",
            INTERNET,
            |f| {
                nat(
                    f,
                    Health::Failed,
                    "the nftables tables inet and arp trunkline are not what they should be",
                )
            },
            (Kind::Nat, "n1"),
            "are not what they should be",
            itself,
        ),
        case(
            "the NAT table is a stranger's",
            INTERNET,
            |f| {
                let reason =
                    "the nftables table inet trunkline is there and was not made by this program; rename or delete it";
                nat(f, Health::Failed, reason);
            },
            (Kind::Nat, "n1"),
            "was not made by this program",
            "rename or delete that table on n1",
        ),
        case(
            "ip_forward is off",
            INTERNET,
            |f| {
                nat(f, Health::Failed, "net.ipv4.ip_forward is 0");
                let Some(Facts::Nat(facts)) = &mut f.observed("n1", "nat_vlan400").facts else {
                    panic!()
                };
                facts.forwarding = false;
            },
            (Kind::Nat, "n1"),
            "net.ipv4.ip_forward is 0",
            "n1 switches it on by itself",
        ),
        case(
            "a foreign chain drops what is forwarded",
            INTERNET,
            |f| {
                let reason = "forwarded packets are dropped by the policy of a foreign nftables chain: \"ip filter FORWARD\"; accept \
                              traffic from and to the gateway port there";
                nat(f, Health::Degraded, reason);
            },
            (Kind::Firewall, "n1"),
            "ip filter FORWARD",
            "in that chain on n1 accept what comes from gw_vlan400",
        ),
        case(
            "the uplink is down",
            INTERNET,
            |f| nat(f, Health::Failed, "the uplink ens3 is down"),
            (Kind::Uplink, "n1"),
            "the uplink ens3 is down",
            "`ip link set ens3 up`",
        ),
        case(
            "the uplink does not exist",
            INTERNET,
            |f| {
                let reason =
                    "the uplink ens3 does not exist; set nat.uplink to the interface that leads to the internet";
                nat(f, Health::Failed, reason);
            },
            (Kind::Uplink, "n1"),
            "does not exist",
            "set `nat.uplink` in the configuration of n1",
        ),
        case(
            "there is no default route",
            INTERNET,
            |f| {
                let reason = "there is no default route through ens3: guests reach no further than its own network";
                nat(f, Health::Degraded, reason);
            },
            (Kind::Uplink, "n1"),
            "no default route",
            "`ip route add default via ROUTER dev ens3`",
        ),
        case(
            "the NAT table is a stranger's, and the gateway is told to be without it",
            INTERNET,
            |f| {
                let reason =
                    "the nftables table inet trunkline is there and was not made by this program; rename or delete it";
                f.says("n1", "gw_vlan400", Health::Failed, reason);
                nat(f, Health::Failed, reason);
            },
            (Kind::Nat, "n1"),
            "was not made by this program",
            "rename or delete that table on n1",
        ),
        case(
            "the uplink has no address",
            INTERNET,
            |f| {
                let reason =
                    "the uplink ens3 has no address and there is no default route through it: guests reach nobody";
                nat(f, Health::Degraded, reason);
            },
            (Kind::Uplink, "n1"),
            "ens3 has no address",
            "`ip address add ADDRESS/PREFIX dev ens3`, then `ip route add default via ROUTER dev ens3`",
        ),
        case(
            "the guest has as many connections as it may",
            INTERNET,
            |f| {
                let reason = "10.60.7.99, 10.60.7.10 had 16 connections open within the last minute and got no more; \
                              nat.connections_per_guest is the limit";
                nat(f, Health::Degraded, reason);
            },
            (Kind::Nat, "n1"),
            "had 16 connections open",
            "raise `nat.connections_per_guest`",
        ),
        case(
            "the namespace is a stranger's",
            GUESTS,
            |f| {
                let reason =
                    "a namespace ns-dhcp-vlan100 is there and was not made by this program; delete or rename it";
                f.says("n1", "dhcp_v100", Health::Failed, reason);
            },
            (Kind::Lease, "n1"),
            "was not made by this program",
            "do on n1 what is said there",
        ),
        case(
            "somebody listens on DHCP's port",
            GUESTS,
            |f| {
                let reason =
                    "dnsmasq does not start: dnsmasq: failed to bind DHCP server socket: Address already in use";
                f.says("n1", "dhcp_v100", Health::Failed, reason);
                dhcp(f, 100, |d| (d.pid, d.current) = (0, false));
            },
            (Kind::Lease, "n1"),
            "Address already in use; the lease is good until it ends",
            "on n1 end what holds DHCP's port there: `ip netns exec ns-dhcp-vlan100 ss -ulnp` names it",
        ),
        case(
            "forwarding cannot be switched on",
            INTERNET,
            |f| {
                let reason = "forwarding: set net/ipv4/ip_forward to 1: Read-only file system (os error 30)";
                nat(f, Health::Failed, reason);
            },
            (Kind::Nat, "n1"),
            "Read-only file system",
            "let the daemon of n1 write /proc/sys/net/ipv4/ip_forward",
        ),
    ]
}
