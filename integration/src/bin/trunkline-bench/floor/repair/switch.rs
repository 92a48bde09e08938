//! Ports, the uplink's list, flows, and the whole of it.

use serde_json::{Value, json};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use trunkline_agent::openflow::{self, FlowSet};
use trunkline_integration::LabError;

use super::{Case, Node, management};
use crate::floor::bridge::Bridge;
use crate::floor::database::reference;

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
            port: row(node, "Port", name)?,
            interface: row(node, "Interface", name)?,
        })
    }
}

impl Case for PortRemoved {
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError> {
        let delete = json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", "br-int"]],
            "mutations": [["ports", "delete", reference(&self.port)]]});
        node.database.transact(&[delete]).map(drop)
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        let name = self.port["name"].as_str().unwrap_or_default();
        is_taken(node, name)
    }

    fn mend(&mut self, node: &mut Node) -> Result<(), LabError> {
        let port = insert("Port", OF_PORT, &self.port);
        let add = json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", "br-int"]],
            "mutations": [["ports", "insert", ["named-uuid", port["uuid-name"]]]]});
        node.database
            .apply(&[insert("Interface", OF_INTERFACE, &self.interface), port, add])
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
        let port = row(node, "Port", name)?;
        let wrong = json!(4000);
        Ok(Self {
            port,
            column: "tag",
            wrong,
        })
    }
}

impl Case for PortChanged {
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError> {
        let set = self.set(&self.wrong);
        node.database.transact(&[set]).map(drop)
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        let name = self.port["name"].as_str().unwrap_or_default();
        let select =
            json!({"op": "select", "table": "Port", "where": [["name", "==", name]], "columns": [self.column]});
        let answers = node.database.transact(&[select, acted()])?;
        Ok(answers[0]["rows"][0][self.column] == self.port[self.column] && has_acted(&answers[1]))
    }

    fn mend(&mut self, node: &mut Node) -> Result<(), LabError> {
        let set = self.set(&self.port[self.column]);
        node.database.apply(&[set])
    }
}

impl PortChanged {
    fn set(&self, value: &Value) -> Value {
        json!({"op": "update", "table": "Port", "where": [["name", "==", self.port["name"]]], "row": {self.column: value}})
    }
}

/// The uplink's list of VLANs is changed.
pub(crate) struct Trunk(PortChanged);

impl Trunk {
    /// It carries every VLAN.
    pub(crate) fn emptied(node: &mut Node) -> Result<Self, LabError> {
        Self::new(node, |_| json!(["set", []]))
    }

    /// It carries one less.
    pub(crate) fn narrowed(node: &mut Node) -> Result<Self, LabError> {
        Self::new(node, |held| {
            let all = held[1].as_array().cloned().unwrap_or_default();
            json!(["set", all.get(1..).unwrap_or_default()])
        })
    }

    fn new(node: &mut Node, wrong: impl Fn(&Value) -> Value) -> Result<Self, LabError> {
        let port = row(node, "Port", "trunk0")?;
        let wrong = wrong(&port["trunks"]);
        Ok(Self(PortChanged {
            port,
            column: "trunks",
            wrong,
        }))
    }
}

impl Case for Trunk {
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError> {
        self.0.throw(node)
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        self.0.is_right(node)
    }

    fn mend(&mut self, node: &mut Node) -> Result<(), LabError> {
        self.0.mend(node)
    }
}

/// All flows are deleted.
pub(crate) struct Flows {
    active: u64,
    saved: Saved,
}

impl Flows {
    pub(crate) fn new(node: &mut Node) -> Result<Self, LabError> {
        let saved = Saved::of(node)?;
        let active = node.bridge.active()?;
        Ok(Self { active, saved })
    }
}

impl Case for Flows {
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError> {
        self.saved.delete()?;
        while node.bridge.active()? >= self.active {}
        Ok(())
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        Ok(node.bridge.active()? == self.active)
    }

    fn mend(&mut self, _: &mut Node) -> Result<(), LabError> {
        self.saved.put_back(false)
    }
}

/// The switch's whole configuration is gone.
pub(crate) struct Wiped {
    tables: [Vec<Value>; 3],
    active: u64,
    saved: Saved,
}

impl Wiped {
    pub(crate) fn new(node: &mut Node) -> Result<Self, LabError> {
        Ok(Self {
            tables: [
                node.database.table("Interface")?,
                node.database.table("Port")?,
                node.database.table("Bridge")?,
            ],
            active: node.bridge.active()?,
            saved: Saved::of(node)?,
        })
    }
}

impl Case for Wiped {
    fn throw(&mut self, node: &mut Node) -> Result<(), LabError> {
        let wipe = json!({"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["set", []]}});
        node.database.transact(&[wipe]).map(drop)
    }

    fn is_right(&mut self, node: &mut Node) -> Result<bool, LabError> {
        // Asked now and then only: it is no small question.
        std::thread::sleep(Duration::from_millis(20));
        let select =
            json!({"op": "select", "table": "Interface", "where": [["ofport", ">", 0]], "columns": ["ofport"]});
        let answers = node.database.transact(&[select, acted()])?;
        let taken = answers[0]["rows"].as_array().map_or(0, Vec::len);
        if taken < self.tables[0].len() - 1 || !has_acted(&answers[1]) {
            return Ok(false);
        }
        let Ok(bridge) = Bridge::connect(&management(&node.host)) else {
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
        node.database.apply(&all)?;
        self.saved.put_back(true)
    }
}

/// A bridge's flows, to be put back: by the driver of the agent, which sends meters and then one bundle, and nothing besides.
struct Saved {
    runtime: Runtime,
    client: openflow::Client,
    cancel: CancellationToken,
    set: FlowSet,
}

impl Saved {
    fn of(node: &Node) -> Result<Self, LabError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.map_err(LabError::io("cannot start a runtime"))?;
        let cancel = CancellationToken::new();
        let client = {
            let _context = runtime.enter();
            openflow::Client::start(management(&node.host), cancel.clone())
        };
        let set = runtime.block_on(async {
            client.ready(Duration::from_secs(10)).await?;
            Ok(client.table().await?.set)
        });
        let set = set.map_err(failed)?;
        Ok(Self {
            runtime,
            client,
            cancel,
            set,
        })
    }

    fn delete(&self) -> Result<(), LabError> {
        let all: Vec<openflow::Flow> = self.set.iter().collect();
        self.runtime.block_on(self.client.commit(&all, &[])).map_err(failed)
    }

    /// `anew`: the bridge is another one, without meters.
    fn put_back(&self, anew: bool) -> Result<(), LabError> {
        let there = if anew {
            FlowSet::default()
        } else {
            FlowSet {
                meters: self.set.meters.clone(),
                ..FlowSet::default()
            }
        };
        let plan = openflow::plan(&self.set, &there);
        let put = async {
            self.client.ready(Duration::from_secs(10)).await?;
            match openflow::execute(&plan, &self.client).await {
                // The old bridge's connection ends with the first question.
                Err(openflow::Error::ConnectionLost) if anew => {
                    self.client.ready(Duration::from_secs(10)).await?;
                    openflow::execute(&plan, &self.client).await
                }
                done => done,
            }
        };
        self.runtime.block_on(put).map_err(failed)
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn failed(error: openflow::Error) -> LabError {
    LabError::Other(format!("the bridge's flows: {error}"))
}

/// A row by its name.
fn row(node: &mut Node, table: &str, name: &str) -> Result<Value, LabError> {
    let mut rows = node.database.rows(table, "name", name)?;
    rows.pop()
        .ok_or_else(|| LabError::Other(format!("there is no {name} in {table}")))
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
    let answers = node.database.transact(&[select, acted()])?;
    let number = answers[0]["rows"][0]["ofport"].as_i64();
    Ok(number.is_some_and(|number| number > 0) && has_acted(&answers[1]))
}

/// Whether ovs-vswitchd has this very device as the port of its name.
pub(super) fn has_open(node: &mut Node, name: &str, index: u32) -> Result<bool, LabError> {
    let taken = is_taken(node, name)?;
    Ok(taken && row(node, "Interface", name)?["ifindex"] == index)
}

fn acted() -> Value {
    json!({"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["cur_cfg", "next_cfg"]})
}

fn has_acted(answer: &Value) -> bool {
    answer["rows"][0]["cur_cfg"] == answer["rows"][0]["next_cfg"]
}
