//! What a host really has, in the oracle's words, read with the system's own tools.

use std::collections::BTreeSet;

use serde_json::Value;

use super::oracle::{Fact, Facts, HOST, PROBE};
use super::{fault, strangers};
use crate::LabError;
use crate::lab::Host;
use crate::lab::layout::NETNODE;

/// What a host has before anything of ours.
const BEFORE: [&str; 6] = ["lo", "mgmt0", "trunk0", "ens3", "ovs-netdev", "br-int"];
/// Flows with this cookie are ours.
pub(super) const OURS: &str = "cookie=0x54524e4b00000000/0xffffffff00000000";

/// Looks at a node. Tools that fail (a switch that is starting) are trouble, not an error.
pub(super) fn facts(host: &Host) -> Result<Facts, LabError> {
    let mut facts = Facts::new();
    switch(host, &mut facts)?;
    devices(host, None, &mut facts)?;
    for name in namespaces(host)? {
        facts.insert(Fact::Namespace(name.clone()));
        if name.starts_with("ns-dhcp-") {
            devices(host, Some(&name), &mut facts)?;
        }
    }
    for (_, server) in fault::servers(host)? {
        // Two of one folder would be one fact.
        let fact = Fact::Server(server);
        if !facts.insert(fact.clone()) {
            facts.insert(Fact::Trouble(format!("twice: {fact:?}")));
        }
    }
    rules(host, &mut facts)?;
    let forwarding = host.must(&["cat", "/proc/sys/net/ipv4/ip_forward"])?;
    facts.insert(Fact::Forwarding(forwarding.trim() == "1"));
    if host.name() == NETNODE {
        reservations(host, &mut facts)?;
        flows_of_netnode(host, &mut facts)?;
    } else {
        let ours = host.exec(&[
            "ovs-ofctl",
            "--timeout=5",
            "-O",
            "OpenFlow15",
            "dump-flows",
            "br-int",
            OURS,
        ])?;
        facts.insert(Fact::OurFlows(ours.stdout.lines().count() > 1));
    }
    Ok(facts)
}

/// Rows of a table, each column by name.
pub(super) fn rows(host: &Host, table: &str, columns: &[&str]) -> Result<Vec<Vec<Value>>, LabError> {
    let columns = format!("--columns={}", columns.join(","));
    let text = host.must(&["ovs-vsctl", "--timeout=5", "--format=json", &columns, "list", table])?;
    let parsed: Value = serde_json::from_str(&text).map_err(|error| LabError::Other(format!("ovs-vsctl: {error}")))?;
    let rows = parsed["data"].as_array().cloned().unwrap_or_default();
    Ok(rows.into_iter().filter_map(|row| row.as_array().cloned()).collect())
}

/// An atom is a set of one.
fn set(value: &Value) -> Vec<Value> {
    match value.as_array().map(Vec::as_slice) {
        Some([kind, Value::Array(members)]) if kind == "set" => members.clone(),
        _ => vec![value.clone()],
    }
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

fn switch(host: &Host, facts: &mut Facts) -> Result<(), LabError> {
    for row in rows(host, "bridge", &["name", "fail_mode"])? {
        let name = text(&row[0]);
        if !strangers::is_one(&name) {
            let fail_mode = text(&row[1]);
            facts.insert(Fact::Bridge { name, fail_mode });
        }
    }
    let columns = ["name", "tag", "vlan_mode", "trunks", "protected"];
    for row in rows(host, "port", &columns)? {
        let name = text(&row[0]);
        if strangers::is_one(&name) {
            continue;
        }
        let mut trunks: Vec<u16> = set(&row[3]).iter().filter_map(number).collect();
        trunks.sort_unstable();
        facts.insert(Fact::Port {
            name,
            tag: set(&row[1]).first().and_then(number),
            mode: text(&row[2]),
            trunks,
            protected: row[4] == Value::Bool(true),
        });
    }
    for row in rows(host, "interface", &["name", "error", "ofport"])? {
        let name = text(&row[0]);
        if strangers::is_one(&name) {
            continue;
        }
        let ofport = set(&row[2]).first().and_then(Value::as_i64).unwrap_or(-1);
        if ofport < 0 || !set(&row[1]).is_empty() {
            facts.insert(Fact::Trouble(format!(
                "port {name} has number {ofport}, error {}",
                row[1]
            )));
        }
    }
    Ok(())
}

fn text(value: &Value) -> String {
    let atom = set(value).first().cloned().unwrap_or_default();
    atom.as_str().unwrap_or_default().to_owned()
}

fn devices(host: &Host, netns: Option<&str>, facts: &mut Facts) -> Result<(), LabError> {
    let argv = netns.map_or(vec!["ip"], |netns| vec!["ip", "-n", netns]);
    let listed = host.exec(&[argv, vec!["-j", "address"]].concat())?.stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
    let place = netns.unwrap_or(HOST).to_owned();
    let mut names = BTreeSet::new();
    for link in listed.as_array().into_iter().flatten() {
        let name = link["ifname"].as_str().unwrap_or_default().to_owned();
        if BEFORE.contains(&name.as_str()) || strangers::is_one(&name) {
            continue;
        }
        names.insert(name.clone());
        let flags = link["flags"].as_array();
        let mtu = link["mtu"].as_u64().and_then(|mtu| u32::try_from(mtu).ok());
        facts.insert(Fact::Device {
            place: place.clone(),
            name: name.clone(),
            up: flags.is_some_and(|flags| flags.iter().any(|flag| flag == "UP")),
            mtu: mtu.filter(|_| name != PROBE),
        });
        for address in link["addr_info"].as_array().into_iter().flatten() {
            let (local, prefix) = (address["local"].as_str().unwrap_or_default(), &address["prefixlen"]);
            facts.insert(Fact::Address {
                place: place.clone(),
                name: name.clone(),
                address: format!("{local}/{prefix}"),
            });
        }
    }
    Ok(())
}

fn namespaces(host: &Host) -> Result<Vec<String>, LabError> {
    let listed = host.must(&["ip", "netns", "list"])?;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names
        .filter(|name| !strangers::is_one(name) && !name.starts_with("guest-"))
        .map(str::to_owned)
        .collect())
}

/// Tables, and of ours the sets that name guests.
fn rules(host: &Host, facts: &mut Facts) -> Result<(), LabError> {
    let listed = host.must(&["nft", "-j", "list", "ruleset"])?;
    let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
    for object in listed["nftables"].as_array().into_iter().flatten() {
        if let Some(name) = object["table"]["name"].as_str() {
            let family = object["table"]["family"].as_str().unwrap_or_default();
            if !strangers::is_one(name) {
                facts.insert(Fact::Table(format!("{family} {name}")));
            }
        }
        let chain = &object["chain"];
        if chain["family"] == "netdev" && chain["hook"] == "ingress" && chain["policy"] == "drop" {
            facts.insert(Fact::Shut(plain(&chain["name"])));
        }
        let set = &object["set"];
        if set["table"] != "trunkline" {
            continue;
        }
        let elements = set["elem"].as_array().into_iter().flatten();
        match set["name"].as_str().unwrap_or_default() {
            "gateways" => facts.extend(elements.map(|name| Fact::Gateway(plain(name)))),
            "users_vlan400" => facts.extend(elements.map(|pair| {
                let parts = &pair["concat"];
                let (mac, address) = (plain(&parts[0]), plain(&parts[1]));
                Fact::User { mac, address }
            })),
            _ => {}
        }
    }
    Ok(())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn reservations(host: &Host, facts: &mut Facts) -> Result<(), LabError> {
    let folders = host.exec(&["ls", "/var/lib/trunkline-netnode/dhcp"])?.stdout;
    for server in folders.lines() {
        let path = format!("/var/lib/trunkline-netnode/dhcp/{server}/hosts");
        let Ok(text) = std::fs::read_to_string(host.path(&path)) else {
            continue;
        };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut parts = line.split(',').filter(|part| !part.starts_with("set:"));
            let (mac, address) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            facts.insert(Fact::Reservation {
                server: server.to_owned(),
                mac: mac.to_owned(),
                address: address.to_owned(),
            });
        }
        let path = format!("/var/lib/trunkline-netnode/dhcp/{server}/dnsmasq.conf");
        let configuration = std::fs::read_to_string(host.path(&path)).unwrap_or_default();
        if configuration.contains("mtu,576") {
            facts.insert(Fact::Trouble(format!(
                "{server}: the edited configuration is still there"
            )));
        }
    }
    Ok(())
}

fn flows_of_netnode(host: &Host, facts: &mut Facts) -> Result<(), LabError> {
    let argv = [
        "ovs-ofctl",
        "--timeout=5",
        "-O",
        "OpenFlow15",
        "--no-stats",
        "dump-flows",
        "br-int",
    ];
    let listed = host.exec(&argv)?;
    let flows = listed
        .stdout
        .lines()
        .map(str::trim)
        // The switch's own, which comes with the bridge and goes when all flows are deleted.
        .filter(|line| line.contains("actions=") && *line != "priority=0 actions=NORMAL");
    facts.extend(flows.map(|line| Fact::Flow(line.to_owned())));
    Ok(())
}
