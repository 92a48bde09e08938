//! What is printed: the stable shapes of `-o json` and `-o yaml`, and the tables made from them.
//!
//! Keys are snake_case, numbers are numbers, times are RFC 3339 in UTC, what does not exist is `null`. Fields may be added; none is
//! renamed or removed without a word in the change log. Lists are arrays.

pub(crate) mod change;
pub(crate) mod event;
pub(crate) mod explain;
pub(crate) mod node;
pub(crate) mod path;
pub(crate) mod slice;
pub(crate) mod status;

use jiff::Timestamp;
use trunkline_proto::{resource::State, wire};

/// From the wire; a time that does not exist is none.
fn time(time: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    let time = time?;
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// For tables: RFC 3339 to the second, in UTC.
fn shown(time: Option<Timestamp>) -> String {
    time.map_or_else(String::new, |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// How long ago, roughly: `12s`, `5m`, `3h`, `8d`.
fn ago(time: Option<Timestamp>, now: Timestamp) -> String {
    let Some(time) = time else { return String::new() };
    let seconds = now.duration_since(time).as_secs().max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Name of a state; one that this program does not know, or none, is `none`.
fn state(number: i32) -> String {
    State::try_from(number).map_or_else(|_| "none".to_owned(), |s| s.to_string())
}

/// Empty on the wire is nothing.
fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// 0 on the wire is nothing.
fn nonzero(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

/// `port tap_1002_eth1`, in two words.
fn key(key: Option<&wire::ResourceKey>) -> (String, String) {
    key.map_or_else(Default::default, |key| {
        let kind = trunkline_proto::resource::Kind::from_number(key.kind);
        (kind.to_string(), key.name.clone())
    })
}
