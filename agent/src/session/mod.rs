//! The session: one stream to the controller for as long as the node lives, made anew whenever it ends.
//!
//! It owns the inbox: an update is taken, made durable and only then acknowledged. What the controller is told is taken from the
//! [`Board`] when the stream has room, so that a slow controller costs memory nowhere.

mod alone;
mod link;

use std::{sync::Arc, time::Duration};

use alone::Alone;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use trunkline_proto::{
    client::{self, ApiError, ClientConfig, ConnectError, Service},
    daemon::telemetry,
    wire::node_service_client::NodeServiceClient,
};

use crate::{
    config::NodeConfig,
    inbox::{Change, Held, Judge, Position, Refused, Store, StoreError, TakeError},
    metrics::NodeMetrics,
    node::{HostFacts, Program},
    report::Board,
};

/// First pause before connecting again, and the longest: a controller that comes back has its nodes within seconds.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// A session that lasted this long was a good one, however it ended.
const GOOD: Duration = Duration::from_secs(30);
/// How long the first Hello waits for Open vSwitch, so that it can say what the node is built on.
const FACTS_WAIT: Duration = Duration::from_secs(2);

/// The way to the controller, opened with its first call.
pub(crate) type Client = NodeServiceClient<Service>;

/// Makes the way to the controller, anew for each session.
pub(crate) type Dial = Arc<dyn Fn(&NodeConfig) -> Result<Client, ConnectError> + Send + Sync>;

/// The session's parts.
pub(crate) struct Session {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) program: Program,
    /// Drawn at start: tells a restart from a second node with the same name.
    pub(crate) instance: String,
    pub(crate) held: watch::Sender<Arc<Held>>,
    pub(crate) store: Store,
    pub(crate) judge: Judge,
    pub(crate) board: Arc<Board>,
    pub(crate) facts: watch::Receiver<HostFacts>,
    pub(crate) metrics: NodeMetrics,
    pub(crate) cancel: CancellationToken,
    /// [`dial`], but in a simulation.
    pub(crate) dial: Dial,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("cannot connect to the controller")]
    Connect(#[from] ConnectError),
    #[error("the controller did not answer within {0:?}")]
    NoAnswer(Duration),
    #[error("the session ended")]
    Refused(#[source] Box<ApiError>),
    #[error("the controller closed the stream")]
    Closed,
    #[error("nothing was heard from the controller for {0:?}")]
    Silent(Duration),
    #[error("the controller broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("the controller belongs to cluster {theirs}, this node to {ours}")]
    ForeignCluster { ours: String, theirs: String },
    #[error("an update was not taken")]
    Update(#[from] TakeError),
    #[error("an update could not be made durable")]
    Store(#[from] StoreError),
    #[error("what this node is built on has changed")]
    FactsChanged,
}

impl From<tonic::Status> for End {
    fn from(status: tonic::Status) -> Self {
        Self::Refused(Box::new(status.into()))
    }
}

impl Session {
    pub(crate) async fn run(mut self) {
        let cancel = self.cancel.clone();
        // Whatever is cut here was not acknowledged; the controller sends it again.
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.keep() => {}
        }
        self.metrics.connected(false);
    }

    async fn keep(&mut self) {
        let held = self.held.borrow().clone();
        self.metrics.acknowledged(held.position.generation);
        self.tell_waiting(&held);
        // Not known in time is no trouble: it is said by a new session once it is.
        let _ = timeout(FACTS_WAIT, self.facts.wait_for(|f| !f.ovs_version.is_empty())).await;
        let mut pauses = pauses();
        let mut alone = Alone::new(self.config.node.name.to_string(), self.metrics.clone());
        loop {
            let began = Instant::now();
            let mut welcomed = false;
            let end = self.once(&mut welcomed, &mut alone).await;
            self.metrics.connected(false);
            if matches!(end, End::FactsChanged) {
                continue;
            }
            alone.ended(&self.config.controller.endpoint, &crate::chain(&end));
            // An update that cannot be taken would come again at once and for ever.
            if began.elapsed() >= GOOD
                || (welcomed && !matches!(end, End::Update(_) | End::Store(_) | End::ForeignCluster { .. }))
            {
                pauses = self::pauses();
            }
            sleep(pauses.next().unwrap_or(PAUSE_MOST)).await;
        }
    }

    /// One session, from connecting to its end.
    async fn once(&mut self, welcomed: &mut bool, alone: &mut Alone) -> End {
        let client = match (self.dial)(&self.config) {
            Ok(client) => client,
            Err(e) => return e.into(),
        };
        link::Link::run(self, &client, welcomed, alone).await
    }

    /// Takes an update: judged, durable, then handed to the reconcile loop. Answers what of it was refused.
    async fn take(&mut self, change: Change) -> Result<Vec<Refused>, End> {
        let span = tracing::info_span!(
            "take update",
            term = change.position.term,
            generation = change.position.generation
        );
        telemetry::set_parent(&span, change.traceparent());
        let taken = self.take_now(change).instrument(span).await;
        self.metrics.update(taken.is_ok());
        taken
    }

    async fn take_now(&mut self, change: Change) -> Result<Vec<Refused>, End> {
        let (upserts, removals) = (change.upserts.len(), change.removals.len());
        let named: std::collections::BTreeSet<_> = change.upserts.iter().map(|e| e.key.clone()).collect();
        let held = self.held.borrow().clone();
        // What it took away before is gone, and what turns up under a name of those is something else.
        let held = if self.board.clean() == held.position {
            Arc::new(held.settled())
        } else {
            held
        };
        let next = held.take(change, &self.judge)?;
        self.store.save(&next).await?;
        let refused: Vec<_> = next.refused().filter(|r| named.contains(&r.key)).collect();
        tracing::info!(
            generation = next.position.generation,
            upserts,
            removals,
            refused = refused.len(),
            "desired state taken"
        );
        for refused in &refused {
            tracing::warn!(resource = %refused.key, reason = %refused.reason, "resource refused");
        }
        self.metrics.acknowledged(next.position.generation);
        let waiting = next.held_back();
        if waiting > 0 {
            tracing::warn!(
                generation = next.position.generation,
                waiting,
                "removals that nobody asked for wait for an operator's word; what they name stays"
            );
        }
        self.tell_waiting(&next);
        // Before anybody can look at the host for it.
        self.board.given(named, next.position);
        self.held.send_replace(Arc::new(next));
        Ok(refused)
    }

    /// Carries out the removals that wait, if this word was meant for just what is held here.
    async fn confirm(&mut self, position: Position, leftovers: &str) -> Result<(), End> {
        let held = self.held.borrow().clone();
        let next = held.confirmed(position);
        if let Some(next) = &next {
            self.store.save(next).await?;
        }
        let leftovers = self.board.confirm(position, leftovers);
        if next.is_none() && leftovers == 0 {
            tracing::warn!(confirmed = %position, held = %held.position, waiting = held.held_back(),
                "a confirmation of other removals than are held here is ignored");
            return Ok(());
        }
        tracing::warn!(
            generation = position.generation,
            removals = held.held_back(),
            leftovers,
            "an operator has confirmed the removals"
        );
        let next = next.map_or(held, Arc::new);
        self.tell_waiting(&next);
        // Also when nothing of it has changed: the leftovers go with the next pass.
        self.held.send_replace(next);
        Ok(())
    }

    fn tell_waiting(&self, held: &Held) {
        let waiting = self.board.held_removals(held.position, held.removals());
        self.metrics.held_removals(waiting);
    }
}

/// Mutual TLS to the controller. The bundle is read anew each time, so a renewed certificate is used from the next session on.
pub(crate) fn dial(config: &NodeConfig) -> Result<Client, ConnectError> {
    let mut to = ClientConfig::new(config.controller.endpoint.clone(), config.node.bundle.clone());
    to.server_name.clone_from(&config.controller.server_name);
    Ok(client::Client::lazy(to)?.node())
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(PAUSE_FIRST)
        .with_max_delay(PAUSE_MOST)
        .with_jitter()
        .without_max_times()
        .build()
}
