//! What is changed behind the network node's back is put right at once and told of, with its words: on real parts, with a controller
//! in the test's hands.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../agent/tests/support/mod.rs"]
mod controller;
mod support;

use std::time::Duration;

use controller::{Controller, Node, Pki, Session, update};
use support::guest::Guest;
use support::{Lab, dhcp, gateway, nat, on_private_host, reservation, run, succeeds, trunk, wait};
use tokio_util::sync::CancellationToken;
use trunkline_agent::{node, process};
use trunkline_netnode::config::{DhcpSection, NatSection};
use trunkline_netnode::host::{self, NetworkNode};
use trunkline_proto::resource::{Envelope, Facts, State};

struct Stand {
    lab: Lab,
    pki: Pki,
    controller: Controller,
}

impl Stand {
    async fn new(lab: Lab) -> Self {
        let pki = Pki::new();
        let controller = Controller::start(&pki).await;
        Self { lab, pki, controller }
    }

    /// Looks of its own come too seldom to be what mends anything.
    fn node(&self) -> Node {
        let mut config = controller::config(&self.pki, self.controller.address, &self.lab.state_dir());
        config.node.name = "n1".parse().unwrap();
        config.node.bundle = self.pki.bundle("n1");
        config.switch.socket = self.lab.directory.join("db.sock");
        config.switch.uplink = Some("trunk0".to_owned());
        config.switch.datapath = trunkline_agent::config::DatapathChoice::Netdev;
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let task = tokio::spawn(async move {
            let build = |cx: &node::NodeContext| {
                let node = NetworkNode::build(cx, NatSection::default(), DhcpSection::default())?;
                Ok(node
                    .alive_every(Duration::from_secs(600))
                    .orphans_after(Duration::from_secs(3)))
            };
            node::serve(host::PROGRAM, config, host::validate(), build, token, || {}).await
        });
        Node::spawn(task, cancel)
    }

    async fn with(&mut self, all: &[Envelope]) -> (Node, Session) {
        let node = self.node();
        let mut session = self.controller.session().await;
        session.hello().await;
        session.welcome().await;
        session.update(update(0, 1, &[], all)).await;
        session.ack().await;
        session
            .reports_until(|s| all.iter().all(|e| s.is_ready(e)) && s.clean_generation == 1)
            .await;
        (node, session)
    }
}

fn all() -> Vec<Envelope> {
    let guests = [reservation("52:54:00:03:ea:01", "10.64.110.10", "web", false)];
    let internet = [reservation("52:54:00:03:ea:00", "10.60.7.10", "web", false)];
    let specs = [
        trunk(&[110, 400]),
        gateway(110),
        dhcp(110, &guests),
        gateway(400),
        dhcp(400, &internet),
        nat(),
    ];
    specs.iter().map(|spec| Envelope::seal(spec, "")).collect()
}

fn dnsmasqs() -> usize {
    let is_it = |argv: &[String]| argv.first().is_some_and(|name| name.ends_with("dnsmasq"));
    process::find(is_it).unwrap().len()
}

/// What a program says, if only that it cannot.
fn said(argv: &[&str]) -> String {
    let output = std::process::Command::new(argv[0]).args(&argv[1..]).output().unwrap();
    let said = if output.status.success() {
        output.stdout
    } else {
        output.stderr
    };
    String::from_utf8_lossy(&said).into_owned()
}

/// Everything that a pass leaves behind, but for numbers that the kernel chose.
fn picture(lab: &Lab) -> String {
    let without_index = |text: String| {
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let name = words.first().unwrap_or(&"").split('@').next().unwrap_or_default();
            format!("{name} {:?}", words.get(2..))
        };
        let mut lines: Vec<String> = text.lines().map(line).collect();
        lines.sort();
        lines.join("\n")
    };
    let db = format!("--db=unix:{}", lab.file("db.sock"));
    let mut text = without_index(said(&["ip", "-br", "addr"]));
    for vlan in [110, 400] {
        let name = format!("ns-dhcp-vlan{vlan}");
        if succeeds(&["ip", "-n", &name, "link"]) {
            text += &without_index(said(&["ip", "-n", &name, "-br", "addr"]));
        }
        for file in ["dnsmasq.conf", "hosts"] {
            let path = lab.state_dir().join(format!("dhcp/vlan{vlan}/{file}"));
            text += &std::fs::read_to_string(path).unwrap_or_default();
        }
    }
    if succeeds(&[
        "ovs-vsctl",
        &format!("--db=unix:{}", lab.file("db.sock")),
        "br-exists",
        "br-int",
    ]) {
        let columns = ["--columns=name,tag,trunks,vlan_mode", "list", "port"];
        let rows = said(&[&["ovs-vsctl", &db], &columns[..]].concat());
        let mut rows: Vec<String> = rows.split("\n\n").map(|row| row.trim().to_owned()).collect();
        rows.sort();
        text += &rows.join("\n");
        let bridge = format!("unix:{}", lab.file("br-int.mgmt"));
        let flows = said(&["ovs-ofctl", "-O", "OpenFlow14", "dump-flows", &bridge]);
        text += &format!("\n{} flows of ours", flows.matches("cookie=0x54524e4b").count());
    }
    if succeeds(&["nft", "list", "table", "inet", "trunkline"]) {
        text += &said(&["nft", "-s", "list", "table", "inet", "trunkline"]);
    }
    format!(
        "{text}\n{} dnsmasq, ip_forward {}",
        dnsmasqs(),
        support::sysctl("net/ipv4/ip_forward")
    )
}

async fn as_before(lab: &Lab, before: &str, what: &str) {
    let deadline = std::time::Instant::now() + controller::SOON;
    loop {
        let now = picture(lab);
        if now == before {
            return;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{what}:\n{now}\nbefore:\n{before}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn kill_dnsmasq(vlan: u32) {
    let config = format!("vlan{vlan}/dnsmasq.conf");
    let ours = process::find(|argv| argv.iter().any(|arg| arg.ends_with(&config))).unwrap();
    for pid in ours.keys() {
        run(&["kill", "-9", &pid.to_string()]);
    }
    wait("dnsmasq to end", || ours.values().all(|identity| !identity.alive()));
}

fn edit(lab: &Lab, file: &str, line: &str) {
    let path = lab.state_dir().join("dhcp/vlan110").join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, format!("{text}{line}\n")).unwrap();
}

#[test]
fn whatever_is_changed_behind_the_network_nodes_back_is_put_right_and_told_of() {
    on_private_host(
        "whatever_is_changed_behind_the_network_nodes_back_is_put_right_and_told_of",
        |lab| async move {
            let mut stand = Stand::new(lab).await;
            let (node, mut session) = stand.with(&all()).await;
            let lab = &stand.lab;
            let before = picture(lab);
            let (gateway, server, nat) = ("gateway gw_vlan110", "dhcp dhcp_v110", "nat nat_vlan400");
            type Break<'a> = Box<dyn Fn() + 'a>;
            let command = |argv: &'static [&'static str]| -> Break<'_> { Box::new(move || drop(run(argv))) };
            let vsctl = |args: &'static [&'static str]| -> Break<'_> { Box::new(move || drop(lab.vsctl(args))) };
            let table: Vec<(&str, Break<'_>, &str, &str)> = vec![
                (
                    "address",
                    command(&["ip", "addr", "flush", "dev", "gw_vlan110"]),
                    gateway,
                    "gateway address was gone",
                ),
                (
                    "foreign address",
                    command(&["ip", "addr", "add", "192.0.2.7/32", "dev", "gw_vlan110"]),
                    gateway,
                    "its device had the foreign address 192.0.2.7/32",
                ),
                (
                    "down",
                    command(&["ip", "link", "set", "gw_vlan110", "down"]),
                    gateway,
                    "its device was down",
                ),
                (
                    "port",
                    vsctl(&["del-port", "br-int", "gw_vlan110"]),
                    gateway,
                    "the switch port was gone",
                ),
                (
                    "tag",
                    vsctl(&["set", "port", "gw_vlan110", "tag=120"]),
                    gateway,
                    "switch port had tag 120, not 110",
                ),
                (
                    "gateway's device",
                    command(&["ip", "link", "del", "gw_vlan110"]),
                    gateway,
                    "its device was gone",
                ),
                (
                    "DHCP port",
                    vsctl(&["del-port", "br-int", "dhcp_v110"]),
                    server,
                    "the switch port was gone",
                ),
                (
                    "trunk list",
                    vsctl(&["set", "port", "trunk0", "trunks=400"]),
                    "trunk uplink",
                    "uplink's VLAN list lacked 110",
                ),
                (
                    "name of the namespace",
                    command(&["ip", "netns", "del", "ns-dhcp-vlan110"]),
                    server,
                    "the namespace was gone",
                ),
                ("dnsmasq", Box::new(|| kill_dnsmasq(110)), server, "dnsmasq did not run"),
                (
                    "namespace",
                    Box::new(|| {
                        run(&["ip", "netns", "del", "ns-dhcp-vlan110"]);
                        kill_dnsmasq(110);
                    }),
                    server,
                    "the namespace was gone",
                ),
                (
                    "hosts",
                    Box::new(|| edit(lab, "hosts", "52:54:00:03:ea:01,10.64.110.66")),
                    server,
                    "dnsmasq's file was edited (hosts)",
                ),
                (
                    "configuration",
                    Box::new(|| edit(lab, "dnsmasq.conf", "port=53")),
                    server,
                    "dnsmasq's file was edited (dnsmasq.conf)",
                ),
                (
                    "no configuration",
                    Box::new(|| {
                        std::fs::remove_file(lab.state_dir().join("dhcp/vlan110/dnsmasq.conf")).unwrap();
                    }),
                    server,
                    "dnsmasq's file dnsmasq.conf was gone",
                ),
                (
                    "chain",
                    command(&["nft", "flush", "chain", "inet", "trunkline", "forward"]),
                    nat,
                    "nftables table was not as rendered",
                ),
                (
                    "table",
                    command(&["nft", "delete", "table", "inet", "trunkline"]),
                    nat,
                    "nftables table was gone",
                ),
                (
                    "forwarding",
                    command(&["sysctl", "-qw", "net.ipv4.ip_forward=0"]),
                    nat,
                    "ip_forward was off",
                ),
                (
                    "bridge",
                    vsctl(&["del-br", "br-int"]),
                    "trunk uplink",
                    "the bridge br-int was gone",
                ),
                (
                    "flows",
                    Box::new(|| drop(lab.ofctl(&["del-flows"], &[]))),
                    "trunk uplink",
                    "the flow that makes the bridge forward was gone",
                ),
                (
                    "database",
                    Box::new(|| lab.wipe_database()),
                    server,
                    "the switch port was gone",
                ),
                (
                    "ovs-vswitchd",
                    Box::new(|| {
                        lab.kill_vswitchd();
                        lab.start_vswitchd();
                    }),
                    server,
                    "its device was not in its namespace",
                ),
                (
                    "database while ovs-vswitchd is dead",
                    Box::new(|| {
                        lab.kill_vswitchd();
                        lab.wipe_database();
                        lab.start_vswitchd();
                    }),
                    gateway,
                    "the switch port was gone",
                ),
                (
                    "a gateway's row while ovs-vswitchd is dead",
                    Box::new(|| {
                        lab.kill_vswitchd();
                        lab.vsctl(&["--no-wait", "del-port", "gw_vlan110"]);
                        lab.start_vswitchd();
                    }),
                    gateway,
                    "the switch port was gone",
                ),
            ];
            for (name, break_it, key, words) in table {
                println!("{name}");
                let began = std::time::Instant::now();
                break_it();
                let seen = session.reports_until(|s| s.is_repaired(key, words)).await;
                println!("  {:?} {:?}", began.elapsed(), seen.repairs);
                as_before(lab, &before, name).await;
            }
            node.stop().await;
        },
    );
}

/// Not by a look of its own: those are ten minutes apart here.
#[test]
fn the_bridge_forwards_again_when_its_flows_were_deleted_and_flows_of_others_are_named() {
    on_private_host(
        "the_bridge_forwards_again_when_its_flows_were_deleted_and_flows_of_others_are_named",
        |lab| async move {
            let mut stand = Stand::new(lab).await;
            let (node, mut session) = stand.with(&all()).await;
            let lab = &stand.lab;
            let trunk = &all()[0];
            let guest = Guest::plug(lab, "web", 110, "52:54:00:03:ea:01");
            guest.configure(&guest.lease().await.expect("a lease"));
            assert!(guest.pings("10.64.110.1"));
            for _ in 0..3 {
                lab.ofctl(&["del-flows"], &[]);
                let told = "the flow that makes the bridge forward was gone";
                session.reports_until(|s| s.is_repaired("trunk uplink", told)).await;
                assert!(guest.pings("10.64.110.1"));
            }

            let strange = "priority=9,arp,actions=drop";
            lab.ofctl(&["add-flow"], &[strange]);
            let named = |reason: &str| reason.contains("flows of others on br-int") && reason.contains("priority=9");
            let is_named = |seen: &controller::Seen| {
                let trunk = seen.items.get("trunk uplink");
                trunk.is_some_and(|trunk| trunk.state == State::Degraded && named(&trunk.reason))
            };
            session.reports_until(is_named).await;
            assert!(lab.ofctl(&["dump-flows"], &[]).contains("priority=9"), "it is kept");
            lab.ofctl(&["--strict", "del-flows"], &["priority=9,arp"]);
            session.reports_until(|s| s.is_ready(trunk)).await;

            // Open vSwitch's own is back after a restart, ours a moment later.
            lab.kill_vswitchd();
            lab.start_vswitchd();
            wait("both flows", || {
                lab.ofctl(&["dump-flows"], &[]).matches("NORMAL").count() == 2
            });
            node.stop().await;
        },
    );
}

#[test]
fn a_change_that_was_asked_for_and_a_restart_are_no_repair() {
    on_private_host(
        "a_change_that_was_asked_for_and_a_restart_are_no_repair",
        |lab| async move {
            let mut stand = Stand::new(lab).await;
            let (node, mut session) = stand.with(&all()).await;
            let guests = [reservation("52:54:00:03:ea:01", "10.64.110.11", "web", false)];
            let specs = [
                trunk(&[110, 111]),
                gateway(110),
                dhcp(110, &guests),
                gateway(111),
                dhcp(111, &[]),
            ];
            let more: Vec<_> = specs.iter().map(|spec| Envelope::seal(spec, "")).collect();
            for (base, from, to) in [(1, all(), &more), (2, more.clone(), &all())] {
                session.update(update(base, base + 1, &from, to)).await;
                let seen = session.reports_until(|s| s.clean_generation == base + 1).await;
                assert!(seen.repairs.is_empty(), "{:?}", seen.repairs);
            }
            drop(session);
            node.kill().await;
            let node = stand.node();
            let mut session = stand.controller.session().await;
            session.hello().await;
            session.welcome().await;
            let seen = session
                .reports_until(|s| s.complete && all().iter().all(|e| s.is_ready(e)))
                .await;
            assert!(seen.repairs.is_empty(), "{:?}", seen.repairs);
            node.stop().await;
        },
    );
}

#[test]
fn what_an_earlier_life_of_the_network_node_left_is_told_of_and_goes_at_a_second_look() {
    on_private_host(
        "what_an_earlier_life_of_the_network_node_left_is_told_of_and_goes_at_a_second_look",
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
        "what_does_not_carry_our_mark_is_never_touched_whatever_its_name",
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

#[test]
fn leases_are_told_one_by_one() {
    on_private_host("leases_are_told_one_by_one", |lab| async move {
        let mut stand = Stand::new(lab).await;
        let (node, mut session) = stand.with(&all()).await;
        let guest = support::guest::Guest::plug(&stand.lab, "guest", 110, "52:54:00:03:ea:01");
        guest.lease().await.expect("a lease");
        let held = |s: &controller::Seen| match s.items.get("dhcp dhcp_v110").map(|o| o.facts.clone()) {
            Some(Some(Facts::Dhcp(facts))) => facts.held,
            _ => vec![],
        };
        let seen = session.reports_until(|s| !held(s).is_empty()).await;
        let lease = held(&seen).remove(0);
        assert_eq!((&*lease.mac, &*lease.address), ("52:54:00:03:ea:01", "10.64.110.10"));
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!((now + 3000..now + 3700).contains(&lease.expires), "{lease:?}");
        node.stop().await;
    });
}
