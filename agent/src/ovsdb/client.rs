//! The connection: one task that reads, mirrors, answers and forwards requests, and connects again when it breaks.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::wire::Framer;
use super::{Error, Outcome, Snapshot, Transaction};

/// A database on the same machine answers in milliseconds; this long means that it hangs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// First pause before connecting again; doubled up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// A database that comes back is seen within this.
const MAX_PAUSE: Duration = Duration::from_secs(2);

struct Request {
    method: &'static str,
    params: Value,
    reply: oneshot::Sender<Result<Value, Error>>,
}

/// A handle on the connection; clones share it.
#[derive(Clone)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    state: watch::Receiver<Option<Arc<Snapshot>>>,
    ticks: watch::Receiver<u64>,
    socket: Arc<str>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Starts the connection's task, which lives until `cancel`. Never fails: a database that is not there yet is waited for.
    #[must_use]
    pub fn start(socket: impl Into<PathBuf>, cancel: CancellationToken) -> Self {
        let socket = socket.into();
        let name: Arc<str> = socket.display().to_string().into();
        let (request_sender, requests) = mpsc::channel(64);
        let (state_sender, state) = watch::channel(None);
        let (tick_sender, ticks) = watch::channel(0);
        let task = Task {
            socket,
            name: name.clone(),
            requests,
            mirror: Mirror {
                state: state_sender,
                ticks: tick_sender,
            },
        };
        tokio::spawn(async move {
            // Nothing is half done when this is cut: an unanswered request ends with its sender.
            tokio::select! {
                () = cancel.cancelled() => {}
                () = task.run() => {}
            }
        });
        Self {
            requests: request_sender,
            state,
            ticks,
            socket: name,
        }
    }

    /// What is known now; `None` means unknown, never "nothing there".
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.state.borrow().clone()
    }

    /// Ticks at every change of the snapshot, connection and loss included.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.ticks.clone()
    }

    /// Waits until the database is known.
    ///
    /// # Errors
    /// [`Error::NotConnected`] when it is not within `limit`.
    pub async fn ready(&self, limit: Duration) -> Result<Arc<Snapshot>, Error> {
        let mut state = self.state.clone();
        let found = timeout(limit, state.wait_for(Option::is_some)).await;
        match found {
            Ok(Ok(snapshot)) => snapshot.clone().ok_or_else(|| self.not_connected()),
            Ok(Err(_)) | Err(_) => Err(self.not_connected()),
        }
    }

    /// Returns when the database is away: at once when it is.
    pub async fn lost(&self) {
        // An error: nobody tells any more, which is the same.
        let _ = self.state.clone().wait_for(Option::is_none).await;
    }

    /// Commits a transaction, every operation's result checked.
    ///
    /// # Errors
    /// [`Error::Operation`]: nothing was changed. [`Error::Count`]: committed, but a row had vanished.
    /// [`Error::ConnectionLost`] and [`Error::Timeout`]: not known.
    pub async fn transact(&self, transaction: &Transaction) -> Result<Outcome, Error> {
        let result = self.request("transact", transaction.params()).await?;
        transaction.check(&result)
    }

    /// Commits a transaction and waits until ovs-vswitchd has acted on it and the snapshot shows so.
    ///
    /// # Errors
    /// As [`Client::transact`]; [`Error::NotApplied`] when ovs-vswitchd has not acted within `limit`.
    pub async fn commit(&self, mut transaction: Transaction, limit: Duration) -> Result<Outcome, Error> {
        transaction.bump_next_cfg();
        let outcome = self.transact(&transaction).await?;
        let wanted = outcome
            .next_cfg()
            .ok_or_else(|| Error::Protocol("next_cfg was not read back".to_owned()))?;
        self.wait_applied(wanted, limit).await?;
        Ok(outcome)
    }

    async fn wait_applied(&self, wanted: i64, limit: Duration) -> Result<(), Error> {
        let mut state = self.state.clone();
        let deadline = Instant::now() + limit;
        let applied = |snapshot: &Option<Arc<Snapshot>>| match snapshot {
            Some(snapshot) => snapshot.root.cur_cfg >= wanted,
            None => true,
        };
        match timeout_at(deadline, state.wait_for(applied)).await {
            Ok(Ok(snapshot)) if snapshot.is_some() => Ok(()),
            Ok(_) => Err(Error::ConnectionLost),
            Err(_) => {
                let current = self.snapshot().map_or(-1, |snapshot| snapshot.root.cur_cfg);
                Err(Error::NotApplied { wanted, current, limit })
            }
        }
    }

    async fn request(&self, method: &'static str, params: Value) -> Result<Value, Error> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(Request { method, params, reply })
            .await
            .map_err(|_| self.not_connected())?;
        match timeout(REQUEST_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::ConnectionLost),
            Err(_) => Err(Error::Timeout(REQUEST_TIMEOUT)),
        }
    }

    fn not_connected(&self) -> Error {
        Error::NotConnected {
            socket: self.socket.to_string(),
        }
    }
}

/// The published side of the task.
struct Mirror {
    state: watch::Sender<Option<Arc<Snapshot>>>,
    ticks: watch::Sender<u64>,
}

impl Mirror {
    fn publish(&self, snapshot: Option<Snapshot>) {
        self.state.send_replace(snapshot.map(Arc::new));
        self.ticks.send_modify(|tick| *tick = tick.wrapping_add(1));
    }
}

struct Task {
    socket: PathBuf,
    name: Arc<str>,
    requests: mpsc::Receiver<Request>,
    mirror: Mirror,
}

impl Task {
    async fn run(mut self) {
        let mut pause = MIN_PAUSE;
        let mut complained = false;
        loop {
            let Err(error) = self.connection().await;
            let was_known = self.mirror.state.borrow().is_some();
            if was_known {
                self.mirror.publish(None);
                pause = MIN_PAUSE;
            }
            // Once per outage: a database that stays away would fill the log.
            if was_known || !complained {
                tracing::warn!(socket = %self.name, error = &error as &dyn std::error::Error, "Open vSwitch is unknown");
                complained = true;
            }
            self.refuse_for(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Answers requests with "not connected" for a while.
    async fn refuse_for(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        while let Ok(Some(request)) = timeout_at(until, self.requests.recv()).await {
            let error = Error::NotConnected {
                socket: self.name.to_string(),
            };
            let _ = request.reply.send(Err(error));
        }
        // All handles are gone: nobody asks any more, but the pause must still pass.
        tokio::time::sleep_until(until).await;
    }

    /// One connection, from connect to its end.
    async fn connection(&mut self) -> Result<std::convert::Infallible, Error> {
        let io = |name: &Arc<str>| {
            let socket = name.to_string();
            move |source| Error::Io { socket, source }
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(io(&self.name))?;
        let (mut reader, writer) = stream.into_split();
        let (outgoing, queue) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write(writer, queue));
        let _writer = AbortOnDrop(writer.abort_handle());

        let mut session = Session {
            outgoing,
            pending: HashMap::new(),
            next_id: 1,
            snapshot: None,
        };
        session.send(&json!({
            "id": MONITOR_ID, "method": "monitor_cond",
            "params": ["Open_vSwitch", "trunkline", Snapshot::monitor_request()],
        }))?;

        let mut framer = Framer::default();
        let mut chunk = vec![0_u8; 64 << 10];
        loop {
            tokio::select! {
                // Cancel safe: nothing was read, or it is in `chunk` and the branch runs.
                read = reader.read(&mut chunk) => {
                    let read = read.map_err(io(&self.name))?;
                    if read == 0 {
                        return Err(Error::ConnectionLost);
                    }
                    framer.push(chunk.get(..read).unwrap_or_default());
                    let mut changed = false;
                    while let Some(message) = framer.next()? {
                        changed |= session.handle(message)?;
                    }
                    if changed {
                        self.mirror.publish(session.snapshot.clone());
                    }
                }
                // Cancel safe: recv loses nothing.
                Some(request) = self.requests.recv() => session.forward(request)?,
            }
        }
    }
}

/// Ends the writer with its connection.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Writing has a task of its own: if the server stops reading until we read, both sides still move.
async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(bytes) = queue.recv().await {
        // A broken socket shows on the reading side too, and is handled there.
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Id of the monitor request; others count from 1.
const MONITOR_ID: u64 = 0;

struct Pending {
    method: &'static str,
    reply: oneshot::Sender<Result<Value, Error>>,
}

/// State of one connection. Its pending requests end with it: their senders are dropped.
struct Session {
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    pending: HashMap<u64, Pending>,
    next_id: u64,
    snapshot: Option<Snapshot>,
}

impl Session {
    fn send(&self, message: &Value) -> Result<(), Error> {
        self.outgoing
            .send(message.to_string().into_bytes())
            .map_err(|_| Error::ConnectionLost)
    }

    fn forward(&mut self, request: Request) -> Result<(), Error> {
        let Request { method, params, reply } = request;
        let id = self.next_id;
        self.next_id += 1;
        self.pending.insert(id, Pending { method, reply });
        self.send(&json!({ "id": id, "method": method, "params": params }))
    }

    /// Takes one message; true when the snapshot changed.
    fn handle(&mut self, mut message: Value) -> Result<bool, Error> {
        match message.get("method").and_then(Value::as_str) {
            Some("echo") => {
                let id = message.get("id").cloned().unwrap_or_default();
                let params = message.get("params").cloned().unwrap_or_default();
                self.send(&json!({ "id": id, "result": params, "error": null }))?;
                Ok(false)
            }
            Some("update2") => {
                let tables = message
                    .get("params")
                    .and_then(|params| params.get(1))
                    .unwrap_or(&Value::Null);
                match &mut self.snapshot {
                    Some(snapshot) => snapshot.take(tables)?,
                    None => return Err(Error::Protocol("an update before the monitor's answer".to_owned())),
                }
                Ok(true)
            }
            // A notification that we did not ask for.
            Some(_) => Ok(false),
            None => {
                let id = message.get("id").and_then(Value::as_u64);
                let error = message
                    .get("error")
                    .filter(|error| !error.is_null())
                    .map(Value::to_string);
                let result = message.get_mut("result").map(Value::take).unwrap_or_default();
                self.answer(id, error, result)
            }
        }
    }

    fn answer(&mut self, id: Option<u64>, error: Option<String>, result: Value) -> Result<bool, Error> {
        if id == Some(MONITOR_ID) {
            if let Some(reason) = error {
                return Err(Error::Refused {
                    method: "monitor_cond",
                    reason,
                });
            }
            let mut snapshot = Snapshot::default();
            snapshot.take(&result)?;
            self.snapshot = Some(snapshot);
            return Ok(true);
        }
        if let Some(Pending { method, reply }) = id.and_then(|id| self.pending.remove(&id)) {
            // The asker may have given up; then there is nobody to tell.
            let _ = reply.send(match error {
                Some(reason) => Err(Error::Refused { method, reason }),
                None => Ok(result),
            });
        }
        Ok(false)
    }
}
