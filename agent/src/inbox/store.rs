//! The inbox on disk: one file, replaced as a whole.
//!
//! Durable here, and why: cluster id, term, generation and every envelope as it came, so that the node can realise its state after a
//! reboot with the controller away and both sides' digests agree at once; of a refused version also the one that stays realised; and
//! what stays realised because its removal waits for an operator's word, reservations of DHCP servers among it; and what was removed
//! and may still be there, so that a node that dies half way does not take it for something nobody ever told it of.
//!
//! Layout: a line naming the format, 32 bytes of SHA-256 over the rest, then one protobuf message. A file that was cut or altered
//! at any byte is therefore noticed; it is set aside, never guessed at.

use std::{
    io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use prost::Message;
use sha2::{Digest as _, Sha256};
use trunkline_proto::{
    Invalid,
    daemon::failpoint,
    resource::{Envelope, Key, Reservation},
    wire,
};

use super::{Entry, Held, Judge, Position, Reserved, StoreError, Stored, Verdict};
use crate::files;

const NAME: &str = "inbox";
const MAGIC: &[u8] = b"trunkline inbox 1\n";
const SUM_LEN: usize = 32;

/// Where the inbox is kept.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
    /// Writes on the caller's own thread.
    in_place: bool,
}

/// What was found at start.
#[derive(Debug)]
pub enum Loaded {
    /// No inbox: a new node.
    Fresh,
    /// The last state that was taken.
    Held(Held),
    /// The file was damaged and has been renamed to this.
    SetAside {
        /// Its new name.
        path: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "1")]
    cluster_id: String,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    generation: u64,
    #[prost(message, repeated, tag = "4")]
    entries: Vec<FileEntry>,
    /// Removed by the controller, waiting for an operator's word.
    #[prost(message, repeated, tag = "5")]
    waiting: Vec<FileEntry>,
    /// Taken out of DHCP servers, waiting for an operator's word.
    #[prost(message, repeated, tag = "6")]
    reserved: Vec<FileReserved>,
    /// Removed by the controller, perhaps still there.
    #[prost(message, repeated, tag = "7")]
    leaving: Vec<wire::ResourceKey>,
}

#[derive(Clone, PartialEq, Message)]
struct FileReserved {
    #[prost(message, optional, tag = "1")]
    server: Option<wire::ResourceKey>,
    #[prost(message, repeated, tag = "2")]
    reservations: Vec<wire::Reservation>,
}

#[derive(Clone, PartialEq, Message)]
struct FileEntry {
    #[prost(message, optional, tag = "1")]
    held: Option<wire::Resource>,
    #[prost(message, optional, tag = "2")]
    earlier: Option<wire::Resource>,
}

impl Store {
    /// The inbox of a state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(NAME),
            in_place: false,
        }
    }

    /// The same, writing on the caller's own thread: a simulation has one thread only, or thousands of nodes on a few.
    #[must_use]
    pub fn in_place(self) -> Self {
        Self { in_place: true, ..self }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it. A damaged file is renamed and named in the answer.
    pub fn load(&self, judge: &Judge) -> Result<Loaded, StoreError> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Fresh),
            Err(source) => {
                let path = self.path.clone();
                return Err(StoreError::Read { path, source });
            }
        };
        match decode(&bytes, judge) {
            Ok(held) => Ok(Loaded::Held(held)),
            Err(reason) => self.set_aside(reason),
        }
    }

    fn set_aside(&self, reason: String) -> Result<Loaded, StoreError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let path = self.path.with_file_name(format!("{NAME}.damaged-{}", now.as_millis()));
        match std::fs::rename(&self.path, &path) {
            Ok(()) => Ok(Loaded::SetAside { path, reason }),
            Err(source) => Err(StoreError::SetAside { path, source }),
        }
    }

    /// Replaces it; durable when this returns.
    pub async fn save(&self, held: &Held) -> Result<(), StoreError> {
        let (path, bytes) = (self.path.clone(), encode(held));
        let write = move || {
            failpoint::reach("inbox.before-write");
            let written = files::write_atomic(&path, &bytes, 0o600);
            failpoint::reach("inbox.after-write");
            written
        };
        let written = if self.in_place {
            Ok(write())
        } else {
            tokio::task::spawn_blocking(write).await
        };
        let failed = |source| StoreError::Write {
            path: self.path.clone(),
            source,
        };
        match written {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(failed(e.into())),
            Err(e) => Err(failed(e.into())),
        }
    }
}

/// The file's bytes.
pub(super) fn encode(held: &Held) -> Vec<u8> {
    let written = |(_, entry): (_, &Entry)| FileEntry {
        held: Some((&entry.envelope).into()),
        earlier: match &entry.verdict {
            Verdict::Taken(_) => None,
            Verdict::Refused { earlier, .. } => earlier.as_ref().map(|(e, _)| e.into()),
        },
    };
    let file = File {
        cluster_id: held.cluster_id.clone(),
        term: held.position.term,
        generation: held.position.generation,
        entries: held.entries().map(written).collect(),
        waiting: held.waiting().map(written).collect(),
        reserved: held
            .reserved()
            .servers()
            .map(|(key, reservations)| FileReserved {
                server: Some(key.into()),
                reservations: reservations.map(Into::into).collect(),
            })
            .collect(),
        leaving: held.leaving().map(Into::into).collect(),
    };
    let body = file.encode_to_vec();
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&Sha256::digest(&body));
    bytes.extend_from_slice(&body);
    bytes
}

/// The state in a file, or what is wrong with it.
pub(super) fn decode(bytes: &[u8], judge: &Judge) -> Result<Held, String> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("it does not begin as an inbox of this version does")?;
    let (sum, body) = rest.split_at_checked(SUM_LEN).ok_or("it ends early")?;
    if sum != &Sha256::digest(body)[..] {
        return Err("its checksum does not match".to_owned());
    }
    let File {
        cluster_id,
        term,
        generation,
        entries,
        waiting,
        reserved,
        leaving,
    } = File::decode(body).map_err(|e| e.to_string())?;
    let mut stored = Vec::with_capacity(entries.len() + waiting.len());
    let entries = entries.into_iter().map(|entry| (entry, false));
    for (FileEntry { held, earlier }, waiting) in entries.chain(waiting.into_iter().map(|entry| (entry, true))) {
        let held = held.ok_or("an entry is empty")?;
        let open = |r: wire::Resource| Envelope::try_from(r).map_err(|e| e.to_string());
        stored.push(Stored {
            envelope: open(held)?,
            earlier: earlier.map(open).transpose()?,
            waiting,
        });
    }
    let leaving: Result<Vec<Key>, _> = leaving.into_iter().map(Key::try_from).collect();
    let leaving = leaving.map_err(|e| e.to_string())?;
    let position = Position { term, generation };
    let kept = kept(reserved)?;
    Ok(Held::restore(cluster_id, position, stored, kept, judge).and_leaving(leaving))
}

fn kept(stored: Vec<FileReserved>) -> Result<Reserved, String> {
    let mut kept = Reserved::default();
    for FileReserved { server, reservations } in stored {
        let server = server.ok_or("a DHCP server is not named")?;
        let server = server.try_into().map_err(|e: Invalid| e.to_string())?;
        let reservations = reservations.into_iter().map(Reservation::try_from);
        let reservations: Vec<_> = reservations.collect::<Result<_, _>>().map_err(|e| crate::chain(&e))?;
        kept.put(server, reservations);
    }
    Ok(kept)
}
