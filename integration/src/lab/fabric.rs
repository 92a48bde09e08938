//! The cables and the switch between the hosts: veths, and on `fabric` one Linux bridge for management and one that
//! passes tagged frames.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::host::Host;
use super::layout::{CONTROLLER, FABRIC, INTERNET, INTERNET_ADDRESS, Layout, NETNODE, ROUTER_ADDRESS, UPLINK_ADDRESS};
use super::process::{Output, Started};
use crate::LabError;

/// Room for a full jumbo frame with its tag.
const TRUNK_MTU: u32 = 9220;

type Hosts = BTreeMap<String, Arc<Host>>;

/// Lays every cable and brings both ends up.
pub(crate) fn build(layout: Layout, hosts: &Hosts, folder: &Path) -> Result<(), LabError> {
    cables(layout, hosts, folder)?;
    let fabric = host(hosts, FABRIC)?;
    batch(fabric, folder, &fabric_batch(layout))?;
    for (name, address) in layout.managed() {
        no_forwarding(host(hosts, &name)?)?;
        let mut lines = format!("link set lo up\naddress add {address}/24 dev mgmt0\nlink set mgmt0 up\n");
        if name != CONTROLLER {
            lines += "link set trunk0 addrgenmode none\nlink set trunk0 up\n";
        }
        if name == NETNODE {
            lines += &format!("address add {UPLINK_ADDRESS}/24 dev ens3\nlink set ens3 up\n");
            lines += &format!("route add default via {ROUTER_ADDRESS}\n");
        }
        batch(host(hosts, &name)?, folder, &lines)?;
    }
    let internet = host(hosts, INTERNET)?;
    batch(
        internet,
        folder,
        &format!(
            "link set lo up\naddress add {INTERNET_ADDRESS}/32 dev lo\naddress add {ROUTER_ADDRESS}/24 dev up0\nlink set up0 up\n"
        ),
    )?;
    for name in layout.nodes() {
        no_offload(host(hosts, &name)?, "trunk0")?;
        no_offload(fabric, &format!("t-{name}"))?;
    }
    let neighbour = format!("address add {}/24 dev up0\n", super::layout::UPLINK_NEIGHBOUR);
    batch(internet, folder, &neighbour)?;
    no_offload(host(hosts, NETNODE)?, "ens3")?;
    no_offload(internet, "up0")
}

/// Every veth is made with both ends where they belong: the machine's own namespace never holds one.
fn cables(layout: Layout, hosts: &Hosts, folder: &Path) -> Result<(), LabError> {
    let fabric = host(hosts, FABRIC)?.pid();
    let mut lines = String::new();
    let mut cable = |end: &str, pid: u32, other: &str, other_pid: u32, mtu: u32| {
        lines +=
            &format!("link add {end} netns {pid} mtu {mtu} type veth peer name {other} netns {other_pid} mtu {mtu}\n");
    };
    for (name, _) in layout.managed() {
        cable("mgmt0", host(hosts, &name)?.pid(), &format!("m-{name}"), fabric, 1500);
    }
    for name in layout.nodes() {
        cable(
            "trunk0",
            host(hosts, &name)?.pid(),
            &format!("t-{name}"),
            fabric,
            TRUNK_MTU,
        );
    }
    cable(
        "ens3",
        host(hosts, NETNODE)?.pid(),
        "up0",
        host(hosts, INTERNET)?.pid(),
        1500,
    );
    let file = write(folder, &lines)?;
    let argv = ["ip".to_owned(), "-batch".to_owned(), file];
    let child = super::process::piped(&argv)
        .spawn()
        .map_err(LabError::io("cannot start ip"))?;
    let process = super::process::Process::new(child);
    let output = Started {
        process,
        command: "ip -batch".to_owned(),
    }
    .finish(Duration::from_secs(30))?;
    succeeded(&output, "the machine", "making the veths")
}

fn fabric_batch(layout: Layout) -> String {
    let mut lines = "link set lo up\n".to_owned();
    for bridge in ["mgmt", "trunk"] {
        lines += &format!("link add {bridge} type bridge\nlink set {bridge} addrgenmode none\nlink set {bridge} up\n");
    }
    let managed = layout
        .managed()
        .into_iter()
        .map(|(name, _)| (format!("m-{name}"), "mgmt"));
    let trunks = layout.nodes().into_iter().map(|name| (format!("t-{name}"), "trunk"));
    for (end, bridge) in managed.chain(trunks) {
        lines += &format!("link set {end} addrgenmode none\nlink set {end} master {bridge}\nlink set {end} up\n");
    }
    lines
}

/// A new host has the machine's own setting, which may be anything; what the network node does to it must be seen.
fn no_forwarding(host: &Host) -> Result<(), LabError> {
    let path = "/proc/sys/net/ipv4/ip_forward";
    host.run(move || std::fs::write(path, "0"))?
        .map_err(LabError::io(format!("cannot write {path}")))
}

/// With offloads on, TCP stalls and tags are lost on a userspace switch.
fn no_offload(host: &Host, interface: &str) -> Result<(), LabError> {
    let argv = [
        "ethtool", "-K", interface, "tx", "off", "rx", "off", "txvlan", "off", "rxvlan", "off",
    ];
    // It ends with an error when one of them cannot be changed, although the others were.
    host.exec(&argv).map(drop)
}

fn batch(host: &Host, folder: &Path, lines: &str) -> Result<(), LabError> {
    let file = write(folder, lines)?;
    let output = host.exec(&["ip", "-batch", &file])?;
    succeeded(&output, host.name(), "setting up the interfaces")
}

fn succeeded(output: &Output, on: &str, command: &str) -> Result<(), LabError> {
    if output.ok() {
        return Ok(());
    }
    Err(LabError::Command {
        host: on.to_owned(),
        command: command.to_owned(),
        status: format!("status {}", output.status),
        stderr: output.stderr.trim().to_owned(),
    })
}

fn write(folder: &Path, lines: &str) -> Result<String, LabError> {
    let path = folder.join("ip.batch");
    std::fs::write(&path, lines).map_err(LabError::io(format!("cannot write {}", path.display())))?;
    Ok(path.display().to_string())
}

fn host<'a>(hosts: &'a Hosts, name: &str) -> Result<&'a Host, LabError> {
    super::find(hosts, name).map(AsRef::as_ref)
}

/// Cuts a host's trunk, or joins it again: what a pulled cable does.
pub(crate) fn set_trunk(hosts: &Hosts, node: &str, up: bool) -> Result<(), LabError> {
    let state = if up { "up" } else { "down" };
    host(hosts, FABRIC)?
        .must(&["ip", "link", "set", &format!("t-{node}"), state])
        .map(drop)
}
