//! The worker on a real Open vSwitch and real TAPs, told what to do by a controller in the test's hands. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, unreachable_pub)]
#[path = "../drivers/stand.rs"]
mod stand;
#[path = "../support/mod.rs"]
mod support;

mod drift;
mod leftovers;

use std::time::Duration;

use stand::{Ovs, alone, eventually, run};
use support::*;
use tokio_util::sync::CancellationToken;
use trunkline_agent::{config::NodeConfig, node, worker};
use trunkline_proto::{
    resource::{Envelope, Facts, State},
    wire::TrunkFacts,
};

/// A host with an uplink, and a controller.
struct Host {
    ovs: Ovs,
    pki: Pki,
    state: tempfile::TempDir,
    controller: Controller,
    adopt: bool,
    alive_every: Duration,
    orphans_after: Duration,
}

impl Host {
    async fn new() -> Self {
        run("ip", &["link", "set", "lo", "up"]);
        // Both ends up, so that the uplink has a carrier.
        run("ip", &["link", "add", "up0", "type", "veth", "peer", "name", "wire0"]);
        run("ip", &["link", "set", "wire0", "up"]);
        let ovs = Ovs::start().await;
        let pki = Pki::new();
        let controller = Controller::start(&pki).await;
        let state = tempfile::tempdir().unwrap();
        Self {
            ovs,
            pki,
            state,
            controller,
            adopt: false,
            // Often, so that a test need not wait.
            alive_every: Duration::from_secs(1),
            orphans_after: Duration::from_secs(1),
        }
    }

    fn config(&self) -> NodeConfig {
        let mut config = config(&self.pki, self.controller.address, self.state.path());
        config.switch.socket = self.ovs.socket();
        config.switch.uplink = Some("up0".to_owned());
        config.switch.adopt = self.adopt;
        config
    }

    fn agent(&self) -> Node {
        self.agent_with(self.config())
    }

    fn agent_with(&self, config: NodeConfig) -> Node {
        let cancel = CancellationToken::new();
        let (every, orphans) = (self.alive_every, self.orphans_after);
        let token = cancel.clone();
        let validate = worker::validate(&config);
        let task = tokio::spawn(async move {
            let build =
                |cx: &node::NodeContext| Ok(worker::Worker::build(cx)?.alive_every(every).orphans_after(orphans));
            node::serve(worker::PROGRAM, config, validate, build, token, || {}).await
        });
        Node::spawn(task, cancel)
    }

    /// A session in which the worker has realised `all` as generation 1.
    async fn with(&mut self, all: &[Envelope]) -> (Node, Session) {
        let agent = self.agent();
        let mut session = self.controller.session().await;
        session.hello().await;
        session.welcome().await;
        session.update(update(0, 1, &[], all)).await;
        session.ack().await;
        session
            .reports_until(|s| all.iter().all(|e| s.is_ready(e)) && s.clean_generation == 1)
            .await;
        (agent, session)
    }

    fn ofctl(&self, command: &str, args: &[&str]) -> String {
        let mut all = vec!["-O", "OpenFlow14", command, "unix:/run/openvswitch/br-int.mgmt"];
        all.extend(args);
        run("ovs-ofctl", &all)
    }

    /// All flows of the bridge, without counters.
    fn flows(&self) -> Vec<String> {
        let text = self.ofctl("dump-flows", &["--no-stats", "--no-names"]);
        let flows = text.lines().filter(|line| line.contains("actions="));
        flows.map(|line| line.trim().to_owned()).collect()
    }

    fn port(&self, name: &str, column: &str) -> String {
        self.ovs.vsctl(&["get", "port", name, column])
    }

    fn ports(&self) -> Vec<String> {
        self.ovs
            .vsctl(&["list-ports", "br-int"])
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

fn devices() -> Vec<String> {
    let text = run("ip", &["-o", "link", "show"]);
    let name = |line: &str| {
        line.split(':')
            .nth(1)
            .map(|n| n.trim().split('@').next().unwrap_or_default().to_owned())
    };
    text.lines()
        .filter_map(name)
        .filter(|n| n.starts_with("tap_"))
        .collect()
}

#[test]
fn a_slice_reaches_taps_and_switch_and_leaves_without_a_trace() {
    alone(async || {
        let mut host = Host::new().await;
        let isolated = support::port_with(1000, None, 1500);
        let all = [
            isolated,
            port(1001, 110),
            port(1002, 111),
            trunk(&[110, 111]),
            flows(110),
            flows(111),
        ];
        let (agent, mut session) = host.with(&all).await;

        assert_eq!(devices(), ["tap_1000_eth1", "tap_1001_eth1", "tap_1002_eth1"]);
        assert_eq!(host.ports(), ["tap_1000_eth1", "tap_1001_eth1", "tap_1002_eth1", "up0"]);
        assert_eq!(host.port("tap_1001_eth1", "tag"), "110");
        assert_eq!(host.port("tap_1000_eth1", "tag"), "0");
        assert_eq!(host.port("tap_1000_eth1", "protected"), "true");
        assert_eq!(host.port("up0", "trunks"), "[110, 111]");

        let fewer = [all[1].clone(), trunk(&[110]), flows(110)];
        session.update(update(1, 2, &all, &fewer)).await;
        let seen = session.reports_until(|s| s.clean_generation == 2).await;
        assert!(seen.is_ready(&fewer[1]));
        assert_eq!(devices(), ["tap_1001_eth1"]);
        assert_eq!(host.port("up0", "trunks"), "[110]");

        session.update(update(2, 3, &fewer, &[trunk(&[])])).await;
        session.reports_until(|s| s.clean_generation == 3).await;
        assert_eq!(devices(), Vec::<String>::new());
        assert_eq!(host.ports(), ["up0"]);
        assert_eq!(host.port("up0", "trunks"), "[4095]");
        assert_eq!(host.flows(), Vec::<String>::new());
        agent.stop().await;
    });
}

#[test]
fn what_is_reported_was_read_back() {
    alone(async || {
        let mut host = Host::new().await;
        host.ovs.vsctl(&["set", "Open_vSwitch", ".", "ovs_version=3.1.0-lab"]);
        let agent = host.agent();
        let mut session = host.controller.session().await;
        let facts = session.hello().await.facts.unwrap();
        assert_eq!((&*facts.datapath, &*facts.uplink), ("netdev", "up0"));
        assert_eq!(facts.ovs_version, "3.1.0-lab");
        session.welcome().await;
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        session.update(update(0, 1, &[], &all)).await;
        let seen = session.reports_until(|s| all.iter().all(|e| s.is_ready(e))).await;
        let Some(Facts::Port(port)) = &seen.items["port tap_1001_eth1"].facts else {
            panic!("no facts")
        };
        assert!(port.exists && port.up && port.ofport > 0, "{port:?}");
        assert_eq!((port.tag, port.carrier), (110, false));
        let trunk = TrunkFacts {
            interface: "up0".to_owned(),
            vlans: vec![110],
            up: true,
        };
        assert_eq!(seen.items["trunk uplink"].facts, Some(Facts::Trunk(trunk)));
        agent.stop().await;
    });
}

#[test]
fn what_somebody_breaks_is_mended_at_once() {
    alone(async || {
        let mut host = Host::new().await;
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, _session) = host.with(&all).await;
        for break_it in [
            &["ovs-vsctl", "set", "port", "tap_1001_eth1", "tag=7"][..],
            &["ovs-vsctl", "del-port", "br-int", "tap_1001_eth1"],
            &["ovs-vsctl", "set", "port", "up0", "trunks=[]"],
            &["ip", "link", "set", "tap_1001_eth1", "down"],
            &["ip", "link", "del", "tap_1001_eth1"],
        ] {
            match break_it {
                ["ovs-vsctl", args @ ..] => drop(host.ovs.vsctl(args)),
                [program, args @ ..] => drop(run(program, args)),
                [] => unreachable!(),
            }
            eventually("everything again", async || {
                let up = devices() == ["tap_1001_eth1"]
                    && run("ip", &["-br", "link", "show", "tap_1001_eth1"]).contains(",UP");
                let there = host.ports() == ["tap_1001_eth1", "up0"];
                let right =
                    there && host.port("tap_1001_eth1", "tag") == "110" && host.port("up0", "trunks") == "[110]";
                let taken = there && host.ovs.vsctl(&["get", "interface", "tap_1001_eth1", "error"]) == "[]";
                (up && right && taken)
                    .then_some(())
                    .ok_or(format!("after {break_it:?}"))
            })
            .await;
        }
        agent.stop().await;
    });
}

#[test]
fn the_data_plane_stays_when_the_agent_ends_and_nothing_is_made_anew_when_it_returns() {
    alone(async || {
        let mut host = Host::new().await;
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, session) = host.with(&all).await;
        let before = (
            run("ip", &["-o", "link", "show", "tap_1001_eth1"]),
            host.port("tap_1001_eth1", "_uuid"),
        );
        drop(session);
        agent.stop().await;
        assert_eq!(host.ports(), ["tap_1001_eth1", "up0"]);

        let agent = host.agent();
        let mut session = host.controller.session().await;
        assert_eq!(session.hello().await.generation, 1);
        session.welcome().await;
        session
            .reports_until(|s| s.complete && all.iter().all(|e| s.is_ready(e)))
            .await;
        let after = (
            run("ip", &["-o", "link", "show", "tap_1001_eth1"]),
            host.port("tap_1001_eth1", "_uuid"),
        );
        assert_eq!(before, after);
        agent.stop().await;
    });
}

#[test]
fn a_strangers_device_is_not_taken_and_its_siblings_go_on() {
    alone(async || {
        let mut host = Host::new().await;
        run("ip", &["tuntap", "add", "tap_1001_eth1", "mode", "tap"]);
        let all = [port(1001, 110), port(1002, 110), trunk(&[110]), flows(110)];
        let agent = host.agent();
        let mut session = host.controller.session().await;
        session.hello().await;
        session.welcome().await;
        session.update(update(0, 1, &[], &all)).await;
        let seen = session
            .reports_until(|s| s.is_ready(&all[1]) && s.state("port tap_1001_eth1") == Some(State::Failed))
            .await;
        assert!(
            seen.items["port tap_1001_eth1"]
                .reason
                .contains("not made by Trunkline"),
            "{seen:#?}"
        );
        assert_eq!(host.ports(), ["tap_1002_eth1", "up0"]);
        agent.stop().await;
    });
}

#[test]
fn a_strangers_bridge_is_refused_by_name() {
    alone(async || {
        let mut host = Host::new().await;
        host.ovs.vsctl(&[
            "add-br",
            "br-int",
            "--",
            "set",
            "bridge",
            "br-int",
            "datapath_type=netdev",
        ]);
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let agent = host.agent();
        let mut session = host.controller.session().await;
        session.hello().await;
        session.welcome().await;
        session.update(update(0, 1, &[], &all)).await;
        let seen = session.reports_until(|s| s.items.len() == 3).await;
        for (key, seen) in &seen.items {
            assert_eq!(seen.state, State::Failed, "{key}");
            assert!(seen.reason.contains("adopt = true"), "{}", seen.reason);
        }
        assert_eq!(host.ports(), Vec::<String>::new());
        agent.stop().await;
    });
}

#[test]
fn a_switch_that_is_away_is_unknown_and_found_again() {
    alone(async || {
        let mut host = Host::new().await;
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, mut session) = host.with(&all).await;
        host.ovs.stop_server();
        session
            .reports_until(|s| s.state("port tap_1001_eth1") == Some(State::Unknown))
            .await;
        host.ovs.start_server().await;
        session.reports_until(|s| s.is_ready(&all[0])).await;
        agent.stop().await;
    });
}

#[test]
fn a_dead_switch_daemon_is_noticed_though_its_database_lives_on() {
    alone(async || {
        let mut host = Host::new().await;
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, mut session) = host.with(&all).await;
        host.ovs.kill_vswitchd();
        let seen = session
            .reports_until(|s| s.state("port tap_1001_eth1") == Some(State::Unknown))
            .await;
        assert!(
            seen.items["port tap_1001_eth1"].reason.contains("ovs-vswitchd"),
            "{seen:#?}"
        );
        host.ovs.start_vswitchd();
        session.reports_until(|s| all.iter().all(|e| s.is_ready(e))).await;
        agent.stop().await;
    });
}

#[test]
fn three_hundred_ports_come_and_go_in_one_transaction_each() {
    alone(async || {
        let mut host = Host::new().await;
        let mut all: Vec<_> = (0..300).map(|n| port(1000 + n, 101 + n)).collect();
        all.push(trunk(&(101..401).collect::<Vec<_>>()));
        // 400 is internet's, whose rules are others.
        all.extend((101..400).map(flows));
        all.remove(299);
        let began = std::time::Instant::now();
        let (agent, mut session) = host.with(&all).await;
        let came = began.elapsed();
        assert_eq!(devices().len(), 299);
        session.update(update(1, 2, &all, &[trunk(&[])])).await;
        session.reports_until(|s| s.clean_generation == 2).await;
        println!("came {came:?}, went {:?}", began.elapsed() - came);
        assert_eq!(devices().len(), 0);
        agent.stop().await;
    });
}

/// In which order row and flows came cannot be seen afterwards, so flows are made impossible.
#[test]
fn a_guests_port_waits_for_its_flows() {
    alone(async || {
        let mut host = Host::new().await;
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, mut session) = host.with(&all).await;
        // From now on the switch refuses the version that we speak, and with it every new flow.
        host.ovs.vsctl(&["set", "bridge", "br-int", "protocols=OpenFlow10"]);
        let more = [
            all[0].clone(),
            port(1002, 111),
            trunk(&[110, 111]),
            flows(110),
            flows(111),
        ];
        session.update(update(1, 2, &all, &more)).await;
        let seen = session
            .reports_until(|s| {
                s.items
                    .get("port tap_1002_eth1")
                    .is_some_and(|o| o.reason.contains("waits for its flows"))
            })
            .await;
        assert!(!seen.is_ready(&more[1]));
        assert_eq!(host.ports(), ["tap_1001_eth1", "up0"]);

        host.ovs.vsctl(&["clear", "bridge", "br-int", "protocols"]);
        session.reports_until(|s| more.iter().all(|e| s.is_ready(e))).await;
        assert_eq!(host.ports(), ["tap_1001_eth1", "tap_1002_eth1", "up0"]);
        agent.stop().await;
    });
}

#[test]
fn the_bridge_is_secure_and_a_port_has_the_number_that_its_flows_name() {
    alone(async || {
        let mut host = Host::new().await;
        let (agent, _session) = host.with(&[port(1001, 110), trunk(&[110]), flows(110)]).await;
        assert_eq!(host.ovs.vsctl(&["get", "bridge", "br-int", "fail_mode"]), "secure");
        let of = |column| host.ovs.vsctl(&["get", "interface", "tap_1001_eth1", column]);
        assert_eq!(of("ofport"), of("ofport_request"));
        let named = format!("in_port={}", of("ofport"));
        assert!(
            host.flows().iter().any(|flow| flow.contains(&named)),
            "{:#?}",
            host.flows()
        );
        agent.stop().await;
    });
}

#[test]
fn an_adopted_bridge_becomes_secure_on_a_worker() {
    alone(async || {
        let mut host = Host::new().await;
        host.ovs.vsctl(&[
            "add-br",
            "br-int",
            "--",
            "set",
            "bridge",
            "br-int",
            "datapath_type=netdev",
        ]);
        host.adopt = true;
        let (agent, _session) = host.with(&[port(1001, 110), trunk(&[110]), flows(110)]).await;
        assert_eq!(host.ovs.vsctl(&["get", "bridge", "br-int", "fail_mode"]), "secure");
        agent.stop().await;
    });
}

#[test]
fn flows_that_are_deleted_or_lost_are_back_at_once() {
    alone(async || {
        let mut host = Host::new().await;
        // Looks of its own come too seldom to be what mends it.
        host.alive_every = Duration::from_secs(600);
        let all = [port(1001, 110), trunk(&[110]), flows_with(110, Some(50))];
        let (agent, _session) = host.with(&all).await;
        let before = host.flows();
        assert!(before.len() > 10, "{before:#?}");

        let back = async |host: &Host, what: &str| {
            eventually(what, async || match host.flows() {
                now if now == before => Ok(()),
                now => Err(now),
            })
            .await;
        };
        host.ofctl("del-flows", &[]);
        back(&host, "flows after del-flows").await;
        host.ofctl("del-flows", &["table=0"]);
        back(&host, "flows of one table").await;

        host.ovs.kill_vswitchd();
        host.ovs.start_vswitchd();
        eventually("the switch again", async || {
            let socket = std::path::Path::new("/run/openvswitch/br-int.mgmt");
            tokio::net::UnixStream::connect(socket).await
        })
        .await;
        back(&host, "flows after a restart").await;
        let meters = host.ofctl("dump-meters", &[]);
        assert!(meters.contains("rate=50"), "{meters}");
        agent.stop().await;
    });
}

#[test]
fn flows_of_others_are_kept_and_named() {
    alone(async || {
        let mut host = Host::new().await;
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, mut session) = host.with(&all).await;
        let theirs = "table=0,priority=999,tcp,actions=NORMAL";
        host.ofctl("add-flow", &[theirs]);
        let seen = session
            .reports_until(|s| s.state("flows flows_vlan110") == Some(State::Degraded))
            .await;
        let reason = &seen.items["flows flows_vlan110"].reason;
        assert!(
            reason.contains("flows of others on br-int") && reason.contains("priority=999"),
            "{reason}"
        );
        let kept = |host: &Host| host.flows().iter().any(|flow| flow.contains("priority=999"));
        assert!(kept(&host));

        run(
            "ovs-ofctl",
            &[
                "-O",
                "OpenFlow14",
                "--strict",
                "del-flows",
                "unix:/run/openvswitch/br-int.mgmt",
                "table=0,priority=999,tcp",
            ],
        );
        // What did not change is not told again.
        session.reports_until(|s| s.is_ready(&all[2])).await;
        agent.stop().await;
    });
}

#[test]
fn a_guest_without_the_rules_of_its_vlan_is_shut() {
    alone(async || {
        let mut host = Host::new().await;
        let all = [port(1001, 110), trunk(&[110])];
        let agent = host.agent();
        let mut session = host.controller.session().await;
        session.hello().await;
        session.welcome().await;
        session.update(update(0, 1, &[], &all)).await;
        let seen = session
            .reports_until(|s| s.state("port tap_1001_eth1") == Some(State::Failed) && s.is_ready(&all[1]))
            .await;
        let reason = &seen.items["port tap_1001_eth1"].reason;
        assert!(reason.contains("shut"), "{reason}");
        let number = host.ovs.vsctl(&["get", "interface", "tap_1001_eth1", "ofport"]);
        let from = host.flows().into_iter().filter(|flow| {
            flow.contains(&format!("in_port={number} ")) || flow.contains(&format!("in_port={number},"))
        });
        let from: Vec<_> = from.collect();
        assert!(
            !from.is_empty() && from.iter().all(|flow| flow.ends_with("actions=drop")),
            "{from:#?}"
        );
        agent.stop().await;
    });
}

#[test]
fn what_leaves_takes_its_flows_and_meters_along() {
    alone(async || {
        let mut host = Host::new().await;
        let limited = flows_with(111, Some(50));
        let all = [
            port(1001, 110),
            port(1002, 111),
            trunk(&[110, 111]),
            flows(110),
            limited,
        ];
        let (agent, mut session) = host.with(&all).await;
        assert!(host.ofctl("dump-meters", &[]).contains("rate=50"));
        let number = host.ovs.vsctl(&["get", "interface", "tap_1002_eth1", "ofport"]);
        let fewer = [all[0].clone(), trunk(&[110]), flows(110)];
        session.update(update(1, 2, &all, &fewer)).await;
        session.reports_until(|s| s.clean_generation == 2).await;
        let left = host.flows();
        assert!(
            !left
                .iter()
                .any(|flow| flow.contains(&format!("in_port={number},")) || flow.contains("dl_vlan=111")),
            "{left:#?}"
        );
        assert!(!host.ofctl("dump-meters", &[]).contains("rate"));

        session.update(update(2, 3, &fewer, &[])).await;
        session.reports_until(|s| s.clean_generation == 3).await;
        assert_eq!(host.flows(), Vec::<String>::new());
        agent.stop().await;
    });
}
