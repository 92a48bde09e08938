//! The direction from this node to a peer: when to say what. Pure; time is handed in.
//!
//! A *beat* is one announcement: a small frame, one as large as is known to pass when that is less than full, and one of full size. Beats
//! come once a period, in a slot of the pair's own; faster until both ends have heard each other; and at once when the peer has not
//! heard us, or hears less than before.
//!
//! A *search* finds the largest size that passes: rounds of a few sizes each, and a little later the question which was the largest
//! that came, until two neighbouring bytes are known to differ.

use std::time::Duration;

use super::frame::{Echo, SMALL};

/// First pause between beats while nobody has heard us; doubled up to a period.
const FIRST: Duration = Duration::from_millis(5);
/// Beats go in bunches so far apart. ovs-vswitchd without a kernel datapath reads every port of the bridge each time that a frame wakes
/// it: with 800 ports a frame by itself costs a millisecond of a core, and twenty at once hardly more.
const BUNCH: Duration = Duration::from_millis(100);
/// Shortest time between two beats to one peer, whatever it asks for.
const SPACING: Duration = Duration::from_millis(5);
/// Sizes in one round.
const LADDER: u16 = 8;
/// How long after its sizes a round's question goes: together they could be dropped together.
const ASK_AFTER: Duration = Duration::from_millis(5);
/// How long an answer is waited for, and how often it is asked for again.
const ROUND_WAIT: Duration = Duration::from_millis(100);
const ROUND_TRIES: u8 = 3;
/// Periods between two searches while nothing has changed; doubled up to the most as long as they find the same. That everything passes
/// again, or less than was found, is seen by the next beat.
const REST: u32 = 4;
const REST_MOST: u32 = 16;

/// The pair's place within a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slot {
    /// How often.
    pub period: Duration,
    /// How far into each period.
    pub phase: Duration,
}

impl Slot {
    /// That of number `at` of `count` pairs, spread evenly in bunches.
    #[must_use]
    pub fn of(at: u32, count: u32, period: Duration) -> Self {
        let even = period.saturating_mul(at) / count.max(1);
        let bunches = u32::try_from(even.as_micros() / BUNCH.as_micros()).unwrap_or(u32::MAX);
        let phase = BUNCH.saturating_mul(bunches);
        Self { period, phase }
    }

    /// The first moment in this slot after another.
    fn after(self, last: Duration) -> Duration {
        let period = self.period.max(Duration::from_millis(1));
        let Some(since) = last.checked_sub(self.phase) else {
            return self.phase;
        };
        let whole = since.as_micros() / period.as_micros();
        let next = u32::try_from(whole + 1).unwrap_or(u32::MAX);
        self.phase.saturating_add(period.saturating_mul(next))
    }
}

/// One direction.
#[derive(Debug, Clone)]
pub struct Outbound {
    slot: Slot,
    sequence: u64,
    beat: u32,
    last: Option<Duration>,
    /// While not both have heard each other: the pause until the next beat.
    pause: Option<Duration>,
    /// A beat that something asks for before its turn.
    soon: Option<Duration>,
    /// The peer wants to know what came of its round.
    answer: bool,
    /// Largest size that passes, when that is less than full.
    known: Option<u16>,
    search: Option<Search>,
    searched: Option<Duration>,
    /// Periods to wait before the next search.
    rest: u32,
    rounds: u32,
}

/// What a search has to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Frames of these sizes.
    Sizes(Vec<u16>),
    /// The question what came of them.
    Ask,
}

/// A search under way: `low` passes, `high` does not.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Search {
    low: u16,
    high: u16,
    round: u32,
    tried: Vec<u16>,
    /// When its next step is due: those that wait longest come first.
    due: Duration,
    /// The sizes went, the question did not yet.
    ask: bool,
    tries: u8,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            slot: Slot::default(),
            sequence: 0,
            beat: 0,
            last: None,
            pause: Some(FIRST),
            soon: None,
            answer: false,
            known: None,
            search: None,
            searched: None,
            rest: 1,
            rounds: 0,
        }
    }
}

impl Outbound {
    /// Gives it another place.
    pub fn place(&mut self, slot: Slot) {
        self.slot = slot;
    }

    /// As if nobody had heard us yet.
    pub fn begin_again(&mut self) {
        self.pause = Some(FIRST);
        self.last = None;
        self.search = None;
    }

    /// Newest sequence that was given out.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The next sequence.
    pub fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Number of the newest beat.
    #[must_use]
    pub fn beat(&self) -> u32 {
        self.beat
    }

    /// When the next beat is due.
    #[must_use]
    pub fn due(&self) -> Duration {
        let Some(last) = self.last else { return Duration::ZERO };
        let turn = self.slot.after(last);
        let again = self.pause.map_or(turn, |pause| last.saturating_add(pause));
        let asked = self.soon.map_or(turn, |soon| soon.max(last.saturating_add(SPACING)));
        turn.min(again).min(asked)
    }

    /// A beat goes out: its sizes, the first one small, the last one full.
    pub fn take_beat(&mut self, mtu: u16, now: Duration) -> Vec<u16> {
        self.beat = self.beat.wrapping_add(1);
        self.last = Some(now);
        self.soon = None;
        self.pause = self
            .pause
            .map(|pause| pause.saturating_mul(2).min(self.slot.period.max(FIRST)));
        let known = self.known.filter(|known| (SMALL + 1..mtu).contains(known));
        [Some(SMALL), known, Some(mtu)].into_iter().flatten().collect()
    }

    /// The next beat shall not wait for its turn.
    pub fn hurry(&mut self, now: Duration) {
        self.soon = Some(self.soon.map_or(now, |soon| soon.min(now)));
    }

    /// The peer asks what came of its round.
    pub fn ask_answer(&mut self) {
        self.answer = true;
    }

    /// True once for each answer that is to be sent.
    pub fn take_answer(&mut self) -> bool {
        std::mem::take(&mut self.answer)
    }

    /// True when an answer is to be sent.
    #[must_use]
    pub fn owes_answer(&self) -> bool {
        self.answer
    }

    /// What the peer says that it gets from us; `None`: it is not known whether it gets anything.
    pub fn told(&mut self, echo: Option<Echo>, mtu: u16, now: Duration) {
        let Some(echo) = echo else {
            self.pause.get_or_insert(FIRST);
            return;
        };
        self.pause = None;
        self.progress(echo, mtu, now);
        // Nothing was told of a whole beat yet.
        if echo.beat_largest == 0 {
            return;
        }
        if echo.beat_largest >= mtu {
            (self.known, self.rest) = (None, 1);
            return;
        }
        let expected = self.known.unwrap_or(mtu);
        let rest = if echo.beat_largest < expected { 1 } else { self.rest };
        let rested = |at: Duration| now.saturating_sub(at) >= self.slot.period.saturating_mul(rest);
        if self.search.is_none() && self.searched.is_none_or(rested) {
            self.searched = Some(now);
            self.search = Some(Search {
                // That much came a moment ago.
                low: echo.beat_largest.max(SMALL),
                high: mtu.saturating_add(1),
                round: self.next_round(),
                tried: Vec::new(),
                due: now,
                ask: false,
                tries: 0,
            });
        }
    }

    fn next_round(&mut self) -> u32 {
        self.rounds = self.rounds.checked_add(1).unwrap_or(1);
        self.rounds
    }

    fn progress(&mut self, echo: Echo, mtu: u16, now: Duration) {
        let next = self.rounds.checked_add(1).unwrap_or(1);
        let Some(search) = &mut self.search else { return };
        if search.tried.is_empty() || echo.round != search.round {
            return;
        }
        search.low = search.low.max(echo.round_largest).min(search.high.saturating_sub(1));
        let failed = search.tried.iter().copied().filter(|size| *size > echo.round_largest);
        search.high = failed.min().unwrap_or(search.high).min(search.high);
        if search.high - search.low > 1 {
            (search.round, search.due, search.ask, search.tries) = (next, now, false, 0);
            search.tried.clear();
            self.rounds = next;
            return;
        }
        let found = search.low;
        self.found(found, mtu);
    }

    /// A search has ended.
    fn found(&mut self, found: u16, mtu: u16) {
        self.search = None;
        let found = (found < mtu).then_some(found);
        self.rest = if found == self.known {
            (self.rest * 2).min(REST_MOST)
        } else {
            REST
        };
        self.known = found;
    }

    /// When the search has something to do.
    #[must_use]
    pub fn search_due(&self) -> Option<Duration> {
        self.search.as_ref().map(|search| search.due)
    }

    /// The step that is due, and the number of its round.
    pub fn take_round(&mut self, mtu: u16, now: Duration) -> Option<(u32, Step)> {
        if self.search_due().is_none_or(|due| due > now) {
            return None;
        }
        let search = self.search.as_mut()?;
        if std::mem::take(&mut search.ask) {
            search.due = now.saturating_add(ROUND_WAIT);
            return Some((search.round, Step::Ask));
        }
        if search.tries == ROUND_TRIES {
            // The answer does not come through; what is known is better than nothing.
            let low = search.low;
            if low > SMALL {
                self.found(low, mtu);
            } else {
                self.search = None;
            }
            return None;
        }
        search.tries += 1;
        (search.due, search.ask) = (now.saturating_add(ASK_AFTER), true);
        if search.tried.is_empty() {
            search.tried = ladder(search.low, search.high);
        }
        Some((search.round, Step::Sizes(search.tried.clone())))
    }
}

/// Sizes between two, both excluded: all of them when they are few, otherwise evenly spread, the largest always.
fn ladder(low: u16, high: u16) -> Vec<u16> {
    let between = high.saturating_sub(low).saturating_sub(1);
    let steps = between.min(LADDER);
    let size = |step: u16| {
        let up = u32::from(between) * u32::from(step) / u32::from(steps.max(1));
        low.saturating_add(u16::try_from(up).unwrap_or(u16::MAX))
    };
    (1..=steps).map(size).collect()
}
