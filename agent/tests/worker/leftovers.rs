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
        session.confirm(1, 1).await;
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

        session.confirm(1, 2).await;
        let seen = session.reports_until(|s| s.clean_generation == 2).await;
        assert_eq!(seen.held_removals.map(|held| held.keys.len()), Some(0));
        assert_eq!(devices(), ["tap_1001_eth1"]);
        agent.stop().await;
    });
}
