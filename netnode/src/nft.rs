//! nftables by its program: what is there as JSON, changes as one batch of text, in the host's namespace or in another.
//!
//! A table of ours carries our mark, an empty chain, because nft's JSON leaves a table's comment out. nft lists a table in other words
//! than it takes, and other versions in yet others: so a table is read back as soon as it is written, and later readings are compared
//! with that one ([`Noted`]).

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use trunkline_agent::process::{self, Run};
use trunkline_proto::daemon::failpoint;

use crate::Fingerprint;

/// Our tables' name; their family is `inet` unless another one is said.
pub const TABLE: &str = "trunkline";
/// An empty chain that says that a table is ours.
pub const MARK_CHAIN: &str = "owned-by-trunkline-netnode";
/// How long what was read is believed while the kernel says that no rule has changed: shorter than the pause between two passes of a host
/// where nothing happens, so that each of those reads.
pub(crate) const READ_FOR: Duration = Duration::from_secs(10);
/// nft waits for other writers of the ruleset.
const LIMIT: Duration = Duration::from_secs(20);

/// Why nftables could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// nft failed.
    #[error("nftables")]
    Nft(#[source] process::Error),
    /// Its answer is not JSON.
    #[error("nft's answer cannot be read")]
    Json(#[source] serde_json::Error),
}

/// Noted when a table is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// Names the content that was written.
    pub rendered: Option<Fingerprint>,
    /// Names what was read back then.
    pub readback: Option<Fingerprint>,
}

impl Noted {
    /// True when a table that reads `seen` was written as `wanted`, and nobody has changed it since.
    pub fn stands(&self, wanted: Fingerprint, seen: Option<Fingerprint>) -> bool {
        self.rendered == Some(wanted) && seen.is_some() && self.readback == seen
    }
}

/// A table, if there is one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Table {
    /// There is none.
    Absent,
    /// There is one without our mark.
    Foreign,
    /// Ours, as nft lists it.
    Ours(Value),
}

/// The same, with its content named only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// There is none.
    #[default]
    Absent,
    /// There is one without our mark.
    Foreign,
    /// Ours; this names what it says.
    Ours(Fingerprint),
}

impl State {
    /// Names its content, if it is ours.
    pub fn fingerprint(self) -> Option<Fingerprint> {
        match self {
            Self::Ours(fingerprint) => Some(fingerprint),
            Self::Absent | Self::Foreign => None,
        }
    }
}

impl Table {
    pub(crate) fn state(&self) -> State {
        match self {
            Self::Absent => State::Absent,
            Self::Foreign => State::Foreign,
            Self::Ours(answer) => State::Ours(fingerprint(answer)),
        }
    }
}

/// The nftables of one namespace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nft {
    namespace: Option<PathBuf>,
}

impl Nft {
    /// Of another namespace than the host's, by its file.
    pub(crate) fn within(namespace: PathBuf) -> Self {
        Self {
            namespace: Some(namespace),
        }
    }

    pub(crate) async fn list(&self, what: &[&str]) -> Result<Value, Error> {
        let output = self
            .run()
            .args(["-j", "list"])
            .args(what)
            .run()
            .await
            .map_err(Error::Nft)?;
        serde_json::from_slice(&output.stdout).map_err(Error::Json)
    }

    /// All of a batch or nothing.
    pub(crate) async fn load(&self, batch: impl Into<Vec<u8>>) -> Result<(), Error> {
        let run = self.run().args(["-f", "-"]).stdin(batch).timeout(LIMIT);
        failpoint::reach("nft.before-batch");
        let loaded = run.run().await.map(drop).map_err(Error::Nft);
        failpoint::reach("nft.after-batch");
        loaded
    }

    pub(crate) async fn table(&self, name: &str) -> Result<Table, Error> {
        self.table_of("inet", name).await
    }

    /// The same of another family.
    pub(crate) async fn table_of(&self, family: &str, name: &str) -> Result<Table, Error> {
        let tables = self.list(&["tables"]).await?;
        self.table_among(&tables, family, name).await
    }

    /// The same, with the list of all tables at hand.
    pub(crate) async fn table_among(&self, tables: &Value, family: &str, name: &str) -> Result<Table, Error> {
        if !objects(tables, "table").any(|table| table["family"] == family && table["name"] == name) {
            return Ok(Table::Absent);
        }
        let table = self.list(&["table", family, name]).await?;
        let ours = objects(&table, "chain").any(|chain| chain["name"] == MARK_CHAIN);
        Ok(if ours { Table::Ours(table) } else { Table::Foreign })
    }

    fn run(&self) -> Run {
        let run = Run::new("nft");
        match &self.namespace {
            Some(path) => run.namespace(path),
            None => run,
        }
    }
}

/// The beginning of a batch that puts one table in the place of another. Adding first makes the deletion succeed when there is none.
pub(crate) fn replace(table: &str) -> String {
    replace_of("inet", table)
}

/// The same of another family.
pub(crate) fn replace_of(family: &str, table: &str) -> String {
    format!(
        "{}table {family} {table} {{\n\tcomment \"Written by trunkline-netnode; changes are overwritten\"\n",
        delete_of(family, table)
    )
}

/// A batch after which the table is not there, whether it was or not.
pub(crate) fn delete(table: &str) -> String {
    delete_of("inet", table)
}

/// The same of another family.
pub(crate) fn delete_of(family: &str, table: &str) -> String {
    format!("add table {family} {table}\ndelete table {family} {table}\n")
}

/// A set as text; nft has no notation for "no elements".
pub(crate) fn set(name: &str, kind: &str, elements: &[String]) -> String {
    let elements = match elements {
        [] => String::new(),
        elements => format!("\t\telements = {{ {} }}\n", elements.join(", ")),
    };
    format!("\tset {name} {{\n\t\t{kind}\n{elements}\t}}\n")
}

/// The objects of one sort in an answer.
pub(crate) fn objects<'a>(answer: &'a Value, sort: &'a str) -> impl Iterator<Item = &'a Value> {
    answer["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(move |object| object.get(sort))
}

/// Names all that an answer says but what changes by itself.
pub(crate) fn fingerprint(answer: &Value) -> Fingerprint {
    let mut content = answer["nftables"].clone();
    if let Some(objects) = content.as_array_mut() {
        objects.retain(|object| object.get("metainfo").is_none());
        objects.iter_mut().for_each(settle);
    }
    Fingerprint::of(content.to_string())
}

/// Takes out what changes by itself: handles, counters, the order of a set's elements, and elements with a time limit, which are the
/// kernel's own.
fn settle(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key("timeout") {
                fields.shift_remove("elem");
            }
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
    fn what_the_kernel_puts_into_a_set_with_a_time_limit_is_no_difference() {
        let table =
            |elements: Value| json!({"nftables": [{"set": {"name": "echoes", "timeout": 60, "elem": elements}}]});
        let one = json!([{"elem": {"val": {"concat": ["gw_vlan110", "10.64.110.1"]}, "timeout": 60, "expires": 12}}]);
        assert_eq!(fingerprint(&table(json!([]))), fingerprint(&table(one)));
    }

    #[test]
    fn handles_counters_and_order_are_no_difference_but_a_rule_is() {
        let one = fingerprint(&table(2, 5, &["a", "b"], "drop"));
        assert_eq!(one, fingerprint(&table(7, 6, &["b", "a"], "drop")));
        assert_ne!(one, fingerprint(&table(2, 5, &["a", "b"], "accept")));
        assert_ne!(one, fingerprint(&table(2, 5, &["a"], "drop")));
    }
}
