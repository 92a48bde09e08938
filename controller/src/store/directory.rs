//! The state directory: what it must look like, and how a new one is made.
//!
//! ```text
//!   TRUNKLINE   marker: product, format, cluster id. Written last, so a directory that has it was finished.
//!   REVISION    lower bound of the database's revision, written after each commit: shows a database that lost its end
//!   db/         sled
//! ```
//!
//! Only a missing or an empty directory counts as a new cluster. Everything else that is not exactly right is refused: an empty
//! state in the place of a damaged one would remove every network of the cloud.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::StoreError;

/// Version of the rows and of this directory.
pub(super) const FORMAT: u32 = 1;

const MARKER: &str = "TRUNKLINE";
const REVISION: &str = "REVISION";
const DATABASE: &str = "db";
const RESTORE: &str = "move it away, then bring the newest export back with `trunkline-controller restore`";

/// Content of the marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    product: String,
    pub(super) format: u32,
    pub(super) cluster_id: String,
}

impl Marker {
    pub(super) fn new(cluster_id: &str) -> Self {
        Self {
            product: "trunkline-controller".into(),
            format: FORMAT,
            cluster_id: cluster_id.into(),
        }
    }
}

/// A state directory that was looked at.
#[derive(Debug, Clone)]
pub(super) struct Directory(PathBuf);

/// What was found.
pub(super) enum Found {
    /// Nothing: a new cluster may begin here.
    Empty,
    /// A finished directory.
    Cluster(Marker),
}

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn database(&self) -> PathBuf {
        self.0.join(DATABASE)
    }

    /// sled's log, the file that must be synced.
    pub(super) fn log(&self) -> PathBuf {
        self.database().join("db")
    }

    pub(super) fn refuse(&self, why: impl Into<String>) -> StoreError {
        StoreError::Refused {
            dir: self.0.clone(),
            why: why.into(),
        }
    }

    /// Refusal of a database that cannot be trusted.
    pub(super) fn damaged(&self, what: impl std::fmt::Display) -> StoreError {
        self.refuse(format!("the database is damaged ({what}); {RESTORE}"))
    }

    pub(super) fn io(&self, file: &str, what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
        let path = self.0.join(file);
        move |source| StoreError::Io { path, what, source }
    }

    pub(super) fn look(&self) -> Result<Found, StoreError> {
        match fs::read(self.0.join(MARKER)) {
            Ok(text) => self.check_marker(&text).map(Found::Cluster),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.look_without_marker(),
            Err(error) => Err(self.io(MARKER, "read the marker")(error)),
        }
    }

    fn check_marker(&self, text: &[u8]) -> Result<Marker, StoreError> {
        let marker: Marker = serde_json::from_slice(text)
            .map_err(|error| self.refuse(format!("the file {MARKER} in it cannot be read ({error}); {RESTORE}")))?;
        if marker.product != "trunkline-controller" {
            return Err(self.refuse(format!("it belongs to {:?}", marker.product)));
        }
        if marker.format != FORMAT {
            return Err(self.refuse(format!(
                "its format is {}, this program reads {FORMAT}; run the version that wrote it, export there and restore here",
                marker.format
            )));
        }
        // sled would make a new, empty database in the place of a missing one.
        match fs::metadata(self.log()) {
            Ok(meta) if meta.len() > 0 => Ok(marker),
            Ok(_) => Err(self.damaged("its log is empty")),
            Err(error) => Err(self.damaged(format!("its log is missing: {error}"))),
        }
    }

    fn look_without_marker(&self) -> Result<Found, StoreError> {
        let mut entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Empty),
            Err(error) => return Err(self.io("", "list the directory")(error)),
        };
        match entries.next() {
            None => Ok(Found::Empty),
            Some(_) if self.database().exists() => Err(self.refuse(format!(
                "it holds a database but no file {MARKER}: making it was cut short, or the file was lost. If the cluster is new, \
                 remove the directory; otherwise {RESTORE}"
            ))),
            Some(_) => Err(self.refuse("it is not empty and not a Trunkline state directory; name another one")),
        }
    }

    pub(super) fn create(&self) -> Result<(), StoreError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(self.io("", "create the directory"))
    }

    /// The database holds a secret; whatever the directory above lets others do, they do not read it.
    pub(super) fn shut_database(&self) {
        let private = fs::Permissions::from_mode(0o700);
        if let Err(error) = fs::set_permissions(self.database(), private) {
            tracing::warn!(%error, dir = %self.0.display(), "the database cannot be kept from other users");
        }
    }

    /// The last step of making a directory.
    pub(super) fn write_marker(&self, marker: &Marker) -> Result<(), StoreError> {
        let text = serde_json::to_vec(marker).map_err(|error| self.io(MARKER, "encode the marker")(error.into()))?;
        let fail = || self.io(MARKER, "write the marker");
        let new = self.0.join("TRUNKLINE.new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(fail())?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(fail())?;
        fs::rename(&new, self.0.join(MARKER)).map_err(fail())?;
        File::open(&self.0).and_then(|dir| dir.sync_all()).map_err(fail())
    }

    pub(super) fn high_water(&self) -> Result<HighWater, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.0.join(REVISION))
            .map_err(self.io(REVISION, "open the file"))?;
        Ok(HighWater {
            file,
            dir: self.clone(),
        })
    }
}

/// The file that says how far the database came at least. It is not synced: after a power cut it may lag, never lead.
#[derive(Debug)]
pub(super) struct HighWater {
    file: File,
    dir: Directory,
}

impl HighWater {
    pub(super) fn read(&self) -> Result<u64, StoreError> {
        let mut text = [0; 20];
        match self.file.read_exact_at(&mut text, 0) {
            Ok(()) => Ok(std::str::from_utf8(&text)
                .ok()
                .and_then(|t| t.parse().ok())
                .unwrap_or(0)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(self.dir.io(REVISION, "read the file")(error)),
        }
    }

    pub(super) fn write(&self, revision: u64) -> Result<(), StoreError> {
        let text = format!("{revision:020}");
        self.file
            .write_all_at(text.as_bytes(), 0)
            .map_err(self.dir.io(REVISION, "write the file"))
    }
}
