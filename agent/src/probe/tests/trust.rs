//! Which frames count.

use super::*;

#[test]
fn a_peer_that_starts_anew_is_heard_again_at_once() {
    let mut wire = Wire::pair();
    wire.run(10 * SECOND);
    wire.start("w2");
    let took = wire.run_until(SECOND, Wire::is_ready).unwrap();
    assert!(took < 20 * MS, "{took:?}");
    // The new life is believed, not only the old one remembered.
    wire.run(20 * SECOND);
    assert!(wire.is_ready());
    assert!(wire.refusals("w1", Refusal::Unproven) > 0);
}

#[test]
fn a_recording_is_not_taken_for_the_peer() {
    let mut wire = Wire::pair();
    wire.run(5 * SECOND);
    let recorded = |wire: &Wire| -> Vec<Vec<u8>> {
        let arrived = |when: Duration| when + MS <= wire.now;
        let of_peer = wire
            .sent
            .iter()
            .filter(|(when, from, _)| from == "w2" && arrived(*when));
        of_peer.map(|(_, _, frame)| untagged(frame)).collect()
    };
    let replay = |wire: &mut Wire, frames: &[Vec<u8>]| {
        let at = wire.moment();
        frames
            .iter()
            .filter_map(|frame| wire.engine("w1").receive(frame, at))
            .count()
    };
    let same_life = recorded(&wire);
    assert_eq!(replay(&mut wire, &same_life), 0);
    assert_eq!(wire.refusals("w1", Refusal::Replayed), same_life.len() as u64);
    wire.start("w2");
    wire.run(5 * SECOND);
    assert!(wire.is_ready());
    assert_eq!(replay(&mut wire, &same_life), 0);
    assert!(wire.is_ready());
}

#[test]
fn frames_that_overtake_each_other_count_once_each() {
    let mut wire = Wire::pair();
    let now = wire.now;
    let at = wire.moment();
    let mut frames = spoken(wire.engine("w2"), now);
    frames.reverse();
    let w1 = wire.engine("w1");
    assert!(frames.iter().all(|frame| w1.receive(frame, at).is_some()));
    assert!(frames.iter().all(|frame| w1.receive(frame, at).is_none()));
}

#[test]
fn nothing_counts_that_is_not_signed_for_this_node_and_vlan() {
    let mut wire = Wire::new();
    wire.set("w1", &[probe(110, &["w2"]), probe(111, &["w2"])]);
    let mut other_key = probe(110, &["w1"]);
    other_key.keys = vec![ProbeKey { id: 7, secret: [9; 32] }];
    let mut unknown_key = probe(111, &["w1"]);
    unknown_key.keys = vec![key(8)];
    let mut here = |probes: &[Probe], node: &str| {
        wire.nodes.remove(node);
        wire.set(node, probes);
        let (now, at) = (wire.now, wire.moment());
        let frames = spoken(wire.engine(node), now);
        assert!(!frames.is_empty());
        for frame in frames {
            assert_eq!(wire.engine("w1").receive(&frame, at), None);
        }
    };
    here(&[other_key], "w2");
    here(&[unknown_key], "w2");
    // Somebody whom the plan does not name, and a VLAN that is not probed here.
    here(&[probe(110, &["w1"])], "w3");
    here(&[probe(112, &["w1"])], "w2");
    assert_eq!(wire.refusals("w1", Refusal::Signature), 2);
    assert_eq!(wire.refusals("w1", Refusal::Key), 2);
    assert_eq!(wire.refusals("w1", Refusal::Stranger), 4);
    assert_eq!(wire.path("w1").largest, 0);
}

#[test]
fn a_frame_for_another_node_or_sent_back_does_not_count() {
    let mut wire = Wire::pair();
    wire.set("w3", &[probe(110, &["w2"])]);
    let (now, at) = (wire.now, wire.moment());
    for frame in spoken(wire.engine("w1"), now) {
        // Sent back by a loop, and readdressed.
        assert_eq!(wire.engine("w1").receive(&frame, at), None);
        let mut readdressed = frame.clone();
        readdressed[..6].copy_from_slice(&Mac::of_probe(&name("w3")).octets());
        assert_eq!(wire.engine("w3").receive(&readdressed, at), None);
    }
    assert_eq!(wire.refusals("w1", Refusal::Stranger), 0);
    assert_eq!(wire.refusals("w3", Refusal::Stranger), 2);
}

#[test]
fn the_key_before_is_understood_while_a_node_is_behind() {
    let mut wire = Wire::pair();
    wire.run(5 * SECOND);
    let rotated = |peer: &str, keys: &[u32]| {
        let mut probe = probe(110, &[peer]);
        probe.keys = keys.iter().map(|id| key(*id)).collect();
        probe
    };
    wire.set("w1", &[rotated("w2", &[8, 7])]);
    // A node that is behind does not know the new key yet; the other direction goes on.
    wire.run(SECOND);
    wire.set("w2", &[rotated("w1", &[8, 7])]);
    wire.run(10 * SECOND);
    assert!(wire.is_ready());
    wire.set("w1", &[rotated("w2", &[9, 8])]);
    wire.set("w2", &[rotated("w1", &[9, 8])]);
    for _ in 0..50 {
        wire.run(SECOND / 10);
        assert!(wire.is_ready());
    }
}

fn announcement(size: u16) -> Announcement {
    Announcement {
        kind: Kind::Search,
        vlan: vlan(4094),
        key: 7,
        sender: NodeId::of(&name("w1")),
        receiver: NodeId::of(&name("w2")),
        instance: u64::MAX,
        sequence: 3,
        clock_us: 4,
        size,
        period_ms: 5,
        beat: 6,
        round: 8,
        echo: Echo {
            instance: 9,
            sequence: 10,
            clock_us: 11,
            age_us: 12,
            largest: 13,
            beat_largest: 14,
            round: 15,
            round_largest: 16,
        },
    }
}

#[test]
fn a_frame_is_as_large_as_it_says_and_tagged() {
    let signer = Signer::new(&key(7)).unwrap();
    let [to, from] = ["w2", "w1"].map(|node| Mac::of_probe(&name(node)));
    for size in [SMALL, 1400, 1500, 9216] {
        let frame = announcement(size).frame(&signer, to, from);
        assert_eq!(frame.len(), 18 + usize::from(size));
        assert_eq!(frame[12..18], [0x81, 0, 0x0f, 0xfe, 0x88, 0xb5]);
        let frame = untagged(&frame);
        let payload = frame::payload(&frame, to).unwrap();
        assert!(signer.verifies(payload));
        assert_eq!(Announcement::parse(payload), Ok(announcement(size)));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_taken_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut wire = Wire::pair();
        let mut frame = Mac::of_probe(&name("w1")).octets().to_vec();
        frame.extend([0; 6]);
        frame.extend([0x88, 0xb5]);
        frame.extend(&bytes);
        let at = wire.moment();
        prop_assert_eq!(wire.engine("w1").receive(&frame, at), None);
        prop_assert_eq!(wire.engine("w1").receive(&bytes, at), None);
        let _ = Announcement::parse(&bytes);
    }

    #[test]
    fn a_frame_that_was_changed_or_cut_does_not_count(at in 0_usize..116, bit in 0_u8..8, length in 0_usize..1514) {
        let mut wire = Wire::pair();
        let now = wire.now;
        let moment = wire.moment();
        let frame = spoken(wire.engine("w2"), now).pop().unwrap();
        let mut changed = frame.clone();
        changed[ETHERNET + at] ^= 1 << bit;
        prop_assert_eq!(wire.engine("w1").receive(&changed, moment), None);
        prop_assert_eq!(wire.engine("w1").receive(&frame[..length], moment), None);
        prop_assert!(wire.engine("w1").receive(&frame, moment).is_some());
    }

    /// A peer that holds the key may say anything.
    #[test]
    fn whatever_a_peer_says_is_survived(
        numbers in proptest::collection::vec((0_u8..6, any::<u64>(), any::<u32>(), any::<u16>(), any::<[u32; 6]>()), 1..60),
    ) {
        let mut wire = Wire::pair();
        let signer = Signer::new(&key(7)).unwrap();
        let [to, from] = ["w1", "w2"].map(|node| Mac::of_probe(&name(node)));
        for (kind, sequence, beat, size, [period, round, age, a, b, c]) in numbers {
            let kinds = [Kind::Full, Kind::Known, Kind::Small, Kind::Search, Kind::Ask, Kind::Answer];
            let announcement = Announcement {
                kind: kinds[usize::from(kind)],
                vlan: vlan(110),
                sender: NodeId::of(&name("w2")),
                receiver: NodeId::of(&name("w1")),
                instance: u64::from(a % 3),
                sequence: sequence >> (b % 64),
                clock_us: sequence,
                size: size.clamp(SMALL, 9216),
                period_ms: period,
                beat,
                round,
                echo: Echo {
                    instance: if c % 2 == 0 { 1_000_000_000 } else { u64::from(c) },
                    sequence: u64::from(b % 40),
                    clock_us: sequence,
                    age_us: age,
                    largest: size,
                    beat_largest: (a >> 16) as u16,
                    round: round % 8,
                    round_largest: (b >> 16) as u16,
                },
                ..announcement(SMALL)
            };
            let frame = untagged(&announcement.frame(&signer, to, from));
            let at = wire.moment();
            wire.engine("w1").receive(&frame, at);
            wire.nodes.remove("w2");
            wire.run(20 * MS);
            wire.verdict("w1", 110);
        }
        // However it was asked, it sends no more than it may.
        prop_assert!(wire.sent.len() < 600 + 60 * 60);
    }
}

/// Keys as a controller gives them in an epoch: in use, next, before.
fn in_epoch(peer: &str, epoch: u32) -> Probe {
    let mut probe = probe(110, &[peer]);
    probe.keys = [epoch, epoch + 1, epoch - 1].map(key).to_vec();
    probe
}

#[test]
fn new_keys_are_signed_with_by_who_has_them_and_refused_by_nobody() {
    let mut wire = Wire::pair();
    wire.set("w1", &[in_epoch("w2", 7)]);
    wire.set("w2", &[in_epoch("w1", 7)]);
    wire.run(5 * SECOND);
    let watch = |wire: &mut Wire| {
        for _ in 0..100 {
            wire.run(SECOND / 20);
            assert!(wire.is_ready(), "{} {}", wire.reason("w1"), wire.reason("w2"));
        }
    };
    for epoch in 8..14 {
        // Each is the first to hear of the change in turn, and the other a whole epoch late.
        let (first, late) = if epoch % 2 == 0 { ("w1", "w2") } else { ("w2", "w1") };
        let began = wire.sent.len();
        wire.set(first, &[in_epoch(late, epoch)]);
        watch(&mut wire);
        let signed = wire.sent[began..].iter().map(|(_, by, frame)| {
            let id = Announcement::parse(&untagged(frame)[ETHERNET..]).unwrap().key;
            (by.as_str(), id)
        });
        let signed: std::collections::BTreeSet<_> = signed.collect();
        assert_eq!(signed, [(first, epoch), (late, epoch - 1)].into());
        wire.set(late, &[in_epoch(first, epoch)]);
        watch(&mut wire);
    }
    for node in ["w1", "w2"] {
        for refusal in [Refusal::Key, Refusal::Signature, Refusal::Unproven, Refusal::Replayed] {
            assert_eq!(wire.refusals(node, refusal), 0, "{node} {refusal:?}");
        }
    }
}
