//! The flows around a guest's port: before it, with it, after it.

use super::*;

/// In which order row and flows came cannot be seen afterwards, so flows are made impossible.
#[test]
fn a_guests_port_waits_for_its_flows() {
    alone(async || {
        let mut host = Host::new().await;
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, mut session) = host.with(&all).await;
        // From now on the switch refuses the version that we speak, and with it every new flow.
        host.ovs.vsctl(&["set", "bridge", "br-int", "protocols=OpenFlow10"]);
        let more = [
            all[0].clone(),
            port(1002, 111),
            trunk(&[110, 111]),
            flows(110),
            flows(111),
        ];
        session.update(update(1, 2, &all, &more)).await;
        let seen = session
            .reports_until(|s| {
                s.items
                    .get("port tap_1002_eth1")
                    .is_some_and(|o| o.reason.contains("waits for its flows"))
            })
            .await;
        assert!(!seen.is_ready(&more[1]));
        assert_eq!(host.ports(), ["tap_1001_eth1", "up0"]);

        host.ovs.vsctl(&["clear", "bridge", "br-int", "protocols"]);
        session.reports_until(|s| more.iter().all(|e| s.is_ready(e))).await;
        assert_eq!(host.ports(), ["tap_1001_eth1", "tap_1002_eth1", "up0"]);
        agent.stop().await;
    });
}

#[test]
fn the_bridge_is_secure_and_a_port_has_the_number_that_its_flows_name() {
    alone(async || {
        let mut host = Host::new().await;
        let (agent, _session) = host.with(&[port(1001, 110), trunk(&[110]), flows(110)]).await;
        assert_eq!(host.ovs.vsctl(&["get", "bridge", "br-int", "fail_mode"]), "secure");
        let of = |column| host.ovs.vsctl(&["get", "interface", "tap_1001_eth1", column]);
        assert_eq!(of("ofport"), of("ofport_request"));
        let named = format!("in_port={}", of("ofport"));
        assert!(
            host.flows().iter().any(|flow| flow.contains(&named)),
            "{:#?}",
            host.flows()
        );
        agent.stop().await;
    });
}

#[test]
fn flows_that_are_deleted_or_lost_are_back_at_once() {
    alone(async || {
        let mut host = Host::new().await;
        // Looks of its own come too seldom to be what mends it.
        host.alive_every = Duration::from_secs(600);
        let all = [port(1001, 110), trunk(&[110]), flows_with(110, Some(50))];
        let (agent, _session) = host.with(&all).await;
        let before = host.flows();
        assert!(before.len() > 10, "{before:#?}");

        let back = async |host: &Host, what: &str| {
            eventually(what, async || match host.flows() {
                now if now == before => Ok(()),
                now => Err(now),
            })
            .await;
        };
        host.ofctl("del-flows", &[]);
        back(&host, "flows after del-flows").await;
        host.ofctl("del-flows", &["table=0"]);
        back(&host, "flows of one table").await;

        host.ovs.kill_vswitchd();
        host.ovs.start_vswitchd();
        eventually("the switch again", async || {
            let socket = std::path::Path::new("/run/openvswitch/br-int.mgmt");
            tokio::net::UnixStream::connect(socket).await
        })
        .await;
        back(&host, "flows after a restart").await;
        assert_eq!(host.ofctl("get-frags", &[]), "nx-match");
        let meters = host.ofctl("dump-meters", &[]);
        assert!(meters.contains("rate=50"), "{meters}");
        agent.stop().await;
    });
}

#[test]
fn fragments_that_somebody_hides_are_shown_again_by_the_next_look() {
    alone(async || {
        let mut host = Host::new().await;
        host.alive_every = Duration::from_millis(200);
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, _session) = host.with(&all).await;
        assert_eq!(host.ofctl("get-frags", &[]), "nx-match");
        host.ofctl("set-frags", &["normal"]);
        eventually("fragments are shown", async || match host.ofctl("get-frags", &[]) {
            now if now == "nx-match" => Ok(()),
            now => Err(now),
        })
        .await;
        agent.stop().await;
    });
}

#[test]
fn a_guest_without_the_rules_of_its_vlan_is_shut() {
    alone(async || {
        let mut host = Host::new().await;
        let all = [port(1001, 110), trunk(&[110])];
        let agent = host.agent();
        let mut session = host.controller.session().await;
        session.hello().await;
        session.welcome().await;
        session.update(update(0, 1, &[], &all)).await;
        let seen = session
            .reports_until(|s| s.state("port tap_1001_eth1") == Some(State::Failed) && s.is_ready(&all[1]))
            .await;
        let reason = &seen.items["port tap_1001_eth1"].reason;
        assert!(reason.contains("shut"), "{reason}");
        let number = host.ovs.vsctl(&["get", "interface", "tap_1001_eth1", "ofport"]);
        let from = host.flows_from(&number);
        assert!(
            !from.is_empty() && from.iter().all(|flow| flow.ends_with("actions=drop")),
            "{from:#?}"
        );
        agent.stop().await;
    });
}

#[test]
fn what_leaves_takes_its_flows_and_meters_along() {
    alone(async || {
        let mut host = Host::new().await;
        let limited = flows_with(111, Some(50));
        let all = [
            port(1001, 110),
            port(1002, 111),
            trunk(&[110, 111]),
            flows(110),
            limited,
        ];
        let (agent, mut session) = host.with(&all).await;
        assert!(host.ofctl("dump-meters", &[]).contains("rate=50"));
        let number = host.ovs.vsctl(&["get", "interface", "tap_1002_eth1", "ofport"]);
        let fewer = [all[0].clone(), trunk(&[110]), flows(110)];
        session.update(update(1, 2, &all, &fewer)).await;
        session.reports_until(|s| s.clean_generation == 2).await;
        let left = host.flows();
        assert!(
            !left
                .iter()
                .any(|flow| flow.contains(&format!("in_port={number},")) || flow.contains("dl_vlan=111")),
            "{left:#?}"
        );
        assert!(!host.ofctl("dump-meters", &[]).contains("rate"));

        session.update(update(2, 3, &fewer, &[])).await;
        session.reports_until(|s| s.clean_generation == 3).await;
        assert_eq!(host.flows(), Vec::<String>::new());
        agent.stop().await;
    });
}

/// How long a guest stands between two VLANs cannot be seen afterwards, so the database is made to wait.
#[test]
fn a_guest_that_changes_its_vlan_is_shut_until_its_tag_is_the_new_one() {
    alone(async || {
        let mut host = Host::new().await;
        let carried = trunk(&[110, 111]);
        let all = [port(1001, 110), carried.clone(), flows(110), flows(111)];
        let (agent, mut session) = host.with(&all).await;
        let number = host.ovs.vsctl(&["get", "interface", "tap_1001_eth1", "ofport"]);

        host.ovs.freeze_server();
        let moved = [port(1001, 111), carried, flows(110), flows(111)];
        session.update(update(1, 2, &all, &moved)).await;
        eventually("the guest is shut", async || {
            let from = host.flows_from(&number);
            let shut = !from.is_empty() && from.iter().all(|flow| flow.ends_with("actions=drop"));
            if shut { Ok(()) } else { Err(from) }
        })
        .await;

        host.ovs.thaw_server();
        // What did not change is not told again.
        session
            .reports_until(|s| s.is_ready(&moved[0]) && s.clean_generation == 2)
            .await;
        assert_eq!(host.port("tap_1001_eth1", "tag"), "111");
        let from = host.flows_from(&number);
        assert!(
            from.iter().any(|flow| flow.contains("set_field:0x6f->reg0")),
            "{from:#?}"
        );
        agent.stop().await;
    });
}
