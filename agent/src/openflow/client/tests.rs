//! The client against a switch that does what a real one cannot be made to do.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Mutex;

use tokio::net::UnixListener;
use tokio_util::sync::DropGuard;

use super::*;
use crate::openflow::wire::{Incoming, Writer, kind};
use crate::openflow::{Actions, Match, execute, plan};

/// Longest wait for what must come.
const SOON: Duration = Duration::from_secs(10);
/// The client's patience in these tests.
const LIMIT: Duration = Duration::from_millis(200);

/// What the switch has heard over all connections, and how it behaves.
#[derive(Default)]
struct State {
    connections: usize,
    /// Kind of each message, and for bundles their number.
    heard: Vec<(u8, u32)>,
    /// Answers nothing but echoes and greetings.
    silent: bool,
    /// Flags of its configuration.
    flags: u16,
    /// Keeps its configuration: without a word, or with this error.
    keeps_flags: Option<Option<(u16, u16)>>,
    /// The error that each meter gets.
    no_meters: Option<(u16, u16)>,
}

struct Fake {
    state: Arc<Mutex<State>>,
    client: Client,
    _dir: tempfile::TempDir,
    _cancel: DropGuard,
}

impl Fake {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("br.mgmt");
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let cancel = CancellationToken::new();
        let (shared, token) = (state.clone(), cancel.clone());
        tokio::spawn(token.run_until_cancelled_owned(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.lock().unwrap().connections += 1;
                serve(stream, &shared).await;
            }
        }));
        let client = Client::start(path, cancel.clone()).answer_within(LIMIT);
        client.ready(SOON).await.unwrap();
        Self {
            state,
            client,
            _dir: dir,
            _cancel: cancel.drop_guard(),
        }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    fn bundles(&self) -> Vec<u32> {
        let state = self.state.lock().unwrap();
        let opened = state.heard.iter().filter(|(kind, _)| *kind == kind::BUNDLE_CONTROL);
        opened.map(|(_, id)| *id).collect()
    }
}

/// One connection, to its end.
async fn serve(mut stream: UnixStream, state: &Mutex<State>) {
    let mut framer = Framer::default();
    let mut chunk = vec![0; 4096];
    loop {
        let Ok(read @ 1..) = stream.read(&mut chunk).await else {
            return;
        };
        framer.push(&chunk[..read]);
        for message in framer.drain().unwrap() {
            if let Some(bytes) = answer(&message, &mut state.lock().unwrap()) {
                stream.try_write(&bytes).unwrap();
            }
        }
    }
}

fn answer(message: &Incoming, state: &mut State) -> Option<Vec<u8>> {
    let Incoming { kind, xid, body, .. } = message;
    let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
    let bundle = if *kind == kind::BUNDLE_CONTROL {
        number(&body[..4])
    } else {
        0
    };
    state.heard.push((*kind, bundle));
    let greeting = *kind == kind::HELLO || *xid == super::super::session::MONITOR;
    if state.silent && !greeting {
        return None;
    }
    let reply = match *kind {
        kind::HELLO => codec::hello(),
        // Of the same part, and empty.
        kind::MULTIPART_REQUEST => {
            let mut whole = Writer::default();
            whole.raw(&body[..2]).zeros(6);
            Message::new(kind::MULTIPART_REPLY, whole.0)
        }
        kind::METER_MOD => error(state.no_meters?),
        kind::CONFIG_REQUEST => {
            let mut config = Writer::default();
            config.u16(state.flags).u16(128);
            Message::new(kind::CONFIG_REPLY, config.0)
        }
        kind::SET_CONFIG => match state.keeps_flags {
            Some(said) => error(said?),
            None => {
                assert_eq!(body[2..], [0, 128], "what else the configuration holds is kept");
                state.flags = u16::from_be_bytes([body[0], body[1]]);
                return None;
            }
        },
        kind::BARRIER_REQUEST => Message::new(21, Vec::new()),
        // An acknowledgement looks like the request.
        kind::BUNDLE_CONTROL => Message::new(kind::BUNDLE_CONTROL, body.clone()),
        _ => return None,
    };
    Some(reply.bytes(*xid).unwrap())
}

fn error((kind_of_error, code): (u16, u16)) -> Message {
    let mut error = Writer::default();
    error.u16(kind_of_error).u16(code);
    Message::new(kind::ERROR, error.0)
}

fn flow(number: u32) -> Flow {
    Flow::new(
        0,
        1,
        Cookie::ours(number),
        Match::any().in_port(number),
        Actions::drop(),
    )
}

#[tokio::test]
async fn who_is_not_connected_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::start(dir.path().join("nobody"), CancellationToken::new());
    let begin = Instant::now();
    for _ in 0..50 {
        let error = client.table().await.unwrap_err();
        assert!(matches!(error, Error::NotConnected { .. }), "{error}");
    }
    assert!(begin.elapsed() < MIN_PAUSE, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_request_that_cannot_even_be_handed_over_has_the_same_time_limit() {
    let (exchanges, _queue) = mpsc::channel(1);
    let (_ticks, ticks) = watch::channel(0);
    let (_link, link) = watch::channel(Link::Up);
    let client = Client {
        exchanges,
        ticks,
        link,
        mirror: Mirror::default(),
        turn: Arc::default(),
        limit: LIMIT,
        socket: "none".into(),
    };
    let begin = Instant::now();
    let (first, second) = tokio::join!(client.table(), client.table());
    for result in [first, second] {
        assert!(matches!(result, Err(Error::Timeout(LIMIT))), "{result:?}");
    }
    assert!(begin.elapsed() < 2 * LIMIT + GRACE, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_sent() {
    let (outgoing, mut sent) = mpsc::unbounded_channel();
    let mut session = Session::new(outgoing, Mirror::default());
    let mut ask = |gone: bool| {
        let (reply, answer) = oneshot::channel();
        let kept = (!gone).then_some(answer);
        let exchange = Exchange {
            messages: vec![Planned::Plain(codec::barrier())],
            since: None,
            deadline: Instant::now(),
            reply,
        };
        session.forward(exchange).unwrap();
        (kept, session.due().is_some())
    };
    let (_, waits) = ask(true);
    assert!(!waits && sent.try_recv().is_err());
    let (_answer, waits) = ask(false);
    assert!(waits && sent.try_recv().is_ok());
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_the_connection_and_the_next_one_is_of_use() {
    let fake = Fake::start().await;
    fake.set(|state| state.silent = true);
    let one = [flow(1)];
    let (slow, other) = tokio::join!(fake.client.table(), fake.client.commit(&[], &one));
    for result in [slow.map(drop), other] {
        assert!(
            matches!(result, Err(Error::Timeout(_) | Error::ConnectionLost)),
            "{result:?}"
        );
    }
    fake.set(|state| state.silent = false);
    fake.client.ready(SOON).await.unwrap();
    assert_eq!(fake.client.table().await.unwrap(), Table::default());
    fake.client.commit(&[], &[flow(1)]).await.unwrap();
    assert_eq!(fake.state.lock().unwrap().connections, 2);
}

#[tokio::test]
async fn no_two_commits_have_one_bundle() {
    let fake = Fake::start().await;
    fake.client.commit(&[], &[flow(1)]).await.unwrap();
    fake.client.commit(&[], &[flow(2)]).await.unwrap();
    fake.set(|state| state.silent = true);
    fake.client.commit(&[], &[flow(3)]).await.unwrap_err();
    fake.set(|state| state.silent = false);
    fake.client.ready(SOON).await.unwrap();
    fake.client.commit(&[], &[flow(3)]).await.unwrap();
    // Each is opened and committed; the third never came so far.
    assert_eq!(fake.bundles(), [1, 1, 2, 2, 3, 4, 4]);
}

#[tokio::test]
async fn meters_that_the_switch_cannot_have_are_named_before_any_flow_is_set() {
    let fake = Fake::start().await;
    fake.set(|state| state.no_meters = Some((12, 11)));
    let meter = Meter { rate: 9, burst: 9 };
    let limited = |number: u32| {
        let mut flow = flow(number);
        flow.actions = Actions::normal().metered(Meter::OURS | number);
        flow
    };
    let mut desired: FlowSet = [limited(1), limited(2), flow(3)].into_iter().collect();
    desired.meters = [(Meter::OURS | 1, meter), (Meter::OURS | 2, meter)].into();
    let there = FlowSet::default();
    let error = execute(&plan(&desired, &there), &fake.client).await.unwrap_err();
    assert!(
        error.is_answer() && error.to_string().contains("refused 2 of the meters"),
        "{error}"
    );
    let Error::Unmetered { refused } = error else {
        panic!("{error}")
    };
    assert_eq!(
        refused.keys().copied().collect::<Vec<_>>(),
        [Meter::OURS | 1, Meter::OURS | 2]
    );
    assert!(refused[&(Meter::OURS | 1)].contains("no meters at all"), "{refused:?}");
    assert_eq!(fake.bundles(), Vec::<u32>::new());

    desired.do_without(refused.keys(), &there);
    assert!(desired.flows.values().all(|(_, actions)| actions.meter.is_none()));
    execute(&plan(&desired, &there), &fake.client).await.unwrap();

    // An error of another kind is no matter of meters.
    fake.set(|state| state.no_meters = Some((1, 5)));
    let error = fake.client.set_meters(&[(5, meter)].into(), &BTreeMap::new()).await;
    assert!(matches!(error, Err(Error::Refused { .. })), "{error:?}");
}

#[tokio::test]
async fn fragments_that_the_switch_does_not_show_are_an_error_whether_it_says_so_or_not() {
    let fake = Fake::start().await;
    for said in [None, Some((10, 0))] {
        fake.set(|state| state.keeps_flags = Some(said));
        let error = fake.client.match_fragments().await.unwrap_err();
        assert!(error.is_answer(), "{error}");
        assert!(error.to_string().contains("the ports of fragments"), "{error}");
        assert_eq!(fake.client.table().await.unwrap().fragments, Fragments::Hidden);
    }
    fake.set(|state| state.keeps_flags = None);
    fake.client.match_fragments().await.unwrap();
    assert_eq!(fake.client.table().await.unwrap().fragments, Fragments::Matched);
    // Somebody changes it by hand.
    fake.set(|state| state.flags = 0);
    assert_eq!(fake.client.table().await.unwrap().fragments, Fragments::Hidden);
    fake.client.match_fragments().await.unwrap();
    assert_eq!(fake.state.lock().unwrap().flags, 3);
}

#[test]
fn a_meter_whose_change_is_refused_stays_as_it_is() {
    let limited = |rate| {
        let mut flow = flow(1);
        flow.actions = Actions::normal().metered(Meter::OURS | 1);
        let mut set: FlowSet = [flow].into_iter().collect();
        set.meters.insert(Meter::OURS | 1, Meter { rate, burst: rate });
        set
    };
    let there = limited(10);
    let mut desired = limited(20);
    desired.do_without([&(Meter::OURS | 1)], &there);
    assert!(plan(&desired, &there).is_empty());
}
