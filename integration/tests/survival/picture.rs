//! All that a node has for its guests' sake, as the system tells it: what a death must not take away for good, and not
//! leave twice.

use std::collections::BTreeSet;

use trunkline_integration::lab::Lab;
use trunkline_integration::wait::until;

use crate::looks::{on, try_on};
use crate::support::LIMIT;

/// Lines that name everything; numbers that the system gives anew are left out.
pub(crate) type Picture = BTreeSet<String>;

/// Looks at one node.
pub(crate) fn of(lab: &Lab, node: &str) -> Picture {
    let mut picture = Picture::new();
    rows(lab, node, &mut picture);
    links(lab, node, None, &mut picture);
    for netns in namespaces(lab, node) {
        picture.insert(format!("namespace {netns}"));
        links(lab, node, Some(&netns), &mut picture);
    }
    let flows = ["--names", "--no-stats", "dump-flows", "br-int"];
    note(&mut picture, "flow", &try_on(lab, node, &ofctl(&flows)).stdout);
    note(
        &mut picture,
        "meter",
        &try_on(lab, node, &ofctl(&["dump-meters", "br-int"])).stdout,
    );
    // One text: the order of rules counts.
    let rules = on(lab, node, &["nft", "-s", "list", "ruleset"]);
    picture.insert(format!("nft {rules}"));
    let forwarding = on(lab, node, &["cat", "/proc/sys/net/ipv4/ip_forward"]);
    picture.insert(format!("ip_forward {}", forwarding.trim()));
    // With its number, in case that one runs twice.
    let processes = on(lab, node, &["ps", "-eo", "args"]);
    let mut servers: Vec<&str> = processes
        .lines()
        .filter(|line| line.starts_with("dnsmasq") || line.contains("/dnsmasq"))
        .collect();
    servers.sort_unstable();
    picture.extend(
        servers
            .iter()
            .enumerate()
            .map(|(number, line)| format!("process {number} {line}")),
    );
    picture
}

/// Looks at every node.
pub(crate) fn of_all(lab: &Lab) -> Vec<(String, Picture)> {
    let look = |node: String| (node.clone(), of(lab, &node));
    lab.layout().nodes().into_iter().map(look).collect()
}

/// Waits until each of these nodes looks as it did.
pub(crate) fn await_same(lab: &Lab, before: &[(String, Picture)], what: &str) {
    for (node, before) in before {
        until(&format!("{node} to look as before after {what}"), LIMIT, || {
            let now = of(lab, node);
            if now == *before {
                return Ok(());
            }
            let missing: Vec<&String> = before.difference(&now).collect();
            let extra: Vec<&String> = now.difference(before).collect();
            Err(format!("missing: {missing:#?}\nextra: {extra:#?}"))
        })
        .unwrap();
    }
}

fn rows(lab: &Lab, node: &str, picture: &mut Picture) {
    let tables = [
        ("bridge", "name,datapath_type,fail_mode,external_ids,other_config"),
        ("port", "name,tag,vlan_mode,trunks,protected,external_ids,other_config"),
        ("interface", "name,type,error,mtu_request,external_ids,options"),
    ];
    for (table, columns) in tables {
        let columns = format!("--columns={columns}");
        let argv = [
            "ovs-vsctl",
            "--timeout=10",
            "--format=csv",
            "--no-headings",
            &columns,
            "list",
            table,
        ];
        note(picture, table, &on(lab, node, &argv));
    }
}

fn namespaces(lab: &Lab, node: &str) -> Vec<String> {
    let text = on(lab, node, &["ip", "netns", "list"]);
    let name = |line: &str| line.split_whitespace().next().map(str::to_owned);
    // A guest's is not the node's.
    text.lines()
        .filter_map(name)
        .filter(|name| !name.starts_with("guest-"))
        .collect()
}

fn links(lab: &Lab, node: &str, netns: Option<&str>, picture: &mut Picture) {
    let run = |rest: &[&str]| {
        let at = netns.map_or(vec!["ip"], |netns| vec!["ip", "-n", netns]);
        // A namespace that is just being made again.
        try_on(lab, node, &[&at, rest].concat()).stdout
    };
    let place = netns.unwrap_or("host");
    let listed = run(&["-j", "-d", "address"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap_or_default();
    for link in listed.as_array().into_iter().flatten() {
        let text = |key: &str| link[key].to_string();
        let name = link["ifname"].as_str().unwrap_or_default();
        let up = link["flags"]
            .as_array()
            .is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
        let (mtu, alias) = (text("mtu"), text("ifalias"));
        // Other devices get theirs by chance.
        let mac = if name.starts_with("gw_") || name.starts_with("dhcp_") || name.starts_with("tlprobe") {
            text("address")
        } else {
            String::new()
        };
        let addresses = link["addr_info"].as_array().into_iter().flatten();
        let addresses: Vec<String> = addresses
            .map(|each| format!("{}/{}", each["local"], each["prefixlen"]))
            .collect();
        let line = format!("link {place} {name} up={up} mtu={mtu} alias={alias} {mac} {addresses:?}");
        // Two of one name in one place cannot be; a second place shows by itself.
        picture.insert(line);
    }
    note(picture, &format!("route {place}"), &run(&["route"]));
}

fn ofctl<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["ovs-ofctl", "--timeout=10", "-O", "OpenFlow15"], arguments].concat()
}

fn note(picture: &mut Picture, what: &str, text: &str) {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    picture.extend(lines.map(|line| format!("{what} {line}")));
}
