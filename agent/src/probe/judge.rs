//! What a VLAN's probe says: state, words, facts. Pure.

use std::time::Duration;

use trunkline_proto::{
    Name, VlanId,
    resource::{Facts, Probe, State},
    wire,
};

use super::inbound::{Inbound, Passing, patience};

/// Most directions that a reason names.
const NAMED: usize = 3;

/// What is known of one resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// How far it is true.
    pub state: State,
    /// Empty when ready; otherwise words a person can act on.
    pub reason: String,
    /// What was seen of each direction.
    pub facts: Option<Facts>,
}

impl Verdict {
    /// True when the other one has no news: counters alone are none.
    #[must_use]
    pub fn says_as_much_as(&self, other: &Self) -> bool {
        let still = |verdict: &Self| {
            let mut facts = verdict.facts.clone();
            if let Some(Facts::Probe(probe)) = &mut facts {
                for path in &mut probe.paths {
                    (path.loss_permille, path.round_trip_us, path.last_seen_ms) = (0, 0, 0);
                }
            }
            facts
        };
        (self.state, &self.reason) == (other.state, &other.reason) && still(self) == still(other)
    }
}

/// A direction to judge.
pub struct Path<'a> {
    /// Who is at its other end.
    pub peer: &'a Name,
    /// What came.
    pub inbound: &'a Inbound,
    /// Since when it must pass.
    pub since: Duration,
}

/// What the judge goes by.
pub struct Case<'a> {
    /// This node.
    pub me: &'a Name,
    /// The VLAN.
    pub vlan: VlanId,
    /// Payload that must pass.
    pub mtu: u16,
    /// This node's period.
    pub period: Duration,
}

impl Case<'_> {
    /// Judges all directions to this node. A direction that is new has three periods to prove itself.
    #[must_use]
    pub fn verdict<'a>(&self, paths: impl Iterator<Item = Path<'a>>, now: Duration) -> Verdict {
        let (mut facts, mut wrong, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for path in paths {
            facts.push(self.fact(&path, now));
            let passing = path.inbound.passing(self.mtu, now);
            if passing == Passing::Full {
                continue;
            }
            let period = self.period.max(path.inbound.period().unwrap_or_default());
            if now.saturating_sub(path.since) <= patience(period) {
                waiting.push(path.peer.to_string());
            } else {
                wrong.push(self.words(&path, passing, now));
            }
        }
        let (state, reason) = if !wrong.is_empty() {
            (State::Degraded, listed(&wrong, "; "))
        } else if !waiting.is_empty() {
            let peers = listed(&waiting, ", ");
            (
                State::Pending,
                format!("waits for probe frames of {peers} on vlan {}", self.vlan),
            )
        } else {
            (State::Ready, String::new())
        };
        let facts = wire::ProbeFacts {
            paths: facts,
            period_ms: millis(self.period),
        };
        Verdict {
            state,
            reason,
            facts: Some(Facts::Probe(facts)),
        }
    }

    fn words(&self, path: &Path<'_>, passing: Passing, now: Duration) -> String {
        let (Self { me, vlan, mtu, .. }, peer) = (self, path.peer);
        match passing {
            Passing::Full => String::new(),
            Passing::UpTo(size) => {
                let heard = path.inbound.theirs(now).map_or(0, |echo| echo.largest.into());
                let passes = Probe::passes_at(size.into(), heard);
                format!("vlan {vlan} does not pass {peer} -> {me} at {mtu} bytes ({passes})")
            }
            Passing::Nothing => format!("vlan {vlan} does not pass {peer} -> {me}"),
        }
    }

    fn fact(&self, path: &Path<'_>, now: Duration) -> wire::ProbePath {
        let inbound = path.inbound;
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        wire::ProbePath {
            peer: path.peer.to_string(),
            largest: inbound.largest(now).into(),
            loss_permille: inbound.loss_permille(now),
            round_trip_us: inbound.round_trip(now).map_or(0, micros),
            last_seen_ms: inbound.last_seen_ms(),
            largest_heard: inbound.theirs(now).map_or(0, |echo| echo.largest.into()),
        }
    }
}

fn listed(all: &[String], between: &str) -> String {
    let named: Vec<&str> = all.iter().take(NAMED).map(String::as_str).collect();
    match all.len().saturating_sub(NAMED) {
        0 => named.join(between),
        more => format!("{} and {more} more", named.join(between)),
    }
}

/// Whole milliseconds, at least one.
pub(super) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}
