//! The store on sled 0.34.
//!
//! One tree. The row `store/head` carries the revision, the count of rows and a digest over them, and is written in the batch
//! of every commit; on load all three must agree with what is there, because sled recovers from a damaged log by cutting it.
//! Nobody else has the database open, so a commit needs no transaction, which would look at each row three times: the head is known,
//! and a batch of sled is whole or not at all as well.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use trunkline_proto::daemon::failpoint;

use super::{
    Batch, Loaded, Rows, Store, StoreError,
    directory::{Directory, FORMAT, Found, HighWater, Marker},
};
use crate::parallel;

const HEAD: &str = "store/head";

/// sled's own cache. The whole state is in memory anyway.
const CACHE_BYTES: u64 = 16 << 20;

/// A state directory that is open. The lock on it goes with the value.
pub struct SledStore {
    dir: Directory,
    db: sled::Db,
    /// sled's flush is `sync_file_range`, which does not reach the disk's platter: this handle is for `sync_data`.
    log: File,
    high_water: HighWater,
    cluster_id: String,
    /// What the head says. Whoever holds it commits.
    tip: Mutex<Tip>,
    revision: watch::Sender<u64>,
    /// What was read when it was opened, for who asks first.
    read: Mutex<Option<Loaded>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Head {
    format: u32,
    cluster_id: String,
    revision: u64,
    rows: u64,
    /// Sum modulo 2^128 of one hash per row, in hex.
    digest: String,
}

/// What a commit changes of the head.
#[derive(Debug, Clone, Copy)]
struct Tip {
    revision: u64,
    rows: u64,
    digest: u128,
}

impl Tip {
    fn of(dir: &Directory, head: &Head) -> Result<Self, StoreError> {
        Ok(Self {
            revision: head.revision,
            rows: head.rows,
            digest: unhex128(dir, &head.digest)?,
        })
    }
}

impl SledStore {
    /// Opens what is there.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for everything that is not whole; `None` when there is nothing, so that a cluster may be made.
    pub fn open(path: &Path) -> Result<Option<Self>, StoreError> {
        let dir = Directory::new(path);
        match dir.look()? {
            Found::Empty => Ok(None),
            Found::Cluster(marker) => Self::open_existing(dir, &marker).map(Some),
        }
    }

    /// Makes a new directory with these rows in it.
    ///
    /// # Errors
    /// The directory is not empty, or cannot be written.
    pub fn create(path: &Path, cluster_id: &str, rows: Rows) -> Result<Self, StoreError> {
        let dir = Directory::new(path);
        if let Found::Cluster(marker) = dir.look()? {
            return Err(dir.refuse(format!("it already holds cluster {}", marker.cluster_id)));
        }
        dir.create()?;
        let db = open_database(&dir)?;
        let head = Head {
            format: FORMAT,
            cluster_id: cluster_id.into(),
            revision: 0,
            rows: 0,
            digest: hex128(0),
        };
        db.insert(HEAD, encode(&dir, &head)?)?;
        let store = Self::assemble(dir, db, head)?;
        store.commit(
            0,
            &Batch {
                puts: rows.into_iter().collect(),
                deletes: Vec::new(),
            },
        )?;
        store.dir.write_marker(&Marker::new(cluster_id))?;
        Ok(store)
    }

    /// The cluster whose state this is.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    fn open_existing(dir: Directory, marker: &Marker) -> Result<Self, StoreError> {
        let db = open_database(&dir)?;
        let head = read_head(&dir, &db)?;
        if head.cluster_id != marker.cluster_id {
            return Err(dir.refuse(format!(
                "its marker says cluster {}, its database {}: files of two clusters were mixed",
                marker.cluster_id, head.cluster_id
            )));
        }
        let least = dir.high_water()?.read()?;
        if head.revision < least {
            return Err(dir.damaged(format!("it is at revision {} but had reached {least}", head.revision)));
        }
        let store = Self::assemble(dir, db, head)?;
        let loaded = store.load()?;
        *store.kept() = Some(loaded);
        Ok(store)
    }

    fn assemble(dir: Directory, db: sled::Db, head: Head) -> Result<Self, StoreError> {
        let tip = Tip::of(&dir, &head)?;
        dir.shut_database();
        let log = File::open(dir.log()).map_err(dir.io("db/db", "open the database's log"))?;
        let high_water = dir.high_water()?;
        Ok(Self {
            dir,
            db,
            log,
            high_water,
            cluster_id: head.cluster_id,
            tip: Mutex::new(tip),
            revision: watch::Sender::new(tip.revision),
            read: Mutex::new(None),
        })
    }

    fn kept(&self) -> MutexGuard<'_, Option<Loaded>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_durable(&self) -> Result<(), StoreError> {
        self.db.flush()?;
        self.log
            .sync_data()
            .map_err(self.dir.io("db/db", "sync the database's log"))
    }

    /// Writes the batch and the head that it makes, not yet to the disk.
    fn apply(&self, tip: Tip, batch: &Batch) -> Result<Tip, StoreError> {
        let (mut rows, mut digest) = (tip.rows, tip.digest);
        let mut writes = sled::Batch::default();
        for (key, value) in &batch.puts {
            match self.db.get(key)? {
                Some(old) => digest = digest.wrapping_sub(row_hash(key, &old)),
                None => rows += 1,
            }
            digest = digest.wrapping_add(row_hash(key, value));
            writes.insert(key.as_str(), value.as_slice());
        }
        for key in &batch.deletes {
            if let Some(old) = self.db.get(key)? {
                digest = digest.wrapping_sub(row_hash(key, &old));
                rows -= 1;
                writes.remove(key.as_str());
            }
        }
        let revision = tip.revision + 1;
        let head = Head {
            format: FORMAT,
            cluster_id: self.cluster_id.clone(),
            revision,
            rows,
            digest: hex128(digest),
        };
        writes.insert(HEAD, encode(&self.dir, &head)?);
        self.db.apply_batch(writes)?;
        Ok(Tip { revision, rows, digest })
    }
}

impl Store for SledStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        if let Some(loaded) = self.kept().take() {
            return Ok(loaded);
        }
        let head = read_head(&self.dir, &self.db)?;
        let rows = guarded(&self.dir, || read_rows(&self.dir, &self.db))?;
        let all: Vec<_> = rows.iter().collect();
        let digest = parallel::map(&all, all.len(), |(key, value)| row_hash(key, value))
            .into_iter()
            .fold(0_u128, u128::wrapping_add);
        let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        if count != head.rows || hex128(digest) != head.digest {
            let why = format!(
                "{count} rows are there of {} that were written, or their content differs",
                head.rows
            );
            return Err(self.dir.damaged(why));
        }
        Ok(Loaded {
            revision: head.revision,
            rows,
        })
    }

    fn commit(&self, expected: u64, batch: &Batch) -> Result<u64, StoreError> {
        self.kept().take();
        let mut tip = self.tip.lock().unwrap_or_else(PoisonError::into_inner);
        if tip.revision != expected {
            let actual = tip.revision;
            return Err(StoreError::Conflict { expected, actual });
        }
        // Also when it cannot be flushed: then nobody commits on what may be durable or not.
        *tip = self.apply(*tip, batch)?;
        let revision = tip.revision;
        failpoint::reach("store.before-flush");
        self.make_durable()?;
        failpoint::reach("store.after-flush");
        self.high_water.write(revision)?;
        self.revision.send_replace(revision);
        Ok(revision)
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

fn open_database(dir: &Directory) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(dir.database())
        .cache_capacity(CACHE_BYTES)
        // We flush after each commit; a flusher thread of sled's own would only add disk traffic.
        .flush_every_ms(None);
    guarded(dir, || match config.open() {
        Ok(db) => Ok(db),
        Err(sled::Error::Io(error)) if is_locked(&error) => {
            Err(dir.refuse("another process has it open; only one controller may run on it"))
        }
        Err(error) => Err(dir.damaged(error)),
    })
}

/// sled reports a lock that is held as an error of kind `Other` with these words.
fn is_locked(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

/// sled panics on some damages; a panic is a refusal like any other.
fn guarded<T>(dir: &Directory, f: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err(dir.damaged("reading it fails")))
}

fn read_head(dir: &Directory, db: &sled::Db) -> Result<Head, StoreError> {
    let found = guarded(dir, || db.get(HEAD).map_err(|error| dir.damaged(error)))?;
    let bytes = found.ok_or_else(|| dir.damaged("its head is missing"))?;
    decode(dir, &bytes)
}

fn read_rows(dir: &Directory, db: &sled::Db) -> Result<Rows, StoreError> {
    let mut rows = Vec::new();
    for row in db.iter() {
        let (key, value) = row.map_err(|error| dir.damaged(error))?;
        let key = String::from_utf8(key.to_vec()).map_err(|_| dir.damaged("a key is no text"))?;
        if key != HEAD {
            rows.push((key, value.to_vec()));
        }
    }
    // In order, so that the map is made at once.
    Ok(rows.into_iter().collect())
}

fn encode(dir: &Directory, head: &Head) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(head).map_err(|error| dir.io(HEAD, "encode the head")(error.into()))
}

fn decode(dir: &Directory, bytes: &[u8]) -> Result<Head, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| dir.damaged(format!("its head: {error}")))
}

fn row_hash(key: &str, value: &[u8]) -> u128 {
    let mut sum = Sha256::new();
    sum.update(key.as_bytes());
    sum.update([0]);
    sum.update(value);
    let whole: [u8; 32] = sum.finalize().into();
    u128::from_be_bytes(std::array::from_fn(|i| whole[i]))
}

fn hex128(value: u128) -> String {
    format!("{value:032x}")
}

fn unhex128(dir: &Directory, text: &str) -> Result<u128, StoreError> {
    u128::from_str_radix(text, 16).map_err(|_| dir.damaged("its digest is no number"))
}
