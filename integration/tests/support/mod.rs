//! What the end-to-end tests share: a fleet with the demo's two slices, an operator's `trunkctl`, and looks at hosts.
#![allow(dead_code, clippy::unwrap_used)] // Each test program uses a part of it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

use trunkline_integration::api::Api;
use trunkline_integration::demo::{Fleet, TOPOLOGY, start_guests};
use trunkline_integration::guest::Guest;
use trunkline_integration::lab::process::{Output, code};
use trunkline_integration::lab::{Lab, Options, programs};
use trunkline_integration::wait::until;

/// For anything that a fleet does by itself.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A fleet whose nodes are connected.
pub(crate) fn fleet(options: &Options) -> Lab {
    let lab = Lab::start(options).unwrap();
    Fleet::connect(&lab).unwrap().await_nodes().unwrap();
    lab
}

/// A fleet with the demo's slices ready.
pub(crate) fn with_two_slices() -> Lab {
    let lab = fleet(&Options::default());
    apply(&lab, TOPOLOGY);
    lab
}

/// Applies and deploys a topology and waits until it is ready.
pub(crate) fn apply(lab: &Lab, topology: &str) {
    Fleet::connect(lab).unwrap().apply(topology, "topology.yaml").unwrap();
}

/// The operator's connection.
pub(crate) fn api(lab: &Lab) -> Api {
    Api::connect(&lab.controller_endpoint(), &lab.bundle("operator")).unwrap()
}

/// A guest for each VM of the named slices, all of them namespaces.
pub(crate) fn guests(lab: &Lab, names: &[&str]) -> BTreeMap<String, Guest> {
    let mut slices = api(lab).slices().unwrap();
    slices.retain(|slice| names.contains(&slice.name.as_str()));
    start_guests(lab, &slices, &[]).unwrap()
}

/// Runs `trunkctl` as an operator would.
pub(crate) fn trunkctl(lab: &Lab, arguments: &[&str]) -> Output {
    trunkctl_as(lab, "operator", arguments)
}

/// Runs `trunkctl` with somebody's certificate.
pub(crate) fn trunkctl_as(lab: &Lab, who: &str, arguments: &[&str]) -> Output {
    let output = Command::new(programs::find("trunkctl").unwrap())
        .args(arguments)
        .env("TRUNKLINE_CONTROLLER", lab.controller_endpoint())
        .env("TRUNKLINE_BUNDLE", lab.bundle(who))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output {
        status: code(output.status),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// Runs `trunkctl`, which must end with status 0; its standard output.
pub(crate) fn must_trunkctl(lab: &Lab, arguments: &[&str]) -> String {
    let output = trunkctl(lab, arguments);
    assert!(
        output.ok(),
        "trunkctl {arguments:?} ended with {}: {}{}",
        output.status,
        output.stdout,
        output.stderr
    );
    output.stdout
}

/// Waits until `trunkctl status` would say that everything is ready.
pub(crate) fn await_ready(lab: &Lab, slice: &str) {
    let api = api(lab);
    let ready = i32::from(trunkline_proto::wire::State::Ready);
    until(&format!("slice {slice} to be ready"), LIMIT, || {
        let status = api.status().map_err(|error| error.chain())?;
        let found = status
            .slices
            .iter()
            .find(|status| status.name == slice)
            .ok_or("not deployed")?;
        if found.state == ready {
            Ok(())
        } else {
            Err(found.reason.clone())
        }
    })
    .unwrap();
}

/// The metrics of the daemon on a host, read over its loopback.
pub(crate) fn scrape(lab: &Lab, host: &str) -> String {
    let port = match host {
        "ctl" => 9464,
        "nn" => 9466,
        _ => 9465,
    };
    let read = move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let answer = lab.host(host).unwrap().run(read).unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("200 OK") && !head.to_lowercase().contains("chunked"),
        "{head}"
    );
    body.to_owned()
}

/// What a node has that the fleet could have made: ports of the bridge, TAPs and gateway ports, namespaces, our tables,
/// dnsmasq.
pub(crate) fn traces_of(lab: &Lab, node: &str) -> Vec<String> {
    let host = lab.host(node).unwrap();
    let lines = |argv: &[&str]| -> Vec<String> {
        let output = host.exec(argv).unwrap();
        output.stdout.lines().map(|line| line.trim().to_owned()).collect()
    };
    let mut found = Vec::new();
    let ports = lines(&[
        "ovs-vsctl",
        "--timeout=5",
        "--if-exists",
        "get",
        "bridge",
        "br-int",
        "name",
    ]);
    if !ports.is_empty() {
        let ports = lines(&["ovs-vsctl", "--timeout=5", "list-ports", "br-int"]);
        found.extend(ports.into_iter().filter(|port| port != "trunk0" && port != "tlprobe0"));
    }
    let ours = |line: &str| ["tap_", "gw_vlan", "dhcp_v"].iter().any(|name| line.contains(name));
    found.extend(lines(&["ip", "-o", "link"]).into_iter().filter(|line| ours(line)));
    found.extend(
        lines(&["ip", "netns", "list"])
            .into_iter()
            .filter(|line| line.contains("ns-dhcp-")),
    );
    found.extend(
        lines(&["nft", "list", "tables"])
            .into_iter()
            .filter(|line| !line.is_empty()),
    );
    found.extend(
        lines(&["ps", "-eo", "args"])
            .into_iter()
            .filter(|line| line.contains("dnsmasq")),
    );
    found
}

/// Waits until no node has anything left.
pub(crate) fn await_clean(lab: &Lab) {
    for node in lab.layout().nodes() {
        until(&format!("nothing to be left on {node}"), LIMIT, || {
            let left = traces_of(lab, &node);
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:#?}"))
            }
        })
        .unwrap();
    }
}
