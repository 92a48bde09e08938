//! Things on the host that carry our mark and that nobody wants: leftovers of an earlier life.
//!
//! What an update takes away goes at once. What this process never wanted, and its inbox neither, may be there by a mistake (an
//! inbox that was lost, a state directory of another time), so it is told of first, and goes when a second look some seconds later
//! still finds it unwanted. Pure: whoever looks says what time it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use trunkline_proto::wire;

/// How long a leftover stays between the first look and the one that lets it go.
pub const SECOND_LOOK: Duration = Duration::from_secs(5);

/// One thing on the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thing {
    /// `tap`, `switch port`, `gateway`, `namespace`, `dnsmasq`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

impl Thing {
    /// A thing.
    pub fn new(kind: &'static str, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { kind, name }
    }
}

/// A leftover, as the controller is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// What it is.
    pub thing: Thing,
    /// When it was first seen.
    pub since: SystemTime,
}

impl From<&Orphan> for wire::Orphan {
    fn from(Orphan { thing, since }: &Orphan) -> Self {
        Self {
            kind: thing.kind.to_owned(),
            name: thing.name.clone(),
            since: Some((*since).into()),
        }
    }
}

/// What is known of the leftovers of one host.
#[derive(Debug)]
pub struct Orphans {
    wait: Duration,
    /// Wanted now, or earlier in this life and still there.
    known: BTreeSet<Thing>,
    /// First seen, by two clocks: one that is never set, and one that people read.
    seen: BTreeMap<Thing, (Instant, SystemTime)>,
}

impl Default for Orphans {
    fn default() -> Self {
        Self::new(SECOND_LOOK)
    }
}

impl Orphans {
    /// None yet; `wait` is the time between the two looks.
    #[must_use]
    pub fn new(wait: Duration) -> Self {
        Self {
            wait,
            known: BTreeSet::new(),
            seen: BTreeMap::new(),
        }
    }

    /// One look at the whole host: what is wanted, and what is there with our mark and not wanted. Answers what of the latter may
    /// not go yet.
    pub fn look(&mut self, wanted: BTreeSet<Thing>, unwanted: BTreeSet<Thing>, now: Instant) -> BTreeSet<Thing> {
        // What went is forgotten: under the same name something else may turn up.
        self.known.retain(|thing| unwanted.contains(thing));
        self.known.extend(wanted);
        self.seen.retain(|thing, _| unwanted.contains(thing));
        let mut kept = BTreeSet::new();
        for thing in unwanted.difference(&self.known) {
            let (first, _) = self.seen.entry(thing.clone()).or_insert_with(|| {
                tracing::warn!(
                    kind = thing.kind,
                    name = thing.name,
                    "an orphan: ours by its mark, wanted by nobody"
                );
                (now, SystemTime::now())
            });
            if now < *first + self.wait || now == *first {
                kept.insert(thing.clone());
            }
        }
        kept
    }

    /// Those that are still there at the end of a pass.
    pub fn list(&mut self, unwanted: &BTreeSet<Thing>) -> Vec<Orphan> {
        self.seen.retain(|thing, _| unwanted.contains(thing));
        let orphan = |(thing, (_, since)): (&Thing, &(Instant, SystemTime))| Orphan {
            thing: thing.clone(),
            since: *since,
        };
        self.seen.iter().map(orphan).collect()
    }

    /// How long until the next one may go. One that could have gone and is still there is tried again as whatever fails is.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Duration> {
        let due = self.seen.values().map(|(first, _)| *first + self.wait);
        let due = due.filter(|due| *due > now).min()?;
        Some(due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taps(names: &[&str]) -> BTreeSet<Thing> {
        names.iter().map(|name| Thing::new("tap", *name)).collect()
    }

    #[tokio::test]
    async fn what_an_update_takes_away_goes_at_once() {
        let (mut orphans, now) = (Orphans::default(), Instant::now());
        assert!(orphans.look(taps(&["a", "b"]), taps(&[]), now).is_empty());
        assert!(orphans.look(taps(&["a"]), taps(&["b"]), now).is_empty());
        assert!(orphans.list(&taps(&["b"])).is_empty());
        assert!(
            orphans.look(taps(&[]), taps(&["a", "b"]), now).is_empty(),
            "b could not go yet, a leaves now"
        );
    }

    #[tokio::test]
    async fn a_leftover_goes_at_a_second_look_and_not_before_the_time() {
        let (mut orphans, now) = (Orphans::default(), Instant::now());
        let old = taps(&["old"]);
        assert_eq!(orphans.look(taps(&["a"]), old.clone(), now), old);
        assert_eq!(orphans.next(now), Some(SECOND_LOOK));
        let sooner = now + SECOND_LOOK - Duration::from_millis(1);
        assert_eq!(orphans.look(taps(&["a"]), old.clone(), sooner), old);
        assert_eq!(orphans.list(&old).len(), 1);
        assert!(orphans.look(taps(&["a"]), old.clone(), now + SECOND_LOOK).is_empty());
        assert_eq!(orphans.list(&old).len(), 1, "told of until it is gone");
        assert_eq!(
            orphans.next(now + SECOND_LOOK),
            None,
            "one that stays is no reason to look without end"
        );
        assert!(orphans.list(&taps(&[])).is_empty());
        assert_eq!(orphans.next(now), None);
    }

    #[tokio::test]
    async fn one_look_is_never_two_whatever_the_time_is_set_to() {
        let (mut orphans, now) = (Orphans::new(Duration::ZERO), Instant::now());
        assert_eq!(orphans.look(taps(&[]), taps(&["old"]), now).len(), 1);
        assert!(
            orphans
                .look(taps(&[]), taps(&["old"]), now + Duration::from_nanos(1))
                .is_empty()
        );
    }

    #[tokio::test]
    async fn what_is_wanted_meanwhile_is_no_leftover_any_more() {
        let (mut orphans, now) = (Orphans::default(), Instant::now());
        orphans.look(taps(&[]), taps(&["old"]), now);
        assert!(orphans.look(taps(&["old"]), taps(&[]), now).is_empty());
        assert!(orphans.list(&taps(&[])).is_empty());
        assert!(
            orphans.look(taps(&[]), taps(&["old"]), now).is_empty(),
            "it was wanted in this life"
        );
    }
}
