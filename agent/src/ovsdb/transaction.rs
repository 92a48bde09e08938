//! A transaction as a value, and the check of its answer.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Error;
use super::value::{named_uuid, string_map, uuid};

/// Columns of a row to insert or update.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row(Map<String, Value>);

impl Row {
    /// No column yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a column to an atom, or to what [`super::uuid()`] and its siblings make.
    #[must_use]
    pub fn set(mut self, column: &str, value: impl Into<Value>) -> Self {
        self.0.insert(column.to_owned(), value.into());
        self
    }

    /// Sets a column of at most one value, or empties it.
    #[must_use]
    pub fn set_optional(self, column: &str, value: Option<impl Into<Value>>) -> Self {
        let value = value.map_or_else(|| json!(["set", []]), Into::into);
        self.set(column, value)
    }

    /// Sets a column that is a set of integers.
    #[must_use]
    pub fn set_integers(self, column: &str, values: impl IntoIterator<Item = i64>) -> Self {
        self.set(column, json!(["set", values.into_iter().collect::<Vec<_>>()]))
    }

    /// Sets a column that is a map of strings.
    #[must_use]
    pub fn set_map(self, column: &str, map: &BTreeMap<String, String>) -> Self {
        self.set(column, string_map(map))
    }

    /// True when no column is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How many rows an operation has to touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// It says no number, or any will do.
    Any,
    /// Exactly this many.
    Exactly(u64),
}

#[derive(Debug, Clone, PartialEq)]
struct Operation {
    body: Value,
    /// Kind and table, for error messages.
    label: String,
    expect: Expect,
}

/// Operations that take effect together or not at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transaction {
    operations: Vec<Operation>,
}

impl Transaction {
    /// An empty transaction.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// True when nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Number of operations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    fn push(&mut self, label: String, expect: Expect, body: Value) -> &mut Self {
        self.operations.push(Operation { body, label, expect });
        self
    }

    /// Inserts a row; other operations of this transaction refer to it by `name` (see [`named_uuid`]).
    pub fn insert(&mut self, table: &str, name: &str, row: Row) -> &mut Self {
        let body = json!({ "op": "insert", "table": table, "uuid-name": name, "row": row.0 });
        self.push(format!("insert into {table}"), Expect::Any, body)
    }

    /// Replaces columns of one row, which must exist.
    pub fn update(&mut self, table: &str, id: Uuid, row: Row) -> &mut Self {
        let body = json!({ "op": "update", "table": table, "where": is(id), "row": row.0 });
        self.push(format!("update of {table}"), Expect::Exactly(1), body)
    }

    /// Adds references to rows inserted by this transaction to a column of one row, which must exist.
    pub fn add_references(&mut self, table: &str, id: Uuid, column: &str, names: &[String]) -> &mut Self {
        let members: Vec<Value> = names.iter().map(|name| named_uuid(name)).collect();
        self.mutate_set(table, id, column, "insert", members)
    }

    /// Takes references out of a column of one row, which must exist. A row that nothing refers to is removed by the database.
    pub fn remove_references(&mut self, table: &str, id: Uuid, column: &str, ids: &[Uuid]) -> &mut Self {
        let members: Vec<Value> = ids.iter().map(|id| uuid(*id)).collect();
        self.mutate_set(table, id, column, "delete", members)
    }

    fn mutate_set(&mut self, table: &str, id: Uuid, column: &str, how: &str, members: Vec<Value>) -> &mut Self {
        let body = json!({
            "op": "mutate", "table": table, "where": is(id),
            "mutations": [[column, how, ["set", members]]],
        });
        self.push(format!("mutate of {table}"), Expect::Exactly(1), body)
    }

    /// Adds references to rows inserted by this transaction to a column of the table's only row.
    pub fn add_references_to_only_row(&mut self, table: &str, column: &str, names: &[String]) -> &mut Self {
        let members: Vec<Value> = names.iter().map(|name| named_uuid(name)).collect();
        let body = json!({
            "op": "mutate", "table": table, "where": [],
            "mutations": [[column, "insert", ["set", members]]],
        });
        self.push(format!("mutate of {table}"), Expect::Exactly(1), body)
    }

    /// Deletes one row, which must exist.
    pub fn delete(&mut self, table: &str, id: Uuid) -> &mut Self {
        let body = json!({ "op": "delete", "table": table, "where": is(id) });
        self.push(format!("delete from {table}"), Expect::Exactly(1), body)
    }

    /// Guard: the whole transaction fails unless this row is there with these columns.
    pub fn require(&mut self, table: &str, id: Uuid, row: Row) -> &mut Self {
        let columns: Vec<&String> = row.0.keys().collect();
        let body = json!({
            "op": "wait", "table": table, "where": is(id), "timeout": 0,
            "columns": columns, "until": "==", "rows": [row.0],
        });
        self.push(format!("guard on {table}"), Expect::Any, body)
    }

    /// A remark in the database's log; carries the trace id when there is one.
    pub fn comment(&mut self, text: &str) -> &mut Self {
        self.push(
            "comment".to_owned(),
            Expect::Any,
            json!({ "op": "comment", "comment": text }),
        )
    }

    /// Asks ovs-vswitchd to say when it has acted, and reads back the number to wait for.
    pub(super) fn bump_next_cfg(&mut self) {
        self.push(
            "mutate of Open_vSwitch".to_owned(),
            Expect::Exactly(1),
            json!({ "op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]] }),
        );
        self.push(
            "select from Open_vSwitch".to_owned(),
            Expect::Any,
            json!({ "op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"] }),
        );
    }

    /// Parameters of the `transact` request.
    #[must_use]
    pub fn params(&self) -> Value {
        let mut params = vec![json!("Open_vSwitch")];
        params.extend(self.operations.iter().map(|operation| operation.body.clone()));
        Value::Array(params)
    }

    /// Checks every operation's own result: the reply as a whole looks like a success even when an operation failed.
    pub(super) fn check(&self, result: &Value) -> Result<Outcome, Error> {
        let results = result
            .as_array()
            .ok_or_else(|| Error::Protocol(format!("a transaction's result is no list: {result}")))?;
        for (index, result) in results.iter().enumerate() {
            if let Some(error) = result.get("error") {
                return Err(Error::Operation {
                    index,
                    operation: self.label(index),
                    error: text(Some(error)),
                    details: text(result.get("details")),
                });
            }
        }
        if results.len() < self.operations.len() {
            return Err(Error::Protocol(format!(
                "{} results for {} operations",
                results.len(),
                self.operations.len()
            )));
        }
        for (index, (operation, result)) in self.operations.iter().zip(results).enumerate() {
            if let Expect::Exactly(expected) = operation.expect {
                let count = result.get("count").and_then(Value::as_u64).unwrap_or(0);
                if count != expected {
                    return Err(Error::Count {
                        index,
                        operation: operation.label.clone(),
                        count,
                        expected,
                    });
                }
            }
        }
        Ok(Outcome {
            results: results.clone(),
        })
    }

    /// The error of a constraint that only shows at commit comes as one result more than there are operations.
    fn label(&self, index: usize) -> String {
        self.operations
            .get(index)
            .map_or_else(|| "commit".to_owned(), |operation| operation.label.clone())
    }
}

/// Results of a committed transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    results: Vec<Value>,
}

impl Outcome {
    /// `next_cfg` as read by the last operation, put there by [`Transaction::bump_next_cfg`].
    pub(super) fn next_cfg(&self) -> Option<i64> {
        self.results.last()?.get("rows")?.get(0)?.get("next_cfg")?.as_i64()
    }
}

fn is(id: Uuid) -> Value {
    json!([["_uuid", "==", uuid(id)]])
}

fn text(value: Option<&Value>) -> String {
    match value {
        None => "no details".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn update() -> Transaction {
        let mut transaction = Transaction::new();
        transaction
            .comment("x")
            .update("Port", Uuid::nil(), Row::new().set("tag", 110));
        transaction
    }

    #[test]
    fn an_error_inside_a_successful_reply_is_found() {
        let error = update()
            .check(&json!([{}, { "error": "constraint violation", "details": "5000 is not in range" }]))
            .unwrap_err();
        assert!(matches!(error, Error::Operation { index: 1, .. }));
        assert!(error.to_string().contains("5000 is not in range"));
    }

    #[test]
    fn an_operation_that_matched_no_row_is_an_error() {
        let error = update().check(&json!([{}, { "count": 0 }])).unwrap_err();
        assert!(matches!(
            error,
            Error::Count {
                index: 1,
                count: 0,
                expected: 1,
                ..
            }
        ));
    }

    #[test]
    fn an_error_at_commit_is_found_behind_the_last_operation() {
        let result = json!([{}, { "count": 1 }, { "error": "constraint violation", "details": "duplicate name" }]);
        let error = update().check(&result).unwrap_err();
        assert!(error.to_string().contains("commit"));
    }

    #[test]
    fn operations_after_a_failed_one_are_null_and_do_not_hide_it() {
        let result = json!([{ "error": "timed out" }, null]);
        assert!(matches!(
            update().check(&result).unwrap_err(),
            Error::Operation { index: 0, .. }
        ));
    }

    #[test]
    fn a_reply_with_too_few_results_is_an_error() {
        assert!(matches!(update().check(&json!([{}])).unwrap_err(), Error::Protocol(_)));
    }
}
