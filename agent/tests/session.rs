//! The node's runtime against a controller that does what a test says, over real mutual TLS.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use support::*;
use trunkline_agent::node::NodeError;
use trunkline_proto::{
    resource::State,
    wire::{Receipt, controller_message::Message as ToNode, node_message::Message as FromNode},
};

struct Stand {
    pki: Pki,
    state: tempfile::TempDir,
    controller: Controller,
    world: World,
}

impl Stand {
    async fn new() -> Self {
        let pki = Pki::new();
        let controller = Controller::start(&pki).await;
        Self {
            pki,
            state: tempfile::tempdir().unwrap(),
            controller,
            world: World::default(),
        }
    }

    fn node(&self) -> Node {
        let config = config(&self.pki, self.controller.address, self.state.path());
        Node::start(config, &self.world)
    }

    /// A session in which the node has taken `all` as generation 5.
    async fn holding(&mut self, all: &[trunkline_proto::resource::Envelope]) -> (Node, Session) {
        let node = self.node();
        let mut session = self.controller.session().await;
        session.hello().await;
        session.welcome().await;
        session.update(update(0, 5, &[], all)).await;
        session.ack().await;
        (node, session)
    }
}

#[tokio::test]
async fn a_new_node_says_that_it_holds_nothing_and_takes_everything() {
    let mut stand = Stand::new().await;
    let node = stand.node();
    let mut session = stand.controller.session().await;
    let hello = session.hello().await;
    assert_eq!((&*hello.node, hello.role, &*hello.cluster_id), ("w1", 1, ""));
    assert_eq!(hello.digest, digest(&[]).to_vec());
    assert_eq!(hello.facts.unwrap().datapath, "netdev");
    session.welcome().await;
    session.ask_inventory().await;
    let mut parts = vec![];
    while parts.is_empty() {
        match session.next().await {
            FromNode::Inventory(part) => parts.push(part),
            FromNode::Report(report) => assert!(report.complete && report.items.is_empty()),
            other => panic!("{other:?}"),
        }
    }
    assert!(parts[0].last && parts[0].held.is_empty());
    let all = [port(1000, 110), port(1001, 110), trunk(&[110])];
    session.update(update(0, 7, &[], &all)).await;
    let ack = session.ack().await;
    assert_eq!((ack.term, ack.generation, ack.refused.len()), (1, 7, 0));
    let seen = session
        .reports_until(|s| all.iter().all(|e| s.is_ready(e)) && s.clean_generation == 7)
        .await;
    assert_eq!(seen.items.len(), 3);
    node.stop().await;
}

#[tokio::test]
async fn the_exact_difference_is_applied() {
    let mut stand = Stand::new().await;
    let before = [port(1000, 110), port(1001, 110), trunk(&[110])];
    let (node, mut session) = stand.holding(&before).await;
    let after = [port(1001, 110), port(1002, 111), trunk(&[110, 111])];
    session.update(update(5, 6, &before, &after)).await;
    assert_eq!(session.ack().await.generation, 6);
    stand
        .world
        .until("the difference", |t| {
            t.there.keys().map(|k| k.name.to_string()).collect::<Vec<_>>()
                == ["tap_1001_eth1", "tap_1002_eth1", "uplink"]
        })
        .await;
    session.ask_inventory().await;
    let inventory = loop {
        match session.next().await {
            FromNode::Inventory(part) => break part,
            FromNode::Report(_) => {}
            other => panic!("{other:?}"),
        }
    };
    let hashes: Vec<_> = inventory.held.iter().map(|h| h.hash.clone()).collect();
    assert_eq!(hashes, after.iter().map(|e| e.hash.to_vec()).collect::<Vec<_>>());
    node.stop().await;
}

#[tokio::test]
async fn a_restarted_node_says_the_same_digest_and_realises_it_without_a_controller() {
    let mut stand = Stand::new().await;
    let all = [port(1000, 110), trunk(&[110])];
    let (node, session) = stand.holding(&all).await;
    drop(session);
    node.kill().await;
    let address = stand.controller.kill().await;

    // The controller is away: a new process, on an empty host, still makes everything.
    let world = World::default();
    let node = Node::start(config(&stand.pki, address, stand.state.path()), &world);
    world.until("everything again", |t| t.there.len() == 2).await;

    let mut controller = Controller::start_on(&stand.pki, address).await;
    let mut session = controller.session().await;
    let hello = session.hello().await;
    assert_eq!((hello.term, hello.generation, &*hello.cluster_id), (1, 5, CLUSTER));
    assert_eq!(hello.digest, digest(&all).to_vec());
    session.welcome().await;
    let seen = session.reports_until(|s| s.complete).await;
    assert!(all.iter().all(|e| seen.is_ready(e)), "{seen:?}");
    assert_eq!(seen.clean_generation, 5);
    node.stop().await;
}

#[tokio::test]
async fn a_bad_resource_is_refused_by_name_and_its_siblings_go_on() {
    let mut stand = Stand::new().await;
    let before = [port(1000, 110)];
    let (node, mut session) = stand.holding(&before).await;
    let bad = port_with(1000, Some(111), 9000);
    let after = [bad.clone(), port(1001, 111)];
    session.update(update(5, 6, &before, &after)).await;
    let ack = session.ack().await;
    assert_eq!(ack.refused.len(), 1);
    assert_eq!(ack.refused[0].key.as_ref().unwrap().name, "tap_1000_eth1");
    assert_eq!(ack.refused[0].reason, "no jumbo frames here");
    let seen = session
        .reports_until(|s| s.is_ready(&after[1]) && s.state("port tap_1000_eth1") == Some(State::Failed))
        .await;
    let told = &seen.items["port tap_1000_eth1"];
    assert_eq!(told.hash, bad.hash);
    assert_eq!(
        told.reason,
        "refused: no jumbo frames here; the version before it stays"
    );
    let there = stand.world.0.lock().unwrap().there.clone();
    assert_eq!(there[&bad.key], before[0].hash.to_vec());
    drop(session);
    node.kill().await;

    // It counts as held, also after a restart.
    let node = stand.node();
    let mut session = stand.controller.session().await;
    assert_eq!(session.hello().await.digest, digest(&after).to_vec());
    node.stop().await;
}

#[tokio::test]
async fn an_older_generation_is_refused_and_changes_nothing() {
    let mut stand = Stand::new().await;
    let all = [port(1000, 110)];
    let (node, mut session) = stand.holding(&all).await;
    session.update(update(5, 4, &all, &[])).await;
    assert!(session.ends_without_ack().await);
    let mut session = stand.controller.session().await;
    let hello = session.hello().await;
    assert_eq!((hello.generation, hello.digest), (5, digest(&all).to_vec()));
    assert_eq!(stand.world.names(), ["port tap_1000_eth1"]);
    node.stop().await;
}

#[tokio::test]
async fn an_update_that_misses_its_digest_changes_nothing_and_is_asked_for_again() {
    let mut stand = Stand::new().await;
    let all = [port(1000, 110)];
    let (node, mut session) = stand.holding(&all).await;
    let mut wrong = update(5, 6, &all, &[port(1001, 110)]);
    wrong.digest = digest(&all).to_vec();
    session.update(wrong).await;
    assert!(session.ends_without_ack().await);
    assert_eq!(stand.controller.session().await.hello().await.generation, 5);
    node.stop().await;
}

#[tokio::test]
async fn a_foreign_cluster_is_refused() {
    let mut stand = Stand::new().await;
    let all = [port(1000, 110)];
    let (node, session) = stand.holding(&all).await;
    drop(session);
    let mut session = stand.controller.session().await;
    assert_eq!(session.hello().await.cluster_id, CLUSTER);
    session.welcome_with("cluster-2", 60_000).await;
    assert!(session.ends_without_ack().await);
    assert_eq!(stand.world.names(), ["port tap_1000_eth1"]);
    node.stop().await;
}

#[tokio::test]
async fn a_torn_update_changes_nothing() {
    let mut stand = Stand::new().await;
    let all = [port(1000, 110)];
    let (node, session) = stand.holding(&all).await;
    let mut torn = update(5, 6, &all, &[port(1001, 110)]);
    torn.last = false;
    session.update(torn).await;
    drop(session);
    let mut session = stand.controller.session().await;
    let hello = session.hello().await;
    assert_eq!((hello.generation, hello.digest), (5, digest(&all).to_vec()));
    assert_eq!(stand.world.names(), ["port tap_1000_eth1"]);
    node.stop().await;
}

#[tokio::test]
async fn an_empty_update_moves_the_generation_and_what_is_clean() {
    let mut stand = Stand::new().await;
    let all = [port(1000, 110)];
    let (node, mut session) = stand.holding(&all).await;
    session.update(update(5, 9, &all, &all)).await;
    assert_eq!(session.ack().await.generation, 9);
    session.reports_until(|s| s.clean_generation == 9).await;
    node.stop().await;
}

#[tokio::test]
async fn nothing_is_torn_down_before_the_controller_has_spoken() {
    let mut stand = Stand::new().await;
    let (node, session) = stand.holding(&[port(1000, 110)]).await;
    stand.world.until("the port", |t| t.there.len() == 1).await;
    drop(session);
    node.kill().await;
    std::fs::write(stand.state.path().join("inbox"), b"rubbish").unwrap();

    let passes = stand.world.0.lock().unwrap().passes;
    let node = stand.node();
    let mut session = stand.controller.session().await;
    let hello = session.hello().await;
    assert_eq!((&*hello.cluster_id, hello.generation), ("", 0));
    session.welcome().await;
    let report = session.report().await;
    assert!(report.complete && report.items.is_empty() && report.clean_generation == 0);
    assert_eq!(stand.world.0.lock().unwrap().passes, passes);
    assert_eq!(stand.world.names(), ["port tap_1000_eth1"]);
    let aside = std::fs::read_dir(stand.state.path()).unwrap();
    assert!(
        aside
            .flatten()
            .any(|f| f.file_name().to_string_lossy().starts_with("inbox.damaged-"))
    );
    node.stop().await;
}

#[tokio::test]
async fn what_fails_is_tried_again_and_told_when_it_changes() {
    let mut stand = Stand::new().await;
    let all = [port(1000, 110), port(1001, 110)];
    stand.world.0.lock().unwrap().broken = Some("tap_1001_eth1".to_owned());
    let (node, mut session) = stand.holding(&all).await;
    session
        .reports_until(|s| s.is_ready(&all[0]) && s.state("port tap_1001_eth1") == Some(State::Failed))
        .await;
    stand.world.0.lock().unwrap().broken = None;
    let seen = session.reports_until(|s| s.is_ready(&all[1])).await;
    assert_eq!(seen.items.len(), 1, "only what changed is told");
    node.stop().await;
}

#[tokio::test]
async fn a_silent_controller_is_left_and_found_again() {
    let mut stand = Stand::new().await;
    let node = stand.node();
    let mut session = stand.controller.session().await;
    session.hello().await;
    session.welcome_with(CLUSTER, 50).await;
    // Nothing more is said: three heartbeats are missed.
    while session.try_next().await.is_some() {}
    stand.controller.session().await.hello().await;
    node.stop().await;
}

#[tokio::test]
async fn the_instance_differs_from_start_to_start_and_not_within_one() {
    let mut stand = Stand::new().await;
    let node = stand.node();
    let mut session = stand.controller.session().await;
    let first = session.hello().await.instance_id;
    drop(session);
    assert_eq!(stand.controller.session().await.hello().await.instance_id, first);
    node.stop().await;
    let node = stand.node();
    assert_ne!(stand.controller.session().await.hello().await.instance_id, first);
    node.stop().await;
}

#[tokio::test]
async fn a_second_agent_on_the_same_state_is_refused() {
    let stand = Stand::new().await;
    let first = stand.node();
    tokio::time::timeout(SOON, async {
        while !stand.state.path().join("lock").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let error = stand.node().fails().await;
    assert!(matches!(error, NodeError::Instance(_)), "{error}");
    first.stop().await;
}

#[tokio::test]
async fn a_second_agent_on_the_same_bridge_is_refused_whatever_its_state_directory() {
    let stand = Stand::new().await;
    let first = stand.node();
    tokio::time::timeout(SOON, async {
        while !stand.state.path().join("lock").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let other = tempfile::tempdir().unwrap();
    let mut config = config(&stand.pki, stand.controller.address, other.path());
    config.switch.socket = stand.state.path().join("no-ovs.sock");
    let error = Node::start(config.clone(), &stand.world).fails().await;
    assert!(error.to_string().contains("manages the bridge br-int"), "{error}");
    first.stop().await;
    Node::start(config, &stand.world).stop().await;
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_refused_before_anything_is_done() {
    let stand = Stand::new().await;
    let mut config = config(&stand.pki, stand.controller.address, stand.state.path());
    config.node.bundle = stand.pki.bundle("n1");
    let error = Node::start(config, &stand.world).fails().await;
    assert!(matches!(error, NodeError::Identity { .. }), "{error}");
    assert_eq!(std::fs::read_dir(stand.state.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_node_says_heartbeats_as_often_as_it_was_told() {
    let mut stand = Stand::new().await;
    let node = stand.node();
    let mut session = stand.controller.session().await;
    session.hello().await;
    session.welcome_with(CLUSTER, 100).await;
    let began = std::time::Instant::now();
    session.heartbeats(5).await;
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    node.stop().await;
}

#[tokio::test]
async fn a_large_state_comes_in_parts_and_is_listed_in_parts() {
    let mut stand = Stand::new().await;
    let all: Vec<_> = (0..9000).map(|n| port(1000 + n, 1 + n % 4000)).collect();
    let node = stand.node();
    let mut session = stand.controller.session().await;
    session.hello().await;
    session.welcome().await;
    let whole = update(0, 5, &[], &all);
    for (at, chunk) in whole.upserts.chunks(3000).enumerate() {
        let mut part = whole.clone();
        (part.upserts, part.last) = (chunk.to_vec(), at == 2);
        session.update(part).await;
    }
    assert_eq!(session.ack().await.generation, 5);
    session
        .reports_until(|s| s.items.len() == 9000 && s.clean_generation == 5)
        .await;
    session.ask_inventory().await;
    let (mut listed, mut parts) = (0, 0);
    loop {
        match session.next().await {
            FromNode::Inventory(part) => {
                (listed, parts) = (listed + part.held.len(), parts + 1);
                if part.last {
                    break;
                }
            }
            FromNode::Report(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((listed, parts), (9000, 3));
    node.stop().await;
}

#[tokio::test]
async fn a_controller_that_says_nothing_of_a_welcome_is_not_obeyed() {
    let mut stand = Stand::new().await;
    let node = stand.node();
    let mut session = stand.controller.session().await;
    session.hello().await;
    session.update(update(0, 5, &[], &[port(1000, 110)])).await;
    assert!(session.ends_without_ack().await);
    assert!(stand.world.names().is_empty());
    node.stop().await;
}

#[tokio::test]
async fn a_repair_is_told_to_one_session_after_another_until_the_controller_says_that_it_has_it() {
    let mut stand = Stand::new().await;
    let all = [port(1000, 110)];
    let (node, mut session) = stand.holding(&all).await;
    session
        .reports_until(|s| s.is_ready(&all[0]) && s.clean_generation == 5)
        .await;
    stand.world.0.lock().unwrap().changed = Some("tap_1000_eth1".to_owned());
    // A pass for something else finds it.
    let more = [all[0].clone(), port(1001, 110)];
    session.update(update(5, 6, &all, &more)).await;
    let told = |s: &Seen| s.is_repaired("port tap_1000_eth1", "it was changed");
    let first = session.reports_until(told).await;
    drop(session);

    let mut session = stand.controller.session().await;
    session.hello().await;
    session.welcome().await;
    let again = session.reports_until(told).await;
    assert_eq!((again.repairs, again.repaired_at), (first.repairs, first.repaired_at));
    let receipt = ToNode::Receipt(Receipt { number: again.receipt });
    session.send(receipt).await;
    // What is answered after it was heard after it.
    session.ask_inventory().await;
    while !matches!(session.next().await, FromNode::Inventory(_)) {}
    drop(session);

    let mut session = stand.controller.session().await;
    session.hello().await;
    session.welcome().await;
    let seen = session.reports_until(|s| s.complete).await;
    assert!(seen.repairs.is_empty(), "{seen:?}");
    node.stop().await;
}
