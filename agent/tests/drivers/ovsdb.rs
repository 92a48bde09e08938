use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trunkline_agent::ovsdb::{Client, Error, Row, Transaction, named_uuid, uuid_set};

use super::stand::{LIMIT, Ovs, alone, eventually};

fn new_bridge(name: &str, tag: i64) -> Transaction {
    let mut tx = Transaction::new();
    tx.insert("Interface", "i", Row::new().set("name", name).set("type", "internal"))
        .insert(
            "Port",
            "p",
            Row::new()
                .set("name", name)
                .set("tag", tag)
                .set("interfaces", named_uuid("i")),
        )
        .insert(
            "Bridge",
            "b",
            Row::new()
                .set("name", name)
                .set("datapath_type", "netdev")
                .set("ports", uuid_set([named_uuid("p")])),
        )
        .add_references_to_only_row("Open_vSwitch", "bridges", &["b".to_owned()]);
    tx
}

#[test]
fn whoever_waits_for_the_loss_of_the_database_is_told_at_once() {
    alone(|| async {
        let mut ovs = Ovs::start().await;
        let client = Client::start(ovs.socket(), CancellationToken::new());
        client.ready(LIMIT).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), client.lost()).await;
        assert!(early.is_err(), "it is there");
        ovs.stop_server();
        tokio::time::timeout(LIMIT, client.lost()).await.unwrap();
    });
}

#[test]
fn a_database_that_is_not_there_is_unknown_and_requests_say_so() {
    alone(|| async {
        let client = Client::start("/run/nowhere.sock", CancellationToken::new());
        assert!(matches!(
            client.ready(Duration::from_millis(50)).await,
            Err(Error::NotConnected { .. })
        ));
        assert!(client.snapshot().is_none());
        let answer = client.transact(&Transaction::new()).await;
        assert!(matches!(answer, Err(Error::NotConnected { .. })), "{answer:?}");
    });
}

#[test]
fn a_commit_is_acted_on_and_seen_when_it_returns() {
    alone(|| async {
        let ovs = Ovs::start().await;
        let client = ovs.client().await;
        let mut ticks = client.changes();
        client.commit(new_bridge("br-a", 7), LIMIT).await.unwrap();
        assert!(ticks.has_changed().unwrap());
        ticks.mark_unchanged();
        let snapshot = client.snapshot().unwrap();
        let (_, port) = snapshot.port("br-a").unwrap();
        assert_eq!(port.tag, Some(7));
        assert_eq!(snapshot.interface("br-a").unwrap().1.ofport, Some(65534));
    });
}

#[test]
fn changes_of_others_arrive_and_rows_disappear() {
    alone(|| async {
        let ovs = Ovs::start().await;
        let client = ovs.client().await;
        ovs.vsctl(&[
            "add-br",
            "br-x",
            "--",
            "set",
            "bridge",
            "br-x",
            "datapath_type=netdev",
            "external_ids:a=1",
        ]);
        ovs.vsctl(&["set", "port", "br-x", "trunks=1,2,3"]);
        ovs.vsctl(&[
            "remove",
            "port",
            "br-x",
            "trunks",
            "2",
            "--",
            "set",
            "bridge",
            "br-x",
            "external_ids:a=2",
        ]);
        eventually("the stranger's bridge", async || {
            let snapshot = client.snapshot().unwrap();
            let trunks = snapshot
                .port("br-x")
                .map(|(_, port)| port.trunks.iter().copied().collect::<Vec<_>>());
            let mark = snapshot
                .bridge("br-x")
                .and_then(|(_, bridge)| bridge.external_ids.get("a").cloned());
            if trunks == Some(vec![1, 3]) && mark.as_deref() == Some("2") {
                Ok(())
            } else {
                Err((trunks, mark))
            }
        })
        .await;
        ovs.vsctl(&["del-br", "br-x"]);
        eventually("its end", async || {
            let snapshot = client.snapshot().unwrap();
            let left = (snapshot.bridges.len(), snapshot.ports.len(), snapshot.interfaces.len());
            if left == (0, 0, 0) { Ok(()) } else { Err(left) }
        })
        .await;
    });
}

#[test]
fn a_failed_operation_is_an_error_and_leaves_nothing_half_done() {
    alone(|| async {
        let ovs = Ovs::start().await;
        let client = ovs.client().await;
        let error = client.transact(&new_bridge("br-a", 5000)).await.unwrap_err();
        assert!(matches!(&error, Error::Operation { index: 1, .. }), "{error}");
        assert!(error.to_string().contains("constraint violation"), "{error}");
        assert_eq!(ovs.vsctl(&["list-br"]), "");

        // A constraint that only the commit can see.
        client.transact(&new_bridge("br-a", 5)).await.unwrap();
        let error = client.transact(&new_bridge("br-a", 5)).await.unwrap_err();
        assert!(matches!(error, Error::Operation { .. }), "{error}");
        assert_eq!(ovs.vsctl(&["list-br"]), "br-a");
    });
}

#[test]
fn a_change_of_a_row_that_is_gone_is_an_error() {
    alone(|| async {
        let ovs = Ovs::start().await;
        let client = ovs.client().await;
        let mut tx = Transaction::new();
        tx.update("Port", uuid::Uuid::new_v4(), Row::new().set("tag", 1));
        assert!(matches!(
            client.transact(&tx).await,
            Err(Error::Count {
                count: 0,
                expected: 1,
                ..
            })
        ));

        let mut tx = new_bridge("br-guarded", 1);
        tx.require("Port", uuid::Uuid::new_v4(), Row::new().set("name", "gone"));
        let error = client.transact(&tx).await.unwrap_err();
        assert!(error.to_string().contains("guard on Port"), "{error}");
        assert_eq!(ovs.vsctl(&["list-br"]), "");
    });
}

#[test]
fn a_lost_database_is_unknown_and_comes_back_whole() {
    alone(|| async {
        let mut ovs = Ovs::start().await;
        let client = ovs.client().await;
        client.commit(new_bridge("br-a", 1), LIMIT).await.unwrap();
        ovs.stop_server();
        eventually("unknown", async || {
            client.snapshot().map_or(Ok(()), |_| Err("still known"))
        })
        .await;
        ovs.start_server().await;
        ovs.vsctl(&["--no-wait", "set", "port", "br-a", "tag=2"]);
        eventually("the new tag", async || {
            let tag = client.snapshot().and_then(|snapshot| snapshot.port("br-a")?.1.tag);
            if tag == Some(2) { Ok(()) } else { Err(tag) }
        })
        .await;
        client.commit(Transaction::new(), LIMIT).await.unwrap();
    });
}

#[test]
fn a_commit_says_when_vswitchd_does_not_act() {
    alone(|| async {
        let mut ovs = Ovs::start().await;
        let client = ovs.client().await;
        client.commit(Transaction::new(), LIMIT).await.unwrap();
        ovs.kill_vswitchd();
        let error = client
            .commit(new_bridge("br-a", 1), Duration::from_millis(200))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::NotApplied { .. }), "{error}");
        // The transaction itself stands.
        assert_eq!(ovs.vsctl(&["list-br"]), "br-a");
        ovs.start_vswitchd();
        client.commit(Transaction::new(), LIMIT).await.unwrap();
        assert!(client.snapshot().unwrap().interface("br-a").unwrap().1.ofport.is_some());
    });
}
