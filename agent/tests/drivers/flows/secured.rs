//! Secured links and VLAN 400.

use super::*;

#[test]
fn on_a_secured_link_a_guest_is_only_itself() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        let (c, d, other) = (mac("c").octets(), mac("d").octets(), [2, 0, 0, 0, 0, 9]);
        let all: &[&str] = &["d", "up/120"];
        let ask = |from, sender| arp(ALL, from, 1, sender, ip("d"));
        rig.expect("ARP as itself", "c", &ask(c, (c, ip("c"))), all).await;
        rig.expect("ARP probe", "c", &ask(c, (c, NOWHERE)), all).await;
        rig.expect("ARP with the gateway's address", "c", &ask(c, (c, GATEWAY)), &[])
            .await;
        rig.expect("ARP with another sender MAC", "c", &ask(c, (d, ip("c"))), &[])
            .await;
        rig.expect("ARP from another source MAC", "c", &ask(other, (other, ip("c"))), &[])
            .await;
        rig.expect("another source MAC", "c", &frame(d, other, 0x9999, &[]), &[])
            .await;
        let from = |source, rest: &[u8]| ipv4(ALL, c, (source, EVERYWHERE), 17, false, rest);
        rig.expect("IPv4 as itself", "c", &from(ip("c"), &udp((5000, 53))), all)
            .await;
        rig.expect("IPv4 of another guest", "c", &from(ip("d"), &udp((5000, 53))), &[])
            .await;
        rig.expect("a DHCP request", "c", &from(NOWHERE, &udp((68, 67))), all)
            .await;
        rig.expect(
            "from nowhere, but no DHCP request",
            "c",
            &from(NOWHERE, &udp((5000, 53))),
            &[],
        )
        .await;
        rig.expect("a DHCP reply", "c", &from(ip("c"), &udp((67, 68))), &[])
            .await;
        rig.expect(
            "a DHCP reply from another port",
            "c",
            &from(ip("c"), &udp((4000, 68))),
            &[],
        )
        .await;
        let hidden = ipv4(ALL, c, (ip("c"), EVERYWHERE), 17, true, &udp((67, 68)));
        rig.expect("a DHCP reply in fragments", "c", &hidden, &[]).await;
        let icmp = |kind: u8| ipv4(d, c, (ip("c"), ip("d")), 1, false, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        rig.hear("d", &frame(ALL, d, 0x9999, &[])).await;
        rig.expect("a ping", "c", &icmp(8), &["d"]).await;
        rig.expect("an ICMP redirect", "c", &icmp(5), &[]).await;
        let icmp6 = |kind: u8| ipv6(IPV6_ALL, c, 58, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        rig.expect("IPv6 neighbour solicitation", "c", &icmp6(135), all).await;
        rig.expect("a router advertisement", "c", &icmp6(134), &[]).await;
        rig.expect("an ICMPv6 redirect", "c", &icmp6(137), &[]).await;
        let behind = ipv6(IPV6_ALL, c, 60, &[58, 0, 1, 4, 0, 0, 0, 0, 134, 0, 0, 0, 0, 0, 0, 0]);
        rig.expect("a router advertisement behind an option header", "c", &behind, &[])
            .await;
        let part = ipv6(IPV6_ALL, c, 44, &[58, 0, 0, 1, 0, 0, 0, 1, 134, 0, 0, 0, 0, 0, 0, 0]);
        rig.expect("a router advertisement in fragments", "c", &part, &[]).await;
    });
}

#[test]
fn on_vlan_400_there_are_only_the_gateway_and_the_dhcp_server() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        let (e, f) = (mac("e").octets(), mac("f").octets());
        let gateway = Mac::of_gateway(VlanId::INTERNET).octets();
        let dhcp = Mac::of_dhcp(VlanId::INTERNET).octets();
        let far = [0x52, 0x54, 0, 0, 9, 9];
        let out: &[&str] = &["up/400"];
        let server = Ipv4Addr::new(10, 0, 0, 254);
        let ping = |to, addresses| ipv4(to, e, addresses, 1, false, &[8, 0, 0, 0, 0, 0, 0, 0]);
        rig.expect("to the gateway", "e", &ping(gateway, (ip("e"), GATEWAY)), out)
            .await;
        rig.expect(
            "to the gateway as another",
            "e",
            &ping(gateway, (ip("f"), GATEWAY)),
            &[],
        )
        .await;
        rig.expect("to a guest here", "e", &ping(f, (ip("e"), ip("f"))), &[])
            .await;
        rig.expect("to a guest elsewhere", "e", &ping(far, (ip("e"), ip("f"))), &[])
            .await;
        rig.expect("to all", "e", &ping(ALL, (ip("e"), EVERYWHERE)), &[]).await;
        let ask = |sender, target| arp(ALL, e, 1, (e, sender), target);
        rig.expect("who has the gateway", "e", &ask(ip("e"), GATEWAY), out)
            .await;
        rig.expect("who has another guest", "e", &ask(ip("e"), ip("f")), &[])
            .await;
        rig.expect("who has the gateway, as another", "e", &ask(ip("f"), GATEWAY), &[])
            .await;
        rig.expect("I am the gateway", "e", &arp(ALL, e, 2, (e, GATEWAY), GATEWAY), &[])
            .await;
        let discover = ipv4(ALL, e, (NOWHERE, EVERYWHERE), 17, false, &udp((68, 67)));
        rig.expect("DHCP discover", "e", &discover, out).await;
        let offer = ipv4(ALL, e, (ip("e"), EVERYWHERE), 17, false, &udp((67, 68)));
        rig.expect("DHCP offer by a guest", "e", &offer, &[]).await;
        let advertisement = ipv6(IPV6_ALL, e, 58, &[134, 0, 0, 0, 0, 0, 0, 0]);
        rig.expect("router advertisement", "e", &advertisement, &[]).await;
        rig.expect("as the gateway's MAC", "e", &frame(dhcp, gateway, IPV4, &[]), &[])
            .await;

        let coming = |frame: Vec<u8>| tagged(400, &frame);
        rig.expect(
            "from the gateway",
            UPLINK,
            &coming(frame(e, gateway, IPV4, &[])),
            &["e"],
        )
        .await;
        rig.expect("from a guest elsewhere", UPLINK, &coming(frame(e, far, IPV4, &[])), &[])
            .await;
        let who = |target| coming(arp(ALL, gateway, 1, (gateway, GATEWAY), target));
        rig.expect("the gateway asks who has e", UPLINK, &who(ip("e")), &["e"])
            .await;
        rig.expect("the gateway asks who has nobody", UPLINK, &who(ip("a")), &[])
            .await;
        let far_asks = coming(arp(ALL, far, 1, (far, ip("g")), ip("e")));
        rig.expect("a guest elsewhere asks who has e", UPLINK, &far_asks, &[])
            .await;
        let reply = |from, source| coming(ipv4(ALL, from, (source, EVERYWHERE), 17, false, &udp((67, 68))));
        rig.expect("DHCP reply to all", UPLINK, &reply(dhcp, server), &["e", "f"])
            .await;
        rig.expect("DHCP reply by a guest elsewhere", UPLINK, &reply(far, server), &[])
            .await;
    });
}
