//! YAML into nodes that know where they stand.
//!
//! serde stops at the first value that it does not like, so the file is read as plain nodes first. Aliases share their node; what a
//! tree of aliases would be when written out is bounded, so a small file cannot grow without end.

use std::{collections::HashMap, rc::Rc};

use serde_saphyr::granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span};

use super::{Mistake, Place};

/// Most nodes of a file, aliases written out. A file of 4 MiB without aliases stays below.
const MOST_NODES: usize = 2_000_000;

/// Deepest nesting: a topology needs six levels.
const DEEPEST: usize = 32;

/// One value of the file.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
    /// Nodes in it, itself included, aliases written out.
    size: usize,
}

#[derive(Debug)]
pub(super) enum Value {
    /// As it was written, and whether without quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Rc<Node>>),
    /// In the order of the file; a key may come twice.
    Map(Vec<(Rc<Node>, Rc<Node>)>),
}

impl Node {
    /// A word for a person: what it is.
    pub(super) fn kind(&self) -> String {
        match &self.value {
            Value::Scalar { text, plain: true } if is_null(text) => "nothing".to_owned(),
            Value::Scalar { text, plain: true } if is_bool(text) || is_number(text) => text.clone(),
            Value::Scalar { .. } => "a text".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// True for `key:` with nothing behind it, and `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if is_null(text))
    }
}

/// The words of YAML 1.2's core schema for nothing.
pub(super) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

pub(super) fn is_bool(text: &str) -> bool {
    matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE")
}

/// Integers and floats of the core schema, near enough to say that a text needs quotes.
pub(super) fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && (text.parse::<f64>().is_ok() || text.starts_with("0x") || text.starts_with("0o"))
}

/// The root of the only document of the file.
pub(super) fn parse(text: &str) -> Result<Rc<Node>, Vec<Mistake>> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.emit_unresolved_aliases = true;
    let mut tree = Tree::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|e| syntax(text, &e))?;
        tree.take(event, &span).map_err(|mistake| vec![mistake])?;
    }
    let root = tree.root.filter(|root| !root.is_null());
    let empty = || Mistake::new(0..0, "the file is empty", "write `slices:` and a list of slices");
    let root = root.ok_or_else(|| vec![empty()])?;
    if tree.mistakes.is_empty() {
        Ok(root)
    } else {
        Err(tree.mistakes)
    }
}

/// A syntax error; when tabs indent lines, every such line instead, for they are what is wrong.
fn syntax(text: &str, error: &ScanError) -> Vec<Mistake> {
    let mut tabs = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        if let Some(tab) = line[..indent].find('\t') {
            tabs.push(Mistake::new(
                start + tab..start + indent,
                "a tab indents this line",
                "write spaces: YAML does not take tabs here",
            ));
        }
        start += line.len();
    }
    let at = error.marker().byte_offset().unwrap_or(0).min(text.len());
    if tabs.iter().any(|tab| tab.place.start <= at) {
        return tabs;
    }
    if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
        return vec![too_deep(at..at)];
    }
    vec![Mistake::new(
        at..at,
        format!("this is not YAML: {}", error.info()),
        "look at the indentation, the quotes and the brackets here and in the line above",
    )]
}

fn too_deep(place: Place) -> Mistake {
    Mistake::new(place, "this is nested too deeply", "a topology needs six levels")
}

/// A collection that is still open.
struct Open {
    place: Place,
    anchor: usize,
    map: bool,
    items: Vec<Rc<Node>>,
}

#[derive(Default)]
struct Tree {
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    mistakes: Vec<Mistake>,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), Mistake> {
        let place = span.byte_range().unwrap_or(0..0);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.no_tag(tag.is_some(), &place);
                let plain = style == ScalarStyle::Plain;
                let text = text.into_owned();
                self.put(place, Value::Scalar { text, plain }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.no_tag(tag.is_some(), &place);
                self.enter(place, anchor, false)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.no_tag(tag.is_some(), &place);
                self.enter(place, anchor, true)
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave(),
            Event::Alias(anchor) => self.alias(place, anchor),
            Event::UnresolvedAlias(name) => {
                let what = format!("nothing above is named &{name}");
                self.mistakes.push(Mistake::new(
                    place.clone(),
                    what,
                    format!("write &{name} where it is defined"),
                ));
                self.put(place, Value::List(Vec::new()), 0)
            }
            Event::DocumentStart(..) if self.root.is_some() => Err(Mistake::new(
                place,
                "a second document begins here",
                "write all slices under one `slices:`, without `---`",
            )),
            _ => Ok(()),
        }
    }

    fn no_tag(&mut self, tagged: bool, place: &Place) {
        if tagged {
            self.mistakes.push(Mistake::new(
                place.clone(),
                "tags like !!str mean nothing here",
                "leave the tag out",
            ));
        }
    }

    fn enter(&mut self, place: Place, anchor: usize, map: bool) -> Result<(), Mistake> {
        if self.open.len() >= DEEPEST {
            return Err(too_deep(place));
        }
        self.open.push(Open {
            place,
            anchor,
            map,
            items: Vec::new(),
        });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Mistake> {
        let Some(Open {
            place,
            anchor,
            map,
            items,
        }) = self.open.pop()
        else {
            return Ok(());
        };
        // A block collection's own mark is empty; its first item shows better where it is.
        let place = items
            .first()
            .filter(|_| place.is_empty())
            .map_or(place, |first| first.place.clone());
        let value = if map {
            Value::Map(pairs(items))
        } else {
            Value::List(items)
        };
        self.put(place, value, anchor)
    }

    fn alias(&mut self, place: Place, anchor: usize) -> Result<(), Mistake> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(Mistake::new(
                place,
                "this alias stands within what it names",
                "write the value out",
            ));
        };
        self.add(node, &place)
    }

    fn put(&mut self, place: Place, value: Value, anchor: usize) -> Result<(), Mistake> {
        let size = 1 + match &value {
            Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(|n| n.size).fold(0, usize::saturating_add),
            Value::Map(pairs) => pairs
                .iter()
                .map(|(k, v)| k.size.saturating_add(v.size))
                .fold(0, usize::saturating_add),
        };
        let node = Rc::new(Node {
            place: place.clone(),
            value,
            size,
        });
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.add(node, &place)
    }

    fn add(&mut self, node: Rc<Node>, place: &Place) -> Result<(), Mistake> {
        if node.size > MOST_NODES {
            return Err(Mistake::new(
                place.clone(),
                "with its aliases written out the file is too large",
                "write the values out, or use fewer aliases",
            ));
        }
        match self.open.last_mut() {
            Some(open) => open.items.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }
}

/// Keys and values come one after the other.
fn pairs(items: Vec<Rc<Node>>) -> Vec<(Rc<Node>, Rc<Node>)> {
    let mut items = items.into_iter();
    std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
}
