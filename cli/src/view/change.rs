//! What a mutation did.

use std::fmt::Write;

use serde::Serialize;
use trunkline_proto::wire::{self, change::Action};

use crate::{
    console::{Console, Paint, Tone},
    table::{Table, plain},
};

/// `apply`.
#[derive(Debug, Serialize)]
pub(crate) struct ApplyView {
    pub(crate) changed: bool,
    pub(crate) dry_run: bool,
    pub(crate) revision: u64,
    /// Set when it was deployed.
    pub(crate) term: Option<u64>,
    pub(crate) generation: Option<u64>,
    pub(crate) changes: Vec<ChangeView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ChangeView {
    /// `created`, `updated`, `removed`, `deployed`.
    pub(crate) action: String,
    pub(crate) slice: String,
    pub(crate) what: String,
    pub(crate) detail: String,
}

/// `slice deploy`, `undeploy`, `delete`, `rollback`, and what edits a draft.
#[derive(Debug, Default, Serialize)]
pub(crate) struct DoneView {
    pub(crate) revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) term: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) renumbered: Vec<String>,
}

impl DoneView {
    /// Of a call that changes hosts: revision of its commit, and the (term, generation) that they are brought to.
    pub(crate) fn on_hosts(revision: u64, (term, generation): (u64, u64)) -> Self {
        Self {
            revision,
            term: Some(term),
            generation: Some(generation),
            ..Self::default()
        }
    }
}

/// `node drain`, `node replace`.
#[derive(Debug, Serialize)]
pub(crate) struct DrainView {
    pub(crate) revision: u64,
    pub(crate) moved: Vec<MovedView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct MovedView {
    pub(crate) slice: String,
    pub(crate) vm: String,
    pub(crate) from: String,
    pub(crate) to: String,
}

impl From<&wire::DrainNodeResponse> for DrainView {
    fn from(response: &wire::DrainNodeResponse) -> Self {
        let moved = |moved: &wire::MovedVm| MovedView {
            slice: moved.slice.clone(),
            vm: moved.vm.clone(),
            from: moved.from.clone(),
            to: moved.to.clone(),
        };
        Self {
            revision: response.revision,
            moved: response.moved.iter().map(moved).collect(),
        }
    }
}

/// A line for each VM, and what is next.
pub(crate) fn drain_text(console: &Console, node: &str, drain: &DrainView) -> String {
    if drain.moved.is_empty() {
        return format!("{node} is cordoned; it has no VMs\n");
    }
    let mut table = Table::new(console, &["VM", "FROM", "TO"]);
    for moved in &drain.moved {
        table.row([
            plain(format!("{}/{}", moved.slice, moved.vm)),
            plain(&moved.from),
            plain(&moved.to),
        ]);
    }
    format!(
        "{}{node} is cordoned. Start these VMs where they are now; when nothing runs on it any more: trunkctl node forget {node}\n",
        table.render("")
    )
}

impl ApplyView {
    pub(crate) fn new(response: &wire::ApplySlicesResponse, dry_run: bool, deploy: bool) -> Self {
        let change = |change: &wire::Change| ChangeView {
            action: match change.action() {
                Action::Unspecified | Action::Updated => "updated",
                Action::Created => "created",
                Action::Removed => "removed",
                Action::Deployed => "deployed",
            }
            .to_owned(),
            slice: change.slice.clone(),
            what: change.what.clone(),
            detail: change.detail.clone(),
        };
        Self {
            changed: !response.changes.is_empty(),
            dry_run,
            revision: response.revision,
            term: deploy.then_some(response.term),
            generation: deploy.then_some(response.generation),
            changes: response.changes.iter().map(change).collect(),
        }
    }
}

/// A line per change, and what that makes.
pub(crate) fn apply_text(paint: Paint, apply: &ApplyView) -> String {
    if !apply.changed {
        return "nothing changed\n".to_owned();
    }
    let mut out = String::new();
    for ChangeView {
        action,
        slice,
        what,
        detail,
    } in &apply.changes
    {
        let (sign, tone) = match action.as_str() {
            "created" => ("+", Tone::Good),
            "removed" => ("-", Tone::Bad),
            "deployed" => ("^", Tone::Good),
            _ => ("~", Tone::Warn),
        };
        // `slice` alone needs no second word for what it is of.
        let of = if what == "slice" {
            format!("slice {slice}")
        } else {
            format!("{slice}: {what}")
        };
        let detail = if detail.is_empty() {
            String::new()
        } else {
            format!("  {detail}")
        };
        let _ = writeln!(out, "{}{detail}", paint.tone(tone, format!("{sign} {of}")));
    }
    let count = |of: &str| apply.changes.iter().filter(|c| c.action == of).count();
    let words = ["created", "updated", "removed", "deployed"];
    let said = words.iter().map(|word| (count(word), word)).filter(|(n, _)| *n > 0);
    let said = said
        .map(|(n, word)| format!("{n} {word}"))
        .collect::<Vec<_>>()
        .join(", ");
    let end = if apply.dry_run {
        "; dry run, nothing was changed"
    } else {
        ""
    };
    let _ = writeln!(out, "{said}{end}");
    out
}
