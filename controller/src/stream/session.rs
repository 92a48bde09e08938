//! One node's stream: reads, writes, heartbeats, deadlines. What to say is [`super::protocol`]'s matter.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use trunkline_proto::{
    Name,
    daemon::telemetry,
    wire::{
        self, ControllerMessage, NodeMessage, controller_message::Message as ToNode, node_message::Message as FromNode,
    },
};

use super::{
    Timing,
    hello::{self, Greeting, Refused},
    protocol::{Next, Protocol, Target},
    report,
};
use crate::{
    api::errors,
    compile::NodeDesired,
    core::{Core, NewSession, SessionId, SessionInfo, now},
    listener::PeerInfo,
    transition::{Intent, NewEvent},
};

/// Longest wait for the first message.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for room to say why a session ended.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

type Outbound = mpsc::Sender<Result<ControllerMessage, Status>>;

struct Session {
    core: Arc<Core>,
    timing: Timing,
    node: Name,
    id: SessionId,
    protocol: Protocol,
    desired: watch::Receiver<Arc<NodeDesired>>,
    /// Parts of one update, or one other message: never more.
    queue: VecDeque<ControllerMessage>,
    beat: Interval,
    /// When a node that says nothing is given up.
    silence: Instant,
    /// When a node that owes an answer is given up.
    answer: Option<Instant>,
    cancel: CancellationToken,
    /// Open from an update's first part to its acknowledgement.
    push: Option<tracing::Span>,
}

/// From the first message to the last.
pub(super) async fn run(
    core: Arc<Core>,
    timing: Timing,
    peer: PeerInfo,
    mut inbound: Streaming<NodeMessage>,
    out: Outbound,
) {
    let greeted = greet(&core, timing, &peer, &mut inbound).await;
    let status = match greeted {
        Ok(mut session) => {
            let ended = session.run(&mut inbound, &out).await;
            session.close(&ended).await;
            ended
        }
        Err(Refused { reason, status }) => {
            tracing::warn!(
                node = peer.identity.name(),
                reason,
                status = status.message(),
                "session refused"
            );
            core.metrics().refuse_session(reason);
            status
        }
    };
    if status.code() != Code::Ok {
        // The stream may be stuck: then the connection ends without our last word.
        let _ = timeout(FAREWELL_TIMEOUT, out.send(Err(status))).await;
    }
}

async fn greet(
    core: &Arc<Core>,
    timing: Timing,
    peer: &PeerInfo,
    inbound: &mut Streaming<NodeMessage>,
) -> Result<Session, Refused> {
    let late = || {
        Refused::new(
            Code::DeadlineExceeded,
            "HELLO_MISSING",
            "the first message did not come within 10 s",
        )
    };
    let broken = |message: &str| Refused::new(Code::InvalidArgument, "HELLO_INVALID", message);
    let first = timeout(HELLO_TIMEOUT, inbound.message()).await.map_err(|_| late())?;
    let first = first.map_err(|status| Refused {
        reason: "HELLO_INVALID",
        status,
    })?;
    let Some(FromNode::Hello(hello)) = first.and_then(|message| message.message) else {
        return Err(broken("the first message must be Hello"));
    };
    let cluster_id = hello.cluster_id.clone();
    let greeting = hello::parse(hello, &peer.identity)?;
    hello::check_origin(&cluster_id, greeting.position, &core.state().cluster)?;
    telemetry::set_parent(&tracing::Span::current(), &greeting.traceparent);
    let cancel = core.stopping().child_token();
    let id = begin(core, timing, peer, &greeting, &cancel)?;
    join(core, &greeting, id, peer).await?;
    Ok(Session::new(core.clone(), timing, greeting, id, cancel))
}

fn begin(
    core: &Core,
    timing: Timing,
    peer: &PeerInfo,
    greeting: &Greeting,
    cancel: &CancellationToken,
) -> Result<SessionId, Refused> {
    let session = NewSession {
        node: greeting.node.clone(),
        instance: greeting.instance.clone(),
        info: SessionInfo {
            facts: greeting.facts.clone(),
            certificate_expires: peer.certificate_expires,
        },
        position: greeting.position,
        digest: greeting.digest,
        patience: timing.patience(),
        cancel: cancel.clone(),
    };
    core.live().begin(session, now()).map_err(|_| {
        let message = format!(
            "{} is connected already, from another process: stop one of the two, or give this one a certificate of its own",
            peer.identity
        );
        Refused::new(Code::AlreadyExists, "IDENTITY_IN_USE", message)
    })
}

async fn join(core: &Arc<Core>, greeting: &Greeting, id: SessionId, peer: &PeerInfo) -> Result<(), Refused> {
    let actor = peer.identity.to_string();
    let intent = Intent::NodeJoined {
        name: greeting.node.clone(),
        role: greeting.role,
    };
    if let Err(error) = core.system(intent, &actor).await {
        core.live().end(&greeting.node, id);
        return Err(Refused {
            reason: "JOIN_REJECTED",
            status: errors::of_core(error),
        });
    }
    let state = core.state();
    let desired = state.node_desired(&greeting.node);
    core.live()
        .holds(&greeting.node, id, (greeting.position, greeting.digest), &[], &desired);
    let message = format!("{actor} connected from {}", peer.address);
    journal(core, "node.connected", actor, &greeting.node, message).await;
    tracing::info!(node = %greeting.node, generation = greeting.position.generation, "session began");
    Ok(())
}

async fn journal(core: &Arc<Core>, kind: &'static str, actor: String, node: &Name, message: String) {
    let connected = core.live().connected().len();
    core.metrics().of_sessions(connected);
    core.touch_status();
    let event = NewEvent {
        kind,
        actor,
        slice: None,
        node: Some(node.clone()),
        vlan: None,
        revision: 0,
        message,
    };
    if let Err(error) = core.record(vec![event]).await {
        tracing::warn!(%error, "the journal could not be written");
    }
}

impl Session {
    fn new(core: Arc<Core>, timing: Timing, greeting: Greeting, id: SessionId, cancel: CancellationToken) -> Self {
        let state = core.state();
        let meta = &state.cluster.meta;
        let welcome = wire::Welcome {
            cluster_id: meta.cluster_id.clone(),
            term: meta.term,
            heartbeat_ms: u32::try_from(timing.heartbeat.as_millis()).unwrap_or(u32::MAX),
        };
        let mut beat = interval(timing.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.reset();
        Self {
            protocol: Protocol::new(&meta.cluster_id, &greeting),
            desired: core.watch_desired(&greeting.node),
            queue: VecDeque::from([message(ToNode::Welcome(welcome))]),
            beat,
            silence: Instant::now() + timing.patience(),
            answer: None,
            push: None,
            node: greeting.node,
            core,
            timing,
            id,
            cancel,
        }
    }

    /// Until the session ends; says why.
    async fn run(&mut self, inbound: &mut Streaming<NodeMessage>, out: &Outbound) -> Status {
        loop {
            if let Err(status) = self.advance() {
                return status;
            }
            let answer = self.answer;
            // Every arm may be cancelled: `reserve`, `message`, `changed` and `tick` lose nothing, the others only wait.
            let ended = tokio::select! {
                permit = out.reserve(), if !self.queue.is_empty() => match permit {
                    Ok(permit) => { self.send(permit); None }
                    Err(_) => Some(Status::ok("")),
                },
                received = inbound.message() => self.receive(received).await.err(),
                changed = self.desired.changed() => changed.err().map(|_| gone(&self.node)),
                _ = self.beat.tick() => { self.heartbeat(); None }
                () = sleep_until(self.silence) => Some(errors::with_reason(
                    Code::DeadlineExceeded, "NODE_SILENT", "the node missed three heartbeats")),
                () = until(answer) => Some(errors::with_reason(
                    Code::DeadlineExceeded, "NO_ANSWER", "the node did not answer an update or a request for its inventory in time")),
                () = self.cancel.cancelled() => Some(self.replaced()),
            };
            if let Some(status) = ended {
                return status;
            }
        }
    }

    /// Puts into the queue what is to be said, if the last thing has been said.
    fn advance(&mut self) -> Result<(), Status> {
        if !self.queue.is_empty() || self.protocol.waiting() {
            return Ok(());
        }
        let state = self.core.state();
        self.desired.mark_unchanged();
        let target = Target {
            desired: state.node_desired(&self.node),
            position: state.cluster.position(),
        };
        let next = self.protocol.next(&target);
        match next.map_err(|broken| errors::with_reason(Code::FailedPrecondition, "PROTOCOL", broken.to_string()))? {
            Next::Wait => return Ok(()),
            Next::Inventory => self
                .queue
                .push_back(message(ToNode::InventoryRequest(wire::InventoryRequest {}))),
            Next::Update(parts) => self.queue_update(parts),
        }
        self.answer = Some(Instant::now() + self.timing.ack);
        Ok(())
    }

    fn queue_update(&mut self, parts: Vec<wire::Update>) {
        let count = parts
            .iter()
            .map(|part| part.upserts.len() + part.removals.len())
            .sum::<usize>();
        let Some(first) = parts.first() else { return };
        let traceparent = parts
            .iter()
            .flat_map(|part| &part.upserts)
            .map(|r| r.traceparent.as_str())
            .find(|t| !t.is_empty());
        let span = tracing::info_span!(parent: None, "push", node = %self.node, generation = first.generation, resources = count);
        telemetry::set_parent(&span, traceparent.unwrap_or_default());
        span.in_scope(|| tracing::debug!(node = %self.node, generation = first.generation, count, "update"));
        self.push = Some(span);
        self.core.metrics().updates.inc();
        self.core
            .metrics()
            .resources_sent
            .inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        self.queue
            .extend(parts.into_iter().map(|part| message(ToNode::Update(part))));
    }

    fn send(&mut self, permit: mpsc::Permit<'_, Result<ControllerMessage, Status>>) {
        let Some(next) = self.queue.pop_front() else { return };
        // The clock of an answer runs from the last word of the question; a heartbeat is no question.
        if !matches!(next.message, Some(ToNode::Heartbeat(_))) {
            self.answer = self.protocol.waiting().then(|| Instant::now() + self.timing.ack);
        }
        permit.send(Ok(next));
    }

    fn heartbeat(&mut self) {
        // A queue that does not move says by itself that nothing can be sent.
        if self.queue.is_empty() {
            self.queue.push_back(message(ToNode::Heartbeat(wire::Heartbeat {})));
        }
    }

    async fn receive(&mut self, received: Result<Option<NodeMessage>, Status>) -> Result<(), Status> {
        let Some(received) = received? else {
            return Err(Status::ok(""));
        };
        self.silence = Instant::now() + self.timing.patience();
        self.core.live().heard(&self.node, self.id, now());
        let broken = |broken: super::protocol::Broken| {
            errors::with_reason(Code::InvalidArgument, "PROTOCOL", broken.to_string())
        };
        match received.message {
            Some(FromNode::Heartbeat(_)) => {}
            Some(FromNode::Report(report)) => {
                report::take(&self.core, &self.node, self.id, self.protocol.position(), report).await;
                // What was stored for it takes time that is ours, not the node's.
                self.silence = Instant::now() + self.timing.patience();
            }
            Some(FromNode::Ack(ack)) => self.acknowledged(ack).map_err(broken)?,
            Some(FromNode::Inventory(inventory)) => {
                self.protocol.on_inventory(inventory).map_err(broken)?;
                self.answer = self.protocol.waiting().then(|| Instant::now() + self.timing.ack);
            }
            Some(FromNode::Hello(_)) => return Err(Status::invalid_argument("Hello is the first message only")),
            // A kind of message that a newer node knows: it must not end the session.
            None => {}
        }
        Ok(())
    }

    fn acknowledged(&mut self, ack: wire::Ack) -> Result<(), super::protocol::Broken> {
        // Acknowledged before its last part was sent.
        if self
            .queue
            .iter()
            .any(|queued| matches!(queued.message, Some(ToNode::Update(_))))
        {
            let wire::Ack { term, generation, .. } = ack;
            return Err(super::protocol::Broken::Ack { term, generation });
        }
        let taken = self.protocol.on_ack(ack)?;
        (self.answer, self.push) = (None, None);
        let refused = u64::try_from(taken.refused.len()).unwrap_or(u64::MAX);
        self.core.metrics().refused.inc_by(refused);
        self.core.metrics().drop_items("refusal", taken.unknown);
        for (key, refusal) in &taken.refused {
            tracing::warn!(node = %self.node, %key, reason = refusal.reason, "resource refused");
        }
        let mut live = self.core.live();
        let desired = self.core.state().node_desired(&self.node);
        live.holds(
            &self.node,
            self.id,
            (taken.position, taken.digest),
            &taken.refused,
            &desired,
        );
        drop(live);
        self.core.touch_status();
        Ok(())
    }

    fn replaced(&self) -> Status {
        if self.core.stopping().is_cancelled() {
            Status::unavailable("the controller is stopping; connect again")
        } else {
            errors::with_reason(
                Code::Aborted,
                "SESSION_REPLACED",
                "a newer session of this node has taken over",
            )
        }
    }

    async fn close(&self, ended: &Status) {
        if self.core.live().end(&self.node, self.id) {
            tracing::info!(node = %self.node, reason = ended.message(), "session ended");
            let why = if ended.message().is_empty() {
                "the node closed it"
            } else {
                ended.message()
            };
            let message = format!("session of {} ended: {why}", self.node);
            journal(
                &self.core,
                "node.disconnected",
                "controller".into(),
                &self.node,
                message,
            )
            .await;
        }
    }
}

fn gone(node: &Name) -> Status {
    Status::unavailable(format!("node {node} was removed; connect again to join anew"))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn message(message: ToNode) -> ControllerMessage {
    ControllerMessage { message: Some(message) }
}
