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

/// A neighbour solicitation or advertisement for `fe80::9` with options of a kind that name MACs.
fn neighbour(kind: u8, code: u8, options: &[(u8, [u8; 6])]) -> Vec<u8> {
    let target = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let mut message = [&[kind, code, 0, 0, 0, 0, 0, 0][..], &target].concat();
    for (option, mac) in options {
        message.extend([*option, 1]);
        message.extend(mac);
    }
    message
}

#[test]
fn in_neighbour_discovery_a_guest_of_a_secured_link_names_its_own_mac_or_none() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        let (c, d) = (mac("c").octets(), mac("d").octets());
        let all: &[&str] = &["d", "up/120"];
        let from_c = |message: &[u8]| ipv6(IPV6_ALL, c, 58, message);
        for (kind, option) in [(135, 1), (136, 2)] {
            let mut say = async |rule: &str, message: &[u8], wanted: &[&str]| {
                rig.expect(rule, "c", &from_c(message), wanted).await;
            };
            say("its own MAC", &neighbour(kind, 0, &[(option, c)]), all).await;
            say("no MAC", &neighbour(kind, 0, &[]), all).await;
            say("another's MAC", &neighbour(kind, 0, &[(option, d)]), &[]).await;
            let twice = neighbour(kind, 0, &[(option, d), (option, c)]);
            say("another's MAC and its own", &twice, &[]).await;
            let twice = neighbour(kind, 0, &[(option, d), (option, d)]);
            say("another's MAC twice", &twice, &[]).await;
            say(
                "another's MAC after a nonce",
                &neighbour(kind, 0, &[(14, [0; 6]), (option, d)]),
                &[],
            )
            .await;
            say("a code that is none", &neighbour(kind, 1, &[(option, d)]), &[]).await;
            say("cut short", &[kind, 0, 0, 0, 0, 0, 0, 0], &[]).await;
            let other = ipv6(IPV6_ALL, [2, 0, 0, 0, 0, 9], 58, &neighbour(kind, 0, &[(option, c)]));
            rig.expect("from another source MAC", "c", &other, &[]).await;
            let behind = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &neighbour(kind, 0, &[(option, d)])].concat();
            rig.expect("behind an option header", "c", &ipv6(IPV6_ALL, c, 60, &behind), &[])
                .await;
        }
        rig.expect("other ICMPv6", "c", &from_c(&[128, 0, 0, 0, 0, 0, 0, 0]), all)
            .await;
        // On an open link labs do as they like.
        let free = ipv6(IPV6_ALL, mac("a").octets(), 58, &neighbour(136, 0, &[(2, d)]));
        rig.expect("another's MAC on an open link", "a", &free, &["b", "g", "up/110"])
            .await;
    });
}
