//! Proof on the wire as the controller's users and its nodes meet it.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::common::{
    Controller, apply, eventually,
    node::{Disk, Node},
    pair,
};
use trunkline_proto::{
    client::Client,
    daemon::DurationText,
    wire::{self, node_message::Message as Up},
};

/// Two workers and a network node, a slice deployed on them, and everything ready.
async fn proved(controller: &Controller) -> (Client, [Node; 3]) {
    let mut nodes = [
        Node::up(controller, Disk::worker("w1")).await,
        Node::up(controller, Disk::worker("w2")).await,
        Node::up(controller, Disk::netnode("n1")).await,
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
    link_when(&operator, "ready", |link| link.state() == wire::State::Ready).await;
    (operator, nodes)
}

async fn link_when(operator: &Client, what: &str, good: impl Fn(&wire::LinkStatus) -> bool) -> wire::LinkStatus {
    let look = || async {
        let request = wire::GetStatusRequest {
            slices: vec!["shop".into()],
            brief: false,
        };
        let mut status = operator.slices().get_status(request).await.unwrap().into_inner();
        status.slices.remove(0).links.remove(0)
    };
    eventually(what, look, good).await
}

/// What a node says of the VLAN's probe: this much comes from a peer.
async fn hears(node: &Node, peer: &str, largest: u32) {
    let mut held = node.disk.held.iter();
    let (key, resource) = held.find(|(key, _)| key.name.as_str() == "probe_vlan100").unwrap();
    let path = |peer: &str, largest| wire::ProbePath {
        peer: peer.into(),
        largest,
        ..wire::ProbePath::default()
    };
    let mut item = wire::Observation {
        key: Some(key.into()),
        hash: resource.hash.clone(),
        reason: "in the node's words".into(),
        facts: Some(wire::observation::Facts::Probe(wire::ProbeFacts {
            paths: vec![path(peer, largest), path("n1", 1500), path("nobody", 1500)],
            period_ms: 1000,
        })),
        ..wire::Observation::default()
    };
    item.set_state(wire::State::Degraded);
    let report = wire::Report {
        items: vec![item],
        ..wire::Report::default()
    };
    node.send(Up::Report(report)).await;
}

#[tokio::test]
async fn a_vlan_that_does_not_pass_is_named_until_it_is_a_node_that_is_missing() {
    let controller = Controller::start().await;
    let (operator, [w1, w2, _n1]) = proved(&controller).await;
    hears(&w2, "w1", 1400).await;
    let link = link_when(&operator, "degraded", |link| link.state() == wire::State::Degraded).await;
    assert_eq!(
        link.reason,
        "vlan 100 does not pass w1 -> w2 at 1500 bytes (passes at 1400)"
    );
    let path = link
        .paths
        .iter()
        .find(|path| path.from == "w1" && path.to == "w2")
        .unwrap();
    assert_eq!((path.reason.as_str(), path.period_ms), (link.reason.as_str(), 1000));
    let events = || async {
        let request = wire::ListEventsRequest::default();
        operator
            .events()
            .list_events(request)
            .await
            .unwrap()
            .into_inner()
            .events
    };
    eventually("the journal names it", events, |events| {
        events
            .iter()
            .any(|event| event.r#type == "slice.degraded" && event.message.contains("does not pass w1 -> w2"))
    })
    .await;
    let shown = operator
        .fleet()
        .get_node(wire::GetNodeRequest { name: "w2".into() })
        .await
        .unwrap()
        .into_inner();
    assert!(
        !format!("{shown:?}").contains("nobody"),
        "it was never asked for: {shown:?}"
    );
    drop(w1);
    let link = link_when(&operator, "unknown", |link| link.state() == wire::State::Unknown).await;
    assert!(link.reason.starts_with("w1 is not connected"), "{}", link.reason);
}

#[tokio::test]
async fn the_secret_is_kept_for_a_restore_and_shown_to_nobody() {
    let mut controller = Controller::start_with(|config| {
        config.state.export_every = DurationText(std::time::Duration::from_secs(3600));
    })
    .await;
    let (operator, nodes) = proved(&controller).await;
    let file = controller.state_dir().join("export.jsonl");
    let written = || async { fs::read_to_string(&file).unwrap_or_default() };
    let deployed = |text: &String| text.contains("\"frozen/shop/");
    let secret = secret_in(&eventually("the export is written", written, deployed).await);
    assert_eq!(secret.len(), 64, "32 bytes");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&controller.state_dir().join("db")), 0o700);

    let mut said = String::new();
    let status = operator.slices().get_status(wire::GetStatusRequest::default()).await;
    said += &format!("{:?}", status.unwrap());
    for name in ["w1", "w2", "n1"] {
        let node = operator
            .fleet()
            .get_node(wire::GetNodeRequest { name: name.into() })
            .await;
        said += &format!("{:?}", node.unwrap());
    }
    let events = operator.events().list_events(wire::ListEventsRequest::default()).await;
    said += &format!("{:?}", events.unwrap());
    said += &controller.metrics();
    assert!(said.contains("probe_vlan100") && !said.contains(&secret));
    // Nor does any node hold it: each has only what its own VLANs need.
    let bytes = hex_of(&secret);
    let holds = |node: &Node| {
        let mut specs = node.disk.held.values();
        specs.any(|resource| resource.spec.windows(32).any(|part| part == bytes))
    };
    assert!(!nodes.iter().any(holds));
    drop((operator, nodes));

    // A restart changes no key, and a restored cluster has the same.
    controller.down().await;
    controller.up().await.unwrap();
    controller.down().await;
    let again = controller.dir.path().join("again.jsonl");
    let now = trunkline_controller::model::Timestamp::from_millis(0);
    trunkline_controller::backup::export(controller.state_dir(), &again, now).unwrap();
    assert_eq!(secret_in(&fs::read_to_string(&again).unwrap()), secret);
    assert_eq!(mode(&again), 0o600);
}

fn secret_in(export: &str) -> String {
    let lines = export
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let meta = lines.into_iter().find(|line| line["key"] == "meta").unwrap();
    meta["value"]["probe_secret"].as_str().unwrap().to_owned()
}

fn hex_of(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
        .collect()
}
