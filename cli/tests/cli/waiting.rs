//! Waiting, retries and what a call carries.

use trunkline_proto::wire;

use crate::{
    fake::Fake,
    fixtures::{cluster, shop_status, status},
    run::{run, run_as},
};

const FILE: &str = "slices: [{name: shop}]";

async fn with_watches(watches: Vec<Vec<wire::GetStatusResponse>>) -> Fake {
    let fake = Fake::start(cluster()).await;
    fake.script().watches = watches.into();
    fake
}

fn removing(removing: bool) -> wire::SliceStatus {
    wire::SliceStatus {
        name: "shop".to_owned(),
        state: wire::State::Pending.into(),
        deployed_number: 0,
        removing,
        resources: 2,
        resources_ready: 1,
        ..wire::SliceStatus::default()
    }
}

#[tokio::test]
async fn a_wait_ends_when_all_is_ready_and_says_how_it_came() {
    // A status from before the deployment is ready too, and does not count.
    let told = vec![
        status(4, vec![shop_status(true)]),
        status(5, vec![shop_status(false)]),
        status(5, vec![shop_status(false)]),
        status(5, vec![shop_status(true)]),
    ];
    let fake = with_watches(vec![told]).await;
    let ran = run_as(&fake, "alice", &["apply", "-f", "-", "--deploy", "--wait"], FILE).await;
    insta::assert_snapshot!("wait-ready", ran.whole());
}

#[tokio::test]
async fn a_wait_survives_a_restart_of_the_controller() {
    let before = vec![status(5, vec![shop_status(false)])];
    let after = vec![status(5, vec![shop_status(true)])];
    let fake = with_watches(vec![before, vec![], after]).await;
    let ran = run(&fake, &["slice", "deploy", "shop", "--wait"]).await;
    insta::assert_snapshot!("wait-restart", ran.whole());
}

#[tokio::test]
async fn a_wait_in_vain_is_6_and_names_what_is_missing() {
    let fake = with_watches(vec![vec![status(5, vec![shop_status(false)])]]).await;
    let ran = run(&fake, &["slice", "deploy", "shop", "--wait", "--timeout", "2s"]).await;
    insta::assert_snapshot!("wait-in-vain", ran.whole());
}

#[tokio::test]
async fn a_wait_for_what_is_not_deployed_is_6_at_once() {
    let fake = with_watches(vec![vec![status(5, vec![removing(false)])]]).await;
    let ran = run(&fake, &["status", "--wait", "shop"]).await;
    assert_eq!(ran.code, 6, "{}", ran.stderr);
    assert!(ran.stderr.contains("trunkctl slice deploy shop"), "{}", ran.stderr);
}

#[tokio::test]
async fn after_undeploy_and_delete_a_wait_ends_when_nothing_is_left() {
    for command in ["undeploy", "delete"] {
        let told = vec![
            status(6, vec![removing(true)]),
            status(
                6,
                if command == "delete" {
                    vec![]
                } else {
                    vec![removing(false)]
                },
            ),
        ];
        let fake = with_watches(vec![told]).await;
        let ran = run(&fake, &["slice", command, "shop", "--wait"]).await;
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stdout.ends_with("shop is gone from every host\n"), "{}", ran.stdout);
        assert!(ran.stderr.contains("shop: 1/2 ready, removing\n"), "{}", ran.stderr);
    }
}

/// A status in which w1 lets go of what it had, or has.
fn draining(mut status: wire::GetStatusResponse, empty: bool) -> wire::GetStatusResponse {
    let w1 = status.nodes.iter_mut().find(|node| node.name == "w1").unwrap();
    (w1.in_step, w1.clean, w1.resources, w1.resources_ready) = (empty, empty, 0, 0);
    status
}

#[tokio::test]
async fn a_drain_waits_until_the_node_is_empty_and_its_vms_are_ready_elsewhere() {
    let told = vec![
        // From before the drain.
        draining(status(4, vec![shop_status(true)]), true),
        draining(status(5, vec![shop_status(false)]), false),
        draining(status(5, vec![shop_status(true)]), false),
        draining(status(5, vec![shop_status(true)]), true),
    ];
    let fake = with_watches(vec![told]).await;
    let ran = run(&fake, &["node", "drain", "w1", "--wait"]).await;
    insta::assert_snapshot!("drain-wait", ran.whole());
}

#[tokio::test]
async fn a_drain_that_waits_in_vain_is_6_and_says_what_the_node_still_has() {
    let told = vec![draining(status(5, vec![shop_status(true)]), false)];
    let fake = with_watches(vec![told]).await;
    let ran = run(&fake, &["node", "replace", "w1", "w3", "--wait", "--timeout", "2s"]).await;
    assert_eq!(ran.code, 6, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("w1: it has not let go of what it had yet"),
        "{}",
        ran.stderr
    );
}

#[tokio::test]
async fn status_waits_and_then_shows() {
    let fake = with_watches(vec![vec![status(43, vec![shop_status(true)])]]).await;
    let ran = run(&fake, &["status", "--wait", "-o", "json"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let shown: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(shown["slices"][0]["state"], "ready");
    assert_eq!(shown["slices"][0]["links"][0]["vlan"], 110);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again_with_the_same_request_id() {
    let fake = Fake::start(cluster()).await;
    fake.script().lose_answers = 2;
    let ran = run_as(&fake, "alice", &["apply", "-f", "-"], FILE).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let asked = fake.script().asked.clone();
    assert_eq!(asked.len(), 3);
    assert!(
        asked.iter().all(|(_, id, _)| *id == asked[0].1 && !id.is_empty()),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_mutation_carries_a_trace_even_when_nobody_exports_it() {
    let fake = Fake::start(cluster()).await;
    run_as(&fake, "alice", &["apply", "-f", "-"], FILE).await;
    run_as(&fake, "alice", &["apply", "-f", "-"], FILE).await;
    let asked = fake.script().asked.clone();
    let traces: Vec<_> = asked.iter().map(|(_, _, traceparent)| traceparent.as_str()).collect();
    assert_eq!(traces.len(), 2);
    assert!(
        traces
            .iter()
            .all(|t| t.len() == 55 && t.starts_with("00-") && t.ends_with("-01")),
        "{traces:?}"
    );
    assert_ne!(traces[0], traces[1]);
}

#[tokio::test]
async fn what_is_asked_for_arrives() {
    let fake = Fake::start(cluster()).await;
    let apply = ["apply", "-f", "-", "--deploy", "--expect-revision", "shop=12"];
    run_as(&fake, "alice", &apply, include_str!("../../examples/topology.yaml")).await;
    let given = ["--mac", "eth1=02:00:00:00:00:07", "--address", "eth1=10.64.110.20"];
    let vm = [
        &["vm", "add", "mail", "--slice", "shop", "--data-interfaces", "2"][..],
        &given,
    ]
    .concat();
    assert_eq!(run(&fake, &vm).await.code, 0);
    let link = [
        "link",
        "add",
        "db.eth1",
        "web.eth1",
        "--vlan",
        "115",
        "--subnet",
        "10.1.0.0/24",
        "--no-dhcp",
        "--mtu",
        "1400",
        "--port-security",
        "--protected",
    ];
    let ran = run(&fake, &link).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    let script = fake.script();
    let applied = &script.applied[0];
    assert!(applied.deploy && !applied.dry_run);
    assert_eq!(applied.expected_revisions["shop"], 12);
    assert_eq!(
        applied.slices.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["shop", "lab"]
    );
    let mail = &script.vms[0];
    assert_eq!((mail.name.as_str(), mail.data_interfaces_count), ("mail", 2));
    assert_eq!(mail.interfaces[0].mac, "02:00:00:00:00:07");
    assert_eq!(mail.interfaces[0].address, "10.64.110.20");
    let link = &script.links[0];
    assert_eq!(
        (link.vlan, link.subnet.as_str(), link.dhcp_off, link.mtu),
        (115, "10.1.0.0/24", true, 1400)
    );
    assert!(link.port_security && link.protected);
    // Only shop has a VM named db.
    assert_eq!(script.asked[2].0, "add link to shop");
}
