//! Open links, and guests that reach nothing.

use super::*;

#[test]
fn on_an_open_link_the_vlan_is_the_border_and_control_frames_stay_out() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        let (a, b, c) = (mac("a").octets(), mac("b").octets(), mac("c").octets());
        rig.expect("unicast to a known end", "a", &frame(b, a, IPV4, &[]), &["b"])
            .await;
        rig.expect("broadcast", "a", &frame(ALL, a, IPV4, &[]), &["b", "g", "up/110"])
            .await;
        rig.expect(
            "a MAC of another slice",
            "a",
            &frame(c, a, IPV4, &[]),
            &["b", "g", "up/110"],
        )
        .await;
        rig.expect(
            "another source MAC",
            "a",
            &frame(b, [2, 0, 0, 0, 0, 9], IPV4, &[]),
            &["b"],
        )
        .await;
        for (what, made) in [
            ("a MAC of another guest", b),
            ("a MAC of another slice", c),
            ("a MAC of a gateway", Mac::of_gateway(vlan(120)).octets()),
            ("a MAC of a DHCP server", Mac::of_dhcp(vlan(400)).octets()),
        ] {
            rig.expect(what, "a", &frame(ALL, made, IPV4, &[]), &[]).await;
        }
        rig.expect("a group source MAC", "a", &frame(b, [3, 0, 0, 0, 0, 9], IPV4, &[]), &[])
            .await;
        let offer = ipv4(ALL, a, (ip("a"), EVERYWHERE), 17, false, &udp((67, 68)));
        rig.expect("a DHCP server of the lab", "a", &offer, &["b", "g", "up/110"])
            .await;
        let advertisement = ipv6(IPV6_ALL, a, 58, &[134, 0, 0, 0, 0, 0, 0, 0]);
        rig.expect(
            "a router advertisement of the lab",
            "a",
            &advertisement,
            &["b", "g", "up/110"],
        )
        .await;
        for (what, to, kind) in [
            ("spanning tree", [1, 0x80, 0xc2, 0, 0, 0], 0x0027),
            ("pause", [1, 0x80, 0xc2, 0, 0, 1], 0x8808),
            ("pause to an end", b, 0x8808),
            ("LLDP", [1, 0x80, 0xc2, 0, 0, 0xe], 0x88cc),
            ("LLDP to an end", b, 0x88cc),
            ("slow protocols to an end", b, 0x8809),
            ("EAPOL to an end", b, 0x888e),
            ("a loop test to all", ALL, 0x9000),
            ("spanning tree of a provider", [1, 0x80, 0xc2, 0, 0, 0x10], 0x1234),
            ("fault management", [1, 0x80, 0xc2, 0, 0, 0x3f], 0x8902),
            ("ring protection", [1, 0x19, 0xa7, 0, 0, 1], 0x8902),
            ("Cisco's", [1, 0, 0xc, 0xcc, 0xcc, 0xcd], 0x1234),
            ("probe", ALL, 0x88b5),
            ("probe to an end", b, 0x88b5),
        ] {
            rig.expect(what, "a", &frame(to, a, kind, &[]), &[]).await;
            let heard: &[&str] = if kind == 0x88b5 { &["p/110"] } else { &[] };
            let coming = tagged(110, &frame(to, [2, 0, 0, 0, 0, 1], kind, &[]));
            rig.expect(what, UPLINK, &coming, heard).await;
        }
        let one = frame(ALL, [2, 0, 0, 0, 0, 1], IPV4, &[]);
        rig.expect("broadcast", UPLINK, &tagged(110, &one), &["a", "b", "g"])
            .await;
        rig.expect("broadcast, VLAN not carried", UPLINK, &tagged(140, &one), &[])
            .await;
        rig.expect("broadcast without a tag", UPLINK, &one, &[]).await;
    });
}

#[test]
fn no_tag_of_a_guest_leads_anywhere() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        for from in ["a", "c", "e", "x"] {
            let to_all = frame(ALL, mac(from).octets(), IPV4, &[]);
            let first = rig.next;
            let mut all = Vec::new();
            for id in 0..=4095 {
                rig.write(from, &tagged(id, &to_all));
                if id % 100 == 0 {
                    all.extend(rig.round().await);
                }
            }
            for outer in [0, 110, 120, 400, 4095] {
                for inner in [0, 110, 120, 400] {
                    rig.write(from, &tagged(outer, &tagged(inner, &to_all)));
                    let mut provider = tagged(outer, &tagged(inner, &to_all));
                    provider[12..14].copy_from_slice(&[0x88, 0xa8]);
                    rig.write(from, &provider);
                }
            }
            all.extend(rig.round().await);
            // The sentinels are the only frames that came: a to b.
            all.retain(|(name, tag, id)| *id >= first && (name != "b" || tag.is_some()));
            assert_eq!(all, [], "from {from}");
        }
        let to_all = frame(ALL, mac("a").octets(), IPV4, &[]);
        rig.expect("the same without a tag", "a", &to_all, &["b", "g", "up/110"])
            .await;
    });
}

#[test]
fn an_isolated_guest_reaches_nothing_and_nothing_reaches_it() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        // Even when somebody raised the bridge's own device.
        run("ip", &["link", "set", "dev", "br-int", "up"]);
        let local = rig.bridge.ovs.vsctl(&["get", "interface", "br-int", "mac_in_use"]);
        let local: Mac = local.trim_matches('"').parse().unwrap();
        for to in [ALL, mac("y").octets(), mac("a").octets(), local.octets(), IPV6_ALL] {
            let own = frame(to, mac("x").octets(), IPV4, &[]);
            rig.expect("anything", "x", &own, &[]).await;
        }
        rig.expect(
            "to an isolated guest",
            "a",
            &frame(mac("x").octets(), mac("a").octets(), IPV4, &[]),
            &["b", "g", "up/110"],
        )
        .await;
    });
}

#[test]
fn a_slice_that_learns_a_false_mac_poisons_itself_only() {
    alone(|| async {
        let mut rig = Rig::start(&network(StormLimits::default())).await;
        let (c, d) = (mac("c").octets(), mac("d").octets());
        rig.hear("d", &frame(c, d, 0x9999, &[])).await;
        // On another VLAN somebody takes d's MAC.
        rig.expect("a MAC of another slice", "a", &frame(ALL, d, 0x9999, &[]), &[])
            .await;
        rig.expect("to the true one", "c", &frame(d, c, 0x9999, &[]), &["d"])
            .await;
        // A MAC that nobody gave may be on two VLANs at once.
        let lab = [2, 0, 0, 0, 0, 9];
        for from in ["a", UPLINK] {
            let sent = frame(ALL, lab, 0x9999, &[]);
            let sent = if from == UPLINK { tagged(120, &sent) } else { sent };
            rig.hear(from, &sent).await;
        }
        rig.expect(
            "to a lab's own",
            "b",
            &frame(lab, mac("b").octets(), 0x9999, &[]),
            &["a"],
        )
        .await;
        rig.expect(
            "to the same of another slice",
            "c",
            &frame(lab, c, 0x9999, &[]),
            &["up/120"],
        )
        .await;
    });
}
