//! Mutations that come together: one commit for all of them, answers only after it, and the same end for all when it fails.

use std::sync::{Arc, Condvar, Mutex};

use futures::{future::join_all, poll};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trunkline_controller::{
    core::{Bounds, Core, CoreError, Mutation},
    journal,
    metrics::CoreMetrics,
    model::NodeRole,
    requests::{Fingerprint, RequestKey},
    settings::Settings,
    store::{Batch, Loaded, Rows, Store, StoreError},
    transition::{Intent, Step},
};
use trunkline_proto::wire;

use crate::common::pair;

/// A store in memory that can be made to wait, and to fail.
#[derive(Clone)]
struct Held(Arc<(Mutex<Inner>, Condvar)>);

struct Inner {
    rows: Rows,
    revision: u64,
    commits: u64,
    /// Commits wait while this is true.
    shut: bool,
    waiting: bool,
    broken: bool,
}

impl Held {
    fn new() -> Self {
        let inner = Inner {
            rows: Core::new_cluster("test"),
            revision: 0,
            commits: 0,
            shut: false,
            waiting: false,
            broken: false,
        };
        Self(Arc::new((Mutex::new(inner), Condvar::new())))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let changed = change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
        changed
    }

    /// Until somebody waits for a commit.
    async fn waits(&self) {
        while !self.with(|inner| inner.waiting) {
            tokio::task::yield_now().await;
        }
    }
}

impl Store for Held {
    fn load(&self) -> Result<Loaded, StoreError> {
        Ok(self.with(|inner| Loaded {
            revision: inner.revision,
            rows: inner.rows.clone(),
        }))
    }

    fn commit(&self, expected: u64, batch: &Batch) -> Result<u64, StoreError> {
        let (lock, changed) = &*self.0;
        let mut inner = lock.lock().unwrap();
        inner.waiting = true;
        let mut inner = changed.wait_while(inner, |inner| inner.shut).unwrap();
        inner.waiting = false;
        if inner.broken || inner.revision != expected {
            let actual = inner.revision;
            return Err(StoreError::Conflict { expected, actual });
        }
        for (key, value) in &batch.puts {
            inner.rows.insert(key.clone(), value.clone());
            assert!(!batch.deletes.contains(key), "{key} is in the batch twice");
        }
        for key in &batch.deletes {
            inner.rows.remove(key);
        }
        inner.revision += 1;
        inner.commits += 1;
        Ok(inner.revision)
    }

    fn watch(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
}

async fn core(store: &Held) -> Arc<Core> {
    let bounds = Bounds {
        events: journal::Bounds {
            entries: 1000,
            age: std::time::Duration::from_secs(86_400),
        },
        requests: 100,
        history: 100,
    };
    let store = Arc::new(store.clone());
    let (metrics, token) = (CoreMetrics::default(), CancellationToken::new());
    let core = Core::open(store, Settings::default(), bounds, metrics, token)
        .await
        .unwrap();
    for name in ["w1", "w2"] {
        let joined = Intent::NodeJoined {
            name: name.parse().unwrap(),
            role: NodeRole::Worker,
        };
        core.system(joined, "test").await.unwrap();
    }
    core
}

/// Applies a slice; the answer is the revision.
fn apply(slice: &str, id: &str) -> Mutation {
    let request = wire::ApplySlicesRequest {
        slices: vec![pair(slice)],
        ..wire::ApplySlicesRequest::default()
    };
    let key = RequestKey {
        actor: "operator/alice".into(),
        id: id.into(),
    };
    Mutation {
        actor: "operator/alice".into(),
        request: Some((key, Fingerprint::of("apply", &request))),
        intent: Intent::Apply {
            slices: request.slices,
            expected: Default::default(),
            deploy: false,
        },
        answer: Box::new(|step: &Step, _: &Settings| step.state.cluster.meta.revision.to_be_bytes().to_vec()),
    }
}

#[tokio::test]
async fn what_comes_while_one_is_committed_is_committed_together_after_it() {
    let store = Held::new();
    let core = core(&store).await;
    store.with(|inner| (inner.shut, inner.commits) = (true, 0));
    let first = tokio::spawn({
        let core = core.clone();
        async move { core.mutate(apply("first", "first")).await }
    });
    store.waits().await;
    let before = core.state().cluster.meta.revision;
    let names: Vec<String> = (0..20).map(|n| format!("slice-{n}")).collect();
    // The last one is the first one's request sent again, and one in between cannot be.
    let mut all = vec![core.mutate(apply("slice-0", "again"))];
    all.extend(names.iter().map(|name| core.mutate(apply(name, name))));
    all.push(core.mutate(apply("slice-0", "again")));
    all.push(core.mutate(apply("slice-1", "again")));
    let mut all = std::pin::pin!(join_all(all));
    assert!(poll!(&mut all).is_pending(), "nobody is answered before it is durable");
    assert!(core.state().cluster.slices.is_empty(), "nor shown");
    store.with(|inner| inner.shut = false);
    first.await.unwrap().unwrap();
    let mut answers = all.await;
    assert!(matches!(answers.pop(), Some(Err(CoreError::RequestReused(_)))));
    let answers: Vec<Vec<u8>> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.first(), answers.last(), "sent twice, done once");
    assert_eq!(
        store.with(|inner| inner.commits),
        2,
        "one for the first and one for all others"
    );
    let state = core.state();
    assert_eq!(state.cluster.slices.len(), 21);
    assert_eq!(
        state.cluster.meta.revision,
        before + 21,
        "each has a revision of its own"
    );
    let commits = core.commits_after(before, 100).unwrap();
    assert_eq!(commits.len(), 21, "and a watch sees each");
    assert_eq!(
        core.journal()
            .all()
            .iter()
            .filter(|entry| entry.kind == "slice.applied")
            .count(),
        21
    );
    let again = self::core(&store).await;
    assert_eq!(again.state().cluster.slices.len(), 21, "what was answered is stored");
    let known = again.mutate(apply("slice-0", "again")).await.unwrap();
    assert_eq!(Some(&known), answers.first());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_change_by_itself_is_made_where_it_is_asked_for_and_keeps_no_other_task_waiting() {
    let store = Held::new();
    let core = core(&store).await;
    store.with(|inner| inner.shut = true);
    let change = tokio::spawn(async move {
        let thread = std::thread::current().id();
        core.mutate(apply("first", "first")).await.unwrap();
        thread == std::thread::current().id()
    });
    store.waits().await;
    let other = tokio::spawn(async { "done" }).await.unwrap();
    assert_eq!(other, "done", "while the only worker waits for the disk");
    store.with(|inner| inner.shut = false);
    assert!(change.await.unwrap(), "no other thread answered");
}

#[tokio::test]
async fn when_a_group_cannot_be_stored_nobody_of_it_is_told_that_it_was() {
    let store = Held::new();
    let core = core(&store).await;
    store.with(|inner| inner.shut = true);
    let first = tokio::spawn({
        let core = core.clone();
        async move { core.mutate(apply("first", "first")).await }
    });
    store.waits().await;
    let mut two = std::pin::pin!(join_all([core.mutate(apply("a", "a")), core.mutate(apply("b", "b"))]));
    assert!(poll!(&mut two).is_pending());
    store.with(|inner| (inner.shut, inner.broken) = (false, true));
    assert!(matches!(first.await.unwrap(), Err(CoreError::Store(_))));
    for answer in two.await {
        assert!(
            matches!(answer, Err(CoreError::Store(_) | CoreError::Stopping)),
            "{answer:?}"
        );
    }
    assert!(core.failed() && core.state().cluster.slices.is_empty());
    let late = core.mutate(apply("c", "c")).await;
    assert!(matches!(late, Err(CoreError::Stopping)));
}
