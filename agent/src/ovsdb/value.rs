//! OVSDB's JSON notation of atoms, sets and maps, and how a column takes an `update2` difference.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use uuid::Uuid;

use super::Error;

/// Notation of a reference to an existing row.
#[must_use]
pub fn uuid(id: Uuid) -> Value {
    json!(["uuid", id.to_string()])
}

/// Notation of a reference to a row that the same transaction inserts under this name.
#[must_use]
pub fn named_uuid(name: &str) -> Value {
    json!(["named-uuid", name])
}

/// Notation of a set of references, made by [`uuid()`] or [`named_uuid`].
#[must_use]
pub fn uuid_set(members: impl IntoIterator<Item = Value>) -> Value {
    json!(["set", members.into_iter().collect::<Vec<_>>()])
}

/// Notation of a map of strings.
#[must_use]
pub fn string_map(map: &BTreeMap<String, String>) -> Value {
    let pairs: Vec<Value> = map.iter().map(|(key, value)| json!([key, value])).collect();
    json!(["map", pairs])
}

fn unexpected(what: &str, value: &Value) -> Error {
    Error::Protocol(format!("{what} expected, got {value}"))
}

/// A single value of OVSDB.
pub(super) trait Atom: Sized + Ord {
    fn decode(value: &Value) -> Result<Self, Error>;
}

impl Atom for i64 {
    fn decode(value: &Value) -> Result<Self, Error> {
        value.as_i64().ok_or_else(|| unexpected("integer", value))
    }
}

impl Atom for bool {
    fn decode(value: &Value) -> Result<Self, Error> {
        value.as_bool().ok_or_else(|| unexpected("boolean", value))
    }
}

impl Atom for String {
    fn decode(value: &Value) -> Result<Self, Error> {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| unexpected("string", value))
    }
}

impl Atom for Uuid {
    fn decode(value: &Value) -> Result<Self, Error> {
        match value.as_array().map(Vec::as_slice) {
            Some([kind, id]) if kind == "uuid" => id
                .as_str()
                .and_then(|id| id.parse().ok())
                .ok_or_else(|| unexpected("UUID", value)),
            _ => Err(unexpected("UUID", value)),
        }
    }
}

/// Members of a set; a set of one is also written as the bare atom.
fn members(value: &Value) -> Vec<&Value> {
    match value.as_array().map(Vec::as_slice) {
        Some([kind, Value::Array(list)]) if kind == "set" => list.iter().collect(),
        _ => vec![value],
    }
}

/// A column that can take the difference an `update2` notification carries. A newly inserted row is the difference to a row of
/// defaults, so this one operation serves both.
pub(super) trait Column {
    fn absorb(&mut self, difference: &Value) -> Result<(), Error>;
}

macro_rules! scalar_column {
    ($($kind:ty),*) => {$(
        impl Column for $kind {
            fn absorb(&mut self, difference: &Value) -> Result<(), Error> {
                *self = <$kind as Atom>::decode(difference)?;
                Ok(())
            }
        }
    )*};
}
scalar_column!(i64, bool, String);

/// A column of at most one value: the difference is the new value.
impl<T: Atom> Column for Option<T> {
    fn absorb(&mut self, difference: &Value) -> Result<(), Error> {
        *self = members(difference).first().map(|value| T::decode(value)).transpose()?;
        Ok(())
    }
}

/// A set: the difference holds what was added and what was taken away, alike.
impl<T: Atom> Column for BTreeSet<T> {
    fn absorb(&mut self, difference: &Value) -> Result<(), Error> {
        for value in members(difference) {
            let atom = T::decode(value)?;
            if !self.remove(&atom) {
                self.insert(atom);
            }
        }
        Ok(())
    }
}

/// A map: a pair that is there already goes, any other is put in place.
impl Column for BTreeMap<String, String> {
    fn absorb(&mut self, difference: &Value) -> Result<(), Error> {
        let Some([kind, Value::Array(pairs)]) = difference.as_array().map(Vec::as_slice) else {
            return Err(unexpected("map", difference));
        };
        if kind != "map" {
            return Err(unexpected("map", difference));
        }
        for pair in pairs {
            let Some([key, value]) = pair.as_array().map(Vec::as_slice) else {
                return Err(unexpected("pair", pair));
            };
            let (key, value) = (String::decode(key)?, String::decode(value)?);
            if self.get(&key) == Some(&value) {
                self.remove(&key);
            } else {
                self.insert(key, value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_sets_difference_adds_what_is_new_and_removes_what_was_there() {
        let mut trunks = BTreeSet::from([100_i64, 101]);
        trunks.absorb(&json!(["set", [101, 102]])).unwrap();
        assert_eq!(trunks, BTreeSet::from([100, 102]));
        trunks.absorb(&json!(100)).unwrap();
        assert_eq!(trunks, BTreeSet::from([102]));
    }

    #[test]
    fn a_maps_difference_replaces_adds_and_removes() {
        let mut map = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        map.absorb(&json!(["map", [["a", "1"], ["b", "3"], ["c", "4"]]]))
            .unwrap();
        assert_eq!(
            map,
            BTreeMap::from([("b".to_owned(), "3".to_owned()), ("c".to_owned(), "4".to_owned())])
        );
    }

    #[test]
    fn an_optional_column_takes_its_new_value_or_becomes_empty() {
        let mut tag = None::<i64>;
        tag.absorb(&json!(110)).unwrap();
        assert_eq!(tag, Some(110));
        tag.absorb(&json!(["set", []])).unwrap();
        assert_eq!(tag, None);
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_an_error() {
        assert!(0_i64.absorb(&json!("x")).is_err());
        assert!(BTreeSet::<Uuid>::new().absorb(&json!(["uuid", "no"])).is_err());
        assert!(BTreeMap::new().absorb(&json!(["set", []])).is_err());
    }
}
