//! A bare tonic and rustls server of bidirectional streams: tonic's own TLS, one service, and a handler that throws away what it hears.
//! It says Welcome, so that simulated nodes stay, and sends what it is told to send, to all in one loop.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use trunkline_integration::LabError;
use trunkline_proto::wire::{
    ControllerMessage, Heartbeat, NodeMessage, Update, Welcome,
    controller_message::Message as ToNode,
    node_service_server::{NodeService, NodeServiceServer},
};

use crate::part;
use crate::simulator::{self, nanos};

/// Messages of one stream that wait for the transport.
const OUTBOUND: usize = 4;
/// Often enough that nobody gives up.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Who it is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The server's bundle.
    pub(crate) bundle: PathBuf,
}

/// What the bench asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Streams that are open.
    Streams,
    /// Two desired states, each as an update from nothing, encoded. Whoever comes gets the first; each [`Question::Send`] sends the
    /// difference to the other one.
    Load(Vec<u8>, Vec<u8>),
    /// Sends to all; the answer is when it began.
    Send,
}

/// When sending began, and the generation that was sent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) at: u64,
    pub(crate) generation: u64,
}

type Outbound = mpsc::Sender<Result<ControllerMessage, Status>>;

#[derive(Debug, Default)]
struct State {
    streams: Vec<Outbound>,
    /// What there is now, and what is next.
    states: Option<(Update, Update)>,
    generation: u64,
}

#[derive(Debug, Clone, Default)]
struct Bare(Arc<Mutex<State>>);

impl Bare {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the difference once, and sends it to each in turn.
    async fn send(&self) -> Result<Sent, LabError> {
        let nothing = || LabError::Other("nothing was loaded".to_owned());
        let at = nanos();
        let (update, streams, generation) = {
            let mut state = self.state();
            let (now, next) = state.states.take().ok_or_else(nothing)?;
            let update = difference(&now, &next, state.generation);
            state.generation += 1;
            state.states = Some((next, now));
            (update, state.streams.clone(), state.generation)
        };
        let message = message(ToNode::Update(update));
        for stream in streams {
            // One that is gone is counted by the callers.
            let _ = stream.send(Ok(message.clone())).await;
        }
        Ok(Sent { at, generation })
    }

    fn welcome(&self) -> Vec<ControllerMessage> {
        let state = self.state();
        let cluster_id = state
            .states
            .as_ref()
            .map_or("bare", |(now, _)| &now.cluster_id)
            .to_owned();
        let heartbeat_ms = u32::try_from(HEARTBEAT.as_millis()).unwrap_or(u32::MAX);
        let welcome = Welcome {
            cluster_id,
            term: 1,
            heartbeat_ms,
        };
        let first = state.states.as_ref().map(|(now, _)| {
            let generation = state.generation;
            message(ToNode::Update(Update {
                generation,
                term: 1,
                ..now.clone()
            }))
        });
        [message(ToNode::Welcome(welcome))].into_iter().chain(first).collect()
    }
}

/// What changed, as the controller would say it.
fn difference(now: &Update, next: &Update, base: u64) -> Update {
    let had = |resource: &&trunkline_proto::wire::Resource| !now.upserts.contains(resource);
    Update {
        base_generation: base,
        generation: base + 1,
        term: 1,
        upserts: next.upserts.iter().filter(had).cloned().collect(),
        ..next.clone()
    }
}

fn message(message: ToNode) -> ControllerMessage {
    ControllerMessage { message: Some(message) }
}

#[tonic::async_trait]
impl NodeService for Bare {
    type SyncStream = ReceiverStream<Result<ControllerMessage, Status>>;

    async fn sync(&self, request: Request<Streaming<NodeMessage>>) -> Result<Response<Self::SyncStream>, Status> {
        let mut inbound = request.into_inner();
        let (out, answers) = mpsc::channel(OUTBOUND);
        for message in self.welcome() {
            let _ = out.try_send(Ok(message));
        }
        self.state().streams.push(out);
        tokio::spawn(async move { while let Ok(Some(_)) = inbound.message().await {} });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// Says where it listens, and serves until nothing more is asked.
pub(crate) fn run(order: &Order) -> Result<(), LabError> {
    let runtime = simulator::runtime()?;
    let bare = Bare::default();
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listener = listener.map_err(LabError::io("cannot listen"))?;
    let address = listener.local_addr().map_err(LabError::io("cannot listen"))?;
    let tls = super::tls(&order.bundle)?;
    runtime.spawn(serve(tls, bare.clone(), listener));
    runtime.spawn(beat(bare.clone()));
    part::say(&format!("https://{address}"))?;
    part::answer(|question| match question {
        Question::Streams => Ok(json!(bare.state().streams.len())),
        Question::Load(one, other) => {
            let decode = |bytes: Vec<u8>| {
                Update::decode(&bytes[..]).map_err(|error| LabError::Other(format!("no update: {error}")))
            };
            let mut state = bare.state();
            state.states = Some((decode(one)?, decode(other)?));
            state.generation = 1;
            Ok(json!(null))
        }
        Question::Send => Ok(json!(runtime.block_on(bare.send())?)),
    })
}

async fn serve(tls: ServerTlsConfig, bare: Bare, listener: TcpListener) -> Result<(), tonic::transport::Error> {
    let mut server = Server::builder().tls_config(tls)?;
    let service = NodeServiceServer::new(bare);
    server
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await
}

async fn beat(bare: Bare) {
    let mut beat = tokio::time::interval(HEARTBEAT);
    loop {
        beat.tick().await;
        let streams = bare.state().streams.clone();
        for stream in streams {
            let _ = stream.try_send(Ok(message(ToNode::Heartbeat(Heartbeat {}))));
        }
    }
}
