//! Exit codes and messages of what goes wrong.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    fake::Fake,
    fixtures::cluster,
    run::{Ran, run, run_alone, run_as},
};

async fn refused(status: Status) -> Ran {
    let fake = Fake::start(cluster()).await;
    fake.script().refuse = Some(status);
    run(&fake, &["slice", "deploy", "shop"]).await
}

#[tokio::test]
async fn what_the_controller_says_has_its_exit_code() {
    let table = [
        (Code::InvalidArgument, 2),
        (Code::OutOfRange, 2),
        (Code::NotFound, 3),
        (Code::Aborted, 4),
        (Code::AlreadyExists, 4),
        (Code::Unauthenticated, 5),
        (Code::PermissionDenied, 5),
        (Code::DeadlineExceeded, 5),
        (Code::FailedPrecondition, 4),
        (Code::ResourceExhausted, 2),
        (Code::Internal, 1),
    ];
    for (code, exit) in table {
        let ran = refused(Status::new(code, "the slice is in the way")).await;
        assert_eq!(ran.code, exit, "{code:?}");
        assert!(
            ran.stderr.starts_with("error: the slice is in the way\n"),
            "{}",
            ran.stderr
        );
        assert_eq!(ran.stdout, "", "{code:?}");
    }
}

#[tokio::test]
async fn a_conflict_says_what_to_do() {
    let ran = refused(Status::aborted("shop is at revision 13, not 12")).await;
    insta::assert_snapshot!("error-conflict", ran.whole());
}

#[tokio::test]
async fn violations_are_listed() {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation("vm.worker", "there is no worker w9: write one of w1, w2");
    details.add_bad_request_violation("vm.name", "web is taken: choose another name");
    let fake = Fake::start(cluster()).await;
    let status = Status::with_error_details(Code::InvalidArgument, "the request has 2 mistakes", details);
    fake.script().refuse = Some(status);
    let ran = run(&fake, &["vm", "add", "shop/web", "--worker", "w9"]).await;
    insta::assert_snapshot!("error-violations", ran.whole());
}

#[tokio::test]
async fn violations_of_an_applied_file_are_shown_in_the_file() {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation("slices[0].vms[0].worker", "there is no worker w1: write one of w8, w9");
    details.add_bad_request_violation(
        "slices[0].links[1].vlan",
        "VLAN 110 is that of slice lab: choose another",
    );
    let fake = Fake::start(cluster()).await;
    let status = Status::with_error_details(Code::InvalidArgument, "the request has 2 mistakes", details);
    fake.script().refuse = Some(status);
    let file = include_str!("../../examples/topology.yaml");
    let ran = run_as(&fake, "alice", &["apply", "-f", "-"], file).await;
    insta::assert_snapshot!("error-violations-in-file", ran.whole());
}

#[tokio::test]
async fn what_only_the_controller_knows_is_told_with_the_mistakes_of_the_file() {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation("slices[0].name", "\"\" is not a name: write 1 to 32 of a-z");
    details.add_bad_request_violation(
        "slices[0].vms[0].worker",
        "there is no worker nowhere; write one of w1, w2",
    );
    details.add_bad_request_violation(
        "slices[0].links[0].vlan",
        "vlan 120 is taken by link x of slice y; write another",
    );
    details.add_bad_request_violation("slices[0].links[0].ends[0]", "there is no vm web in this slice");
    let fake = Fake::start(cluster()).await;
    fake.script().refuse = Some(Status::with_error_details(Code::InvalidArgument, "wrong", details));
    let file = "slices:\n- name: Bad\n  vms:\n  - {name: web, worker: nowhere, data_interfaces_count: 1}\n  \
                - {name: db, data_interfaces_count: 1}\n  links:\n  - {ends: [web.eth1, db.eth1], vlan: 120}\n";
    let ran = run_as(&fake, "alice", &["apply", "-f", "-", "--deploy"], file).await;
    assert_eq!(ran.code, 2);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 4, "{}", ran.stderr);
    assert!(lines[0].starts_with("standard input:2:9: \"Bad\""), "{}", ran.stderr);
    assert!(
        lines[1].contains("there is no worker nowhere") && lines[2].contains("vlan 120 is taken"),
        "{}",
        ran.stderr
    );
    assert!(fake.script().applied.is_empty());

    // Without a controller it is told all the same.
    let alone = run_alone(&["apply", "-f", "-"], file).await;
    assert_eq!(alone.stderr.lines().count(), 2, "{}", alone.stderr);
}

#[tokio::test]
async fn a_refused_file_keeps_the_exit_code_of_the_refusal() {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation(
        "slices[0].vlan_pool_size",
        "no 20 VLANs in a row are free; write a smaller number",
    );
    let fake = Fake::start(cluster()).await;
    fake.script().refuse = Some(Status::with_error_details(Code::ResourceExhausted, "no room", details));
    let ran = run_as(
        &fake,
        "alice",
        &["apply", "-f", "-"],
        "slices: [{name: a, vlan_pool_size: 20}]",
    )
    .await;
    assert_eq!(ran.code, 2);
    let said = "standard input:1:36: no 20 VLANs in a row are free: write a smaller number\n";
    assert!(ran.stderr.starts_with(said), "{}", ran.stderr);
}

#[tokio::test]
async fn what_is_not_there_is_3() {
    let fake = Fake::start(cluster()).await;
    for arguments in [
        &["slice", "show", "nothing"][..],
        &["vm", "netdev", "nothing"],
        &["vm", "remove", "shop/nothing"],
        &["link", "remove", "nothing"],
        &["node", "show", "nothing"],
    ] {
        let ran = run(&fake, arguments).await;
        assert_eq!(ran.code, 3, "{arguments:?}: {}", ran.stderr);
    }
    assert!(fake.script().asked.is_empty());
}

#[tokio::test]
async fn bad_usage_is_2() {
    let fake = Fake::start(cluster()).await;
    for arguments in [
        &["slice"][..],
        &["slice", "explode"],
        &["vm", "netdev", "web"],
        &["vm", "add", "web"],
        &["vm", "list", "-o", "xml"],
        &["link", "add", "shop/web.eth1"],
        &["link", "add", "shop/web.eth1", "lab/web.eth1"],
        &["link", "add", "shop/web.eth1", "db.eth1", "--vlan", "4095"],
        &["status", "--wait", "--timeout", "soon"],
        &["apply", "-f", "/nowhere/topology.yaml"],
        &["--controller", "http://127.0.0.1:7443", "slice", "list"],
    ] {
        let ran = run(&fake, arguments).await;
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty(), "{arguments:?}");
    }
    let ran = run_as(&fake, "alice", &["apply", "-f", "-", "--wait"], "slices: [{name: a}]").await;
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(fake.script().asked.is_empty());
}

#[tokio::test]
async fn a_bundle_has_to_be_given() {
    let ran = run_alone(&["slice", "list"], "").await;
    insta::assert_snapshot!("error-no-bundle", ran.whole());
}

#[tokio::test]
async fn what_does_not_connect_is_5() {
    let fake = Fake::start(cluster()).await;
    // Nobody listens on a port that was just given back.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let ran = run(&fake, &["--controller", &format!("https://{free}"), "slice", "list"]).await;
    assert_eq!(ran.code, 5, "{}", ran.stderr);
    insta::assert_snapshot!("error-unreachable", ran.stderr.replace(&free.to_string(), "ADDRESS"));

    let stranger = run_as(&fake, "mallory", &["slice", "list"], "").await;
    assert_eq!(stranger.code, 5, "{}", stranger.stderr);

    let elsewhere = run(&fake, &["--server-name", "other.example.org", "slice", "list"]).await;
    assert_eq!(elsewhere.code, 5, "{}", elsewhere.stderr);

    let nobody = run_as(&fake, "nobody", &["slice", "list"], "").await;
    assert_eq!(nobody.code, 5, "{}", nobody.stderr);
    assert!(nobody.stderr.contains("hint: --bundle"), "{}", nobody.stderr);
}
