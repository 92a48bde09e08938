//! One node's stream: reads, writes, heartbeats, deadlines. What to say is [`super::protocol`]'s matter.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
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
    greet::{self, Greeted, journal},
    hello::Refused,
    protocol::{Next, Protocol, Target},
    report::{self, Reporter},
};
use crate::{
    api::errors,
    compile::NodeDesired,
    core::{Core, SessionId, now},
    leftovers::Word,
    listener::PeerInfo,
    model::Position,
};

/// Longest wait for room to say why a session ended.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

type Outbound = mpsc::Sender<super::Outbound>;

struct Session {
    core: Arc<Core>,
    timing: Timing,
    node: Name,
    id: SessionId,
    /// Its identity, `worker/w1`.
    actor: String,
    protocol: Protocol,
    desired: watch::Receiver<Arc<NodeDesired>>,
    /// Parts of one update, or one other message: never more.
    queue: VecDeque<ControllerMessage>,
    /// When it hears that we live.
    beat: Instant,
    /// When a node that says nothing is given up.
    silence: Instant,
    /// When a node that owes an answer is given up.
    answer: Option<Instant>,
    cancel: CancellationToken,
    /// Operators' words for removals that the node holds back.
    confirmed: mpsc::Receiver<Word>,
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
    let greeted = greet::greet(&core, timing, &peer, &mut inbound).await;
    let status = match greeted {
        Ok(greeted) => {
            let mut session = Session::new(core, timing, greeted);
            let ended = session.run(&mut inbound, &out).await;
            session.close(&ended);
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
        let _ = timeout(FAREWELL_TIMEOUT, out.send(Box::new(Err(status)))).await;
    }
}

impl Session {
    fn new(core: Arc<Core>, timing: Timing, greeted: Greeted) -> Self {
        let Greeted {
            greeting,
            actor,
            id,
            cancel,
            confirmed,
        } = greeted;
        let state = core.state();
        let meta = &state.cluster.meta;
        let welcome = wire::Welcome {
            cluster_id: meta.cluster_id.clone(),
            term: meta.term,
            heartbeat_ms: u32::try_from(timing.heartbeat.as_millis()).unwrap_or(u32::MAX),
        };
        Self {
            protocol: Protocol::new(&meta.cluster_id, &greeting),
            desired: core.watch_desired(&greeting.node),
            queue: VecDeque::from([message(ToNode::Welcome(welcome))]),
            beat: Instant::now() + timing.unasked(),
            silence: Instant::now() + timing.patience(),
            answer: None,
            push: None,
            node: greeting.node,
            actor,
            core,
            timing,
            id,
            cancel,
            confirmed,
        }
    }

    /// Until the session ends; says why.
    async fn run(&mut self, inbound: &mut Streaming<NodeMessage>, out: &Outbound) -> Status {
        // One timer for all that is waited for. It may go off too early, because what is waited for is put off by each word of the node;
        // that is cheaper than to set it anew for each of them.
        let alarm = sleep_until(self.due());
        tokio::pin!(alarm);
        loop {
            if let Err(status) = self.advance() {
                return status;
            }
            if alarm.is_elapsed() || self.due() < alarm.deadline() {
                alarm.as_mut().reset(self.due());
            }
            // Every arm may be cancelled: `reserve`, `message`, `changed` and `recv` lose nothing, the others only wait.
            let ended = tokio::select! {
                permit = out.reserve(), if !self.queue.is_empty() => match permit {
                    Ok(permit) => { self.send(permit); None }
                    Err(_) => Some(Status::ok("")),
                },
                received = inbound.message() => self.receive(received).await.err(),
                changed = self.desired.changed() => changed.err().map(|_| gone(&self.node)),
                Some(word) = self.confirmed.recv() => { self.confirm(word); None }
                () = alarm.as_mut() => self.time_passed(),
                () = self.cancel.cancelled() => Some(self.replaced()),
            };
            if let Some(status) = ended {
                return status;
            }
        }
    }

    /// When something is to be done if nothing happens before.
    fn due(&self) -> Instant {
        let first = self.silence.min(self.beat);
        self.answer.map_or(first, |answer| answer.min(first))
    }

    /// Does what is due; why the session ends, if it does.
    fn time_passed(&mut self) -> Option<Status> {
        let now = Instant::now();
        let late = |reason, message: &str| Some(errors::with_reason(Code::DeadlineExceeded, reason, message));
        if self.silence <= now {
            return late("NODE_SILENT", "the node missed three heartbeats");
        }
        if self.answer.is_some_and(|answer| answer <= now) {
            let message = "the node did not answer an update or a request for its inventory in time";
            return late("NO_ANSWER", message);
        }
        if self.beat <= now {
            self.heartbeat();
        }
        None
    }

    /// Puts into the queue what is to be said, if the last thing has been said.
    fn advance(&mut self) -> Result<(), Status> {
        if !self.queue.is_empty() || self.protocol.waiting() {
            return Ok(());
        }
        // First what wakes us, then what it is about: a change that comes between the two wakes us once more, none is missed.
        self.desired.mark_unchanged();
        let state = self.core.state();
        let record = state.cluster.nodes.get(&self.node);
        let target = Target {
            desired: state.node_desired(&self.node),
            position: state.cluster.position(),
            record,
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

    fn send(&mut self, permit: mpsc::Permit<'_, super::Outbound>) {
        let Some(next) = self.queue.pop_front() else { return };
        // The clock of an answer runs from the last word of the question; these are no questions.
        if !matches!(
            next.message,
            Some(ToNode::Heartbeat(_) | ToNode::Confirm(_) | ToNode::Receipt(_))
        ) {
            self.answer = self.protocol.waiting().then(|| Instant::now() + self.timing.ack);
        }
        permit.send(Box::new(Ok(next)));
    }

    fn confirm(&mut self, word: Word) {
        let Word { at, leftovers } = word;
        tracing::info!(node = %self.node, generation = at.generation, "removals confirmed");
        let Position { term, generation } = at;
        self.queue.push_back(message(ToNode::Confirm(wire::Confirm {
            term,
            generation,
            leftovers,
        })));
    }

    /// The last one says all that earlier ones do, so a node that does not read fills no memory.
    fn receipt(&mut self, number: u64) {
        if number == 0 {
            return;
        }
        self.queue
            .retain(|queued| !matches!(queued.message, Some(ToNode::Receipt(_))));
        self.queue.push_back(message(ToNode::Receipt(wire::Receipt { number })));
    }

    /// A node that lives is told so at once that we do, too: one turn for both, where each beat by itself would be two.
    fn answer_heartbeat(&mut self) {
        // Not more often than that, however often it asks.
        if self.beat <= Instant::now() + self.timing.heartbeat {
            self.heartbeat();
        }
    }

    fn heartbeat(&mut self) {
        self.beat = Instant::now() + self.timing.unasked();
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
            Some(FromNode::Heartbeat(_)) => self.answer_heartbeat(),
            Some(FromNode::Report(report)) => {
                let (core, node, receipt) = (&self.core, &self.node, report.receipt);
                let held = self.protocol.position();
                let from = Reporter {
                    core,
                    node,
                    id: self.id,
                    actor: &self.actor,
                    held,
                };
                // What could not be written is told again: the node keeps it until it has a receipt.
                if report::take(from, report).await {
                    self.receipt(receipt);
                }
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
        if taken.held_removals > 0 {
            let (count, generation) = (taken.held_removals, taken.position.generation);
            tracing::warn!(node = %self.node, count, generation, "the node holds removals back");
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
        self.core.touch_status(&self.node);
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

    fn close(&self, ended: &Status) {
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
            );
        }
    }
}

fn gone(node: &Name) -> Status {
    Status::unavailable(format!("node {node} was removed; connect again to join anew"))
}

fn message(message: ToNode) -> ControllerMessage {
    ControllerMessage { message: Some(message) }
}
