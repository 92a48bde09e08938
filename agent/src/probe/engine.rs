//! The whole of a node's probing as one value: what to send, what to make of what came, what to say. Pure; time is handed in.

use std::{collections::BTreeMap, time::Duration};

use trunkline_proto::{
    Hash, Mac, Name, VlanId,
    resource::{Key, Observation, Probe, State},
};

use super::{
    agenda::{Agenda, PairId},
    budget::Budget,
    counts::{Counts, Refusal},
    frame::{self, Announcement, Kind, Malformed, NodeId, SMALL, Signer},
    inbound::{Inbound, Moment, Taken},
    judge::{Case, Path, Verdict, millis},
    outbound::{Outbound, Slot, Step},
    voice::Voice,
};

/// How often a pair is probed when there are few.
const PERIOD: Duration = Duration::from_secs(1);
/// Beats a second that one node begins when there are many.
const BEATS_A_SECOND: u32 = 200;
/// Most pairs whose turn is taken at once; what comes in meanwhile is heard in between.
const TURN: usize = 32;
/// Part of the budget that searches leave to beats and answers.
const RESERVE: u32 = 100;
/// Most frames of a beat and an answer.
const BEAT_COST: u32 = 4;
/// Most frames of a round of a search.
const ROUND_COST: u32 = 8;

/// All pairs of VLAN and peer, and what is known of each.
#[derive(Debug)]
pub struct Engine {
    me: Name,
    id: NodeId,
    mac: Mac,
    instance: u64,
    /// Why nothing can be sent.
    blocked: Option<(State, String)>,
    period: Duration,
    vlans: BTreeMap<VlanId, Vlan>,
    /// When each pair has a beat or an answer to send, and a round of its search.
    beats: Agenda,
    searches: Agenda,
    budget: Budget,
    counts: Counts,
}

#[derive(Debug)]
struct Vlan {
    key: Key,
    hash: Hash,
    mtu: u16,
    signers: Vec<Signer>,
    pairs: BTreeMap<NodeId, Pair>,
    told: Option<Verdict>,
}

#[derive(Debug)]
struct Pair {
    peer: Name,
    mac: Mac,
    since: Duration,
    inbound: Inbound,
    outbound: Outbound,
}

impl Pair {
    fn say(&mut self, voice: &Voice<'_>, kind: Kind, size: u16, round: u32, now: Duration) -> Vec<u8> {
        let Self {
            mac, inbound, outbound, ..
        } = self;
        voice.say(kind, (size, round), *mac, (inbound, outbound), now)
    }
}

/// How often each of so many pairs is probed.
#[must_use]
pub fn period(pairs: u32) -> Duration {
    PERIOD.max(PERIOD.saturating_mul(pairs) / BEATS_A_SECOND)
}

impl Engine {
    /// Of a node. `instance` tells this life of the program from every other; it is not 0.
    #[must_use]
    pub fn new(me: &Name, instance: u64, counts: Counts) -> Self {
        Self {
            me: me.clone(),
            id: NodeId::of(me),
            mac: Mac::of_probe(me),
            instance: instance.max(1),
            blocked: None,
            period: PERIOD,
            vlans: BTreeMap::new(),
            beats: Agenda::default(),
            searches: Agenda::default(),
            budget: Budget::default(),
            counts,
        }
    }

    /// What is to be probed from now on. Pairs that stay keep what is known of them.
    pub fn set<'a>(&mut self, probes: impl Iterator<Item = (&'a Key, Hash, &'a Probe)>, now: Duration) {
        let mut before = std::mem::take(&mut self.vlans);
        for (key, hash, probe) in probes {
            let held = before.remove(&probe.vlan);
            // Every pass sets everything; nearly always nothing is new.
            let vlan = match held {
                Some(held) if held.hash == hash => held,
                held => Vlan::new(key, hash, probe, &self.me, held, now),
            };
            self.vlans.insert(probe.vlan, vlan);
        }
        self.spread();
    }

    fn spread(&mut self) {
        let count = self.vlans.values().map(|vlan| vlan.pairs.len()).sum::<usize>();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.period = period(count);
        let pairs = self.vlans.values_mut().flat_map(|vlan| vlan.pairs.values_mut());
        for (at, pair) in (0_u32..).zip(pairs) {
            pair.outbound.place(Slot::of(at, count, self.period));
        }
        self.counts.pairs(count, self.period);
        self.plan_all();
    }

    /// The port cannot be used: nothing is sent, and everything says why.
    pub fn block(&mut self, state: State, reason: String) {
        self.blocked = Some((state, reason));
    }

    /// The port is there, or another one than before: everything begins again.
    pub fn open(&mut self, now: Duration) {
        self.blocked = None;
        for pair in self.vlans.values_mut().flat_map(|vlan| vlan.pairs.values_mut()) {
            pair.since = now;
            pair.outbound.begin_again();
        }
        self.plan_all();
    }

    /// True while the port cannot be used.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Takes a frame as the socket gives it. The VLAN that it tells of, when it counts.
    pub fn receive(&mut self, frame: &[u8], at: Moment) -> Option<VlanId> {
        match self.take(frame, at) {
            Ok(vlan) => {
                self.counts.received();
                Some(vlan)
            }
            Err(refusal) => {
                if let Some(refusal) = refusal {
                    self.counts.refused(refusal);
                }
                None
            }
        }
    }

    /// The error is `None` for a frame that is nobody's mistake.
    fn take(&mut self, frame: &[u8], at: Moment) -> Result<VlanId, Option<Refusal>> {
        let payload = frame::payload(frame, self.mac).map_err(|_| None)?;
        let heard = Announcement::parse(payload).map_err(|error| match error {
            Malformed::Foreign => None,
            Malformed::Truncated => Some(Refusal::Truncated),
            Malformed::Field => Some(Refusal::Malformed),
        })?;
        if heard.receiver != self.id {
            return Err(Some(Refusal::Stranger));
        }
        let vlan = self.vlans.get_mut(&heard.vlan).ok_or(Some(Refusal::Stranger))?;
        let pair = vlan.pairs.get_mut(&heard.sender).ok_or(Some(Refusal::Stranger))?;
        let signer = vlan.signers.iter().find(|signer| signer.id == heard.key);
        if !signer.ok_or(Some(Refusal::Key))?.verifies(payload) {
            return Err(Some(Refusal::Signature));
        }
        let ours = (self.instance, pair.outbound.sequence());
        match pair.inbound.take(&heard, vlan.mtu, ours, at) {
            Taken::Replayed => return Err(Some(Refusal::Replayed)),
            Taken::Unproven => {
                // Our answer gives it something to prove itself with.
                pair.outbound.hurry(at.now);
                self.plan((heard.vlan, heard.sender));
                return Err(Some(Refusal::Unproven));
            }
            // It hears us; now it can know that we hear it.
            Taken::First if heard.echo.instance == self.instance => pair.outbound.ask_answer(),
            Taken::First => pair.outbound.hurry(at.now),
            Taken::Heard { worse } => {
                if worse || (heard.echo.instance != self.instance && heard.kind == Kind::Small) {
                    pair.outbound.hurry(at.now);
                }
            }
        }
        if heard.kind == Kind::Ask {
            pair.outbound.ask_answer();
        }
        pair.outbound.told(pair.inbound.theirs(at.now), vlan.mtu, at.now);
        self.plan((heard.vlan, heard.sender));
        Ok(heard.vlan)
    }

    /// When there is something to send.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        if self.blocked.is_some() {
            return None;
        }
        let beat = self.beats.first().map(|due| due.max(self.budget.refilled(BEAT_COST)));
        let enough = self.budget.refilled(ROUND_COST + RESERVE);
        let round = self.searches.first().map(|due| due.max(enough));
        [beat, round].into_iter().flatten().min()
    }

    /// The frames that are due, within the budget. To be asked again until [`Engine::next`] is in the future.
    pub fn due(&mut self, now: Duration) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        if self.blocked.is_some() {
            return frames;
        }
        self.budget.refill(now);
        // The longest waiting first, so that nobody waits for ever when there is more than may be sent.
        for pair in self.beats.due(now, TURN) {
            if self.budget.spend(BEAT_COST, 0) {
                let before = frames.len();
                self.speak(pair, now, &mut frames);
                self.budget.give_back(BEAT_COST, frames.len() - before);
                self.plan(pair);
            }
        }
        for pair in self.searches.due(now, TURN) {
            if self.budget.spend(ROUND_COST, RESERVE) {
                let before = frames.len();
                self.round(pair, now, &mut frames);
                self.budget.give_back(ROUND_COST, frames.len() - before);
                self.plan(pair);
            }
        }
        self.counts.sent(frames.len());
        // Small ones first: where the way out refuses a large frame, ovs-vswitchd drops what came with it after it, too.
        frames.sort_by_key(Vec::len);
        frames
    }

    /// Notes when a pair has something to do next.
    fn plan(&mut self, id: PairId) {
        let pair = self.vlans.get(&id.0).and_then(|vlan| vlan.pairs.get(&id.1));
        let beat = pair.map(|pair| match pair.outbound.owes_answer() {
            true => Duration::ZERO,
            false => pair.outbound.due(),
        });
        self.beats.put(id, beat);
        self.searches.put(id, pair.and_then(|pair| pair.outbound.search_due()));
    }

    fn plan_all(&mut self) {
        self.beats.clear();
        self.searches.clear();
        let all = self
            .vlans
            .iter()
            .flat_map(|(vlan, held)| held.pairs.keys().map(|id| (*vlan, *id)));
        for pair in all.collect::<Vec<PairId>>() {
            self.plan(pair);
        }
    }

    fn pair(&mut self, (vlan, id): PairId) -> Option<(&mut Pair, Voice<'_>)> {
        let held = self.vlans.get_mut(&vlan)?;
        let voice = Voice {
            vlan,
            mtu: held.mtu,
            signer: held.signers.first()?,
            me: self.id,
            mac: self.mac,
            to: id,
            instance: self.instance,
            period_ms: millis(self.period),
        };
        Some((held.pairs.get_mut(&id)?, voice))
    }

    /// A beat, when it is due; and the answer that the peer waits for.
    fn speak(&mut self, id: PairId, now: Duration, frames: &mut Vec<Vec<u8>>) {
        let Some((pair, voice)) = self.pair(id) else { return };
        if pair.outbound.take_answer() {
            frames.push(pair.say(&voice, Kind::Answer, SMALL, 0, now));
        }
        if pair.outbound.due() > now {
            return;
        }
        let sizes = pair.outbound.take_beat(voice.mtu, now);
        let last = sizes.len().saturating_sub(1);
        for (at, size) in sizes.into_iter().enumerate() {
            let kind = match at {
                0 => Kind::Small,
                _ if at == last => Kind::Full,
                _ => Kind::Known,
            };
            frames.push(pair.say(&voice, kind, size, 0, now));
        }
    }

    fn round(&mut self, id: PairId, now: Duration, frames: &mut Vec<Vec<u8>>) {
        let Some((pair, voice)) = self.pair(id) else { return };
        match pair.outbound.take_round(voice.mtu, now) {
            None => {}
            Some((round, Step::Sizes(sizes))) => {
                for size in sizes {
                    frames.push(pair.say(&voice, Kind::Search, size, round, now));
                }
            }
            Some((round, Step::Ask)) => frames.push(pair.say(&voice, Kind::Ask, SMALL, round, now)),
        }
    }

    /// What is known of one VLAN's resource; `None` when it is not probed, or another version of it is.
    #[must_use]
    pub fn verdict(&self, vlan: VlanId, hash: Hash, now: Duration) -> Option<Verdict> {
        let held = self.vlans.get(&vlan).filter(|held| held.hash == hash)?;
        Some(self.judged(vlan, held, now))
    }

    fn judged(&self, vlan: VlanId, held: &Vlan, now: Duration) -> Verdict {
        let case = Case {
            me: &self.me,
            vlan,
            mtu: held.mtu,
            period: self.period,
        };
        let paths = held.pairs.values().map(|pair| Path {
            peer: &pair.peer,
            inbound: &pair.inbound,
            since: pair.since,
        });
        let mut verdict = case.verdict(paths, now);
        if let Some((state, reason)) = &self.blocked {
            (verdict.state, verdict.reason) = (*state, reason.clone());
        }
        verdict
    }

    /// What has changed since it was last asked for; `all`: everything. The state before is beside it.
    pub fn news(&mut self, only: Option<VlanId>, all: bool, now: Duration) -> Vec<(Observation, Option<State>)> {
        let vlans: Vec<VlanId> = match only {
            Some(vlan) => vec![vlan],
            None => self.vlans.keys().copied().collect(),
        };
        let mut news = Vec::new();
        for vlan in vlans {
            let Some(held) = self.vlans.get(&vlan) else { continue };
            let verdict = self.judged(vlan, held, now);
            if !all && held.told.as_ref().is_some_and(|told| told.says_as_much_as(&verdict)) {
                continue;
            }
            let before = held.told.as_ref().map(|told| told.state);
            let observation = Observation {
                key: held.key.clone(),
                hash: held.hash,
                state: verdict.state,
                reason: crate::cut(verdict.reason.clone(), Observation::MAX_REASON),
                facts: verdict.facts.clone(),
            };
            news.push((observation, before));
            if let Some(held) = self.vlans.get_mut(&vlan) {
                held.told = Some(verdict);
            }
        }
        news
    }
}

impl Vlan {
    fn new(key: &Key, hash: Hash, probe: &Probe, me: &Name, held: Option<Self>, now: Duration) -> Self {
        let (mut before, told, mtu) = match held {
            Some(held) => (held.pairs, held.told, held.mtu),
            None => (BTreeMap::new(), None, probe.mtu),
        };
        let mut pair = |peer: &Name| {
            let id = NodeId::of(peer);
            let mut pair = before.remove(&id).unwrap_or_else(|| Pair {
                peer: peer.clone(),
                mac: Mac::of_probe(peer),
                since: now,
                inbound: Inbound::default(),
                outbound: Outbound::default(),
            });
            if mtu != probe.mtu {
                // Both ends have to send the new size first.
                pair.since = now;
                pair.outbound.begin_again();
            }
            (id, pair)
        };
        Self {
            key: key.clone(),
            hash,
            mtu: probe.mtu,
            signers: probe.keys.iter().filter_map(Signer::new).collect(),
            pairs: probe.peers.iter().filter(|peer| *peer != me).map(&mut pair).collect(),
            told,
        }
    }
}
