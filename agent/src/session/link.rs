//! One stream, from Hello to its end.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use trunkline_proto::{
    daemon::telemetry,
    wire::{
        Ack, Confirm, ControllerMessage, Heartbeat, Held as WireHeld, Hello, Inventory, NodeFacts, NodeMessage,
        NodeRole, Welcome, controller_message, node_message::Message,
    },
};

use super::{Alone, Client, End, Session};
use crate::{
    inbox::{Collector, Position},
    node::HostFacts,
    report::Due,
};

/// How long the controller may take to open the stream, and then to say Welcome.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Heartbeats that may be missed.
const MISSES: u32 = 3;
/// Heartbeat intervals that are believed; outside of them the nearest is taken.
const HEARTBEATS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));
/// Most entries in one part of an inventory: well under a megabyte.
const INVENTORY_PART: usize = 4000;
/// Messages between us and the transport. Few, so that what is told is the newest.
const BUFFER: usize = 2;

/// State of one stream.
pub(super) struct Link<'a> {
    session: &'a mut Session,
    /// What goes out before any report: answers, and one heartbeat at most.
    answers: VecDeque<Message>,
    collector: Collector,
    cluster_id: Option<String>,
    heartbeat: Duration,
    next_heartbeat: Instant,
    heard: Instant,
    told: HostFacts,
}

impl<'a> Link<'a> {
    /// Runs a session until it ends. `welcomed` becomes true once the controller has taken us in.
    pub(super) async fn run(session: &'a mut Session, client: &Client, welcomed: &mut bool, alone: &mut Alone) -> End {
        let now = Instant::now();
        let told = session.facts.borrow_and_update().clone();
        let link = Self {
            session,
            answers: VecDeque::new(),
            collector: Collector::default(),
            cluster_id: None,
            heartbeat: ANSWER_WAIT,
            next_heartbeat: now + ANSWER_WAIT,
            heard: now,
            told,
        };
        match link.drive(client, welcomed, alone).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn drive(
        mut self,
        client: &Client,
        welcomed: &mut bool,
        alone: &mut Alone,
    ) -> Result<std::convert::Infallible, End> {
        let (sender, receiver) = mpsc::channel(BUFFER);
        // The board's "everything" begins before Hello, so that nothing seen in between is missed.
        self.session.board.begin();
        let hello = node_message(Message::Hello(self.hello()));
        sender.try_send(hello).map_err(|_| End::Closed)?;
        let opening = client.clone();
        let opened = timeout(ANSWER_WAIT, { opening }.sync(ReceiverStream::new(receiver))).await;
        let mut incoming = opened.map_err(|_| End::NoAnswer(ANSWER_WAIT))??.into_inner();
        self.heard = Instant::now();
        loop {
            let due = self.due();
            let at = match due {
                Due::At(at) => at,
                Due::Now | Due::Nothing => self.next_heartbeat,
            };
            let silence = self.silence();
            tokio::select! {
                // Cancel safe: a message that is half there stays in the stream's decoder.
                message = incoming.message() => {
                    let message = message?.ok_or(End::Closed)?;
                    self.heard = Instant::now();
                    self.handle(message).await?;
                    if self.cluster_id.is_some() && !*welcomed {
                        *welcomed = true;
                        alone.over();
                    }
                }
                // Cancel safe: a permit that is not used is given back.
                permit = sender.reserve(), if !self.answers.is_empty() || due == Due::Now => {
                    let permit = permit.map_err(|_| End::Closed)?;
                    if let Some(message) = self.next_out() {
                        permit.send(node_message(message));
                    }
                }
                // Only wakes; what is due is looked up above.
                () = self.session.board.changed() => {}
                () = sleep_until(at) => {}
                () = sleep_until(self.next_heartbeat) => self.beat(),
                () = sleep_until(self.heard + silence) => return Err(End::Silent(silence)),
                // The value stays; a change that is seen ends the session.
                changed = self.session.facts.changed() => {
                    // The reconcile loop is gone, so the program ends.
                    changed.map_err(|_| End::Closed)?;
                    self.facts_changed()?;
                }
            }
        }
    }

    fn hello(&self) -> Hello {
        let Session {
            config,
            program,
            instance,
            held,
            ..
        } = &*self.session;
        let held = held.borrow();
        let HostFacts {
            datapath,
            ovs_version,
            uplink,
        } = self.told.clone();
        Hello {
            node: config.node.name.to_string(),
            role: role(program.role).into(),
            cluster_id: held.cluster_id.clone(),
            term: held.position.term,
            generation: held.position.generation,
            digest: held.digest().to_vec(),
            instance_id: instance.clone(),
            facts: Some(NodeFacts {
                version: program.version.to_owned(),
                hostname: hostname(),
                datapath,
                ovs_version,
                uplink,
                kinds: program.kinds.iter().map(|k| k.number()).collect(),
            }),
            traceparent: telemetry::current_traceparent(),
        }
    }

    async fn handle(&mut self, message: ControllerMessage) -> Result<(), End> {
        use controller_message::Message as From;
        match message.message {
            Some(From::Welcome(welcome)) => self.welcome(welcome),
            Some(_) if self.cluster_id.is_none() => Err(End::Protocol("it spoke before saying Welcome")),
            Some(From::InventoryRequest(_)) => {
                self.answers.extend(self.inventory());
                Ok(())
            }
            Some(From::Update(part)) => {
                if let Some(change) = self.collector.push(part)? {
                    self.take(change).await?;
                }
                Ok(())
            }
            Some(From::Confirm(confirm)) => {
                let Confirm {
                    term,
                    generation,
                    leftovers,
                } = confirm;
                self.session.confirm(Position { term, generation }, &leftovers).await
            }
            Some(From::Receipt(receipt)) => {
                self.session.board.received(receipt.number);
                Ok(())
            }
            Some(From::Heartbeat(_)) => Ok(()),
            // A message from a newer controller. It cannot need us to understand, or it would have asked what we are.
            None => Ok(()),
        }
    }

    fn welcome(&mut self, welcome: Welcome) -> Result<(), End> {
        let Welcome {
            cluster_id,
            term,
            heartbeat_ms,
        } = welcome;
        if cluster_id.is_empty() {
            return Err(End::Protocol("it named no cluster"));
        }
        let held = self.session.held.borrow();
        if held.is_known() && held.cluster_id != cluster_id {
            return Err(End::ForeignCluster {
                ours: held.cluster_id.clone(),
                theirs: cluster_id,
            });
        }
        drop(held);
        self.heartbeat = Duration::from_millis(heartbeat_ms.into()).clamp(HEARTBEATS.0, HEARTBEATS.1);
        self.next_heartbeat = Instant::now() + self.heartbeat;
        self.session.metrics.connected(true);
        tracing::info!(node = %self.session.config.node.name, cluster = cluster_id, term, "session with the controller");
        self.cluster_id = Some(cluster_id);
        Ok(())
    }

    async fn take(&mut self, change: crate::inbox::Change) -> Result<(), End> {
        if self.cluster_id.as_ref() != Some(&change.cluster_id) {
            return Err(End::Protocol("its update names another cluster than its welcome"));
        }
        let position = change.position;
        let refused = self.session.take(change).await?;
        let waiting = self.session.held.borrow().held_back();
        self.answers.push_back(Message::Ack(Ack {
            term: position.term,
            generation: position.generation,
            refused: refused.iter().map(Into::into).collect(),
            held_removals: u32::try_from(waiting).unwrap_or(u32::MAX),
        }));
        Ok(())
    }

    fn inventory(&self) -> Vec<Message> {
        let held = self.session.held.borrow();
        let entry = |(key, entry): (&trunkline_proto::resource::Key, &crate::inbox::Entry)| WireHeld {
            key: Some(key.into()),
            hash: entry.envelope.hash.to_vec(),
        };
        let all: Vec<_> = held.entries().map(entry).collect();
        let mut parts: Vec<Inventory> = all
            .chunks(INVENTORY_PART)
            .map(|part| Inventory {
                held: part.to_vec(),
                last: false,
            })
            .collect();
        // An empty inventory is a message too.
        if parts.is_empty() {
            parts.push(Inventory::default());
        }
        if let Some(end) = parts.last_mut() {
            end.last = true;
        }
        parts.into_iter().map(Message::Inventory).collect()
    }

    /// When a report is due; never before Welcome.
    fn due(&self) -> Due {
        if self.cluster_id.is_some() {
            self.session.board.due(Instant::now())
        } else {
            Due::Nothing
        }
    }

    fn next_out(&mut self) -> Option<Message> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        let now = Instant::now();
        (self.session.board.due(now) == Due::Now).then(|| {
            self.session.metrics.report_sent();
            Message::Report(self.session.board.take(now))
        })
    }

    fn beat(&mut self) {
        self.next_heartbeat = Instant::now() + self.heartbeat;
        let waiting = self.answers.iter().any(|m| matches!(m, Message::Heartbeat(_)));
        if self.cluster_id.is_some() && !waiting {
            self.answers.push_back(Message::Heartbeat(Heartbeat {}));
        }
    }

    fn silence(&self) -> Duration {
        if self.cluster_id.is_some() {
            self.heartbeat * MISSES
        } else {
            ANSWER_WAIT
        }
    }

    /// Hello is the only place for facts, so new ones need a new session. A switch that is away has no facts to tell.
    fn facts_changed(&mut self) -> Result<(), End> {
        let facts = self.session.facts.borrow_and_update();
        if facts.ovs_version.is_empty() || *facts == self.told {
            Ok(())
        } else {
            Err(End::FactsChanged)
        }
    }
}

fn node_message(message: Message) -> NodeMessage {
    NodeMessage { message: Some(message) }
}

fn role(role: trunkline_certs::Role) -> NodeRole {
    match role {
        trunkline_certs::Role::Worker => NodeRole::Worker,
        trunkline_certs::Role::Netnode => NodeRole::Netnode,
        _ => NodeRole::Unspecified,
    }
}

fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default()
}
