use trunkline_proto::resource::Facts;

use super::*;

/// One direction as its end sees it: the peer, and the largest size that comes.
type Heard<'a> = (&'a str, u32);

/// What a node says of its probe.
fn hears(views: &mut Views, node: &str, probe: &str, state: Health, heard: &[Heard]) {
    let seen = of(views, node, probe);
    let path = |(peer, largest): &Heard| wire::ProbePath {
        peer: (*peer).to_owned(),
        largest: *largest,
        round_trip_us: 350,
        last_seen_ms: 1_700_000_000_000,
        ..wire::ProbePath::default()
    };
    seen.state = state;
    seen.reason = if state == Health::Ready {
        String::new()
    } else {
        "as the node says".into()
    };
    seen.facts = Some(Facts::Probe(wire::ProbeFacts {
        paths: heard.iter().map(path).collect(),
        period_ms: 1000,
    }));
}

/// The whole of vlan 100 is proved.
fn proved(world: &World) -> Views {
    let mut views = ready(world);
    for (node, one, other) in [("w1", "n1", "w2"), ("w2", "n1", "w1"), ("n1", "w1", "w2")] {
        hears(
            &mut views,
            node,
            "probe_vlan100",
            Health::Ready,
            &[(one, 1500), (other, 1500)],
        );
    }
    hears(&mut views, "w1", "probe_vlan400", Health::Ready, &[("n1", 1500)]);
    hears(&mut views, "n1", "probe_vlan400", Health::Ready, &[("w1", 1500)]);
    views
}

fn link_status(world: &World, views: &Views) -> wire::LinkStatus {
    let mut status = slice_status(&world.state, views, &name("shop"));
    status.links.remove(0)
}

/// `w1 -> w2` with its state and reason.
fn path(status: &wire::LinkStatus, from: &str, to: &str) -> (wire::State, String) {
    let found = status.paths.iter().find(|path| path.from == from && path.to == to);
    let path = found.unwrap_or_else(|| panic!("{from} -> {to}: {:?}", status.paths));
    (path.state(), path.reason.clone())
}

#[test]
fn every_direction_of_a_link_is_told_with_what_its_end_saw() {
    let world = deployed();
    let status = link_status(&world, &proved(&world));
    let ways: Vec<String> = status
        .paths
        .iter()
        .map(|path| format!("{}>{}", path.from, path.to))
        .collect();
    assert_eq!(ways, ["n1>w1", "n1>w2", "w1>n1", "w1>w2", "w2>n1", "w2>w1"]);
    let one = &status.paths[3];
    let seen = one.seen.as_ref().unwrap();
    assert_eq!((one.state(), one.reason.as_str()), (wire::State::Ready, ""));
    assert_eq!(
        (seen.peer.as_str(), seen.largest, seen.round_trip_us, one.period_ms),
        ("w1", 1500, 350, 1000)
    );
}

#[test]
fn a_one_way_drop_an_mtu_and_a_dropped_vlan_are_told_apart() {
    let world = deployed();
    let degraded = |views: &Views| {
        let status = link_status(&world, views);
        assert_eq!(status.state(), wire::State::Degraded, "{}", status.reason);
        status
    };
    let mut views = proved(&world);
    hears(
        &mut views,
        "w2",
        "probe_vlan100",
        Health::Degraded,
        &[("n1", 1500), ("w1", 0)],
    );
    let one_way = degraded(&views);
    assert_eq!(one_way.reason, "vlan 100 does not pass w1 -> w2");
    assert_eq!(
        path(&one_way, "w1", "w2"),
        (wire::State::Degraded, "vlan 100 does not pass w1 -> w2".into())
    );
    assert_eq!(path(&one_way, "w2", "w1"), (wire::State::Ready, String::new()));

    hears(
        &mut views,
        "w2",
        "probe_vlan100",
        Health::Degraded,
        &[("n1", 1500), ("w1", 1400)],
    );
    assert_eq!(
        degraded(&views).reason,
        "vlan 100 does not pass w1 -> w2 at 1500 bytes (passes at 1400)"
    );

    // A path that a node says nothing of is one that does not pass.
    hears(&mut views, "w2", "probe_vlan100", Health::Degraded, &[("n1", 1500)]);
    hears(
        &mut views,
        "w1",
        "probe_vlan100",
        Health::Degraded,
        &[("n1", 1500), ("w2", 0)],
    );
    assert_eq!(degraded(&views).reason, "vlan 100 does not pass w1 -> w2, nor back");

    hears(&mut views, "w2", "probe_vlan100", Health::Degraded, &[]);
    hears(
        &mut views,
        "n1",
        "probe_vlan100",
        Health::Degraded,
        &[("w1", 1500), ("w2", 0)],
    );
    assert_eq!(
        degraded(&views).reason,
        "vlan 100 does not pass w1 -> w2, nor back, and 2 directions more"
    );
    assert_eq!(
        status(&world, &views).1,
        "link web-eth1--db-eth1: vlan 100 does not pass w1 -> w2, nor back, and 2 directions more"
    );
}

#[test]
fn a_node_that_is_missing_is_named_and_not_the_vlan() {
    let world = deployed();
    let mut views = proved(&world);
    hears(
        &mut views,
        "w1",
        "probe_vlan100",
        Health::Degraded,
        &[("n1", 1500), ("w2", 0)],
    );
    hears(
        &mut views,
        "n1",
        "probe_vlan100",
        Health::Degraded,
        &[("w1", 1500), ("w2", 0)],
    );
    views.get_mut(&name("w2")).unwrap().connected = false;
    let status = link_status(&world, &views);
    assert_eq!(status.state(), wire::State::Unknown);
    assert!(status.reason.starts_with("w2 is not connected"), "{}", status.reason);
    for (from, to) in [("w2", "w1"), ("w1", "w2"), ("w2", "n1"), ("n1", "w2")] {
        let (state, reason) = path(&status, from, to);
        assert_eq!(state, wire::State::Unknown, "{from} -> {to}");
        assert!(reason.starts_with("w2 is not connected"), "{from} -> {to}: {reason}");
    }
    assert_eq!(path(&status, "n1", "w1").0, wire::State::Ready);
    // Nor does the report of those who live blame it.
    for node in ["w1", "n1"] {
        let all = node_resources(&world.state, &views, &name(node));
        let probe = all.iter().find(|r| r.key.as_ref().unwrap().name == "probe_vlan100");
        let probe = probe.unwrap();
        assert_eq!(probe.state(), wire::State::Unknown, "{node}");
        assert!(probe.reason.starts_with("w2 is not connected"), "{}", probe.reason);
    }
    // It is back, and says that it has only begun.
    let view = views.get_mut(&name("w2")).unwrap();
    (view.connected, view.complete) = (true, false);
    assert!(
        link_status(&world, &views)
            .reason
            .starts_with("w2 has connected; its full report")
    );
    views.get_mut(&name("w2")).unwrap().complete = true;
    hears(&mut views, "w2", "probe_vlan100", Health::Pending, &[]);
    let status = link_status(&world, &views);
    assert_eq!(status.state(), wire::State::Pending, "{}", status.reason);
    assert_eq!(
        path(&status, "w2", "w1"),
        (wire::State::Pending, "w2 has only begun to probe vlan 100".into())
    );
}

#[test]
fn a_fault_elsewhere_does_not_hide_that_a_node_is_missing() {
    let world = deployed();
    let mut views = proved(&world);
    hears(
        &mut views,
        "w1",
        "probe_vlan100",
        Health::Degraded,
        &[("n1", 1400), ("w2", 0)],
    );
    views.get_mut(&name("w2")).unwrap().connected = false;
    let status = link_status(&world, &views);
    assert!(status.reason.starts_with("w2 is not connected"), "{}", status.reason);
    assert_eq!(
        path(&status, "n1", "w1").1,
        "vlan 100 does not pass n1 -> w1 at 1500 bytes (passes at 1400)"
    );
}

#[test]
fn a_link_is_pending_until_it_is_proved() {
    let world = deployed();
    let mut views = proved(&world);
    hears(&mut views, "w2", "probe_vlan100", Health::Pending, &[("n1", 1500)]);
    let status = link_status(&world, &views);
    assert_eq!(
        (status.state(), status.reason.as_str()),
        (wire::State::Pending, "w2 waits for w1 on vlan 100 at 1500 bytes")
    );
    assert_eq!(path(&status, "n1", "w2").0, wire::State::Ready);
    // Of another version nothing counts.
    of(&mut views, "w2", "probe_vlan100").hash = Hash::of(b"older");
    let (state, reason) = path(&link_status(&world, &views), "w1", "w2");
    assert_eq!(state, wire::State::Pending);
    assert_eq!(reason, "w2 has taken probe probe_vlan100 and not reported it yet");
}

#[test]
fn who_cannot_probe_is_at_fault_and_not_who_misses_him() {
    let world = deployed();
    let mut views = proved(&world);
    hears(
        &mut views,
        "w2",
        "probe_vlan100",
        Health::Degraded,
        &[("n1", 1500), ("w1", 0)],
    );
    hears(&mut views, "w1", "probe_vlan100", Health::Failed, &[]);
    of(&mut views, "w1", "probe_vlan100").reason = "tlprobe0 is a stranger's".into();
    let status = link_status(&world, &views);
    assert_eq!(status.state(), wire::State::Failed);
    assert_eq!(status.reason, "w1, probe probe_vlan100: tlprobe0 is a stranger's");
    assert_eq!(path(&status, "w1", "w2").1, status.reason);
    let hash = of(&mut views, "w1", "probe_vlan100").clone();
    let reason = "upgrade it".into();
    let refusal = Refusal {
        hash: hash.hash,
        reason,
    };
    views.get_mut(&name("w1")).unwrap().refused.insert(hash.key, refusal);
    let refused = path(&link_status(&world, &views), "w1", "w2");
    assert_eq!(
        refused,
        (wire::State::Failed, "w1 refused probe probe_vlan100: upgrade it".into())
    );
}

#[test]
fn a_switch_that_is_blind_is_named_and_not_the_vlan() {
    let world = deployed();
    let mut views = proved(&world);
    // Its peers hear nothing of it, and it cannot say what it hears.
    hears(
        &mut views,
        "w2",
        "probe_vlan100",
        Health::Degraded,
        &[("n1", 1500), ("w1", 0)],
    );
    hears(
        &mut views,
        "w1",
        "probe_vlan100",
        Health::Unknown,
        &[("n1", 1500), ("w2", 1500)],
    );
    let status = link_status(&world, &views);
    assert_eq!(status.state(), wire::State::Unknown);
    for (from, to) in [("w1", "w2"), ("w2", "w1")] {
        let blind = (wire::State::Unknown, "w1, probe probe_vlan100: as the node says".into());
        assert_eq!(path(&status, from, to), blind, "{from} -> {to}");
    }
    assert_eq!(path(&status, "n1", "w2").0, wire::State::Ready);
}

/// `web` on w1 and `far` on w3, both with internet.
fn online_twice() -> (World, Views) {
    let mut world = World::new();
    world.join("w3", crate::model::NodeRole::Worker);
    let mut spec = shop("shop");
    spec.vms.push(online("far", "w3", 0));
    world.apply(vec![spec], true).unwrap();
    let mut views = proved(&world);
    hears(&mut views, "w3", "probe_vlan400", Health::Ready, &[("n1", 1500)]);
    hears(
        &mut views,
        "n1",
        "probe_vlan400",
        Health::Ready,
        &[("w1", 1500), ("w3", 1500)],
    );
    (world, views)
}

fn vm_status(world: &World, views: &Views, vm: &str) -> wire::VmStatus {
    let status = slice_status(&world.state, views, &name("shop"));
    status.vms.into_iter().find(|status| status.name == vm).unwrap()
}

#[test]
fn a_vm_with_internet_stands_on_what_its_worker_and_the_network_node_prove() {
    let (world, mut views) = online_twice();
    assert_eq!(vm_status(&world, &views, "far").state(), wire::State::Ready);
    hears(
        &mut views,
        "n1",
        "probe_vlan400",
        Health::Degraded,
        &[("w1", 1500), ("w3", 0)],
    );
    let far = vm_status(&world, &views, "far");
    assert_eq!(
        (far.state(), far.reason.as_str()),
        (wire::State::Degraded, "vlan 400 does not pass w3 -> n1")
    );
    let web = vm_status(&world, &views, "web");
    assert_eq!(
        (web.state(), web.reason.as_str()),
        (wire::State::Ready, ""),
        "not its way"
    );
    // Of the network node's probe a VM is told its own direction, not that of everybody.
    let facts = web
        .resources
        .iter()
        .find_map(|r| match r.observation.as_ref()?.facts.as_ref()? {
            Facts::Probe(facts) if r.node == "n1" => Some(facts),
            _ => None,
        });
    let peers: Vec<&str> = facts.unwrap().paths.iter().map(|path| path.peer.as_str()).collect();
    assert_eq!(peers, ["w1"]);
    let whole = slice_status(&world.state, &views, &name("shop"));
    assert_eq!(whole.resources - whole.resources_ready, 1, "and it is not ready once");
}

#[test]
fn another_worker_that_is_away_does_not_concern_a_vm_with_internet() {
    let (world, mut views) = online_twice();
    hears(
        &mut views,
        "n1",
        "probe_vlan400",
        Health::Degraded,
        &[("w1", 1500), ("w3", 0)],
    );
    views.get_mut(&name("w3")).unwrap().connected = false;
    assert_eq!(vm_status(&world, &views, "web").state(), wire::State::Ready);
    let far = vm_status(&world, &views, "far");
    assert_eq!(far.state(), wire::State::Unknown);
    assert!(far.reason.starts_with("w3 is not connected"), "{}", far.reason);
}

#[test]
fn trouble_of_a_probe_that_is_no_paths_is_told_as_the_node_says_it() {
    let (world, mut views) = online_twice();
    let heard = [("w1", 1500), ("w3", 1500)];
    hears(&mut views, "n1", "probe_vlan400", Health::Degraded, &heard);
    for vm in ["web", "far"] {
        let status = vm_status(&world, &views, vm);
        assert_eq!(
            (status.state(), status.reason.as_str()),
            (wire::State::Degraded, "n1, probe probe_vlan400: as the node says")
        );
    }
}

#[test]
fn new_keys_disturb_nobody_while_nodes_hear_of_them_one_after_another() {
    let day = 24 * 3600;
    let mut world = deployed();
    let mut views = proved(&world);
    let ready = (wire::State::Ready, String::new());
    for _ in 0..3 {
        world.wait(day);
        assert_eq!(status(&world, &views), ready, "nobody has heard of them");
        for node in ["w2", "n1", "w1"] {
            let said = proved(&world);
            views.insert(name(node), said.get(&name(node)).unwrap().clone());
            assert_eq!(status(&world, &views), ready, "{node} speaks of the new ones");
        }
    }
    // What a node says of its probe under the keys before is told as ever.
    world.wait(day);
    hears(
        &mut views,
        "w2",
        "probe_vlan100",
        Health::Degraded,
        &[("w1", 0), ("n1", 1500)],
    );
    assert_eq!(
        path(&link_status(&world, &views), "w1", "w2"),
        (wire::State::Degraded, "vlan 100 does not pass w1 -> w2".into())
    );
    // Nobody understands it any more when it is a whole epoch late, and then it is not believed either.
    world.wait(day);
    let (state, reason) = status(&world, &views);
    assert!(
        state == wire::State::Pending && reason.contains("has not taken"),
        "{reason}"
    );
}

#[test]
fn other_peers_of_a_probe_are_proved_anew_whatever_the_keys() {
    let mut world = deployed();
    let views = proved(&world);
    world.join("w3", crate::model::NodeRole::Worker);
    let mut more = shop("shop");
    more.vms.push(vm("third", "w3", 1));
    more.links[0].ends.push("third.eth1".into());
    more.links[0].name = "web-eth1--db-eth1".into();
    world.apply(vec![more], true).unwrap();
    assert_ne!(link_status(&world, &views).state(), wire::State::Ready);
}
