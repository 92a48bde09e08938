//! What passes, and who says so.

use super::*;

#[test]
fn two_nodes_that_begin_are_ready_within_four_frames_each_way_and_milliseconds() {
    let mut wire = Wire::pair();
    assert_eq!(wire.state("w1"), State::Pending);
    let took = wire.run_until(SECOND, Wire::is_ready).unwrap();
    assert!(took < 5 * MS, "{took:?}");
    assert_eq!(wire.reason("w1"), "");
    assert_eq!(wire.path("w1").largest, 1500);
    assert_eq!(wire.verdict("w1", 110).2.period_ms, 1000);
}

#[test]
fn a_new_peer_of_a_node_that_waits_is_proved_both_ways_with_less_than_five_frames() {
    let mut wire = Wire::new();
    wire.set("w1", &[probe(110, &["w2"])]);
    wire.run(10 * SECOND);
    let before = wire.sent.len();
    wire.set("w2", &[probe(110, &["w1"])]);
    let took = wire.run_until(SECOND, Wire::is_ready).unwrap();
    // An answer says that it was heard; it proves nothing more.
    let kind_of_answer = 5;
    let needed = wire.sent[before..]
        .iter()
        .filter(|(_, _, frame)| frame[ETHERNET + 5] != kind_of_answer);
    let frames = needed.count();
    assert!(frames < 5, "{frames} frames");
    assert!(took < 10 * MS, "{took:?}");
}

#[test]
fn a_lost_first_frame_costs_milliseconds() {
    let mut wire = Wire::pair();
    let mut dropped = 0;
    wire.passes = Box::new(move |_, _, _, _| {
        dropped += 1;
        dropped > 8
    });
    let took = wire.run_until(SECOND, Wire::is_ready).unwrap();
    assert!(took < 50 * MS, "{took:?}");
}

#[test]
fn what_did_not_come_is_pending_for_three_periods_and_degraded_then() {
    let mut wire = Wire::new();
    wire.set("w1", &[probe(110, &["w2"])]);
    wire.run(3 * SECOND);
    let (state, reason, _) = wire.verdict("w1", 110);
    assert_eq!(
        (state, reason.as_str()),
        (State::Pending, "waits for probe frames of w2 on vlan 110")
    );
    wire.run(SECOND / 2);
    let (state, reason, _) = wire.verdict("w1", 110);
    assert_eq!(
        (state, reason.as_str()),
        (State::Degraded, "vlan 110 does not pass w2 -> w1")
    );
}

#[test]
fn a_vlan_that_is_dropped_is_named_within_five_seconds_and_healed_within_a_period() {
    let mut wire = Wire::pair();
    wire.run(10 * SECOND);
    wire.passes = Box::new(|_, _, tag, _| tag != 110);
    let both = |wire: &mut Wire| wire.state("w1") == State::Degraded && wire.state("w2") == State::Degraded;
    let took = wire.run_until(10 * SECOND, both).unwrap();
    assert!(took < 4 * SECOND, "{took:?}");
    assert_eq!(wire.reason("w1"), "vlan 110 does not pass w2 -> w1");
    assert_eq!(wire.reason("w2"), "vlan 110 does not pass w1 -> w2");
    wire.run(20 * SECOND);
    wire.passes = Box::new(|_, _, _, _| true);
    let took = wire.run_until(10 * SECOND, Wire::is_ready).unwrap();
    assert!(took <= SECOND + 10 * MS, "{took:?}");
}

#[test]
fn a_one_way_drop_is_told_by_the_node_at_its_end_only() {
    let mut wire = Wire::pair();
    wire.run(10 * SECOND);
    wire.passes = Box::new(|from, _, _, _| from != "w1");
    wire.run(5 * SECOND);
    assert_eq!(wire.reason("w2"), "vlan 110 does not pass w1 -> w2");
    assert_eq!((wire.state("w1"), wire.reason("w1")), (State::Ready, String::new()));
    // The other end knows that nothing of it is heard.
    let path = wire.path("w1");
    assert_eq!((path.largest, path.largest_heard), (1500, 0));
    let path = wire.path("w2");
    assert_eq!((path.largest, path.loss_permille > 0), (0, true));
}

#[test]
fn a_one_way_drop_costs_no_more_than_an_answer_to_each_frame() {
    let mut wire = Wire::pair();
    wire.passes = Box::new(|from, _, _, _| from != "w1");
    wire.run(30 * SECOND);
    wire.sent.clear();
    wire.run(10 * SECOND);
    let of = |node: &str| wire.sent.iter().filter(|(_, from, _)| from == node).count();
    assert!(of("w1") <= 42 && of("w2") <= 22, "{} and {}", of("w1"), of("w2"));
}

#[test]
fn facts_say_round_trip_and_when_it_was_last_seen() {
    let mut wire = Wire::pair();
    wire.run(10 * SECOND);
    let path = wire.path("w1");
    assert_eq!((path.peer.as_str(), path.largest_heard), ("w2", 1500));
    assert!((600..1000).contains(&path.round_trip_us), "{}", path.round_trip_us);
    let now = wire.moment().unix_ms;
    assert!((now - 1100..=now).contains(&path.last_seen_ms));
}

#[test]
fn a_port_that_cannot_be_used_says_why_and_begins_again_afterwards() {
    let mut wire = Wire::pair();
    wire.run(5 * SECOND);
    wire.engine("w1").block(State::Failed, "no port".to_owned());
    assert_eq!(
        (wire.state("w1"), wire.reason("w1")),
        (State::Failed, "no port".to_owned())
    );
    wire.run(10 * SECOND);
    assert_eq!(wire.state("w2"), State::Degraded);
    let now = wire.now;
    wire.engine("w1").open(now);
    let took = wire.run_until(SECOND, Wire::is_ready).unwrap();
    assert!(took < 20 * MS, "{took:?}");
}

#[test]
fn only_news_is_told() {
    let mut wire = Wire::pair();
    let now = wire.now;
    let told = |wire: &mut Wire, all| {
        let now = wire.now;
        let news = wire.engine("w1").news(None, all, now);
        news.iter().map(|(told, _)| told.state).collect::<Vec<_>>()
    };
    assert_eq!(wire.engine("w1").news(None, false, now).len(), 1);
    wire.run(5 * SECOND);
    assert_eq!(told(&mut wire, false), [State::Ready]);
    // Loss, round trip and last seen move without being news.
    wire.run(5 * SECOND);
    assert_eq!(told(&mut wire, false), []);
    assert_eq!(told(&mut wire, true), [State::Ready]);
}
