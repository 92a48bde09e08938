//! What carries our mark and is wanted by nobody, and what does not carry it.

use super::*;

#[test]
fn what_an_earlier_life_of_the_network_node_left_is_told_of_and_goes_at_a_second_look() {
    on_private_host(
        "leftovers::what_an_earlier_life_of_the_network_node_left_is_told_of_and_goes_at_a_second_look",
        |lab| async move {
            let mut stand = Stand::new(lab).await;
            let (node, session) = stand.with(&all()).await;
            drop(session);
            node.kill().await;
            // The inbox is lost; the next desired state comes from a controller that knows nothing of the link.
            std::fs::remove_file(stand.lab.state_dir().join("inbox")).unwrap();
            // And one gateway's device has lost its row.
            stand.lab.kill_vswitchd();
            stand.lab.vsctl(&["--no-wait", "del-port", "gw_vlan110"]);
            stand.lab.start_vswitchd();
            run(&["ip", "netns", "add", "ns-dhcp-vlan120"]);
            let node = stand.node();
            let mut session = stand.controller.session().await;
            assert_eq!(session.hello().await.generation, 0);
            session.welcome().await;
            let none = [Envelope::seal(&trunk(&[]), "")];
            session.update(update(0, 2, &[], &none)).await;
            let seen = session
                .reports_until(|s| s.orphans.as_ref().is_some_and(|orphans| !orphans.is_empty()))
                .await;
            assert_eq!(
                seen.orphans.unwrap(),
                [
                    "dnsmasq vlan110",
                    "dnsmasq vlan400",
                    "gateway gw_vlan110",
                    "namespace ns-dhcp-vlan110",
                    "namespace ns-dhcp-vlan400",
                    "switch port dhcp_v110",
                    "switch port dhcp_v400",
                    "switch port gw_vlan400",
                ]
            );
            assert_eq!((seen.clean_generation, dnsmasqs()), (0, 2));
            let seen = session.reports_until(|s| s.clean_generation == 2).await;
            assert_eq!(seen.orphans, Some(vec![]));
            assert_eq!(dnsmasqs(), 0);
            let links = run(&["ip", "-br", "link"]);
            assert!(!links.contains("gw_vlan") && !links.contains("dhcp_v"), "{links}");
            assert_eq!(
                run(&["ip", "netns", "list"]).matches("ns-dhcp").count(),
                1,
                "a stranger's stays"
            );
            node.stop().await;
        },
    );
}

#[test]
fn what_does_not_carry_our_mark_is_never_touched_whatever_its_name() {
    on_private_host(
        "leftovers::what_does_not_carry_our_mark_is_never_touched_whatever_its_name",
        |lab| async move {
            let mut stand = Stand::new(lab).await;
            let none = vec![Envelope::seal(&trunk(&[]), "")];
            let (node, mut session) = stand.with(&none).await;
            let lab = &stand.lab;
            run(&["ip", "netns", "add", "ns-dhcp-vlan110"]);
            run(&[
                "ip",
                "link",
                "add",
                "gw_vlan111",
                "type",
                "veth",
                "peer",
                "name",
                "far111",
            ]);
            run(&["ip", "addr", "add", "198.51.100.1/24", "dev", "gw_vlan111"]);
            for (port, ids) in [
                ("gw_vlan112", "external_ids:theirs=1"),
                ("dhcp_v113", "external_ids:trunkline=n2"),
            ] {
                let set = [
                    "--",
                    "set",
                    "interface",
                    port,
                    "type=internal",
                    "--",
                    "set",
                    "port",
                    port,
                    ids,
                ];
                lab.vsctl(&[&["add-port", "br-int", port, "tag=7"], &set[..]].concat());
            }
            run(&["nft", "add", "table", "inet", "trunkline"]);
            let config = lab.file("dnsmasq.conf");
            std::fs::write(
                &config,
                "port=0\ndhcp-range=127.0.0.2,127.0.0.9\ninterface=lo\nbind-interfaces\n",
            )
            .unwrap();
            run(&[
                "dnsmasq",
                &format!("--conf-file={config}"),
                &format!("--pid-file={}", lab.file("theirs.pid")),
            ]);
            let theirs = || {
                let rows = ["gw_vlan112", "dhcp_v113"]
                    .map(|port| lab.vsctl(&["--columns=_uuid,tag,external_ids", "list", "port", port]));
                format!(
                    "{rows:?} {} {} {} {} {}",
                    run(&["ip", "-br", "addr", "show", "gw_vlan111"]),
                    run(&["ip", "-n", "ns-dhcp-vlan110", "link"]),
                    run(&["nft", "list", "ruleset"]),
                    dnsmasqs(),
                    std::fs::read_to_string(lab.file("theirs.pid")).unwrap(),
                )
            };
            let before = theirs();
            let specs = [
                trunk(&[110]),
                gateway(111),
                gateway(112),
                dhcp(110, &[]),
                dhcp(113, &[]),
                gateway(114),
            ];
            let wanted: Vec<_> = specs.iter().map(|spec| Envelope::seal(spec, "")).collect();
            session.update(update(1, 2, &none, &wanted)).await;
            let failed = |s: &controller::Seen, key: &str, word: &str| {
                s.state(key) == Some(State::Failed) && s.items[key].reason.contains(word)
            };
            session
                .reports_until(|s| {
                    failed(s, "gateway gw_vlan111", "was not made by")
                        && failed(s, "gateway gw_vlan112", "was not made by")
                        && failed(s, "dhcp dhcp_v110", "ns-dhcp-vlan110")
                        && failed(s, "dhcp dhcp_v113", "was not made by")
                        && failed(s, "gateway gw_vlan114", "inet trunkline")
                })
                .await;
            session.update(update(2, 3, &wanted, &none)).await;
            let seen = session.reports_until(|s| s.clean_generation == 3).await;
            assert!(seen.orphans.is_none_or(|orphans| orphans.is_empty()));
            assert_eq!(theirs(), before);
            node.stop().await;
            run(&["kill", std::fs::read_to_string(lab.file("theirs.pid")).unwrap().trim()]);
        },
    );
}
