//! A node's own parts for simulations: the session, the inbox, the reconcile loop and the board, over a way to the controller and a
//! host that the caller brings. Nothing of a daemon's surroundings: no certificate, no lock, no Open vSwitch, no signals, no threads, and
//! no file that stays open. So thousands of nodes fit into one process.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trunkline_proto::{
    client::{ConnectError, Service},
    wire::node_service_client::NodeServiceClient,
};

use crate::{
    config::NodeConfig,
    inbox::{Held, Judge, Store},
    metrics::NodeMetrics,
    node::{Host, NodeError, Program, Validate, Wake, load},
    reconcile::{Doing, Reconcile},
    report::Board,
    session::Session,
};

/// The way to the controller.
pub type Client = NodeServiceClient<Service>;

/// Makes it, anew for each session.
pub type Dial = Arc<dyn Fn(&NodeConfig) -> Result<Client, ConnectError> + Send + Sync>;

/// What a simulated node is made of.
pub struct Node<H> {
    /// Which program it stands for.
    pub program: Program,
    /// Its name and state directory count.
    pub config: NodeConfig,
    /// Tells this start from every other one.
    pub instance: String,
    /// Refuses what could never be realised.
    pub validate: Validate,
    /// The way to the controller.
    pub dial: Dial,
    /// The host.
    pub host: H,
}

/// What a node holds, as it changes, and its handle on the reconcile loop.
pub struct Running {
    /// What is held.
    pub held: watch::Receiver<Arc<Held>>,
    /// Wakes the reconcile loop, as a change of the host does.
    pub wake: Wake,
    /// The tasks.
    pub tasks: TaskTracker,
    /// What it counts.
    pub metrics: NodeMetrics,
}

impl<H: Host> Node<H> {
    /// Starts the node's two tasks within the current runtime. They end with it, or with `cancel`.
    ///
    /// # Errors
    /// The inbox cannot be read.
    pub fn start(self, cancel: CancellationToken) -> Result<Running, NodeError> {
        let Self {
            program,
            config,
            instance,
            validate,
            dial,
            host,
        } = self;
        let judge = Judge {
            kinds: program.kinds,
            validate,
        };
        let store = Store::new(&config.node.state_dir).in_place();
        let (held_sender, held) = watch::channel(Arc::new(load(&store, &judge)?));
        let (facts_sender, facts) = watch::channel(host.facts());
        let tasks = TaskTracker::new();
        let wake = Wake::new(tasks.clone(), cancel.clone());
        let metrics = NodeMetrics::default();
        let board = Arc::new(Board::counting(metrics.clone()));
        let session = Session {
            config: Arc::new(config),
            program,
            instance,
            held: held_sender,
            store,
            judge,
            board: board.clone(),
            facts,
            metrics: metrics.clone(),
            cancel: cancel.clone(),
            dial,
        };
        let reconcile = Reconcile {
            host,
            held: held.clone(),
            wake: wake.clone(),
            board,
            facts: facts_sender,
            tried: watch::channel(false).0,
            metrics: metrics.clone(),
            doing: Doing::default(),
            cancel,
        };
        tasks.spawn(reconcile.run());
        tasks.spawn(session.run());
        Ok(Running {
            held,
            wake,
            tasks,
            metrics,
        })
    }
}
