//! What somebody may change on a host by hand: a table of small functions. Each picks among what is there just now; where there is
//! nothing to change, nothing is.

use serde::{Deserialize, Serialize};

use crate::LabError;
use crate::lab::Host;

/// A change behind the agent's back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Drift {
    /// A TAP is deleted.
    TapDeleted,
    /// A TAP is set down.
    TapDown,
    /// A port leaves the bridge.
    PortRemoved,
    /// A port gets another VLAN.
    PortRetagged,
    /// The uplink carries every VLAN.
    TrunkEmptied,
    /// The uplink carries one VLAN less.
    TrunkNarrowed,
    /// The bridge forgets its flows.
    FlowsFlushed,
    /// The bridge forwards what no flow names.
    FailMode,
    /// A gateway has no address.
    GatewayAddress,
    /// A gateway's device is down.
    GatewayDown,
    /// A DHCP server's namespace is deleted.
    Namespace,
    /// A DHCP server's reservations are edited.
    Reservations,
    /// A DHCP server's configuration is edited.
    Configuration,
    /// Our table has no rules.
    TableFlushed,
    /// Our table is gone.
    TableDeleted,
    /// The kernel forwards nothing.
    ForwardingOff,
}

/// On a worker.
pub(super) const OF_WORKERS: [Drift; 8] = [
    Drift::TapDeleted,
    Drift::TapDown,
    Drift::PortRemoved,
    Drift::PortRetagged,
    Drift::TrunkEmptied,
    Drift::TrunkNarrowed,
    Drift::FlowsFlushed,
    Drift::FailMode,
];

/// On the network node.
pub(super) const OF_NETNODE: [Drift; 13] = [
    Drift::PortRemoved,
    Drift::PortRetagged,
    Drift::TrunkEmptied,
    Drift::TrunkNarrowed,
    Drift::FlowsFlushed,
    Drift::GatewayAddress,
    Drift::GatewayDown,
    Drift::Namespace,
    Drift::Reservations,
    Drift::Configuration,
    Drift::TableFlushed,
    Drift::TableDeleted,
    Drift::ForwardingOff,
];

/// Where the network node keeps a DHCP server's files.
const DHCP: &str = "/var/lib/trunkline-netnode/dhcp";

/// Changes it. What the host refuses (its switch may be dead) is no change.
pub(super) fn make(host: &Host, what: Drift, pick: usize) -> Result<(), LabError> {
    let run = |argv: &[&str]| host.exec(argv).map(drop);
    let vsctl = |argv: &[&str]| run(&[&["ovs-vsctl", "--timeout=2", "--no-wait"], argv].concat());
    let one = |names: Vec<String>| (!names.is_empty()).then(|| names[pick % names.len()].clone());
    let device = |prefix: &str| Ok::<_, LabError>(one(devices(host, prefix)?));
    let ports = || -> Result<Option<String>, LabError> {
        let ours = ["tap_", "gw_vlan", "dhcp_v"];
        let listed = host.exec(&["ovs-vsctl", "--timeout=2", "list-ports", "br-int"])?.stdout;
        let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
        names.retain(|name| ours.iter().any(|prefix| name.starts_with(prefix)) && !name.ends_with("_stranger"));
        Ok(one(names))
    };
    match what {
        Drift::TapDeleted => device("tap_")?.map_or(Ok(()), |tap| run(&["ip", "link", "del", &tap])),
        Drift::TapDown => device("tap_")?.map_or(Ok(()), |tap| run(&["ip", "link", "set", &tap, "down"])),
        Drift::PortRemoved => ports()?.map_or(Ok(()), |port| vsctl(&["del-port", "br-int", &port])),
        Drift::PortRetagged => ports()?.map_or(Ok(()), |port| {
            vsctl(&["set", "port", &port, &format!("tag={}", 3000 + pick % 90)])
        }),
        Drift::TrunkEmptied => vsctl(&["clear", "port", "trunk0", "trunks"]),
        Drift::TrunkNarrowed => {
            let listed = host.exec(&["ovs-vsctl", "--timeout=2", "get", "port", "trunk0", "trunks"])?;
            let vlans = listed
                .stdout
                .trim()
                .trim_matches(['[', ']'])
                .split(", ")
                .map(str::to_owned);
            let one = one(vlans.filter(|vlan| vlan != "4095" && !vlan.is_empty()).collect());
            one.map_or(Ok(()), |vlan| vsctl(&["remove", "port", "trunk0", "trunks", &vlan]))
        }
        Drift::FlowsFlushed => run(&["ovs-ofctl", "--timeout=2", "-O", "OpenFlow15", "del-flows", "br-int"]),
        Drift::FailMode => vsctl(&["del-fail-mode", "br-int"]),
        Drift::GatewayAddress => {
            device("gw_vlan")?.map_or(Ok(()), |name| run(&["ip", "address", "flush", "dev", &name]))
        }
        Drift::GatewayDown => device("gw_vlan")?.map_or(Ok(()), |name| run(&["ip", "link", "set", &name, "down"])),
        Drift::Namespace => {
            let listed = host.exec(&["ip", "netns", "list"])?.stdout;
            let mut names: Vec<String> = listed.lines().filter_map(first_word).collect();
            names.retain(|name| name.starts_with("ns-dhcp-vlan"));
            names.sort();
            one(names).map_or(Ok(()), |name| run(&["ip", "netns", "del", &name]))
        }
        Drift::Reservations => edit(
            host,
            one(servers(host)?),
            "hosts",
            "52:54:00:00:00:99,10.99.99.99,intruder\n",
        ),
        Drift::Configuration => edit(
            host,
            one(servers(host)?),
            "dnsmasq.conf",
            "dhcp-option=option:mtu,576\n",
        ),
        Drift::TableFlushed => run(&["nft", "flush", "table", "inet", "trunkline"]),
        Drift::TableDeleted => run(&["nft", "delete", "table", "inet", "trunkline"]),
        Drift::ForwardingOff => run(&["sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"]),
    }
}

fn first_word(line: &str) -> Option<String> {
    line.split_whitespace().next().map(str::to_owned)
}

/// Devices of ours, in order of their names: the system's own order is not the same twice.
fn devices(host: &Host, prefix: &str) -> Result<Vec<String>, LabError> {
    let listed = host.exec(&["ip", "-br", "link"])?.stdout;
    let names = listed.lines().filter_map(first_word);
    let mut names: Vec<String> = names
        .map(|name| name.split('@').next().unwrap_or_default().to_owned())
        .filter(|name| name.starts_with(prefix) && !name.ends_with("_stranger"))
        .collect();
    names.sort();
    Ok(names)
}

fn servers(host: &Host) -> Result<Vec<String>, LabError> {
    let listed = host.exec(&["ls", DHCP])?.stdout;
    Ok(listed.lines().map(str::to_owned).collect())
}

fn edit(host: &Host, server: Option<String>, file: &str, line: &str) -> Result<(), LabError> {
    let Some(server) = server else { return Ok(()) };
    let path = host.path(&format!("{DHCP}/{server}/{file}"));
    // It may just be taken away.
    let Ok(mut text) = std::fs::read_to_string(&path) else {
        return Ok(());
    };
    text.push_str(line);
    let _ = std::fs::write(&path, text);
    Ok(())
}
