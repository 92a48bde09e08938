//! What belongs to somebody else, or stands in the way, on a real Open vSwitch, dnsmasq and nftables.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::{desired, dhcp, gateway, nat, on_private_host, run, sysctl, trunk};
use trunkline_proto::resource::State;

#[test]
fn what_belongs_to_somebody_else_is_named_and_never_touched() {
    on_private_host(
        "what_belongs_to_somebody_else_is_named_and_never_touched",
        |lab| async move {
            run(&["nft", "add", "table", "ip", "filter"]);
            run(&[
                "nft",
                "add",
                "chain",
                "ip",
                "filter",
                "FORWARD",
                "{ type filter hook forward priority 0 ; policy drop ; }",
            ]);
            run(&["ip", "netns", "add", "ns-dhcp-vlan120"]);
            run(&[
                "ip",
                "link",
                "add",
                "gw_vlan120",
                "type",
                "veth",
                "peer",
                "name",
                "far120",
            ]);
            let theirs = run(&["ip", "link", "show", "gw_vlan120"]);
            run(&["ip", "link", "add", "lan0", "type", "bridge"]);
            run(&["ip", "link", "set", "lan0", "up"]);
            run(&["ip", "route", "add", "10.64.130.0/25", "dev", "lan0"]);
            run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);

            let wanted = desired([
                trunk(&[110, 120, 130, 400]),
                gateway(110),
                gateway(120),
                dhcp(120, &[]),
                gateway(130),
                dhcp(130, &[]),
                gateway(400),
                nat(),
            ]);
            let mut node = lab.node().await;
            node.pass(&wanted).await;
            let seen = node.pass(&wanted).await;
            let said = |name: &str| (seen.of(name).state, seen.of(name).reason.clone());
            let (state, reason) = said("nat_vlan400");
            assert!(
                state == State::Degraded && reason.contains("ip filter FORWARD"),
                "{reason}"
            );
            let (state, reason) = said("gw_vlan130");
            assert!(
                state == State::Failed && reason.contains("10.64.130.0/25 by lan0"),
                "{reason}"
            );
            let (state, reason) = said("gw_vlan120");
            assert!(
                state == State::Failed && reason.contains("a device gw_vlan120 is there"),
                "{reason}"
            );
            let (state, reason) = said("dhcp_v120");
            assert!(state == State::Failed && reason.contains("ns-dhcp-vlan120"), "{reason}");
            for sibling in ["gw_vlan110", "gw_vlan400", "dhcp_v130", "uplink"] {
                assert_eq!(said(sibling).0, State::Ready, "{sibling}: {:?}", said(sibling));
            }

            run(&["ip", "route", "del", "default"]);
            let seen = node.pass(&wanted).await;
            assert!(seen.of("nat_vlan400").state == State::Degraded);
            run(&["ip", "link", "set", "ens3", "down"]);
            let seen = node.pass(&wanted).await;
            assert_eq!(seen.of("nat_vlan400").reason, "the uplink ens3 is down");
            run(&["ip", "link", "del", "ens3"]);
            let seen = node.pass(&wanted).await;
            assert!(seen.of("nat_vlan400").reason.contains("ens3 does not exist"));

            let seen = node.pass(&desired([trunk(&[])])).await;
            assert!(
                seen.clean,
                "what is not ours is no reason to say that something is left"
            );
            assert_eq!(sysctl("net/ipv4/ip_forward"), "1", "it was on before us");
            assert_eq!(run(&["ip", "link", "show", "gw_vlan120"]), theirs);
            assert!(run(&["ip", "netns", "list"]).contains("ns-dhcp-vlan120"));
            assert!(run(&["nft", "list", "ruleset"]).contains("policy drop"));

            run(&["nft", "add", "table", "inet", "trunkline"]);
            let seen = node.pass(&desired([trunk(&[110]), gateway(110)])).await;
            let (state, reason) = (seen.of("gw_vlan110").state, &seen.of("gw_vlan110").reason);
            assert!(state == State::Failed && reason.contains("inet trunkline"), "{reason}");
            let addresses = run(&["ip", "-br", "addr", "show", "dev", "gw_vlan110"]);
            assert!(
                !addresses.contains("10.64.110.1"),
                "no address while nothing filters it: {addresses}"
            );
        },
    );
}

#[test]
fn a_node_is_not_clean_while_a_blocked_gateway_keeps_its_old_address() {
    on_private_host(
        "a_node_is_not_clean_while_a_blocked_gateway_keeps_its_old_address",
        |lab| async move {
            let wanted = desired([trunk(&[110]), gateway(110)]);
            let mut node = lab.node().await;
            node.until_ready(&wanted).await;
            run(&["ip", "addr", "add", "192.0.2.7/32", "dev", "gw_vlan110"]);
            run(&["ip", "link", "add", "lan0", "type", "bridge"]);
            run(&["ip", "link", "set", "lan0", "up"]);
            run(&["ip", "route", "add", "10.64.110.0/25", "dev", "lan0"]);
            let seen = node.pass(&wanted).await;
            assert!(seen.of("gw_vlan110").state == State::Failed && !seen.clean);
            run(&["ip", "link", "del", "lan0"]);
            assert!(node.until_ready(&wanted).await.clean);
        },
    );
}

#[test]
fn a_strangers_chain_that_ends_in_a_reject_is_named_until_it_knows_our_port() {
    on_private_host(
        "a_strangers_chain_that_ends_in_a_reject_is_named_until_it_knows_our_port",
        |lab| async move {
            let wanted = desired([trunk(&[400]), gateway(400), nat()]);
            let mut node = lab.node().await;
            node.until_ready(&wanted).await;
            let hook = "{ type filter hook forward priority 10 ; policy accept ; }";
            run(&["nft", "add", "table", "inet", "wall"]);
            run(&["nft", "add", "chain", "inet", "wall", "pass", hook]);
            let rule = |rule: &str| run(&["nft", &format!("add rule inet wall pass {rule}")]);
            rule("iifname eth7 drop");
            assert_eq!(node.pass(&wanted).await.problems(), []);
            rule("counter reject with icmpx admin-prohibited");
            let seen = node.pass(&wanted).await;
            let nat = seen.of("nat_vlan400");
            assert!(
                nat.state == State::Degraded && nat.reason.contains("inet wall pass"),
                "{}",
                nat.reason
            );
            run(&["nft", "insert rule inet wall pass iifname gw_vlan400 accept"]);
            assert_eq!(node.pass(&wanted).await.problems(), []);
        },
    );
}
