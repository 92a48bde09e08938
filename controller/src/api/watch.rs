//! `WatchService`: changes of slices, each in order; status, the newest only.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tokio_stream::{Stream, wrappers::ReceiverStream};

use tonic::{Request, Response, Status};
use trunkline_proto::{
    Name,
    daemon::Lifecycle,
    wire::{self, watch_service_server::WatchService, watch_slices_response::Change},
};

use super::{call::Call, errors, status};
use crate::{
    converge::Detail,
    core::{Core, CoreError},
    view,
};

/// Messages that wait for the transport.
const OUTBOUND: usize = 16;

/// Commits read at a time.
const BATCH: usize = 64;

/// Shortest time between two status messages, once the first ones after a silence have gone out.
const PAUSE: Duration = Duration::from_millis(20);

/// How many messages may go out at once after a silence, so that a single change is seen when it happens.
const BURST: u32 = 10;

/// Of what a watch costs so much time is left to others, however often things change.
const SHARE: u32 = 3;

/// The service.
pub(super) struct Watches {
    pub(super) core: Arc<Core>,
    pub(super) life: Lifecycle,
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl WatchService for Watches {
    type WatchSlicesStream = Boxed<wire::WatchSlicesResponse>;
    type WatchStatusStream = Boxed<wire::WatchStatusResponse>;

    async fn watch_slices(
        &self,
        request: Request<wire::WatchSlicesRequest>,
    ) -> Result<Response<Self::WatchSlicesStream>, Status> {
        let call = Call::new("WatchSlices", &request)?;
        call.run(&self.core, async {
            let wire::WatchSlicesRequest { from_revision, slices } = request.into_inner();
            let names = status::parse_names(&slices)?;
            if from_revision != 0 {
                // A watch that cannot resume says so at once.
                self.core
                    .commits_after(from_revision, 0)
                    .map_err(|gone| errors::compacted(from_revision, gone))?;
            }
            let (out, stream) = mpsc::channel(OUTBOUND);
            let watch = SliceWatch {
                core: self.core.clone(),
                names,
                out,
            };
            self.life.spawn(watch.run(from_revision));
            Ok(Box::pin(ReceiverStream::new(stream)) as Self::WatchSlicesStream)
        })
        .await
    }

    async fn watch_status(
        &self,
        request: Request<wire::WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let call = Call::new("WatchStatus", &request)?;
        call.run(&self.core, async {
            let wire::WatchStatusRequest { slices, brief } = request.get_ref();
            let names = status::parse_names(slices)?;
            status::require(&self.core.state(), &names)?;
            let (out, stream) = mpsc::channel(1);
            let detail = status::detail(*brief);
            self.life.spawn(follow_status(self.core.clone(), names, detail, out));
            Ok(Box::pin(ReceiverStream::new(stream)) as Self::WatchStatusStream)
        })
        .await
    }
}

struct SliceWatch {
    core: Arc<Core>,
    names: Vec<Name>,
    out: mpsc::Sender<Result<wire::WatchSlicesResponse, Status>>,
}

/// The reader went away, or the watch cannot go on.
struct Ended;

impl SliceWatch {
    async fn run(self, from: u64) {
        let ended = if from == 0 { self.snapshot().await } else { Ok(from) };
        if let Ok(from) = ended {
            let _: Result<(), Ended> = self.follow(from).await;
        }
    }

    async fn snapshot(&self) -> Result<u64, Ended> {
        let state = self.core.state();
        let revision = state.cluster.meta.revision;
        for slice in state.cluster.slices.values().filter(|slice| self.wants(&slice.name)) {
            self.send(revision, Change::Put(view::slice(slice, self.core.settings())))
                .await?;
        }
        self.send(revision, Change::Synced(wire::Synced {})).await?;
        Ok(revision)
    }

    async fn follow(&self, mut from: u64) -> Result<(), Ended> {
        let mut changed = self.core.watch_status();
        loop {
            changed.mark_unchanged();
            loop {
                let commits = match self.core.commits_after(from, BATCH) {
                    Ok(commits) => commits,
                    Err(gone) => return self.fail(errors::compacted(from, gone)).await,
                };
                let Some((last, _)) = commits.last() else { break };
                from = *last;
                for (revision, changes) in &commits {
                    for (name, slice) in changes.iter().filter(|(name, _)| self.wants(name)) {
                        let change = match slice {
                            Some(slice) => Change::Put(view::slice(slice, self.core.settings())),
                            None => Change::Deleted(name.to_string()),
                        };
                        self.send(*revision, change).await?;
                    }
                }
            }
            // Every arm may be cancelled: a change that comes meanwhile is still unseen.
            tokio::select! {
                () = self.core.stopping().cancelled() => return self.fail(errors::of_core(CoreError::Stopping)).await,
                () = self.out.closed() => return Err(Ended),
                Ok(()) = changed.changed() => {}
            }
        }
    }

    fn wants(&self, name: &Name) -> bool {
        self.names.is_empty() || self.names.contains(name)
    }

    async fn send(&self, revision: u64, change: Change) -> Result<(), Ended> {
        let message = wire::WatchSlicesResponse {
            revision,
            change: Some(change),
        };
        // Either arm may be cancelled: what is not sent is not counted as sent.
        tokio::select! {
            sent = self.out.send(Ok(message)) => sent.map_err(|_| Ended),
            () = self.core.stopping().cancelled() => Err(Ended),
        }
    }

    async fn fail(&self, status: Status) -> Result<(), Ended> {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.out.send(Err(status))).await;
        Err(Ended)
    }
}

async fn follow_status(
    core: Arc<Core>,
    names: Vec<Name>,
    detail: Detail,
    out: mpsc::Sender<Result<wire::WatchStatusResponse, Status>>,
) {
    let mut changed = core.watch_status();
    let mut last = None;
    let mut pace = Pace::default();
    loop {
        changed.mark_unchanged();
        // Room first, so that what is sent is the newest when the reader takes it.
        let permit = tokio::select! {
            permit = out.reserve() => permit,
            // Who does not read must not hold up our end.
            () = core.stopping().cancelled() => return,
        };
        let Ok(permit) = permit else { return };
        let began = Instant::now();
        let Ok(status) = status::compute(&core, names.clone(), detail).await else {
            return;
        };
        let cost = began.elapsed();
        let mut pause = cost * SHARE;
        if last.as_ref() == Some(&status) {
            drop(permit);
        } else {
            last = Some(status.clone());
            permit.send(Ok(wire::WatchStatusResponse { status: Some(status) }));
            pause = pause.max(pace.sent(began));
        }
        tokio::time::sleep(pause).await;
        // Every arm may be cancelled: a change that comes meanwhile is still unseen.
        tokio::select! {
            () = core.stopping().cancelled() => {
                let _ = out.try_send(Err(errors::of_core(CoreError::Stopping)));
                return;
            }
            () = out.closed() => return,
            Ok(()) = changed.changed() => {}
        }
    }
}

/// Spaces out the messages of one watch.
#[derive(Debug)]
struct Pace {
    left: u32,
    refilled: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            left: BURST,
            refilled: Instant::now(),
        }
    }
}

impl Pace {
    /// A message goes out: how long to wait before the next one.
    fn sent(&mut self, now: Instant) -> Duration {
        while self.left < BURST && now.duration_since(self.refilled) >= PAUSE {
            self.left += 1;
            self.refilled += PAUSE;
        }
        if self.left == BURST {
            self.refilled = now;
        }
        if self.left == 0 {
            return PAUSE;
        }
        self.left -= 1;
        Duration::ZERO
    }
}
