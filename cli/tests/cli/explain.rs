//! The way that `explain` draws.

use tonic::Status;
use trunkline_proto::wire::{self, State, hop::Kind};

use crate::{
    fake::Fake,
    fixtures::cluster,
    run::{Ran, run},
};

fn hop(kind: Kind, node: &str, what: &str, seen: &str) -> wire::Hop {
    wire::Hop {
        kind: kind.into(),
        node: node.to_owned(),
        what: what.to_owned(),
        state: State::Ready.into(),
        expected: "it is as it should be".to_owned(),
        seen: seen.to_owned(),
        mend: String::new(),
    }
}

/// From web on w1 to db on w2, in the controller's words.
fn way() -> wire::ExplainResponse {
    wire::ExplainResponse {
        hops: vec![
            hop(Kind::Joined, "", "link web-eth1--db-eth1", "vlan 110, 10.64.110.0/24"),
            hop(Kind::Node, "w1", "w1", "connected"),
            hop(Kind::Guest, "w1", "shop/web", "214 frames sent"),
            hop(Kind::Tap, "w1", "tap_1002_eth1", "it exists and is up"),
            hop(Kind::Tag, "w1", "tap_1002_eth1", "tag 110"),
            hop(Kind::Flows, "w1", "flows_vlan110", "14 flows"),
            hop(Kind::Trunk, "w1", "uplink", "ens4 is up"),
            hop(Kind::Node, "w2", "w2", "connected"),
            hop(Kind::Trunk, "w2", "uplink", "ens4 is up"),
            hop(Kind::Probe, "w2", "w1 -> w2", "1500 bytes pass, 0.4 ms there and back"),
            hop(Kind::Probe, "w1", "w2 -> w1", "1500 bytes pass, 0.4 ms there and back"),
            hop(Kind::Flows, "w2", "flows_vlan110", "14 flows"),
            hop(Kind::Tag, "w2", "tap_1003_eth1", "tag 110"),
            hop(Kind::Tap, "w2", "tap_1003_eth1", "it exists and is up"),
            hop(Kind::Guest, "w2", "shop/db", "97 frames sent"),
            hop(Kind::Node, "n1", "n1", "connected"),
            hop(Kind::Lease, "n1", "web.eth1", "10.64.110.10"),
            hop(Kind::Lease, "n1", "db.eth1", "10.64.110.11"),
        ],
        first_broken: -1,
        verdict: "web.eth1 reaches db.eth1".to_owned(),
        ..wire::ExplainResponse::default()
    }
}

/// The switch between drops the VLAN from w1 to w2; no lease for db.
fn broken() -> wire::ExplainResponse {
    let mut way = way();
    let probe = &mut way.hops[9];
    probe.set_state(State::Degraded);
    probe.expected = "vlan 110 passes w1 -> w2 at 1500 bytes".to_owned();
    probe.seen = "vlan 110 does not pass w1 -> w2".to_owned();
    probe.mend = "w2 -> w1 passes, so it is one way only: let the switch between them take vlan 110 tagged from the port of w1 and \
                  give it out tagged at the port of w2"
        .to_owned();
    let lease = &mut way.hops[17];
    lease.set_state(State::Degraded);
    lease.expected = "the lease of 10.64.110.11".to_owned();
    lease.seen = "dnsmasq runs and has no lease for 52:54:00:03:eb:01".to_owned();
    lease.mend = "in the guest shop/db ask for one: `udhcpc -i eth1`, or set 10.64.110.11 by hand there".to_owned();
    way.first_broken = 9;
    way.verdict = "web.eth1 does not reach db.eth1: vlan 110 does not pass w1 -> w2; 1 step more is broken".to_owned();
    way
}

/// w2 is silent.
fn unknown() -> wire::ExplainResponse {
    let mut way = way();
    for index in [7, 8, 9, 10, 11, 12, 13, 14] {
        let hop = &mut way.hops[index];
        hop.set_state(State::Unknown);
        hop.seen = "w2 has not told".to_owned();
    }
    way.hops[7].expected = "it is connected and has reported".to_owned();
    way.hops[7].seen = "is not connected, last heard at 2026-11-21T12:00:00Z".to_owned();
    way.hops[7].mend = "start the daemon of w2, or mend its way to the controller".to_owned();
    way.verdict =
        "it is not known whether web.eth1 reaches db.eth1: w2 is not connected, last heard at 2026-11-21T12:00:00Z"
            .to_owned();
    way
}

async fn explain(way: wire::ExplainResponse, more: &[&str]) -> Ran {
    let fake = Fake::start(cluster()).await;
    fake.script().explained = way;
    let arguments: Vec<&str> = ["explain", "web.eth1", "db.eth1"].iter().chain(more).copied().collect();
    run(&fake, &arguments).await
}

#[tokio::test]
async fn a_way_that_is_open_is_a_line_from_end_to_end() {
    insta::assert_snapshot!("explain-reaches", explain(way(), &[]).await.whole());
}

#[tokio::test]
async fn the_first_break_is_marked_and_what_comes_after_is_dotted() {
    insta::assert_snapshot!("explain-broken", explain(broken(), &[]).await.whole());
    let mut twice = broken();
    let lease = twice.hops[17].clone();
    twice.hops[16] = wire::Hop {
        what: "web.eth1".to_owned(),
        expected: "the lease of 10.64.110.10".to_owned(),
        ..lease
    };
    insta::assert_snapshot!("explain-same-trouble", explain(twice, &[]).await.whole());
    let coloured = explain(broken(), &["--color", "always"]).await;
    insta::assert_snapshot!("explain-broken-in-colour", coloured.whole());
}

#[tokio::test]
async fn what_is_not_known_is_neither_passed_nor_broken() {
    insta::assert_snapshot!("explain-unknown", explain(unknown(), &[]).await.whole());
}

#[tokio::test]
async fn programs_read_the_same_as_data() {
    let mut short = broken();
    short.hops.drain(2..9);
    short.hops.truncate(4);
    short.first_broken = 2;
    insta::assert_snapshot!("explain-json", explain(short, &["-o", "json"]).await.whole());
    for (way, reaches) in [(way(), "true"), (broken(), "false"), (unknown(), "null")] {
        let ran = explain(way, &["-o", "json"]).await;
        assert!(
            ran.stdout.contains(&format!("\"reaches\": {reaches},")),
            "{}",
            ran.stdout
        );
        assert_eq!(ran.code, if reaches == "true" { 0 } else { 6 });
    }
}

#[tokio::test]
async fn words_of_a_node_do_not_move_the_cursor() {
    let mut way = broken();
    way.hops[9].seen = "\x1b[2J gone\nX  all is well".to_owned();
    let ran = explain(way, &[]).await;
    assert!(
        !ran.stdout.contains('\x1b') && !ran.stdout.contains("\nX  all"),
        "{}",
        ran.stdout
    );
}

#[tokio::test]
async fn a_name_that_nothing_has_is_not_found() {
    let fake = Fake::start(cluster()).await;
    fake.script().refuse = Some(Status::not_found("there is no vm wbe; the vms are db, web"));
    let ran = run(&fake, &["explain", "wbe.eth1", "internet"]).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (3, "", "error: there is no vm wbe; the vms are db, web\n")
    );
}
