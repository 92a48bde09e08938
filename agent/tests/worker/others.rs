//! What is somebody else's: devices, bridges, flows; and a switch that is away.

use super::*;

impl Host {
    /// A bridge of the name that is configured, without our mark.
    pub(super) fn strangers_bridge(&self) {
        let bridge = ["--", "set", "bridge", "br-int", "datapath_type=netdev"];
        self.ovs.vsctl(&[&["add-br", "br-int"], &bridge[..]].concat());
    }
}

#[test]
fn a_strangers_device_is_not_taken_and_its_siblings_go_on() {
    alone(async || {
        let mut host = Host::new().await;
        run("ip", &["tuntap", "add", "tap_1001_eth1", "mode", "tap"]);
        let all = [port(1001, 110), port(1002, 110), trunk(&[110]), flows(110)];
        let agent = host.agent();
        let mut session = host.controller.session().await;
        session.hello().await;
        session.welcome().await;
        session.update(update(0, 1, &[], &all)).await;
        let seen = session
            .reports_until(|s| s.is_ready(&all[1]) && s.state("port tap_1001_eth1") == Some(State::Failed))
            .await;
        assert!(
            seen.items["port tap_1001_eth1"]
                .reason
                .contains("not made by Trunkline"),
            "{seen:#?}"
        );
        assert_eq!(host.ports(), ["tap_1002_eth1", "up0"]);
        agent.stop().await;
    });
}

#[test]
fn a_strangers_bridge_is_refused_by_name() {
    alone(async || {
        let mut host = Host::new().await;
        host.strangers_bridge();
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let agent = host.agent();
        let mut session = host.controller.session().await;
        session.hello().await;
        session.welcome().await;
        session.update(update(0, 1, &[], &all)).await;
        let seen = session.reports_until(|s| s.items.len() == 3).await;
        for (key, seen) in &seen.items {
            assert_eq!(seen.state, State::Failed, "{key}");
            assert!(seen.reason.contains("adopt = true"), "{}", seen.reason);
        }
        assert_eq!(host.ports(), Vec::<String>::new());
        agent.stop().await;
    });
}

#[test]
fn a_switch_that_is_away_is_unknown_and_found_again() {
    alone(async || {
        let mut host = Host::new().await;
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, mut session) = host.with(&all).await;
        host.ovs.stop_server();
        session
            .reports_until(|s| s.state("port tap_1001_eth1") == Some(State::Unknown))
            .await;
        host.ovs.start_server().await;
        session.reports_until(|s| s.is_ready(&all[0])).await;
        agent.stop().await;
    });
}

#[test]
fn a_dead_switch_daemon_is_noticed_though_its_database_lives_on() {
    alone(async || {
        let mut host = Host::new().await;
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, mut session) = host.with(&all).await;
        host.ovs.kill_vswitchd();
        let seen = session
            .reports_until(|s| s.state("port tap_1001_eth1") == Some(State::Unknown))
            .await;
        assert!(
            seen.items["port tap_1001_eth1"].reason.contains("ovs-vswitchd"),
            "{seen:#?}"
        );
        host.ovs.start_vswitchd();
        session.reports_until(|s| all.iter().all(|e| s.is_ready(e))).await;
        agent.stop().await;
    });
}

#[test]
fn an_adopted_bridge_becomes_secure_on_a_worker() {
    alone(async || {
        let mut host = Host::new().await;
        host.strangers_bridge();
        host.adopt = true;
        let (agent, _session) = host.with(&[port(1001, 110), trunk(&[110]), flows(110)]).await;
        assert_eq!(host.ovs.vsctl(&["get", "bridge", "br-int", "fail_mode"]), "secure");
        agent.stop().await;
    });
}

#[test]
fn flows_of_others_are_kept_and_named() {
    alone(async || {
        let mut host = Host::new().await;
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, mut session) = host.with(&all).await;
        let theirs = "table=0,priority=999,tcp,actions=NORMAL";
        host.ofctl("add-flow", &[theirs]);
        let seen = session
            .reports_until(|s| s.state("flows flows_vlan110") == Some(State::Degraded))
            .await;
        let reason = &seen.items["flows flows_vlan110"].reason;
        assert!(
            reason.contains("flows of others on br-int") && reason.contains("priority=999"),
            "{reason}"
        );
        let kept = |host: &Host| host.flows().iter().any(|flow| flow.contains("priority=999"));
        assert!(kept(&host));

        run(
            "ovs-ofctl",
            &[
                "-O",
                "OpenFlow14",
                "--strict",
                "del-flows",
                "unix:/run/openvswitch/br-int.mgmt",
                "table=0,priority=999,tcp",
            ],
        );
        // What did not change is not told again.
        session.reports_until(|s| s.is_ready(&all[2])).await;
        agent.stop().await;
    });
}
