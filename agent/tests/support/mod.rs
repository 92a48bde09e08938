//! A controller that does what a test says, over real mutual TLS, and a host that keeps everything in memory.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod memory;
mod resources;
mod session;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::Stream;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use trunkline_agent::{
    config::{ControllerSection, NodeConfig, NodeSection, SwitchSection},
    node::{self, Desired, Host, HostFacts, NodeError, Pass, Program},
};
use trunkline_certs::{
    Bundle, Role,
    authority::{Authority, Leaf},
    server_config,
};
use trunkline_proto::{
    Digest, LinkSubnet, Mac, VlanId, VmId,
    daemon::TelemetryConfig,
    resource::{Envelope, Flows, Key, Kind, Port, PortOwner, Probe, ProbeKey, Spec, State, Trunk},
    wire::{
        Ack, Confirm, ControllerMessage, HeldRemovals, Hello, InventoryRequest, NodeMessage, Orphans, Report,
        ResourceKey, Update, Welcome,
        controller_message::Message as ToNode,
        node_message::Message as FromNode,
        node_service_server::{NodeService, NodeServiceServer},
    },
};

use self::memory::MemoryHost;
#[allow(unused_imports)] // Each test binary needs others of them.
pub use self::{
    memory::{PROGRAM, World},
    resources::*,
    session::{Seen, Session},
};

/// Longest wait for anything that must come.
pub const SOON: Duration = Duration::from_secs(20);

pub const CLUSTER: &str = "cluster-1";

/// Certificates of a little cluster.
pub struct Pki {
    pub dir: tempfile::TempDir,
}

impl Pki {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(&dir.path().join("ca"), "test.example").unwrap();
        for (role, name) in [
            (Role::Controller, "controller"),
            (Role::Worker, "w1"),
            (Role::Worker, "w2"),
            (Role::Netnode, "n1"),
        ] {
            let serves = role == Role::Controller;
            let leaf = Leaf {
                role,
                name: name.to_owned(),
                dns: if serves { vec!["localhost".to_owned()] } else { vec![] },
                ips: if serves { vec![[127, 0, 0, 1].into()] } else { vec![] },
                days: 7,
            };
            authority.issue(&leaf, &dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    pub fn bundle(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

type Out = Pin<Box<dyn Stream<Item = Result<ControllerMessage, Status>> + Send>>;

struct Service {
    sessions: mpsc::Sender<Session>,
}

#[tonic::async_trait]
impl NodeService for Service {
    type SyncStream = Out;

    async fn sync(&self, request: Request<Streaming<NodeMessage>>) -> Result<Response<Out>, Status> {
        let (outgoing, receiver) = mpsc::channel(64);
        let session = Session {
            incoming: request.into_inner(),
            outgoing,
        };
        self.sessions
            .send(session)
            .await
            .map_err(|_| Status::unavailable("going down"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// The controller.
pub struct Controller {
    pub address: SocketAddr,
    sessions: mpsc::Receiver<Session>,
    server: JoinHandle<()>,
}

impl Controller {
    pub async fn start(pki: &Pki) -> Self {
        Self::start_on(pki, "127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_on(pki: &Pki, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = server_config(&Bundle::load(&pki.bundle("controller")).unwrap()).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (streams, incoming) = mpsc::channel(8);
        let (sessions, receiver) = mpsc::channel(8);
        let server = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            tasks.spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    match acceptor.accept(stream).await {
                        Ok(tls) => streams.send(Ok::<_, std::io::Error>(tls)).await.unwrap(),
                        Err(e) => eprintln!("handshake: {e}"),
                    }
                }
            });
            let service = NodeServiceServer::new(Service { sessions });
            let serve = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(ReceiverStream::new(incoming));
            serve.await.unwrap();
        });
        Self {
            address,
            sessions: receiver,
            server,
        }
    }

    pub async fn session(&mut self) -> Session {
        timeout(SOON, self.sessions.recv())
            .await
            .expect("no session came in time")
            .unwrap()
    }

    /// Ends at once, connections included.
    pub async fn kill(self) -> SocketAddr {
        self.server.abort();
        let _ = self.server.await;
        self.address
    }
}

/// A node under test.
pub struct Node {
    cancel: CancellationToken,
    task: JoinHandle<Result<(), NodeError>>,
}

pub fn config(pki: &Pki, controller: SocketAddr, state: &Path) -> NodeConfig {
    config_of("w1", pki, controller, state)
}

pub fn config_of(name: &str, pki: &Pki, controller: SocketAddr, state: &Path) -> NodeConfig {
    NodeConfig {
        node: NodeSection {
            name: name.parse().unwrap(),
            bundle: pki.bundle(name),
            state_dir: state.to_owned(),
        },
        controller: ControllerSection {
            endpoint: format!("https://{controller}"),
            server_name: None,
        },
        switch: SwitchSection {
            socket: state.join("no-ovs.sock"),
            ..SwitchSection::default()
        },
        telemetry: TelemetryConfig::default(),
        metrics: None,
    }
}

impl Node {
    /// Runs the runtime over the host in memory.
    pub fn start(config: NodeConfig, world: &World) -> Self {
        let cancel = CancellationToken::new();
        let (world, token) = (world.clone(), cancel.clone());
        let validate: node::Validate = Arc::new(|spec: &Spec| match spec {
            Spec::Port(port) if port.mtu == 9000 => Err("no jumbo frames here".to_owned()),
            _ => Ok(()),
        });
        let task = tokio::spawn(async move {
            let host = |_: &node::NodeContext| Ok(MemoryHost { world });
            node::serve(PROGRAM, config, validate, host, token, || {}).await
        });
        Self { cancel, task }
    }

    pub fn spawn(task: JoinHandle<Result<(), NodeError>>, cancel: CancellationToken) -> Self {
        Self { cancel, task }
    }

    pub async fn stop(self) {
        self.cancel.cancel();
        timeout(SOON, self.task)
            .await
            .expect("the node did not end")
            .unwrap()
            .unwrap();
    }

    /// As if it was killed: no task ends in an orderly way.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub async fn fails(self) -> NodeError {
        timeout(SOON, self.task)
            .await
            .expect("the node did not end")
            .unwrap()
            .unwrap_err()
    }
}
