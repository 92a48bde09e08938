//! The journal.

use jiff::Timestamp;
use serde::Serialize;
use trunkline_proto::wire;

use super::{given, nonzero, shown, time};
use crate::{
    console::{Paint, Tone},
    table::tone_of,
};

#[derive(Debug, Serialize)]
pub(crate) struct EventView {
    pub(crate) sequence: u64,
    pub(crate) at: Option<Timestamp>,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) actor: String,
    pub(crate) slice: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) vlan: Option<u32>,
    pub(crate) revision: Option<u64>,
    pub(crate) message: String,
}

impl From<&wire::Event> for EventView {
    fn from(event: &wire::Event) -> Self {
        Self {
            sequence: event.sequence,
            at: time(event.at.as_ref()),
            kind: event.r#type.clone(),
            actor: event.actor.clone(),
            slice: given(&event.slice),
            node: given(&event.node),
            vlan: nonzero(event.vlan),
            revision: (event.revision != 0).then_some(event.revision),
            message: event.message.clone(),
        }
    }
}

/// One line, the same in a list and while following.
pub(crate) fn event_line(paint: Paint, event: &EventView) -> String {
    // `resource.failed` is as bad as a state called so.
    let word = event.kind.rsplit('.').next().unwrap_or_default();
    let tone = match tone_of(word) {
        Tone::Faint => Tone::Plain,
        tone => tone,
    };
    let clean = |text: &str| {
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>()
    };
    let at = paint.tone(Tone::Faint, shown(event.at));
    let kind = paint.tone(tone, format!("{:<20}", clean(&event.kind)));
    format!("{at}  {kind}  {:<18}  {}\n", clean(&event.actor), clean(&event.message))
}
