//! What guards the nodes, and what guards the controller from a node: held removals, one identity twice, reports that cannot be.

use std::collections::BTreeMap;

use tonic::Code;
use trunkline_certs::Role;
use trunkline_controller::backup;
use trunkline_proto::{
    client::{ApiError, Client, new_request_id},
    wire::{self, controller_message::Message as Down, node_message::Message as Up},
};

use crate::common::{
    Controller, apply, eventually, link,
    node::{Disk, Node},
    pair, vm,
};

fn reason(status: tonic::Status) -> (Code, String) {
    let error = ApiError::from(status);
    (error.code, error.reason.unwrap_or_default())
}

async fn events(operator: &Client, kind: &str) -> Vec<wire::Event> {
    let request = wire::ListEventsRequest {
        page_size: 1000,
        ..wire::ListEventsRequest::default()
    };
    let all = operator
        .events()
        .list_events(request)
        .await
        .unwrap()
        .into_inner()
        .events;
    all.into_iter().filter(|event| event.r#type == kind).collect()
}

async fn node(operator: &Client, name: &str) -> wire::GetNodeResponse {
    let request = wire::GetNodeRequest { name: name.into() };
    operator.fleet().get_node(request).await.unwrap().into_inner()
}

/// w1, w2 and n1, with slice `shop` on them, taken and reported.
async fn shop() -> (Controller, Client, [Node; 3]) {
    shop_on(Controller::start().await).await
}

async fn shop_on(controller: Controller) -> (Controller, Client, [Node; 3]) {
    let mut nodes = [
        Node::up(&controller, Disk::worker("w1")).await,
        Node::up(&controller, Disk::worker("w2")).await,
        Node::up(&controller, Disk::netnode("n1")).await,
    ];
    let operator = controller.operator().await;
    operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap();
    for node in &mut nodes {
        node.take().await;
        node.report_ready().await;
    }
    (controller, operator, nodes)
}

fn key(node: &Node, name: &str) -> wire::ResourceKey {
    let found = node.disk.held.keys().find(|key| key.name.as_str().starts_with(name));
    found.unwrap_or_else(|| panic!("{name} is not held")).into()
}

fn seconds_from_now(seconds: i64) -> Option<prost_types::Timestamp> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Some(prost_types::Timestamp {
        seconds: i64::try_from(now.as_secs()).unwrap() + seconds,
        nanos: 0,
    })
}

/// Both ends share this process: making large messages takes longer than a heartbeat of the other tests.
async fn patient() -> Controller {
    Controller::start_with(|config| {
        config.nodes.heartbeat = trunkline_proto::daemon::DurationText(std::time::Duration::from_secs(60));
    })
    .await
}

fn repair(key: wire::ResourceKey, what: &str) -> wire::Repair {
    wire::Repair {
        key: Some(key),
        what: what.into(),
        at: seconds_from_now(0),
    }
}

fn dropped(controller: &Controller, reason: &str) -> u64 {
    let start = format!("trunkline_report_items_dropped_total{{reason=\"{reason}\"}} ");
    let text = controller.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn what_a_node_put_right_is_told_with_its_slice_and_vlan() {
    let (_controller, operator, [w1, _w2, n1]) = shop().await;
    let report = |repairs| {
        Up::Report(wire::Report {
            repairs,
            ..wire::Report::default()
        })
    };
    let port = key(&w1, "tap_1000_eth1");
    w1.send(report(vec![repair(port, "switch port had\ttag 120, not 100")]))
        .await;
    let gateway = key(&n1, "gw_vlan100");
    let late = wire::Repair {
        at: seconds_from_now(-86_400),
        ..repair(gateway, "its address was gone")
    };
    n1.send(report(vec![late, repair(key(&n1, "uplink"), "trunks was empty")]))
        .await;
    let look = || events(&operator, "drift.repaired");
    let mut told = eventually("told", look, |events| events.len() == 3).await;
    told.sort_by_key(|event| event.message.clone());
    let said = |event: &wire::Event| (event.actor.clone(), event.slice.clone(), event.node.clone(), event.vlan);
    let [gateway, trunk, port] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(said(port), ("worker/w1".into(), "shop".into(), "w1".into(), 100));
    assert_eq!(
        port.message,
        "w1 put right port tap_1000_eth1: switch port had tag 120, not 100"
    );
    assert_eq!(said(gateway), ("netnode/n1".into(), "shop".into(), "n1".into(), 100));
    assert!(gateway.message.contains("by its own clock"), "{}", gateway.message);
    let filter = wire::EventFilter {
        slice: "shop".into(),
        node: "n1".into(),
        vlan: 100,
        since: seconds_from_now(-600),
    };
    let request = wire::FollowEventsRequest {
        filter: Some(filter),
        after_sequence: 0,
    };
    let mut followed = operator.events().follow_events(request).await.unwrap().into_inner();
    assert_eq!(followed.message().await.unwrap().as_ref(), Some(gateway));
    assert_eq!(said(trunk), ("netnode/n1".into(), String::new(), "n1".into(), 0));
}

#[tokio::test]
async fn a_repair_that_is_told_again_in_a_new_session_is_one() {
    let (controller, operator, [w1, w2, _n1]) = shop().await;
    let told = repair(key(&w1, "tap_1000_eth1"), "switch port had tag 120, not 100");
    let later = wire::Repair {
        at: seconds_from_now(5),
        ..told.clone()
    };
    let send = |repairs: Vec<wire::Repair>| {
        Up::Report(wire::Report {
            repairs,
            ..wire::Report::default()
        })
    };
    w1.send(send(vec![told.clone(), told.clone()])).await;
    let look = || events(&operator, "drift.repaired");
    eventually("told", look, |events| !events.is_empty()).await;
    let disk = w1.disk.clone();
    drop(w1);
    let w1 = Node::connect(&controller, disk).await.unwrap();
    w1.send(send(vec![told, later])).await;
    w2.send(send(vec![repair(key(&w2, "tap_1001_eth1"), "last")])).await;
    let events = eventually("the last", look, |events| {
        events.iter().any(|e| e.message.ends_with("last"))
    })
    .await;
    let of_w1 = || events.iter().filter(|e| e.node == "w1");
    assert_eq!(of_w1().count(), 2, "it happened again, and was told again: {events:?}");
}

#[tokio::test]
async fn a_node_that_repairs_in_a_loop_does_not_flush_the_journal() {
    let (controller, operator, [w1, w2, _n1]) = shop_on(patient().await).await;
    let before = events(&operator, "slice.deployed").await.len();
    for report in 0..50 {
        let repairs = (0..2000).map(|n| repair(key(&w1, "tap_1000_eth1"), &format!("tag {report} {n}")));
        let repairs = repairs.collect();
        let report = wire::Report {
            repairs,
            ..wire::Report::default()
        };
        w1.send(Up::Report(report)).await;
    }
    let one = vec![repair(key(&w2, "tap_1001_eth1"), "tag")];
    let report = wire::Report {
        repairs: one,
        ..wire::Report::default()
    };
    eventually(
        "all of it came",
        || async { dropped(&controller, "too_many") },
        |n| *n == 50_000,
    )
    .await;
    w2.send(Up::Report(report)).await;
    let look = || events(&operator, "drift.repaired");
    let told = eventually("the other one's", look, |told| told.iter().any(|e| e.node == "w2")).await;
    assert_eq!(told.iter().filter(|e| e.node == "w1").count(), 30);
    assert_eq!(events(&operator, "slice.deployed").await.len(), before);
}

#[tokio::test]
async fn what_a_report_cannot_say_is_refused_by_reason_and_the_stream_goes_on() {
    let (controller, operator, [mut w1, ..]) = shop().await;
    let port = key(&w1, "tap_1000_eth1");
    let unknown = wire::ResourceKey {
        name: "tap_9999_eth9".into(),
        ..port.clone()
    };
    let repairs = vec![
        repair(unknown, "it was there"),
        repair(port.clone(), ""),
        repair(port.clone(), &"x".repeat(100_000)),
        wire::Repair {
            at: seconds_from_now(10 * 365 * 86_400),
            ..repair(port.clone(), "tomorrow")
        },
        wire::Repair {
            key: None,
            ..repair(port.clone(), "nothing")
        },
    ];
    let probe = key(&w1, "probe_vlan100");
    let held = w1.disk.held.clone();
    let hash = |key: &wire::ResourceKey| held.values().find(|r| r.name == key.name).unwrap().hash.clone();
    let path = |key: &wire::ResourceKey, largest, last_seen_ms, state: wire::State| {
        let path = wire::ProbePath {
            peer: "w2".into(),
            largest,
            last_seen_ms,
            ..wire::ProbePath::default()
        };
        wire::Observation {
            key: Some(key.clone()),
            hash: hash(key),
            state: state.into(),
            reason: "made up".into(),
            facts: Some(wire::observation::Facts::Probe(wire::ProbeFacts {
                paths: vec![path],
                period_ms: 1000,
            })),
        }
    };
    let orphan = |name: String, since| wire::Orphan {
        kind: "tap".into(),
        name,
        since,
    };
    let orphans = vec![
        orphan("y".repeat(1 << 20), None),
        orphan("later".into(), seconds_from_now(10 * 365 * 86_400)),
        orphan("tap_1077_eth1".into(), seconds_from_now(-5)),
    ];
    let report = wire::Report {
        items: vec![
            path(&probe, 70_000, 1, wire::State::Failed),
            path(&probe, 1500, u64::MAX, wire::State::Ready),
            path(&port, 1500, 1, wire::State::Ready),
        ],
        repairs,
        orphans: Some(wire::Orphans { orphans }),
        held_removals: Some(wire::HeldRemovals {
            term: 1,
            generation: 1_000_000,
            keys: vec![port.clone()],
            ..wire::HeldRemovals::default()
        }),
        seen_term: 1,
        seen_generation: 1_000_000,
        ..wire::Report::default()
    };
    w1.send(Up::Report(report)).await;
    let look = || node(&operator, "w1");
    let seen = eventually("the good leftover", look, |node| !node.orphans.is_empty()).await;
    let names: Vec<&str> = seen.orphans.iter().map(|orphan| orphan.name.as_str()).collect();
    assert_eq!((names, seen.held_removals), (vec!["later", "tap_1077_eth1"], None));
    for (reason, count) in [
        ("unknown_key", 1),
        ("repair", 3),
        ("impossible", 1),
        ("other_kind", 1),
        ("orphan", 1),
        // A path, a repair and a leftover by a clock that is years ahead: only their times are unknown.
        ("clock", 3),
        ("held_ahead", 1),
        ("seen_ahead", 1),
    ] {
        assert_eq!(dropped(&controller, reason), count, "{reason}");
    }
    assert!(
        seen.resources.iter().all(|r| r.state() == wire::State::Ready),
        "{:?}",
        seen.resources
    );
    let told = events(&operator, "drift.repaired").await;
    assert_eq!(told.len(), 1, "{told:?}");
    let seen = seen.resources.iter().find(|r| r.key.as_ref() == Some(&probe)).unwrap();
    let facts = seen.observation.as_ref().and_then(|o| o.facts.clone());
    let Some(wire::observation::Facts::Probe(facts)) = facts else {
        panic!("{facts:?}")
    };
    assert_eq!((facts.paths[0].largest, facts.paths[0].last_seen_ms), (1500, 0));
    w1.expect_nothing().await;
}

#[tokio::test]
async fn a_report_that_asks_for_a_receipt_has_one_when_it_was_taken() {
    let controller = Controller::start().await;
    let (_controller, operator, [mut w1, _w2, _n1]) = shop_on(controller).await;
    let key = w1.disk.held.keys().next().unwrap().into();
    let repair = wire::Repair {
        key: Some(key),
        what: "it was changed".into(),
        at: seconds_from_now(-5),
    };
    w1.send(Up::Report(wire::Report {
        repairs: vec![repair],
        receipt: 7,
        ..wire::Report::default()
    }))
    .await;
    let heard = w1.next().await.unwrap();
    assert_eq!(heard, Some(Down::Receipt(wire::Receipt { number: 7 })));
    assert_eq!(
        events(&operator, "drift.repaired").await.len(),
        1,
        "it is in the journal by then"
    );
}

#[tokio::test]
async fn a_million_items_are_bounded_and_a_message_without_bound_ends_the_session() {
    let (controller, operator, [w1, mut w2, _n1]) = shop_on(patient().await).await;
    let report = wire::Report {
        items: vec![wire::Observation::default(); 1_000_000],
        ..wire::Report::default()
    };
    w1.send(Up::Report(report)).await;
    let counted = || async { dropped(&controller, "too_many") };
    eventually("counted", counted, |n| *n == 980_000).await;
    w1.report_ready().await;
    assert!(node(&operator, "w1").await.node.unwrap().connected);
    let huge = wire::Repair {
        what: "x".repeat(10 << 20),
        ..wire::Repair::default()
    };
    let report = wire::Report {
        repairs: vec![huge],
        ..wire::Report::default()
    };
    w2.send(Up::Report(report)).await;
    let ended = w2.next().await.unwrap_err();
    assert!(
        matches!(ended.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{ended}"
    );
    let look = || node(&operator, "w2");
    eventually("w2 is gone", look, |node| !node.node.as_ref().unwrap().connected).await;
    Node::connect(&controller, w2.disk.clone()).await.unwrap();
}

#[tokio::test]
async fn leftovers_are_shown_and_told_once_however_often_the_node_says_them() {
    let (controller, operator, [w1, ..]) = shop().await;
    let orphan = |name: &str| wire::Orphan {
        kind: "tap".into(),
        name: name.into(),
        since: seconds_from_now(0),
    };
    let report = |orphans| {
        Up::Report(wire::Report {
            orphans: Some(wire::Orphans { orphans }),
            ..wire::Report::default()
        })
    };
    w1.send(report(vec![orphan("tap_1"), orphan("tap_2")])).await;
    let look = || async { node(&operator, "w1").await.orphans };
    eventually("two", look, |orphans| orphans.len() == 2).await;
    // In another session, too.
    let disk = w1.disk.clone();
    drop(w1);
    let w1 = Node::connect(&controller, disk).await.unwrap();
    w1.send(report(vec![orphan("tap_1"), orphan("tap_2")])).await;
    eventually("two again", look, |orphans| orphans.len() == 2).await;
    w1.send(report(vec![orphan("tap_2"), orphan("tap_3")])).await;
    w1.send(report(vec![])).await;
    eventually("none", look, Vec::is_empty).await;
    let told: Vec<String> = events(&operator, "node.orphans")
        .await
        .into_iter()
        .map(|e| e.message)
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].ends_with("tap tap_1, tap tap_2") && told[1].ends_with("tap tap_3"),
        "{told:?}"
    );
}

/// Ten VMs on w1, so that losing them is a lot.
fn many() -> wire::SliceSpec {
    wire::SliceSpec {
        name: "many".into(),
        vms: (0..10).map(|n| vm(&format!("vm{n}"), "w1", 1)).collect(),
        links: vec![link(&["vm0.eth1", "vm1.eth1"])],
        vlan_pool_size: 0,
    }
}

#[tokio::test]
async fn removals_that_operators_asked_for_are_marked_so_and_those_of_a_restore_are_not() {
    let (mut controller, operator, [mut w1, ..]) = shop().await;
    operator.slices().apply_slices(apply(vec![many()], true)).await.unwrap();
    assert!(w1.take().await.removals_intended);
    let undeploy = wire::UndeploySliceRequest {
        request_id: new_request_id(),
        name: "many".into(),
        expected_revision: 0,
    };
    // Also when the node hears of it late.
    let disk = w1.disk.clone();
    drop(w1);
    operator.slices().undeploy_slice(undeploy).await.unwrap();
    let mut w1 = Node::connect(&controller, disk.clone()).await.unwrap();
    let update = w1.take().await;
    assert!(update.removals_intended && update.removals.len() > 10, "{update:?}");
    drop(w1);
    // A node that holds what it was never given at its generation.
    let mut strange = disk.clone();
    let lost = strange
        .held
        .keys()
        .find(|key| key.name.as_str() == "tap_1000_eth1")
        .unwrap()
        .clone();
    strange.held.remove(&lost);
    let mut w1 = Node::connect(&controller, strange).await.unwrap();
    assert!(!w1.update().await.removals_intended);
    drop((w1, operator));
    // A restore: what the node holds is of another term.
    controller.down().await;
    let file = controller.dir.path().join("export.jsonl");
    backup::export(controller.state_dir(), &file, std::time::SystemTime::now().into()).unwrap();
    std::fs::remove_dir_all(controller.state_dir()).unwrap();
    backup::restore(&file, controller.state_dir(), None).unwrap();
    controller.up().await.unwrap();
    let mut w1 = Node::connect(&controller, disk).await.unwrap();
    let update = w1.take().await;
    assert!(update.term == 2 && !update.removals_intended, "{update:?}");
    // From there on it is as before.
    let operator = controller.operator().await;
    operator.slices().apply_slices(apply(vec![many()], true)).await.unwrap();
    assert!(w1.take().await.removals_intended);
}

#[tokio::test]
async fn what_other_settings_take_away_was_asked_for_by_nobody() {
    let (mut controller, operator, [w1, w2, n1]) = shop().await;
    let disk = w1.disk.clone();
    drop((operator, w1, w2, n1));
    controller.down().await;
    controller.config.network = toml::from_str("quarantine = \"0s\"\ndefault_mtu = 1400").unwrap();
    controller.up().await.unwrap();
    let mut w1 = Node::connect(&controller, disk).await.unwrap();
    let update = w1.take().await;
    assert!(!update.removals_intended && !update.upserts.is_empty());
    let operator = controller.operator().await;
    operator.slices().apply_slices(apply(vec![many()], true)).await.unwrap();
    assert!(w1.take().await.removals_intended);
}

#[tokio::test]
async fn held_removals_are_shown_told_and_confirmed_for_that_state_alone() {
    let (_controller, operator, [mut w1, ..]) = shop().await;
    let (term, generation) = (w1.disk.term, w1.disk.generation);
    let confirm = |generation| wire::ConfirmRemovalsRequest {
        request_id: new_request_id(),
        name: "w1".into(),
        term,
        generation,
        leftovers: "5eed".into(),
    };
    let ask = |request| async {
        operator
            .fleet()
            .confirm_removals(request)
            .await
            .map(tonic::Response::into_inner)
    };
    let refused = ask(confirm(generation)).await.unwrap_err();
    assert_eq!(reason(refused), (Code::FailedPrecondition, "NOTHING_HELD".into()));
    let keys: Vec<wire::ResourceKey> = w1.disk.held.keys().map(Into::into).collect();
    let report = |keys: Vec<wire::ResourceKey>| {
        let total = if keys.is_empty() { 0 } else { 6000 };
        Up::Report(wire::Report {
            held_removals: Some(wire::HeldRemovals {
                term,
                generation,
                keys,
                total,
                reservations: 0,
                leftovers: if total > 0 { "5eed".into() } else { String::new() },
            }),
            ..wire::Report::default()
        })
    };
    w1.send(report(keys.clone())).await;
    w1.send(report(keys.clone())).await;
    let look = || async { node(&operator, "w1").await.held_removals };
    let held = eventually("held", look, Option::is_some).await.unwrap();
    assert_eq!(
        (held.term, held.generation, held.keys.len(), held.total),
        (term, generation, keys.len(), 6000)
    );
    assert!(_controller.metrics().contains("trunkline_nodes_holding_removals 1\n"));
    let refused = ask(confirm(generation - 1)).await.unwrap_err();
    assert!(refused.message().contains("trunkctl node show w1"), "{refused}");
    assert_eq!(reason(refused), (Code::FailedPrecondition, "OTHER_GENERATION".into()));
    let others = wire::ConfirmRemovalsRequest {
        leftovers: String::new(),
        ..confirm(generation)
    };
    let refused = ask(others).await.unwrap_err();
    assert_eq!(reason(refused), (Code::FailedPrecondition, "OTHER_LEFTOVERS".into()));
    let request = confirm(generation);
    let answer = ask(request.clone()).await.unwrap();
    assert_eq!(answer.confirmed, 6000);
    let heard = w1.next().await.unwrap();
    let word = wire::Confirm {
        term,
        generation,
        leftovers: "5eed".into(),
    };
    assert_eq!(heard, Some(Down::Confirm(word)));
    w1.send(report(vec![])).await;
    eventually("none", look, Option::is_none).await;
    assert_eq!(
        ask(request).await.unwrap(),
        answer,
        "a call sent twice is answered alike"
    );
    assert!(_controller.metrics().contains("trunkline_nodes_holding_removals 0\n"));
    let told = events(&operator, "removals.held").await;
    assert!(told[0].message.contains("6000 removals") && told[0].message.contains("trunkctl node confirm w1"));
    assert_eq!(
        (told.len(), told[0].node.as_str(), told[0].actor.as_str()),
        (1, "w1", "worker/w1")
    );
    let told = events(&operator, "removals.confirmed").await;
    assert_eq!((told.len(), told[0].actor.as_str()), (1, "operator/alice"), "{told:?}");
    assert!(told[0].revision > 0);
    drop(w1);
    let gone = || async { node(&operator, "w1").await.node.unwrap().connected };
    eventually("not connected", gone, |connected| !connected).await;
    let refused = ask(confirm(generation)).await.unwrap_err();
    assert_eq!(reason(refused), (Code::FailedPrecondition, "NOT_CONNECTED".into()));
    let viewer = _controller.client(Role::Viewer, "victor").await;
    let refused = viewer.fleet().confirm_removals(confirm(generation)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_second_process_of_a_node_is_told_once_for_each_spell() {
    let controller = Controller::start().await;
    let operator = controller.operator().await;
    let first = Node::up(&controller, Disk::worker("w1")).await;
    let other = Disk {
        instance: "another process".into(),
        ..Disk::worker("w1")
    };
    for _ in 0..5 {
        let refused = Node::connect(&controller, other.clone()).await.err().unwrap();
        assert_eq!(reason(refused), (Code::AlreadyExists, "IDENTITY_IN_USE".into()));
    }
    let look = || events(&operator, "node.duplicate");
    let told = eventually("told", look, |told| !told.is_empty()).await;
    assert_eq!(
        (told.len(), told[0].node.as_str(), told[0].actor.as_str()),
        (1, "w1", "worker/w1")
    );
    assert!(
        node(&operator, "w1").await.node.unwrap().connected,
        "the first one is not disturbed"
    );
    drop(first);
    let again = || async {
        Node::connect(&controller, other.clone())
            .await
            .map_err(reason)
            .map(|_| ())
    };
    eventually("its place is free", again, Result::is_ok).await.unwrap();
}

#[tokio::test]
async fn a_node_that_connects_in_a_loop_is_told_of_a_few_times() {
    let controller = Controller::start().await;
    let operator = controller.operator().await;
    let disk = Node::up(&controller, Disk::worker("w1")).await.disk.clone();
    for _ in 0..30 {
        Node::connect(&controller, disk.clone()).await.unwrap();
    }
    let look = || events(&operator, "node.connected");
    eventually("told", look, |told| !told.is_empty()).await;
    let mut count = BTreeMap::new();
    for kind in ["node.connected", "node.disconnected"] {
        count.insert(kind, events(&operator, kind).await.len());
    }
    assert!(
        count.values().sum::<usize>() <= 10 && count["node.connected"] > 0,
        "{count:?}"
    );
}
