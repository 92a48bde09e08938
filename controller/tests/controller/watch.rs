//! Watches and the journal, over real mutual TLS.

use std::collections::BTreeSet;

use crate::api::{error, with_workers};
use crate::common::{
    Controller, DEADLINE, apply, eventually,
    node::{Disk, Node},
    pair, vm,
};
use tokio::time::timeout;
use tonic::{Code, Streaming};
use trunkline_proto::{
    client::ApiError,
    wire::{self, watch_slices_response::Change},
};

async fn next(stream: &mut Streaming<wire::WatchSlicesResponse>) -> (u64, Change) {
    let message = timeout(DEADLINE, stream.message())
        .await
        .expect("the watch says nothing")
        .unwrap()
        .unwrap();
    (message.revision, message.change.unwrap())
}

#[tokio::test]
async fn a_watch_resumes_where_it_was_and_says_when_it_cannot() {
    let controller = Controller::start_with(|config| config.state.watch_history = 3).await;
    let _w1 = Node::up(&controller, Disk::worker("w1")).await;
    let operator = controller.operator().await;
    let slice = |name: &str| wire::SliceSpec {
        name: name.into(),
        vms: vec![vm("a", "w1", 0)],
        ..wire::SliceSpec::default()
    };
    operator
        .slices()
        .apply_slices(apply(vec![slice("one")], false))
        .await
        .unwrap();
    let watch = |from_revision| async move {
        let request = wire::WatchSlicesRequest {
            from_revision,
            slices: Vec::new(),
        };
        operator
            .watch()
            .watch_slices(request)
            .await
            .map(tonic::Response::into_inner)
    };
    let operator = controller.operator().await;
    let mut stream = watch(0).await.unwrap();
    let (_, change) = next(&mut stream).await;
    assert!(matches!(change, Change::Put(slice) if slice.name == "one"));
    let (synced, change) = next(&mut stream).await;
    assert!(matches!(change, Change::Synced(_)));
    operator
        .slices()
        .apply_slices(apply(vec![slice("two")], false))
        .await
        .unwrap();
    let (_, change) = next(&mut stream).await;
    assert!(matches!(change, Change::Put(slice) if slice.name == "two"));
    drop(stream);

    // Away for two commits: both come, in order.
    let list = operator
        .slices()
        .list_slices(wire::ListSlicesRequest::default())
        .await
        .unwrap()
        .into_inner();
    operator
        .slices()
        .apply_slices(apply(vec![slice("three")], false))
        .await
        .unwrap();
    let delete = wire::DeleteSliceRequest {
        request_id: "d".into(),
        name: "one".into(),
        expected_revision: 0,
    };
    operator.slices().delete_slice(delete).await.unwrap();
    let request = wire::WatchSlicesRequest {
        from_revision: list.revision,
        slices: Vec::new(),
    };
    let mut stream = operator.watch().watch_slices(request).await.unwrap().into_inner();
    assert!(matches!(next(&mut stream).await.1, Change::Put(slice) if slice.name == "three"));
    assert!(matches!(next(&mut stream).await.1, Change::Deleted(name) if name == "one"));

    // Away for too long.
    for n in 0..4 {
        operator
            .slices()
            .apply_slices(apply(vec![slice(&format!("more{n}"))], false))
            .await
            .unwrap();
    }
    for from_revision in [synced, u64::MAX] {
        let request = wire::WatchSlicesRequest {
            from_revision,
            slices: Vec::new(),
        };
        let status = operator.watch().watch_slices(request).await.unwrap_err();
        assert_eq!(error(status), (Code::OutOfRange, "REVISION_COMPACTED".into()));
    }
}

#[tokio::test]
async fn a_watch_of_the_status_begins_with_what_is_and_follows() {
    let (controller, operator) = with_workers().await;
    let mut w1 = Node::connect(&controller, Disk::worker("w1")).await.unwrap();
    w1.take().await;
    let solo = wire::SliceSpec {
        name: "solo".into(),
        vms: vec![vm("a", "w1", 0)],
        ..wire::SliceSpec::default()
    };
    operator.slices().apply_slices(apply(vec![solo], true)).await.unwrap();
    let request = wire::WatchStatusRequest {
        slices: vec!["solo".into()],
        brief: false,
    };
    let mut stream = operator.watch().watch_status(request).await.unwrap().into_inner();
    w1.take().await;
    w1.report_ready().await;
    let ready = async {
        loop {
            let status = stream.message().await.unwrap().unwrap().status.unwrap();
            if status.slices[0].state() == wire::State::Ready {
                return;
            }
        }
    };
    timeout(DEADLINE, ready).await.expect("never ready");
    let journal = || async {
        operator
            .events()
            .list_events(wire::ListEventsRequest::default())
            .await
            .unwrap()
            .into_inner()
            .events
    };
    eventually("slice.ready", journal, |events| {
        events.iter().any(|e| e.r#type == "slice.ready" && e.slice == "solo")
    })
    .await;
}

#[tokio::test]
async fn the_journal_says_who_did_what_and_can_be_followed() {
    let (_controller, operator) = with_workers().await;
    let request = wire::FollowEventsRequest {
        filter: Some(wire::EventFilter {
            slice: "shop".into(),
            ..Default::default()
        }),
        after_sequence: 0,
    };
    let mut follow = operator.events().follow_events(request).await.unwrap().into_inner();
    operator
        .slices()
        .apply_slices(apply(vec![pair("shop"), pair("other")], true))
        .await
        .unwrap();
    let mut kinds = BTreeSet::new();
    while !kinds.contains("slice.deployed") {
        let event = timeout(DEADLINE, follow.message())
            .await
            .expect("no event")
            .unwrap()
            .unwrap();
        assert_eq!(
            (event.slice.as_str(), event.actor.as_str()),
            ("shop", "operator/alice"),
            "{event:?}"
        );
        kinds.insert(event.r#type);
    }
    let node = wire::EventFilter {
        node: "w1".into(),
        ..Default::default()
    };
    let list = wire::ListEventsRequest {
        filter: Some(node),
        page_size: 1,
        page_token: String::new(),
    };
    // That it has connected is told a moment later than that it joined.
    let look = || async { operator.events().list_events(list.clone()).await.unwrap().into_inner() };
    let more = |page: &wire::ListEventsResponse| !page.next_page_token.is_empty();
    let page = eventually("two entries", look, more).await;
    assert_eq!(page.events.len(), 1);
    let bad = wire::EventFilter {
        vlan: 5000,
        ..Default::default()
    };
    let status = operator
        .events()
        .list_events(wire::ListEventsRequest {
            filter: Some(bad),
            ..list
        })
        .await
        .unwrap_err();
    assert_eq!(ApiError::from(status).violations[0].field, "filter.vlan");
}

#[tokio::test]
async fn a_reader_that_stopped_reading_does_not_hold_up_the_end() {
    let mut controller = Controller::start().await;
    let _w1 = Node::up(&controller, Disk::worker("w1")).await;
    let operator = controller.operator().await;
    let big = wire::SliceSpec {
        name: "big".into(),
        vms: (0..800).map(|i| vm(&format!("a{i}"), "w1", 1)).collect(),
        ..wire::SliceSpec::default()
    };
    operator.slices().apply_slices(apply(vec![big], true)).await.unwrap();
    let request = wire::WatchStatusRequest::default();
    let stuck = operator.watch().watch_status(request).await.unwrap().into_inner();
    // Status messages of some hundred kilobytes each, which nobody takes: the transport's window is soon used up.
    let other = controller.operator().await;
    for i in 0..20 {
        let small = wire::SliceSpec {
            name: format!("s{i}"),
            vms: vec![vm("a", "w1", 0)],
            ..wire::SliceSpec::default()
        };
        other.slices().apply_slices(apply(vec![small], true)).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(110)).await;
    }
    // Fails when not everything ended in time.
    controller.down().await;
    drop(stuck);
}

#[tokio::test]
async fn a_restart_alone_is_no_news_of_a_slice() {
    let mut controller = Controller::start().await;
    let mut w1 = Node::up(&controller, Disk::worker("w1")).await;
    let operator = controller.operator().await;
    let solo = wire::SliceSpec {
        name: "solo".into(),
        vms: vec![vm("a", "w1", 1)],
        ..wire::SliceSpec::default()
    };
    operator
        .slices()
        .apply_slices(apply(vec![solo.clone()], true))
        .await
        .unwrap();
    w1.take().await;
    w1.report_ready().await;
    eventually(
        "ready",
        || states(&operator),
        |states| states.ends_with(&["slice.ready".into()]),
    )
    .await;
    let before = states(&operator).await;
    let disk = w1.disk.clone();
    drop((w1, operator));
    controller.down().await;
    controller.up().await.unwrap();
    let operator = controller.operator().await;
    let mut w1 = Node::connect(&controller, disk).await.unwrap();
    w1.report_ready().await;
    let known = || async {
        let request = wire::GetStatusRequest::default();
        operator.slices().get_status(request).await.unwrap().into_inner()
    };
    eventually("ready again", known, |s| s.slices[0].state() == wire::State::Ready).await;
    // What comes after it in the journal is there: so is whatever would have come before.
    let more = wire::SliceSpec {
        vms: vec![vm("a", "w1", 1), vm("b", "w1", 1)],
        ..solo
    };
    operator.slices().apply_slices(apply(vec![more], true)).await.unwrap();
    w1.take().await;
    w1.report_ready().await;
    let after = eventually(
        "ready once more",
        || states(&operator),
        |states| states.len() > before.len() && states.ends_with(&["slice.ready".into()]),
    )
    .await;
    assert_eq!(after[before.len()..], ["slice.ready"], "{after:?}");
}

/// The changes of slices' states in the journal.
async fn states(operator: &trunkline_proto::client::Client) -> Vec<String> {
    let events = operator.events().list_events(wire::ListEventsRequest::default()).await;
    let events = events
        .unwrap()
        .into_inner()
        .events
        .into_iter()
        .map(|event| event.r#type);
    let of_state = ["slice.ready", "slice.degraded", "slice.failed", "slice.unknown"];
    events.filter(|kind| of_state.contains(&kind.as_str())).collect()
}
