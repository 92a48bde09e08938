//! Golden files of everything that is printed. `INSTA_UPDATE=always` writes them anew.

use trunkline_proto::wire;

use crate::{
    fake::Fake,
    fixtures::{cluster, shop_status, shop_unproved, status},
    run::{run, run_alone, run_as},
};

/// Runs each of these and compares all that it says.
async fn golden(cases: &[(&str, &[&str])]) {
    let fake = Fake::start(cluster()).await;
    for (name, arguments) in cases {
        let ran = run(&fake, arguments).await;
        insta::assert_snapshot!(*name, ran.whole());
    }
}

#[tokio::test]
async fn reads_are_tables_for_people() {
    golden(&[
        ("slice-list", &["slice", "list"]),
        ("slice-show", &["slice", "show", "shop"]),
        ("slice-revisions", &["slice", "revisions", "shop"]),
        ("vm-list", &["vm", "list"]),
        ("link-list", &["link", "list", "--slice", "shop"]),
        ("node-list", &["node", "list"]),
        ("node-show", &["node", "show", "w1"]),
        ("status", &["status"]),
        ("status-of-one", &["status", "shop"]),
        ("status-paths", &["status", "--paths"]),
        ("events", &["events", "--since", "10m"]),
        ("vm-netdev-userspace", &["vm", "netdev", "shop/web"]),
        ("vm-netdev-qemu", &["vm", "netdev", "db", "--only", "qemu"]),
        (
            "vm-netdev-libvirt",
            &["vm", "netdev", "web", "--slice", "shop", "--only", "libvirt"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn reads_are_data_for_programs() {
    golden(&[
        ("slice-list-json", &["slice", "list", "-o", "json"]),
        ("slice-show-json", &["slice", "show", "shop", "-o", "json"]),
        ("slice-show-yaml", &["slice", "show", "shop", "-o", "yaml"]),
        ("slice-revisions-json", &["slice", "revisions", "shop", "-o", "json"]),
        ("vm-list-json", &["vm", "list", "--slice", "lab", "-o", "json"]),
        ("link-list-yaml", &["link", "list", "-o", "yaml"]),
        ("node-list-json", &["node", "list", "-o", "json"]),
        ("node-show-json", &["node", "show", "w1", "-o", "json"]),
        ("status-json", &["-o", "json", "status"]),
        ("events-json", &["events", "-o", "json"]),
        ("vm-netdev-json", &["vm", "netdev", "shop/web", "-o", "json"]),
    ])
    .await;
}

#[tokio::test]
async fn mutations_say_what_they_did() {
    golden(&[
        ("slice-deploy", &["slice", "deploy", "shop"]),
        ("slice-undeploy", &["slice", "undeploy", "shop", "-o", "json"]),
        ("slice-delete", &["slice", "delete", "shop"]),
        ("slice-rollback", &["slice", "rollback", "shop", "--to", "2"]),
        (
            "vm-add",
            &["vm", "add", "shop/web", "--internet", "--data-interfaces", "1"],
        ),
        ("vm-remove", &["vm", "remove", "db"]),
        ("link-add", &["link", "add", "shop/web.eth1", "db.eth1"]),
        ("link-remove", &["link", "remove", "web-eth1--db-eth1"]),
        ("node-remove", &["node", "remove", "w2"]),
        ("vm-move", &["vm", "move", "shop/web", "--to", "w3"]),
        (
            "vm-move-deployed",
            &["vm", "move", "web", "--slice", "shop", "--to", "w3", "--deploy"],
        ),
        ("node-cordon", &["node", "cordon", "w1"]),
        ("node-uncordon", &["node", "uncordon", "w1", "-o", "json"]),
        ("node-drain", &["node", "drain", "w1"]),
        ("node-replace-json", &["node", "replace", "w1", "w2", "-o", "json"]),
        ("node-gone", &["node", "gone", "w2", "--yes"]),
        ("node-gone-unsure", &["node", "gone", "w2"]),
        ("node-forget", &["node", "forget", "w2"]),
        ("node-orphans-none", &["node", "orphans", "w1"]),
    ])
    .await;
}

#[tokio::test]
async fn a_move_deploys_the_draft_as_the_move_left_it() {
    let fake = Fake::start(cluster()).await;
    let ran = run(&fake, &["vm", "move", "shop/web", "--to", "w3", "--deploy"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let asked: Vec<String> = fake.script().asked.iter().map(|(what, ..)| what.clone()).collect();
    assert_eq!(asked, ["move vm shop/web to w3 at 0", "deploy shop at 9"]);
    let ran = run(&fake, &["vm", "move", "shop/web", "--to", "w3", "--wait"]).await;
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

#[tokio::test]
async fn a_node_shows_what_it_should_not_have_and_what_it_holds_back() {
    let mut script = cluster();
    let w1 = script.nodes.iter_mut().find(|node| node.name == "w1").unwrap();
    w1.cordoned = true;
    let w2 = script.nodes.iter_mut().find(|node| node.name == "w2").unwrap();
    w2.gone_since = crate::fixtures::at(1200);
    let orphan = |kind: &str, name: &str, since| wire::Orphan {
        kind: kind.to_owned(),
        name: name.to_owned(),
        since,
    };
    script.orphans = vec![
        orphan("tap", "tap_1099_eth1", crate::fixtures::at(600)),
        orphan("namespace", "ns-dhcp-vlan177", None),
    ];
    let key = |name: &str| wire::ResourceKey {
        kind: wire::Kind::Port.into(),
        name: name.to_owned(),
    };
    script.held = Some(wire::HeldRemovals {
        term: 2,
        generation: 41,
        keys: vec![key("tap_1002_eth0"), key("tap_1002_eth1")],
        total: 6000,
        reservations: 12,
        leftovers: "5eedcafe".to_owned(),
    });
    let fake = Fake::start(script).await;
    for (name, arguments) in [
        ("node-show-held", &["node", "show", "w1"][..]),
        ("node-show-held-json", &["node", "show", "w1", "-o", "json"]),
        ("node-show-gone", &["node", "show", "w2"]),
        ("node-orphans", &["node", "orphans", "w1"]),
        ("node-confirm", &["node", "confirm", "w1"]),
    ] {
        let ran = run(&fake, arguments).await;
        insta::assert_snapshot!(name, ran.whole());
    }
    let list = run(&fake, &["node", "list"]).await.stdout;
    assert!(list.contains("worker (cordoned)") && list.contains("gone, "), "{list}");
    let asked = fake.script().asked.last().unwrap().0.clone();
    assert_eq!(asked, "confirm w1 at 2/41 with leftovers 5eedcafe");
}

#[tokio::test]
async fn apply_lists_the_changes_and_says_when_there_are_none() {
    let fake = Fake::start(cluster()).await;
    let file = include_str!("../../examples/topology.yaml");
    let apply = ["apply", "-f", "-", "--deploy"];
    insta::assert_snapshot!("apply", run_as(&fake, "alice", &apply, file).await.whole());
    let dry = ["apply", "-f", "-", "--dry-run", "--color", "always"];
    insta::assert_snapshot!(
        "apply-dry-run-in-colour",
        run_as(&fake, "alice", &dry, file).await.whole()
    );
    fake.script().apply.changes.clear();
    let again = run_as(&fake, "alice", &apply, file).await;
    assert_eq!((again.code, again.stdout.as_str()), (0, "nothing changed\n"));
    let json = run_as(&fake, "alice", &["apply", "-f", "-", "-o", "json"], file).await;
    insta::assert_snapshot!("apply-unchanged-json", json.whole());
}

#[tokio::test]
async fn status_names_what_is_not_ready() {
    let fake = Fake::start(cluster()).await;
    let leaving = wire::SliceStatus {
        name: "old".to_owned(),
        state: wire::State::Pending.into(),
        reason: "w2 has not said yet that it is gone".to_owned(),
        resources: 2,
        removing: true,
        ..wire::SliceStatus::default()
    };
    fake.script().status = status(43, vec![shop_status(false), leaving]);
    insta::assert_snapshot!("status-not-ready", run(&fake, &["status"]).await.whole());
}

#[tokio::test]
async fn status_names_each_direction_that_is_not_proved() {
    let fake = Fake::start(cluster()).await;
    fake.script().status = status(43, vec![shop_unproved()]);
    insta::assert_snapshot!("status-unproved", run(&fake, &["status"]).await.whole());
    insta::assert_snapshot!(
        "status-unproved-paths",
        run(&fake, &["status", "shop", "--paths"]).await.whole()
    );
    let json = run(&fake, &["status", "-o", "json"]).await.stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let paths = json["slices"][0]["links"][0]["paths"].as_array().unwrap();
    assert_eq!(paths.len(), 5, "ready ones too");
    assert_eq!(paths[2]["last_seen"], "2026-11-21T12:08:19.25Z");
    assert_eq!(
        (&paths[1]["largest"], &paths[4]["largest"]),
        (&1400.into(), &serde_json::Value::Null)
    );
}

#[tokio::test]
async fn a_watch_on_a_pipe_says_what_changed() {
    let fake = Fake::start(cluster()).await;
    let told = vec![
        status(43, vec![shop_status(false)]),
        status(43, vec![shop_status(false)]),
        status(44, vec![shop_status(true)]),
    ];
    fake.script().watches = vec![told, vec![]].into();
    fake.script().end_watches = true;
    let ran = run(&fake, &["status", "--watch"]).await;
    insta::assert_snapshot!("status-watch", ran.whole());
}

#[tokio::test]
async fn colours_need_a_terminal_or_to_be_asked_for() {
    let fake = Fake::start(cluster()).await;
    assert!(!run(&fake, &["status"]).await.stdout.contains('\x1b'));
    assert!(
        run(&fake, &["status", "--color", "always"])
            .await
            .stdout
            .contains("\x1b[")
    );
    assert!(
        !run(&fake, &["status", "--color", "never"])
            .await
            .stdout
            .contains('\x1b')
    );
}

#[tokio::test]
async fn followed_events_come_once_each_across_a_restart() {
    let fake = Fake::start(cluster()).await;
    let ran = run(&fake, &["events", "--follow", "--since", "1h", "-o", "json"]).await;
    let sequences: Vec<u64> = ran
        .stdout
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["sequence"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(sequences, [1, 2, 3, 4]);
    assert!(
        ran.stderr.contains("lost the controller, trying again"),
        "{}",
        ran.stderr
    );
}

#[tokio::test]
async fn a_wrong_file_is_told_whole_without_a_controller() {
    let file = "slices:\n- name: Shop\n  vms:\n  - {name: web, wroker: w1}\n  links:\n  - [web.eth1]\n  - {ends: [web.eth2, db.eth1], vlan: 400}\n";
    let ran = run_alone(&["apply", "-f", "-"], file).await;
    insta::assert_snapshot!("apply-wrong-file", ran.whole());
}

#[tokio::test]
async fn completions_are_printed_without_a_controller() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run_alone(&["completions", shell], "").await;
        assert_eq!(ran.code, 0);
        assert!(
            ran.stdout.contains("trunkctl") && ran.stdout.contains("netdev"),
            "{shell}"
        );
    }
}

#[tokio::test]
async fn what_is_deployed_is_shown_and_printed_where_the_draft_differs() {
    let mut cluster = cluster();
    let mut now = cluster.slices.iter().find(|s| s.name == "shop").unwrap().clone();
    now.draft_differs = true;
    cluster.deployed.push(now);
    let draft = cluster.slices.iter_mut().find(|s| s.name == "shop").unwrap();
    draft.draft_differs = true;
    draft.vms[0].vm_id = 1009;
    draft.vms[0].interfaces[0].tap = "tap_1009_eth0".to_owned();
    draft.vms[0].interfaces[1].tap = "tap_1009_eth1".to_owned();
    let mut new = draft.vms[1].clone();
    new.name = "new".to_owned();
    draft.vms.push(new);
    draft.links.clear();
    let fake = Fake::start(cluster).await;
    let netdev = run(&fake, &["vm", "netdev", "shop/web"]).await;
    assert!(
        netdev.stdout.contains("tap_1002_eth1") && !netdev.stdout.contains("tap_1009"),
        "{}",
        netdev.stdout
    );
    assert_eq!(netdev.stderr, "");
    let new = run(&fake, &["vm", "netdev", "shop/new", "--only", "qemu"]).await;
    assert!(
        new.stderr.starts_with("warning: shop/new is not deployed yet"),
        "{}",
        new.stderr
    );
    let shown = run(&fake, &["slice", "show", "shop"]).await;
    assert!(
        shown.stdout.contains("This is the draft; what is deployed differs") && shown.stdout.contains("tap_1009_eth1"),
        "{}",
        shown.stdout
    );
    let deployed = run(&fake, &["slice", "show", "shop", "--deployed"]).await;
    assert!(
        deployed.stdout.contains("tap_1002_eth1") && deployed.stdout.contains("web-eth1--db-eth1"),
        "{}",
        deployed.stdout
    );
    for list in [["vm", "list"], ["link", "list"]] {
        let ran = run(&fake, &list).await;
        assert!(ran.stderr.contains("draft of shop"), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn the_help_is_as_it_was_written() {
    insta::assert_snapshot!("help", run_alone(&["--help"], "").await.whole());
    insta::assert_snapshot!("help-apply", run_alone(&["apply", "--help"], "").await.whole());
}
