//! What is told of besides: flows of others, leases; and what is no repair.

use super::*;

/// Not by a look of its own: those are ten minutes apart here.
#[test]
fn the_bridge_forwards_again_when_its_flows_were_deleted_and_flows_of_others_are_named() {
    on_private_host(
        "told::the_bridge_forwards_again_when_its_flows_were_deleted_and_flows_of_others_are_named",
        |lab| async move {
            let mut stand = Stand::new(lab).await;
            let (node, mut session) = stand.with(&all()).await;
            let lab = &stand.lab;
            let trunk = &all()[0];
            let guest = Guest::plug(lab, "web", 110, "52:54:00:03:ea:01");
            guest.configure(&guest.lease().await.expect("a lease"));
            assert!(guest.pings("10.64.110.1"));
            for _ in 0..3 {
                lab.ofctl(&["del-flows"], &[]);
                let told = "the flow that makes the bridge forward was gone";
                session.reports_until(|s| s.is_repaired("trunk uplink", told)).await;
                assert!(guest.pings("10.64.110.1"));
            }

            let strange = "priority=9,arp,actions=drop";
            lab.ofctl(&["add-flow"], &[strange]);
            let named = |reason: &str| reason.contains("flows of others on br-int") && reason.contains("priority=9");
            let is_named = |seen: &controller::Seen| {
                let trunk = seen.items.get("trunk uplink");
                trunk.is_some_and(|trunk| trunk.state == State::Degraded && named(&trunk.reason))
            };
            session.reports_until(is_named).await;
            assert!(lab.ofctl(&["dump-flows"], &[]).contains("priority=9"), "it is kept");
            lab.ofctl(&["--strict", "del-flows"], &["priority=9,arp"]);
            session.reports_until(|s| s.is_ready(trunk)).await;

            // Open vSwitch's own is back after a restart, ours a moment later.
            lab.kill_vswitchd();
            lab.start_vswitchd();
            wait("both flows", || {
                lab.ofctl(&["dump-flows"], &[]).matches("NORMAL").count() == 2
            });
            node.stop().await;
        },
    );
}

#[test]
fn a_change_that_was_asked_for_and_a_restart_are_no_repair() {
    on_private_host(
        "told::a_change_that_was_asked_for_and_a_restart_are_no_repair",
        |lab| async move {
            let mut stand = Stand::new(lab).await;
            let (node, mut session) = stand.with(&all()).await;
            let guests = [reservation("52:54:00:03:ea:01", "10.64.110.11", "web", false)];
            let specs = [
                trunk(&[110, 111]),
                gateway(110),
                dhcp(110, &guests),
                gateway(111),
                dhcp(111, &[]),
            ];
            let more: Vec<_> = specs.iter().map(|spec| Envelope::seal(spec, "")).collect();
            for (base, from, to) in [(1, all(), &more), (2, more.clone(), &all())] {
                session.update(update(base, base + 1, &from, to)).await;
                let seen = session.reports_until(|s| s.clean_generation == base + 1).await;
                assert!(seen.repairs.is_empty(), "{:?}", seen.repairs);
            }
            drop(session);
            node.kill().await;
            let node = stand.node();
            let mut session = stand.controller.session().await;
            session.hello().await;
            session.welcome().await;
            let seen = session
                .reports_until(|s| s.complete && all().iter().all(|e| s.is_ready(e)))
                .await;
            assert!(seen.repairs.is_empty(), "{:?}", seen.repairs);
            node.stop().await;
        },
    );
}

#[test]
fn leases_are_told_one_by_one() {
    on_private_host("told::leases_are_told_one_by_one", |lab| async move {
        let mut stand = Stand::new(lab).await;
        let (node, mut session) = stand.with(&all()).await;
        let guest = Guest::plug(&stand.lab, "guest", 110, "52:54:00:03:ea:01");
        guest.lease().await.expect("a lease");
        let held = |s: &controller::Seen| match s.items.get("dhcp dhcp_v110").map(|o| o.facts.clone()) {
            Some(Some(Facts::Dhcp(facts))) => facts.held,
            _ => vec![],
        };
        let seen = session.reports_until(|s| !held(s).is_empty()).await;
        let lease = held(&seen).remove(0);
        assert_eq!((&*lease.mac, &*lease.address), ("52:54:00:03:ea:01", "10.64.110.10"));
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!((now + 3000..now + 3700).contains(&lease.expires), "{lease:?}");
        node.stop().await;
    });
}
