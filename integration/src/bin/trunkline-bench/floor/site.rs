//! The floor's hosts: switches without any daemon of ours, to which is done by hand what our daemons did to theirs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use trunkline_integration::LabError;
use trunkline_integration::lab::{Host, Lab, Options};

use super::database::Database;
use super::held::{More, Port};
use super::netlink::Netlink;
use super::openflow::OpenFlow;
use super::{ALIAS, BRIDGE, DATABASE, MANAGEMENT, MTU, at_once, tap};

/// By host.
pub(crate) type Sites = BTreeMap<String, More>;

/// Two workers and a network node.
pub(crate) struct Floor {
    // Before the hosts that they are on.
    hands: BTreeMap<String, Hand>,
    lab: Lab,
}

/// What works on a host, with connections that were made beforehand, as our daemons' are.
struct Hand {
    host: Arc<Host>,
    database: Database,
    bridge: OpenFlow,
    netlink: Netlink,
    /// Rows of the ports that were made, by name.
    rows: BTreeMap<String, Value>,
}

impl Floor {
    /// Starts hosts with a bridge each, on which there is nothing.
    pub(crate) fn start() -> Result<Self, LabError> {
        let options = Options {
            daemons: false,
            ..Options::default()
        };
        let lab = Lab::start(&options)?;
        let mut hands = BTreeMap::new();
        for node in lab.layout().nodes() {
            let mode = if node.starts_with('w') { "secure" } else { "standalone" };
            let bridge = format!(
                "ovs-vsctl --timeout=20 add-br {BRIDGE} -- set bridge {BRIDGE} datapath_type=netdev fail_mode={mode} -- set \
                 port {BRIDGE} vlan_mode=access tag=0 protected=true"
            );
            let host = lab.host(&node)?;
            host.must(&bridge.split_whitespace().collect::<Vec<_>>())?;
            host.must(&["ip", "link", "set", "trunk0", "up"])?;
            host.must(&["ovs-ofctl", "-O", "OpenFlow14", "del-flows", BRIDGE])?;
            hands.insert(node, Hand::on(host)?);
        }
        Ok(Self { hands, lab })
    }

    /// The hosts.
    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Makes all of this; answers how many milliseconds it took until ovs-vswitchd had acted on everything.
    pub(crate) fn add(&mut self, sites: &Sites) -> Result<f64, LabError> {
        self.on_all(sites, Hand::add)
    }

    /// Removes what was added.
    pub(crate) fn remove(&mut self, sites: &Sites) -> Result<f64, LabError> {
        self.on_all(sites, Hand::remove)
    }

    /// All hosts at once.
    fn on_all(
        &mut self,
        sites: &Sites,
        work: impl Fn(&mut Hand, &More) -> Result<(), LabError> + Sync,
    ) -> Result<f64, LabError> {
        for hand in self.hands.values_mut() {
            hand.connect()?;
        }
        let hands = self.hands.iter_mut();
        let jobs = hands.filter_map(|(name, hand)| Some((hand, sites.get(name)?)));
        at_once(jobs, |(hand, more)| work(hand, more)).map(|took| took * 1e3)
    }
}

impl Hand {
    fn on(host: &Arc<Host>) -> Result<Self, LabError> {
        Ok(Self {
            database: Database::connect(&host.path(DATABASE))?,
            bridge: OpenFlow::connect(&host.path(MANAGEMENT))?,
            netlink: host.run(Netlink::route)??,
            host: Arc::clone(host),
            rows: BTreeMap::new(),
        })
    }

    /// Anew: what stood idle may have been ended from the other side.
    fn connect(&mut self) -> Result<(), LabError> {
        self.database = Database::connect(&self.host.path(DATABASE))?;
        self.database.follow()?;
        self.bridge = OpenFlow::connect(&self.host.path(MANAGEMENT))?;
        Ok(())
    }

    /// TAPs in one loop, the flows as one bundle, the ports as one transaction; then addresses.
    fn add(&mut self, more: &More) -> Result<(), LabError> {
        let taps = taps(more);
        if !taps.is_empty() {
            let names = taps.clone();
            let made = self.host.run(move || tap::make(&names))?;
            made.map_err(LabError::io("cannot make TAPs"))?;
            self.netlink.set_up_all(&taps, ALIAS, MTU)?;
        }
        if !more.flows.is_empty() {
            self.bridge.add(&more.flows, &more.meters)?;
        }
        let names: Vec<&String> = more.ports.keys().collect();
        let results = self.database.apply(additions(more))?;
        // Of each port first its interface's, then its own.
        let rows = results.chunks(2).filter_map(|pair| pair.get(1)?.get("uuid").cloned());
        self.rows.extend(names.into_iter().cloned().zip(rows));
        let indexed = |(name, ip, prefix): (&str, _, _)| Ok((self.netlink.index(name)?, ip, prefix));
        let addresses: Vec<_> = addresses(more).map(indexed).collect::<Result<_, LabError>>()?;
        Ok(self.netlink.address(&addresses)?)
    }

    /// The ports as one transaction, the flows as one bundle, the TAPs as one group.
    fn remove(&mut self, more: &More) -> Result<(), LabError> {
        let rows: Vec<Value> = more.ports.keys().filter_map(|name| self.rows.remove(name)).collect();
        self.database.apply(removals(more, rows))?;
        if !more.flows.is_empty() {
            self.bridge.remove(&more.flows, &more.meters)?;
        }
        let taps = taps(more);
        if taps.is_empty() {
            return Ok(());
        }
        Ok(self.netlink.delete_all(&taps)?)
    }
}

fn taps(more: &More) -> Vec<String> {
    more.ports
        .keys()
        .filter(|name| name.starts_with("tap_"))
        .cloned()
        .collect()
}

fn addresses(more: &More) -> impl Iterator<Item = (&str, Ipv4Addr, u8)> {
    let internal = |port: &Port| port.interface.get("type") == Some(&json!("internal"));
    let ports = more.ports.iter().filter(move |(_, port)| internal(port));
    ports.flat_map(|(name, port)| port.addresses.iter().map(|(ip, prefix)| (&name[..], *ip, *prefix)))
}

/// Of each port its interface, then itself; last what they join.
fn additions(more: &More) -> Vec<Value> {
    let (mut operations, mut joined) = (Vec::new(), Vec::new());
    for (at, (name, Port { port, interface, .. })) in more.ports.iter().enumerate() {
        let mut row = interface.clone();
        // The number that it has on our own host: the flows name it.
        if let Some(number) = row.remove("ofport") {
            row.insert("ofport_request".to_owned(), number);
        }
        row.insert("name".to_owned(), json!(name));
        operations.push(json!({ "op": "insert", "table": "Interface", "uuid-name": format!("i{at}"), "row": row }));
        let mut row = port.clone();
        row.insert("name".to_owned(), json!(name));
        row.insert("interfaces".to_owned(), json!(["named-uuid", format!("i{at}")]));
        operations.push(json!({ "op": "insert", "table": "Port", "uuid-name": format!("p{at}"), "row": row }));
        joined.push(json!(["named-uuid", format!("p{at}")]));
    }
    if !joined.is_empty() {
        operations.push(members("insert", joined));
    }
    operations.extend(more.changed.iter().map(|(name, [_, after])| columns(name, after)));
    operations
}

fn removals(more: &More, rows: Vec<Value>) -> Vec<Value> {
    let mut operations = vec![members("delete", rows)];
    operations.extend(more.changed.iter().map(|(name, [before, _])| columns(name, before)));
    operations
}

fn members(how: &str, rows: Vec<Value>) -> Value {
    let mutation = json!(["ports", how, ["set", rows]]);
    json!({ "op": "mutate", "table": "Bridge", "where": [["name", "==", BRIDGE]], "mutations": [mutation] })
}

fn columns(name: &str, row: &Map<String, Value>) -> Value {
    json!({ "op": "update", "table": "Port", "where": [["name", "==", name]], "row": row })
}
