//! The task that owns the socket: sends what is due, hears what comes, and tells the board what changed.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use trunkline_proto::{VlanId, resource::State};

use super::{counts::Counts, engine::Engine, inbound::Moment, port::PORT, socket::Socket};
use crate::{
    report::{Board, COUNTERS_EVERY},
    switch::SwitchPort,
};

/// How often it is looked for what stopped coming.
const SWEEP: Duration = Duration::from_millis(200);
/// How long after a pass everything is told once more: the pass publishes what it saw a moment before, which may be old by then.
const RETELL: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];
/// Frames that are heard before others have a turn.
const TURN: usize = 64;
/// Pause before a socket that broke is opened again.
const REOPEN: Duration = Duration::from_millis(200);

/// What the passes and the task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<Probing>,
    /// Something was set.
    pub(super) set: Notify,
    began: Instant,
    board: Arc<Board>,
    counts: Counts,
}

/// What is probed, and where.
#[derive(Debug)]
pub(super) struct Probing {
    pub(super) engine: Engine,
    /// Index of the device.
    pub(super) device: Option<u32>,
    /// The port as the last pass has left it, and the VLANs that the uplink had then; none when it could not be used.
    pub(super) settled: Option<(SwitchPort, BTreeSet<VlanId>)>,
    /// A pass has looked, and will publish what it saw.
    pub(super) looked: bool,
}

impl Shared {
    pub(super) fn new(engine: Engine, board: Arc<Board>, counts: Counts) -> Self {
        Self {
            state: Mutex::new(Probing {
                engine,
                device: None,
                settled: None,
                looked: false,
            }),
            set: Notify::new(),
            began: Instant::now(),
            board,
            counts,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Probing> {
        // Whatever broke off half way: the next frame of each pair sets it right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn moment(&self) -> Moment {
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Moment {
            now: self.now(),
            unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Tells the board; under the lock, so that nobody can tell it something older afterwards.
    fn tell(&self, only: Option<VlanId>, all: bool) {
        let mut probing = self.lock();
        let news = probing.engine.news(only, all, self.now());
        if news.is_empty() {
            return;
        }
        let mut observations = Vec::with_capacity(news.len());
        for (observation, before) in news {
            log(&observation, before);
            observations.push(observation);
        }
        self.board.refresh(observations);
    }
}

/// Once for each change of state.
fn log(observation: &trunkline_proto::resource::Observation, before: Option<State>) {
    let (resource, reason) = (&observation.key.name, &observation.reason);
    match (before, observation.state) {
        (Some(before), now) if before == now => {}
        (_, State::Degraded) => tracing::warn!(%resource, reason, "a VLAN does not pass"),
        (Some(State::Degraded), State::Ready) => tracing::info!(%resource, "a VLAN passes again"),
        _ => {}
    }
}

/// Runs until it is cancelled.
pub(super) async fn run(shared: Arc<Shared>, cancel: CancellationToken) {
    let mut socket = Port::default();
    let mut sweep = Instant::now() + SWEEP;
    let mut counters = Instant::now() + COUNTERS_EVERY;
    let mut retell: Vec<Instant> = Vec::new();
    loop {
        let (device, due, looked) = {
            let mut probing = shared.lock();
            let due = probing.engine.next();
            (probing.device, due, std::mem::take(&mut probing.looked))
        };
        let now = Instant::now();
        if looked {
            retell = RETELL.map(|after| now + after).to_vec();
        }
        socket.follow(device);
        let send = due
            .filter(|_| socket.open.is_some())
            .and_then(|due| shared.began.checked_add(due));
        let wake = [send, Some(sweep), socket.again, retell.first().copied()];
        let wake = wake.into_iter().flatten().min().unwrap_or(sweep);
        let mut heard = Vec::new();
        tokio::select! {
            // Nothing is half done between frames.
            () = cancel.cancelled() => return,
            // A permit that was taken leads to a look at everything.
            () = shared.set.notified() => {}
            () = sleep_until(wake) => {}
            // Frames are taken without waiting in between, so none is lost when another branch wins.
            received = socket.receive(|frame| heard.extend(shared.lock().engine.receive(frame, shared.moment()))) => {
                if let Err(error) = received {
                    socket.broke(&error);
                }
            }
        }
        heard.sort_unstable();
        heard.dedup();
        for vlan in heard {
            shared.tell(Some(vlan), false);
        }
        if let Some(open) = &socket.open {
            send_due(&shared, open);
        }
        let now = Instant::now();
        let again = retell.first().is_some_and(|at| *at <= now);
        if again {
            retell.remove(0);
        }
        let count = now >= counters;
        if count {
            counters = now + COUNTERS_EVERY;
        }
        if again || count || now >= sweep {
            sweep = now + SWEEP;
            shared.tell(None, again || count);
        }
        // Others of this runtime have a turn, however much comes in.
        tokio::task::yield_now().await;
    }
}

fn send_due(shared: &Shared, socket: &Socket) {
    let frames = {
        let mut probing = shared.lock();
        let now = shared.now();
        probing.engine.due(now)
    };
    for frame in frames {
        if socket.send(&frame).is_err() {
            shared.counts.unsent();
        }
    }
}

/// The socket, and the device that it follows.
#[derive(Default)]
struct Port {
    device: Option<u32>,
    open: Option<Socket>,
    /// When to try again.
    again: Option<Instant>,
    complained: bool,
}

impl Port {
    /// Opens, closes or changes the socket.
    fn follow(&mut self, device: Option<u32>) {
        let due = self.again.is_some_and(|at| at <= Instant::now());
        if device == self.device && !due {
            return;
        }
        (self.device, self.open, self.again) = (device, None, None);
        let Some(index) = device else { return };
        match Socket::open(PORT, index) {
            Ok(Some(socket)) => {
                self.open = Some(socket);
                self.complained = false;
            }
            // The pass that its change has woken names another one.
            Ok(None) => self.again = Some(Instant::now() + REOPEN),
            Err(error) => self.broke(&error),
        }
    }

    fn broke(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(device = PORT, %error, "the probe's socket broke; it is opened again");
        }
        self.open = None;
        self.again = Some(Instant::now() + REOPEN);
    }

    async fn receive(&mut self, take: impl FnMut(&[u8])) -> io::Result<()> {
        match &mut self.open {
            Some(socket) => socket.receive(TURN, take).await,
            None => std::future::pending().await,
        }
    }
}
