//! A core over a store in memory, whose commits can be made to fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{Bounds, Core},
    journal,
    metrics::CoreMetrics,
    settings::Settings,
    store::{Batch, Loaded, Store, StoreError},
};

/// Counts commits and forgets them.
#[derive(Debug)]
pub(crate) struct Memory {
    revision: watch::Sender<u64>,
    pub(crate) broken: AtomicBool,
}

impl Store for Memory {
    fn load(&self) -> Result<Loaded, StoreError> {
        let rows = Core::new_cluster("cluster");
        let revision = *self.revision.borrow();
        Ok(Loaded { revision, rows })
    }

    fn commit(&self, expected: u64, _: &Batch) -> Result<u64, StoreError> {
        if self.broken.load(Ordering::Relaxed) {
            let actual = expected + 1;
            return Err(StoreError::Conflict { expected, actual });
        }
        self.revision.send_replace(expected + 1);
        Ok(expected + 1)
    }

    fn waits(&self) -> bool {
        false
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

/// A new cluster with nothing in it.
pub(crate) async fn core() -> (Arc<Core>, Arc<Memory>) {
    let store = Arc::new(Memory {
        revision: watch::Sender::new(0),
        broken: AtomicBool::new(false),
    });
    let bounds = Bounds {
        events: journal::Bounds {
            entries: 100,
            age: Duration::from_secs(3600),
        },
        requests: 10,
        history: 10,
    };
    let metrics = CoreMetrics::default();
    let core = Core::open(
        store.clone(),
        Settings::default(),
        bounds,
        metrics,
        CancellationToken::new(),
    );
    (core.await.unwrap(), store)
}
