//! A switch that cannot do all that is asked of it, or says nothing: what still holds.

use super::{middleman::Middleman, *};

const FLOWS: &str = "flows flows_vlan110";

#[test]
fn without_meters_the_flows_are_set_without_limits_and_it_is_said() {
    alone(async || {
        let mut host = Host::new().await;
        let middleman = Middleman::start(&host.ovs.socket());
        host.socket = middleman.socket();
        middleman.refuse_meters(true);
        let all = [port(1001, 110), trunk(&[110]), flows_with(110, Some(50))];
        let agent = host.agent();
        let mut session = host.controller.session().await;
        session.hello().await;
        session.welcome().await;
        session.update(update(0, 1, &[], &all)).await;
        let seen = session
            .reports_until(|s| s.is_ready(&all[0]) && s.state(FLOWS) == Some(State::Degraded))
            .await;
        let reason = &seen.items[FLOWS].reason;
        assert!(reason.starts_with("broadcast limits cannot be set: "), "{reason}");
        let flows = host.flows();
        assert!(flows.iter().any(|flow| flow.ends_with("actions=NORMAL")), "{flows:#?}");
        assert!(!flows.iter().any(|flow| flow.contains("meter:")), "{flows:#?}");

        // A pass for something else does not ask again for what this switch has refused.
        let refused = middleman.meters_refused();
        assert!(refused > 0);
        let more = [all[0].clone(), trunk(&[110, 111]), all[2].clone()];
        session.update(update(1, 2, &all, &more)).await;
        session.reports_until(|s| s.is_ready(&more[1])).await;
        assert_eq!(middleman.meters_refused(), refused);

        // Another connection may be one to another datapath.
        middleman.refuse_meters(false);
        middleman.cut();
        session.reports_until(|s| s.is_ready(&all[2])).await;
        assert!(host.flows().iter().any(|flow| flow.contains("meter:")));
        assert!(host.ofctl("dump-meters", &[]).contains("rate=50"));
        agent.stop().await;
    });
}

/// A guest leaves while no flow can be changed: its port goes all the same, and nobody's joins.
async fn a_port_leaves(
    host: &mut Host,
    agent: Node,
    mut session: Session,
    before: &[Envelope],
    mend: impl FnOnce(&Host),
) {
    let after = [before[1].clone(), port(1003, 110), trunk(&[110]), flows(110)];
    session.update(update(1, 2, before, &after)).await;
    eventually("the port of the guest that left is gone", async || match host.ports() {
        ports if ports == ["tap_1002_eth1", "up0"] => Ok(()),
        ports => Err(ports),
    })
    .await;
    session
        .reports_until(|s| s.state("port tap_1003_eth1").is_some_and(|state| state != State::Ready))
        .await;
    assert_eq!(host.ports(), ["tap_1002_eth1", "up0"]);

    mend(host);
    session
        .reports_until(|s| s.is_ready(&after[1]) && s.clean_generation == 2)
        .await;
    assert_eq!(host.ports(), ["tap_1002_eth1", "tap_1003_eth1", "up0"]);
    assert_eq!(devices(), ["tap_1002_eth1", "tap_1003_eth1"]);
    agent.stop().await;
}

fn two_guests() -> [Envelope; 4] {
    [port(1001, 110), port(1002, 110), trunk(&[110]), flows(110)]
}

#[test]
fn a_port_leaves_though_the_bridge_speaks_no_version_of_ours() {
    alone(async || {
        let mut host = Host::new().await;
        let all = two_guests();
        let (agent, session) = host.with(&all).await;
        host.ovs.vsctl(&["set", "bridge", "br-int", "protocols=OpenFlow10"]);
        let mend = |host: &Host| drop(host.ovs.vsctl(&["clear", "bridge", "br-int", "protocols"]));
        a_port_leaves(&mut host, agent, session, &all, mend).await;
    });
}

#[test]
fn a_port_leaves_though_the_bridge_says_nothing_of_the_flows() {
    alone(async || {
        let mut host = Host::new().await;
        let middleman = Middleman::start(&host.ovs.socket());
        host.socket = middleman.socket();
        let all = two_guests();
        let (agent, session) = host.with(&all).await;
        middleman.lose_bundles(true);
        a_port_leaves(&mut host, agent, session, &all, |_| middleman.lose_bundles(false)).await;
    });
}

#[test]
fn an_uplink_that_is_a_bond_is_refused_by_name_and_guests_here_go_on() {
    alone(async || {
        let mut host = Host::new().await;
        run("ip", &["link", "add", "up1", "type", "veth", "peer", "name", "wire1"]);
        host.strangers_bridge();
        host.ovs.vsctl(&["add-bond", "br-int", "bond0", "up0", "up1"]);
        (host.adopt, host.uplink) = (true, "bond0");
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let agent = host.agent();
        let mut session = host.controller.session().await;
        session.hello().await;
        session.welcome().await;
        session.update(update(0, 1, &[], &all)).await;
        let seen = session
            .reports_until(|s| s.is_ready(&all[0]) && s.state("trunk uplink") == Some(State::Failed))
            .await;
        let reason = &seen.items["trunk uplink"].reason;
        assert!(
            reason.contains("the uplink bond0 is a bond of 2 interfaces") && reason.contains("name one interface"),
            "{reason}"
        );
        let flows = host.flows();
        assert!(!flows.iter().any(|flow| flow.contains("dl_vlan=110")), "{flows:#?}");
        agent.stop().await;
    });
}
