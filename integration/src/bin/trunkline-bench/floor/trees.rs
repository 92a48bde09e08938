//! Reading a controller's database: open, iterate, decode every row into what it is. Nothing is checked, sorted or compiled.

use std::any::Any;
use std::path::Path;

use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::Value;
use trunkline_controller::journal::Entry;
use trunkline_controller::model::{Departure, Link, Meta, NodeRecord, Vm};
use trunkline_integration::LabError;

use crate::part;

/// A row, decoded into what it is.
type Row = Box<dyn Any>;

/// Some VMs or links of a revision.
#[derive(serde::Deserialize)]
struct Part {
    #[serde(default, rename = "vms")]
    _vms: Vec<Vm>,
    #[serde(default, rename = "links")]
    _links: Vec<Link>,
}

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, tag = "1")]
    actor: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(bytes = "vec", tag = "3")]
    fingerprint: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    answer: Vec<u8>,
}

/// Reads the database and says how many rows it holds.
pub(crate) fn run(database: &Path) -> Result<(), LabError> {
    let rows = read(database)?;
    part::say(&rows.len())?;
    // Nobody waits for memory to be given back.
    std::process::exit(0);
}

/// Bytes of one small mutation: its rows, keys included, as they stand after the last one.
pub(crate) fn bytes_of_a_mutation(database: &Path, rows: &[&str]) -> Result<usize, LabError> {
    let database = open(database)?;
    let mut bytes = 0;
    for row in rows {
        let found = database.scan_prefix(row).next_back();
        let found = found.ok_or_else(|| LabError::Other(format!("there is no row {row}")))?;
        let (key, value) = found.map_err(broken)?;
        bytes += key.len() + value.len();
    }
    Ok(bytes)
}

fn open(database: &Path) -> Result<sled::Db, LabError> {
    sled::Config::new()
        .path(database)
        .flush_every_ms(None)
        .open()
        .map_err(broken)
}

fn read(database: &Path) -> Result<Vec<(Row, sled::IVec)>, LabError> {
    let database = open(database)?;
    let mut rows = Vec::new();
    for row in database.iter() {
        let (key, value) = row.map_err(broken)?;
        rows.push((decode(&key, &value)?, key));
    }
    Ok(rows)
}

fn decode(key: &[u8], value: &[u8]) -> Result<Row, LabError> {
    let key = std::str::from_utf8(key).unwrap_or_default();
    let mut parts = key.split('/');
    match (parts.next().unwrap_or_default(), parts.count()) {
        ("meta", _) => json::<Meta>(key, value),
        ("node", _) => json::<NodeRecord>(key, value),
        ("departure", _) => json::<Departure>(key, value),
        ("vm", _) => json::<Vm>(key, value),
        ("link", _) => json::<Link>(key, value),
        ("event", _) => json::<Entry>(key, value),
        ("frozen", 3) => json::<Part>(key, value),
        ("request", _) => match Request::decode(value) {
            Ok(request) => Ok(Box::new(request)),
            Err(error) => Err(unreadable(key, &error)),
        },
        // The heads of slices and revisions are a few numbers and texts.
        _ => json::<Value>(key, value),
    }
}

fn json<T: DeserializeOwned + 'static>(key: &str, value: &[u8]) -> Result<Row, LabError> {
    match serde_json::from_slice::<T>(value) {
        Ok(decoded) => Ok(Box::new(decoded)),
        Err(error) => Err(unreadable(key, &error)),
    }
}

fn unreadable(key: &str, error: &dyn std::error::Error) -> LabError {
    LabError::Other(format!("row {key} cannot be read: {error}"))
}

fn broken(error: sled::Error) -> LabError {
    LabError::Other(format!("the database cannot be read: {error}"))
}
