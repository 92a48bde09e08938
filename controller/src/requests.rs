//! Request ids: a mutation that is sent again gets the first one's answer and does nothing.
//!
//! The answer is stored in the commit that it answers, so there is no moment at which a change is durable and its answer is not. The
//! table is bounded in count and in bytes; the oldest go first. An id belongs to the identity that used it. A call that failed leaves
//! nothing here: it changed nothing, so it may simply be tried again.

use std::collections::{BTreeMap, HashMap};

use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::store::{Batch, Rows};

const PREFIX: &str = "request/";

/// A row's share of an answer. sled moves values of about 512 KB and more to files that it never frees.
const PART_BYTES: usize = 128 << 10;

/// Most bytes of all answers together.
const TOTAL_BYTES: usize = 64 << 20;

/// Longest request id, in characters.
pub const MAX_ID: usize = 64;

/// Who asked, and under which id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// Identity of the caller, `operator/alice`.
    pub actor: String,
    /// The id that it chose.
    pub id: String,
}

/// What was asked, as a hash: method and encoded message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// `method` tells two calls with equal messages apart.
    pub fn of(method: &str, message: &impl Message) -> Self {
        let mut sum = Sha256::new();
        sum.update(method.as_bytes());
        sum.update([0]);
        sum.update(message.encode_to_vec());
        Self(sum.finalize().into())
    }
}

/// What the table says of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// Do it.
    New,
    /// It was done; this is the encoded answer.
    Done(Vec<u8>),
    /// The id was used for something else.
    OtherContent,
}

/// One part of an answer, as stored.
#[derive(Clone, PartialEq, Message)]
struct Row {
    #[prost(string, tag = "1")]
    actor: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(bytes = "vec", tag = "3")]
    fingerprint: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    answer: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    sequence: u64,
    fingerprint: Fingerprint,
    answer: Vec<u8>,
}

/// The table. One owner; what it plans becomes true with [`Requests::accept`] once it is durable.
#[derive(Debug)]
pub struct Requests {
    keep: usize,
    by_key: HashMap<RequestKey, Entry>,
    by_age: BTreeMap<u64, RequestKey>,
    bytes: usize,
    next: u64,
}

/// An answer on its way into the table.
#[derive(Debug)]
pub struct Planned {
    key: RequestKey,
    entry: Entry,
    evicted: Vec<u64>,
}

impl Requests {
    /// The table from the store's rows, with room for `keep` answers.
    pub fn load(rows: &Rows, keep: usize) -> Self {
        let mut table = Self {
            keep: keep.max(1),
            by_key: HashMap::new(),
            by_age: BTreeMap::new(),
            bytes: 0,
            next: 1,
        };
        for (key, value) in rows
            .range(PREFIX.to_owned()..)
            .take_while(|(key, _)| key.starts_with(PREFIX))
        {
            let sequence = key[PREFIX.len()..].split('/').next().and_then(|n| n.parse().ok());
            if let (Some(sequence), Ok(row)) = (sequence, Row::decode(value.as_slice())) {
                table.load_part(sequence, row);
            }
        }
        table
    }

    fn load_part(&mut self, sequence: u64, row: Row) {
        let Ok(fingerprint) = row.fingerprint.try_into() else {
            return;
        };
        self.next = self.next.max(sequence + 1);
        self.bytes += row.answer.len();
        let key = RequestKey {
            actor: row.actor,
            id: row.id,
        };
        self.by_age.insert(sequence, key.clone());
        // Rows come in the order of their keys, so parts come in order.
        self.by_key
            .entry(key)
            .or_insert_with(|| Entry {
                sequence,
                fingerprint: Fingerprint(fingerprint),
                answer: Vec::new(),
            })
            .answer
            .extend(row.answer);
    }

    /// Looks a request up.
    pub fn look(&self, key: &RequestKey, fingerprint: Fingerprint) -> Seen {
        match self.by_key.get(key) {
            None => Seen::New,
            Some(entry) if entry.fingerprint == fingerprint => Seen::Done(entry.answer.clone()),
            Some(_) => Seen::OtherContent,
        }
    }

    /// Adds to `batch` what must be stored for this answer, and what must go to keep the bounds.
    pub fn plan(&self, key: RequestKey, fingerprint: Fingerprint, answer: Vec<u8>, batch: &mut Batch) -> Planned {
        let entry = Entry {
            sequence: self.next,
            fingerprint,
            answer,
        };
        for (part, bytes) in parts(&entry.answer).enumerate() {
            let row = Row {
                actor: key.actor.clone(),
                id: key.id.clone(),
                fingerprint: fingerprint.0.to_vec(),
                answer: bytes.to_vec(),
            };
            batch.puts.push((row_key(entry.sequence, part), row.encode_to_vec()));
        }
        let mut evicted = Vec::new();
        let (mut count, mut bytes) = (self.by_age.len() + 1, self.bytes + entry.answer.len());
        for (sequence, old) in &self.by_age {
            if count <= self.keep && bytes <= TOTAL_BYTES {
                break;
            }
            let answer = self.by_key.get(old).map_or(&[][..], |e| &e.answer);
            batch
                .deletes
                .extend((0..parts(answer).count()).map(|part| row_key(*sequence, part)));
            evicted.push(*sequence);
            count -= 1;
            bytes -= answer.len();
        }
        Planned { key, entry, evicted }
    }

    /// The planned answer is durable.
    pub fn accept(&mut self, planned: Planned) {
        for sequence in planned.evicted {
            if let Some(entry) = self.by_age.remove(&sequence).and_then(|key| self.by_key.remove(&key)) {
                self.bytes -= entry.answer.len();
            }
        }
        self.next = planned.entry.sequence + 1;
        self.bytes += planned.entry.answer.len();
        self.by_age.insert(planned.entry.sequence, planned.key.clone());
        self.by_key.insert(planned.key, planned.entry);
    }
}

/// At least one part, also of an empty answer.
fn parts(answer: &[u8]) -> impl Iterator<Item = &[u8]> {
    let empty = answer.is_empty().then_some(answer);
    answer.chunks(PART_BYTES).chain(empty)
}

fn row_key(sequence: u64, part: usize) -> String {
    format!("{PREFIX}{sequence:020}/{part:05}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> RequestKey {
        RequestKey {
            actor: "operator/alice".into(),
            id: id.into(),
        }
    }

    fn print(n: u8) -> Fingerprint {
        Fingerprint([n; 32])
    }

    fn run(table: &mut Requests, rows: &mut Rows, id: &str, n: u8, answer: Vec<u8>) {
        let mut batch = Batch::default();
        let planned = table.plan(key(id), print(n), answer, &mut batch);
        rows.extend(batch.puts);
        for gone in batch.deletes {
            assert!(rows.remove(&gone).is_some(), "{gone} was never stored");
        }
        table.accept(planned);
    }

    #[test]
    fn an_answer_survives_a_restart_however_long_it_is() {
        let (mut table, mut rows) = (Requests::load(&Rows::new(), 10), Rows::new());
        let long: Vec<u8> = (0..PART_BYTES * 2 + 5)
            .map(|i| u8::try_from(i % 251).unwrap())
            .collect();
        run(&mut table, &mut rows, "a", 1, long.clone());
        run(&mut table, &mut rows, "b", 2, Vec::new());
        assert!(rows.values().all(|row| row.len() < 512 << 10));
        let table = Requests::load(&rows, 10);
        assert_eq!(table.look(&key("a"), print(1)), Seen::Done(long));
        assert_eq!(table.look(&key("b"), print(2)), Seen::Done(Vec::new()));
        assert_eq!(table.look(&key("a"), print(2)), Seen::OtherContent);
        assert_eq!(table.look(&key("c"), print(2)), Seen::New);
    }

    #[test]
    fn an_id_belongs_to_who_used_it() {
        let (mut table, mut rows) = (Requests::load(&Rows::new(), 10), Rows::new());
        run(&mut table, &mut rows, "a", 1, vec![1]);
        let other = RequestKey {
            actor: "operator/bob".into(),
            id: "a".into(),
        };
        assert_eq!(table.look(&other, print(1)), Seen::New);
    }

    #[test]
    fn the_oldest_go_first_and_leave_no_row() {
        let (mut table, mut rows) = (Requests::load(&Rows::new(), 3), Rows::new());
        for n in 0..10 {
            run(&mut table, &mut rows, &format!("r{n}"), n, vec![n; PART_BYTES + 1]);
        }
        assert_eq!(rows.len(), 6, "3 answers of 2 parts each");
        assert_eq!(table.look(&key("r6"), print(6)), Seen::New);
        assert_eq!(
            Requests::load(&rows, 3).look(&key("r7"), print(7)),
            Seen::Done(vec![7; PART_BYTES + 1])
        );
    }
}
