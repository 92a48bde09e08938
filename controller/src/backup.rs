//! Exports and their restore: the way back when the database is lost.
//!
//! ```text
//!   {"trunkline_export":1,"cluster_id":"...","term":1,"revision":42,"at":"2026-11-21T17:30:00Z"}
//!   {"key":"meta","value":{...}}              one line per row, in the order of the keys
//!   ...
//!   {"rows":17,"sha256":"..."}                over everything before; a file without it was cut
//! ```
//!
//! Answers to mutations are left out: they are for retries within minutes. A restore raises the term, so that what nodes were told
//! after the export was made counts as older than what they are told now.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    journal,
    model::{Cluster, Timestamp, rows},
    store::{Rows, SledStore, StoreError},
};

/// Version of the file.
const VERSION: u32 = 1;

const RESTORABLE_ELSEWHERE: &str = "it was written by another version of the controller; use that one";

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    trunkline_export: u32,
    cluster_id: String,
    term: u64,
    revision: u64,
    at: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    key: String,
    value: Value,
}

#[derive(Debug, Serialize, Deserialize)]
struct Footer {
    rows: usize,
    sha256: String,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The cluster.
    pub cluster_id: String,
    /// Its new term.
    pub term: u64,
    /// Revision that the export was made at.
    pub revision: u64,
    /// When the export was written.
    pub at: String,
    /// Slices in it.
    pub slices: usize,
    /// Those that were deployed then, with the number of the revision.
    pub deployed: Vec<(String, u32)>,
}

/// Why an export cannot be written or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file cannot be read or written.
    #[error("{}: cannot be {what}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// `read`, `written`.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The file is not a whole export.
    #[error("{}: not an export that can be restored: {why}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The rows are not a cluster.
    #[error("the rows are not understood")]
    Rows(#[from] rows::RowError),
    /// The state directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nothing to export.
    #[error("{}: there is no cluster there", .0.display())]
    NoCluster(PathBuf),
}

/// An export of these rows as text.
///
/// # Errors
/// The rows are not a cluster.
pub fn render(rows: &Rows, at: Timestamp) -> Result<Vec<u8>, BackupError> {
    let cluster = load_cluster(rows)?;
    let unusable = |error: serde_json::Error| BackupError::Unusable {
        path: "export".into(),
        why: error.to_string(),
    };
    let header = Header {
        trunkline_export: VERSION,
        cluster_id: cluster.meta.cluster_id,
        term: cluster.meta.term,
        revision: cluster.meta.revision,
        at: at.to_string(),
    };
    let mut text = serde_json::to_vec(&header).map_err(unusable)?;
    text.push(b'\n');
    let mut count = 0;
    for (key, value) in rows.iter().filter(|(key, _)| is_exported(key)) {
        let line = Line {
            key: key.clone(),
            value: serde_json::from_slice(value).map_err(unusable)?,
        };
        serde_json::to_writer(&mut text, &line).map_err(unusable)?;
        text.push(b'\n');
        count += 1;
    }
    let footer = Footer {
        rows: count,
        sha256: hex::encode(Sha256::digest(&text)),
    };
    serde_json::to_writer(&mut text, &footer).map_err(unusable)?;
    text.push(b'\n');
    Ok(text)
}

/// Exports a state directory that no controller has open.
///
/// # Errors
/// The directory is in use or not whole, or the file cannot be written.
pub fn export(state_dir: &Path, file: &Path, at: Timestamp) -> Result<(), BackupError> {
    use crate::store::Store;
    let store = SledStore::open(state_dir)?.ok_or_else(|| BackupError::NoCluster(state_dir.to_owned()))?;
    write(file, &render(&store.load()?.rows, at)?)
}

/// Writes a file whole or not at all.
///
/// # Errors
/// It cannot be written.
pub fn write(file: &Path, text: &[u8]) -> Result<(), BackupError> {
    let failed = |source| BackupError::Io {
        path: file.to_owned(),
        what: "written",
        source,
    };
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    // There is a secret in it. One that was left half written, whoever may read it, is not written over.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let mut handle = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(failed)?;
    handle
        .write_all(text)
        .and_then(|()| handle.sync_all())
        .map_err(failed)?;
    fs::rename(&new, file).map_err(failed)?;
    let dir = file
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// Makes a new state directory of an export. The term becomes `term`, or one more than the export's.
///
/// # Errors
/// The file is not a whole export, or the directory is not empty.
pub fn restore(file: &Path, state_dir: &Path, term: Option<u64>) -> Result<Restored, BackupError> {
    let text = fs::read(file).map_err(|source| BackupError::Io {
        path: file.to_owned(),
        what: "read",
        source,
    })?;
    let (header, exported) = parse(&text).map_err(|why| BackupError::Unusable {
        path: file.to_owned(),
        why,
    })?;
    let cluster = load_cluster(&exported)?;
    let next = cluster.meta.term.saturating_add(1);
    if term.is_some_and(|term| term < next) {
        let why = format!("it is of term {}; a restore must raise the term", cluster.meta.term);
        return Err(BackupError::Unusable {
            path: file.to_owned(),
            why,
        });
    }
    let cluster = cluster.restored(term.unwrap_or(next));
    let mut restored: Rows = rows::all(&cluster).into_iter().collect();
    restored.extend(exported.into_iter().filter(|(key, _)| key.starts_with(journal::PREFIX)));
    SledStore::create(state_dir, &cluster.meta.cluster_id, restored)?;
    Ok(Restored {
        term: cluster.meta.term,
        revision: cluster.meta.revision,
        at: header.at,
        slices: cluster.slices.len(),
        deployed: cluster
            .deployed()
            .map(|(slice, frozen)| (slice.name.to_string(), frozen.number))
            .collect(),
        cluster_id: cluster.meta.cluster_id,
    })
}

fn parse(text: &[u8]) -> Result<(Header, Rows), String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is no text")?;
    let lines: Vec<&str> = text.lines().collect();
    let (Some(first), Some(last)) = (lines.first(), lines.last()) else {
        return Err("it is empty".into());
    };
    let header: Header = serde_json::from_str(first).map_err(|_| "its first line is no header")?;
    if header.trunkline_export != VERSION {
        return Err(RESTORABLE_ELSEWHERE.into());
    }
    let footer: Footer = serde_json::from_str(last).map_err(|_| "its last line is missing: it was cut short")?;
    let body = text.len() - last.len() - usize::from(text.ends_with('\n'));
    if hex::encode(Sha256::digest(&text.as_bytes()[..body])) != footer.sha256 {
        return Err("its checksum is wrong: it was changed or damaged".into());
    }
    let mut rows = Rows::new();
    for (number, line) in lines.iter().enumerate().take(lines.len() - 1).skip(1) {
        let line: Line = serde_json::from_str(line).map_err(|error| format!("line {}: {error}", number + 1))?;
        rows.insert(line.key, line.value.to_string().into_bytes());
    }
    if rows.len() != footer.rows {
        return Err(format!(
            "it has {} rows, its last line says {}",
            rows.len(),
            footer.rows
        ));
    }
    Ok((header, rows))
}

fn is_exported(key: &str) -> bool {
    !key.starts_with("request/")
}

fn load_cluster(rows: &Rows) -> Result<Cluster, rows::RowError> {
    let of_cluster = rows
        .iter()
        .filter(|(key, _)| is_exported(key) && !key.starts_with(journal::PREFIX));
    rows::load(of_cluster)
}
