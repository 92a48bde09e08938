//! Open vSwitch's database, raw: JSON-RPC on its Unix socket.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::de::IoRead;
use serde_json::{StreamDeserializer, Value, json};
use trunkline_integration::LabError;

const DATABASE: &str = "Open_vSwitch";
/// Name of the monitor that follows what ovs-vswitchd has done.
const APPLIED: &str = "applied";
/// ovs-vswitchd takes a second for a thousand ports.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection.
pub(crate) struct Database {
    writer: UnixStream,
    incoming: StreamDeserializer<'static, IoRead<BufReader<UnixStream>>, Value>,
    follows: bool,
    /// `cur_cfg`, where it follows that.
    applied: i64,
    /// Rows of which other monitors have told.
    changed: usize,
}

impl Database {
    /// Connects.
    pub(crate) fn connect(socket: &Path) -> Result<Self, LabError> {
        let writer =
            UnixStream::connect(socket).map_err(LabError::io(format!("cannot connect to {}", socket.display())))?;
        writer.set_read_timeout(Some(LIMIT)).map_err(broke())?;
        let reader = BufReader::with_capacity(1 << 16, writer.try_clone().map_err(broke())?);
        Ok(Self {
            writer,
            incoming: serde_json::Deserializer::from_reader(reader).into_iter(),
            follows: false,
            applied: 0,
            changed: 0,
        })
    }

    /// Carries out operations as one transaction, without waiting for ovs-vswitchd. The answer to each, none of which has failed.
    pub(crate) fn transact(&mut self, operations: Vec<Value>) -> Result<Vec<Value>, LabError> {
        let parameters = std::iter::once(json!(DATABASE)).chain(operations).collect();
        let Value::Array(results) = self.call("transact", parameters)? else {
            return Err(LabError::Other("the database answered no list".to_owned()));
        };
        match results
            .iter()
            .find(|result| result.get("error").is_some_and(|error| !error.is_null()))
        {
            Some(result) => Err(LabError::Other(format!("the database refused a transaction: {result}"))),
            None => Ok(results),
        }
    }

    /// Carries out operations as one transaction, and waits until ovs-vswitchd has acted on it (`cur_cfg`).
    pub(crate) fn apply(&mut self, mut operations: Vec<Value>) -> Result<Vec<Value>, LabError> {
        self.follow()?;
        operations.push(json!({"op": "mutate", "table": DATABASE, "where": [], "mutations": [["next_cfg", "+=", 1]]}));
        operations.push(json!({"op": "select", "table": DATABASE, "where": [], "columns": ["next_cfg"]}));
        let results = self.transact(operations)?;
        let wanted = results.last().and_then(|last| last["rows"][0]["next_cfg"].as_i64());
        let wanted = wanted.ok_or_else(|| LabError::Other("next_cfg was not read back".to_owned()))?;
        while self.applied < wanted {
            let message = self.next()?;
            self.notice(&message)?;
        }
        Ok(results)
    }

    /// Begins to follow what ovs-vswitchd has done, which the first [`Database::apply`] otherwise does. The answer comes before the
    /// next one.
    pub(crate) fn follow(&mut self) -> Result<(), LabError> {
        if std::mem::replace(&mut self.follows, true) {
            return Ok(());
        }
        let tables = json!({ DATABASE: [{"columns": ["cur_cfg"]}] });
        self.send(&json!({"id": APPLIED, "method": "monitor", "params": [DATABASE, APPLIED, tables]}))
    }

    /// All rows of a table.
    pub(crate) fn table(&mut self, table: &str) -> Result<Vec<Value>, LabError> {
        self.select(table, json!([]))
    }

    /// The row of this name.
    pub(crate) fn row(&mut self, table: &str, name: &str) -> Result<Value, LabError> {
        let found = self.select(table, json!([["name", "==", name]]))?.pop();
        found.ok_or_else(|| LabError::Other(format!("there is no {name} in {table}")))
    }

    fn select(&mut self, table: &str, which: Value) -> Result<Vec<Value>, LabError> {
        let mut answers = self.transact(vec![json!({"op": "select", "table": table, "where": which})])?;
        match answers.first_mut().map(|answer| answer["rows"].take()) {
            Some(Value::Array(rows)) => Ok(rows),
            _ => Ok(Vec::new()),
        }
    }

    /// Reads these columns, and begins to hear of their changes.
    pub(crate) fn monitor(&mut self, tables: &Value) -> Result<Value, LabError> {
        self.call("monitor", json!([DATABASE, "bench", tables]))
    }

    /// Rows of which it was told until now that they changed.
    pub(crate) fn changed_rows(&mut self) -> Result<usize, LabError> {
        // The answer to a question comes after all notices before it.
        self.call("echo", json!([]))?;
        Ok(std::mem::take(&mut self.changed))
    }

    /// One request and its answer.
    fn call(&mut self, method: &str, parameters: Value) -> Result<Value, LabError> {
        self.send(&json!({"id": 1, "method": method, "params": parameters}))?;
        loop {
            let mut message = self.next()?;
            if message["method"].is_string() {
                self.notice(&message)?;
            } else if message["id"] == APPLIED {
                self.note(&message["result"]);
            } else if message["error"].is_null() {
                return Ok(message["result"].take());
            } else {
                let error = &message["error"];
                return Err(LabError::Other(format!("the database refused {method}: {error}")));
            }
        }
    }

    fn notice(&mut self, message: &Value) -> Result<(), LabError> {
        if message["method"] == "echo" {
            return self.send(&json!({"id": message["id"], "result": message["params"], "error": null}));
        }
        let [monitor, tables] = [0, 1].map(|at| &message["params"][at]);
        if monitor == APPLIED {
            self.note(tables);
        } else {
            let tables = tables.as_object().into_iter().flat_map(serde_json::Map::values);
            self.changed += tables
                .map(|rows| rows.as_object().map_or(0, serde_json::Map::len))
                .sum::<usize>();
        }
        Ok(())
    }

    fn note(&mut self, tables: &Value) {
        let rows = tables[DATABASE]
            .as_object()
            .into_iter()
            .flat_map(serde_json::Map::values);
        let mut applied = rows.filter_map(|row| row["new"]["cur_cfg"].as_i64());
        self.applied = applied.next().unwrap_or(self.applied);
    }

    fn send(&mut self, message: &Value) -> Result<(), LabError> {
        self.writer.write_all(message.to_string().as_bytes()).map_err(broke())
    }

    fn next(&mut self) -> Result<Value, LabError> {
        match self.incoming.next() {
            Some(Ok(message)) => Ok(message),
            Some(Err(error)) => Err(broke()(error.into())),
            None => Err(LabError::Other("the database has closed the connection".to_owned())),
        }
    }
}

fn broke() -> impl FnOnce(std::io::Error) -> LabError {
    LabError::io("the database's connection broke")
}

/// A row's own name, as references to it are written.
pub(crate) fn reference(row: &Value) -> Value {
    row["_uuid"].clone()
}
