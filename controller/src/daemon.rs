//! The daemon: brings the parts up in order, and down again.
//!
//! Tasks: the API's server and the listener's accept loop; one per node's session and per watch; the timer of departures; the
//! look-out for convergence; the periodic export; the check of the certificate's files; the metrics port. One token ends them all.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::MissedTickBehavior};
use trunkline_certs::{Reloader, TlsError};
use trunkline_proto::{
    Invalid,
    daemon::{Lifecycle, Metrics, metrics::MetricsError},
};

use crate::{
    api::{self, ServeError},
    backup,
    config::Config,
    core::{Bounds, Core, OpenError, now},
    listener::{self, Limits, Listener, ListenerError},
    metrics::CoreMetrics,
    store::{SledStore, Store, StoreError},
    stream::Timing,
};

/// The periodic export's name, beside the database.
const EXPORT: &str = "export.jsonl";

/// A change is in the export within this time, while writing it is quick.
const EXPORT_REST: Duration = Duration::from_secs(2);

/// Writing takes one part in this many of the time at most, however large the state.
const EXPORT_SHARE: u32 = 10;

/// How long everything may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error("the configuration breaks a rule")]
    Settings(#[from] Invalid),
    /// The certificate.
    #[error("the certificate bundle cannot be used")]
    Tls(#[from] TlsError),
    /// The state directory.
    #[error("the state directory cannot be used")]
    Store(#[from] StoreError),
    /// What is in it.
    #[error("the state cannot be taken up")]
    Open(#[from] OpenError),
    /// The address.
    #[error("the API cannot be offered")]
    Listen(#[from] ListenerError),
    /// The metrics' address.
    #[error("the metrics cannot be offered")]
    Metrics(#[from] MetricsError),
    /// The server.
    #[error("the API failed")]
    Serve(#[from] ServeError),
    /// A commit failed; the log says why.
    #[error("the state could not be stored; what is durable is read again at the next start")]
    Failed,
    /// Something did not end in time.
    #[error("not everything ended within {} s", END_TIMEOUT.as_secs())]
    Stuck,
}

/// A daemon that listens.
pub struct Daemon {
    /// The state.
    pub core: Arc<Core>,
    address: SocketAddr,
    life: Lifecycle,
}

impl Daemon {
    /// Loads the state, listens, starts every task.
    ///
    /// # Errors
    /// Something that it needs is not there or not right.
    pub async fn start(config: &Config, metrics: Arc<Metrics>, life: &Lifecycle) -> Result<Self, DaemonError> {
        let settings = config.network.settings()?;
        let tls = Arc::new(Reloader::server(&config.bundle)?);
        let store = open_store(&config.state.dir)?;
        let bounds = Bounds {
            events: config.events.bounds(),
            requests: config.state.requests_kept,
            history: config.state.watch_history,
        };
        let listener = Listener::bind(config.listen, tls.clone(), Limits::default())?;
        metrics.register(|registry| listener.stats().register(registry));
        let counters = CoreMetrics::new(&metrics);
        let core = Core::open(store, settings, bounds, counters, life.token()).await?;
        if let Some(section) = config.metrics {
            let server = metrics.bind(section.listen).await?;
            life.spawn(server.run(life.token()));
        }
        life.spawn(listener::watch_certificate(
            tls,
            listener::CERTIFICATE_CHECK,
            metrics,
            life.token(),
        ));
        life.spawn(core.clone().run_timer());
        life.spawn(core.clone().run_converged());
        life.spawn(core.clone().run_notes());
        life.spawn(run_exports(
            core.clone(),
            config.state.dir.clone(),
            config.state.export_every.0,
        ));
        let address = listener.local_addr();
        let timing = Timing {
            heartbeat: config.nodes.heartbeat.0,
            ack: config.nodes.ack_timeout.0,
        };
        let incoming = listener.incoming(life);
        let (serving, ending) = (core.clone(), life.clone());
        life.spawn(async move {
            if let Err(error) = api::serve(serving, timing, incoming, ending.clone()).await {
                tracing::error!(%error, "the API ended");
            }
            // Without it the daemon has no use.
            ending.stop();
        });
        Ok(Self {
            core,
            address,
            life: life.clone(),
        })
    }

    /// Where the API listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Until the daemon is told to end or has to; then ends everything.
    ///
    /// # Errors
    /// It had to end, or did not end well.
    pub async fn run(self) -> Result<(), DaemonError> {
        let Self { core, address: _, life } = self;
        life.stopped().await;
        let ended = life.finish(END_TIMEOUT).await;
        if core.failed() {
            return Err(DaemonError::Failed);
        }
        if ended { Ok(()) } else { Err(DaemonError::Stuck) }
    }
}

/// The store of a state directory, a new one where there is none.
fn open_store(dir: &Path) -> Result<Arc<dyn Store>, StoreError> {
    if let Some(store) = SledStore::open(dir)? {
        tracing::info!(cluster = store.cluster_id(), dir = %dir.display(), "state loaded");
        return Ok(Arc::new(store));
    }
    let id = uuid::Uuid::new_v4().to_string();
    let store = SledStore::create(dir, &id, Core::new_cluster(&id))?;
    tracing::info!(cluster = id, dir = %dir.display(), "a new cluster begins");
    Ok(Arc::new(store))
}

/// Soon after the start and each change, now and then, and once more at the end; never twice for the same revision.
async fn run_exports(core: Arc<Core>, dir: PathBuf, every: Duration) {
    if every.is_zero() {
        return;
    }
    let mut changes = core.watch_commits();
    // Not at once: who waited for our start is answered first.
    let mut timer = tokio::time::interval_at(tokio::time::Instant::now() + EXPORT_REST.min(every), every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut tried, mut written, mut rest) = (None, None, EXPORT_REST);
    let mut file = None;
    loop {
        // Every arm may be cancelled: a tick is not lost, and a change is looked for by its revision.
        let stopping = tokio::select! {
            () = core.stopping().cancelled() => true,
            _ = timer.tick() => false,
            () = changed_since(&core, &mut changes, tried, rest) => false,
        };
        let revision = Some(core.state().cluster.meta.revision);
        tried = revision;
        if written != revision {
            let began = Instant::now();
            let last = file.take().unwrap_or_else(|| backup::Running::new(dir.join(EXPORT)));
            file = export(&core, last).await;
            if file.is_some() {
                written = revision;
            }
            rest = EXPORT_REST.max(began.elapsed() * EXPORT_SHARE);
        }
        if stopping {
            return;
        }
    }
}

/// Until there is another revision than `tried`, and then for `rest`, so that changes that come together are written together.
async fn changed_since(core: &Core, changes: &mut watch::Receiver<u64>, tried: Option<u64>, rest: Duration) {
    while tried == Some(core.state().cluster.meta.revision) {
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
    tokio::time::sleep(rest).await;
}

/// The file, unless it could not be brought up to date; then the next one is begun anew.
async fn export(core: &Arc<Core>, mut file: backup::Running) -> Option<backup::Running> {
    let source = core.clone();
    let work = move || file.follow(&source, now()).map(|()| file);
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(file)) => Some(file),
        Ok(Err(error)) => {
            tracing::warn!(%error, source = ?error, "the periodic export failed");
            None
        }
        Err(error) => {
            tracing::error!(%error, "the periodic export ended badly");
            None
        }
    }
}
