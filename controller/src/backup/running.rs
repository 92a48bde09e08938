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
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
};

use sha2::{Digest as _, Sha256};

use super::{BackupError, Footer, Header, Line, VERSION, is_exported, render, unusable, write};
use crate::{
    core::{Core, Unexported},
    journal,
    model::{Timestamp, rows},
    store::Rows,
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
        let text = render(&all(core), at)?;
        write(&self.path, &text)?;
        let file = OpenOptions::new().append(true).open(&self.path);
        let file = file.map_err(|source| BackupError::Io {
            path: self.path.clone(),
            what: "written",
            source,
        })?;
        let mut sum = Sha256::new();
        sum.update(&text);
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
        let text = addition(&mut self.sum, core, changed, at)?;
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

fn addition(sum: &mut Sha256, core: &Core, changed: &Unexported, at: Timestamp) -> Result<Vec<u8>, BackupError> {
    let meta = &core.state().cluster.meta;
    let header = Header {
        trunkline_export: VERSION,
        cluster_id: meta.cluster_id.clone(),
        term: meta.term,
        revision: meta.revision,
        at: at.to_string(),
    };
    let mut text = serde_json::to_vec(&header).map_err(unusable)?;
    text.push(b'\n');
    let mut count = 0;
    for (key, value) in changed.iter().filter(|(key, _)| is_exported(key)) {
        let value = value
            .as_ref()
            .map(|value| serde_json::from_slice(value))
            .transpose()
            .map_err(unusable)?;
        serde_json::to_writer(&mut text, &Line::new(key, value)).map_err(unusable)?;
        text.push(b'\n');
        count += 1;
    }
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

/// The rows of an export, from memory: a running controller holds the database's lock.
fn all(core: &Core) -> Rows {
    let entries = core.journal().all();
    let entries = entries.iter().filter_map(|entry| {
        let value = serde_json::to_vec(entry.as_ref()).ok()?;
        Some((journal::row_key(entry.sequence), value))
    });
    rows::all(&core.state().cluster).into_iter().chain(entries).collect()
}
