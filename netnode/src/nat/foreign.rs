//! Foreign nftables chains that drop what is forwarded. They are named and never edited.
//!
//! A chain is named when its policy is to drop, or when it stands at the forward hook and its last rule drops or rejects everything that
//! came so far, as firewalls have it. Whether an earlier rule accepts our packets takes following every jump; but an operator who has seen
//! to them has named our ports somewhere in that table, and then nothing is said. Chains at the input hook are not looked at: a host that
//! drops what is for itself forwards all the same.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::limits;
use crate::nft::{self, Error, Nft, TABLE};

/// How the name of every gateway's port begins.
const OUR_PORTS: &str = "gw_vlan";

#[derive(Debug, Clone, Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    #[serde(default)]
    hook: String,
    #[serde(default)]
    policy: String,
}

/// Looks; each as `family table chain`.
pub(super) async fn dropping(nft: &Nft) -> Result<Vec<String>, Error> {
    let chains = nft.list(&["chains"]).await?;
    let (mut tables, mut found) = (BTreeMap::new(), Vec::new());
    for chain in nft::objects(&chains, "chain").filter_map(|chain| Chain::deserialize(chain).ok()) {
        if !chain.is_suspect() {
            continue;
        }
        let key = (chain.family.clone(), chain.table.clone());
        if !tables.contains_key(&key) {
            // What went meanwhile, or cannot be read by nft at all, tells of its policy only.
            let listing = nft.list(&["table", &key.0, &key.1]).await.unwrap_or_default();
            tables.insert(key.clone(), listing);
        }
        if tables.get(&key).is_some_and(|table| chain.drops(table)) {
            found.push(format!("{} {} {}", chain.family, chain.table, chain.name));
        }
    }
    Ok(found)
}

impl Chain {
    fn is_ours(&self) -> bool {
        self.family == "inet" && [TABLE, limits::TABLE].contains(&self.table.as_str())
    }

    fn is_suspect(&self) -> bool {
        let sees_ipv4 = self.family == "ip" || self.family == "inet";
        let on_the_way = match self.hook.as_str() {
            "forward" => true,
            "prerouting" | "postrouting" => self.policy == "drop",
            _ => false,
        };
        sees_ipv4 && on_the_way && !self.is_ours()
    }

    fn drops(&self, table: &Value) -> bool {
        let last = nft::objects(table, "rule")
            .filter(|rule| rule["chain"] == self.name)
            .last();
        let drops = self.policy == "drop" || last.is_some_and(drops_everything);
        drops && !knows_our_ports(table)
    }
}

/// Only verdicts on everything: a rule that matches something says more than that.
fn drops_everything(rule: &Value) -> bool {
    let expressions = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is = |expression: &Value, sorts: &[&str]| sorts.iter().any(|sort| expression.get(sort).is_some());
    let Some((last, before)) = expressions.split_last() else {
        return false;
    };
    // iptables' own reject, where nft cannot say it in its words.
    let rejects = last["xt"]["name"] == "REJECT";
    (rejects || is(last, &["drop", "reject"])) && before.iter().all(|one| is(one, &["counter", "log"]))
}

fn knows_our_ports(table: &Value) -> bool {
    let names = |object: &Value| object.to_string().contains(OUR_PORTS);
    let passes = |rule: &&Value| {
        let expressions = rule["expr"].as_array().into_iter().flatten();
        let mut verdicts = expressions
            .filter_map(Value::as_object)
            .flat_map(|expression| expression.keys());
        verdicts.any(|verdict| ["accept", "jump", "goto"].contains(&verdict.as_str()))
    };
    nft::objects(table, "rule").filter(passes).any(names)
        || nft::objects(table, "set").any(names)
        || nft::objects(table, "map").any(names)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chain(family: &str, table: &str, hook: &str, policy: &str) -> Chain {
        let [family, table, hook, policy] = [family, table, hook, policy].map(str::to_owned);
        Chain {
            family,
            table,
            name: "FORWARD".into(),
            hook,
            policy,
        }
    }

    fn table(rules: &[Value]) -> Value {
        let rules: Vec<Value> = rules
            .iter()
            .map(|expr| json!({"rule": {"chain": "FORWARD", "expr": expr}}))
            .collect();
        json!({"nftables": rules})
    }

    fn accept(port: &str) -> Value {
        json!([{"match": {"left": {"meta": {"key": "iifname"}}, "right": port}}, {"accept": null}])
    }

    #[test]
    fn only_foreign_ipv4_chains_on_the_way_of_forwarded_packets_are_looked_at() {
        for (family, name, hook, policy, suspect) in [
            ("ip", "filter", "forward", "drop", true),
            ("inet", "firewalld", "forward", "accept", true),
            ("ip", "raw", "prerouting", "drop", true),
            ("inet", "nat", "postrouting", "drop", true),
            ("ip", "nat", "postrouting", "accept", false),
            ("ip", "filter", "input", "drop", false),
            ("ip6", "filter", "forward", "drop", false),
            ("inet", TABLE, "forward", "drop", false),
            ("inet", limits::TABLE, "forward", "drop", false),
        ] {
            assert_eq!(
                chain(family, name, hook, policy).is_suspect(),
                suspect,
                "{family} {name} {hook} {policy}"
            );
        }
    }

    #[test]
    fn a_chain_drops_by_its_policy_or_by_a_last_rule_that_matches_everything() {
        let policy = |policy: &str| chain("ip", "filter", "forward", policy);
        let (nothing, last) = (
            table(&[]),
            json!([{"counter": {"packets": 1, "bytes": 2}}, {"reject": null}]),
        );
        assert!(policy("drop").drops(&nothing) && policy("drop").drops(&Value::Null));
        assert!(!policy("accept").drops(&nothing));
        assert!(policy("accept").drops(&table(&[accept("eth7"), last.clone()])));
        assert!(policy("accept").drops(&table(&[json!([{"xt": {"type": "target", "name": "REJECT"}}])])));
        assert!(
            !policy("accept").drops(&table(&[last, accept("eth7")])),
            "something comes after it"
        );
        let some = json!([{"match": {"left": {"meta": {"key": "iifname"}}, "right": "eth7"}}, {"drop": null}]);
        assert!(!policy("accept").drops(&table(&[some])), "not everything");
    }

    #[test]
    fn a_table_that_accepts_our_ports_by_name_is_not_reported() {
        let rules = [accept("gw_vlan400"), json!([{"drop": null}])];
        assert!(!chain("ip", "filter", "forward", "accept").drops(&table(&rules)));
        assert!(!chain("ip", "filter", "forward", "drop").drops(&table(&rules[..1])));
    }
}
