//! All that a node has for its guests' sake, as the system tells it: what a death must not take away for good, and not
//! leave twice.

use std::collections::BTreeMap;

use trunkline_integration::lab::Lab;
use trunkline_integration::wait::until;

use crate::dataplane::rules;
use crate::looks::{on, try_on};
use crate::support::LIMIT;

/// Lines that name everything, and how often each is there. Numbers that the system gives anew are left out.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Picture(BTreeMap<String, usize>);

impl Picture {
    fn insert(&mut self, line: String) {
        *self.0.entry(line).or_default() += 1;
    }

    fn note(&mut self, what: &str, text: &str) {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.for_each(|line| self.insert(format!("{what} {line}")));
    }

    /// What this one has and the other one has not, or not as often.
    fn without<'a>(&'a self, other: &Self) -> Vec<&'a String> {
        let more = |(line, count): &(&String, &usize)| **count > other.0.get(*line).copied().unwrap_or_default();
        self.0.iter().filter(more).map(|(line, _)| line).collect()
    }
}

/// Looks at one node.
pub(crate) fn of(lab: &Lab, node: &str) -> Picture {
    let mut picture = Picture::default();
    rows(lab, node, &mut picture);
    links(lab, node, None, &mut picture);
    for netns in namespaces(lab, node) {
        picture.insert(format!("namespace {netns}"));
        links(lab, node, Some(&netns), &mut picture);
    }
    let flows = ofctl(&["--names", "--no-stats", "dump-flows", "br-int"]);
    picture.note("flow", &without_numbers(&try_on(lab, node, &flows).stdout));
    let meters = ofctl(&["dump-meters", "br-int"]);
    picture.note("meter", &without_numbers(&try_on(lab, node, &meters).stdout));
    // One text: the order of rules counts.
    picture.insert(format!("nft {}", rules(lab, node, "-s")));
    let forwarding = on(lab, node, &["cat", "/proc/sys/net/ipv4/ip_forward"]);
    picture.insert(format!("ip_forward {}", forwarding.trim()));
    let processes = on(lab, node, &["ps", "-eo", "args"]);
    let servers = processes.lines().filter(|line| line.contains("dnsmasq"));
    servers.for_each(|line| picture.insert(format!("process {line}")));
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
            let (missing, extra) = (before.without(&now), now.without(before));
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
        picture.note(table, &without_index(&on(lab, node, &argv)));
    }
}

/// A device that was made anew has another index, which its port's row notes.
fn without_index(rows: &str) -> String {
    let mut parts = rows.split("trunkline-device=");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.trim_start_matches(|c: char| c == '"' || c.is_ascii_digit()));
    }
    text
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
    picture.note(&format!("route {place}"), &run(&["route"]));
}

fn ofctl<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["ovs-ofctl", "--timeout=10", "-O", "OpenFlow15"], arguments].concat()
}

/// Without the numbers that follow from the ports' own, which a switch that forgot everything gives anew: what follows our
/// mark in a cookie, and those of meters.
fn without_numbers(text: &str) -> String {
    let strip = |text: String, before: &str| {
        let mut parts = text.split(before);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |line, part| {
            line + before + part.trim_start_matches(|each: char| each.is_ascii_hexdigit())
        })
    };
    ["cookie=0x54524e4b", "meter:", "meter="]
        .into_iter()
        .fold(text.to_owned(), strip)
}
