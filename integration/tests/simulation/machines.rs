//! What runs on the simulated machines: the controller's core and streams, and the nodes' session, inbox and loop, all real, over
//! turmoil's network; and a host that makes things true in memory.

use std::{
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task,
    time::{Duration, SystemTime},
};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Endpoint, Server, server::Connected},
};
use tower::service_fn;
use trunkline_agent::{
    config::{ControllerSection, NodeConfig, NodeSection, SwitchSection},
    node::{Desired, Host, HostFacts, Pass, Program},
    simulation::{Client, Node},
};
use trunkline_certs::{Identity, Role};
use trunkline_controller::{
    core::{Bounds, Core, CoreError, Mutation},
    journal,
    listener::PeerInfo,
    metrics::CoreMetrics,
    model::Position,
    requests::{Fingerprint, RequestKey},
    settings::Settings,
    stream::{self, Nodes, Timing},
};
use trunkline_proto::{
    Name, VlanId,
    client::{ConnectError, TraceContext},
    daemon::Lifecycle,
    resource::{Key, Kind, Spec, State},
    wire,
    wire::node_service_server::NodeServiceServer,
};
use turmoil::net::{TcpListener, TcpStream};

use super::{
    disk::Disk,
    world::{Call, Real, Shared, known},
};

/// Name of the controller's machine.
pub(crate) const CONTROLLER: &str = "controller";
const PORT: u16 = 7443;

/// A session is given up after three of these, so a simulated minute sees many.
pub(crate) const TIMING: Timing = Timing {
    heartbeat: Duration::from_millis(300),
    ack: Duration::from_millis(1500),
};

/// What is kept of the journal, of answers and of commits.
pub(crate) const BOUNDS: Bounds = Bounds {
    events: journal::Bounds {
        entries: 200,
        age: Duration::from_secs(86_400),
    },
    requests: 50,
    history: 50,
};

/// As api::serve has it.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

const KINDS: &[Kind] = &[
    Kind::Port,
    Kind::Trunk,
    Kind::Gateway,
    Kind::Dhcp,
    Kind::Nat,
    Kind::Flows,
    Kind::Probe,
];

/// Few VLANs and a short rest, so that one slice's is often the next one's.
pub(crate) fn settings() -> Settings {
    Settings {
        vlan_first: VlanId::try_from(100).unwrap(),
        vlan_last: VlanId::try_from(107).unwrap(),
        vlan_pool_size: 2,
        quarantine: Duration::from_millis(300),
        ..Settings::default()
    }
}

/// The time, as long as the simulation has run.
pub(crate) fn clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + now()
}

pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

fn identity(name: &str) -> Identity {
    let role = if name.starts_with('w') {
        Role::Worker
    } else {
        Role::Netnode
    };
    Identity::new("sim.test", role, name).unwrap()
}

/// The controller, until it is killed or cannot store.
pub(crate) async fn controller(shared: Shared, disk: Disk) -> turmoil::Result {
    let life = Lifecycle::without_signals();
    let opened = Core::open(Arc::new(disk), settings(), BOUNDS, CoreMetrics::default(), life.token()).await;
    let core = match opened {
        Ok(core) => core,
        // A commit may fail at the start, too.
        Err(error) => {
            shared
                .lock()
                .say(now(), format_args!("controller cannot start: {error}"));
            return Ok(());
        }
    };
    {
        let mut world = shared.lock();
        let cluster = core.state().cluster.clone();
        world.say(
            now(),
            format_args!(
                "controller at {:?} revision {}",
                cluster.position(),
                cluster.meta.revision
            ),
        );
        world.committed(&cluster);
        world.nothing_lost(&cluster);
        world.core = Some(core.clone());
    }
    life.spawn(core.clone().run_timer());
    life.spawn(core.clone().run_converged());
    life.spawn(core.clone().run_notes());
    life.spawn(record(shared.clone(), core.clone()));
    life.spawn(operate(shared.clone(), core.clone()));
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let token = life.token();
    let nodes =
        NodeServiceServer::new(Nodes::new(core, TIMING, life.clone())).max_decoding_message_size(stream::MAX_MESSAGE);
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .add_service(nodes)
        .serve_with_incoming_shutdown(incoming(listener), async move { token.cancelled().await });
    let stopped = life.token();
    // A process that ends takes its connections with it, so nobody waits for them here.
    tokio::select! {
        served = served => served?,
        () = stopped.cancelled() => {}
    }
    let mut world = shared.lock();
    world.core = None;
    world.say(now(), format_args!("controller ends"));
    Ok(())
}

/// Looks at every state that comes into force, before any node can have heard of it.
async fn record(shared: Shared, core: Arc<Core>) {
    let mut status = core.watch_status();
    let mut departures = String::new();
    loop {
        let cluster = core.state().cluster.clone();
        {
            let mut world = shared.lock();
            let going = cluster.departures.iter().map(|((at, slice), going)| {
                let vlans: Vec<_> = going.links.keys().map(ToString::to_string).collect();
                let nodes: Vec<_> = going.waiting.keys().map(Name::as_str).collect();
                format!("{slice}@{at} {} for {};", vlans.join(" "), nodes.join(" "))
            });
            let going: String = going.collect();
            if going != departures {
                world.say(now(), format_args!("departing: {going}"));
                departures = going;
            }
            world.committed(&cluster);
            world.controller_tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Makes operators' calls, one after another; one that was not answered is made again, under its id, by the next controller.
async fn operate(shared: Shared, core: Arc<Core>) {
    loop {
        let call = shared.lock().calls.front().cloned();
        let Some(call) = call else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let Call { id, intent, slices } = call;
        let actor = "operator/alice".to_owned();
        let print = Fingerprint::of(
            "simulated",
            &wire::GetSliceRequest {
                name: format!("{intent:?}"),
                ..Default::default()
            },
        );
        let mutation = Mutation {
            intent: intent.clone(),
            actor: actor.clone(),
            request: Some((RequestKey { actor, id: id.clone() }, print)),
            answer: Box::new(|_, _| Vec::new()),
        };
        let done = core.mutate(mutation).await;
        let cluster = core.state().cluster.clone();
        let mut world = shared.lock();
        match done {
            Ok(_) => {
                world.figures.calls += 1;
                for name in slices {
                    let is = known(&cluster, &name);
                    world.say(now(), format_args!("told {id}: {name} is {is:?}"));
                    world.known.insert(name, is);
                }
                world.calls.pop_front();
                world.committed(&cluster);
                world.nothing_lost(&cluster);
            }
            Err(CoreError::Rejected(why)) => {
                world.figures.refused += 1;
                world.say(now(), format_args!("refused {id}: {why}"));
                world.calls.pop_front();
            }
            Err(error) => {
                world.say(now(), format_args!("not answered {id}: {error}"));
                return;
            }
        }
    }
}

/// A node, until it is killed.
pub(crate) async fn node(shared: Shared, name: Name, dir: PathBuf) -> turmoil::Result {
    let role = identity(name.as_str()).role();
    let instance = shared.lock().random.u64(..);
    let config = NodeConfig {
        node: NodeSection {
            name: name.clone(),
            bundle: PathBuf::new(),
            state_dir: dir,
        },
        controller: ControllerSection {
            endpoint: format!("https://{CONTROLLER}:{PORT}"),
            server_name: None,
        },
        switch: SwitchSection::default(),
        telemetry: Default::default(),
        metrics: None,
    };
    let node = Node {
        program: Program {
            service: "simulated",
            version: "0",
            role,
            kinds: KINDS,
        },
        config,
        instance: format!("{instance:016x}"),
        validate: Arc::new(|_| Ok(())),
        dial: Arc::new(dial),
        host: FakeHost {
            shared: shared.clone(),
            name: name.clone(),
        },
    };
    let running = node.start(CancellationToken::new())?;
    {
        let mut world = shared.lock();
        let at = position(
            running.held.borrow().position.term,
            running.held.borrow().position.generation,
        );
        world.say(now(), format_args!("{name} starts with {at:?}"));
        let host = world.host(&name);
        let before = host.at;
        (host.held, host.wake) = (Some(running.held.clone()), Some(running.wake.clone()));
        if at < before {
            world.blame(format!("{name} went by {before:?} and starts with {at:?}"));
        }
    }
    loop {
        shared.lock().host(&name).tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn position(term: u64, generation: u64) -> Position {
    Position { term, generation }
}

/// The same as over TLS, but for TLS: the network itself says who is who.
fn dial(_: &NodeConfig) -> Result<Client, ConnectError> {
    let endpoint = Endpoint::from_static("http://controller:7443")
        .timeout(Duration::from_secs(30))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    let connector = service_fn(|_| async {
        let connected = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect((CONTROLLER, PORT))).await;
        connected
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
            .map(TokioIo::new)
    });
    let channel = endpoint.connect_with_connector_lazy(connector);
    Ok(Client::new(InterceptedService::new(channel, TraceContext)))
}

/// A connection; who is at the other end is known from where it comes.
struct Io {
    stream: TcpStream,
    peer: PeerInfo,
}

fn incoming(listener: TcpListener) -> impl Stream<Item = std::io::Result<Io>> {
    futures::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await;
        Some((accepted.map(|(stream, address)| Io::new(stream, address)), listener))
    })
}

impl Io {
    fn new(stream: TcpStream, address: SocketAddr) -> Self {
        let name = turmoil::reverse_lookup(address.ip()).unwrap();
        let peer = PeerInfo {
            address,
            identity: identity(&name),
            certificate_expires: clock() + Duration::from_secs(86_400),
        };
        Self { stream, peer }
    }
}

impl Connected for Io {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buf: &[u8],
    ) -> task::Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Makes things true in memory, sometimes slowly, sometimes not.
struct FakeHost {
    shared: Shared,
    name: Name,
}

impl Host for FakeHost {
    fn facts(&self) -> HostFacts {
        HostFacts {
            datapath: "netdev".into(),
            ovs_version: "3".into(),
            uplink: "trunk0".into(),
        }
    }

    async fn pass(&mut self, desired: &Desired) -> Pass {
        self.begin(desired);
        let mut clean = self.remove(desired);
        // A kill may come between the halves.
        let pause = self.shared.lock().random.u64(0..40);
        if pause > 10 {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let mut observations = Vec::with_capacity(desired.items.len());
        for (key, item) in &desired.items {
            let (state, reason) = match self.make(desired, key, item) {
                Made::Yes => (State::Ready, ""),
                Made::No { other } => {
                    // What stands of another version may stand on a VLAN that is to be free.
                    clean &= !other;
                    (State::Failed, "the simulation says no")
                }
            };
            observations.push(item.observation(key, state, reason, None));
        }
        Pass {
            observations,
            clean,
            ..Pass::default()
        }
    }
}

/// Whether a resource is as it should be.
enum Made {
    Yes,
    /// It is not; `other`: another version of it stands.
    No {
        other: bool,
    },
}

impl FakeHost {
    fn begin(&self, desired: &Desired) {
        let at = position(desired.term, desired.generation);
        let mut world = self.shared.lock();
        world.figures.passes += 1;
        world.say(
            now(),
            format_args!("{} goes by {at:?}: {} resources", self.name, desired.items.len()),
        );
        let before = std::mem::replace(&mut world.host(&self.name).at, at);
        if at.term == world.term() {
            world.host(&self.name).stranger = false;
        }
        if at < before {
            world.blame(format!("{} went by {before:?} and now by {at:?}", self.name));
        }
    }

    fn fails(&self) -> bool {
        let mut world = self.shared.lock();
        let trouble = world.host(&self.name).trouble;
        trouble > 0 && world.random.u32(0..1000) < trouble
    }

    fn remove(&self, desired: &Desired) -> bool {
        let unwanted: Vec<Key> = {
            let mut world = self.shared.lock();
            let real = &world.host(&self.name).real;
            real.keys()
                .filter(|key| !desired.items.contains_key(*key))
                .cloned()
                .collect()
        };
        let mut clean = true;
        for key in unwanted {
            if self.fails() {
                clean = false;
            } else {
                self.shared.lock().host(&self.name).real.remove(&key);
            }
        }
        clean
    }

    fn make(&self, desired: &Desired, key: &Key, item: &trunkline_agent::node::Item) -> Made {
        let is = self.shared.lock().host(&self.name).real.get(key).map(|real| real.hash);
        if is == Some(item.hash) {
            return Made::Yes;
        }
        if self.fails() {
            return Made::No { other: is.is_some() };
        }
        let mut world = self.shared.lock();
        let owner = match (&item.spec, item.spec.vlan()) {
            (_, None | Some(VlanId::INTERNET)) => None,
            (_, Some(_)) if world.host(&self.name).stranger => None,
            (_, Some(vlan)) => world.owner(position(desired.term, desired.generation), vlan),
        };
        if desired.term == world.term()
            && let Spec::Port(port) = &item.spec
            && let Some((slice, _)) = &owner
            && port.owner.slice != slice.as_str()
        {
            let vlan = port.vlan;
            world.blame(format!(
                "{} makes {key} of {} on VLAN {vlan:?} of {slice}",
                self.name, port.owner.slice
            ));
        }
        let real = Real {
            hash: item.hash,
            spec: item.spec.clone(),
            owner,
        };
        world.host(&self.name).real.insert(key.clone(), real);
        Made::Yes
    }
}
