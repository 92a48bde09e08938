//! Whole nodes on a wire of the tests' own, with a clock of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)]

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use trunkline_proto::{
    Hash, Mac, Name, VlanId,
    resource::{Facts, Key, Probe, ProbeKey, Spec, State},
    wire::{ProbeFacts, ProbePath},
};

use super::{
    counts::{Counts, Refusal},
    engine::{Engine, period},
    frame::{self, Announcement, ETHERNET, Echo, Kind, NodeId, SMALL, Signer},
    inbound::Moment,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// How long a frame takes.
const WAY: Duration = Duration::from_micros(300);
/// How long one after the other they come.
const APART: Duration = Duration::from_micros(12);
const UNIX: u64 = 1_800_000_000_000;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn vlan(id: u32) -> VlanId {
    id.try_into().unwrap()
}

fn key(id: u32) -> ProbeKey {
    ProbeKey {
        id,
        secret: [u8::try_from(id).unwrap(); 32],
    }
}

fn probe(id: u32, peers: &[&str]) -> Probe {
    Probe {
        vlan: vlan(id),
        mtu: 1500,
        peers: peers.iter().map(|peer| name(peer)).collect(),
        keys: vec![key(7)],
    }
}

/// What the wire does with a frame: of whom, to whom, its VLAN, its payload's bytes.
type Passes = Box<dyn FnMut(&str, &str, u16, usize) -> bool>;

/// Several nodes and the wire between them.
struct Wire {
    now: Duration,
    nodes: BTreeMap<String, (Engine, Counts)>,
    specs: BTreeMap<String, Vec<Probe>>,
    /// When it arrives, at whom, the frame without its tag.
    flying: Vec<(Duration, String, Vec<u8>)>,
    /// When the last frame on its way to a node arrives.
    last: BTreeMap<String, Duration>,
    passes: Passes,
    /// A frame that does not pass takes along all that its sender says after it at the same moment, as ovs-vswitchd does.
    brittle: bool,
    /// Every frame that was sent: when, by whom, whole.
    sent: Vec<(Duration, String, Vec<u8>)>,
}

impl Wire {
    fn new() -> Self {
        Self {
            now: SECOND,
            nodes: BTreeMap::new(),
            specs: BTreeMap::new(),
            flying: Vec::new(),
            last: BTreeMap::new(),
            passes: Box::new(|_, _, _, _| true),
            brittle: false,
            sent: Vec::new(),
        }
    }

    /// Two nodes that probe one VLAN.
    fn pair() -> Self {
        let mut wire = Self::new();
        wire.set("w1", &[probe(110, &["w2"])]);
        wire.set("w2", &[probe(110, &["w1"])]);
        wire
    }

    fn start(&mut self, node: &str) {
        let counts = Counts::default();
        let instance = u64::try_from(self.now.as_nanos()).unwrap();
        let engine = Engine::new(&name(node), instance, counts.clone());
        self.nodes.insert(node.to_owned(), (engine, counts));
        let specs = self.specs.remove(node).unwrap_or_default();
        self.set(node, &specs);
    }

    fn set(&mut self, node: &str, probes: &[Probe]) {
        self.specs.insert(node.to_owned(), probes.to_vec());
        if !self.nodes.contains_key(node) {
            self.start(node);
            return;
        }
        let keys: Vec<Key> = probes.iter().map(|probe| Spec::Probe(probe.clone()).key()).collect();
        let all = keys.iter().zip(probes).map(|(key, probe)| (key, hash(probe), probe));
        self.nodes.get_mut(node).unwrap().0.set(all, self.now);
    }

    fn engine(&mut self, node: &str) -> &mut Engine {
        &mut self.nodes.get_mut(node).unwrap().0
    }

    fn moment(&self) -> Moment {
        Moment {
            now: self.now,
            unix_ms: UNIX + self.now.as_millis() as u64,
        }
    }

    fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// How long it took until something held; none when it did not within `limit`.
    fn run_until(&mut self, limit: Duration, mut holds: impl FnMut(&mut Self) -> bool) -> Option<Duration> {
        let began = self.now;
        loop {
            if holds(self) {
                return Some(self.now - began);
            }
            let sends = self.nodes.values().filter_map(|(engine, _)| engine.next());
            let arrives = self.flying.iter().map(|(at, _, _)| *at);
            let next = sends.chain(arrives).min().unwrap_or(Duration::MAX);
            // What stops coming is no event.
            let next = next.max(self.now).min(self.now + 50 * MS);
            if next > began + limit {
                self.now = began + limit;
                return None;
            }
            self.now = next;
            self.step();
        }
    }

    fn step(&mut self) {
        let mut here = Vec::new();
        let now = self.now;
        self.flying.retain(|frame| {
            let arrived = frame.0 <= now;
            if arrived {
                here.push(frame.clone());
            }
            !arrived
        });
        let at = self.moment();
        for (_, to, frame) in here {
            if let Some((engine, _)) = self.nodes.get_mut(&to) {
                engine.receive(&frame, at);
            }
        }
        for (from, (engine, _)) in &mut self.nodes {
            let mut broken = false;
            for frame in engine.due(now) {
                self.sent.push((now, from.clone(), frame));
                let (_, _, frame) = self.sent.last().unwrap();
                let tag = u16::from_be_bytes([frame[14], frame[15]]);
                let bytes = frame.len() - ETHERNET - 4;
                for to in self.specs.keys() {
                    let its = frame.starts_with(&Mac::of_probe(&name(to)).octets());
                    if !its || broken {
                        continue;
                    }
                    if !(self.passes)(from, to, tag, bytes) {
                        broken = self.brittle;
                    } else {
                        let last = self.last.entry(to.clone()).or_default();
                        *last = (now + WAY).max(*last + APART);
                        self.flying.push((*last, to.clone(), untagged(frame)));
                    }
                }
            }
        }
    }

    fn verdict(&mut self, node: &str, id: u32) -> (State, String, ProbeFacts) {
        let now = self.now;
        let spec = self.specs[node].iter().find(|probe| probe.vlan == vlan(id)).unwrap();
        let hash = hash(spec);
        let verdict = self.engine(node).verdict(vlan(id), hash, now).unwrap();
        let Some(Facts::Probe(facts)) = verdict.facts else {
            panic!("no facts")
        };
        (verdict.state, verdict.reason, facts)
    }

    fn state(&mut self, node: &str) -> State {
        self.verdict(node, 110).0
    }

    fn reason(&mut self, node: &str) -> String {
        self.verdict(node, 110).1
    }

    fn path(&mut self, node: &str) -> ProbePath {
        self.verdict(node, 110).2.paths.remove(0)
    }

    fn is_ready(&mut self) -> bool {
        self.state("w1") == State::Ready && self.state("w2") == State::Ready
    }

    fn refusals(&self, node: &str, refusal: Refusal) -> u64 {
        self.nodes[node].1.refusals(refusal)
    }
}

fn hash(probe: &Probe) -> Hash {
    trunkline_proto::resource::Envelope::seal(&Spec::Probe(probe.clone()), "").hash
}

/// As the kernel hands it over.
fn untagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &frame[16..]].concat()
}

/// The frames that a node sends next.
fn spoken(engine: &mut Engine, now: Duration) -> Vec<Vec<u8>> {
    engine.due(now).iter().map(|frame| untagged(frame)).collect()
}

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
