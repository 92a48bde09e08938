//! A controller that does what a test says, over real mutual TLS, and a host that keeps everything in memory.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

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
    resource::{Envelope, Flows, Key, Kind, Port, PortOwner, Spec, State, Trunk},
    wire::{
        Ack, Confirm, ControllerMessage, HeldRemovals, Hello, InventoryRequest, NodeMessage, Orphans, Report,
        ResourceKey, Update, Welcome,
        controller_message::Message as ToNode,
        node_message::Message as FromNode,
        node_service_server::{NodeService, NodeServiceServer},
    },
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

/// One stream, in the test's hands.
pub struct Session {
    incoming: Streaming<NodeMessage>,
    outgoing: mpsc::Sender<Result<ControllerMessage, Status>>,
}

impl Session {
    /// Counts heartbeats until there were so many.
    pub async fn heartbeats(&mut self, count: usize) {
        let mut seen = 0;
        while seen < count {
            let message = timeout(SOON, self.incoming.message())
                .await
                .expect("no message came in time");
            let message = message.unwrap().expect("the node ended the stream").message;
            seen += usize::from(matches!(message, Some(FromNode::Heartbeat(_))));
            self.send(ToNode::Heartbeat(trunkline_proto::wire::Heartbeat {})).await;
        }
    }

    /// The next message that is no heartbeat; `None` when the node has ended the stream.
    pub async fn try_next(&mut self) -> Option<FromNode> {
        loop {
            let message = timeout(SOON, self.incoming.message())
                .await
                .expect("no message came in time");
            match message {
                Ok(Some(NodeMessage {
                    message: Some(FromNode::Heartbeat(_)),
                })) => {}
                Ok(Some(NodeMessage { message })) => return Some(message.expect("an empty message")),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    pub async fn next(&mut self) -> FromNode {
        self.try_next().await.expect("the node ended the stream")
    }

    pub async fn hello(&mut self) -> Hello {
        match self.next().await {
            FromNode::Hello(hello) => hello,
            other => panic!("hello expected, got {other:?}"),
        }
    }

    /// The next Ack; reports before it are dropped.
    pub async fn ack(&mut self) -> Ack {
        loop {
            match self.next().await {
                FromNode::Ack(ack) => return ack,
                FromNode::Report(_) => {}
                other => panic!("ack expected, got {other:?}"),
            }
        }
    }

    pub async fn report(&mut self) -> Report {
        match self.next().await {
            FromNode::Report(report) => report,
            other => panic!("report expected, got {other:?}"),
        }
    }

    /// Collects reports until `enough` says so of the newest state of each resource.
    pub async fn reports_until(&mut self, mut enough: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = Seen::default();
        let collected = timeout(SOON, async {
            while !enough(&seen) {
                match self.try_next().await {
                    Some(FromNode::Report(report)) => seen.take(report),
                    Some(FromNode::Ack(_)) => {}
                    other => panic!("report expected, got {other:?}"),
                }
            }
        });
        if collected.await.is_err() {
            panic!("not seen in time; this was: {seen:#?}");
        }
        seen
    }

    pub async fn send(&self, message: ToNode) {
        let message = ControllerMessage { message: Some(message) };
        self.outgoing.send(Ok(message)).await.expect("the node is gone");
    }

    pub async fn welcome(&self) {
        self.welcome_with(CLUSTER, 60_000).await;
    }

    pub async fn welcome_with(&self, cluster: &str, heartbeat_ms: u32) {
        self.send(ToNode::Welcome(Welcome {
            cluster_id: cluster.to_owned(),
            term: 1,
            heartbeat_ms,
        }))
        .await;
    }

    pub async fn ask_inventory(&self) {
        self.send(ToNode::InventoryRequest(InventoryRequest {})).await;
    }

    pub async fn update(&self, update: Update) {
        self.send(ToNode::Update(update)).await;
    }

    pub async fn confirm(&self, term: u64, generation: u64) {
        self.send(ToNode::Confirm(Confirm { term, generation })).await;
    }

    /// True when the node ends the stream before it acknowledges anything.
    pub async fn ends_without_ack(&mut self) -> bool {
        loop {
            match self.try_next().await {
                None => return true,
                Some(FromNode::Ack(_)) => return false,
                Some(_) => {}
            }
        }
    }
}

/// The newest of each resource, by key.
#[derive(Debug, Default)]
pub struct Seen {
    pub items: BTreeMap<String, trunkline_proto::resource::Observation>,
    pub complete: bool,
    pub clean_generation: u64,
    pub reports: usize,
    /// Key and words.
    pub repairs: Vec<(String, String)>,
    /// Kind and name, as told last.
    pub orphans: Option<Vec<String>>,
    /// As told last.
    pub held_removals: Option<HeldRemovals>,
}

impl Seen {
    pub fn take(&mut self, report: Report) {
        self.reports += 1;
        self.complete |= report.complete;
        self.clean_generation = self.clean_generation.max(report.clean_generation);
        for repair in report.repairs {
            assert!(repair.at.is_some());
            let key = Key::try_from(repair.key.unwrap()).unwrap();
            self.repairs.push((key.to_string(), repair.what));
        }
        if let Some(Orphans { orphans }) = report.orphans {
            assert!(orphans.iter().all(|orphan| orphan.since.is_some()));
            self.orphans = Some(orphans.into_iter().map(|o| format!("{} {}", o.kind, o.name)).collect());
        }
        self.held_removals = report.held_removals.or(self.held_removals.take());
        for item in report.items {
            let observation: trunkline_proto::resource::Observation = item.try_into().unwrap();
            self.items.insert(observation.key.to_string(), observation);
        }
    }

    pub fn is_repaired(&self, key: &str, what: &str) -> bool {
        self.repairs.iter().any(|(of, words)| of == key && words.contains(what))
    }

    pub fn state(&self, key: &str) -> Option<State> {
        self.items.get(key).map(|o| o.state)
    }

    pub fn is_ready(&self, envelope: &Envelope) -> bool {
        self.items
            .get(&envelope.key.to_string())
            .is_some_and(|o| o.hash == envelope.hash && o.state == State::Ready)
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
    NodeConfig {
        node: NodeSection {
            name: "w1".parse().unwrap(),
            bundle: pki.bundle("w1"),
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

pub const PROGRAM: Program = Program {
    service: "trunkline-agent",
    version: "0",
    role: Role::Worker,
    kinds: &[Kind::Port, Kind::Trunk],
};

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

/// What the host in memory has; tests look at it and break it.
#[derive(Clone, Default)]
pub struct World(pub Arc<Mutex<Things>>);

#[derive(Default)]
pub struct Things {
    pub there: BTreeMap<Key, Vec<u8>>,
    pub passes: usize,
    pub broken: Option<String>,
}

impl World {
    pub fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().there.keys().map(ToString::to_string).collect()
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&Things) -> bool) {
        let wait = async {
            while !holds(&self.0.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(SOON, wait).await.is_err() {
            panic!("{what}: not so in time; there is {:?}", self.names());
        }
    }
}

struct MemoryHost {
    world: World,
}

impl Host for MemoryHost {
    fn facts(&self) -> HostFacts {
        HostFacts {
            datapath: "netdev".to_owned(),
            ovs_version: "3".to_owned(),
            uplink: "up0".to_owned(),
        }
    }

    async fn pass(&mut self, desired: &Desired) -> Pass {
        let mut things = self.world.0.lock().unwrap();
        things.passes += 1;
        things.there = desired
            .items
            .iter()
            .map(|(k, i)| (k.clone(), i.hash.to_vec()))
            .collect();
        let broken = things.broken.clone();
        let observe = |(key, item): (&Key, &node::Item)| match &broken {
            Some(name) if key.name.as_str() == name => item.observation(key, State::Failed, "broken", None),
            _ => item.observation(key, State::Ready, "", None),
        };
        Pass {
            observations: desired.items.iter().map(observe).collect(),
            clean: true,
            retry_after: None,
            ..Pass::default()
        }
    }
}

// ---- what a controller would compile

pub fn port_with(id: u32, vlan: Option<u32>, mtu: u16) -> Envelope {
    let vm = VmId::try_from(id).unwrap();
    let spec = Spec::Port(Port {
        tap: format!("tap_{id}_eth1").parse().unwrap(),
        vlan: vlan.map(|v| VlanId::try_from(v).unwrap()),
        mac: Mac::of_interface(vm, 1),
        addresses: vec![],
        mtu,
        owner: PortOwner {
            slice: "shop".to_owned(),
            vm: "web".to_owned(),
            interface: "eth1".to_owned(),
        },
    });
    Envelope::seal(&spec, "")
}

pub fn port(id: u32, vlan: u32) -> Envelope {
    port_with(id, Some(vlan), 1500)
}

pub fn trunk(vlans: &[u32]) -> Envelope {
    let vlans = vlans.iter().map(|v| VlanId::try_from(*v).unwrap()).collect();
    Envelope::seal(&Spec::Trunk(Trunk { vlans }), "")
}

/// The rules of an open link's guests.
pub fn flows(vlan: u32) -> Envelope {
    flows_with(vlan, None)
}

pub fn flows_with(vlan: u32, broadcast_limit: Option<u32>) -> Envelope {
    let vlan = VlanId::try_from(vlan).unwrap();
    let subnet = LinkSubnet::derived(vlan);
    let spec = Spec::Flows(Flows {
        vlan,
        gateway_mac: Mac::of_gateway(vlan),
        gateway_address: subnet.gateway().address,
        dhcp: Some((Mac::of_dhcp(vlan), subnet.dhcp_server().address)),
        guests: [].into(),
        port_security: false,
        protected: false,
        broadcast_limit: broadcast_limit.and_then(NonZeroU32::new),
        unknown_unicast_limit: None,
    });
    Envelope::seal(&spec, "")
}

pub fn digest(all: &[Envelope]) -> Digest {
    Digest::of(all.iter().map(|e| (&e.key, e.hash)))
}

/// The exact difference between two states.
pub fn update(base: u64, generation: u64, from: &[Envelope], to: &[Envelope]) -> Update {
    let gone = from.iter().filter(|e| !to.iter().any(|n| n.key == e.key));
    Update {
        cluster_id: CLUSTER.to_owned(),
        term: 1,
        base_generation: base,
        generation,
        digest: digest(to).to_vec(),
        upserts: to.iter().filter(|e| !from.contains(e)).map(Into::into).collect(),
        removals: gone.map(|e| ResourceKey::from(&e.key)).collect(),
        last: true,
        removals_intended: true,
    }
}
