//! What is there: our tables, foreign ones that drop, forwarding, the uplink.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trunkline_agent::netlink::{self, Link, Route};
use trunkline_proto::{LinkSubnet, VlanId};

use super::execute::Error;
use super::plan::Forwarding;
use super::render::{ARP, Counter, User};
use super::{foreign, limits};
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
    /// Foreign chains that drop what is forwarded, as `family table chain`.
    pub dropping: Vec<String>,
}

/// The tables `inet trunkline` and `arp trunkline`, which are written and taken away together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Table {
    /// There is none.
    Absent,
    /// There is one without our mark, in this family.
    Foreign(&'static str),
    /// Ours, at least one of them.
    Ours(Readback),
}

/// Our tables, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readback {
    /// Names all that they say but counters' values and handles.
    pub fingerprint: Fingerprint,
    /// Both are there.
    pub whole: bool,
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

/// What nft lists.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) table: Table,
    pub(super) dropping: Vec<String>,
    pub(super) limits: limits::Seen,
}

/// What was last listed, when, and the number that the kernel gave the rules then.
#[derive(Debug, Clone, Default)]
pub(super) struct Read(Arc<Mutex<Option<(u32, Instant, Listed)>>>);

impl Read {
    /// Lists again when the kernel says that a rule has changed, and now and then.
    pub(super) async fn list(&self) -> Result<Listed, Error> {
        // Asked before: what changes meanwhile has another number.
        let rules = netlink::nft::rules_generation().unwrap_or_default();
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().clone();
        if let (Some(rules), Some((then, at, mut listed))) = (rules, known)
            && rules == then
            && at.elapsed() < nft::READ_FOR
            && listed.limits.remember().is_ok()
        {
            return Ok(listed);
        }
        let listed = list().await?;
        *lock() = rules.map(|rules| (rules, Instant::now(), listed.clone()));
        Ok(listed)
    }
}

async fn list() -> Result<Listed, Error> {
    let nft = Nft::default();
    let all = nft.list(&["tables"]).await?;
    let (inet, arp, dropping, limits) = tokio::try_join!(
        nft.table_among(&all, "inet", TABLE),
        nft.table_among(&all, ARP, TABLE),
        foreign::dropping(&nft),
        limits::look_among(&nft, &all),
    )?;
    let table = join(inet, arp);
    Ok(Listed {
        table,
        dropping,
        limits,
    })
}

fn join(inet: nft::Table, arp: nft::Table) -> Table {
    let (inet, arp) = match (inet, arp) {
        (nft::Table::Foreign, _) => return Table::Foreign("inet"),
        (_, nft::Table::Foreign) => return Table::Foreign(ARP),
        (nft::Table::Absent, nft::Table::Absent) => return Table::Absent,
        (inet, arp) => (listed(inet), listed(arp)),
    };
    let names = [&inet, &arp].map(|table| table.as_ref().map(nft::fingerprint));
    Table::Ours(Readback {
        fingerprint: Fingerprint::of(format!("{names:?}")),
        whole: inet.is_some() && arp.is_some(),
        counters: inet.as_ref().map(counters_of).unwrap_or_default(),
    })
}

fn listed(table: nft::Table) -> Option<Value> {
    match table {
        nft::Table::Ours(listing) => Some(listing),
        nft::Table::Absent | nft::Table::Foreign => None,
    }
}

/// The counters alone.
pub(super) async fn counters() -> Result<BTreeMap<VlanId, Counter>, Error> {
    let answer = Nft::default().list(&["counters", "table", "inet", TABLE]).await?;
    Ok(counters_of(&answer))
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
    fn both_tables_are_read_as_one() {
        let ours = |rule: &str| nft::Table::Ours(json!({"nftables": [{"rule": {"expr": rule}}]}));
        let (whole, half) = (join(ours("a"), ours("b")), join(nft::Table::Absent, ours("b")));
        assert_eq!(whole, join(ours("a"), ours("b")));
        assert_ne!(whole, join(ours("a"), ours("c")));
        assert!(matches!(&whole, Table::Ours(readback) if readback.whole));
        assert!(
            matches!(&half, Table::Ours(readback) if !readback.whole),
            "it has to go, or be written again"
        );
        assert_eq!(join(nft::Table::Absent, nft::Table::Absent), Table::Absent);
        assert_eq!(join(ours("a"), nft::Table::Foreign), Table::Foreign("arp"));
        assert_eq!(join(nft::Table::Foreign, nft::Table::Absent), Table::Foreign("inet"));
    }
}
