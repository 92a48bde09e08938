//! Daemons come and go, in order and by accident; the network stays, and nothing is sent or written twice.

use trunkline_integration::demo::Fleet;
use trunkline_integration::lab::layout::{CONTROLLER, INTERNET_ADDRESS, NETNODE};
use trunkline_integration::lab::{AGENT_PROGRAM, CONTROLLER_PROGRAM, Lab, NETNODE_PROGRAM, Options};
use trunkline_integration::wait::until;
use trunkline_proto::wire::{ListEventsRequest, Slice};

use crate::dataplane::{DataPlane, await_in_step};
use crate::looks::{dhcp_servers, interface, on, port_column, try_on};
use crate::metrics::value;
use crate::streams::Pings;
use crate::support::{LIMIT, api, fleet, guests, must_trunkctl, scrape, with_two_slices};

#[derive(Debug, Clone, Copy)]
enum End {
    /// SIGTERM.
    Order,
    /// SIGKILL.
    Crash,
}

const ENDS: [End; 2] = [End::Order, End::Crash];

fn restart(lab: &Lab, host: &str, program: &str, end: End) {
    stop(lab, host, program, end);
    lab.start_daemon(host, program).unwrap();
}

fn stop(lab: &Lab, host: &str, program: &str, end: End) {
    match end {
        End::Order => lab.stop_daemon(host, program).unwrap(),
        End::Crash => lab.kill_daemon(host, program).unwrap(),
    }
}

/// How many changes of desired state a node was sent since it started.
fn updates_taken(lab: &Lab, node: &str) -> f64 {
    let text = scrape(lab, node);
    let counts = text
        .lines()
        .filter(|line| line.starts_with("trunkline_node_updates_total"));
    counts
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum()
}

/// What the controller sent since it started: updates, and resources in them.
fn sent(lab: &Lab) -> (f64, f64) {
    let of = |metric: &str| value(lab, CONTROLLER, metric);
    (of("trunkline_updates_total"), of("trunkline_update_resources_total"))
}

/// Everything that the store has: slices, and what the journal tells of them.
fn stored(lab: &Lab) -> (Vec<Slice>, (u64, u64, u64), Vec<String>) {
    let api = api(lab);
    let status = api.status().unwrap();
    let request = ListEventsRequest {
        page_size: 1000,
        ..ListEventsRequest::default()
    };
    let events = api
        .block_on(api.client().events().list_events(request))
        .unwrap()
        .into_inner()
        .events;
    let of_slices = events
        .into_iter()
        .filter(|event| event.r#type.starts_with("slice.") && event.revision != 0);
    let asked = |kind: &str| ["slice.applied", "slice.deployed"].contains(&kind);
    let events = of_slices
        .filter(|event| asked(&event.r#type))
        .map(|event| event.message)
        .collect();
    (
        api.slices().unwrap(),
        (status.revision, status.term, status.generation),
        events,
    )
}

#[test]
fn a_restarted_controller_has_everything_and_sends_nothing_again() {
    let lab = with_two_slices();
    let guests = guests(&lab, &["blue", "green"]);
    let left = guests["green/left"].await_lease("eth1", LIMIT).unwrap().address;
    guests["green/right"].await_lease("eth1", LIMIT).unwrap();
    guests["blue/web"].await_lease("eth0", LIMIT).unwrap();
    await_in_step(&lab);

    let nodes = lab.layout().nodes();
    let (network, state) = (DataPlane::of(&lab), stored(&lab));
    assert!(!state.2.is_empty(), "the journal tells of the deployments");
    let taken: Vec<f64> = nodes.iter().map(|node| updates_taken(&lab, node)).collect();
    assert!(
        taken.iter().all(|count| *count > 0.0),
        "the updates so far were counted: {taken:?}"
    );
    let within = Pings::start(&guests["green/right"], left);
    let outside = Pings::start(
        &guests["blue/web"],
        trunkline_integration::lab::layout::INTERNET_ADDRESS,
    );
    for end in ENDS {
        restart(&lab, CONTROLLER, CONTROLLER_PROGRAM, end);
        Fleet::connect(&lab).unwrap().await_nodes().unwrap();
        await_in_step(&lab);
        assert_eq!(stored(&lab), state, "after {end:?}");
        assert_eq!(
            sent(&lab),
            (0.0, 0.0),
            "the new controller sent something after {end:?}"
        );
        for (node, before) in nodes.iter().zip(&taken) {
            assert_eq!(
                updates_taken(&lab, node),
                *before,
                "{node} was sent something after {end:?}"
            );
        }
        assert_eq!(DataPlane::of(&lab), network, "after {end:?}");
        within.await_more();
        outside.await_more();
    }
    within.assert_lossless();
    outside.assert_lossless();
}

#[test]
fn a_restarted_node_is_in_step_again_without_being_sent_anything() {
    let lab = with_two_slices();
    let guests = guests(&lab, &["blue", "green"]);
    let left = guests["green/left"].await_lease("eth1", LIMIT).unwrap().address;
    guests["green/right"].await_lease("eth1", LIMIT).unwrap();
    guests["blue/web"].await_lease("eth0", LIMIT).unwrap();
    await_in_step(&lab);

    let (network, before) = (DataPlane::of(&lab), sent(&lab));
    assert!(
        before.0 > 0.0 && before.1 > 0.0,
        "the updates so far were counted: {before:?}"
    );
    let within = Pings::start(&guests["green/right"], left);
    let outside = Pings::start(&guests["blue/web"], INTERNET_ADDRESS);
    for (node, program) in [("w1", AGENT_PROGRAM), (NETNODE, NETNODE_PROGRAM)] {
        for end in ENDS {
            restart(&lab, node, program, end);
            until(
                &format!("the session of the new process on {node}"),
                LIMIT,
                || match value(&lab, node, "trunkline_node_session_connected") {
                    1.0 => Ok(()),
                    other => Err(other.to_string()),
                },
            )
            .unwrap();
            await_in_step(&lab);
            assert_eq!(sent(&lab), before, "{node} was sent something after {end:?}");
            assert_eq!(
                updates_taken(&lab, node),
                0.0,
                "{node} was sent something after {end:?}"
            );
            assert_eq!(DataPlane::of(&lab), network, "after {end:?} of {node}");
            within.await_more();
            outside.await_more();
        }
    }
    within.assert_lossless();
    outside.assert_lossless();
}

#[test]
fn a_node_that_starts_while_the_controller_is_away_makes_true_what_it_was_last_told() {
    let lab = with_two_slices();
    await_in_step(&lab);
    let end = interface(&lab, "green/left.eth1");
    let tap = end.tap.as_str();
    let servers = dhcp_servers(&lab);

    stop(&lab, CONTROLLER, CONTROLLER_PROGRAM, End::Order);
    stop(&lab, "w1", AGENT_PROGRAM, End::Crash);
    stop(&lab, NETNODE, NETNODE_PROGRAM, End::Crash);
    // As after a reboot: what the kernel and the processes held is gone.
    on(&lab, "w1", &["ip", "link", "delete", tap]);
    on(&lab, NETNODE, &["nft", "delete", "table", "inet", "trunkline"]);
    for pid in servers.values() {
        on(&lab, NETNODE, &["kill", "-KILL", pid]);
    }

    lab.start_daemon("w1", AGENT_PROGRAM).unwrap();
    lab.start_daemon(NETNODE, NETNODE_PROGRAM).unwrap();
    until(&format!("{tap} to be back"), LIMIT, || {
        let link = try_on(&lab, "w1", &["ip", "link", "show", "up", "dev", tap]).stdout;
        let number = on(
            &lab,
            "w1",
            &["ovs-vsctl", "--timeout=10", "get", "interface", tap, "ofport"],
        );
        match number.trim().parse::<i32>() {
            Ok(1..) if link.contains(tap) => Ok(()),
            _ => Err(format!("{link} {number}")),
        }
    })
    .unwrap();
    assert_eq!(port_column(&lab, "w1", tap, "tag"), end.vlan.to_string());
    until("every DHCP server and the NAT rule to be back", LIMIT, || {
        let now = dhcp_servers(&lab);
        let rules = on(&lab, NETNODE, &["nft", "list", "ruleset"]);
        if now.keys().eq(servers.keys()) && rules.contains("masquerade") {
            Ok(())
        } else {
            Err(format!("{now:?} {rules}"))
        }
    })
    .unwrap();

    lab.start_daemon(CONTROLLER, CONTROLLER_PROGRAM).unwrap();
    await_in_step(&lab);
    assert_eq!(sent(&lab), (0.0, 0.0));
}

#[test]
fn a_node_that_was_removed_is_taken_in_again_when_it_comes_back() {
    let lab = fleet(&Options::default());
    let w2 = || api(&lab).nodes().unwrap().into_iter().find(|node| node.name == "w2");
    lab.stop_daemon("w2", AGENT_PROGRAM).unwrap();
    until("w2 to be away", LIMIT, || match w2() {
        Some(node) if !node.connected => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    must_trunkctl(&lab, &["node", "remove", "w2"]);
    assert!(w2().is_none());
    lab.start_daemon("w2", AGENT_PROGRAM).unwrap();
    await_in_step(&lab);
}
