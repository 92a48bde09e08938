//! What a node has and should not have: leftovers that it found, and removals that it holds back until an operator has said so.
//! Both come from the node, so both are bounded here.

use trunkline_proto::{resource::Key, wire};

use crate::model::{Position, Timestamp};

/// Most leftovers of one node that are kept.
const ORPHANS: usize = 1000;

/// Most removals of one node that are kept by name: the largest node has some thousands of resources.
const HELD: usize = 20_000;

/// Most removals that a node can hold back: what it takes in one update, and the reservations of many servers.
const HELD_MOST: u32 = 1_000_000;

/// Longest kind or name of a leftover, in bytes. Interfaces have 15, namespaces and files a few more.
const TEXT: usize = 128;

/// Names that a sentence lists.
const TOLD: usize = 5;

/// A thing on a node that carries our mark and that nobody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// `tap`, `namespace`, ...
    pub kind: String,
    /// Its name.
    pub name: String,
    /// When the node first saw it, by its own clock.
    pub since: Option<Timestamp>,
}

/// Removals that a node holds back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBack {
    /// The desired state that they belong to.
    pub at: Position,
    /// What would go, or the first of it; a DHCP server that stays is here for its reservations. Never empty.
    pub keys: Vec<Key>,
    /// How many removals there are, named or not.
    pub total: u32,
    /// Of these, reservations in DHCP servers.
    pub reservations: u32,
    /// Fingerprint of the leftovers among them; empty: there are none.
    pub leftovers: String,
}

/// An operator's word for what a node holds back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    /// The desired state that it belongs to.
    pub at: Position,
    /// The leftovers among it, as the node said.
    pub leftovers: String,
}

/// How many items were left out, for each reason.
pub(crate) type Left = Vec<(&'static str, u64)>;

/// What a node says of its leftovers, without what cannot be.
pub(crate) fn orphans(said: wire::Orphans, now: Timestamp) -> (Vec<Orphan>, Left) {
    let mut orphans = said.orphans;
    let over = orphans.len().saturating_sub(ORPHANS);
    orphans.truncate(ORPHANS);
    let sent = orphans.len();
    let fits = |text: &str| (1..=TEXT).contains(&text.len());
    let mut unknown = 0;
    let orphans: Vec<Orphan> = orphans
        .into_iter()
        .filter(|orphan| fits(&orphan.kind) && fits(&orphan.name))
        .map(|orphan| {
            // A wrong clock does not make a leftover any less real.
            let said = orphan.since.map(Timestamp::try_from);
            let since = said.and_then(Result::ok).filter(|since| since.is_credible(now));
            unknown += usize::from(said.is_some() && since.is_none());
            Orphan {
                kind: plain(&orphan.kind),
                name: plain(&orphan.name),
                since,
            }
        })
        .collect();
    let wrong = sent - orphans.len();
    let left = vec![
        ("too_many", count(over)),
        ("orphan", count(wrong)),
        ("clock", count(unknown)),
    ];
    (orphans, left)
}

/// What a node says that it holds back; `None` when that is nothing. `held` is what it acknowledged last.
pub(crate) fn held(said: wire::HeldRemovals, acked: Position) -> (Option<HeldBack>, Left) {
    let wire::HeldRemovals {
        term,
        generation,
        mut keys,
        total,
        reservations,
        leftovers,
    } = said;
    let at = Position { term, generation };
    if at > acked && !keys.is_empty() {
        return (None, vec![("held_ahead", count(keys.len()))]);
    }
    let over = keys.len().saturating_sub(HELD);
    keys.truncate(HELD);
    let sent = keys.len();
    let keys: Vec<Key> = keys.into_iter().filter_map(|key| Key::try_from(key).ok()).collect();
    let mut left = vec![("too_many", count(over)), ("invalid", count(sent - keys.len()))];
    let named = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    // A node that does not count them names them all.
    let (mut total, mut reservations) = (total.max(named), reservations);
    if total > HELD_MOST || reservations > total {
        (total, reservations) = (named, 0);
        left.push(("impossible", 1));
    }
    // One that cannot be fits no word, so that nothing goes by it.
    let leftovers = if leftovers.len() <= TEXT {
        plain(&leftovers)
    } else {
        left.push(("too_long", 1));
        "?".to_owned()
    };
    let held = HeldBack {
        at,
        keys,
        total,
        reservations,
        leftovers,
    };
    ((!held.keys.is_empty()).then_some(held), left)
}

/// A text of somebody else's on one line.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl HeldBack {
    /// How many.
    pub fn count(&self) -> u32 {
        self.total
    }

    /// `12 removals, 3 of them reservations of guests`.
    pub(crate) fn count_words(&self) -> String {
        let count = match self.total {
            1 => "1 removal".to_owned(),
            several => format!("{several} removals"),
        };
        match (self.reservations, self.total) {
            (0, _) => count,
            (1, 1) => format!("{count}, a reservation of a guest"),
            (some, all) if some == all => format!("{count}, all reservations of guests"),
            (some, _) => format!("{count}, {some} of them reservations of guests"),
        }
    }

    /// The first few of them by name.
    pub(crate) fn some(&self) -> String {
        let named: Vec<String> = self.keys.iter().take(TOLD).map(Key::to_string).collect();
        // Reservations are not named, but their server is.
        let resources = usize::try_from(self.total - self.reservations).unwrap_or(usize::MAX);
        let more = match resources.max(self.keys.len()) - named.len() {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        format!("{}{more}", named.join(", "))
    }
}

impl From<&Orphan> for wire::Orphan {
    fn from(orphan: &Orphan) -> Self {
        Self {
            kind: orphan.kind.clone(),
            name: orphan.name.clone(),
            since: orphan.since.map(Into::into),
        }
    }
}

impl From<&HeldBack> for wire::HeldRemovals {
    fn from(held: &HeldBack) -> Self {
        Self {
            term: held.at.term,
            generation: held.at.generation,
            keys: held.keys.iter().map(Into::into).collect(),
            total: held.total,
            reservations: held.reservations,
            leftovers: held.leftovers.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn orphan(name: &str, seconds: i64) -> wire::Orphan {
        wire::Orphan {
            kind: "tap".into(),
            name: name.into(),
            since: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        }
    }

    #[test]
    fn leftovers_with_huge_names_are_left_out_and_those_from_the_future_are_from_nobody_knows_when() {
        let good = orphan("tap_1\nx", 1_699_999_000);
        let said = vec![
            good,
            orphan(&"x".repeat(1 << 20), 1),
            orphan("", 1),
            orphan("later", 99_999_999_999),
            orphan("never", i64::MAX),
        ];
        let (kept, left) = orphans(wire::Orphans { orphans: said }, NOW);
        assert_eq!((kept.len(), kept[0].name.as_str()), (3, "tap_1 x"));
        assert!(kept[0].since.is_some() && kept[1].since.is_none() && kept[2].since.is_none());
        assert!(
            left.contains(&("orphan", 2)) && left.contains(&("clock", 2)),
            "{left:?}"
        );
        let many = vec![orphan("t", 1); 100_000];
        let (kept, left) = orphans(wire::Orphans { orphans: many }, NOW);
        assert_eq!(kept.len(), ORPHANS);
        assert!(left.contains(&("too_many", 99_000)), "{left:?}");
    }

    #[test]
    fn removals_held_back_are_of_what_the_node_was_told_and_bounded() {
        let key = |name: &str| wire::ResourceKey {
            kind: 1,
            name: name.into(),
        };
        let said = |generation, keys| wire::HeldRemovals {
            term: 1,
            generation,
            keys,
            ..wire::HeldRemovals::default()
        };
        let acked = Position { term: 1, generation: 5 };
        let (kept, left) = held(said(6, vec![key("a")]), acked);
        assert_eq!((kept, left), (None, vec![("held_ahead", 1)]));
        assert_eq!(held(said(5, vec![]), acked).0, None, "none are held any more");
        let mut keys = vec![key("a b"), key("tap_1")];
        keys.extend((0..HELD).map(|i| key(&format!("tap_{i}"))));
        let (kept, left) = held(said(5, keys), acked);
        let kept = kept.unwrap();
        assert_eq!(kept.keys.len(), HELD - 1);
        assert_eq!(left, [("too_many", 2), ("invalid", 1)]);
        assert!(
            kept.some().ends_with(&format!(" and {} more", HELD - 6)),
            "{}",
            kept.some()
        );
        assert_eq!((kept.total, kept.reservations), (u32::try_from(HELD - 1).unwrap(), 0));
    }

    #[test]
    fn removals_that_are_not_named_are_counted_and_reservations_told_apart() {
        let acked = Position { term: 1, generation: 5 };
        let said = |total, reservations| {
            let key = wire::ResourceKey {
                kind: 4,
                name: "dhcp_v400".into(),
            };
            let said = wire::HeldRemovals {
                term: 1,
                generation: 5,
                keys: vec![key],
                total,
                reservations,
                ..wire::HeldRemovals::default()
            };
            let (kept, left) = held(said, acked);
            (kept.unwrap(), left.contains(&("impossible", 1)))
        };
        let words = |total, reservations| {
            let kept = said(total, reservations).0;
            (kept.count_words(), kept.some())
        };
        let dhcp = "dhcp dhcp_v400";
        assert_eq!(words(0, 0), ("1 removal".into(), dhcp.into()), "from an older node");
        assert_eq!(
            words(7, 7),
            ("7 removals, all reservations of guests".into(), dhcp.into())
        );
        let many = (
            "9000 removals, 7 of them reservations of guests".into(),
            format!("{dhcp} and 8992 more"),
        );
        assert_eq!(words(9000, 7), many);
        for (total, reservations) in [(u32::MAX, 0), (5, 6), (0, u32::MAX)] {
            let (kept, impossible) = said(total, reservations);
            assert!(impossible && (kept.total, kept.reservations) == (1, 0));
        }
    }
}
