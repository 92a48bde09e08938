//! Starts a node's tasks, and ends them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trunkline_certs::{Bundle, BundleError, Identity, Role};
use trunkline_proto::daemon::{Lifecycle, Metrics, TelemetryError, telemetry};
use uuid::Uuid;

use super::{BoxError, Host, NodeContext, Program, Validate, Wake};
use crate::{
    config::NodeConfig,
    inbox::{Held, Judge, Loaded, Store, StoreError},
    instance::{Instance, InstanceError},
    metrics::NodeMetrics,
    netlink, ovsdb,
    reconcile::{Doing, Reconcile, Watchdog},
    report::Board,
    session::{self, Session},
};

/// How long tasks may take to end: a pass is not cut in the middle.
const END_WAIT: Duration = Duration::from_secs(10);
/// How often the certificate on disk is looked at.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(60);

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Its certificate bundle cannot be used.
    #[error("the certificate bundle {path} cannot be used")]
    Bundle {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: BundleError,
    },
    /// The certificate is somebody else's.
    #[error("the configuration says {role}/{name}, but the certificate in {path} is of {identity}")]
    Identity {
        /// The program's role.
        role: Role,
        /// Name in the configuration.
        name: String,
        /// The bundle's directory.
        path: PathBuf,
        /// Who the certificate is of.
        identity: Identity,
    },
    /// The state directory cannot be had.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The inbox cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Logs or traces cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The metrics port cannot be had.
    #[error(transparent)]
    Metrics(#[from] trunkline_proto::daemon::metrics::MetricsError),
    /// Signals cannot be taken over.
    #[error("cannot take over signals")]
    Signals(#[source] std::io::Error),
    /// The kernel's links cannot be reached.
    #[error("cannot talk to the kernel by netlink")]
    Netlink(#[source] BoxError),
    /// The kind of node cannot be set up.
    #[error("this node cannot be set up")]
    Host(#[source] BoxError),
    /// A task ended that must not.
    #[error("the node's {task} broke down")]
    Task {
        /// Which task.
        task: &'static str,
        /// How.
        #[source]
        source: tokio::task::JoinError,
    },
}

/// Runs a node as a daemon: logs and traces, signals, readiness, and [`serve`] in between.
pub async fn run<H: Host>(
    program: Program,
    config: NodeConfig,
    validate: Validate,
    build: impl FnOnce(&NodeContext) -> Result<H, BoxError>,
) -> Result<(), NodeError> {
    let traces = telemetry::init(program.service, config.node.name.as_str(), &config.telemetry)?;
    let life = Lifecycle::start().map_err(NodeError::Signals)?;
    let ready = life.clone();
    let ended = serve(program, config, validate, build, life.token(), move || ready.ready()).await;
    life.finish(END_WAIT).await;
    traces.shutdown().await;
    ended
}

/// Runs a node until `cancel`. `ready` is called once the inbox is loaded and a first pass was tried.
pub async fn serve<H: Host>(
    program: Program,
    config: NodeConfig,
    validate: Validate,
    build: impl FnOnce(&NodeContext) -> Result<H, BoxError>,
    cancel: CancellationToken,
    ready: impl FnOnce() + Send,
) -> Result<(), NodeError> {
    let expiry = check_identity(&program, &config)?;
    let switch = &config.switch;
    let instance = Instance::take(&config.node.state_dir, &switch.socket, &switch.bridge, program.service)?;
    let judge = Judge {
        kinds: program.kinds,
        validate,
    };
    let store = Store::new(&config.node.state_dir);
    let held = load(&store, &judge)?;

    let metrics = Arc::new(Metrics::new(program.service, program.version));
    metrics.certificate_expiry(expiry);
    let node_metrics = NodeMetrics::default();
    metrics.register(|registry| node_metrics.register(registry));

    // A child, so that this function may end the node too.
    let cancel = cancel.child_token();
    let _cancel_at_end = cancel.clone().drop_guard();
    let tasks = TaskTracker::new();
    if let Some(section) = config.metrics {
        let server = metrics.bind(section.listen).await?;
        tracing::info!(address = %server.local_addr(), "metrics");
        tasks.spawn(server.run(cancel.clone()));
    }

    let config = Arc::new(config);
    let board = Arc::new(Board::counting(node_metrics.clone()));
    let cx = context(config.clone(), board.clone(), metrics, &cancel, &tasks).await?;
    let host = build(&cx).map_err(NodeError::Host)?;
    tasks.spawn(watch_certificate(cx.clone()));

    let (held_sender, held) = watch::channel(Arc::new(held));
    let (facts_sender, facts) = watch::channel(host.facts());
    let (tried, mut first) = watch::channel(false);
    let session = Session {
        config,
        program,
        instance: Uuid::new_v4().to_string(),
        held: held_sender,
        store,
        judge,
        board: board.clone(),
        facts,
        metrics: node_metrics.clone(),
        cancel: cancel.clone(),
        dial: Arc::new(session::dial),
    };
    let watchdog = Watchdog {
        doing: cx.doing.clone(),
        held: held.clone(),
        board: board.clone(),
        metrics: node_metrics.clone(),
        cancel: cancel.clone(),
    };
    tasks.spawn(watchdog.run());
    let reconcile = Reconcile {
        host,
        held,
        wake: cx.wake.clone(),
        board,
        facts: facts_sender,
        tried,
        metrics: node_metrics,
        doing: cx.doing.clone(),
        cancel: cancel.clone(),
    };
    let mut reconcile = tasks.spawn(reconcile.run());
    let mut session = tasks.spawn(session.run());

    // Not ready before the first pass; a task that breaks down meanwhile is seen below.
    tokio::select! {
        seen = first.wait_for(|tried| *tried) => if seen.is_ok() {
            tracing::info!(node = %cx.node, version = program.version, "ready");
            ready();
        },
        () = cancel.cancelled() => {}
    }
    // Neither ends before it is cancelled, unless it broke down.
    let ended = tokio::select! {
        ended = &mut reconcile => ended.map_err(|source| NodeError::Task { task: "reconcile loop", source }),
        ended = &mut session => ended.map_err(|source| NodeError::Task { task: "session", source }),
    };
    cancel.cancel();
    tasks.close();
    if tokio::time::timeout(END_WAIT, tasks.wait()).await.is_err() {
        tracing::warn!("a pass did not end in time; the next start compares the whole again");
    }
    drop(instance);
    ended
}

fn check_identity(program: &Program, config: &NodeConfig) -> Result<i64, NodeError> {
    let path = config.node.bundle.clone();
    let bundle = match Bundle::load(&path) {
        Ok(bundle) => bundle,
        Err(source) => return Err(NodeError::Bundle { path, source }),
    };
    let identity = bundle.identity();
    if identity.role() == program.role && identity.name() == config.node.name.as_str() {
        return Ok(bundle.not_after_unix());
    }
    Err(NodeError::Identity {
        role: program.role,
        name: config.node.name.to_string(),
        path,
        identity: identity.clone(),
    })
}

pub(crate) fn load(store: &Store, judge: &Judge) -> Result<Held, NodeError> {
    Ok(match store.load(judge)? {
        Loaded::Held(held) => {
            tracing::info!(
                generation = held.position.generation,
                resources = held.entries().len(),
                "desired state as it was last taken"
            );
            held
        }
        Loaded::Fresh => {
            tracing::info!("no desired state yet; nothing is changed until the controller has spoken");
            Held::default()
        }
        Loaded::SetAside { path, reason } => {
            tracing::error!(inbox = %store.path().display(), aside = %path.display(), reason,
                "the inbox is damaged and was set aside; what is on this host stays as it is until the controller has sent everything again");
            Held::default()
        }
    })
}

async fn context(
    config: Arc<NodeConfig>,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    cancel: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<NodeContext, NodeError> {
    let wake = Wake::new(tasks.clone(), cancel.clone());
    let ovs = ovsdb::Client::start(config.switch.socket.clone(), cancel.clone());
    wake.follow(ovs.changes());
    let netlink = netlink::Handle::current().map_err(|e| NodeError::Netlink(e.into()))?;
    let links = netlink::watch(None, cancel.clone())
        .await
        .map_err(|e| NodeError::Netlink(e.into()))?;
    wake.follow(links);
    Ok(NodeContext {
        node: config.node.name.clone(),
        config,
        ovs,
        netlink,
        wake,
        doing: Doing::default(),
        board,
        metrics,
        cancel: cancel.clone(),
        tasks: tasks.clone(),
    })
}

/// Keeps the metric of the certificate's end true: certificates are renewed beneath us.
async fn watch_certificate(cx: NodeContext) {
    let mut look = interval(CERTIFICATE_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let path = &cx.config.node.bundle;
    let mut bad = false;
    loop {
        tokio::select! {
            () = cx.cancel.cancelled() => return,
            _ = look.tick() => {}
        }
        match Bundle::load(path) {
            Ok(bundle) => {
                cx.metrics.certificate_expiry(bundle.not_after_unix());
                bad = false;
            }
            Err(e) if !bad => {
                tracing::error!(bundle = %path.display(), error = crate::chain(&e), "the certificate bundle cannot be used");
                bad = true;
            }
            Err(_) => {}
        }
    }
}
