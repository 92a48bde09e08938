//! Packets in fragments: honest ones pass everywhere, others do not on links that are secured.

use super::*;

/// Bytes of a fragment that is not the last one.
const PART: usize = 1200;

/// Two parts of a UDP datagram and of a large ping, in IPv4 and IPv6.
fn honest(to: [u8; 6], from: [u8; 6], addresses: (Ipv4Addr, Ipv4Addr)) -> Vec<(&'static str, Vec<u8>)> {
    let rest = [7; PART];
    let begin = |head: &[u8]| [head, &rest].concat()[..PART].to_vec();
    let datagram = begin(&udp((4000, 4000)));
    let place = u8::try_from(PART / 8).unwrap();
    let v4 = |protocol, more, place, rest: &[u8]| ipv4_part(to, from, addresses, protocol, (more, place), rest);
    vec![
        ("a datagram's first part", v4(17, true, 0, &datagram)),
        ("a datagram's second part", v4(17, true, place, &rest)),
        ("a datagram's last part", v4(17, false, place, &[7; 16])),
        ("a ping's first part", v4(1, true, 0, &begin(&[8, 0, 0, 0, 0, 1, 0, 1]))),
        (
            "a ping answer's first part",
            v4(1, true, 0, &begin(&[0, 0, 0, 0, 0, 1, 0, 1])),
        ),
        ("a ping's last part", v4(1, false, place, &rest)),
    ]
}

fn honest6(to: [u8; 6], from: [u8; 6]) -> Vec<(&'static str, Vec<u8>)> {
    let rest = [7; PART];
    let begin = |head: &[u8]| [head, &rest].concat()[..PART].to_vec();
    let place = u16::try_from(PART / 8).unwrap();
    let echo = |kind| begin(&[kind, 0, 0, 0, 0, 1, 0, 1]);
    let v6 = |what, rest: &[u8]| ipv6_part(to, from, what, rest);
    vec![
        (
            "IPv6: a datagram's first part",
            v6((17, true, 0), &begin(&udp((4000, 4000)))),
        ),
        ("IPv6: a datagram's last part", v6((17, false, place), &rest)),
        ("IPv6: a ping's first part", v6((58, true, 0), &echo(128))),
        ("IPv6: a ping answer's first part", v6((58, true, 0), &echo(129))),
        ("IPv6: a ping's last part", v6((58, false, place), &rest)),
    ]
}

#[test]
fn honest_fragments_pass_on_open_and_secured_links_and_to_the_gateway() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        let d = mac("d").octets();
        rig.hear("d", &frame(ALL, d, 0x9999, &[])).await;
        for (from, to) in [("a", "b"), ("c", "d")] {
            let (target, source) = (mac(to).octets(), mac(from).octets());
            let parts = honest(target, source, (ip(from), ip(to)));
            for (what, frame) in parts.into_iter().chain(honest6(target, source)) {
                rig.expect(what, from, &frame, &[to]).await;
            }
        }
        let (e, gateway) = (mac("e").octets(), Mac::of_gateway(VlanId::INTERNET).octets());
        for (what, frame) in honest(gateway, e, (ip("e"), GATEWAY)) {
            rig.expect(what, "e", &frame, &["up/400"]).await;
        }
        for (what, frame) in honest(e, gateway, (GATEWAY, ip("e"))) {
            rig.expect(what, UPLINK, &tagged(400, &frame), &["e"]).await;
        }
    });
}

#[test]
fn on_a_secured_link_nobody_plays_server_or_router_in_fragments() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        let (c, d) = (mac("c").octets(), mac("d").octets());
        rig.hear("d", &frame(ALL, d, 0x9999, &[])).await;
        let v4 = |source, protocol, part, rest: &[u8]| ipv4_part(d, c, (source, ip("d")), protocol, part, rest);
        let v6 = |what, rest: &[u8]| ipv6_part(d, c, what, rest);
        let redirect = v4(ip("c"), 1, (true, 0), &[&[5, 1, 0, 0][..], &[0; 28]].concat());
        let neighbour = [&[136, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16], &[2, 1], &c].concat();
        for (what, frame) in [
            (
                "a DHCP answer's first part",
                v4(ip("c"), 17, (true, 0), &udp((67, 4000))[..16]),
            ),
            ("a DHCP answer's ports", v4(ip("c"), 17, (true, 0), &udp((67, 68))[..8])),
            (
                "half of a DHCP answer's ports",
                v4(ip("c"), 17, (true, 0), &udp((67, 68))[..4]),
            ),
            ("a redirect's first part", redirect.clone()),
            ("a later part of another's", v4(ip("b"), 17, (false, 8), &[0; 32])),
            (
                "a DHCPv6 answer's first part",
                v6((17, true, 0), &udp((4000, 546))[..16]),
            ),
            (
                "a router's first part",
                v6((58, true, 0), &[&[134][..], &[0; 15]].concat()),
            ),
            ("a neighbour's first part", v6((58, true, 0), &neighbour)),
            ("options before a router", v6((60, true, 0), &[58, 0, 1, 4, 0, 0, 0, 0])),
            ("options before a server", v6((60, true, 0), &[17, 0, 1, 4, 0, 0, 0, 0])),
            (
                "options that do not end",
                v6((60, true, 0), &[&[58, 8, 1, 68][..], &[0; 28]].concat()),
            ),
            (
                "options before another fragment",
                v6((60, true, 0), &[44, 0, 1, 4, 0, 0, 0, 0]),
            ),
        ] {
            rig.expect(what, "c", &frame, &[]).await;
        }
        let to_all = ipv4_part(ALL, c, (ip("c"), EVERYWHERE), 17, (false, 8), &[0; 32]);
        rig.expect("a later part to all", "c", &to_all, &[]).await;

        // As ovs-vswitchd is by itself, even a first part shows nothing.
        ofctl("set-frags", &["normal"]);
        // The datapath remembers that it dropped one, until ovs-vswitchd has gone over it.
        let deadline = Instant::now() + LIMIT;
        while rig.hear("c", &redirect).await.is_empty() {
            assert!(Instant::now() < deadline, "first parts are still looked at");
        }
        rig.expect("a redirect that nobody looks for", "c", &redirect, &["d"])
            .await;
    });
}
