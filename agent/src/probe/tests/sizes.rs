//! How large frames pass, and how many are lost.

use super::*;

#[test]
fn a_smaller_mtu_in_the_middle_is_found_to_the_byte() {
    for size in [116, 117, 576, 1280, 1399, 1400, 1401, 1492, 1499] {
        let mut wire = Wire::pair();
        wire.run(10 * SECOND);
        wire.passes = Box::new(move |from, _, _, bytes| from != "w1" || bytes <= size);
        let took = wire.run_until(10 * SECOND, |wire| wire.state("w2") == State::Degraded);
        assert!(took.unwrap() < 4 * SECOND, "{size}: {took:?}");
        let words = format!("vlan 110 does not pass w1 -> w2 at 1500 bytes (passes at {size})");
        assert_eq!(wire.reason("w2"), words);
        assert_eq!(wire.state("w1"), State::Ready);
        // It stays so, and the other end knows it, too.
        for _ in 0..60 {
            wire.run(SECOND / 2);
            assert_eq!(wire.reason("w2"), words);
        }
        assert_eq!(wire.path("w1").largest_heard, size as u32);
        wire.passes = Box::new(|_, _, _, _| true);
        let took = wire.run_until(10 * SECOND, Wire::is_ready).unwrap();
        assert!(took <= SECOND + 10 * MS, "{size}: {took:?}");
    }
}

#[test]
fn a_smaller_mtu_is_found_where_what_is_too_large_takes_others_along() {
    let mut wire = Wire::new();
    let all = |peer: &str| (101..111).map(|id| probe(id, &[peer])).collect::<Vec<_>>();
    wire.set("w1", &all("w2"));
    wire.set("w2", &all("w1"));
    wire.brittle = true;
    wire.run(10 * SECOND);
    wire.passes = Box::new(|_, _, _, bytes| bytes <= 1400);
    wire.run(5 * SECOND);
    for _ in 0..40 {
        wire.run(SECOND / 2);
        for id in 101..111 {
            let words = format!("vlan {id} does not pass w1 -> w2 at 1500 bytes (passes at 1400)");
            assert_eq!(wire.verdict("w2", id).1, words);
        }
    }
}

#[test]
fn an_mtu_that_is_too_small_from_the_beginning_is_found_too() {
    let mut wire = Wire::pair();
    wire.passes = Box::new(|_, _, _, bytes| bytes <= 1400);
    wire.run(4 * SECOND);
    assert_eq!(
        wire.reason("w1"),
        "vlan 110 does not pass w2 -> w1 at 1500 bytes (passes at 1400)"
    );
    assert_eq!(
        wire.reason("w2"),
        "vlan 110 does not pass w1 -> w2 at 1500 bytes (passes at 1400)"
    );
}

#[test]
fn an_mtu_that_changes_again_is_followed() {
    let mut wire = Wire::pair();
    wire.run(5 * SECOND);
    for size in [1400, 1300, 1450] {
        wire.passes = Box::new(move |_, _, _, bytes| bytes <= size);
        let words = format!("vlan 110 does not pass w1 -> w2 at 1500 bytes (passes at {size})");
        let took = wire.run_until(20 * SECOND, |wire| wire.reason("w2") == words);
        assert!(took.is_some(), "{}", wire.reason("w2"));
    }
}

#[test]
fn loss_is_counted_by_full_size_frames() {
    let mut wire = Wire::pair();
    wire.run(3 * SECOND);
    let mut count = 0;
    wire.passes = Box::new(move |from, _, _, bytes| {
        count += u32::from(from == "w1" && bytes == 1500);
        from != "w1" || bytes != 1500 || count % 4 != 0
    });
    wire.run(120 * SECOND);
    let loss = wire.path("w2").loss_permille;
    assert!((150..=350).contains(&loss), "{loss}");
    assert_eq!(wire.path("w1").loss_permille, 0);
}

#[test]
fn a_size_that_nobody_could_look_for_is_not_named_as_the_largest() {
    let mut wire = Wire::pair();
    wire.run(10 * SECOND);
    // Small frames and some more pass one way, and nothing the other way: no answer tells w1 what came.
    wire.passes = Box::new(|from, _, _, bytes| from == "w1" && bytes <= 1400);
    wire.run(20 * SECOND);
    assert_eq!(
        wire.reason("w2"),
        "vlan 110 does not pass w1 -> w2 at 1500 bytes (passes at 116 or more)"
    );
    assert_eq!(wire.reason("w1"), "vlan 110 does not pass w2 -> w1");
    wire.passes = Box::new(|_, _, _, bytes| bytes <= 1400);
    wire.run(20 * SECOND);
    assert_eq!(
        wire.reason("w2"),
        "vlan 110 does not pass w1 -> w2 at 1500 bytes (passes at 1400)"
    );
}
