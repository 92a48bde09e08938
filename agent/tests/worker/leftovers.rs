//! What carries our mark and is wanted by nobody goes at a second look; what does not carry it never goes.

use super::*;

/// A TAP and its port, as an earlier life of this node would have left them.
fn leave_behind(host: &Host, name: &str) {
    run("ip", &["tuntap", "add", name, "mode", "tap"]);
    run("ip", &["link", "set", name, "alias", "trunkline"]);
    host.ovs.vsctl(&[
        "add-port",
        "br-int",
        name,
        "tag=110",
        "--",
        "set",
        "port",
        name,
        "external_ids:trunkline=w1",
        "external_ids:trunkline-kind=tap",
    ]);
}

#[test]
fn leftovers_with_our_mark_are_told_of_and_go_at_a_second_look() {
    alone(async || {
        let mut host = Host::new().await;
        host.orphans_after = Duration::from_secs(4);
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, mut session) = host.with(&all).await;
        leave_behind(&host, "tap_7_eth1");
        let began = std::time::Instant::now();
        let both = ["switch port tap_7_eth1", "tap tap_7_eth1"];
        session
            .reports_until(|s| s.orphans.as_deref().is_some_and(|orphans| orphans == both))
            .await;
        assert!(host.ports().contains(&"tap_7_eth1".to_owned()), "only told of yet");

        // An update meanwhile: what it takes away goes at once, and nothing is clean while a leftover is there.
        session.update(update(1, 2, &all, &[trunk(&[110])])).await;
        session.ack().await;
        eventually("the update's removals", async || {
            (!devices().contains(&"tap_1001_eth1".to_owned()))
                .then_some(())
                .ok_or(devices())
        })
        .await;
        assert!(began.elapsed() < host.orphans_after && devices() == ["tap_7_eth1"]);
        let mut orphans = Some(Vec::new());
        let seen = session
            .reports_until(|s| {
                if s.clean_generation == 2 {
                    orphans.clone_from(&s.orphans);
                }
                s.clean_generation == 2
            })
            .await;
        assert_eq!(
            seen.orphans.as_deref(),
            Some(&[][..]),
            "none is left when it says clean"
        );
        assert!(began.elapsed() >= host.orphans_after);
        assert!(devices().is_empty() && host.ports() == ["up0"]);
        agent.stop().await;
    });
}

#[test]
fn what_an_earlier_life_left_goes_after_a_restart_with_another_desired_state() {
    alone(async || {
        let mut host = Host::new().await;
        let all = [port(1001, 110), trunk(&[110]), flows(110)];
        let (agent, session) = host.with(&all).await;
        drop(session);
        agent.kill().await;
        // The inbox is lost; the next desired state comes from a controller that knows nothing of the guest.
        std::fs::remove_file(host.state.path().join("inbox")).unwrap();
        let agent = host.agent();
        let mut session = host.controller.session().await;
        assert_eq!(session.hello().await.generation, 0);
        session.welcome().await;
        assert_eq!(devices(), ["tap_1001_eth1"], "silence is no order");
        session.update(update(0, 2, &[], &[trunk(&[])])).await;
        let seen = session
            .reports_until(|s| s.orphans.as_ref().is_some_and(|orphans| !orphans.is_empty()))
            .await;
        assert_eq!(
            seen.orphans.as_deref(),
            Some(&["switch port tap_1001_eth1".to_owned(), "tap tap_1001_eth1".to_owned()][..])
        );
        session.reports_until(|s| s.clean_generation == 2).await;
        assert!(devices().is_empty());
        agent.stop().await;
    });
}

#[test]
fn what_does_not_carry_our_mark_is_never_touched_whatever_its_name() {
    alone(async || {
        let mut host = Host::new().await;
        let mut all = vec![trunk(&[110]), flows(110), port(1009, 110)];
        let (agent, mut session) = host.with(&all).await;
        // A TAP and ports with names of ours, wanted and not wanted; one with another node's mark.
        run("ip", &["tuntap", "add", "tap_1001_eth1", "mode", "tap"]);
        run("ip", &["tuntap", "add", "tap_1002_eth1", "mode", "tap"]);
        for (name, mark) in [
            ("tap_1003_eth1", "theirs=x"),
            ("tap_1004_eth1", "trunkline-old=w1"),
            ("tap_1005_eth1", "trunkline=w2"),
        ] {
            let ids = format!("external_ids:{mark}");
            let internal = ["--", "set", "interface", name, "type=internal"];
            let set = ["--", "set", "port", name, &ids];
            host.ovs
                .vsctl(&[&["add-port", "br-int", name, "tag=7"], &internal[..], &set[..]].concat());
        }
        host.ovs.vsctl(&[
            "add-br",
            "br-theirs",
            "--",
            "set",
            "bridge",
            "br-theirs",
            "datapath_type=netdev",
        ]);
        let theirs = || {
            let links = ["tap_1001_eth1", "tap_1002_eth1"].map(|name| run("ip", &["-br", "link", "show", name]));
            let ports = ["tap_1003_eth1", "tap_1004_eth1", "tap_1005_eth1"];
            let ports = ports.map(|name| {
                host.ovs
                    .vsctl(&["--columns=_uuid,tag,external_ids", "list", "port", name])
            });
            format!("{links:?} {ports:?} {}", host.ovs.vsctl(&["list-br"]))
        };
        let before = theirs();

        let earlier = all.clone();
        all.extend([port(1001, 110), port(1003, 110)]);
        session.update(update(1, 2, &earlier, &all)).await;
        let failed = |s: &Seen, key: &str| {
            s.state(key) == Some(State::Failed) && s.items[key].reason.contains("not made by Trunkline")
        };
        session
            .reports_until(|s| failed(s, "port tap_1001_eth1") && failed(s, "port tap_1003_eth1"))
            .await;
        session.update(update(2, 3, &all, &[trunk(&[])])).await;
        let seen = session.reports_until(|s| s.clean_generation == 3).await;
        assert!(seen.orphans.is_none_or(|orphans| orphans.is_empty()));
        assert_eq!(theirs(), before);
        agent.stop().await;
    });
}

#[test]
fn removals_that_nobody_asked_for_wait_for_a_word() {
    alone(async || {
        let mut host = Host::new().await;
        let mut all: Vec<_> = (0..12).map(|n| port(1001 + n, 110)).collect();
        all.extend([trunk(&[110]), flows(110)]);
        let (agent, mut session) = host.with(&all).await;
        let fewer = [all[0].clone(), trunk(&[110]), flows(110)];
        let unasked = trunkline_proto::wire::Update {
            removals_intended: false,
            ..update(1, 2, &all, &fewer)
        };
        session.update(unasked).await;
        let ack = session.ack().await;
        assert_eq!((ack.generation, ack.held_removals), (2, 11));
        let seen = session.reports_until(|s| s.held_removals.is_some()).await;
        let held = seen.held_removals.unwrap();
        assert_eq!((held.term, held.generation, held.keys.len()), (1, 2, 11));

        // Not this position; and a restart changes nothing.
        session.confirm(1, 1, "").await;
        drop(session);
        agent.kill().await;
        let agent = host.agent();
        let mut session = host.controller.session().await;
        let hello = session.hello().await;
        assert_eq!((hello.generation, hello.digest), (2, digest(&fewer).to_vec()));
        session.welcome().await;
        let seen = session
            .reports_until(|s| s.complete && fewer.iter().all(|e| s.is_ready(e)) && s.held_removals.is_some())
            .await;
        assert_eq!(seen.items.len(), 3, "the controller is told of what it knows");
        assert_eq!((seen.clean_generation, devices().len()), (0, 12));

        session.confirm(1, 2, "").await;
        let seen = session.reports_until(|s| s.clean_generation == 2).await;
        assert_eq!(seen.held_removals.map(|held| held.keys.len()), Some(0));
        assert_eq!(devices(), ["tap_1001_eth1"]);
        agent.stop().await;
    });
}

/// Twelve guests whose inbox is lost, under a controller that knows nothing of them.
async fn lost_inbox(host: &mut Host, all: &[Envelope], next: &[Envelope]) -> (Node, Session) {
    let (agent, session) = host.with(all).await;
    drop(session);
    agent.kill().await;
    std::fs::write(host.state.path().join("inbox"), b"rubbish").unwrap();
    let agent = host.agent();
    let mut session = host.controller.session().await;
    assert_eq!(session.hello().await.generation, 0);
    session.welcome().await;
    session.update(update(0, 2, &[], next)).await;
    (agent, session)
}

fn twelve_guests() -> Vec<Envelope> {
    let guests = (0..12).map(|n| port(1001 + n, 110));
    guests.chain([trunk(&[110]), flows(110)]).collect()
}

fn newcomer() -> [Envelope; 3] {
    [trunk(&[111]), flows(111), port(1050, 111)]
}

/// For as long as they would take to go, and longer.
async fn still_there(host: &Host, session: &mut Session, count: usize) {
    let next = newcomer();
    session.update(update(2, 3, &[trunk(&[])], &next)).await;
    session.reports_until(|s| next.iter().all(|e| s.is_ready(e))).await;
    tokio::time::sleep(host.orphans_after * 3).await;
    assert_eq!((devices().len(), host.ports().len()), (count + 1, count + 2));
}

#[test]
fn so_many_leftovers_that_they_are_likelier_a_mistake_stay_until_a_word() {
    alone(async || {
        let mut host = Host::new().await;
        let (agent, mut session) = lost_inbox(&mut host, &twelve_guests(), &[trunk(&[])]).await;
        let held = |s: &Seen, generation, count| {
            let said = s.held_removals.as_ref();
            said.is_some_and(|held| held.generation == generation && held.keys.len() == count)
        };
        let seen = session.reports_until(|s| held(s, 2, 12)).await;
        assert_eq!(seen.orphans.map(|orphans| orphans.len()), Some(24));
        let keys = seen.held_removals.unwrap().keys;
        assert!(
            keys.iter().all(|key| key.kind == 1 && key.name.starts_with("tap_")),
            "{keys:?}"
        );
        still_there(&host, &mut session, 12).await;

        // Nor does another start let them go, or a word for another state.
        drop(session);
        agent.kill().await;
        let agent = host.agent();
        let mut session = host.controller.session().await;
        assert_eq!(session.hello().await.generation, 3);
        session.welcome().await;
        let seen = session.reports_until(|s| held(s, 3, 12)).await;
        assert_eq!(seen.clean_generation, 0);
        session.confirm(1, 2, &seen.held_removals.unwrap().leftovers).await;
        session.update(update(3, 4, &newcomer(), &[trunk(&[])])).await;
        let seen = session.reports_until(|s| held(s, 4, 12)).await;
        let leftovers = seen.held_removals.unwrap().leftovers;
        assert_eq!(leftovers.len(), 16);
        session.confirm(1, 4, "").await;
        eventually("what the update took away to go", async || match devices().len() {
            12 => Ok(()),
            count => Err(count),
        })
        .await;

        session.confirm(1, 4, &leftovers).await;
        let seen = session.reports_until(|s| s.clean_generation == 4).await;
        assert_eq!(
            (seen.orphans, seen.held_removals.map(|held| held.keys.len())),
            (Some(vec![]), Some(0))
        );
        assert!(devices().is_empty() && host.ports() == ["up0"]);
        agent.stop().await;
    });
}

#[test]
fn leftovers_that_are_wanted_again_go_on_and_what_hears_another_slice_goes() {
    alone(async || {
        let mut host = Host::new().await;
        let all = twelve_guests();
        // Another slice has the VLAN by now, as far as this controller knows.
        let next = [trunk(&[110]), flows(110), port(1050, 110)];
        let (agent, mut session) = lost_inbox(&mut host, &all, &next).await;
        session
            .reports_until(|s| s.held_removals.as_ref().is_some_and(|held| held.keys.len() == 12))
            .await;
        eventually("no port beside the one that is wanted", async || match host.ports() {
            ports if ports == ["tap_1050_eth1", "up0"] => Ok(()),
            ports => Err(ports),
        })
        .await;
        assert_eq!(devices().len(), 13, "their TAPs stay");

        session.update(update(2, 3, &next, &all)).await;
        let seen = session
            .reports_until(|s| all[..12].iter().all(|e| s.is_ready(e)) && s.clean_generation == 3)
            .await;
        assert_eq!(
            (seen.orphans, seen.held_removals.map(|held| held.keys.len())),
            (Some(vec![]), Some(0))
        );
        assert_eq!(devices().len(), 12);
        agent.stop().await;
    });
}

#[test]
fn what_an_update_took_away_goes_though_the_agent_died_in_between() {
    alone(async || {
        let mut host = Host::new().await;
        let all = twelve_guests();
        let (agent, mut session) = host.with(&all).await;
        host.ovs.stop_server();
        session
            .reports_until(|s| s.state("port tap_1001_eth1") == Some(State::Unknown))
            .await;
        session.update(update(1, 2, &all, &[trunk(&[])])).await;
        session.ack().await;
        drop(session);
        agent.kill().await;
        assert_eq!(devices().len(), 12);
        host.ovs.start_server().await;
        let agent = host.agent();
        let mut session = host.controller.session().await;
        assert_eq!(session.hello().await.generation, 2);
        session.welcome().await;
        let seen = session.reports_until(|s| s.clean_generation == 2).await;
        assert!(seen.held_removals.is_none() && seen.orphans.is_none(), "{seen:#?}");
        assert!(devices().is_empty());
        agent.stop().await;
    });
}
