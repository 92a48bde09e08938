//! TAPs against the table's chains. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::Value;

use super::{MARK_CHAIN, TABLE, Taps};

/// Our table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Table {
    /// There is none.
    #[default]
    Absent,
    /// There is one without our mark.
    Foreign,
    /// Ours. Its chains but for the mark, by name; true: it drops everything that comes in by the device of that name.
    Ours(BTreeMap<String, bool>),
}

impl Table {
    /// From nft's list of the family.
    #[must_use]
    pub fn read(answer: &Value) -> Self {
        let objects = |sort: &'static str| {
            let all = answer["nftables"].as_array().into_iter().flatten();
            all.filter_map(move |object| object.get(sort))
                .filter(|object| object["family"] == "netdev")
        };
        if !objects("table").any(|table| table["name"] == TABLE) {
            return Self::Absent;
        }
        let ours = |sort| objects(sort).filter(|object| object["table"] == TABLE);
        let mut chains: BTreeMap<String, bool> = ours("chain")
            .filter_map(|chain| {
                let name = chain["name"].as_str()?;
                // Versions of nft that list a chain's device at all list one as text or in a list.
                let device = match chain.get("dev") {
                    None => true,
                    Some(Value::Array(devices)) => devices.iter().any(|device| device == name),
                    Some(device) => device == name,
                };
                let drops = chain["hook"] == "ingress" && chain["policy"] == "drop" && device;
                Some((name.to_owned(), drops))
            })
            .collect();
        // Whatever a rule says, it says it before the policy does.
        for rule in ours("rule") {
            if let Some(drops) = rule["chain"].as_str().and_then(|name| chains.get_mut(name)) {
                *drops = false;
            }
        }
        match chains.remove(MARK_CHAIN) {
            Some(_) => Self::Ours(chains),
            None => Self::Foreign,
        }
    }
}

/// What has to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Chains to make, or to make anew.
    pub make: BTreeSet<String>,
    /// Chains to remove.
    pub remove: BTreeSet<String>,
    /// The table goes as a whole.
    pub delete: bool,
}

/// Plans the way from a table to the TAPs that are there. `fresh`: those that are other devices than before, whose chain, where the
/// kernel has kept one, may still be that of the earlier device.
#[must_use]
pub fn plan(taps: &Taps, fresh: &BTreeSet<String>, table: &Table) -> Plan {
    let none = BTreeMap::new();
    let chains = match table {
        Table::Foreign => return Plan::default(),
        Table::Absent => &none,
        Table::Ours(chains) => chains,
    };
    let open = |name: &&String| chains.get(*name) != Some(&true) || fresh.contains(*name);
    Plan {
        make: taps
            .keys()
            .filter(|name| is_plain(name))
            .filter(open)
            .cloned()
            .collect(),
        remove: chains
            .keys()
            .filter(|name| !taps.contains_key(*name))
            .cloned()
            .collect(),
        delete: taps.is_empty() && *table != Table::Absent,
    }
}

/// True for names that mean nothing else to nft. The controller gives TAPs no others.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    name.starts_with("tap_") && name.bytes().all(plain)
}

impl Plan {
    /// True when all is as it should be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { make, remove, delete } = self;
        make.is_empty() && remove.is_empty() && !delete
    }

    /// All of it or nothing. A chain that is made anew is there all the time: the kernel hangs the new one up before it takes the old
    /// one down.
    #[must_use]
    pub fn to_batch(&self) -> String {
        let mut batch = format!("add table netdev {TABLE}\n");
        if self.delete {
            batch += &format!("delete table netdev {TABLE}\n");
            return batch;
        }
        let mut line = |text: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = writeln!(batch, "{text}");
        };
        line(format_args!("add chain netdev {TABLE} {MARK_CHAIN}"));
        for name in self.remove.iter().chain(&self.make) {
            // Adding first makes the deletion succeed when there is none: older kernels remove it with its device.
            line(format_args!("add chain netdev {TABLE} {name}"));
            line(format_args!("flush chain netdev {TABLE} {name}"));
            line(format_args!("delete chain netdev {TABLE} {name}"));
        }
        for name in &self.make {
            line(format_args!(
                "add chain netdev {TABLE} {name} {{ type filter hook ingress device \"{name}\" priority 0; policy drop; }}"
            ));
        }
        batch
    }
}
