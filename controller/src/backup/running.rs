//! The export of a running controller: written whole once, and from then on only what has changed is added to the file.
//!
//! ```text
//!   header, rows, footer          the whole, as of the start
//!   header, rows, footer          what was put since, and what is gone
//!   ...
//! ```
//!
//! Each footer's checksum is over everything before it. When more was added than the whole is long, the file is written anew.

use std::{
    borrow::Cow,
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
};

use sha2::{Digest as _, Sha256};

use super::{BackupError, Footer, Header, VERSION, is_exported, unusable, write};
use crate::{
    core::{Core, Unexported},
    journal,
    model::{Cluster, Timestamp, rows},
};

/// A file shorter than this is not worth being made shorter.
const SMALL: usize = 1 << 20;

/// The file that follows a running controller.
#[derive(Debug)]
pub struct Running {
    path: PathBuf,
    begun: Option<Begun>,
}

/// A file that can be added to.
#[derive(Debug)]
struct Begun {
    file: File,
    /// Over all that is in it.
    sum: Sha256,
    whole: usize,
    added: usize,
}

impl Running {
    /// Nothing is written yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, begun: None }
    }

    /// Brings the file up to date. After an error the next one is whole.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn follow(&mut self, core: &Core, at: Timestamp) -> Result<(), BackupError> {
        let begun = self.begun.take().filter(|begun| begun.added < begun.whole.max(SMALL));
        // What comes after this is in the next one; what came before is in force by now, and so in the whole.
        let changed = core.unexported();
        self.begun = Some(match (begun, changed) {
            (Some(begun), Some(changed)) => begun.add(self.path.clone(), core, &changed, at)?,
            _ => self.whole(core, at)?,
        });
        Ok(())
    }

    fn whole(&self, core: &Core, at: Timestamp) -> Result<Begun, BackupError> {
        let mut sum = Sha256::new();
        let (state, journal) = (core.state(), core.journal().all());
        let entries = journal.iter().filter_map(|entry| {
            let value = serde_json::to_vec(entry.as_ref()).ok()?;
            Some((journal::row_key(entry.sequence), value))
        });
        let rows = rows::each(&state.cluster).flatten().chain(entries);
        let rows = rows.map(|(key, value)| (Cow::Owned(key), Some(Cow::Owned(value))));
        let text = part(&mut sum, &state.cluster, rows, at)?;
        write(&self.path, &text)?;
        let file = OpenOptions::new().append(true).open(&self.path);
        let file = file.map_err(|source| BackupError::Io {
            path: self.path.clone(),
            what: "written",
            source,
        })?;
        let (whole, added) = (text.len(), 0);
        Ok(Begun {
            file,
            sum,
            whole,
            added,
        })
    }
}

impl Begun {
    fn add(mut self, path: PathBuf, core: &Core, changed: &Unexported, at: Timestamp) -> Result<Self, BackupError> {
        let rows = changed.iter().filter(|(key, _)| is_exported(key));
        let rows = rows.map(|(key, value)| (Cow::Borrowed(key.as_str()), value.as_deref().map(Cow::Borrowed)));
        let text = part(&mut self.sum, &core.state().cluster, rows, at)?;
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        written.map_err(|source| BackupError::Io {
            path,
            what: "written",
            source,
        })?;
        self.added += text.len();
        Ok(self)
    }
}

/// A row's key and its value, as JSON; without one it is gone.
pub(super) type Row<'a> = (Cow<'a, str>, Option<Cow<'a, [u8]>>);

/// One part of the file. The rows are made one at a time: all of them are as large as the state itself.
pub(super) fn part<'a>(
    sum: &mut Sha256,
    cluster: &Cluster,
    rows: impl Iterator<Item = Row<'a>>,
    at: Timestamp,
) -> Result<Vec<u8>, BackupError> {
    let header = Header {
        trunkline_export: VERSION,
        cluster_id: cluster.meta.cluster_id.clone(),
        term: cluster.meta.term,
        revision: cluster.meta.revision,
        at: at.to_string(),
    };
    let mut text = serde_json::to_vec(&header).map_err(unusable)?;
    let mut count = 0;
    for (key, value) in rows {
        text.extend_from_slice(b"\n{\"key\":");
        serde_json::to_writer(&mut text, &key).map_err(unusable)?;
        match value {
            Some(value) => {
                text.extend_from_slice(b",\"value\":");
                text.extend_from_slice(&value);
                text.push(b'}');
            }
            None => text.extend_from_slice(b",\"gone\":true}"),
        }
        count += 1;
    }
    text.push(b'\n');
    sum.update(&text);
    let footer = Footer {
        rows: count,
        sha256: hex::encode(sum.clone().finalize()),
    };
    let end = text.len();
    serde_json::to_writer(&mut text, &footer).map_err(unusable)?;
    text.push(b'\n');
    sum.update(&text[end..]);
    Ok(text)
}
