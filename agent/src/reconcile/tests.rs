use std::sync::{Mutex, atomic::AtomicUsize, atomic::Ordering};

use opentelemetry::trace::TracerProvider as _;
use tokio::{
    task::{JoinHandle, yield_now},
    time::timeout,
};
use tokio_util::task::TaskTracker;
use tracing_subscriber::layer::SubscriberExt;
use trunkline_proto::{
    Digest,
    resource::{Envelope, Kind, Spec, Trunk},
};

use super::*;
use crate::inbox::{Change, Judge};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// Time is paused: this is reached only when nothing else can happen.
const NEVER: Duration = Duration::from_secs(3600);

/// What the loop did with its host, and how the host behaves.
#[derive(Default)]
struct Record {
    passes: Mutex<Vec<(Instant, String)>>,
    counts: AtomicUsize,
    broken: std::sync::atomic::AtomicBool,
    /// Somebody undoes what a pass did, so each pass causes another.
    undone: Mutex<Option<Wake>>,
    /// What the host is built on, once it is known.
    facts: Mutex<HostFacts>,
    /// A pass never ends.
    stuck: std::sync::atomic::AtomicBool,
}

/// How long the fake host takes to know what it is built on.
const KNOWN: Duration = Duration::from_millis(20);

struct Fake(Arc<Record>);

impl Host for Fake {
    fn facts(&self) -> HostFacts {
        self.0.facts.lock().unwrap().clone()
    }

    async fn known(&self) {
        if self.0.stuck.load(Ordering::SeqCst) {
            tokio::time::sleep(KNOWN).await;
            "3.3.0".clone_into(&mut self.0.facts.lock().unwrap().ovs_version);
        }
    }

    async fn pass(&mut self, desired: &Desired) -> Pass {
        if self.0.stuck.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let mut passes = self.0.passes.lock().unwrap();
        passes.push((Instant::now(), telemetry::current_traceparent()));
        if let Some(wake) = &*self.0.undone.lock().unwrap() {
            wake.now();
        }
        let broken = self.0.broken.load(Ordering::SeqCst);
        Pass {
            observations: desired.all(if broken { State::Failed } else { State::Ready }, ""),
            clean: true,
            retry_after: None,
            ..Pass::default()
        }
    }

    async fn counters(&mut self, _: &Desired) -> Vec<Observation> {
        self.0.counts.fetch_add(1, Ordering::SeqCst);
        Vec::new()
    }
}

struct Stand {
    record: Arc<Record>,
    board: Arc<Board>,
    held: watch::Sender<Arc<Held>>,
    wake: Wake,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Stand {
    fn start(held: Held) -> Self {
        Self::start_with(held, Arc::default(), watch::channel(HostFacts::default()).0)
    }

    fn start_with(held: Held, record: Arc<Record>, facts: watch::Sender<HostFacts>) -> Self {
        let cancel = CancellationToken::new();
        let wake = Wake::new(TaskTracker::new(), cancel.clone());
        let board = Arc::new(Board::default());
        let (held, receiver) = watch::channel(Arc::new(held));
        let reconcile = Reconcile {
            host: Fake(record.clone()),
            held: receiver,
            wake: wake.clone(),
            board: board.clone(),
            facts,
            tried: watch::channel(false).0,
            metrics: NodeMetrics::default(),
            doing: Doing::default(),
            cancel: cancel.clone(),
        };
        let task = tokio::spawn(reconcile.run());
        Self {
            record,
            board,
            held,
            wake,
            cancel,
            task,
        }
    }

    async fn settle(&self) {
        for _ in 0..20 {
            yield_now().await;
        }
    }

    fn passes(&self) -> usize {
        self.record.passes.lock().unwrap().len()
    }

    async fn passes_reach(&self, count: usize) {
        let wait = async {
            while self.passes() < count {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(NEVER, wait).await.expect("so many passes never came");
    }

    async fn end(self) {
        self.cancel.cancel();
        self.task.await.unwrap();
    }
}

pub(super) fn held(generation: u64, vlan: u32, trace: &str) -> Held {
    let vlans = [trunkline_proto::VlanId::try_from(vlan).unwrap()].into();
    let envelope = Envelope::seal(&Spec::Trunk(Trunk { vlans }), trace);
    let change = Change {
        cluster_id: "c1".to_owned(),
        position: Position { term: 1, generation },
        base: 0,
        digest: Digest::of([(&envelope.key, envelope.hash)]),
        upserts: vec![envelope],
        removals: vec![],
        intended: true,
    };
    let judge = Judge {
        kinds: &[Kind::Trunk],
        validate: Arc::new(|_| Ok(())),
    };
    Held::default().take(change, &judge).unwrap()
}

/// `before`, and then VLAN 101 in place of what it had, in a version that this node refuses.
fn refused(before: &Held) -> Held {
    let vlans = [trunkline_proto::VlanId::try_from(101).unwrap()].into();
    let envelope = Envelope::seal(&Spec::Trunk(Trunk { vlans }), "");
    let change = Change {
        cluster_id: "c1".to_owned(),
        position: Position {
            term: 1,
            generation: before.position.generation + 1,
        },
        base: before.position.generation,
        digest: Digest::of([(&envelope.key, envelope.hash)]),
        upserts: vec![envelope],
        removals: vec![],
        intended: true,
    };
    let judge = Judge {
        kinds: &[Kind::Trunk],
        validate: Arc::new(|_| Err("no".to_owned())),
    };
    before.take(change, &judge).unwrap()
}

#[tokio::test(start_paused = true)]
async fn no_pass_is_run_before_anything_is_known() {
    let stand = Stand::start(Held::default());
    stand.wake.now();
    tokio::time::sleep(REREAD_EVERY * 3).await;
    assert_eq!(stand.passes(), 0);
    stand.held.send_replace(Arc::new(held(1, 110, "")));
    stand.settle().await;
    assert_eq!(stand.passes(), 1);
    stand.end().await;
}

#[tokio::test(start_paused = true)]
async fn any_number_of_wakes_is_one_pass_and_it_starts_at_once() {
    let stand = Stand::start(held(1, 110, ""));
    stand.settle().await;
    assert_eq!(stand.passes(), 1);
    let before = Instant::now();
    for _ in 0..100 {
        stand.wake.now();
    }
    stand.settle().await;
    assert_eq!(stand.passes(), 2);
    assert_eq!(Instant::now(), before);
    stand.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_whole_is_read_again_on_a_long_timer() {
    let stand = Stand::start(held(1, 110, ""));
    stand.passes_reach(3).await;
    let passes = stand.record.passes.lock().unwrap().clone();
    assert!(passes[2].0 - passes[1].0 >= REREAD_EVERY);
    stand.end().await;
}

#[tokio::test(start_paused = true)]
async fn counters_are_read_between_passes_and_cause_none() {
    let stand = Stand::start(held(1, 110, ""));
    stand.settle().await;
    tokio::time::sleep(REREAD_EVERY - Duration::from_secs(1)).await;
    assert_eq!((stand.passes(), stand.record.counts.load(Ordering::SeqCst)), (1, 5));
    stand.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_with_growing_pauses_up_to_a_limit() {
    let stand = Stand::start(held(1, 110, ""));
    stand.record.broken.store(true, Ordering::SeqCst);
    stand.passes_reach(12).await;
    let at: Vec<Instant> = stand.record.passes.lock().unwrap().iter().map(|(at, _)| *at).collect();
    let pauses: Vec<Duration> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] < Duration::from_secs(1), "{pauses:?}");
    assert!(
        pauses
            .windows(2)
            .all(|pair| pair[0] <= pair[1] + Duration::from_millis(2)),
        "{pauses:?}"
    );
    assert!(
        pauses[10] >= RETRY_MOST && pauses[10] < RETRY_MOST + Duration::from_secs(1),
        "{pauses:?}"
    );

    // New desired state is tried at once, and from the shortest pause on.
    stand.held.send_replace(Arc::new(held(2, 111, "")));
    let changed = Instant::now();
    stand.passes_reach(14).await;
    assert!(Instant::now() - changed < Duration::from_secs(1));
    stand.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pass_carries_the_trace_of_what_changed_and_an_unchanged_one_does_not() {
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

    let stand = Stand::start(held(1, 110, ""));
    stand.settle().await;
    stand.held.send_replace(Arc::new(held(2, 111, TRACE)));
    stand.settle().await;
    stand.wake.now();
    stand.settle().await;
    let traces: Vec<String> = stand
        .record
        .passes
        .lock()
        .unwrap()
        .iter()
        .map(|(_, trace)| trace.clone())
        .collect();
    let of_change: Vec<bool> = traces.iter().map(|trace| trace.starts_with(&TRACE[..35])).collect();
    assert_eq!(of_change, [false, true, false], "{traces:?}");
    stand.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_the_host_forgot_is_failed() {
    let held = held(1, 110, "");
    let seen = judge(&held, &held.desired(), Pass::default());
    assert_eq!(seen.observations.len(), 1);
    assert_eq!(seen.observations[0].state, State::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_undoes_everything_does_not_keep_the_loop_busy() {
    let stand = Stand::start(held(1, 110, ""));
    stand.settle().await;
    *stand.record.undone.lock().unwrap() = Some(stand.wake.clone());
    stand.wake.now();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let busy = stand.passes();
    assert!((100..300).contains(&busy), "{busy} passes in a minute");

    // The controller is heard at once all the same.
    let before = Instant::now();
    stand.held.send_replace(Arc::new(held(2, 111, "")));
    stand.settle().await;
    assert_eq!((stand.passes(), Instant::now()), (busy + 1, before));

    // Once that has ended, the host is heard at once again.
    *stand.record.undone.lock().unwrap() = None;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let (passes, before) = (stand.passes(), Instant::now());
    stand.wake.now();
    stand.settle().await;
    assert_eq!((stand.passes(), Instant::now()), (passes + 1, before));
    stand.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_is_not_clean_while_the_version_before_a_refused_one_stays() {
    let one = held(1, 100, "");
    let two = refused(&one);
    assert!(
        two.desired()
            .trunks()
            .next()
            .unwrap()
            .2
            .vlans
            .iter()
            .any(|vlan| vlan.get() == 100)
    );
    let stand = Stand::start(one);
    stand.settle().await;
    stand.board.begin();
    assert_eq!(stand.board.take(Instant::now()).clean_generation, 1);
    stand.held.send_replace(Arc::new(two));
    stand.settle().await;
    assert!(stand.passes() > 1);
    stand.board.begin();
    let report = stand.board.take(Instant::now());
    assert_ne!(report.clean_generation, 2, "VLAN 100 is still in use: {report:?}");
    stand.end().await;
}

#[test]
fn a_vlan_that_does_not_pass_is_no_reason_for_another_pass() {
    let settled = |kind, state| {
        is_settled(&Observation {
            key: Key {
                kind,
                name: "x".parse().unwrap(),
            },
            hash: trunkline_proto::Hash::of(b""),
            state,
            reason: String::new(),
            facts: None,
        })
    };
    for state in [State::Pending, State::Degraded] {
        assert!(settled(Kind::Probe, state) && !settled(Kind::Port, state));
    }
    // Its port may be mended by one.
    for state in [State::Failed, State::Unknown] {
        assert!(!settled(Kind::Probe, state));
    }
    assert!(settled(Kind::Probe, State::Ready));
}

#[tokio::test(start_paused = true)]
async fn what_the_host_is_built_on_is_told_while_the_first_pass_still_runs() {
    let record = Arc::new(Record::default());
    record.stuck.store(true, Ordering::SeqCst);
    let (sender, mut facts) = watch::channel(HostFacts::default());
    let stand = Stand::start_with(held(1, 110, ""), record, sender);
    let known = timeout(NEVER, facts.wait_for(|facts| facts.ovs_version == "3.3.0")).await;
    assert!(known.is_ok_and(|known| known.is_ok()));
    assert_eq!(stand.passes(), 0);
    stand.task.abort();
}
