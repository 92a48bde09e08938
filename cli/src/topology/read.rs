//! Typed values out of nodes, with a mistake for each that is not what it should be.

use std::{collections::HashMap, fmt::Display, rc::Rc, str::FromStr};

use trunkline_proto::Invalid;

use super::{
    Mistake, Place,
    suggest::nearest,
    tree::{Node, Value, is_bool, is_number},
};

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Collects mistakes, and the place of each field by its path.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) mistakes: Vec<Mistake>,
    pub(super) places: HashMap<String, Place>,
    /// Something was so wrong that it is left out: what follows it has another number than in the file.
    pub(super) left_out: bool,
}

/// The fields of a mapping.
pub(super) struct Fields<'a> {
    pub(super) place: Place,
    found: Vec<(&'a str, &'a Rc<Node>)>,
}

impl<'a> Fields<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        let (_, node) = *self.found.iter().find(|(k, _)| *k == key)?;
        Some(node)
    }
}

impl Reader {
    pub(super) fn mistake(&mut self, place: &Place, what: impl Into<String>, instead: impl Into<String>) {
        self.mistakes.push(Mistake::new(place.clone(), what, instead));
    }

    pub(super) fn invalid(&mut self, place: &Place, error: &Invalid) {
        let all = error.to_string();
        let what = all
            .strip_suffix(error.instead())
            .map_or(all.as_str(), |what| what.trim_end_matches([':', ' ']));
        self.mistake(place, what, error.instead());
    }

    /// A mapping whose keys are all known and come once.
    pub(super) fn fields<'a>(&mut self, node: &'a Node, whose: &str, known: &[&str]) -> Option<Fields<'a>> {
        let Value::Map(pairs) = &node.value else {
            let like = format!("write {whose} as a mapping with {}", known.join(", "));
            self.mistake(&node.place, format!("{} is not {whose}", node.kind()), like);
            self.left_out = true;
            return None;
        };
        let mut found: Vec<(&str, &Rc<Node>)> = Vec::new();
        for (key, value) in pairs {
            let Value::Scalar { text, .. } = &key.value else {
                self.mistake(
                    &key.place,
                    "this key is no text",
                    format!("write one of {}", known.join(", ")),
                );
                continue;
            };
            if !known.contains(&text.as_str()) {
                self.unknown_key(key, text, whose, known);
            } else if found.iter().any(|(k, _)| k == text) {
                self.mistake(&key.place, format!("{text} is given twice"), "keep one of the two");
            } else {
                found.push((text, value));
            }
        }
        Some(Fields {
            place: node.place.clone(),
            found,
        })
    }

    fn unknown_key(&mut self, key: &Node, text: &str, whose: &str, known: &[&str]) {
        let shown = Invalid::new(text, "a key", "").to_string();
        let shown = shown.trim_end_matches([':', ' ']);
        let instead = match nearest(text, known.iter().copied()) {
            _ if text == "<<" => "merging is not supported; write the values out".to_owned(),
            Some(near) => format!("write {near}"),
            None => format!("{whose} has {}", known.join(", ")),
        };
        self.mistake(&key.place, format!("{shown} of {whose}"), instead);
    }

    /// The items of a list; none when the key is missing or empty.
    pub(super) fn list<'a>(&mut self, node: Option<&'a Node>, of: &str, example: &str) -> &'a [Rc<Node>] {
        match node {
            None => &[],
            Some(node) if node.is_null() => &[],
            Some(node) => match &node.value {
                Value::List(items) => items,
                _ => {
                    let instead = format!("write a list: {example}");
                    self.mistake(&node.place, format!("{} is not a list of {of}", node.kind()), instead);
                    &[]
                }
            },
        }
    }

    /// A text, unquoted only when YAML takes it for one.
    pub(super) fn text<'a>(&mut self, node: &'a Node, wanted: &str, example: &str) -> Option<&'a str> {
        match &node.value {
            Value::Scalar { text, plain } if !plain || !(node.is_null() || is_bool(text) || is_number(text)) => {
                Some(text)
            }
            _ => {
                self.mistake(
                    &node.place,
                    format!("{} is not {wanted}", node.kind()),
                    format!("write {wanted}, like {example}"),
                );
                None
            }
        }
    }

    /// A text of a domain type.
    pub(super) fn parsed<T: FromStr<Err = Invalid>>(
        &mut self,
        node: &Node,
        wanted: &str,
        example: &str,
    ) -> Option<At<T>> {
        let text = self.text(node, wanted, example)?;
        match text.parse() {
            Ok(value) => Some(At {
                value,
                place: node.place.clone(),
            }),
            Err(error) => {
                self.invalid(&node.place, &error);
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn number<T>(&mut self, node: &Node, wanted: &str, bounds: std::ops::RangeInclusive<T>) -> Option<At<T>>
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        let (low, high) = (*bounds.start(), *bounds.end());
        let instead = format!("write a number from {low} to {high}");
        let Value::Scalar { text, plain } = &node.value else {
            self.mistake(&node.place, format!("{} is not {wanted}", node.kind()), instead);
            return None;
        };
        let number = plain.then(|| integer(text)).flatten().and_then(|n| T::try_from(n).ok());
        if let Some(value) = number.filter(|n| bounds.contains(n)) {
            return Some(At {
                value,
                place: node.place.clone(),
            });
        }
        let quoted = !plain && integer(text).is_some();
        let instead = if quoted {
            format!("{instead}, without quotes")
        } else {
            instead
        };
        let shown = Invalid::new(text, "x", "").to_string();
        let shown = shown.trim_end_matches(" is not x: ");
        self.mistake(&node.place, format!("{shown} is not {wanted}"), instead);
        None
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, node: &Node, wanted: &str) -> Option<bool> {
        match &node.value {
            Value::Scalar { text, plain: true } if is_bool(text) => Some(text.eq_ignore_ascii_case("true")),
            _ => {
                let what = format!("{} is not {wanted}", node.kind());
                self.mistake(&node.place, what, "write true or false");
                None
            }
        }
    }
}

/// Decimal, `0x` or `0o`, as YAML 1.2 has them.
fn integer(text: &str) -> Option<i64> {
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok();
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return i64::from_str_radix(octal, 8).ok();
    }
    text.parse().ok()
}
