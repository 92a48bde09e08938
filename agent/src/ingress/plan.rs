//! TAPs against the table's chains. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{MARK_CHAIN, TABLE, Taps};
use crate::netlink::nft::{Batch, Chain};

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
    /// From the chains of the family, and whether the table is there.
    #[must_use]
    pub fn read(there: bool, chains: Vec<Chain>) -> Self {
        if !there {
            return Self::Absent;
        }
        let ours = chains.into_iter().filter(|chain| chain.table == TABLE);
        let read = |chain: Chain| {
            let hangs = chain.ingress_of.contains(&chain.name);
            // Whatever a rule says, it says it before the policy does.
            let drops = hangs && chain.drops && chain.rules == 0;
            (chain.name, drops)
        };
        let mut chains: BTreeMap<String, bool> = ours.map(read).collect();
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

/// True for names that mean nothing else to anybody who reads nft's lists. The controller gives TAPs no others.
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
    pub fn to_batch(&self) -> Batch {
        let mut batch = Batch::new(TABLE);
        batch.add_table();
        if self.delete {
            batch.delete_table();
            return batch;
        }
        batch.add_chain(MARK_CHAIN);
        for name in self.remove.iter().chain(&self.make) {
            // Adding first makes the deletion succeed when there is none: some kernels remove it with its device.
            batch.add_chain(name);
            batch.delete_chain(name);
        }
        for name in &self.make {
            batch.add_drop(name, name);
        }
        batch
    }
}
