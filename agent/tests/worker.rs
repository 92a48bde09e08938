//! The worker on a real Open vSwitch and real TAPs, told what to do by a controller in the test's hands. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, unreachable_pub)]
#[path = "drivers/stand.rs"]
mod stand;
mod support;

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
        }
    }

    fn config(&self) -> NodeConfig {
        let mut config = config(&self.pki, self.controller.address, self.state.path());
        config.switch.socket = self.ovs.socket();
        config.switch.uplink = Some("up0".to_owned());
        config
    }

    fn agent(&self) -> Node {
        let config = self.config();
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let validate = worker::validate(&config);
        let task = tokio::spawn(async move {
            // Often, so that a test need not wait.
            let build = |cx: &node::NodeContext| Ok(worker::Worker::build(cx)?.alive_every(Duration::from_secs(1)));
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
        let all = [isolated, port(1001, 110), port(1002, 111), trunk(&[110, 111])];
        let (agent, mut session) = host.with(&all).await;

        assert_eq!(devices(), ["tap_1000_eth1", "tap_1001_eth1", "tap_1002_eth1"]);
        assert_eq!(host.ports(), ["tap_1000_eth1", "tap_1001_eth1", "tap_1002_eth1", "up0"]);
        assert_eq!(host.port("tap_1001_eth1", "tag"), "110");
        assert_eq!(host.port("tap_1000_eth1", "tag"), "0");
        assert_eq!(host.port("tap_1000_eth1", "protected"), "true");
        assert_eq!(host.port("up0", "trunks"), "[110, 111]");

        let fewer = [all[1].clone(), trunk(&[110])];
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
        let all = [port(1001, 110), trunk(&[110])];
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
        let all = [port(1001, 110), trunk(&[110])];
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
        let all = [port(1001, 110), trunk(&[110])];
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
        let all = [port(1001, 110), port(1002, 110), trunk(&[110])];
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
        let all = [port(1001, 110), trunk(&[110])];
        let agent = host.agent();
        let mut session = host.controller.session().await;
        session.hello().await;
        session.welcome().await;
        session.update(update(0, 1, &[], &all)).await;
        let seen = session.reports_until(|s| s.items.len() == 2).await;
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
        let all = [port(1001, 110), trunk(&[110])];
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
        let all = [port(1001, 110), trunk(&[110])];
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
        let began = std::time::Instant::now();
        let (agent, mut session) = host.with(&all).await;
        let came = began.elapsed();
        assert_eq!(devices().len(), 300);
        session.update(update(1, 2, &all, &[trunk(&[])])).await;
        session.reports_until(|s| s.clean_generation == 2).await;
        println!("came {came:?}, went {:?}", began.elapsed() - came);
        assert_eq!(devices().len(), 0);
        agent.stop().await;
    });
}
