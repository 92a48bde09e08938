use trunkline_proto::{
    Hash,
    resource::{Kind, State as Seen},
};

use super::*;

const AT: Position = Position { term: 1, generation: 1 };

fn dhcp(name: &str, state: Seen, leases: u32) -> Observation {
    Observation {
        key: Key {
            kind: Kind::Dhcp,
            name: name.parse().unwrap(),
        },
        hash: Hash::of(b"x"),
        state,
        reason: String::new(),
        facts: Some(Facts::Dhcp(wire::DhcpFacts {
            pid: 7,
            leases,
            current: true,
            held: vec![],
        })),
    }
}

fn told(board: &Board) -> wire::Report {
    assert_eq!(board.due(Instant::now()), Due::Now);
    board.take(Instant::now())
}

fn quiet(board: &Board) -> bool {
    board.due(Instant::now()) == Due::Nothing
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_before_the_host_was_looked_at() {
    let board = Board::default();
    board.begin();
    assert!(quiet(&board));
    board.publish(vec![dhcp("a", Seen::Ready, 0)], AT, false);
    let report = told(&board);
    assert!(report.complete);
    assert_eq!(report.items.len(), 1);
    assert!(quiet(&board));
}

#[tokio::test(start_paused = true)]
async fn only_what_changed_is_told_and_only_the_newest() {
    let board = Board::default();
    board.publish(vec![dhcp("a", Seen::Ready, 0), dhcp("b", Seen::Ready, 0)], AT, false);
    board.begin();
    told(&board);
    board.publish(vec![dhcp("a", Seen::Ready, 0), dhcp("b", Seen::Failed, 0)], AT, false);
    board.publish(vec![dhcp("a", Seen::Ready, 0), dhcp("b", Seen::Degraded, 0)], AT, false);
    let report = told(&board);
    assert_eq!(report.items.len(), 1);
    assert_eq!(report.items[0].state(), wire::State::Degraded);
    assert!(!report.complete);
    assert!(quiet(&board));
}

#[tokio::test(start_paused = true)]
async fn counters_alone_wait_ten_seconds_and_a_state_does_not() {
    let board = Board::default();
    board.publish(vec![dhcp("a", Seen::Ready, 0)], AT, false);
    board.begin();
    told(&board);
    board.refresh(vec![dhcp("a", Seen::Ready, 1)]);
    assert_eq!(told(&board).items.len(), 1);
    for leases in 2..50 {
        board.refresh(vec![dhcp("a", Seen::Ready, leases)]);
    }
    let Due::At(at) = board.due(Instant::now()) else {
        panic!("counters are due at once")
    };
    assert_eq!(at - Instant::now(), COUNTERS_EVERY);
    tokio::time::advance(COUNTERS_EVERY).await;
    let report = told(&board);
    assert_eq!(report.items.len(), 1);
    assert!(matches!(
        report.items[0].facts,
        Some(wire::observation::Facts::Dhcp(wire::DhcpFacts { leases: 49, .. }))
    ));
    board.refresh(vec![dhcp("a", Seen::Failed, 50)]);
    assert_eq!(told(&board).items.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_large_full_report_comes_in_parts_and_only_the_last_is_complete() {
    let board = Board::default();
    let all = (0..1000).map(|n| dhcp(&format!("d{n}"), Seen::Ready, 0)).collect();
    let clean = Position { term: 1, generation: 9 };
    board.publish(all, clean, true);
    board.begin();
    let parts: Vec<_> = std::iter::from_fn(|| (!quiet(&board)).then(|| told(&board))).collect();
    assert_eq!(parts.iter().map(|p| p.items.len()).sum::<usize>(), 1000);
    let marks: Vec<_> = parts.iter().map(|p| (p.complete, p.clean_generation)).collect();
    assert_eq!(marks, [(false, 0), (false, 0), (true, 9)]);
    assert_eq!(parts.iter().map(|p| p.seen_generation).collect::<Vec<_>>(), [0, 0, 9]);
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_went_is_not_told_of() {
    let board = Board::default();
    board.publish(vec![dhcp("a", Seen::Ready, 0)], AT, false);
    board.begin();
    board.publish(vec![], AT, false);
    let report = told(&board);
    assert!(report.items.is_empty() && report.complete);
}

#[tokio::test(start_paused = true)]
async fn repairs_are_told_once_and_the_newest_win() {
    let board = Board::default();
    board.publish(vec![dhcp("a", Seen::Ready, 0)], AT, false);
    board.begin();
    told(&board);
    let key = dhcp("a", Seen::Ready, 0).key;
    let repair = |n: usize| Repair {
        key: key.clone(),
        what: n.to_string(),
    };
    let lost = board.repaired((0..REPAIRS + 7).map(repair).collect(), SystemTime::now());
    assert_eq!(lost, 7);
    let parts: Vec<_> = std::iter::from_fn(|| (!quiet(&board)).then(|| told(&board))).collect();
    let all: Vec<_> = parts.iter().flat_map(|part| &part.repairs).collect();
    assert_eq!((all.len(), &*all[0].what), (REPAIRS, "7"));
    assert!(
        parts
            .iter()
            .all(|part| part.repairs.len() <= BATCH && part.items.is_empty())
    );
    assert_eq!(parts.iter().map(|part| part.receipt).collect::<Vec<_>>(), [1, 2, 3]);
    board.received(3);
    board.begin();
    assert!(told(&board).repairs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn repairs_without_a_receipt_are_told_again_to_the_next_session() {
    let board = Board::default();
    board.publish(vec![], AT, false);
    board.begin();
    told(&board);
    let repair = |n: usize| Repair {
        key: dhcp("a", Seen::Ready, 0).key,
        what: n.to_string(),
    };
    let words = |report: &wire::Report| report.repairs.iter().map(|r| r.what.clone()).collect::<Vec<_>>();
    board.repaired(vec![repair(1)], SystemTime::UNIX_EPOCH);
    let first = told(&board);
    board.repaired(vec![repair(2)], SystemTime::now());
    let second = told(&board);
    assert_eq!(
        (words(&first), words(&second)),
        (vec!["1".to_owned()], vec!["2".to_owned()])
    );
    assert!(quiet(&board), "once in a session");
    board.received(first.receipt);
    board.begin();
    let again = told(&board);
    assert_eq!(again.repairs, second.repairs, "the same to the moment");
    assert!(again.receipt > second.receipt);
    board.received(second.receipt);
    board.begin();
    assert_eq!(words(&told(&board)), ["2"], "a receipt of before says nothing of it");
    // Those that were told count as heard of when there is no room.
    assert_eq!(board.repaired((0..REPAIRS).map(repair).collect(), SystemTime::now()), 0);
    assert_eq!(board.repaired(vec![repair(0)], SystemTime::now()), 1);
}

/// What an inbox holds back.
fn waits(keys: &[&Key]) -> wire::HeldRemovals {
    wire::HeldRemovals {
        keys: keys.iter().map(|key| (*key).into()).collect(),
        total: u32::try_from(keys.len()).unwrap(),
        ..wire::HeldRemovals::default()
    }
}

#[tokio::test(start_paused = true)]
async fn orphans_and_held_removals_are_told_when_they_change_and_to_each_new_session() {
    let board = Board::default();
    board.publish(vec![], AT, false);
    board.begin();
    let report = told(&board);
    assert!(report.orphans.is_none() && report.held_removals.is_none());
    let orphan = Orphan {
        thing: crate::orphans::Thing::new("tap", "tap_1_eth1"),
        since: SystemTime::UNIX_EPOCH,
        held: false,
    };
    let key = dhcp("a", Seen::Ready, 0).key;
    for _ in 0..2 {
        board.orphans(vec![orphan.clone()]);
        board.held_removals(AT, waits(&[&key]));
    }
    for _ in 0..2 {
        let report = told(&board);
        assert_eq!(report.orphans.unwrap().orphans[0].name, "tap_1_eth1");
        let held = report.held_removals.unwrap();
        assert_eq!((held.term, held.generation, held.keys.len()), (1, 1, 1));
        assert!(quiet(&board));
        board.begin();
    }
    told(&board);
    board.orphans(vec![]);
    board.held_removals(AT, waits(&[]));
    let report = told(&board);
    assert!(report.orphans.unwrap().orphans.is_empty() && report.held_removals.unwrap().keys.is_empty());
    board.begin();
    let report = told(&board);
    assert!(report.orphans.is_none() && report.held_removals.is_none());
}

#[tokio::test(start_paused = true)]
async fn leftovers_that_wait_for_a_word_are_told_as_removals_and_let_go_by_one_for_what_was_told() {
    let board = Board::default();
    board.publish(vec![], AT, false);
    board.begin();
    told(&board);
    let orphans = |names: &[&str]| {
        let orphan = |name: &&str| Orphan {
            thing: Thing::new("tap", *name),
            since: SystemTime::UNIX_EPOCH,
            held: !name.contains("free"),
        };
        names.iter().map(orphan).collect::<Vec<_>>()
    };
    let waiting = dhcp("a", Seen::Ready, 0).key;
    board.held_removals(AT, waits(&[&waiting]));
    assert_eq!(board.orphans(orphans(&["tap_1_eth1", "tap_free"])), 2);
    assert_eq!(board.confirm(AT, ""), 0, "of what nobody was told yet");
    let report = told(&board);
    let held = report.held_removals.unwrap();
    let names: Vec<_> = held.keys.iter().map(|key| &*key.name).collect();
    assert_eq!((held.generation, held.total, names), (1, 2, vec!["a", "tap_1_eth1"]));
    assert_eq!(report.orphans.unwrap().orphans.len(), 2);

    // One more comes while the word is on its way.
    let shown = held.leftovers;
    assert_eq!(shown.len(), 16);
    board.orphans(orphans(&["tap_1_eth1", "tap_2_eth1", "tap_free"]));
    assert_eq!(board.confirm(Position { term: 1, generation: 2 }, &shown), 0);
    assert_eq!(board.confirm(AT, &shown), 1);
    assert_eq!(
        board.confirm(AT, &shown),
        1,
        "the same word, said again before the next pass"
    );
    assert_eq!(board.let_go(), [Thing::new("tap", "tap_1_eth1")].into());
    assert!(board.let_go().is_empty(), "once");
    assert_eq!(board.confirm(AT, ""), 0, "a word from somebody who was shown none");
    let now = told(&board).held_removals.unwrap();
    assert_ne!(now.leftovers, shown);
    assert_eq!(board.confirm(AT, &shown), 0, "what is held is another set by now");
    assert_eq!(board.confirm(AT, &now.leftovers), 2);

    // The next state: what waits belongs to that one.
    let next = Position { term: 1, generation: 2 };
    board.held_removals(next, waits(&[]));
    let held = told(&board).held_removals.unwrap();
    assert_eq!((held.generation, held.keys.len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_message_stays_small_however_many_leases_there_are() {
    let board = Board::default();
    let servers = (0..300).map(|n| {
        let mut seen = dhcp(&format!("d{n}"), Seen::Ready, 241);
        if let Some(Facts::Dhcp(facts)) = &mut seen.facts {
            let lease = wire::LeaseFacts {
                mac: "52:54:00:03:ea:01".into(),
                address: "10.64.110.100".into(),
                expires: 1_900_000_000,
            };
            facts.held = vec![lease; 241];
        }
        seen
    });
    board.publish(servers.collect(), AT, false);
    board.begin();
    let parts: Vec<_> = std::iter::from_fn(|| (!quiet(&board)).then(|| told(&board))).collect();
    assert_eq!(parts.iter().map(|p| p.items.len()).sum::<usize>(), 300);
    assert!(parts.iter().all(|part| part.encoded_len() < 1024 * 1024));
}

#[tokio::test(start_paused = true)]
async fn a_new_session_is_told_everything_again() {
    let board = Board::default();
    board.publish(vec![dhcp("a", Seen::Ready, 0)], AT, false);
    for _ in 0..3 {
        board.begin();
        let report = told(&board);
        assert!(report.complete);
        assert_eq!(report.items.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_looked_for_is_told_when_it_rises_even_with_nothing_else_to_say() {
    let board = Board::default();
    board.publish(vec![dhcp("a", Seen::Ready, 0)], AT, false);
    board.begin();
    assert_eq!(told(&board).seen_generation, 1);
    board.publish(vec![dhcp("a", Seen::Ready, 0)], AT, false);
    assert!(quiet(&board));
    let next = Position { term: 1, generation: 2 };
    board.publish(vec![dhcp("a", Seen::Ready, 0)], next, false);
    let report = told(&board);
    assert_eq!(
        (report.items.len(), report.seen_term, report.seen_generation),
        (0, 1, 2)
    );
    assert!(quiet(&board));
    board.begin();
    assert_eq!(told(&board).seen_generation, 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_away_and_given_back_between_two_looks_is_told_again() {
    let board = Board::default();
    board.publish(vec![dhcp("a", Seen::Ready, 0), dhcp("b", Seen::Ready, 0)], AT, false);
    board.begin();
    told(&board);
    let [before, given] = [2, 3].map(|generation| Position { term: 1, generation });
    board.given([dhcp("a", Seen::Ready, 0).key], given);
    board.publish(
        vec![dhcp("a", Seen::Ready, 0), dhcp("b", Seen::Ready, 0)],
        before,
        false,
    );
    assert_eq!(told(&board).items.len(), 0, "nobody has looked for it yet");
    board.publish(vec![dhcp("a", Seen::Ready, 0), dhcp("b", Seen::Ready, 0)], given, false);
    let report = told(&board);
    assert_eq!((report.items.len(), report.seen_generation), (1, 3));
    assert!(quiet(&board), "once");
}

#[tokio::test(start_paused = true)]
async fn the_gauge_of_resources_follows_what_is_seen_between_passes() {
    let (metrics, mut registry) = (NodeMetrics::default(), prometheus_client::registry::Registry::default());
    metrics.register(&mut registry);
    let board = Board::counting(metrics);
    let shows = |state: &str, count: usize| {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = format!("trunkline_node_resources{{kind=\"dhcp\",state=\"{state}\"}} {count}");
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    };
    board.publish(vec![dhcp("a", Seen::Pending, 0), dhcp("b", Seen::Ready, 0)], AT, false);
    shows("pending", 1);
    board.refresh(vec![dhcp("a", Seen::Ready, 0)]);
    shows("pending", 0);
    shows("ready", 2);
    board.unknown(vec![dhcp("a", Seen::Unknown, 0)], || true);
    shows("unknown", 1);
    board.publish(vec![dhcp("b", Seen::Ready, 0)], AT, false);
    shows("unknown", 0);
    shows("ready", 1);
}
