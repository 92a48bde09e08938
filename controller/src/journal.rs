//! The journal: who asked for what, and what was seen. Durable, bounded in number and age, the oldest go first.
//!
//! It is stored in the commit that it speaks of. All of it is in memory as well: that is what is listed and followed, so a reader
//! never touches the disk.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use trunkline_proto::wire;

use crate::{
    model::Timestamp,
    store::{Batch, Rows},
    transition::NewEvent,
};

/// Every type of event. The README says what each tells.
pub const KINDS: &[&str] = &[
    "slice.applied",
    "slice.deployed",
    "slice.undeployed",
    "slice.rolledback",
    "slice.deleted",
    "slice.gone",
    "slice.ready",
    "slice.degraded",
    "slice.failed",
    "slice.unknown",
    "vm.moved",
    "vlan.freed",
    "node.joined",
    "node.connected",
    "node.disconnected",
    "node.duplicate",
    "node.cordoned",
    "node.uncordoned",
    "node.drained",
    "node.gone",
    "node.returned",
    "node.removed",
    "node.orphans",
    "resource.failed",
    "resource.recovered",
    "drift.repaired",
    "removals.held",
    "removals.confirmed",
    "events.left_out",
    "restore.settled",
];

/// Most entries that one commit lets go because of their age: a clock that jumps must not stall it.
const EXPIRE: usize = 1000;

/// Keys of the journal's rows begin so.
pub const PREFIX: &str = "event/";

/// An entry, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1, without gaps.
    pub sequence: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// `slice.deployed`, `node.connected`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Who caused it.
    pub actor: String,
    /// Empty where it does not apply.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub slice: String,
    /// Empty where it does not apply.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// 0 where it does not apply.
    #[serde(default)]
    pub vlan: u32,
    /// 0 where it does not apply.
    #[serde(default)]
    pub revision: u64,
    /// For a person.
    pub message: String,
}

impl From<&Entry> for wire::Event {
    fn from(entry: &Entry) -> Self {
        let Entry {
            sequence,
            at,
            kind,
            actor,
            slice,
            node,
            vlan,
            revision,
            message,
        } = entry.clone();
        Self {
            sequence,
            at: Some(at.into()),
            r#type: kind,
            actor,
            slice,
            node,
            vlan,
            revision,
            message,
        }
    }
}

/// Which entries a reader wants. Empty and 0 mean all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this slice.
    pub slice: String,
    /// Of this node.
    pub node: String,
    /// Of this VLAN.
    pub vlan: u32,
    /// Not older.
    pub since: Option<Timestamp>,
}

impl Filter {
    fn lets_through(&self, entry: &Entry) -> bool {
        (self.slice.is_empty() || self.slice == entry.slice)
            && (self.node.is_empty() || self.node == entry.node)
            && (self.vlan == 0 || self.vlan == entry.vlan)
            && self.since.is_none_or(|since| entry.at >= since)
    }
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Entries.
    pub entries: usize,
    /// Age. The newest entry is kept however old it is: the numbers go on from it.
    pub age: Duration,
}

/// Entries on their way into the journal.
#[derive(Debug)]
#[must_use]
pub struct Planned {
    new: Vec<Entry>,
    /// How many of the oldest go.
    gone: usize,
}

/// The journal. Any number of readers; entries come from the one writer.
#[derive(Debug)]
pub struct Journal {
    bounds: Bounds,
    entries: RwLock<VecDeque<Arc<Entry>>>,
    last: watch::Sender<u64>,
}

impl Journal {
    /// From the store's rows.
    ///
    /// # Errors
    /// A row that is no entry.
    pub fn load(rows: &Rows, bounds: Bounds) -> Result<Self, serde_json::Error> {
        let of_journal = rows
            .range(PREFIX.to_owned()..)
            .take_while(|(key, _)| key.starts_with(PREFIX));
        let entries: VecDeque<Arc<Entry>> = of_journal
            .map(|(_, value)| serde_json::from_slice(value).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let last = entries.back().map_or(0, |entry| entry.sequence);
        Ok(Self {
            bounds: Bounds {
                entries: bounds.entries.max(1),
                ..bounds
            },
            entries: RwLock::new(entries),
            last: watch::Sender::new(last),
        })
    }

    /// Adds the entries to `batch`, and the removal of what they push out and of what has become too old. Only the writer may call this, and it must
    /// [`Journal::accept`] the answer before it plans again.
    pub fn plan(&self, events: Vec<NewEvent>, now: Timestamp, batch: &mut Batch) -> Planned {
        let first = *self.last.borrow() + 1;
        let new: Vec<Entry> = (first..)
            .zip(events)
            .map(|(sequence, event)| entry(sequence, now, event))
            .collect();
        for entry in &new {
            // An entry is plain text and numbers, which always encode.
            if let Ok(value) = serde_json::to_vec(entry) {
                batch.puts.push((row_key(entry.sequence), value));
            }
        }
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let over = (entries.len() + new.len()).saturating_sub(self.bounds.entries);
        let oldest = now.before(self.bounds.age);
        let last = if new.is_empty() {
            entries.len().saturating_sub(1)
        } else {
            entries.len()
        };
        let old = entries
            .iter()
            .take(last.min(EXPIRE))
            .take_while(|entry| entry.at < oldest);
        let gone = over.min(entries.len()).max(old.count());
        batch
            .deletes
            .extend(entries.iter().take(gone).map(|entry| row_key(entry.sequence)));
        Planned { new, gone }
    }

    /// The planned entries are durable.
    pub fn accept(&self, planned: Planned) {
        let Planned { new, gone } = planned;
        let last = new.last().map(|entry| entry.sequence);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let gone = gone.min(entries.len());
        entries.drain(..gone);
        entries.extend(new.into_iter().map(Arc::new));
        drop(entries);
        if let Some(last) = last {
            self.last.send_replace(last);
        }
    }

    /// Up to `most` entries after `after`, oldest first, and the sequence to go on from; `None` when there is no more now.
    pub fn read(&self, filter: &Filter, after: u64, most: usize) -> (Vec<Arc<Entry>>, Option<u64>) {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let start = entries.partition_point(|entry| entry.sequence <= after);
        let mut found: Vec<_> = entries
            .iter()
            .skip(start)
            .filter(|entry| filter.lets_through(entry))
            .take(most.saturating_add(1))
            .cloned()
            .collect();
        let more = found.len() > most;
        found.truncate(most);
        let next = more.then(|| found.last().map_or(after, |entry| entry.sequence));
        (found, next)
    }

    /// Sequence of the newest entry, as it grows.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// Every entry, for an export.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}

/// Key of an entry's row.
pub fn row_key(sequence: u64) -> String {
    format!("{PREFIX}{sequence:020}")
}

fn entry(sequence: u64, at: Timestamp, event: NewEvent) -> Entry {
    let NewEvent {
        kind,
        actor,
        slice,
        node,
        vlan,
        revision,
        message,
    } = event;
    Entry {
        sequence,
        at,
        kind: kind.to_owned(),
        actor,
        slice: slice.map(|name| name.to_string()).unwrap_or_default(),
        node: node.map(|name| name.to_string()).unwrap_or_default(),
        vlan: vlan.map_or(0, u32::from),
        revision,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(slice: &str) -> NewEvent {
        NewEvent {
            kind: "slice.applied",
            actor: "operator/alice".into(),
            slice: Some(slice.parse().unwrap()),
            node: None,
            vlan: None,
            revision: 7,
            message: "said so".into(),
        }
    }

    const DAY: Duration = Duration::from_secs(86_400);

    fn bounds(entries: usize) -> Bounds {
        Bounds { entries, age: 30 * DAY }
    }

    fn record(journal: &Journal, rows: &mut Rows, events: Vec<NewEvent>) {
        record_at(Timestamp::from_millis(1000), journal, rows, events);
    }

    fn record_at(now: Timestamp, journal: &Journal, rows: &mut Rows, events: Vec<NewEvent>) {
        let mut batch = Batch::default();
        let planned = journal.plan(events, now, &mut batch);
        rows.extend(batch.puts);
        for key in batch.deletes {
            rows.remove(&key);
        }
        journal.accept(planned);
    }

    fn sequences(of: &[Arc<Entry>]) -> Vec<u64> {
        of.iter().map(|entry| entry.sequence).collect()
    }

    #[test]
    fn the_oldest_go_first_also_on_disk_and_numbers_go_on_after_a_restart() {
        let mut rows = Rows::new();
        let journal = Journal::load(&rows, bounds(3)).unwrap();
        for _ in 0..5 {
            record(&journal, &mut rows, vec![event("a"), event("b")]);
        }
        assert_eq!(rows.len(), 3);
        let journal = Journal::load(&rows, bounds(3)).unwrap();
        assert_eq!(sequences(&journal.read(&Filter::default(), 0, 10).0), [8, 9, 10]);
        record(&journal, &mut rows, vec![event("a")]);
        assert_eq!(sequences(&journal.read(&Filter::default(), 9, 10).0), [10, 11]);
        assert_eq!(*journal.watch().borrow(), 11);
    }

    #[test]
    fn reading_in_pages_with_a_filter_sees_each_match_once() {
        let mut rows = Rows::new();
        let journal = Journal::load(&rows, bounds(100)).unwrap();
        record(&journal, &mut rows, ["a", "b", "a", "b", "a"].map(event).to_vec());
        let filter = Filter {
            slice: "a".into(),
            ..Filter::default()
        };
        let (page, next) = journal.read(&filter, 0, 2);
        assert_eq!((sequences(&page), next), (vec![1, 3], Some(3)));
        let (page, next) = journal.read(&filter, 3, 2);
        assert_eq!((sequences(&page), next), (vec![5], None));
        let later = Filter {
            since: Some(Timestamp::from_millis(1001)),
            ..Filter::default()
        };
        assert!(journal.read(&later, 0, 10).0.is_empty());
    }

    #[test]
    fn what_is_too_old_goes_by_itself_but_the_newest_which_says_the_number() {
        let mut rows = Rows::new();
        let journal = Journal::load(&rows, bounds(100)).unwrap();
        let day = |n: u32| Timestamp::from_millis(0).after(n * DAY);
        for n in 0..5 {
            record_at(day(n), &journal, &mut rows, vec![event("a")]);
        }
        record_at(day(31), &journal, &mut rows, vec![]);
        assert_eq!(sequences(&journal.all()), [2, 3, 4, 5], "30 days are kept");
        record_at(day(900), &journal, &mut rows, vec![]);
        assert_eq!((sequences(&journal.all()), rows.len()), (vec![5], 1));
        let journal = Journal::load(&rows, bounds(100)).unwrap();
        record_at(day(901), &journal, &mut rows, vec![event("a")]);
        assert_eq!((sequences(&journal.all()), rows.len()), (vec![6], 1));
    }

    #[test]
    fn every_type_of_event_is_explained() {
        let readme = include_str!("../../README.md");
        for kind in KINDS {
            assert!(readme.contains(&format!("`{kind}`")), "{kind} is not in the README");
        }
    }
}
