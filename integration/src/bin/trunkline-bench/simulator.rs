//! The simulated fleet: thousands of nodes in one process, each with the session, inbox, board and reconcile loop of the real agent,
//! over mutual TLS with a certificate of its own. Only the host is none: a pass makes nothing and says that all is well.
//!
//! A node is one descriptor, its connection. Its inbox is a file that is closed after each write, and the caller puts it where writing
//! costs next to nothing: a real node has a disk of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use prost::Message;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trunkline_agent::config::{ControllerSection, NodeConfig, NodeSection};
use trunkline_agent::inbox::Held;
use trunkline_agent::metrics::NodeMetrics;
use trunkline_agent::node::{Desired, Host, HostFacts, Pass, Program};
use trunkline_agent::simulation::Node;
use trunkline_certs::{Reloader, Role};
use trunkline_integration::LabError;
use trunkline_proto::client::{Client, ClientConfig};
use trunkline_proto::resource::{Kind, State};
use trunkline_proto::wire;

use crate::part;

const KINDS: &[Kind] = &[
    Kind::Port,
    Kind::Trunk,
    Kind::Gateway,
    Kind::Dhcp,
    Kind::Nat,
    Kind::Flows,
    Kind::Probe,
];

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(2);

/// How many, and where.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// `https://127.0.0.1:7443`.
    pub(crate) endpoint: String,
    /// Folder of the nodes' bundles.
    pub(crate) bundles: PathBuf,
    /// Folder for the nodes' inboxes.
    pub(crate) state: PathBuf,
    /// How many nodes.
    pub(crate) nodes: usize,
}

/// What the bench asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Wait until so many are welcome.
    Connected(usize),
    /// Wait until all have noticed that the controller is gone.
    Alone,
    /// Wait until so many have something of this generation or later.
    Received { generation: u64, nodes: usize },
    /// How many updates all of them have taken.
    Updates,
    /// What a node holds.
    Holds(usize),
}

/// How far the fleet was, and when the last of them got there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reached {
    /// Nanoseconds since 1970.
    pub(crate) at: u64,
}

/// What a node holds, as one update from nothing, encoded.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Holding {
    pub(crate) update: Vec<u8>,
}

/// Name of a node.
pub(crate) fn name(index: usize) -> String {
    format!("s{index:05}")
}

/// Nanoseconds since 1970: the processes of a figure share this clock.
pub(crate) fn nanos() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Runs until nothing more is asked.
pub(crate) fn run(order: &Order) -> Result<(), LabError> {
    let runtime = runtime()?;
    let nodes: Vec<Simulated> = {
        let _inside = runtime.enter();
        let start = |index| Simulated::start(order, index);
        (0..order.nodes).map(start).collect::<Result<_, _>>()?
    };
    let fleet = Fleet { nodes };
    part::answer(|question| fleet.answer(&question))
}

/// One for everything that a part does.
pub(crate) fn runtime() -> Result<Runtime, LabError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(LabError::io("cannot start a runtime"))
}

struct Fleet {
    nodes: Vec<Simulated>,
}

impl Fleet {
    fn answer(&self, question: &Question) -> Result<serde_json::Value, LabError> {
        match question {
            Question::Connected(count) => {
                let connected = |node: &Simulated| node.metrics.is_connected().then(nanos);
                self.reached("nodes to be connected", *count, connected)
            }
            Question::Alone => {
                let alone = |node: &Simulated| (!node.metrics.is_connected()).then(nanos);
                self.reached("nodes to be alone", self.nodes.len(), alone)
            }
            Question::Received { generation, nodes } => {
                let received = |node: &Simulated| {
                    let has = node.seat.generation.load(Ordering::Acquire) >= *generation;
                    has.then(|| node.seat.at.load(Ordering::Acquire))
                };
                self.reached("nodes to have it", *nodes, received)
            }
            Question::Updates => {
                let taken: u64 = self
                    .nodes
                    .iter()
                    .map(|node| node.seat.updates.load(Ordering::Acquire))
                    .sum();
                Ok(json!(taken))
            }
            Question::Holds(index) => {
                let node = self
                    .nodes
                    .get(*index)
                    .ok_or_else(|| LabError::Other("no such node".to_owned()))?;
                let update = update(&node.held.borrow()).encode_to_vec();
                Ok(json!(Holding { update }))
            }
        }
    }

    /// Waits until `count` nodes have come to a moment, and says which was the last.
    fn reached(
        &self,
        what: &str,
        count: usize,
        moment: impl Fn(&Simulated) -> Option<u64>,
    ) -> Result<serde_json::Value, LabError> {
        let deadline = SystemTime::now() + Duration::from_secs(300);
        loop {
            let reached: Vec<u64> = self.nodes.iter().filter_map(&moment).collect();
            if reached.len() >= count {
                let at = reached.into_iter().max().unwrap_or_default();
                return Ok(json!(Reached { at }));
            }
            if SystemTime::now() > deadline {
                let text = format!("waited too long for {count} {what}; there are {}", reached.len());
                return Err(LabError::Other(text));
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn update(held: &Held) -> wire::Update {
    wire::Update {
        cluster_id: held.cluster_id.clone(),
        term: held.position.term,
        base_generation: 0,
        generation: held.position.generation,
        digest: held.digest().to_vec(),
        upserts: held.entries().map(|(_, entry)| (&entry.envelope).into()).collect(),
        removals: Vec::new(),
        last: true,
        removals_intended: true,
    }
}

/// When a node got what.
#[derive(Debug, Default)]
struct Seat {
    generation: AtomicU64,
    at: AtomicU64,
    updates: AtomicU64,
}

struct Simulated {
    seat: Arc<Seat>,
    held: watch::Receiver<Arc<Held>>,
    metrics: NodeMetrics,
}

impl Simulated {
    fn start(order: &Order, index: usize) -> Result<Self, LabError> {
        let name = name(index);
        let state_dir = order.state.join(&name);
        std::fs::create_dir_all(&state_dir).map_err(LabError::io("cannot make a state directory"))?;
        let bundle = order.bundles.join(&name);
        let tls = Reloader::client(&bundle).map_err(|error| failed(&bundle, &error))?;
        let tls = Arc::new(tls);
        let dial = move |config: &NodeConfig| {
            let to = ClientConfig::new(config.controller.endpoint.clone(), config.node.bundle.clone());
            Ok(Client::lazy_with(&to, tls.clone())?.node())
        };
        let seat = Arc::new(Seat::default());
        let node = Node {
            program: Program {
                service: "simulated",
                version: env!("CARGO_PKG_VERSION"),
                role: Role::Worker,
                kinds: KINDS,
            },
            instance: format!("{index:016x}"),
            validate: Arc::new(|_| Ok(())),
            dial: Arc::new(dial),
            host: NoHost { seat: seat.clone() },
            config: config(order, &name, bundle, state_dir.clone())?,
        };
        let running = node
            .start(CancellationToken::new())
            .map_err(|error| failed(&state_dir, &error))?;
        let (held, metrics) = (running.held, running.metrics);
        Ok(Self { seat, held, metrics })
    }
}

fn config(order: &Order, name: &str, bundle: PathBuf, state_dir: PathBuf) -> Result<NodeConfig, LabError> {
    Ok(NodeConfig {
        node: NodeSection {
            name: name.parse().map_err(|error| LabError::Other(format!("{error}")))?,
            bundle,
            state_dir,
        },
        controller: ControllerSection {
            endpoint: order.endpoint.clone(),
            server_name: None,
        },
        switch: Default::default(),
        telemetry: Default::default(),
        metrics: None,
    })
}

pub(crate) fn failed(path: &Path, error: &dyn std::error::Error) -> LabError {
    LabError::Other(format!("{}: {}", path.display(), trunkline_agent::chain(error)))
}

/// Makes nothing.
struct NoHost {
    seat: Arc<Seat>,
}

impl Host for NoHost {
    fn facts(&self) -> HostFacts {
        HostFacts {
            datapath: "netdev".to_owned(),
            ovs_version: "3.1.0".to_owned(),
            uplink: "trunk0".to_owned(),
        }
    }

    async fn pass(&mut self, desired: &Desired) -> Pass {
        if self.seat.generation.load(Ordering::Acquire) != desired.generation {
            self.seat.at.store(nanos(), Ordering::Release);
            self.seat.generation.store(desired.generation, Ordering::Release);
            self.seat.updates.fetch_add(1, Ordering::AcqRel);
        }
        Pass {
            observations: desired.all(State::Ready, ""),
            clean: true,
            ..Pass::default()
        }
    }
}
