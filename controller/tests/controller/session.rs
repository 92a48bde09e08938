//! Who may have a session, and when one is over.

use std::time::{Duration, Instant};

use tonic::Code;
use trunkline_certs::Role;
use trunkline_proto::{
    client::ApiError,
    daemon::DurationText,
    wire::{self, node_message::Message as Up},
};

use crate::common::{
    Controller, DEADLINE, eventually,
    node::{Disk, Node},
};

fn reason(status: tonic::Status) -> (Code, String) {
    let error = ApiError::from(status);
    (error.code, error.reason.unwrap_or_default())
}

#[tokio::test]
async fn one_identity_twice_the_newest_of_one_process_wins_and_another_process_is_refused() {
    let controller = Controller::start().await;
    let mut first = Node::up(&controller, Disk::worker("w1")).await;
    let other = Disk {
        instance: "another process".into(),
        ..Disk::worker("w1")
    };
    let refused = Node::connect(&controller, other.clone()).await.err().unwrap();
    assert_eq!(reason(refused), (Code::AlreadyExists, "IDENTITY_IN_USE".into()));
    // A newer session of the same process.
    let mut second = Node::connect(&controller, first.disk.clone()).await.unwrap();
    let ended = first.next().await.unwrap_err();
    assert_eq!(reason(ended), (Code::Aborted, "SESSION_REPLACED".into()));
    second.expect_nothing().await;
    // It falls silent without closing: after three heartbeats another process may have its place.
    second.fall_silent();
    let third = || async {
        Node::connect(&controller, other.clone())
            .await
            .map_err(reason)
            .map(|_| ())
    };
    eventually("the place is free", third, Result::is_ok).await.unwrap();
}

#[tokio::test]
async fn a_heartbeat_is_answered_at_once_but_not_more_often_than_nodes_beat() {
    const BEAT: Duration = Duration::from_secs(4);
    let controller = Controller::start_with(|config| config.nodes.heartbeat = DurationText(BEAT)).await;
    let mut node = Node::up(&controller, Disk::worker("w1")).await;
    node.fall_silent();
    let began = Instant::now();
    // Half a beat has passed: it is answered, and what comes right after it is not.
    tokio::time::sleep(BEAT * 5 / 8).await;
    for _ in 0..3 {
        node.send(Up::Heartbeat(wire::Heartbeat {})).await;
    }
    node.expect_heartbeat().await;
    let answered = began.elapsed();
    assert!(answered < BEAT, "answered after {answered:?}");
    // The next one comes without a word of the node.
    node.expect_heartbeat().await;
    let unasked = began.elapsed() - answered;
    assert!(unasked > BEAT, "another one after {unasked:?}");
}

#[tokio::test]
async fn a_silent_node_is_given_up_and_shown_as_not_connected() {
    let controller = Controller::start().await;
    let operator = controller.operator().await;
    let mut w1 = Node::up(&controller, Disk::worker("w1")).await;
    w1.fall_silent();
    let ended = w1.next().await.unwrap_err();
    assert_eq!(reason(ended), (Code::DeadlineExceeded, "NODE_SILENT".into()));
    let list = || async {
        operator
            .fleet()
            .list_nodes(wire::ListNodesRequest::default())
            .await
            .unwrap()
            .into_inner()
            .nodes
    };
    let nodes = eventually("not connected", list, |nodes| !nodes[0].connected).await;
    assert!(nodes[0].last_seen.is_some());
}

#[tokio::test]
async fn a_node_of_another_cluster_or_from_the_future_is_refused_with_what_to_do() {
    let controller = Controller::start().await;
    let w1 = Node::up(&controller, Disk::worker("w1")).await;
    let disk = w1.disk.clone();
    drop(w1);
    let foreign = Disk {
        cluster_id: "another".into(),
        ..disk.clone()
    };
    let status = Node::connect(&controller, foreign).await.err().unwrap();
    assert!(status.message().contains("state directory"), "{status:?}");
    assert_eq!(reason(status), (Code::FailedPrecondition, "OTHER_CLUSTER".into()));
    let ahead = Disk {
        generation: 1000,
        ..disk.clone()
    };
    let status = Node::connect(&controller, ahead).await.err().unwrap();
    assert!(status.message().contains("restore"), "{status:?}");
    assert_eq!(reason(status), (Code::FailedPrecondition, "NODE_AHEAD".into()));
    Node::connect(&controller, disk).await.unwrap().expect_nothing().await;
}

#[tokio::test]
async fn what_a_node_says_of_itself_must_agree_with_its_certificate() {
    let controller = Controller::start().await;
    let disk = Disk::worker("w1");
    let name = wire::Hello {
        node: "w2".into(),
        ..disk.hello()
    };
    let role = wire::Hello {
        role: wire::NodeRole::Netnode.into(),
        ..disk.hello()
    };
    for hello in [name, role] {
        let status = Node::connect_saying(&controller, disk.clone(), hello)
            .await
            .err()
            .unwrap();
        assert_eq!(reason(status), (Code::PermissionDenied, "IDENTITY_MISMATCH".into()));
    }
    for hello in [
        wire::Hello {
            node: "../etc".into(),
            ..disk.hello()
        },
        wire::Hello {
            instance_id: String::new(),
            ..disk.hello()
        },
        wire::Hello {
            digest: vec![1, 2, 3],
            ..disk.hello()
        },
        wire::Hello {
            role: 0,
            ..disk.hello()
        },
    ] {
        let status = Node::connect_saying(&controller, disk.clone(), hello)
            .await
            .err()
            .unwrap();
        assert_eq!(reason(status), (Code::InvalidArgument, "HELLO_INVALID".into()));
    }
    // And no operator may call it at all.
    let operator = Disk {
        role: Role::Operator,
        ..Disk::worker("alice")
    };
    let status = Node::connect(&controller, operator).await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    let nodes = controller
        .operator()
        .await
        .fleet()
        .list_nodes(wire::ListNodesRequest::default())
        .await
        .unwrap();
    assert!(nodes.into_inner().nodes.is_empty(), "nobody joined");
}

#[tokio::test]
async fn an_update_that_is_never_acknowledged_ends_the_session() {
    let controller = Controller::start_with(|config| {
        config.nodes.ack_timeout = trunkline_proto::daemon::DurationText(Duration::from_secs(1));
    })
    .await;
    let mut w1 = Node::connect(&controller, Disk::worker("w1")).await.unwrap();
    w1.update().await;
    let ended = tokio::time::timeout(DEADLINE, w1.next()).await.unwrap().unwrap_err();
    assert_eq!(reason(ended), (Code::DeadlineExceeded, "NO_ANSWER".into()));
}

#[tokio::test]
async fn a_node_in_another_role_does_not_touch_what_is_known_of_its_namesake() {
    let controller = Controller::start().await;
    let operator = controller.operator().await;
    drop(Node::up(&controller, Disk::worker("x")).await);
    let seen = || async {
        let list = operator.fleet().list_nodes(wire::ListNodesRequest::default()).await;
        list.unwrap().into_inner().nodes
    };
    let before = eventually("not connected", seen, |nodes| !nodes[0].connected).await;
    let refused = Node::connect(&controller, Disk::netnode("x")).await.err().unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(seen().await, before);
}
