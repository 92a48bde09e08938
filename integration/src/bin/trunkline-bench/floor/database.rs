//! Open vSwitch's database, raw: JSON-RPC on its Unix socket, one request at a time.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::de::IoRead;
use serde_json::{StreamDeserializer, Value, json};
use trunkline_integration::LabError;

/// ovs-vswitchd takes a second for a thousand ports.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection.
pub(crate) struct Database {
    writer: UnixStream,
    answers: StreamDeserializer<'static, IoRead<BufReader<UnixStream>>, Value>,
    /// Notices that came between answers.
    notices: Vec<Value>,
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
            answers: serde_json::Deserializer::from_reader(reader).into_iter(),
            notices: Vec::new(),
        })
    }

    /// One request and its answer.
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Result<Value, LabError> {
        self.send(&json!({"id": 1, "method": method, "params": params}))?;
        loop {
            let mut message = self.next()?;
            if message["method"] == "echo" {
                self.send(&json!({"id": message["id"].take(), "result": message["params"].take(), "error": null}))?;
            } else if message["method"].is_string() {
                self.notices.push(message);
            } else if message["error"].is_null() {
                return Ok(message["result"].take());
            } else {
                return Err(LabError::Other(format!(
                    "the database refused {method}: {}",
                    message["error"]
                )));
            }
        }
    }

    /// A transaction: the answers to its operations, none of which has failed.
    pub(crate) fn transact(&mut self, operations: &[Value]) -> Result<Vec<Value>, LabError> {
        let mut params = vec![json!("Open_vSwitch")];
        params.extend_from_slice(operations);
        let Value::Array(results) = self.call("transact", &Value::Array(params))? else {
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

    /// A transaction, and ovs-vswitchd has acted on it.
    pub(crate) fn apply(&mut self, operations: &[Value]) -> Result<(), LabError> {
        let mut all = operations.to_vec();
        all.push(json!({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}));
        all.push(json!({"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]}));
        let answers = self.transact(&all)?;
        let wanted = answers.last().map(|answer| answer["rows"][0]["next_cfg"].clone());
        let wait = json!({"op": "wait", "table": "Open_vSwitch", "where": [], "columns": ["cur_cfg"], "until": "==",
            "rows": [{"cur_cfg": wanted}], "timeout": 60_000});
        self.transact(&[wait]).map(drop)
    }

    /// Rows of a table that have this value in a column.
    pub(crate) fn rows(&mut self, table: &str, column: &str, value: &str) -> Result<Vec<Value>, LabError> {
        let select = json!({"op": "select", "table": table, "where": [[column, "==", value]]});
        match self
            .transact(&[select])?
            .first_mut()
            .map(|answer| answer["rows"].take())
        {
            Some(Value::Array(rows)) => Ok(rows),
            _ => Ok(Vec::new()),
        }
    }

    /// All rows of a table.
    pub(crate) fn table(&mut self, table: &str) -> Result<Vec<Value>, LabError> {
        match self
            .transact(&[json!({"op": "select", "table": table, "where": []})])?
            .first_mut()
            .map(|answer| answer["rows"].take())
        {
            Some(Value::Array(rows)) => Ok(rows),
            _ => Ok(Vec::new()),
        }
    }

    /// Begins to hear of changes of these columns.
    pub(crate) fn monitor(&mut self, tables: &Value) -> Result<Value, LabError> {
        self.call("monitor", &json!(["Open_vSwitch", "bench", tables]))
    }

    /// Rows of which it was told until now that they changed.
    pub(crate) fn changed_rows(&mut self) -> Result<usize, LabError> {
        // The answer to a question comes after all notices before it.
        self.call("echo", &json!([]))?;
        let rows = |notice: &Value| -> usize {
            let tables = notice["params"][1]
                .as_object()
                .into_iter()
                .flat_map(|tables| tables.values());
            tables
                .map(|rows| rows.as_object().map_or(0, serde_json::Map::len))
                .sum()
        };
        let count = self
            .notices
            .iter()
            .filter(|notice| notice["method"] == "update")
            .map(rows)
            .sum();
        self.notices.clear();
        Ok(count)
    }

    fn send(&mut self, message: &Value) -> Result<(), LabError> {
        self.writer.write_all(message.to_string().as_bytes()).map_err(broke())
    }

    fn next(&mut self) -> Result<Value, LabError> {
        match self.answers.next() {
            Some(Ok(message)) => Ok(message),
            Some(Err(error)) => Err(LabError::io("the database's connection broke")(error.into())),
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
