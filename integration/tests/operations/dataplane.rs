//! Everything that must stay as it is while daemons come and go: if two of these are equal, nothing was made again and
//! nothing was written in between.

use std::collections::BTreeMap;

use serde_json::Value;
use trunkline_integration::lab::Lab;
use trunkline_integration::lab::layout::NETNODE;
use trunkline_integration::wait::until;

use crate::looks::{dhcp_servers, ofports, on};
use crate::support::{LIMIT, api};

/// What carries the guests' frames, by node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DataPlane {
    /// OpenFlow number of each port: another number is another port.
    ports: BTreeMap<String, BTreeMap<String, String>>,
    /// The kernel's number of each TAP and gateway port.
    links: BTreeMap<String, Vec<String>>,
    /// Process of each VLAN's DHCP server.
    servers: BTreeMap<u32, String>,
    /// Rules with their handles: a rule that was made again has another.
    rules: String,
    /// What was written to each switch's database.
    writes: BTreeMap<String, usize>,
}

impl DataPlane {
    pub(crate) fn of(lab: &Lab) -> Self {
        let nodes = lab.layout().nodes();
        let each = nodes.iter();
        Self {
            ports: each.clone().map(|node| (node.clone(), ofports(lab, node))).collect(),
            links: each.clone().map(|node| (node.clone(), links(lab, node))).collect(),
            servers: dhcp_servers(lab),
            rules: rules(lab, NETNODE, "-as"),
            writes: each.map(|node| (node.clone(), writes(lab, node))).collect(),
        }
    }
}

/// All of nftables, but for what guests' packets have put into sets. `-s` leaves out counters, `-a` shows handles.
pub(crate) fn rules(lab: &Lab, node: &str, flags: &str) -> String {
    let text = on(lab, node, &["nft", flags, "list", "ruleset"]);
    let (mut dynamic, mut inside) = (false, false);
    let keep = |line: &&str| {
        let line = line.trim();
        dynamic = !line.starts_with("set ") && (dynamic || line.starts_with("flags dynamic"));
        inside |= dynamic && line.starts_with("elements =");
        let left_out = inside;
        inside &= !line.ends_with('}');
        !left_out
    };
    text.lines().filter(keep).collect::<Vec<_>>().join("\n")
}

fn links(lab: &Lab, node: &str) -> Vec<String> {
    let text = on(lab, node, &["ip", "-o", "link"]);
    let name = |line: &str| line.split(": ").take(2).collect::<Vec<_>>().join(" ");
    let ours = |name: &String| name.contains(" tap_") || name.contains(" gw_vlan");
    text.lines().map(name).filter(ours).collect()
}

/// How many transactions a switch's database has in its log that set anything. An agent that asks the switch for a sign
/// of life moves two counters and nothing else.
fn writes(lab: &Lab, node: &str) -> usize {
    let log = on(lab, node, &["cat", "/var/lib/openvswitch/conf.db"]);
    let records = log.lines().filter(|line| !line.starts_with("OVSDB JSON"));
    records
        .filter(|record| sets_something(&serde_json::from_str(record).unwrap()))
        .count()
}

fn sets_something(record: &Value) -> bool {
    // The first record is the schema.
    let Some(record) = record.as_object().filter(|record| !record.contains_key("cksum")) else {
        return false;
    };
    let tables = record.iter().filter(|(table, _)| !table.starts_with('_'));
    let rows = tables.flat_map(|(table, rows)| rows.as_object().unwrap().values().map(move |row| (table, row)));
    let counts = |column: &String| column == "next_cfg" || column == "cur_cfg";
    rows.into_iter()
        .any(|(table, row)| table != "Open_vSwitch" || !row.as_object().is_some_and(|row| row.keys().all(counts)))
}

/// Waits until every node has a session and holds just what it should, and every slice is ready.
pub(crate) fn await_in_step(lab: &Lab) {
    let ready = i32::from(trunkline_proto::wire::State::Ready);
    until("every node to be in step and every slice to be ready", LIMIT, || {
        let status = api(lab).status().map_err(|error| error.chain())?;
        let nodes = status
            .nodes
            .iter()
            .filter(|node| node.connected && node.in_step)
            .count();
        let slices = status.slices.iter().filter(|slice| slice.state == ready).count();
        if nodes == lab.layout().nodes().len() && slices == status.slices.len() {
            Ok(())
        } else {
            Err(format!(
                "{:?} {:?}",
                status.nodes,
                status.slices.iter().map(|s| &s.reason).collect::<Vec<_>>()
            ))
        }
    })
    .unwrap();
}
