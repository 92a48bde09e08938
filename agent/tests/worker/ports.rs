//! TAPs and ports: they come, are read back, are mended, stay and go.

use super::*;

#[test]
fn a_slice_reaches_taps_and_switch_and_leaves_without_a_trace() {
    alone(async || {
        let mut host = Host::new().await;
        let isolated = port_with(1000, None, 1500);
        let all = [
            isolated,
            port(1001, 110),
            port(1002, 111),
            trunk(&[110, 111]),
            flows(110),
            flows(111),
        ];
        let (agent, mut session) = host.with(&all).await;

        assert_eq!(devices(), ["tap_1000_eth1", "tap_1001_eth1", "tap_1002_eth1"]);
        assert_eq!(host.ports(), ["tap_1000_eth1", "tap_1001_eth1", "tap_1002_eth1", "up0"]);
        assert_eq!(host.port("tap_1001_eth1", "tag"), "110");
        assert_eq!(host.port("tap_1000_eth1", "tag"), "0");
        assert_eq!(host.port("tap_1000_eth1", "protected"), "true");
        assert_eq!(host.port("up0", "trunks"), "[110, 111]");

        let fewer = [all[1].clone(), trunk(&[110]), flows(110)];
        session.update(update(1, 2, &all, &fewer)).await;
        let seen = session.reports_until(|s| s.clean_generation == 2).await;
        assert!(seen.is_ready(&fewer[1]));
        assert_eq!(devices(), ["tap_1001_eth1"]);
        assert_eq!(host.port("up0", "trunks"), "[110]");

        session.update(update(2, 3, &fewer, &[trunk(&[])])).await;
        session.reports_until(|s| s.clean_generation == 3).await;
        assert_eq!(devices(), Vec::<String>::new());
        assert_eq!(host.ports(), ["up0"]);
        assert_eq!(host.port("up0", "trunks"), "[4095]");
        assert_eq!(host.flows(), Vec::<String>::new());
        agent.stop().await;
    });
}

#[test]
fn what_is_reported_was_read_back() {
    alone(async || {
        let mut host = Host::new().await;
        host.ovs.vsctl(&["set", "Open_vSwitch", ".", "ovs_version=3.1.0-lab"]);
        let agent = host.agent();
        let mut session = host.controller.session().await;
        let facts = session.hello().await.facts.unwrap();
        assert_eq!((&*facts.datapath, &*facts.uplink), ("netdev", "up0"));
        assert_eq!(facts.ovs_version, "3.1.0-lab");
        session.welcome().await;
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        session.update(update(0, 1, &[], &all)).await;
        let seen = session.reports_until(|s| all.iter().all(|e| s.is_ready(e))).await;
        let Some(Facts::Port(port)) = &seen.items["port tap_1001_eth1"].facts else {
            panic!("no facts")
        };
        assert!(port.exists && port.up && port.ofport > 0, "{port:?}");
        assert_eq!((port.tag, port.carrier), (110, false));
        let trunk = TrunkFacts {
            interface: "up0".to_owned(),
            vlans: vec![110],
            up: true,
        };
        assert_eq!(seen.items["trunk uplink"].facts, Some(Facts::Trunk(trunk)));
        agent.stop().await;
    });
}

#[test]
fn what_somebody_breaks_is_mended_at_once() {
    alone(async || {
        let mut host = Host::new().await;
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, _session) = host.with(&all).await;
        for break_it in [
            &["ovs-vsctl", "set", "port", "tap_1001_eth1", "tag=7"][..],
            &["ovs-vsctl", "del-port", "br-int", "tap_1001_eth1"],
            &["ovs-vsctl", "set", "port", "up0", "trunks=[]"],
            &["ip", "link", "set", "tap_1001_eth1", "down"],
            &["ip", "link", "del", "tap_1001_eth1"],
        ] {
            match break_it {
                ["ovs-vsctl", args @ ..] => drop(host.ovs.vsctl(args)),
                [program, args @ ..] => drop(run(program, args)),
                [] => unreachable!(),
            }
            eventually("everything again", async || {
                let up = devices() == ["tap_1001_eth1"]
                    && run("ip", &["-br", "link", "show", "tap_1001_eth1"]).contains(",UP");
                let there = host.ports() == ["tap_1001_eth1", "up0"];
                let right =
                    there && host.port("tap_1001_eth1", "tag") == "110" && host.port("up0", "trunks") == "[110]";
                let taken = there && host.ovs.vsctl(&["get", "interface", "tap_1001_eth1", "error"]) == "[]";
                (up && right && taken)
                    .then_some(())
                    .ok_or(format!("after {break_it:?}"))
            })
            .await;
        }
        agent.stop().await;
    });
}

#[test]
fn the_data_plane_stays_when_the_agent_ends_and_nothing_is_made_anew_when_it_returns() {
    alone(async || {
        let mut host = Host::new().await;
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, session) = host.with(&all).await;
        let before = (
            run("ip", &["-o", "link", "show", "tap_1001_eth1"]),
            host.port("tap_1001_eth1", "_uuid"),
        );
        drop(session);
        agent.stop().await;
        assert_eq!(host.ports(), ["tap_1001_eth1", "up0"]);

        let agent = host.agent();
        let mut session = host.controller.session().await;
        assert_eq!(session.hello().await.generation, 1);
        session.welcome().await;
        session
            .reports_until(|s| s.complete && all.iter().all(|e| s.is_ready(e)))
            .await;
        let after = (
            run("ip", &["-o", "link", "show", "tap_1001_eth1"]),
            host.port("tap_1001_eth1", "_uuid"),
        );
        assert_eq!(before, after);
        agent.stop().await;
    });
}

#[test]
fn three_hundred_ports_come_and_go_in_one_transaction_each() {
    alone(async || {
        let mut host = Host::new().await;
        let mut all: Vec<_> = (0..300).map(|n| port(1000 + n, 101 + n)).collect();
        all.push(trunk(&(101..401).collect::<Vec<_>>()));
        // 400 is internet's, whose rules are others.
        all.extend((101..400).map(flows));
        all.remove(299);
        let began = std::time::Instant::now();
        let (agent, mut session) = host.with(&all).await;
        let came = began.elapsed();
        assert_eq!(devices().len(), 299);
        session.update(update(1, 2, &all, &[trunk(&[])])).await;
        session.reports_until(|s| s.clean_generation == 2).await;
        println!("came {came:?}, went {:?}", began.elapsed() - came);
        assert_eq!(devices().len(), 0);
        agent.stop().await;
    });
}
