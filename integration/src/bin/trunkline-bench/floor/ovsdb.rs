//! Open vSwitch's database: JSON over its socket, one request and its answer.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{StreamDeserializer, Value, de::IoRead, json};
use trunkline_integration::LabError;

const DATABASE: &str = "Open_vSwitch";

/// A connection that follows what ovs-vswitchd has done.
pub(crate) struct Ovsdb {
    stream: UnixStream,
    incoming: StreamDeserializer<'static, IoRead<BufReader<UnixStream>>, Value>,
    applied: i64,
}

impl Ovsdb {
    /// Connects.
    pub(crate) fn connect(path: &Path) -> Result<Self, LabError> {
        let stream = UnixStream::connect(path).map_err(LabError::io("cannot reach a database"))?;
        let reader = stream.try_clone().map_err(LabError::io("cannot share a socket"))?;
        let incoming = serde_json::Deserializer::from_reader(BufReader::new(reader)).into_iter();
        let mut new = Self {
            stream,
            incoming,
            applied: 0,
        };
        let follow = json!([DATABASE, null, { DATABASE: [{ "columns": ["cur_cfg"] }] }]);
        let found = new.request("monitor", follow)?;
        new.note(&found);
        Ok(new)
    }

    /// Carries out operations as one transaction, without waiting for ovs-vswitchd.
    pub(crate) fn transact(&mut self, operations: Vec<Value>) -> Result<Vec<Value>, LabError> {
        let mut parameters = vec![json!(DATABASE)];
        parameters.extend(operations);
        let Value::Array(results) = self.request("transact", Value::Array(parameters))? else {
            return Err(LabError::Other("a database's answer is no list".to_owned()));
        };
        match results.iter().find(|result| result.get("error").is_some()) {
            Some(refused) => Err(LabError::Other(format!("a transaction was refused: {refused}"))),
            None => Ok(results),
        }
    }

    /// Carries out operations as one transaction, and waits until ovs-vswitchd has acted on it (`cur_cfg`).
    pub(crate) fn commit(&mut self, mut operations: Vec<Value>) -> Result<Vec<Value>, LabError> {
        operations
            .push(json!({ "op": "mutate", "table": DATABASE, "where": [], "mutations": [["next_cfg", "+=", 1]] }));
        operations.push(json!({ "op": "select", "table": DATABASE, "where": [], "columns": ["next_cfg"] }));
        let results = self.transact(operations)?;
        let wanted = results
            .last()
            .and_then(|last| last.pointer("/rows/0/next_cfg")?.as_i64());
        let wanted = wanted.ok_or_else(|| LabError::Other("next_cfg was not read back".to_owned()))?;
        while self.applied < wanted {
            let message = self.message()?;
            self.notice(&message)?;
        }
        Ok(results)
    }

    fn request(&mut self, method: &str, parameters: Value) -> Result<Value, LabError> {
        self.send(&json!({ "id": 1, "method": method, "params": parameters }))?;
        loop {
            let mut message = self.message()?;
            if message.get("method").is_some() {
                self.notice(&message)?;
                continue;
            }
            return match message.get("error") {
                None | Some(Value::Null) => Ok(message.get_mut("result").map(Value::take).unwrap_or_default()),
                Some(error) => Err(LabError::Other(format!("a database refused: {error}"))),
            };
        }
    }

    fn notice(&mut self, message: &Value) -> Result<(), LabError> {
        match message.get("method").and_then(Value::as_str) {
            Some("echo") => {
                self.send(&json!({ "id": message.get("id"), "result": message.get("params"), "error": null }))
            }
            _ => {
                self.note(message.pointer("/params/1").unwrap_or(&Value::Null));
                Ok(())
            }
        }
    }

    fn note(&mut self, tables: &Value) {
        let rows = tables.get(DATABASE).and_then(Value::as_object);
        let applied = |row: &Value| row.pointer("/new/cur_cfg")?.as_i64();
        if let Some(applied) = rows.into_iter().flatten().find_map(|(_, row)| applied(row)) {
            self.applied = applied;
        }
    }

    fn send(&mut self, message: &Value) -> Result<(), LabError> {
        let sent = self.stream.write_all(message.to_string().as_bytes());
        sent.map_err(LabError::io("cannot write to a database"))
    }

    fn message(&mut self) -> Result<Value, LabError> {
        match self.incoming.next() {
            Some(Ok(message)) => Ok(message),
            Some(Err(error)) => Err(LabError::Other(format!("a database spoke no JSON: {error}"))),
            None => Err(LabError::Other("a database hung up".to_owned())),
        }
    }
}
