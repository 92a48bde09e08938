//! What is on a host: ports with their devices, flows, meters. Read from our own daemons' hosts, never timed; the difference
//! of two readings is what a floor has to do.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};
use trunkline_integration::LabError;
use trunkline_integration::lab::Host;

use super::database::Database;
use super::openflow::{Flows, Meters, OpenFlow};
use super::{BRIDGE, DATABASE, MANAGEMENT};

const PORT_COLUMNS: [&str; 5] = ["vlan_mode", "tag", "trunks", "protected", "external_ids"];
const INTERFACE_COLUMNS: [&str; 5] = ["type", "mac", "mtu_request", "ofport", "external_ids"];

/// A port and its interface, in the database's own words.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Port {
    /// Columns of the port.
    pub(crate) port: Map<String, Value>,
    /// Columns of its interface.
    pub(crate) interface: Map<String, Value>,
    /// Addresses of its device.
    pub(crate) addresses: Vec<(Ipv4Addr, u8)>,
}

/// Everything on a host that counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    /// By name, the bridge's own left out.
    pub(crate) ports: BTreeMap<String, Port>,
    /// Of the bridge.
    pub(crate) flows: Flows,
    /// Of the bridge.
    pub(crate) meters: Meters,
}

impl Held {
    /// Reads a host.
    pub(crate) fn read(host: &Host) -> Result<Self, LabError> {
        let (flows, meters) = OpenFlow::connect(&host.path(MANAGEMENT))?.read()?;
        let select = |table: &str, columns: &[&str]| {
            let columns = [columns, &["name"]].concat();
            json!({ "op": "select", "table": table, "where": [], "columns": columns })
        };
        let operations = vec![select("Port", &PORT_COLUMNS), select("Interface", &INTERFACE_COLUMNS)];
        let results = Database::connect(&host.path(DATABASE))?.transact(operations)?;
        let [ports, interfaces] = &results[..] else {
            return Err(LabError::Other("a database answered something else".to_owned()));
        };
        let (mut interfaces, mut addresses) = (rows(interfaces), addresses(host)?);
        let port = |(name, port): (String, Map<String, Value>)| {
            let interface = interfaces.remove(&name).unwrap_or_default();
            let addresses = addresses.remove(&name).unwrap_or_default();
            let port = Port {
                port,
                interface,
                addresses,
            };
            (name, port)
        };
        Ok(Self {
            ports: rows(ports)
                .into_iter()
                .filter(|(name, _)| name != BRIDGE)
                .map(port)
                .collect(),
            flows,
            meters,
        })
    }

    /// What this has more than `before`.
    pub(crate) fn since(&self, before: &Self) -> More {
        let changed = |(name, port): (&String, &Port)| {
            let old = before.ports.get(name).filter(|old| old.port != port.port)?;
            Some((name.clone(), [old.port.clone(), port.port.clone()]))
        };
        More {
            ports: without(&self.ports, &before.ports),
            changed: self.ports.iter().filter_map(changed).collect(),
            flows: without(&self.flows, &before.flows),
            meters: without(&self.meters, &before.meters),
        }
    }
}

/// What comes to a host, or goes from it.
#[derive(Debug, Clone, Default)]
pub(crate) struct More {
    /// Ports by name.
    pub(crate) ports: BTreeMap<String, Port>,
    /// Ports that are there in any case (the uplink): columns before and after.
    pub(crate) changed: BTreeMap<String, [Map<String, Value>; 2]>,
    /// Flows.
    pub(crate) flows: Flows,
    /// Meters.
    pub(crate) meters: Meters,
}

fn without<K: Ord + Clone, V: Clone>(now: &BTreeMap<K, V>, before: &BTreeMap<K, V>) -> BTreeMap<K, V> {
    let new = now.iter().filter(|(key, _)| !before.contains_key(*key));
    new.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn rows(answer: &Value) -> BTreeMap<String, Map<String, Value>> {
    let rows = answer.get("rows").and_then(Value::as_array).into_iter().flatten();
    let row = |row: &Value| {
        let mut row = row.as_object()?.clone();
        let name = row.remove("name")?.as_str()?.to_owned();
        Some((name, row))
    };
    rows.filter_map(row).collect()
}

fn addresses(host: &Host) -> Result<BTreeMap<String, Vec<(Ipv4Addr, u8)>>, LabError> {
    let text = host.must(&["ip", "-j", "-4", "address"])?;
    let devices: Vec<Value> =
        serde_json::from_str(&text).map_err(|error| LabError::Other(format!("ip spoke no JSON: {error}")))?;
    let address = |entry: &Value| {
        let prefix = u8::try_from(entry.get("prefixlen")?.as_u64()?).ok()?;
        Some((entry.get("local")?.as_str()?.parse().ok()?, prefix))
    };
    let device = |device: &Value| {
        let name = device.get("ifname")?.as_str()?.to_owned();
        let all = device
            .get("addr_info")?
            .as_array()?
            .iter()
            .filter_map(address)
            .collect();
        Some((name, all))
    };
    Ok(devices.iter().filter_map(device).collect())
}
