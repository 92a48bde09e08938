//! The connection: one task that writes, reads and sorts answers, and connects again when it breaks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use trunkline_proto::daemon::failpoint;

use super::codec::{self, BundleCommand, FlowCommand, MeterCommand, Update, part};
use super::error::reason;
use super::mirror::Mirror;
use super::session::{Answer, Event, Exchange, Planned, Session};
use super::wire::{Framer, Message};
use super::{Cookie, Counters, Error, Flow, FlowSet, Fragments, Meter, MeterCounters, Rule};

/// Errors about meters.
const METER_MOD_FAILED: u16 = 12;
/// ovs-vswitchd answers in milliseconds; this long means that it hangs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How much longer a caller waits than the connection's task.
const GRACE: Duration = Duration::from_millis(500);
/// Pause before connecting again; doubled up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// A bridge that comes is seen within this: its ports are shut until its flows are there.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// All of a bridge's flows, and what they have seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Flows and meters, those of others too.
    pub set: FlowSet,
    /// Of each flow.
    pub counters: BTreeMap<Rule, Counters>,
    /// What the matches of all flows see of fragments.
    pub fragments: Fragments,
}

/// A handle on the connection; clones share it.
#[derive(Clone)]
pub struct Client {
    exchanges: mpsc::Sender<Exchange>,
    ticks: watch::Receiver<u64>,
    link: watch::Receiver<Link>,
    mirror: Mirror,
    /// One change at a time; holds the number of the last bundle, which no later one has again.
    turn: Arc<tokio::sync::Mutex<u32>>,
    limit: Duration,
    socket: Arc<str>,
}

/// How it stands with the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Link {
    Down,
    /// It speaks no version that we do: what it said.
    Refused(String),
    /// Which connection since the start.
    Up(u64),
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Starts the connection's task, which lives until `cancel`. Never fails: a bridge that is not there yet is waited for.
    #[must_use]
    pub fn start(socket: impl Into<PathBuf>, cancel: CancellationToken) -> Self {
        let path = socket.into();
        let socket: Arc<str> = path.display().to_string().into();
        let (exchange_sender, exchanges) = mpsc::channel(16);
        let (tick_sender, ticks) = watch::channel(0);
        let (link_sender, link) = watch::channel(Link::Down);
        let mirror = Mirror::default();
        let task = Task {
            path,
            mirror: mirror.clone(),
            name: socket.clone(),
            exchanges,
            ticks: tick_sender,
            link: link_sender,
            connections: 0,
        };
        tokio::spawn(async move {
            // Nothing is half done when this is cut: a bundle that is not committed ends with its connection.
            tokio::select! {
                () = cancel.cancelled() => {}
                () = task.run() => {}
            }
        });
        Self {
            exchanges: exchange_sender,
            ticks,
            link,
            mirror,
            turn: Arc::default(),
            limit: REQUEST_TIMEOUT,
            socket,
        }
    }

    /// Another time limit for the answer to one request.
    #[must_use]
    pub fn answer_within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Ticks when the connection comes or goes, and when somebody else changed a flow.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.ticks.clone()
    }

    /// True while the bridge answers.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection().is_some()
    }

    /// True when there is a socket to connect to.
    #[must_use]
    pub fn is_there(&self) -> bool {
        std::path::Path::new(&*self.socket).exists()
    }

    /// Which connection it is since the start; `None` while the bridge does not answer. Behind another one may be another datapath.
    #[must_use]
    pub fn connection(&self) -> Option<u64> {
        match *self.link.borrow() {
            Link::Up(connection) => Some(connection),
            Link::Down | Link::Refused(_) => None,
        }
    }

    /// Waits until the bridge answers.
    ///
    /// # Errors
    /// [`Error::NotConnected`] or [`Error::Version`] when it does not within `limit`.
    pub async fn ready(&self, limit: Duration) -> Result<(), Error> {
        let mut link = self.link.clone();
        match timeout(limit, link.wait_for(|link| matches!(link, Link::Up(_)))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.not_connected()),
        }
    }

    /// All flows and meters, those of others too, and how fragments are looked at.
    ///
    /// # Errors
    /// When they are not known: never take that for "none".
    pub async fn table(&self) -> Result<Table, Error> {
        let mut table = Table {
            fragments: self.fragments().await?,
            ..Table::default()
        };
        let flows = self.flows(0, 0).await?;
        table.counters = flows.iter().map(|(flow, seen)| (flow.rule.clone(), *seen)).collect();
        table.set = flows.into_iter().map(|(flow, _)| flow).collect();
        table.set.meters = self.meter_settings().await?;
        Ok(table)
    }

    /// The same as the bridge itself has told it, change by change: without their counters, and quick however many there are.
    ///
    /// # Errors
    /// As [`Self::table`].
    pub async fn told(&self) -> Result<Table, Error> {
        // The bridge tells of what came before a question before it answers that one.
        let (fragments, meters) = tokio::try_join!(self.fragments(), self.meter_settings())?;
        let flows = timeout(self.limit, self.mirror.flows()).await;
        let flows = flows.unwrap_or(Err(Error::Timeout(self.limit)))?;
        Ok(Table {
            set: FlowSet { flows, meters },
            fragments,
            ..Table::default()
        })
    }

    async fn meter_settings(&self) -> Result<BTreeMap<u32, Meter>, Error> {
        let request = codec::meters_request(part::METER_CONFIG);
        let mut meters = BTreeMap::new();
        for body in self.ask(request, "the list of meters").await? {
            meters.extend(codec::get_meter_config(codec::get_part(&body)?.body)?);
        }
        Ok(meters)
    }

    /// The flows whose cookie agrees with `cookie` in the bits of `mask`.
    ///
    /// # Errors
    /// When they are not known.
    pub async fn flows(&self, cookie: u64, mask: u64) -> Result<Vec<(Flow, Counters)>, Error> {
        let request = codec::flows_request(cookie, mask)?;
        let mut flows = Vec::new();
        for body in self.ask(request, "the list of flows").await? {
            flows.extend(codec::get_flows(codec::get_part(&body)?.body)?);
        }
        Ok(flows)
    }

    /// What our meters have seen: says when a limit bites.
    ///
    /// # Errors
    /// When it is not known.
    pub async fn meter_counters(&self) -> Result<BTreeMap<u32, MeterCounters>, Error> {
        let mut counters = BTreeMap::new();
        for body in self
            .ask(codec::meters_request(part::METERS), "the meters' counters")
            .await?
        {
            counters.extend(codec::get_meter_counters(codec::get_part(&body)?.body)?);
        }
        counters.retain(|id, _| Meter::is_ours(*id));
        Ok(counters)
    }

    /// Deletes and adds flows as one: all or nothing, and no frame sees a state between.
    ///
    /// # Errors
    /// [`Error::Refused`] names the flow; nothing was changed then.
    pub async fn commit(&self, remove: &[Flow], add: &[Flow]) -> Result<(), Error> {
        let mut last = self.turn.lock().await;
        let id = last.wrapping_add(1);
        *last = id;
        let changes: Vec<(FlowCommand, &Flow)> = remove
            .iter()
            .map(|flow| (FlowCommand::DeleteStrict, flow))
            .chain(add.iter().map(|flow| (FlowCommand::Add, flow)))
            .collect();
        failpoint::reach("openflow.before-bundle");
        let mut messages = vec![Planned::Plain(codec::bundle(BundleCommand::Open, id))];
        for (command, flow) in &changes {
            let change = match command {
                FlowCommand::DeleteStrict => Update::Gone(flow.rule.clone()),
                _ => Update::There((*flow).clone()),
            };
            messages.push(Planned::InBundle(id, codec::flow_mod(*command, flow)?, change));
        }
        messages.push(Planned::Plain(codec::barrier()));
        // A message that is refused here is left out of the bundle, and a commit would carry out the rest. So it waits.
        let answer = self.exchange(messages, None).await?;
        let name = |index: usize| match index.checked_sub(1).and_then(|at| changes.get(at)) {
            Some((FlowCommand::DeleteStrict, flow)) => format!("to delete the flow {}", flow.rule),
            Some((_, flow)) => format!("the flow {flow}"),
            None => format!("a bundle of {} flows", changes.len()),
        };
        if let Some(error) = refusal(&answer, name) {
            let discard = vec![Planned::Plain(codec::bundle(BundleCommand::Discard, id))];
            // Whatever comes of it: without a commit nothing is changed.
            let _ = self.exchange(discard, None).await;
            return Err(error);
        }
        let commit = vec![Planned::Plain(codec::bundle(BundleCommand::Commit, id))];
        failpoint::reach("openflow.before-commit");
        let answer = self.exchange(commit, Some(answer.first)).await?;
        failpoint::reach("openflow.after-bundle");
        refusal(&answer, name).map_or(Ok(()), Err)
    }

    /// Makes and changes meters.
    ///
    /// # Errors
    /// [`Error::Unmetered`] names those that the switch cannot have; the others were set.
    pub async fn set_meters(&self, add: &BTreeMap<u32, Meter>, modify: &BTreeMap<u32, Meter>) -> Result<(), Error> {
        let add = add.iter().map(|(id, meter)| (MeterCommand::Add, *id, *meter));
        let modify = modify.iter().map(|(id, meter)| (MeterCommand::Modify, *id, *meter));
        self.meters(add.chain(modify).collect()).await
    }

    /// Deletes meters, and with them all flows that use them.
    ///
    /// # Errors
    /// [`Error::Unmetered`]. A meter that is gone already is no error.
    pub async fn delete_meters(&self, ids: &[u32]) -> Result<(), Error> {
        let none = Meter { rate: 0, burst: 0 };
        self.meters(ids.iter().map(|id| (MeterCommand::Delete, *id, none)).collect())
            .await
    }

    async fn meters(&self, changes: Vec<(MeterCommand, u32, Meter)>) -> Result<(), Error> {
        let message =
            |(command, id, meter): &(MeterCommand, u32, Meter)| Planned::Plain(codec::meter_mod(*command, *id, *meter));
        let mut messages: Vec<Planned> = changes.iter().map(message).collect();
        messages.push(Planned::Plain(codec::barrier()));
        let answer = self.exchange(messages, None).await?;
        let id = |index: usize| changes.get(index).map_or(0, |(_, id, _)| *id);
        let other = |(_, kind, _): &(usize, u16, u16)| *kind != METER_MOD_FAILED;
        if answer.errors.iter().any(other) {
            return refusal(&answer, |index| format!("meter {}", id(index))).map_or(Ok(()), Err);
        }
        let refused = answer.errors.iter();
        let refused: BTreeMap<u32, String> = refused
            .map(|(index, kind, code)| (id(*index), reason(*kind, *code)))
            .collect();
        if refused.is_empty() {
            Ok(())
        } else {
            Err(Error::Unmetered { refused })
        }
    }

    async fn ask(&self, request: Message, what: &str) -> Result<Vec<Vec<u8>>, Error> {
        let answer = self.exchange(vec![Planned::Plain(request)], None).await?;
        match refusal(&answer, |_| what.to_owned()) {
            Some(error) => Err(error),
            None => Ok(answer.bodies),
        }
    }

    /// One request and its answer, all under one time limit.
    async fn exchange(&self, messages: Vec<Planned>, since: Option<u32>) -> Result<Answer, Error> {
        if !self.is_connected() {
            return Err(self.not_connected());
        }
        let deadline = Instant::now() + self.limit;
        let (reply, answer) = oneshot::channel();
        let exchange = Exchange {
            messages,
            since,
            deadline,
            reply,
        };
        let whole = async {
            let sent = self.exchanges.send(exchange).await;
            sent.map_err(|_| self.not_connected())?;
            match answer.await {
                Ok(result) => result,
                // The connection was ended because of this very exchange.
                Err(_) if Instant::now() >= deadline => Err(Error::Timeout(self.limit)),
                Err(_) => Err(Error::ConnectionLost),
            }
        };
        // The connection's task ends it at the deadline, so that who is told of it finds no dying connection. This is for when it hangs.
        let in_time = timeout_at(deadline + GRACE, whole).await;
        in_time.unwrap_or(Err(Error::Timeout(self.limit)))
    }

    fn not_connected(&self) -> Error {
        match &*self.link.borrow() {
            Link::Refused(said) => Error::Version(said.clone()),
            Link::Down | Link::Up(_) => Error::NotConnected {
                socket: self.socket.to_string(),
            },
        }
    }
}

/// The first error of an answer.
fn refusal(answer: &Answer, name: impl Fn(usize) -> String) -> Option<Error> {
    answer.errors.first().map(|(index, kind, code)| Error::Refused {
        what: name(*index),
        reason: reason(*kind, *code),
    })
}

struct Task {
    path: PathBuf,
    name: Arc<str>,
    mirror: Mirror,
    exchanges: mpsc::Receiver<Exchange>,
    ticks: watch::Sender<u64>,
    link: watch::Sender<Link>,
    connections: u64,
}

impl Task {
    async fn run(mut self) {
        let mut pause = MIN_PAUSE;
        loop {
            // What waits for an answer is told after everybody can see that there is no connection: it ends with the session.
            let mut session = None;
            let Err(error) = self.connection(&mut session).await;
            let link = match &error {
                Error::Version(said) => Link::Refused(said.clone()),
                _ => Link::Down,
            };
            let was_connected = matches!(self.link.send_replace(link), Link::Up(_));
            drop(session);
            self.mirror.clear();
            if was_connected {
                tracing::warn!(socket = %self.name, error = &error as &dyn std::error::Error, "the bridge's flows are unknown");
                self.tick();
                pause = MIN_PAUSE;
            } else {
                tracing::debug!(socket = %self.name, error = &error as &dyn std::error::Error, "the bridge does not answer");
            }
            self.refuse_for(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    fn tick(&self) {
        self.ticks.send_modify(|tick| *tick = tick.wrapping_add(1));
    }

    /// Refuses what was asked while the connection went, for a while.
    async fn refuse_for(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        while let Ok(Some(exchange)) = timeout_at(until, self.exchanges.recv()).await {
            let _ = exchange.reply.send(Err(Error::ConnectionLost));
        }
        // All handles are gone: nobody asks any more, but the pause must still pass.
        tokio::time::sleep_until(until).await;
    }

    /// One connection, from connect to its end.
    async fn connection(&mut self, session: &mut Option<Session>) -> Result<std::convert::Infallible, Error> {
        let name = self.name.to_string();
        let io = |source| Error::Io {
            socket: name.clone(),
            source,
        };
        let stream = UnixStream::connect(&self.path).await.map_err(io)?;
        let (mut reader, writer) = stream.into_split();
        let (outgoing, queue) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write(writer, queue));
        let _writer = AbortOnDrop(writer.abort_handle());
        let session = session.insert(Session::new(outgoing, self.mirror.clone()));
        session.send(&codec::hello(), 0)?;
        let mut framer = Framer::default();
        let mut chunk = vec![0_u8; 64 << 10];
        loop {
            let due = session.due();
            tokio::select! {
                // Cancel safe: nothing was read, or it is in `chunk` and the branch runs.
                read = reader.read(&mut chunk) => {
                    let read = read.map_err(io)?;
                    if read == 0 {
                        return Err(Error::ConnectionLost);
                    }
                    framer.push(chunk.get(..read).unwrap_or_default());
                    for message in framer.drain()? {
                        match session.handle(message)? {
                            Event::Nothing => {}
                            Event::Watching => {
                                self.connections += 1;
                                self.link.send_replace(Link::Up(self.connections));
                                self.tick();
                            }
                            Event::Changed => self.tick(),
                        }
                    }
                }
                // Cancel safe: recv loses nothing. No change may slip in before the switch has agreed to tell of changes.
                Some(exchange) = self.exchanges.recv() => match session.watching {
                    true => session.forward(exchange)?,
                    false => drop(exchange.reply.send(Err(Error::ConnectionLost))),
                },
                // What answers too late is not to be trusted with order any more; the next connection begins anew.
                () = until(due) => return Err(Error::Overdue),
            }
        }
    }
}

/// Never, when there is nothing to wait for.
async fn until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Ends the writer with its connection.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Writing has a task of its own: if the switch stops reading until we read, both sides still move.
async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(bytes) = queue.recv().await {
        // A broken socket shows on the reading side too, and is handled there.
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// For callers that look only at our own flows.
impl Table {
    /// Our flows with their counters.
    pub fn ours(&self) -> impl Iterator<Item = (&Rule, Cookie, Counters)> {
        self.set
            .flows
            .iter()
            .filter(|(_, (cookie, _))| cookie.is_ours())
            .map(|(rule, (cookie, _))| {
                let counters = self.counters.get(rule).copied().unwrap_or_default();
                (rule, *cookie, counters)
            })
    }
}

mod fragments;
#[cfg(test)]
mod tests;
