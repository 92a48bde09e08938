//! Whole nodes on a wire of the tests' own, with a clock of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)]

mod passing;
mod scale;
mod sizes;
mod trust;

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
