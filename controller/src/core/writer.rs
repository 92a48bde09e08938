//! One change after another: step, commit, publish.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use ring::rand::{SecureRandom, SystemRandom};
use tracing::{Span, info_span};
use trunkline_proto::{Name, daemon::telemetry};

use super::{Core, history, now};
use crate::{
    model::ProbeSecret,
    requests::{Fingerprint, RequestKey, Requests, Seen},
    settings::Settings,
    store::{Batch, Store, StoreError},
    transition::{Context, Intent, NewEvent, Rejection, State, Step},
};

/// What only the writer touches.
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
    /// It could not be stored. It may or may not be durable; the controller stops.
    #[error("the change could not be stored")]
    Store(#[from] StoreError),
    /// An earlier commit failed.
    #[error("the controller is stopping")]
    Stopping,
}

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
        Ok(())
    }
}

impl Core {
    /// Makes a change, or answers what was answered before when the request id is known. The answer comes when the change is durable. A
    /// caller that goes away does not stop a change that has begun.
    ///
    /// # Errors
    /// Nothing has changed, except for [`CoreError::Store`].
    pub async fn mutate(self: &Arc<Self>, mutation: Mutation) -> Result<Vec<u8>, CoreError> {
        self.with_writer(move |core, writer| core.write(writer, mutation)).await
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
        let store = move |core: &Core, writer: &mut Writer| {
            let mut batch = Batch::default();
            let planned = core.journal.plan(events, now(), &mut batch);
            core.commit(writer, &batch)?;
            core.journal.accept(planned);
            core.to_export(batch);
            Ok(())
        };
        self.with_writer_to_the_end(store).await
    }

    /// What a change would do. Nothing is stored.
    ///
    /// # Errors
    /// It may not be made.
    pub async fn try_step(self: &Arc<Self>, intent: Intent, actor: String) -> Result<Step, CoreError> {
        let core = self.clone();
        let span = Span::current();
        let step = move || span.in_scope(|| core.step(&core.state(), intent, &actor));
        self.aside(step).await.map_err(|_| CoreError::Stopping)?
    }

    async fn with_writer<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self, &mut Writer) -> Result<T, CoreError> + Send + 'static,
    ) -> Result<T, CoreError> {
        if self.fatal.is_cancelled() {
            return Err(CoreError::Stopping);
        }
        self.with_writer_to_the_end(work).await
    }

    /// The same while the controller stops, as long as no commit has failed.
    async fn with_writer_to_the_end<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self, &mut Writer) -> Result<T, CoreError> + Send + 'static,
    ) -> Result<T, CoreError> {
        let mut writer = self.writer.clone().lock_owned().await;
        if self.failed() {
            return Err(CoreError::Stopping);
        }
        let core = self.clone();
        let span = Span::current();
        let task = self.aside(move || span.in_scope(|| work(&core, &mut writer)));
        task.await.unwrap_or_else(|error| {
            // A panic may have come between commit and publication: only a fresh start is sure to be right.
            tracing::error!(%error, "a change failed in the middle, stopping");
            self.fail();
            Err(CoreError::Stopping)
        })
    }

    fn write(&self, writer: &mut Writer, mutation: Mutation) -> Result<Vec<u8>, CoreError> {
        let Mutation {
            intent,
            actor,
            request,
            answer,
        } = mutation;
        if let Some((key, fingerprint)) = &request {
            match writer.requests.look(key, *fingerprint) {
                Seen::New => {}
                Seen::Done(answer) => return Ok(answer),
                Seen::OtherContent => return Err(CoreError::RequestReused(key.id.clone())),
            }
        }
        let old = self.state();
        let mut step = self.step(&old, intent, &actor)?;
        let answer = answer(&step, &self.settings);
        let mut batch = std::mem::take(&mut step.batch);
        let entries = self.journal.plan(std::mem::take(&mut step.events), now(), &mut batch);
        let planned = request.map(|(key, print)| writer.requests.plan(key, print, answer.clone(), &mut batch));
        if batch.is_empty() {
            return Ok(answer);
        }
        self.commit(writer, &batch)?;
        if let Some(planned) = planned {
            writer.requests.accept(planned);
        }
        self.journal.accept(entries);
        self.publish(&old, step);
        self.to_export(batch);
        Ok(answer)
    }

    fn step(&self, state: &State, intent: Intent, actor: &str) -> Result<Step, CoreError> {
        let span = info_span!("transition", actor);
        // Resources carry the context of the call that changed them, not of this span: the push is its sibling.
        let traceparent = telemetry::current_traceparent();
        let (connected, held) = {
            let mut live = self.live();
            (live.connected(), live.held())
        };
        let missing = state.cluster.meta.probe_secret.is_none();
        let fresh_secret = missing.then(draw_secret).flatten();
        let cx = Context {
            now: now(),
            actor,
            settings: &self.settings,
            connected: &connected,
            held: &held,
            traceparent: &traceparent,
            fresh_secret: fresh_secret.as_ref(),
            holdings: None,
        };
        span.in_scope(|| Ok(state.step(intent, &cx)?))
    }

    fn commit(&self, writer: &mut Writer, batch: &Batch) -> Result<(), CoreError> {
        let span = info_span!("commit", puts = batch.puts.len(), deletes = batch.deletes.len());
        let done = span.in_scope(|| writer.commit(batch));
        self.metrics.commits.inc();
        done.map_err(|error| {
            tracing::error!(%error, source = ?error, "the state could not be stored, stopping");
            self.fail();
            error.into()
        })
    }

    /// The step is durable: now everybody may see it.
    fn publish(&self, old: &State, step: Step) {
        let state = Arc::new(step.state);
        let revision = state.cluster.meta.revision;
        if revision != old.cluster.meta.revision {
            let changes = history::changes(&old.cluster.slices, &state.cluster.slices);
            // Before the state: who lists and then watches must find what came between.
            self.history
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .push(revision, changes);
        }
        self.converging.deployed(old, &state);
        self.state.store(state.clone());
        self.live().follow(old, &state, &step.touched);
        self.send_desired(old, &state, &step.touched);
        self.metrics.of_state(&state);
        self.stale
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .commit(old, &state, &step.touched);
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
