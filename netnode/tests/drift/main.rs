//! What is changed behind the network node's back is put right at once and told of, with its words: on real parts, with a controller
//! in the test's hands.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../agent/tests/support/mod.rs"]
mod controller;
mod leftovers;
mod repaired;
#[path = "../support/mod.rs"]
mod support;
mod told;

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
