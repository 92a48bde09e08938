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
        (Code::FailedPrecondition, 1),
        (Code::ResourceExhausted, 1),
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
    assert_eq!(ran.code, 1);
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
