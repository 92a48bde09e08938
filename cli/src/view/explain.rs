//! The way of a frame, drawn.

use serde::Serialize;
use trunkline_proto::wire;

use super::{given, state as state_name};
use crate::{
    console::{Console, Paint, Tone},
    table::tone_of,
};

/// `explain`.
#[derive(Debug, Serialize)]
pub(crate) struct ExplainView {
    pub(crate) from: String,
    pub(crate) to: String,
    /// `null` when it is not known.
    pub(crate) reaches: Option<bool>,
    pub(crate) verdict: String,
    /// Index of the first of `hops` that is broken.
    pub(crate) first_broken: Option<usize>,
    pub(crate) hops: Vec<HopView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct HopView {
    /// `guest`, `tap`, ...
    pub(crate) kind: String,
    pub(crate) node: Option<String>,
    pub(crate) what: String,
    pub(crate) state: String,
    pub(crate) expected: String,
    pub(crate) seen: String,
    /// `null` when nothing is to be done.
    pub(crate) mend: Option<String>,
}

impl From<&wire::ExplainResponse> for ExplainView {
    fn from(explained: &wire::ExplainResponse) -> Self {
        let hops: Vec<HopView> = explained.hops.iter().map(HopView::from).collect();
        let first_broken = usize::try_from(explained.first_broken).ok();
        let reaches = match first_broken {
            Some(_) => Some(false),
            None => hops.iter().all(|hop| hop.mark() == Mark::Passes).then_some(true),
        };
        Self {
            from: explained.from.clone(),
            to: explained.to.clone(),
            reaches,
            verdict: explained.verdict.clone(),
            first_broken,
            hops,
        }
    }
}

impl From<&wire::Hop> for HopView {
    fn from(hop: &wire::Hop) -> Self {
        let kind = hop.kind().as_str_name();
        Self {
            kind: kind.strip_prefix("KIND_").unwrap_or(kind).to_lowercase(),
            node: given(&hop.node),
            what: hop.what.clone(),
            state: state_name(hop.state),
            expected: hop.expected.clone(),
            seen: hop.seen.clone(),
            mend: given(&hop.mend),
        }
    }
}

/// How a step is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Passes,
    Unknown,
    Broken,
}

impl HopView {
    fn mark(&self) -> Mark {
        match self.state.as_str() {
            "ready" => Mark::Passes,
            "unknown" | "none" => Mark::Unknown,
            _ => Mark::Broken,
        }
    }

    /// The other one is the same trouble, and is mended with this one.
    fn is_cause_of(&self, other: &Self) -> bool {
        let trouble = |hop: &Self| (hop.mark(), hop.node.clone(), hop.seen.clone(), hop.mend.clone());
        self.mend.is_some() && trouble(self) == trouble(other)
    }
}

/// A line for each step, from one end to the other. `|` is passed, `X` broken, `?` not known; what comes after the first break is
/// dotted, and that one has an arrow. Under a step that is broken, or where there is something to do: what was seen there, what
/// should be, what mends it; where that is the same as at a step before, that one is named.
pub(crate) fn explain_text(console: &Console, view: &ExplainView) -> String {
    let paint = console.paint;
    let width = |of: fn(&HopView) -> &str| view.hops.iter().map(|hop| of(hop).chars().count()).max().unwrap_or(0);
    let widths = [
        width(|hop| &hop.kind),
        width(|hop| hop.node.as_deref().unwrap_or_default()),
        width(|hop| &hop.what),
    ];
    let mut out = format!("{}\n", clean(&view.from));
    for (index, hop) in view.hops.iter().enumerate() {
        let beyond = view.first_broken.is_some_and(|broken| index > broken);
        let before = view.hops.iter().take(index).find(|before| before.is_cause_of(hop));
        out += &step(paint, hop, widths, beyond, before);
        if view.first_broken == Some(index) {
            out = format!("{}  {}\n", out.trim_end(), paint.tone(Tone::Bad, "<-- here"));
        }
        // Of a step that nobody has told of there is nothing to say but that.
        if before.is_none() && (hop.mark() == Mark::Broken || hop.mend.is_some()) {
            let stroke = if beyond || hop.mark() == Mark::Broken { '.' } else { '|' };
            out += &about(paint, hop, stroke);
        }
    }
    out += &format!("{}\n", clean(&view.to));
    if view.reaches == Some(true) {
        out += &format!("\n{}\n", clean(&view.verdict));
    }
    out
}

fn step(paint: Paint, hop: &HopView, [kind, node, what]: [usize; 3], beyond: bool, before: Option<&HopView>) -> String {
    let (mark, tone) = match hop.mark() {
        Mark::Passes if beyond => (".", Tone::Faint),
        Mark::Passes => ("|", Tone::Good),
        Mark::Unknown => ("?", Tone::Warn),
        Mark::Broken => ("X", Tone::Bad),
    };
    let said = match (hop.mark(), before) {
        (Mark::Passes, _) => clean(&hop.seen),
        (_, Some(before)) => {
            let said = format!("{}, as {} {}", hop.state, before.kind, before.what);
            paint.tone(tone_of(&hop.state), clean(&said))
        }
        (Mark::Unknown, _) if hop.mend.is_none() => {
            paint.tone(tone_of(&hop.state), clean(&format!("{}: {}", hop.state, hop.seen)))
        }
        _ => paint.tone(tone_of(&hop.state), clean(&hop.state)),
    };
    let line = format!(
        "  {}  {:kind$}  {:node$}  {:what$}  {said}",
        paint.tone(tone, mark),
        clean(&hop.kind),
        clean(hop.node.as_deref().unwrap_or_default()),
        clean(&hop.what),
    );
    format!("{}\n", line.trim_end())
}

fn about(paint: Paint, hop: &HopView, stroke: char) -> String {
    let lines = [
        ("seen", Some(&hop.seen)),
        ("expected", Some(&hop.expected)),
        ("mend", hop.mend.as_ref()),
    ];
    let stroke = paint.tone(Tone::Faint, stroke);
    let line = |(name, text): (&str, Option<&String>)| {
        let text = text.filter(|text| !text.is_empty())?;
        let name = paint.tone(Tone::Faint, format!("{name:8}"));
        Some(format!("  {stroke}      {name}  {}\n", clean(text)))
    };
    lines.into_iter().filter_map(line).collect()
}

/// Words of a node must not move the cursor.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
