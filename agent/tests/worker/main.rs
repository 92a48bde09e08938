//! The worker on a real Open vSwitch and real TAPs, told what to do by a controller in the test's hands. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod drift;
mod guarded;
mod heard;
mod leftovers;
mod middleman;
mod others;
mod ports;
mod refused;
#[allow(dead_code, unreachable_pub)]
#[path = "../drivers/stand.rs"]
mod stand;
mod storms;
#[path = "../support/mod.rs"]
mod support;
#[path = "../drivers/tun.rs"]
mod tun;

use std::{path::PathBuf, time::Duration};

use stand::{Ovs, alone, eventually, run};
use support::*;
use tokio_util::sync::CancellationToken;
use trunkline_agent::{config::NodeConfig, node, worker};
use trunkline_proto::{
    resource::{Envelope, Facts, State},
    wire::TrunkFacts,
};

/// How long the switch may take to answer about flows.
const PATIENCE: Duration = Duration::from_secs(2);

/// A host with an uplink, and a controller.
struct Host {
    ovs: Ovs,
    pki: Pki,
    state: tempfile::TempDir,
    controller: Controller,
    adopt: bool,
    uplink: &'static str,
    /// Where the agent looks for the switch.
    socket: PathBuf,
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
            socket: ovs.socket(),
            ovs,
            pki,
            state,
            controller,
            adopt: false,
            uplink: "up0",
            // Often, so that a test need not wait.
            alive_every: Duration::from_secs(1),
            orphans_after: Duration::from_secs(1),
        }
    }

    fn config(&self) -> NodeConfig {
        let mut config = config(&self.pki, self.controller.address, self.state.path());
        config.switch.socket = self.socket.clone();
        config.switch.uplink = Some(self.uplink.to_owned());
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
            let build = |cx: &node::NodeContext| {
                let worker = worker::Worker::build(cx)?;
                Ok(worker.alive_every(every).orphans_after(orphans).answer_within(PATIENCE))
            };
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

    /// Those of the flows that name a guest's port as the frames' origin.
    fn flows_from(&self, number: &str) -> Vec<String> {
        let (end, more) = (format!("in_port={number} "), format!("in_port={number},"));
        let named = |flow: &String| flow.contains(&end) || flow.contains(&more);
        self.flows().into_iter().filter(named).collect()
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
