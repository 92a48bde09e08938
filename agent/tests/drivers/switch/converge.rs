//! Ports come, are mended and go.

use super::*;

#[test]
fn ports_converge_are_read_back_ready_and_the_next_plan_is_empty() {
    alone(|| async {
        let worker = Worker::start().await;
        let ports = [port(1000, Some(110)), port(1001, None)];
        let plan = worker.pass(&ports, &[110, 111]).await;
        assert!(plan.conflicts.is_empty(), "{plan:?}");
        let next = worker.plan(&desired(&ports, &[110, 111])).await;
        assert!(next.is_empty(), "{next:#?}");

        let column = |record: &str, column: &str| worker.ovs.vsctl(&["get", "port", record, column]);
        assert_eq!(
            (column("tap_1000_eth1", "tag"), column("tap_1000_eth1", "vlan_mode")),
            ("110".into(), "access".into())
        );
        assert_eq!(
            (column("tap_1001_eth1", "tag"), column("tap_1001_eth1", "protected")),
            ("0".into(), "true".into())
        );
        assert_eq!(
            (column("trunk0", "trunks"), column("trunk0", "vlan_mode")),
            ("[110, 111]".into(), "trunk".into())
        );
        assert_eq!(column("tap_1000_eth1", "external_ids:trunkline"), "w1");
        assert_eq!(column("tap_1000_eth1", "external_ids:trunkline-slice"), "red");
        assert!(
            worker.ovs.log().contains("trace 00-trace-00"),
            "the database's log names the trace"
        );

        for port in &ports {
            worker.ready(port, &[110, 111]).await;
        }
        let state = desired(&ports, &[110, 111]);
        let trunk = Trunk {
            vlans: BTreeSet::from([vlan(110), vlan(111)]),
        };
        let judgement = switch::judge_trunk(&trunk, &state, &worker.observe().await, &BTreeMap::new());
        assert_eq!(judgement.state, State::Ready, "{judgement:?}");

        let observed = worker.observe().await;
        assert!(observed.devices["trunk0"].link.up);
        assert!(!observed.devices["br-int"].link.up, "the local port stays down");
        assert_eq!(
            std::fs::read_to_string("/proc/thread-self/net/if_inet6")
                .unwrap()
                .matches("br-int")
                .count(),
            0
        );
        assert_eq!(
            trunkline_agent::netns::read_sysctl(None, "net/ipv6/conf/br-int/disable_ipv6")
                .await
                .unwrap(),
            "1"
        );
    });
}

#[test]
fn everything_goes_again_but_the_bridge_and_an_uplink_that_carries_nothing() {
    alone(|| async {
        let worker = Worker::start().await;
        worker.pass(&[port(1000, Some(110))], &[110]).await;
        worker.pass(&[], &[]).await;
        assert_eq!(worker.ovs.vsctl(&["list-ports", "br-int"]), "trunk0");
        assert_eq!(worker.ovs.vsctl(&["get", "port", "trunk0", "trunks"]), "[4095]");
        assert!(worker.netlink.link("tap_1000_eth1").await.unwrap().is_none());
    });
}

#[test]
fn two_hundred_ports_are_one_transaction() {
    alone(|| async {
        let worker = Worker::start().await;
        worker.apply(&desired(&[], &[])).await;
        let ports: Vec<Port> = (0..200).map(|n| port(1000 + n, Some(100 + n))).collect();
        let trunks: Vec<u32> = (100..300).collect();
        let before = worker.client.snapshot().unwrap().root.next_cfg;
        worker.pass(&ports, &trunks).await;
        assert_eq!(worker.client.snapshot().unwrap().root.next_cfg, before + 1);
        let observed = worker.observe().await;
        let state = desired(&ports, &trunks);
        for port in &ports {
            let judgement = switch::judge_port(port, &state, &observed, &BTreeMap::new());
            assert_eq!(judgement.state, State::Ready, "{}", judgement.reason);
        }
        assert!(worker.plan(&state).await.is_empty());
        worker.pass(&[], &[]).await;
        assert!(
            worker
                .netlink
                .links()
                .await
                .unwrap()
                .iter()
                .all(|link| !tap::is_tap(link))
        );
    });
}

#[test]
fn internal_ports_get_their_mac_and_mtu() {
    alone(|| async {
        let worker = Worker::start().await;
        let mut state = desired(&[], &[110]);
        state.ports.insert("gw_vlan110".into(), internal(110));
        worker.apply(&state).await;
        let link = worker.netlink.link("gw_vlan110").await.unwrap().unwrap();
        assert_eq!(
            (link.mac, link.mtu),
            (Some([0x52, 0x55, 0, 1, 0, 110]), 1400),
            "{link:?}"
        );
        assert!(worker.plan(&state).await.is_empty());
        assert_eq!(
            switch::port_problem(
                "gw_vlan110",
                &state.ports["gw_vlan110"],
                &state,
                &worker.observe().await
            ),
            None
        );
    });
}

#[test]
fn what_others_changed_is_mended_and_what_they_added_stays() {
    alone(|| async {
        let worker = Worker::start().await;
        let ports = [port(1000, Some(110))];
        worker.pass(&ports, &[110]).await;
        run("ip", &["tuntap", "add", "foreign", "mode", "tap"]);
        worker.ovs.vsctl(&["add-port", "br-int", "foreign"]);
        worker
            .ovs
            .vsctl(&["set", "port", "tap_1000_eth1", "tag=666", "external_ids:their=note"]);
        worker.ovs.vsctl(&["clear", "port", "trunk0", "trunks"]);
        let trunks = || worker.ovs.vsctl(&["get", "port", "trunk0", "trunks"]);
        eventually("the stranger's change", async || {
            let snapshot = worker.client.snapshot().unwrap();
            if snapshot.port("trunk0").unwrap().1.trunks.is_empty() {
                Ok(())
            } else {
                Err(trunks())
            }
        })
        .await;
        assert_eq!(worker.judge(&ports[0], &[110]).await.state, State::Failed);
        worker.pass(&ports, &[110]).await;
        assert_eq!(trunks(), "[110]");
        assert_eq!(worker.ovs.vsctl(&["get", "port", "tap_1000_eth1", "tag"]), "110");
        assert_eq!(
            worker
                .ovs
                .vsctl(&["get", "port", "tap_1000_eth1", "external_ids:their"]),
            "note"
        );
        worker.pass(&[], &[]).await;
        assert_eq!(worker.ovs.vsctl(&["list-ports", "br-int"]), "foreign\ntrunk0");
    });
}

#[test]
fn a_transaction_that_fails_changes_nothing() {
    alone(|| async {
        let worker = Worker::start().await;
        worker.apply(&desired(&[], &[])).await;
        let plan = worker
            .plan(&desired(&[port(1000, Some(110)), port(1001, Some(110))], &[110]))
            .await;
        // Somebody takes one of the names between the look and the act.
        worker.ovs.vsctl(&[
            "add-port",
            "br-int",
            "tap_1001_eth1",
            "--",
            "set",
            "interface",
            "tap_1001_eth1",
            "type=internal",
        ]);
        let error = switch::execute(&plan, &worker.client, &worker.netlink, None, LIMIT)
            .await
            .unwrap_err();
        assert!(matches!(error, switch::Error::Ovsdb(_)), "{error}");
        assert_eq!(worker.ovs.vsctl(&["list-ports", "br-int"]), "tap_1001_eth1\ntrunk0");
        assert_eq!(worker.ovs.vsctl(&["get", "port", "trunk0", "trunks"]), "[4095]");
    });
}

#[test]
fn ports_come_back_after_vswitchd_died() {
    alone(|| async {
        let mut worker = Worker::start().await;
        let ports = [port(1000, Some(110))];
        worker.pass(&ports, &[110]).await;
        worker.ovs.kill_vswitchd();
        assert!(
            switch::prove_alive(&worker.client, std::time::Duration::from_millis(200))
                .await
                .is_err()
        );
        worker.ovs.start_vswitchd();
        switch::prove_alive(&worker.client, LIMIT).await.unwrap();
        worker.ready(&ports[0], &[110]).await;
        worker.pass(&ports, &[110]).await;
        assert!(worker.plan(&desired(&ports, &[110])).await.is_empty());
        assert!(!worker.observe().await.devices["br-int"].link.up);
    });
}

#[test]
fn a_tap_that_was_deleted_under_its_port_is_made_again_and_taken_again() {
    alone(|| async {
        let worker = Worker::start().await;
        let ports = [port(1000, Some(110))];
        worker.pass(&ports, &[110]).await;
        worker.ready(&ports[0], &[110]).await;
        run("ip", &["link", "del", "tap_1000_eth1"]);
        assert_eq!(worker.judge(&ports[0], &[110]).await.state, State::Failed);
        eventually("port mended", async || {
            worker.pass(&ports, &[110]).await;
            let judgement = worker.judge(&ports[0], &[110]).await;
            if judgement.state == State::Ready {
                Ok(())
            } else {
                Err(judgement.reason)
            }
        })
        .await;
        let link = worker.netlink.link("tap_1000_eth1").await.unwrap().unwrap();
        assert_eq!(
            worker.ovs.vsctl(&["get", "interface", "tap_1000_eth1", "ifindex"]),
            link.index.to_string()
        );
    });
}
