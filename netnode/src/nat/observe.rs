//! What is there: our table, other tables' forward policies, forwarding, the uplink.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trunkline_agent::netlink::{self, Link, Route};
use trunkline_agent::process::{self, Run};
use trunkline_proto::{LinkSubnet, VlanId};

use super::execute::Error;
use super::plan::Forwarding;
use super::render::{Counter, MARK_CHAIN, TABLE, User};
use crate::Fingerprint;

/// Everything that a plan and a verdict need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Our table.
    pub table: Table,
    /// What we noted when we last wrote it.
    pub record: Record,
    /// Forwarding.
    pub forwarding: Forwarding,
    /// Where NAT leads to.
    pub uplink: Uplink,
    /// Foreign chains at the forward hook whose policy is drop, as `family table chain`.
    pub dropping: Vec<String>,
}

/// The table `inet trunkline`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Table {
    /// There is none.
    Absent,
    /// There is one without our mark.
    Foreign,
    /// Ours.
    Ours(Readback),
}

/// Our table, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readback {
    /// Names all it says but its counters' values and its handles.
    pub fingerprint: Fingerprint,
    /// What the masquerade rules counted.
    pub counters: BTreeMap<VlanId, Counter>,
}

/// Noted when the table is written. nft lists a table in other words than it takes, and other versions in yet others: so it is read
/// back at once, and later readings are compared with that one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Names the content that was written.
    pub rendered: Option<Fingerprint>,
    /// Names what was read back then.
    pub readback: Option<Fingerprint>,
    /// Who is served, or was until the connections have been ended.
    #[serde(flatten)]
    pub served: Served,
}

/// Who is masqueraded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// Whole subnets.
    pub subnets: BTreeSet<LinkSubnet>,
    /// Guests in them.
    #[serde(default)]
    pub users: BTreeSet<User>,
}

/// The interface that leads to the internet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// It is there.
    pub exists: bool,
    /// It is up.
    pub up: bool,
    /// The main table has an IPv4 default route through it.
    pub default_route: bool,
}

impl Uplink {
    /// Looks for it among the host's devices and routes.
    pub fn find(name: &str, links: &[Link], routes: &[Route]) -> Self {
        let link = links.iter().find(|link| link.name == name);
        let leads_out = |route: &Route| {
            matches!(route.destination, IpNet::V4(net) if net.prefix_len() == 0)
                && route.table == Route::MAIN
                && route.output == link.map(|link| link.index)
        };
        Self {
            name: name.to_owned(),
            exists: link.is_some(),
            up: link.is_some_and(|link| link.up),
            default_route: link.is_some() && routes.iter().any(leads_out),
        }
    }
}

/// Devices and routes of the host's namespace.
#[derive(Debug, Clone, Default)]
pub struct HostNetwork {
    /// Every device.
    pub links: Vec<Link>,
    /// Every address.
    pub addresses: Vec<netlink::Address>,
    /// Every unicast route.
    pub routes: Vec<Route>,
}

/// Reads our table and the foreign forward policies.
pub(super) async fn tables() -> Result<(Table, Vec<String>), Error> {
    let chains = list(&["list", "chains"]).await?;
    let chains: Vec<Chain> = objects(&chains, "chain")
        .filter_map(|chain| Chain::deserialize(chain).ok())
        .collect();
    let dropping = chains
        .iter()
        .filter(|c| c.kills_forwarding())
        .map(Chain::to_text)
        .collect();
    let table = if chains
        .iter()
        .any(|chain| chain.is_in_our_table() && chain.name == MARK_CHAIN)
    {
        Table::Ours(readback(&list(&["list", "table", "inet", TABLE]).await?))
    } else if ours_exists().await? {
        Table::Foreign
    } else {
        Table::Absent
    };
    Ok((table, dropping))
}

/// The counters alone.
pub(super) async fn counters() -> Result<BTreeMap<VlanId, Counter>, Error> {
    Ok(counters_of(&list(&["list", "counters", "table", "inet", TABLE]).await?))
}

async fn ours_exists() -> Result<bool, Error> {
    let tables = list(&["list", "tables"]).await?;
    Ok(objects(&tables, "table").any(|table| table["family"] == "inet" && table["name"] == TABLE))
}

async fn list(what: &[&str]) -> Result<Value, Error> {
    let output = Run::new("nft")
        .args(["-j"])
        .args(what)
        .run()
        .await
        .map_err(Error::Nft)?;
    parse(&output)
}

fn parse(output: &process::Output) -> Result<Value, Error> {
    serde_json::from_slice(&output.stdout).map_err(Error::Json)
}

#[derive(Debug, Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    #[serde(default)]
    hook: String,
    #[serde(default)]
    policy: String,
}

impl Chain {
    fn is_in_our_table(&self) -> bool {
        self.family == "inet" && self.table == TABLE
    }

    fn kills_forwarding(&self) -> bool {
        let sees_ipv4 = self.family == "ip" || self.family == "inet";
        sees_ipv4 && !self.is_in_our_table() && self.hook == "forward" && self.policy == "drop"
    }

    fn to_text(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.name)
    }
}

/// The objects of one sort in an answer of nft.
fn objects<'a>(answer: &'a Value, sort: &'a str) -> impl Iterator<Item = &'a Value> {
    answer["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(move |object| object.get(sort))
}

fn readback(answer: &Value) -> Readback {
    let mut content = answer["nftables"].clone();
    if let Some(objects) = content.as_array_mut() {
        objects.retain(|object| object.get("metainfo").is_none());
        objects.iter_mut().for_each(settle);
    }
    Readback {
        fingerprint: Fingerprint::of(content.to_string()),
        counters: counters_of(answer),
    }
}

/// Takes out what changes by itself: handles, counters, the order of a set's elements.
fn settle(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for changing in ["handle", "packets", "bytes"] {
                fields.shift_remove(changing);
            }
            if let Some(Value::Array(elements)) = fields.get_mut("elem") {
                elements.sort_by_key(Value::to_string);
            }
            fields.values_mut().for_each(settle);
        }
        Value::Array(values) => values.iter_mut().for_each(settle),
        _ => {}
    }
}

fn counters_of(answer: &Value) -> BTreeMap<VlanId, Counter> {
    objects(answer, "counter")
        .filter_map(|counter| {
            let vlan = counter["name"].as_str()?.strip_prefix("nat_vlan")?.parse().ok()?;
            let value = Counter {
                packets: counter["packets"].as_u64()?,
                bytes: counter["bytes"].as_u64()?,
            };
            Some((vlan, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(handle: u32, packets: u64, elements: &[&str], rule: &str) -> Value {
        json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "inet", "name": "trunkline", "handle": handle}},
            {"counter": {"family": "inet", "name": "nat_vlan400", "table": "trunkline", "handle": 4, "packets": packets, "bytes": 9}},
            {"set": {"name": "gateways", "handle": handle + 1, "elem": elements}},
            {"rule": {"chain": "forward", "handle": handle + 2, "expr": [{rule: null}]}},
        ]})
    }

    #[test]
    fn handles_counters_and_order_are_no_difference_but_a_rule_is() {
        let one = readback(&table(2, 5, &["a", "b"], "drop"));
        let two = readback(&table(7, 6, &["b", "a"], "drop"));
        assert_eq!(one.fingerprint, two.fingerprint);
        assert_eq!(two.counters[&VlanId::INTERNET], Counter { packets: 6, bytes: 9 });
        assert_ne!(
            one.fingerprint,
            readback(&table(2, 5, &["a", "b"], "accept")).fingerprint
        );
        assert_ne!(one.fingerprint, readback(&table(2, 5, &["a"], "drop")).fingerprint);
    }

    #[test]
    fn only_foreign_ipv4_forward_chains_with_policy_drop_kill_nat() {
        let chain = |family: &str, table: &str, hook: &str, policy: &str| {
            let [family, table, hook, policy] = [family, table, hook, policy].map(str::to_owned);
            Chain {
                family,
                table,
                name: "FORWARD".into(),
                hook,
                policy,
            }
            .kills_forwarding()
        };
        assert!(chain("ip", "filter", "forward", "drop"));
        assert!(chain("inet", "firewalld", "forward", "drop"));
        assert!(!chain("ip", "filter", "forward", "accept"));
        assert!(!chain("ip", "filter", "input", "drop"));
        assert!(!chain("ip6", "filter", "forward", "drop"));
        assert!(!chain("inet", TABLE, "forward", "drop"));
    }
}
