//! Exports and their restore: the way back when the database is lost.
//!
//! ```text
//!   {"trunkline_export":1,"cluster_id":"...","term":1,"revision":42,"at":"2026-11-21T17:30:00Z"}
//!   {"key":"meta","value":{...}}              one line per row
//!   ...
//!   {"rows":17,"sha256":"..."}                over everything before; a file without it was cut
//! ```
//!
//! A running controller adds to its export what changes: more parts of the same form, in which `"gone":true` stands for a row that is
//! no more. A last part that was cut, when the machine went down while it was written, is left out; the parts before it are whole.
//!
//! Answers to mutations are left out: they are for retries within minutes. A restore raises the term, so that what nodes were told
//! after the export was made counts as older than what they are told now.

mod running;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use trunkline_proto::daemon::failpoint;

use crate::{
    journal,
    model::{Cluster, Timestamp, rows},
    store::{Rows, SledStore, StoreError},
};

pub use running::Running;

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

#[derive(Debug, Deserialize)]
struct Line {
    key: String,
    #[serde(default)]
    value: Option<Value>,
    #[serde(default)]
    gone: bool,
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
    let rows = || rows.iter().filter(|(key, _)| is_exported(key));
    for (_, value) in rows() {
        serde_json::from_slice::<IgnoredAny>(value).map_err(unusable)?;
    }
    let rows = rows().map(|(key, value)| (key.as_str().into(), Some(value.as_slice().into())));
    running::part(&mut Sha256::new(), &cluster, rows, at)
}

fn unusable(error: serde_json::Error) -> BackupError {
    BackupError::Unusable {
        path: "export".into(),
        why: error.to_string(),
    }
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
    failpoint::reach("export.before-rename");
    fs::rename(&new, file).map_err(failed)?;
    failpoint::reach("export.after-rename");
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
    if text.is_empty() {
        return Err("it is empty".into());
    }
    let mut reader = Reader {
        text,
        at: 0,
        sum: Sha256::new(),
    };
    let (mut last, mut rows) = (None, Rows::new());
    while reader.at < text.len() {
        match reader.part()? {
            Some((header, changes)) => {
                last = Some(header);
                for (key, value) in changes {
                    match value {
                        Some(value) => rows.insert(key, value),
                        None => rows.remove(&key),
                    };
                }
            }
            // Of an addition; what was there before it is whole.
            None if last.is_some() => break,
            None => return Err("its last line is missing: it was cut short".into()),
        }
    }
    last.map(|header| (header, rows)).ok_or_else(|| "it is empty".into())
}

/// A row's new value; without one it is gone.
type Change = (String, Option<Vec<u8>>);

/// Reads one part after another.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Over everything before the last line that was read.
    sum: Sha256,
}

impl<'a> Reader<'a> {
    /// The next part; `None` when it has no last line.
    fn part(&mut self) -> Result<Option<(Header, Vec<Change>)>, String> {
        let Some(line) = self.line() else { return Ok(None) };
        let header: Header = match serde_json::from_str(line) {
            Ok(header) => header,
            Err(_) if self.at == line.len() => return Err("its first line is no header".into()),
            Err(error) => return self.cut_or(&error),
        };
        if header.trunkline_export != VERSION {
            return Err(RESTORABLE_ELSEWHERE.into());
        }
        self.sum.update(line);
        let mut changes = Vec::new();
        while let Some(line) = self.line() {
            if let Ok(footer) = serde_json::from_str::<Footer>(line) {
                if hex::encode(self.sum.clone().finalize()) != footer.sha256 {
                    return Err("its checksum is wrong: it was changed or damaged".into());
                }
                if changes.len() != footer.rows {
                    return Err(format!(
                        "it has {} rows, its last line says {}",
                        changes.len(),
                        footer.rows
                    ));
                }
                self.sum.update(line);
                return Ok(Some((header, changes)));
            }
            match serde_json::from_str(line) {
                Ok(Line { key, value, gone }) if value.is_some() != gone => {
                    changes.push((key, value.map(|value| value.to_string().into_bytes())));
                }
                Ok(Line { key, .. }) => return Err(format!("of row {key:?} it does not say what became of it")),
                Err(error) => return self.cut_or(&error),
            }
            self.sum.update(line);
        }
        Ok(None)
    }

    /// The next line with its end.
    fn line(&mut self) -> Option<&'a str> {
        let line = self.text.get(self.at..)?.split_inclusive('\n').next()?;
        self.at += line.len();
        Some(line)
    }

    /// A last line that cannot be read was cut; any other was damaged.
    fn cut_or<T>(&self, error: &serde_json::Error) -> Result<Option<T>, String> {
        if self.at == self.text.len() {
            return Ok(None);
        }
        let number = self.text.get(..self.at).unwrap_or_default().lines().count();
        Err(format!("line {number}: {error}"))
    }
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
