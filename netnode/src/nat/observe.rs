//! What is there: our table, other tables' forward policies, forwarding, the uplink.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trunkline_agent::netlink::{self, Link, Route};
use trunkline_proto::{LinkSubnet, VlanId};

use super::execute::Error;
use super::limits;
use super::plan::Forwarding;
use super::render::{Counter, User};
use crate::Fingerprint;
use crate::nft::{self, Nft, Noted, TABLE};

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
    /// The table that limits connections.
    pub limits: limits::Seen,
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

/// Noted when the table is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// How it was written and read back.
    #[serde(flatten)]
    pub noted: Noted,
    /// The same of the table that limits connections.
    #[serde(default)]
    pub limits: Noted,
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
    /// Networks that it has an address in, and routers behind it.
    pub beside: BTreeSet<Ipv4Net>,
}

impl Uplink {
    /// Looks for it among the host's devices and routes.
    pub fn find(name: &str, host: &HostNetwork) -> Self {
        let HostNetwork {
            links,
            addresses,
            routes,
        } = host;
        let link = links.iter().find(|link| link.name == name);
        let is_its = |index: Option<u32>| index.is_some() && index == link.map(|link| link.index);
        let networks = addresses
            .iter()
            .filter(|address| is_its(Some(address.index)))
            .filter_map(|address| match address.net {
                IpNet::V4(net) => Some(net.trunc()),
                IpNet::V6(_) => None,
            });
        let routers = routes
            .iter()
            .filter(|route| is_its(route.output))
            .filter_map(|route| match route.gateway {
                Some(IpAddr::V4(router)) => Some(Ipv4Net::from(router)),
                _ => None,
            });
        let leads_out = |route: &Route| {
            matches!(route.destination, IpNet::V4(net) if net.prefix_len() == 0)
                && route.table == Route::MAIN
                && is_its(route.output)
        };
        Self {
            name: name.to_owned(),
            exists: link.is_some(),
            up: link.is_some_and(|link| link.up),
            default_route: routes.iter().any(leads_out),
            beside: networks.chain(routers).collect(),
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
    let nft = Nft::default();
    let chains = nft.list(&["chains"]).await?;
    let dropping = nft::objects(&chains, "chain")
        .filter_map(|chain| Chain::deserialize(chain).ok())
        .filter(Chain::kills_forwarding)
        .map(|chain| chain.to_text())
        .collect();
    let table = match nft.table(TABLE).await? {
        nft::Table::Absent => Table::Absent,
        nft::Table::Foreign => Table::Foreign,
        nft::Table::Ours(answer) => Table::Ours(Readback {
            fingerprint: nft::fingerprint(&answer),
            counters: counters_of(&answer),
        }),
    };
    Ok((table, dropping))
}

/// The counters alone.
pub(super) async fn counters() -> Result<BTreeMap<VlanId, Counter>, Error> {
    let answer = Nft::default().list(&["counters", "table", "inet", TABLE]).await?;
    Ok(counters_of(&answer))
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
    fn is_ours(&self) -> bool {
        self.family == "inet" && [TABLE, limits::TABLE].contains(&self.table.as_str())
    }

    fn kills_forwarding(&self) -> bool {
        let sees_ipv4 = self.family == "ip" || self.family == "inet";
        sees_ipv4 && !self.is_ours() && self.hook == "forward" && self.policy == "drop"
    }

    fn to_text(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.name)
    }
}

fn counters_of(answer: &Value) -> BTreeMap<VlanId, Counter> {
    nft::objects(answer, "counter")
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

    #[test]
    fn only_the_counters_of_masquerade_rules_are_read() {
        let counter = |name: &str| json!({"counter": {"name": name, "packets": 6, "bytes": 9}});
        let answer = json!({"nftables": [counter("nat_vlan400"), counter("else_vlan400"), {"metainfo": {}}]});
        let expected = BTreeMap::from([(VlanId::INTERNET, Counter { packets: 6, bytes: 9 })]);
        assert_eq!(counters_of(&answer), expected);
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
