//! The one owner of the state.
//!
//! ```text
//!   mutate --> queue --> who finds it idle makes its change itself; what came meanwhile is worked off on a thread of its own
//!                 step, step, ... -> batch + journal + answers -> commit, flushed once -> publish -> answer
//!                                                                                  |
//!      state (a pointer swap)  history (watches)  per node: desired (sessions)  status counter (converge, watches)
//! ```
//!
//! Readers never wait for the writer. Nothing is published before its commit is durable. When a commit fails it is not known what is
//! durable, so the controller stops and the next start reads what is there.

mod converged;
mod export;
mod history;
mod live;
mod notes;
mod queue;
mod quota;
mod timer;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use tokio::{sync::watch, task::JoinError};
use tokio_util::sync::CancellationToken;
use trunkline_proto::Name;

pub use export::Unexported;
pub use history::{Commit, Compacted, SliceChange};
pub use live::{Leftovers, Live, NewSession, SessionId, SessionInfo, Taken, owner};
pub use quota::Story;
pub use writer::{CoreError, Mutation};

use crate::{
    compile::NodeDesired,
    converge::Views,
    journal::{self, Journal},
    metrics::CoreMetrics,
    model::{Cluster, Timestamp, rows},
    parallel,
    requests::Requests,
    settings::Settings,
    store::{Store, StoreError},
    transition::{Intent, LoadError, State},
};

/// Prefixes of rows that are not the cluster's.
const OTHER_ROWS: [&str; 2] = ["event/", "request/"];

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Of the journal.
    pub events: journal::Bounds,
    /// Answers.
    pub requests: usize,
    /// Commits for watches.
    pub history: usize,
}

/// The state and everything that follows it.
pub struct Core {
    settings: Settings,
    queue: Arc<queue::Queue<writer::Job>>,
    writer: Mutex<writer::Writer>,
    state: ArcSwap<State>,
    history: RwLock<history::History>,
    journal: Journal,
    live: Mutex<Live>,
    desired: Mutex<BTreeMap<Name, watch::Sender<Arc<NodeDesired>>>>,
    /// Counts changes of state or of what nodes report.
    status: watch::Sender<u64>,
    /// Revision of the newest state.
    commits: watch::Sender<u64>,
    converging: converged::Converging,
    /// What the look-out for convergence has to look at.
    stale: Mutex<converged::Stale>,
    notes: notes::Notes,
    /// For an export that follows; nothing is kept before one is asked for.
    unexported: export::Kept,
    metrics: CoreMetrics,
    /// Cancelled when the controller must stop.
    fatal: CancellationToken,
    /// A commit failed.
    failed: AtomicBool,
    /// Work that may wait is done off the runtime's threads.
    threads: bool,
}

/// Why the state cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store failed.
    #[error("the state cannot be loaded")]
    Store(#[from] StoreError),
    /// The rows are not a cluster.
    #[error("the stored state is not understood")]
    Rows(#[from] rows::RowError),
    /// The journal's rows are not understood.
    #[error("the stored journal is not understood")]
    Journal(#[source] serde_json::Error),
    /// The cluster breaks a rule.
    #[error("the stored state breaks a rule, maybe one that the settings changed")]
    Load(#[from] LoadError),
    /// The first step failed.
    #[error("the stored state cannot be brought up to date")]
    Settle(#[source] Box<CoreError>),
}

impl Core {
    /// Takes up what the store holds. `fatal` is cancelled when a commit fails.
    ///
    /// # Errors
    /// What is stored is not whole or breaks a rule.
    pub async fn open(
        store: Arc<dyn Store>,
        settings: Settings,
        bounds: Bounds,
        metrics: CoreMetrics,
        fatal: CancellationToken,
    ) -> Result<Arc<Self>, OpenError> {
        let (loaded, threads) = (store.load()?, store.waits());
        let of_cluster = |key: &str| !OTHER_ROWS.iter().any(|prefix| key.starts_with(prefix));
        let state = || {
            let cluster = rows::load(loaded.rows.iter().filter(|(key, _)| of_cluster(key)))?;
            State::load(cluster, &settings).map_err(OpenError::from)
        };
        let others = || {
            let journal = Journal::load(&loaded.rows, bounds.events).map_err(OpenError::Journal)?;
            Ok::<_, OpenError>((journal, Requests::load(&loaded.rows, bounds.requests)))
        };
        let (state, others) = parallel::both(loaded.rows.len(), state, others);
        let (state, (journal, requests)) = (Arc::new(state?), others?);
        let revision = state.cluster.meta.revision;
        metrics.of_state(&state);
        let core = Arc::new(Self {
            settings,
            queue: Arc::default(),
            writer: Mutex::new(writer::Writer::new(store, loaded.revision, requests)),
            state: ArcSwap::new(state),
            history: RwLock::new(history::History::new(revision, bounds.history)),
            journal,
            live: Mutex::new(Live::default()),
            desired: Mutex::new(BTreeMap::new()),
            status: watch::Sender::new(0),
            commits: watch::Sender::new(revision),
            converging: converged::Converging::default(),
            stale: Mutex::default(),
            notes: notes::Notes::default(),
            unexported: export::Kept::default(),
            metrics,
            fatal,
            failed: AtomicBool::new(false),
            threads,
        });
        core.system(Intent::Tick, "controller")
            .await
            .map_err(|error| OpenError::Settle(Box::new(error)))?;
        if let Some(hold) = &core.state().cluster.meta.hold {
            tracing::warn!("{}", hold.reason());
        }
        Ok(core)
    }

    /// The rows of a cluster that begins.
    pub fn new_cluster(cluster_id: &str) -> crate::store::Rows {
        let mut cluster = Cluster::new(cluster_id);
        if let Some(secret) = writer::draw_secret() {
            cluster.meta.probe_with(secret, now());
        }
        rows::all(&cluster).into_iter().collect()
    }

    /// The state as it is now.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Counters.
    pub fn metrics(&self) -> &CoreMetrics {
        &self.metrics
    }

    /// Cancelled when the controller stops.
    pub fn stopping(&self) -> &CancellationToken {
        &self.fatal
    }

    /// True when the controller stops because a commit failed.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Runs work that may wait, or take long, where it keeps nobody else from running.
    async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        if self.threads {
            tokio::task::spawn_blocking(work).await
        } else {
            Ok(work())
        }
    }

    fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
        self.fatal.cancel();
    }

    /// Commits after `revision`, oldest first, at most `most`.
    ///
    /// # Errors
    /// They are no longer kept.
    pub fn commits_after(&self, revision: u64, most: usize) -> Result<Vec<Commit>, Compacted> {
        self.history
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .after(revision, most)
    }

    /// Counts up whenever the state or a report changed.
    pub fn watch_status(&self) -> watch::Receiver<u64> {
        self.status.subscribe()
    }

    /// Revision of the newest state, as it changes. What nodes report wakes nobody here.
    pub fn watch_commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// What a node should hold, as it changes: the newest only.
    pub fn watch_desired(&self, node: &Name) -> watch::Receiver<Arc<NodeDesired>> {
        let mut desired = self.desired.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: a commit publishes the state first and then sends, so no version is missed.
        desired
            .entry(node.clone())
            .or_insert_with(|| watch::Sender::new(self.state().node_desired(node)))
            .subscribe()
    }

    /// What nodes report, and who is connected. Held for a moment only.
    pub fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of what nodes report, to compute with.
    pub fn views(&self) -> Views {
        self.live().views().clone()
    }

    /// The same of some nodes only.
    fn views_of(&self, nodes: &BTreeSet<&Name>) -> Views {
        self.live().views().of(nodes)
    }

    /// Says that what is known of a node has changed.
    pub fn touch_status(&self, node: &Name) {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner).node(node);
        self.status.send_modify(|count| *count += 1);
    }
}

/// The time, as the pure part wants it.
pub fn now() -> Timestamp {
    #[cfg(feature = "simulation")]
    if let Some(now) = crate::simulation::now() {
        return now.into();
    }
    SystemTime::now().into()
}
