//! Sessions of nodes.
//!
//! ```text
//!   Sync --> greet, hello (who, what it holds) --> Live (one session per node)
//!              |
//!              v
//!        session (I/O: one task per stream) <--> protocol (what to send, no I/O) <-- difference (held vs desired)
//!              |
//!              `--> report (observations, bounded) --> Live, journal, NodeClean
//! ```
//!
//! One update is on its way at a time. What changes meanwhile is not queued: when the acknowledgement comes, the difference to
//! the newest desired state is made. So a node that reads slowly costs its own session's memory and nothing else.

mod difference;
mod greet;
mod hello;
mod protocol;
mod report;
mod sane;
mod session;
#[cfg(test)]
mod tests;

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};

use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;
use trunkline_proto::{
    daemon::Lifecycle,
    wire::{ControllerMessage, NodeMessage, node_service_server::NodeService},
};

use crate::{authz, core::Core};

/// Largest message that is taken from a node: a report or inventory comes in parts.
pub const MAX_MESSAGE: usize = 4 << 20;

/// Messages that wait for the transport.
const OUTBOUND: usize = 1;

/// What waits. A channel has room for 32 at once, however few it takes, and a fleet has thousands of channels: so each is behind a
/// pointer.
type Outbound = Box<Result<ControllerMessage, Status>>;

/// Waits of a session.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Longest wait for an acknowledgement.
    pub ack: Duration,
}

impl Timing {
    /// Longest time between two heartbeats of ours: in between the node's are answered, which takes their place. A node waits for twice that.
    pub fn unasked(self) -> Duration {
        self.heartbeat * 3 / 2
    }

    /// Three missed heartbeats.
    pub fn patience(self) -> Duration {
        self.heartbeat * 3
    }
}

/// The service that nodes call.
pub struct Nodes {
    core: Arc<Core>,
    timing: Timing,
    life: Lifecycle,
}

impl Nodes {
    /// Sessions run as tasks of `life` and end when the core stops.
    pub fn new(core: Arc<Core>, timing: Timing, life: Lifecycle) -> Self {
        Self { core, timing, life }
    }
}

#[tonic::async_trait]
impl NodeService for Nodes {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<ControllerMessage, Status>> + Send>>;

    async fn sync(&self, request: Request<Streaming<NodeMessage>>) -> Result<Response<Self::SyncStream>, Status> {
        let peer = authz::peer(&request)?.clone();
        let (out, answers) = mpsc::channel(OUTBOUND);
        let answers = ReceiverStream::new(answers).map(|message: Outbound| *message);
        let session = session::run(self.core.clone(), self.timing, peer.clone(), request.into_inner(), out);
        let span = tracing::info_span!(parent: None, "session", node = peer.identity.name());
        self.life.spawn(session.instrument(span));
        Ok(Response::new(Box::pin(answers)))
    }
}
