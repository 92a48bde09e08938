//! Many VLANs at once.

use super::*;

#[test]
fn the_period_follows_from_how_many_pairs_there_are() {
    assert_eq!(period(0), SECOND);
    assert_eq!(period(1), SECOND);
    assert_eq!(period(200), SECOND);
    assert_eq!(period(201), Duration::from_millis(1005));
    assert_eq!(period(1000), 5 * SECOND);
}

#[test]
fn two_hundred_pairs_are_probed_evenly_and_fairly() {
    let mut wire = Wire::new();
    let all = |peer: &str| (101..301).map(|id| probe(id, &[peer])).collect::<Vec<_>>();
    wire.set("w1", &all("w2"));
    wire.set("w2", &all("w1"));
    wire.run(10 * SECOND);
    for id in 101..301 {
        assert_eq!(wire.verdict("w1", id).0, State::Ready, "{id}");
    }
    wire.sent.clear();
    let began = wire.now;
    wire.run(10 * SECOND);
    let mut of_vlan: BTreeMap<u16, u32> = BTreeMap::new();
    let mut at: BTreeMap<u128, u32> = BTreeMap::new();
    for (when, from, frame) in &wire.sent {
        if from == "w1" && *when < began + 10 * SECOND {
            *of_vlan.entry(u16::from_be_bytes([frame[14], frame[15]])).or_default() += 1;
            *at.entry((*when - began).as_millis() / 100).or_default() += 1;
        }
    }
    assert_eq!(of_vlan.len(), 200);
    // Two frames a beat, ten beats.
    assert!(of_vlan.values().all(|frames| (18..=22).contains(frames)), "{of_vlan:?}");
    assert!(at.values().all(|frames| (30..=50).contains(frames)), "{at:?}");
}

#[test]
fn a_dropped_vlan_of_two_hundred_is_named_within_five_seconds() {
    let mut wire = Wire::new();
    let all = |peer: &str| (101..301).map(|id| probe(id, &[peer])).collect::<Vec<_>>();
    wire.set("w1", &all("w2"));
    wire.set("w2", &all("w1"));
    wire.run(10 * SECOND);
    wire.passes = Box::new(|_, _, tag, bytes| tag != 250 && (tag != 251 || bytes <= 1400));
    let named = |wire: &mut Wire| {
        wire.verdict("w1", 250).1 == "vlan 250 does not pass w2 -> w1"
            && wire.verdict("w1", 251).1 == "vlan 251 does not pass w2 -> w1 at 1500 bytes (passes at 1400)"
    };
    let took = wire.run_until(10 * SECOND, named).unwrap();
    assert!(took < 4 * SECOND, "{took:?}");
    assert_eq!(wire.verdict("w1", 252).0, State::Ready);
}

#[test]
fn four_hundred_pairs_keep_to_the_rate_and_all_get_their_turn() {
    let mut wire = Wire::new();
    let all = |peer: &str| (401..801).map(|id| probe(id, &[peer])).collect::<Vec<_>>();
    wire.set("w1", &all("w2"));
    wire.set("w2", &all("w1"));
    // Everything that passes is too small, so everybody searches.
    wire.passes = Box::new(|_, _, _, bytes| bytes <= 1400);
    wire.run(20 * SECOND);
    let frames = wire.sent.iter().filter(|(_, from, _)| from == "w1").count();
    assert!(frames <= 20 * 2000 + 600, "{frames}");
    for id in 401..801 {
        let words = format!("vlan {id} does not pass w2 -> w1 at 1500 bytes (passes at 1400)");
        assert_eq!(wire.verdict("w1", id).1, words);
    }
}
