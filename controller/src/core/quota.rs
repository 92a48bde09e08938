//! How much a single node may put into the journal: one that repairs, fails or reconnects in a loop must not push out everybody
//! else's history.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use trunkline_proto::{
    Name,
    resource::{Key, Kind},
};

use crate::transition::NewEvent;

/// What is counted together.
const WINDOW: Duration = Duration::from_secs(60);

/// Resources of one kind that are named where entries are left out.
const NAMED: usize = 3;

/// What a node's entries are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Story {
    /// Drift that was put right.
    Repairs,
    /// Resources that failed, and recovered.
    States,
    /// Sessions that began and ended.
    Sessions,
    /// Orphans, and removals held back.
    Leftovers,
}

impl Story {
    /// Entries that one node may cause within [`WINDOW`].
    fn most(self) -> u32 {
        match self {
            Self::Repairs | Self::States => 30,
            Self::Sessions | Self::Leftovers => 10,
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Repairs => "repairs",
            Self::States => "failures and recoveries of resources",
            Self::Sessions => "beginnings and ends of sessions",
            Self::Leftovers => "words about leftovers",
        }
    }
}

#[derive(Debug)]
struct Window {
    since: Instant,
    told: u32,
    left_out: u64,
    /// Of those, what was about a resource.
    about: BTreeMap<Kind, About>,
}

/// What was left out about resources of one kind.
#[derive(Debug, Default)]
struct About {
    count: u64,
    /// The first few, each once.
    names: Vec<String>,
    /// There are others.
    more: bool,
}

impl About {
    fn note(&mut self, key: &Key) {
        self.count += 1;
        let name = key.name.as_str();
        if self.names.iter().any(|known| known == name) {
            return;
        }
        if self.names.len() < NAMED {
            self.names.push(name.to_owned());
        } else {
            self.more = true;
        }
    }
}

impl Window {
    /// `: 1970 of port tap_1000_eth1, tap_1001_eth1 and others; 5 that were not looked at`.
    fn details(&self) -> String {
        if self.about.is_empty() {
            return String::new();
        }
        let about = self.about.iter().map(|(kind, about)| {
            let others = if about.more { " and others" } else { "" };
            format!("{} of {kind} {}{others}", about.count, about.names.join(", "))
        });
        let seen: u64 = self.about.values().map(|about| about.count).sum();
        let unseen = match self.left_out.saturating_sub(seen) {
            0 => None,
            unseen => Some(format!("{unseen} that were not looked at")),
        };
        let parts: Vec<String> = about.chain(unseen).collect();
        format!(": {}", parts.join("; "))
    }
}

/// What every node has told lately.
#[derive(Debug, Default)]
pub(super) struct Quotas(BTreeMap<(Name, Story), Window>);

impl Quotas {
    /// True when one entry more may be told; otherwise it is counted, with the resource that it is about.
    pub(super) fn admits(&mut self, node: &Name, story: Story, about: Option<&Key>, now: Instant) -> bool {
        let window = self.window(node, story, now);
        if window.told < story.most() {
            window.told += 1;
            true
        } else {
            window.left_out += 1;
            if let Some(key) = about {
                window.about.entry(key.kind).or_default().note(key);
            }
            false
        }
    }

    /// So many were not even looked at.
    pub(super) fn leave_out(&mut self, node: &Name, story: Story, count: u64, now: Instant) {
        self.window(node, story, now).left_out += count;
    }

    fn window(&mut self, node: &Name, story: Story, now: Instant) -> &mut Window {
        let window = self.0.entry((node.clone(), story)).or_insert(Window {
            since: now,
            told: 0,
            left_out: 0,
            about: BTreeMap::new(),
        });
        if now.duration_since(window.since) >= WINDOW && window.left_out == 0 {
            (window.since, window.told) = (now, 0);
        }
        window
    }

    /// One entry for each window that is over and left something out.
    pub(super) fn over(&mut self, now: Instant) -> Vec<NewEvent> {
        let mut events = Vec::new();
        self.0.retain(|(node, story), window| {
            let over = now.duration_since(window.since) >= WINDOW;
            if over && window.left_out > 0 {
                let (count, details) = (window.left_out, window.details());
                events.push(NewEvent {
                    kind: "events.left_out",
                    actor: "controller".to_owned(),
                    slice: None,
                    node: Some(node.clone()),
                    vlan: None,
                    revision: 0,
                    message: format!("{count} more {} of {node} were left out{details}", story.noun()),
                });
            }
            !over
        });
        events
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_node_in_a_loop_gets_its_share_and_one_word_of_what_was_left_out() {
        let (w1, w2): (Name, Name) = ("w1".parse().unwrap(), "w2".parse().unwrap());
        let (mut quotas, start) = (Quotas::default(), Instant::now());
        let key = |kind, name: &str| Key {
            kind,
            name: name.parse().unwrap(),
        };
        let taps = ["tap_1_eth0", "tap_1_eth1", "tap_2_eth0", "tap_2_eth1"].map(|name| key(Kind::Port, name));
        let tries = |quotas: &mut Quotas, node, at| {
            let about = |i: usize| {
                if i < 900 {
                    taps[i % 4].clone()
                } else {
                    key(Kind::Trunk, "uplink")
                }
            };
            let admitted = (0..1000).filter(|i| quotas.admits(node, Story::Repairs, Some(&about(*i)), at));
            admitted.count()
        };
        assert_eq!(tries(&mut quotas, &w1, start), 30);
        assert_eq!(tries(&mut quotas, &w2, start), 30, "each has its own");
        assert!(quotas.admits(&w1, Story::Sessions, None, start), "and each sort");
        assert!(quotas.over(start + WINDOW / 2).is_empty());
        quotas.leave_out(&w1, Story::Repairs, 5, start);
        // Nobody looked in time: what was left out is told before the next window begins.
        assert_eq!(tries(&mut quotas, &w1, start + WINDOW), 0);
        let told: Vec<String> = quotas
            .over(start + WINDOW)
            .into_iter()
            .map(|event| event.message)
            .collect();
        assert_eq!(
            told,
            [
                "1975 more repairs of w1 were left out: 1770 of port tap_2_eth0, tap_2_eth1, tap_1_eth0 and others; 200 of trunk \
                 uplink; 5 that were not looked at",
                "970 more repairs of w2 were left out: 870 of port tap_2_eth0, tap_2_eth1, tap_1_eth0 and others; 100 of trunk uplink"
            ]
        );
        assert!(quotas.over(start + WINDOW).is_empty(), "once");
        assert_eq!(tries(&mut quotas, &w1, start + WINDOW), 30);
        assert!(
            quotas.over(start + 3 * WINDOW).len() == 1 && quotas.0.is_empty(),
            "nothing is kept of who is quiet"
        );
    }
}
