//! What somebody may change on a host by hand: a table of small functions. Each picks among what is there just now; where there is
//! nothing to change, nothing is. Each also says how the journal must tell of it, when it was all that happened.

use serde::{Deserialize, Serialize};

use super::fault;
use crate::LabError;
use crate::lab::Host;
use crate::lab::layout::NETNODE;

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
    /// A DHCP server is killed.
    ServerKilled,
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
pub(super) const OF_NETNODE: [Drift; 14] = [
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
    Drift::ServerKilled,
];

/// Where the network node keeps a DHCP server's files.
const DHCP: &str = "/var/lib/trunkline-netnode/dhcp";

/// What `drift.repaired` must say of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repaired {
    /// In its message: the resource, or what was wrong with it.
    pub(super) words: String,
    /// Of the VLAN, where the resource has one.
    pub(super) vlan: Option<u32>,
}

/// What was changed; `None` when there was nothing to change.
pub(super) type Changed = Result<Option<Repaired>, LabError>;

/// Changes it. What the host refuses (its switch may be dead) is no change.
pub(super) fn make(host: &Host, what: Drift, pick: usize) -> Changed {
    match what {
        Drift::TapDeleted => tap(host, pick, &["del"]),
        Drift::TapDown => tap(host, pick, &["down"]),
        Drift::PortRemoved => port(host, pick, |port| words(&["del-port", "br-int", port])),
        Drift::PortRetagged => port(host, pick, |port| {
            words(&["set", "port", port, &format!("tag={}", 3000 + pick % 90)])
        }),
        Drift::TrunkEmptied => match trunks(host)?.as_slice() {
            [] => Ok(None),
            _ => vsctl(
                host,
                &words(&["clear", "port", "trunk0", "trunks"]),
                said("trunk", None),
            ),
        },
        Drift::TrunkNarrowed => {
            let listed = trunks(host)?.into_iter().filter(|vlan| vlan != "4095");
            let Some(vlan) = one(listed.collect(), pick) else {
                return Ok(None);
            };
            let argv = words(&["remove", "port", "trunk0", "trunks", &vlan]);
            vsctl(host, &argv, said("trunk", None))
        }
        Drift::FlowsFlushed => flush(host),
        Drift::FailMode => match fail_mode(host)?.as_str() {
            "secure" => vsctl(host, &words(&["del-fail-mode", "br-int"]), said("fail_mode", None)),
            _ => Ok(None),
        },
        Drift::GatewayAddress => gateway(host, pick, |name| words(&["ip", "address", "flush", "dev", name])),
        Drift::GatewayDown => gateway(host, pick, |name| words(&["ip", "link", "set", name, "down"])),
        Drift::Namespace => {
            let listed = host.exec(&["ip", "netns", "list"])?.stdout;
            let mut names: Vec<String> = listed.lines().filter_map(first_word).collect();
            names.retain(|name| name.starts_with("ns-dhcp-vlan"));
            names.sort();
            let Some(name) = one(names, pick) else { return Ok(None) };
            let vlan = number(&name, "ns-dhcp-vlan");
            run(host, &words(&["ip", "netns", "del", &name]), said("dhcp", vlan))
        }
        Drift::Reservations => edit(host, pick, "hosts", "52:54:00:00:00:99,10.99.99.99,intruder\n"),
        Drift::Configuration => edit(host, pick, "dnsmasq.conf", "dhcp-option=option:mtu,576\n"),
        Drift::TableFlushed => table(host, "flush"),
        Drift::TableDeleted => table(host, "delete"),
        Drift::ForwardingOff => {
            if host.must(&["cat", "/proc/sys/net/ipv4/ip_forward"])?.trim() != "1" {
                return Ok(None);
            }
            let argv = words(&["sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"]);
            run(host, &argv, said("ip_forward", None))
        }
        Drift::ServerKilled => {
            let servers = fault::servers(host)?;
            let Some((pid, server)) = servers.get(pick % servers.len().max(1)) else {
                return Ok(None);
            };
            let vlan = number(server, "vlan");
            run(host, &words(&["kill", "-KILL", pid]), said("dhcp", vlan))
        }
    }
}

fn said(words: &str, vlan: Option<u32>) -> Repaired {
    let words = words.to_owned();
    Repaired { words, vlan }
}

fn words(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|word| (*word).to_owned()).collect()
}

fn run(host: &Host, argv: &[String], said: Repaired) -> Changed {
    Ok(host.exec(argv)?.ok().then_some(said))
}

fn vsctl(host: &Host, argv: &[String], said: Repaired) -> Changed {
    run(
        host,
        &[words(&["ovs-vsctl", "--timeout=2", "--no-wait"]), argv.to_vec()].concat(),
        said,
    )
}

fn one(names: Vec<String>, pick: usize) -> Option<String> {
    (!names.is_empty()).then(|| names[pick % names.len()].clone())
}

fn number(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.parse().ok()
}

fn tap(host: &Host, pick: usize, how: &[&str]) -> Changed {
    let Some(name) = one(devices(host, "tap_")?, pick) else {
        return Ok(None);
    };
    let argv = match how {
        ["del"] => words(&["ip", "link", "del", &name]),
        _ => words(&["ip", "link", "set", &name, "down"]),
    };
    run(host, &argv, said(&name, None))
}

fn gateway(host: &Host, pick: usize, argv: impl Fn(&str) -> Vec<String>) -> Changed {
    let Some(name) = one(devices(host, "gw_vlan")?, pick) else {
        return Ok(None);
    };
    run(host, &argv(&name), said("gateway", number(&name, "gw_vlan")))
}

fn port(host: &Host, pick: usize, argv: impl Fn(&str) -> Vec<String>) -> Changed {
    let ours = ["tap_", "gw_vlan", "dhcp_v"];
    let listed = host.exec(&["ovs-vsctl", "--timeout=2", "list-ports", "br-int"])?.stdout;
    let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
    names.retain(|name| ours.iter().any(|prefix| name.starts_with(prefix)) && !name.ends_with("_stranger"));
    let Some(name) = one(names, pick) else { return Ok(None) };
    let said = match (number(&name, "gw_vlan"), number(&name, "dhcp_v")) {
        (Some(vlan), _) => said("gateway", Some(vlan)),
        (_, Some(vlan)) => said("dhcp", Some(vlan)),
        _ => said(&name, None),
    };
    vsctl(host, &argv(&name), said)
}

/// VLANs of the uplink.
fn trunks(host: &Host) -> Result<Vec<String>, LabError> {
    let listed = host.exec(&["ovs-vsctl", "--timeout=2", "get", "port", "trunk0", "trunks"])?;
    let vlans = listed.stdout.trim().trim_matches(['[', ']']).split(", ");
    Ok(vlans.filter(|vlan| !vlan.is_empty()).map(str::to_owned).collect())
}

fn fail_mode(host: &Host) -> Result<String, LabError> {
    let mode = host.exec(&["ovs-vsctl", "--timeout=2", "get-fail-mode", "br-int"])?;
    Ok(mode.stdout.trim().to_owned())
}

fn flush(host: &Host) -> Changed {
    let ofctl = ["ovs-ofctl", "--timeout=2", "-O", "OpenFlow15"];
    let ours = host.exec(&[&ofctl[..], &["dump-flows", "br-int", super::look::OURS]].concat())?;
    if ours.stdout.lines().count() < 2 {
        return Ok(None);
    }
    let of = if host.name() == NETNODE { "trunk" } else { "flows" };
    let argv = words(&[&ofctl[..], &["del-flows", "br-int"]].concat());
    run(host, &argv, said(of, None))
}

fn table(host: &Host, how: &str) -> Changed {
    if !host.exec(&["nft", "list", "table", "inet", "trunkline"])?.ok() {
        return Ok(None);
    }
    run(
        host,
        &words(&["nft", how, "table", "inet", "trunkline"]),
        said("nftables table", None),
    )
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

fn edit(host: &Host, pick: usize, file: &str, line: &str) -> Changed {
    let listed = host.exec(&["ls", DHCP])?.stdout;
    let Some(server) = one(listed.lines().map(str::to_owned).collect(), pick) else {
        return Ok(None);
    };
    let path = host.path(&format!("{DHCP}/{server}/{file}"));
    // It may just be taken away.
    let Ok(mut text) = std::fs::read_to_string(&path) else {
        return Ok(None);
    };
    text.push_str(line);
    let written = std::fs::write(&path, text);
    Ok(written.ok().map(|()| said("dhcp", number(&server, "vlan"))))
}
