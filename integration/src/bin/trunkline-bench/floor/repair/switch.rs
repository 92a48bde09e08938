//! Ports, the uplink's list, flows, and the whole of it.

use std::time::Duration;

use serde_json::{Value, json};
use trunkline_integration::LabError;

use super::{Case, Node};
use crate::floor::database::reference;
use crate::floor::openflow::{Flows, Meters, OpenFlow};
use crate::floor::{BRIDGE, MANAGEMENT};

/// The columns of a configuration.
const OF_BRIDGE: &[&str] = &["name", "datapath_type", "fail_mode", "external_ids", "ports"];
const OF_PORT: &[&str] = &[
    "name",
    "interfaces",
    "vlan_mode",
    "tag",
    "trunks",
    "protected",
    "external_ids",
];
const OF_INTERFACE: &[&str] = &["name", "type", "mac", "mtu_request", "ofport_request", "external_ids"];

/// A port is deleted.
pub(crate) struct PortRemoved {
    port: Value,
    interface: Value,
}

impl PortRemoved {
    pub(crate) fn new(node: &mut Node, name: &str) -> Result<Self, LabError> {
        Ok(Self {
            port: node.database.row("Port", name)?,
            interface: node.database.row("Interface", name)?,
        })
    }
}

impl Case for PortRemoved {
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError> {
        let delete = json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", BRIDGE]],
            "mutations": [["ports", "delete", reference(&self.port)]]});
        node.database.transact(vec![delete]).map(drop)
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        let name = self.port["name"].as_str().unwrap_or_default();
        is_taken(node, name)
    }

    fn mend(&mut self, node: &mut Node) -> Result<(), LabError> {
        let port = insert("Port", OF_PORT, &self.port);
        let add = json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", BRIDGE]],
            "mutations": [["ports", "insert", ["named-uuid", port["uuid-name"]]]]});
        let interface = insert("Interface", OF_INTERFACE, &self.interface);
        node.database.apply(vec![interface, port, add]).map(drop)
    }
}

/// A column of a port is changed.
pub(crate) struct PortChanged {
    port: Value,
    column: &'static str,
    wrong: Value,
}

impl PortChanged {
    /// Another VLAN.
    pub(crate) fn retagged(node: &mut Node, name: &str) -> Result<Self, LabError> {
        Self::new(node, name, "tag", |_| json!(4000))
    }

    /// The uplink carries every VLAN.
    pub(crate) fn trunk_emptied(node: &mut Node) -> Result<Self, LabError> {
        Self::new(node, "trunk0", "trunks", |_| json!(["set", []]))
    }

    /// The uplink carries one less.
    pub(crate) fn trunk_narrowed(node: &mut Node) -> Result<Self, LabError> {
        Self::new(node, "trunk0", "trunks", |held| {
            let all = held[1].as_array().cloned().unwrap_or_default();
            json!(["set", all.get(1..).unwrap_or_default()])
        })
    }

    fn new(
        node: &mut Node,
        name: &str,
        column: &'static str,
        wrong: impl Fn(&Value) -> Value,
    ) -> Result<Self, LabError> {
        let port = node.database.row("Port", name)?;
        let wrong = wrong(&port[column]);
        Ok(Self { port, column, wrong })
    }

    fn set(&self, value: &Value) -> Value {
        json!({"op": "update", "table": "Port", "where": [["name", "==", self.port["name"]]], "row": {self.column: value}})
    }
}

impl Case for PortChanged {
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError> {
        let set = self.set(&self.wrong);
        node.database.transact(vec![set]).map(drop)
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        let name = self.port["name"].as_str().unwrap_or_default();
        let select =
            json!({"op": "select", "table": "Port", "where": [["name", "==", name]], "columns": [self.column]});
        let answers = node.database.transact(vec![select, acted()])?;
        Ok(answers[0]["rows"][0][self.column] == self.port[self.column] && has_acted(&answers[1]))
    }

    fn mend(&mut self, node: &mut Node) -> Result<(), LabError> {
        let set = self.set(&self.port[self.column]);
        node.database.apply(vec![set]).map(drop)
    }
}

/// All flows are deleted.
pub(crate) struct FlowsDeleted {
    active: u32,
    flows: Flows,
}

impl FlowsDeleted {
    pub(crate) fn new(node: &mut Node) -> Result<Self, LabError> {
        let (flows, _) = node.bridge.read()?;
        let active = node.bridge.active()?;
        Ok(Self { active, flows })
    }
}

impl Case for FlowsDeleted {
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError> {
        node.bridge.remove(&self.flows, &Meters::new())?;
        while node.bridge.active()? >= self.active {}
        Ok(())
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        Ok(node.bridge.active()? == self.active)
    }

    fn mend(&mut self, node: &mut Node) -> Result<(), LabError> {
        node.bridge.add(&self.flows, &Meters::new())
    }
}

/// The switch's whole configuration is gone.
pub(crate) struct Wiped {
    tables: [Vec<Value>; 3],
    active: u32,
    flows: Flows,
    meters: Meters,
}

impl Wiped {
    pub(crate) fn new(node: &mut Node) -> Result<Self, LabError> {
        let (flows, meters) = node.bridge.read()?;
        Ok(Self {
            tables: [
                node.database.table("Interface")?,
                node.database.table("Port")?,
                node.database.table("Bridge")?,
            ],
            active: node.bridge.active()?,
            flows,
            meters,
        })
    }
}

impl Case for Wiped {
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError> {
        let wipe = json!({"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["set", []]}});
        node.database.transact(vec![wipe]).map(drop)
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        // Asked now and then only: it is no small question.
        std::thread::sleep(Duration::from_millis(20));
        let select =
            json!({"op": "select", "table": "Interface", "where": [["ofport", ">", 0]], "columns": ["ofport"]});
        let answers = node.database.transact(vec![select, acted()])?;
        let taken = answers[0]["rows"].as_array().map_or(0, Vec::len);
        if taken < self.tables[0].len() - 1 || !has_acted(&answers[1]) {
            return Ok(false);
        }
        let Ok(bridge) = OpenFlow::connect(&node.host.path(MANAGEMENT)) else {
            return Ok(false);
        };
        node.bridge = bridge;
        Ok(node.bridge.active()? == self.active)
    }

    fn mend(&mut self, node: &mut Node) -> Result<(), LabError> {
        let [interfaces, ports, bridges] = &self.tables;
        let mut all: Vec<Value> = interfaces
            .iter()
            .map(|row| insert("Interface", OF_INTERFACE, row))
            .collect();
        all.extend(ports.iter().map(|row| insert("Port", OF_PORT, row)));
        let bridges: Vec<Value> = bridges.iter().map(|row| insert("Bridge", OF_BRIDGE, row)).collect();
        let names: Vec<Value> = bridges
            .iter()
            .map(|row| json!(["named-uuid", row["uuid-name"]]))
            .collect();
        all.extend(bridges);
        all.push(json!({"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["set", names]}}));
        node.database.apply(all)?;
        // The bridge is another one, unless ovs-vswitchd has slept through all of it.
        node.bridge = OpenFlow::connect(&node.host.path(MANAGEMENT))?;
        node.bridge.forget_meters()?;
        node.bridge.add(&self.flows, &self.meters)
    }
}

/// An insertion of what a row says. References are to rows that are inserted in the same transaction.
fn insert(table: &str, columns: &[&str], row: &Value) -> Value {
    let name = |reference: &Value| format!("row{}", reference[1].as_str().unwrap_or_default().replace('-', "_"));
    let named = |reference: &Value| json!(["named-uuid", name(reference)]);
    let value = |column: &str| match &row[column] {
        Value::Array(pair) if pair.first().is_some_and(|kind| kind == "uuid") => named(&row[column]),
        Value::Array(pair) if matches!(column, "ports" | "interfaces") => {
            let members = pair.get(1).and_then(Value::as_array).into_iter().flatten();
            json!(["set", members.map(named).collect::<Vec<_>>()])
        }
        other => other.clone(),
    };
    let row_of: serde_json::Map<String, Value> = columns
        .iter()
        .map(|column| ((*column).to_owned(), value(column)))
        .collect();
    json!({"op": "insert", "table": table, "uuid-name": name(&reference(row)), "row": row_of})
}

/// Whether ovs-vswitchd has a port of this name, and has acted on all that was asked for.
pub(super) fn is_taken(node: &mut Node, name: &str) -> Result<bool, LabError> {
    let select = json!({"op": "select", "table": "Interface", "where": [["name", "==", name]], "columns": ["ofport"]});
    let answers = node.database.transact(vec![select, acted()])?;
    let number = answers[0]["rows"][0]["ofport"].as_i64();
    Ok(number.is_some_and(|number| number > 0) && has_acted(&answers[1]))
}

/// Whether ovs-vswitchd has this very device as the port of its name.
pub(super) fn has_open(node: &mut Node, name: &str, index: u32) -> Result<bool, LabError> {
    let taken = is_taken(node, name)?;
    Ok(taken && node.database.row("Interface", name)?["ifindex"] == index)
}

fn acted() -> Value {
    json!({"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["cur_cfg", "next_cfg"]})
}

fn has_acted(answer: &Value) -> bool {
    answer["rows"][0]["cur_cfg"] == answer["rows"][0]["next_cfg"]
}
