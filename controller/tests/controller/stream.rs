//! The way between controller and node, over real mutual TLS.

use std::collections::BTreeSet;

use crate::common::{
    Controller, apply, eventually,
    node::{Disk, Node},
    pair, vm,
};
use tonic::Code;
use trunkline_proto::{
    client::{ApiError, Client},
    wire::{self, node_message::Message as Up},
};

fn reason(status: tonic::Status) -> (Code, String) {
    let error = ApiError::from(status);
    (error.code, error.reason.unwrap_or_default())
}

fn names(update: &wire::Update) -> BTreeSet<String> {
    update.upserts.iter().map(|resource| resource.name.clone()).collect()
}

/// A controller with w1, w2 and n1 connected, each of which holds nothing yet.
async fn fleet() -> (Controller, Client, [Node; 3]) {
    let controller = Controller::start().await;
    let nodes = [
        Node::up(&controller, Disk::worker("w1")).await,
        Node::up(&controller, Disk::worker("w2")).await,
        Node::up(&controller, Disk::netnode("n1")).await,
    ];
    let operator = controller.operator().await;
    (controller, operator, nodes)
}

#[tokio::test]
async fn a_deployed_slice_reaches_just_its_nodes_and_becomes_ready() {
    let (_controller, operator, [mut w1, mut w2, mut n1]) = fleet().await;
    let answer = operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap()
        .into_inner();
    assert!(answer.generation > 0 && answer.term == 1);
    let taps = |update: &wire::Update| names(update).iter().filter(|n| n.starts_with("tap_")).count();
    let update = w1.take().await;
    assert_eq!(
        (taps(&update), names(&update).contains("uplink")),
        (2, true),
        "{:?}",
        names(&update)
    );
    assert_eq!((update.term, update.generation), (answer.term, answer.generation));
    w2.take().await;
    let update = n1.take().await;
    assert!(
        names(&update).iter().any(|n| n.starts_with("gw_vlan")),
        "{:?}",
        names(&update)
    );
    for node in [&w1, &w2, &n1] {
        node.report_ready().await;
    }
    let status = || async {
        let request = wire::GetStatusRequest {
            slices: vec!["shop".into()],
            brief: false,
        };
        operator.slices().get_status(request).await.unwrap().into_inner()
    };
    let status = eventually("ready", status, |s| s.slices[0].state() == wire::State::Ready).await;
    assert!(status.nodes.iter().all(|node| node.in_step && node.connected));

    // A slice on w1 alone does not touch w2.
    let solo = wire::SliceSpec {
        name: "solo".into(),
        vms: vec![vm("a", "w1", 1)],
        ..wire::SliceSpec::default()
    };
    operator.slices().apply_slices(apply(vec![solo], true)).await.unwrap();
    w1.take().await;
    w2.expect_nothing().await;
}

#[tokio::test]
async fn a_node_that_is_in_step_is_sent_nothing_also_after_a_restart_of_the_controller() {
    let (mut controller, operator, [mut w1, mut w2, mut n1]) = fleet().await;
    operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap();
    for node in [&mut w1, &mut w2, &mut n1] {
        node.take().await;
    }
    let disk = w1.disk.clone();
    drop((w1, w2, n1, operator));
    let mut again = Node::connect(&controller, disk.clone()).await.unwrap();
    again.expect_nothing().await;
    drop(again);
    controller.down().await;
    controller.up().await.unwrap();
    let mut again = Node::connect(&controller, disk).await.unwrap();
    again.expect_nothing().await;
}

#[tokio::test]
async fn after_a_difference_the_exact_difference_is_sent() {
    let (controller, operator, [mut w1, ..]) = fleet().await;
    operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap();
    w1.take().await;
    let mut disk = w1.disk.clone();
    drop(w1);
    // While it is away: one VM more on it.
    let mut more = pair("shop");
    more.vms.push(vm("extra", "w1", 0));
    operator.slices().apply_slices(apply(vec![more], true)).await.unwrap();
    // And of its own it lost one resource and kept one that it should not have.
    let lost = disk
        .held
        .keys()
        .find(|key| key.name.as_str().ends_with("eth1"))
        .unwrap()
        .clone();
    disk.held.remove(&lost);
    let mut stray = disk.held.values().next().unwrap().clone();
    stray.name = "tap_9999_eth0".into();
    let key = wire::ResourceKey {
        kind: stray.kind,
        name: stray.name.clone(),
    };
    disk.held.insert(key.clone().try_into().unwrap(), stray);
    let mut w1 = Node::connect(&controller, disk).await.unwrap();
    let update = w1.take().await;
    assert_eq!(update.removals, [key]);
    assert_eq!(update.upserts.len(), 2, "{:?}", names(&update));
    assert!(names(&update).contains(lost.name.as_str()));
    w1.expect_nothing().await;
}

#[tokio::test]
async fn a_node_that_lost_everything_gets_everything() {
    let (controller, operator, [mut w1, ..]) = fleet().await;
    operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap();
    w1.take().await;
    let held = w1.disk.held.clone();
    drop(w1);
    let w1 = Node::up(&controller, Disk::worker("w1")).await;
    assert_eq!(w1.disk.held, held);
}

#[tokio::test]
async fn a_refused_version_counts_as_held_and_is_not_sent_again() {
    let (controller, operator, [mut w1, ..]) = fleet().await;
    operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap();
    let update = w1.update().await;
    w1.apply(&update);
    let bad = update.upserts.iter().find(|r| r.name.starts_with("tap_")).unwrap();
    let key = wire::ResourceKey {
        kind: bad.kind,
        name: bad.name.clone(),
    };
    let refusal = wire::Refusal {
        key: Some(key),
        hash: bad.hash.clone(),
        reason: "no such MTU here".into(),
    };
    let unknown = wire::Refusal {
        key: None,
        hash: vec![1],
        reason: "x".repeat(1 << 20),
    };
    w1.ack(vec![refusal, unknown]).await;
    w1.expect_nothing().await;
    w1.report_ready().await;
    let node = || async {
        let request = wire::GetNodeRequest { name: "w1".into() };
        operator.fleet().get_node(request).await.unwrap().into_inner()
    };
    let node = eventually("refusal", node, |node| !node.refused.is_empty()).await;
    assert_eq!(node.refused.len(), 1);
    assert_eq!(node.refused[0].reason, "no such MTU here");
    assert!(node.node.unwrap().status.unwrap().in_step);
    let failed = node
        .resources
        .iter()
        .find(|r| r.key.as_ref().unwrap().name == bad.name)
        .unwrap();
    assert_eq!(failed.state(), wire::State::Failed);
    assert!(failed.reason.contains("no such MTU here"), "{}", failed.reason);
    // Reconnecting changes nothing of that.
    let disk = w1.disk.clone();
    drop(w1);
    Node::connect(&controller, disk).await.unwrap().expect_nothing().await;
}

#[tokio::test]
async fn what_changes_while_a_node_takes_its_time_is_coalesced() {
    let (controller, operator, [mut w1, mut w2, _n1]) = fleet().await;
    operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap();
    let update = w1.update().await;
    w1.apply(&update);
    w2.take().await;
    let mut generation = 0;
    for n in 0..30 {
        let mut more = pair("shop");
        more.vms.extend((0..=n).map(|i| vm(&format!("vm{i}"), "w1", 0)));
        generation = operator
            .slices()
            .apply_slices(apply(vec![more], true))
            .await
            .unwrap()
            .into_inner()
            .generation;
    }
    w1.expect_nothing().await;
    // Nobody else waits for it.
    let other = wire::SliceSpec {
        name: "other".into(),
        vms: vec![vm("a", "w2", 0)],
        ..wire::SliceSpec::default()
    };
    operator.slices().apply_slices(apply(vec![other], true)).await.unwrap();
    w2.take().await;
    w1.ack(Vec::new()).await;
    let update = w1.take().await;
    assert_eq!(update.generation, generation, "one update with the newest, not thirty");
    w1.expect_nothing().await;
    assert!(controller.metrics().contains("trunkline_updates"));
}

#[tokio::test]
async fn garbage_in_a_report_is_dropped_and_counted() {
    let (controller, operator, [mut w1, ..]) = fleet().await;
    operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap();
    w1.take().await;
    let (key, resource) = w1.disk.held.iter().next().map(|(k, r)| (k.clone(), r.clone())).unwrap();
    let item = |name: &str| wire::Observation {
        key: Some(wire::ResourceKey {
            kind: resource.kind,
            name: name.into(),
        }),
        hash: resource.hash.clone(),
        state: wire::State::Ready.into(),
        ..wire::Observation::default()
    };
    let huge = wire::TrunkFacts {
        vlans: vec![7; 100_000],
        ..wire::TrunkFacts::default()
    };
    let mut items: Vec<_> = (0..5000).map(|n| item(&format!("never-heard-of-{n}"))).collect();
    items.push(wire::Observation {
        reason: "x".repeat(100_000),
        ..item(key.name.as_str())
    });
    items.push(wire::Observation {
        state: 77,
        ..item(key.name.as_str())
    });
    items.push(wire::Observation {
        hash: vec![0; 3],
        ..item(key.name.as_str())
    });
    items.push(wire::Observation { key: None, ..item("x") });
    items.push(wire::Observation {
        facts: Some(wire::observation::Facts::Trunk(huge)),
        ..item(key.name.as_str())
    });
    let report = wire::Report {
        items,
        complete: true,
        clean_term: 9,
        clean_generation: 9,
        seen_term: 9,
        seen_generation: 9,
        ..wire::Report::default()
    };
    w1.send(Up::Report(report)).await;
    let node = || async {
        let request = wire::GetNodeRequest { name: "w1".into() };
        operator.fleet().get_node(request).await.unwrap().into_inner()
    };
    let seen = |node: &wire::GetNodeResponse| node.resources.iter().any(|r| r.state() == wire::State::Ready);
    let node = eventually("the good item", node, seen).await;
    let ready: Vec<_> = node
        .resources
        .iter()
        .filter(|r| r.state() == wire::State::Ready)
        .collect();
    assert_eq!(ready.len(), 1);
    assert!(
        ready[0].observation.as_ref().is_none_or(|o| o.facts.is_none()),
        "facts of 100 KB are not kept"
    );
    let metrics = controller.metrics();
    for line in [
        "trunkline_report_items_dropped_total{reason=\"unknown_key\"} 5000",
        "trunkline_report_items_dropped_total{reason=\"invalid\"} 4",
        "trunkline_report_items_dropped_total{reason=\"clean_ahead\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} not in\n{metrics}");
    }
    w1.expect_nothing().await;
}

#[tokio::test]
async fn an_acknowledgement_of_something_else_ends_the_session() {
    let (_controller, operator, [mut w1, ..]) = fleet().await;
    operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap();
    let update = w1.update().await;
    let ack = wire::Ack {
        term: update.term,
        generation: update.generation + 1,
        ..wire::Ack::default()
    };
    w1.send(Up::Ack(ack)).await;
    assert_eq!(
        reason(w1.next().await.unwrap_err()),
        (Code::InvalidArgument, "PROTOCOL".into())
    );
}

#[tokio::test]
async fn an_undeployed_slice_leaves_its_nodes_and_its_vlan_only_then_is_free() {
    let (_controller, operator, [mut w1, mut w2, mut n1]) = fleet().await;
    operator
        .slices()
        .apply_slices(apply(vec![pair("shop")], true))
        .await
        .unwrap();
    for node in [&mut w1, &mut w2, &mut n1] {
        node.take().await;
    }
    let request = wire::DeleteSliceRequest {
        request_id: "d1".into(),
        name: "shop".into(),
        expected_revision: 0,
    };
    operator.slices().delete_slice(request).await.unwrap();
    let status = || async {
        let all = wire::GetStatusRequest::default();
        operator.slices().get_status(all).await.unwrap().into_inner().slices
    };
    for node in [&mut w1, &mut w2] {
        node.take().await;
        node.report_ready().await;
    }
    n1.take().await;
    let left = status().await;
    assert!(
        left.len() == 1 && left[0].removing,
        "n1 has not said that it is gone: {left:?}"
    );
    n1.report_ready().await;
    eventually("gone", status, Vec::is_empty).await;
    let freed = || async {
        let request = wire::ListEventsRequest::default();
        operator
            .events()
            .list_events(request)
            .await
            .unwrap()
            .into_inner()
            .events
    };
    eventually("the VLAN is free", freed, |events| {
        events.iter().any(|e| e.r#type == "vlan.freed")
    })
    .await;
}
