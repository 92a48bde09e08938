//! The direction from a peer to this node, as its frames tell. Pure; time is handed in.

use std::{collections::BTreeMap, time::Duration};

use super::frame::{Announcement, Echo, Kind};

/// A direction counts as heard for so many of the sender's periods, and [`SLACK`] of one more.
const PERIODS: u32 = 3;
const SLACK: u32 = 4;
/// How far behind the newest a sequence may come: frames can overtake each other where switches share a load.
const WINDOW: u64 = 64;
/// Full-size frames that the loss is counted over.
const BEATS: u32 = 64;
/// Longest period that a peer is believed: 20,000 pairs.
const PERIOD_MOST: Duration = Duration::from_secs(100);

/// A moment by the two clocks that count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Since the prober began; never jumps.
    pub now: Duration,
    /// Milliseconds since 1970; for people.
    pub unix_ms: u64,
}

/// How long without a frame, from a sender of this period, is too long.
#[must_use]
pub fn patience(period: Duration) -> Duration {
    period.saturating_mul(PERIODS).saturating_add(period / SLACK)
}

/// What passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// Frames as large as they must be.
    Full,
    /// Smaller ones: the largest payload.
    UpTo(u16),
    /// None.
    Nothing,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It counts, and is the first one of this life of the peer.
    First,
    /// It counts.
    Heard {
        /// It tells that less came through than before: the peer should know at once.
        worse: bool,
    },
    /// It came before, or is too old.
    Replayed,
    /// It is of another life of the peer than the one that is heard: not believed before it shows that it has heard us.
    Unproven,
}

/// One direction.
#[derive(Debug, Clone, Default)]
pub struct Inbound {
    life: Option<Life>,
    last_seen_ms: u64,
}

/// What came from one life of the peer's program.
#[derive(Debug, Clone)]
struct Life {
    instance: u64,
    newest: u64,
    /// Which of the sequences up to the newest came; bit 0 is the newest.
    seen: u64,
    /// Our own sequence when it was first heard: an echo of a later one proves that a frame is not a recording of an earlier life.
    since_sequence: u64,
    clock_us: u64,
    at: Duration,
    period: Duration,
    /// Recent sizes and when each came last.
    sizes: BTreeMap<u16, Duration>,
    beat: Beat,
    history: History,
    /// The round that comes in, and the last one that is whole: its number, and the largest that came of it.
    coming: (u32, u16),
    round: (u32, u16),
    /// What the peer says that it gets from us.
    echo: Echo,
    round_trip: Option<Duration>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Beat {
    number: u32,
    largest: u16,
    /// Largest of the one before.
    closed: Option<u16>,
}

/// Which of the last full-size frames came; bit 0 is the newest beat.
#[derive(Debug, Clone, Copy, Default)]
struct History {
    bits: u64,
    beats: u32,
    at: Duration,
}

impl History {
    fn shift(&mut self, by: u32, at: Duration) {
        self.bits = self.bits.checked_shl(by).unwrap_or(0);
        self.beats = self.beats.saturating_add(by).min(BEATS);
        self.at = at;
    }

    /// Lost of how many, of a thousand; beats that should have come since count as lost.
    fn loss(self, period: Duration, now: Duration) -> u32 {
        let silent = now.saturating_sub(self.at).as_micros() / period.as_micros().max(1);
        let mut whole = self;
        whole.shift(
            u32::try_from(silent.saturating_sub(1))
                .unwrap_or(u32::MAX)
                .min(u64::BITS),
            now,
        );
        let lost = whole.beats.saturating_sub(whole.bits.count_ones());
        (lost * 1000).checked_div(whole.beats).unwrap_or(0)
    }
}

impl Inbound {
    /// Takes a frame whose signature is right. `ours`: our instance and the newest sequence that we sent to this peer.
    pub fn take(&mut self, frame: &Announcement, mtu: u16, ours: (u64, u64), at: Moment) -> Taken {
        let echoes_us = frame.echo.instance == ours.0 && frame.echo.sequence <= ours.1;
        let mut first = false;
        let heard = self.is_heard(at.now);
        let life = match &mut self.life {
            Some(life) if life.instance == frame.instance => {
                if !life.is_new(frame.sequence) {
                    return Taken::Replayed;
                }
                life
            }
            Some(life) if heard && !(echoes_us && frame.echo.sequence > life.since_sequence) => return Taken::Unproven,
            other => {
                first = true;
                other.insert(Life::new(frame, ours.1, at.now))
            }
        };
        self.last_seen_ms = at.unix_ms;
        let worse = life.note(frame, mtu, at.now, first);
        life.echo = if echoes_us { frame.echo } else { Echo::default() };
        // An answer to what we said long ago tells of two clocks' difference rather than of the way.
        if echoes_us {
            let sent = Duration::from_micros(life.echo.clock_us) + Duration::from_micros(life.echo.age_us.into());
            life.round_trip = at.now.checked_sub(sent).or(life.round_trip);
        }
        if first { Taken::First } else { Taken::Heard { worse } }
    }

    fn heard(&self, now: Duration) -> Option<&Life> {
        let alive = |life: &&Life| now.saturating_sub(life.at) <= patience(life.period);
        self.life.as_ref().filter(alive)
    }

    /// True while frames come.
    #[must_use]
    pub fn is_heard(&self, now: Duration) -> bool {
        self.heard(now).is_some()
    }

    /// What passes now.
    #[must_use]
    pub fn passing(&self, mtu: u16, now: Duration) -> Passing {
        match self.largest(now) {
            0 => Passing::Nothing,
            largest if largest >= mtu => Passing::Full,
            largest => Passing::UpTo(largest),
        }
    }

    /// Largest payload that came within the last periods; 0: none.
    #[must_use]
    pub fn largest(&self, now: Duration) -> u16 {
        let Some(life) = &self.life else { return 0 };
        let fresh = |(_, came): &(&u16, &Duration)| now.saturating_sub(**came) <= patience(life.period);
        life.sizes
            .iter()
            .rev()
            .find(fresh)
            .map(|(size, _)| *size)
            .unwrap_or_default()
    }

    /// The peer's period, when it is known.
    #[must_use]
    pub fn period(&self) -> Option<Duration> {
        self.life.as_ref().map(|life| life.period)
    }

    /// Of a thousand full-size frames, how many did not come.
    #[must_use]
    pub fn loss_permille(&self, now: Duration) -> u32 {
        self.life.as_ref().map_or(0, |life| life.history.loss(life.period, now))
    }

    /// To the peer and back.
    #[must_use]
    pub fn round_trip(&self, now: Duration) -> Option<Duration> {
        self.heard(now)?.round_trip
    }

    /// When the last frame came, in milliseconds since 1970; 0: never.
    #[must_use]
    pub fn last_seen_ms(&self) -> u64 {
        self.last_seen_ms
    }

    /// What the peer says that it gets from us; `None`: nothing, or it is not heard itself.
    #[must_use]
    pub fn theirs(&self, now: Duration) -> Option<Echo> {
        self.heard(now).map(|life| life.echo).filter(|echo| echo.instance != 0)
    }

    /// What our next frame tells the peer.
    #[must_use]
    pub fn echo(&self, now: Duration) -> Echo {
        let Some(life) = self.heard(now) else {
            return Echo::default();
        };
        Echo {
            instance: life.instance,
            sequence: life.newest,
            clock_us: life.clock_us,
            age_us: u32::try_from(now.saturating_sub(life.at).as_micros()).unwrap_or(u32::MAX),
            largest: self.largest(now),
            beat_largest: life.beat.closed.unwrap_or_default(),
            round: life.round.0,
            round_largest: life.round.1,
        }
    }
}

impl Life {
    fn new(frame: &Announcement, our_sequence: u64, now: Duration) -> Self {
        Self {
            instance: frame.instance,
            newest: frame.sequence,
            seen: 1,
            since_sequence: our_sequence,
            clock_us: frame.clock_us,
            at: now,
            period: Duration::ZERO,
            sizes: BTreeMap::new(),
            beat: Beat {
                number: frame.beat.wrapping_sub(1),
                ..Beat::default()
            },
            history: History::default(),
            coming: (0, 0),
            round: (0, 0),
            echo: Echo::default(),
            round_trip: None,
        }
    }

    /// Whether a sequence did not come yet; it is remembered.
    fn is_new(&mut self, sequence: u64) -> bool {
        if let Some(ahead) = sequence.checked_sub(self.newest).filter(|ahead| *ahead > 0) {
            let shift = u32::try_from(ahead).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(shift).unwrap_or(0) | 1;
            self.newest = sequence;
            return true;
        }
        let behind = self.newest - sequence;
        let bit = u32::try_from(behind)
            .ok()
            .filter(|_| behind < WINDOW)
            .map_or(0, |by| 1_u64 << by);
        let new = bit != 0 && self.seen & bit == 0;
        self.seen |= bit;
        new
    }

    /// Notes what came. True when a beat tells that less comes through than the one before.
    fn note(&mut self, frame: &Announcement, mtu: u16, now: Duration, first: bool) -> bool {
        self.at = now;
        if frame.sequence == self.newest {
            self.clock_us = frame.clock_us;
            let period = Duration::from_millis(frame.period_ms.into());
            self.period = period.clamp(Duration::from_millis(100), PERIOD_MOST);
        }
        self.sizes.insert(frame.size, now);
        let oldest = now.saturating_sub(patience(self.period));
        self.sizes.retain(|_, came| *came >= oldest);
        match frame.kind {
            Kind::Full | Kind::Known | Kind::Small => self.in_beat(frame, mtu, now, first),
            Kind::Search | Kind::Ask => {
                if self.coming.0 != frame.round {
                    self.coming = (frame.round, 0);
                }
                self.coming.1 = self.coming.1.max(frame.size);
                // Told before it is whole it would be taken for the answer.
                if frame.kind == Kind::Ask {
                    self.round = self.coming;
                }
                false
            }
            Kind::Answer => false,
        }
    }

    fn in_beat(&mut self, frame: &Announcement, mtu: u16, now: Duration, first: bool) -> bool {
        let ahead = frame.beat.wrapping_sub(self.beat.number);
        // One that was overtaken by a later beat; that it came was noted.
        if ahead > u32::MAX / 2 {
            return false;
        }
        let mut worse = false;
        if ahead > 0 {
            self.history.shift(if first { 1 } else { ahead }, now);
            if !first {
                // The one before is over.
                let before = self.beat.closed.replace(self.beat.largest);
                worse = self.beat.largest < before.unwrap_or(mtu).min(mtu);
            }
            (self.beat.number, self.beat.largest) = (frame.beat, 0);
        }
        if frame.size >= mtu {
            self.history.bits |= 1;
        }
        self.beat.largest = self.beat.largest.max(frame.size);
        worse
    }
}
