//! The controller's disk: rows in memory that outlive its crashes, and commits that can fail on either side of being durable.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;
use trunkline_controller::store::{Batch, Loaded, Rows, Store, StoreError};

/// How the next commit fails.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Nothing is durable.
    Before,
    /// Everything is durable, and nobody hears of it.
    After,
}

#[derive(Debug)]
struct Platter {
    revision: u64,
    rows: Rows,
    fault: Option<Fault>,
}

/// The disk; a clone is the same one.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    platter: Arc<Mutex<Platter>>,
    revision: Arc<watch::Sender<u64>>,
}

impl Disk {
    pub(crate) fn new(rows: Rows) -> Self {
        Self {
            platter: Arc::new(Mutex::new(Platter {
                revision: 1,
                rows,
                fault: None,
            })),
            revision: Arc::new(watch::Sender::new(1)),
        }
    }

    pub(crate) fn rows(&self) -> Rows {
        self.platter.lock().unwrap().rows.clone()
    }

    /// Another state in its place, as after a restore.
    pub(crate) fn replace(&self, rows: Rows) {
        let mut platter = self.platter.lock().unwrap();
        (platter.revision, platter.rows, platter.fault) = (1, rows, None);
    }

    pub(crate) fn fail_next(&self, fault: Option<Fault>) {
        self.platter.lock().unwrap().fault = fault;
    }
}

impl Store for Disk {
    fn load(&self) -> Result<Loaded, StoreError> {
        let platter = self.platter.lock().unwrap();
        Ok(Loaded {
            revision: platter.revision,
            rows: platter.rows.clone(),
        })
    }

    fn commit(&self, expected: u64, batch: &Batch) -> Result<u64, StoreError> {
        let mut platter = self.platter.lock().unwrap();
        let actual = platter.revision;
        if actual != expected {
            return Err(StoreError::Conflict { expected, actual });
        }
        let fault = platter.fault.take();
        if !matches!(fault, Some(Fault::Before)) {
            let Batch { puts, deletes } = batch;
            for key in deletes {
                platter.rows.remove(key);
            }
            platter.rows.extend(puts.iter().cloned());
            platter.revision += 1;
        }
        if fault.is_some() {
            return Err(StoreError::Io {
                path: "simulated".into(),
                what: "be written",
                source: io::ErrorKind::StorageFull.into(),
            });
        }
        let revision = platter.revision;
        drop(platter);
        self.revision.send_replace(revision);
        Ok(revision)
    }

    fn waits(&self) -> bool {
        false
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}
