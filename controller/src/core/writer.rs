//! Changes: step, commit, publish. What comes together is committed together, by one flush, and answered after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, Weak},
};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::oneshot,
};
use tracing::{Span, info_span};
use trunkline_proto::{
    Name,
    daemon::{failpoint, telemetry},
};

use super::{Core, history, now, queue::Queue};
use crate::{
    leftovers::HeldBack,
    model::ProbeSecret,
    requests::{Fingerprint, RequestKey, Requests, Seen},
    settings::Settings,
    store::{Batch, Store, StoreError},
    transition::{Context, Intent, NewEvent, Rejection, State, Step},
};

/// What only who works off the queue touches.
pub(super) struct Writer {
    store: Arc<dyn Store>,
    /// The store's own count of commits.
    revision: u64,
    requests: Requests,
}

/// Builds the answer to a mutation; it is stored with it.
pub(super) type Answer = Box<dyn FnOnce(&Step, &Settings) -> Vec<u8> + Send>;

/// A change that somebody asks for.
pub struct Mutation {
    /// What.
    pub intent: Intent,
    /// Who, `operator/alice`.
    pub actor: String,
    /// Under which id, and what exactly; for calls of the API.
    pub request: Option<(RequestKey, Fingerprint)>,
    /// What to answer.
    pub answer: Answer,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// It may not be made.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The request id belongs to another call.
    #[error("request_id {0:?} was used for another request; use a new one")]
    RequestReused(String),
    /// It could not be stored, nor what came with it. It may or may not be durable; the controller stops.
    #[error("the change could not be stored")]
    Store(#[source] Arc<StoreError>),
    /// An earlier commit failed.
    #[error("the controller is stopping")]
    Stopping,
}

/// One entry of the queue.
pub(super) struct Job {
    work: Work,
    /// Of who asks.
    span: Span,
    reply: Reply,
}

enum Work {
    Change(Box<Mutation>),
    /// Entries of the journal that belong to no change.
    Record(Vec<NewEvent>),
}

type Done = Result<Vec<u8>, CoreError>;
type Reply = oneshot::Sender<Done>;

impl Writer {
    pub(super) fn new(store: Arc<dyn Store>, revision: u64, requests: Requests) -> Self {
        Self {
            store,
            revision,
            requests,
        }
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.revision = self.store.commit(self.revision, batch)?;
        failpoint::reach("store.after-commit");
        Ok(())
    }
}

/// Changes that are committed together. Each is made on the state that the one before it left.
struct Group {
    state: Arc<State>,
    /// Steps that were made, each with the span of who asked.
    steps: Vec<(Span, Arc<State>, BTreeSet<Name>)>,
    /// Rows to write, and to delete. A later change of a row takes the place of an earlier one.
    rows: BTreeMap<String, Option<Vec<u8>>>,
    events: Vec<NewEvent>,
    connected: Arc<BTreeSet<Name>>,
    held: BTreeMap<Name, Arc<HeldBack>>,
}

impl Group {
    fn add(&mut self, batch: Batch) {
        let Batch { puts, deletes } = batch;
        self.rows
            .extend(puts.into_iter().map(|(key, value)| (key, Some(value))));
        self.rows.extend(deletes.into_iter().map(|key| (key, None)));
    }

    fn batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        for (key, value) in std::mem::take(&mut self.rows) {
            match value {
                Some(value) => batch.puts.push((key, value)),
                None => batch.deletes.push(key),
            }
        }
        batch
    }
}

impl Core {
    /// Makes a change, or answers what was answered before when the request id is known. The answer comes when the change is durable. A
    /// caller that goes away does not stop a change that it has asked for.
    ///
    /// # Errors
    /// Nothing has changed, except for [`CoreError::Store`].
    pub async fn mutate(self: &Arc<Self>, mutation: Mutation) -> Result<Vec<u8>, CoreError> {
        if self.fatal.is_cancelled() {
            return Err(CoreError::Stopping);
        }
        self.ask(Work::Change(Box::new(mutation))).await
    }

    /// A change that the controller makes itself.
    ///
    /// # Errors
    /// As [`Core::mutate`].
    pub async fn system(self: &Arc<Self>, intent: Intent, actor: &str) -> Result<(), CoreError> {
        let answer = Box::new(|_: &Step, _: &Settings| Vec::new());
        self.mutate(Mutation {
            intent,
            actor: actor.into(),
            request: None,
            answer,
        })
        .await
        .map(drop)
    }

    /// Puts entries into the journal that belong to no change.
    ///
    /// # Errors
    /// They could not be stored.
    pub async fn record(self: &Arc<Self>, events: Vec<NewEvent>) -> Result<(), CoreError> {
        if events.is_empty() {
            return Ok(());
        }
        self.ask(Work::Record(events)).await.map(drop)
    }

    /// What a change would do. Nothing is stored.
    ///
    /// # Errors
    /// It may not be made.
    pub async fn try_step(self: &Arc<Self>, intent: Intent, actor: String) -> Result<Step, CoreError> {
        let core = self.clone();
        let span = Span::current();
        let step = move || {
            let group = core.begin();
            span.in_scope(|| core.step(&group, intent, &actor))
        };
        self.aside(step).await.map_err(|_| CoreError::Stopping)?
    }

    /// Also while the controller stops, as long as no commit has failed.
    async fn ask(self: &Arc<Self>, work: Work) -> Done {
        let (reply, answer) = oneshot::channel();
        let span = Span::current();
        if self.queue.join(Job { work, span, reply }) {
            let (queue, core) = (self.queue.clone(), Arc::downgrade(self));
            if !self.threads {
                work_off(&queue, &core, usize::MAX);
            } else if !may_stay() || tokio::task::block_in_place(|| work_off(&queue, &core, 1)) {
                drop(tokio::task::spawn_blocking(move || work_off(&queue, &core, usize::MAX)));
            }
        }
        answer.await.unwrap_or(Err(CoreError::Stopping))
    }

    fn begin(&self) -> Group {
        let mut live = self.live();
        Group {
            state: self.state(),
            steps: Vec::new(),
            rows: BTreeMap::new(),
            events: Vec::new(),
            connected: live.connected(),
            held: live.held(),
        }
    }

    fn work(&self, jobs: Vec<Job>) -> Vec<(Reply, Done)> {
        if self.failed() {
            return jobs
                .into_iter()
                .map(|job| (job.reply, Err(CoreError::Stopping)))
                .collect();
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut group = self.begin();
        let (mut done, mut spans) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        for Job { work, span, reply } in jobs {
            let result = span.in_scope(|| match work {
                Work::Change(mutation) => self.change(&mut writer, &mut group, *mutation),
                Work::Record(events) => {
                    group.events.extend(events);
                    Ok(Vec::new())
                }
            });
            if result.is_ok() {
                spans.push(span);
            }
            done.push((reply, result));
        }
        if let Err(error) = self.finish(&mut writer, group, &spans) {
            let error = Arc::new(error);
            for (_, result) in done.iter_mut().filter(|(_, result)| result.is_ok()) {
                *result = Err(CoreError::Store(error.clone()));
            }
        }
        done
    }

    /// Makes a change in memory.
    fn change(&self, writer: &mut Writer, group: &mut Group, mutation: Mutation) -> Done {
        let Mutation {
            intent,
            actor,
            request,
            answer,
        } = mutation;
        if let Some((key, fingerprint)) = &request {
            match writer.requests.look(key, *fingerprint) {
                Seen::New => {}
                // It may be of this very group: then it is answered with the group.
                Seen::Done(answer) => return Ok(answer),
                Seen::OtherContent => return Err(CoreError::RequestReused(key.id.clone())),
            }
        }
        let mut step = self.step(group, intent, &actor)?;
        let answer = answer(&step, &self.settings);
        let mut batch = std::mem::take(&mut step.batch);
        if let Some((key, print)) = request {
            let planned = writer.requests.plan(key, print, answer.clone(), &mut batch);
            // Nobody but the next change looks, and the controller stops when the group cannot be stored.
            writer.requests.accept(planned);
        }
        group.add(batch);
        group.events.append(&mut step.events);
        group.state = Arc::new(step.state);
        group.steps.push((Span::current(), group.state.clone(), step.touched));
        Ok(answer)
    }

    /// Makes a group durable, then lets everybody see it.
    fn finish(&self, writer: &mut Writer, mut group: Group, spans: &[Span]) -> Result<(), StoreError> {
        let mut batch = group.batch();
        let entries = self.journal.plan(std::mem::take(&mut group.events), now(), &mut batch);
        if batch.is_empty() {
            return Ok(());
        }
        self.commit(writer, &batch, spans)?;
        self.journal.accept(entries);
        self.unexported.bring(batch, || self.publish(group.steps));
        failpoint::reach("core.after-publish");
        Ok(())
    }

    fn step(&self, group: &Group, intent: Intent, actor: &str) -> Result<Step, CoreError> {
        let span = info_span!("transition", actor);
        // Resources carry the context of the call that changed them, not of this span: the push is its sibling.
        let traceparent = telemetry::current_traceparent();
        let missing = group.state.cluster.meta.probe_secret.is_none();
        let fresh_secret = missing.then(draw_secret).flatten();
        let cx = Context {
            now: now(),
            actor,
            settings: &self.settings,
            connected: &group.connected,
            held: &group.held,
            traceparent: &traceparent,
            fresh_secret: fresh_secret.as_ref(),
        };
        span.in_scope(|| Ok(group.state.step(intent, &cx)?))
    }

    /// `spans` are those of everybody who waits for it.
    fn commit(&self, writer: &mut Writer, batch: &Batch, spans: &[Span]) -> Result<(), StoreError> {
        let (puts, deletes) = (batch.puts.len(), batch.deletes.len());
        let each = |parent: &Span| info_span!(parent: parent, "commit", puts, deletes);
        let open: Vec<Span> = spans.iter().map(each).collect();
        let done = writer.commit(batch);
        drop(open);
        self.metrics.commits.inc();
        done.inspect_err(|error| {
            tracing::error!(%error, source = ?error, "the state could not be stored, stopping");
            self.fail();
        })
    }

    /// The steps are durable: now everybody may see them.
    fn publish(&self, steps: Vec<(Span, Arc<State>, BTreeSet<Name>)>) {
        let old = self.state();
        let (mut state, mut touched) = (old.clone(), BTreeSet::new());
        for (span, next, nodes) in steps {
            let revision = next.cluster.meta.revision;
            if revision != state.cluster.meta.revision {
                let changes = history::changes(&state.cluster.slices, &next.cluster.slices);
                // Before the state: who lists and then watches must find what came between.
                self.history
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(revision, changes);
            }
            span.in_scope(|| self.converging.deployed(&state, &next));
            touched.extend(nodes);
            state = next;
        }
        self.state.store(state.clone());
        self.live().follow(&old, &state, &touched);
        self.send_desired(&old, &state, &touched);
        self.metrics.of_change(&old, &state);
        self.stale
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .commit(&old, &state, &touched);
        self.commits.send_replace(state.cluster.meta.revision);
        self.status.send_modify(|count| *count += 1);
    }

    fn send_desired(&self, old: &State, state: &State, touched: &BTreeSet<Name>) {
        let mut desired = self.desired.lock().unwrap_or_else(PoisonError::into_inner);
        for node in touched {
            if let Some(sender) = desired.get(node) {
                sender.send_replace(state.node_desired(node));
            }
        }
        let removed = old
            .cluster
            .nodes
            .differences(&state.cluster.nodes)
            .filter(|(_, _, is)| is.is_none());
        for (node, _, _) in removed {
            if desired.get(node).is_some_and(|sender| sender.receiver_count() == 0) {
                desired.remove(node);
            }
        }
    }
}

/// True where a task may give its thread's other tasks to another thread: a change by itself is then made without changing threads, which
/// takes as long as making it.
fn may_stay() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

/// Works off the queue until it is empty, but no more than that many groups. True: somebody has to go on.
fn work_off(queue: &Queue<Job>, core: &Weak<Core>, groups: usize) -> bool {
    let _fuse = Fuse { queue, core };
    for _ in 0..groups {
        let Some(jobs) = queue.next() else { return false };
        // Whoever waits for an answer holds it.
        let Some(core) = core.upgrade() else {
            queue.close();
            return false;
        };
        let done = core.work(jobs);
        // Who ends with its answer must not find us holding the state.
        drop(core);
        for (reply, result) in done {
            // Who went away needs no answer.
            let _ = reply.send(result);
        }
    }
    queue.goes_on()
}

/// A panic may have come between commit and publication: only a fresh start is sure to be right.
struct Fuse<'a> {
    queue: &'a Queue<Job>,
    core: &'a Weak<Core>,
}

impl Drop for Fuse<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a change failed in the middle, stopping");
            if let Some(core) = self.core.upgrade() {
                core.fail();
            }
            self.queue.close();
        }
    }
}

/// From the system's generator; without it there is none yet, and the next step tries again.
pub(super) fn draw_secret() -> Option<ProbeSecret> {
    let mut random = [0; 32];
    match SystemRandom::new().fill(&mut random) {
        Ok(()) => Some(ProbeSecret::new(random)),
        Err(error) => {
            tracing::warn!(%error, "no random numbers: there are no probes until there are");
            None
        }
    }
}
