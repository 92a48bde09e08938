//! What came of the table: for a person and for a program.

use serde::Serialize;

use super::table::{Expect, Rule};
use super::world::Kind;

/// Faults shown of one row; a hole lets many attempts through.
const SHOWN: usize = 2;
/// Letters of them that a line holds.
const WIDTH: usize = 160;

/// What came of a row.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The row.
    pub name: String,
    /// What must come of it.
    pub expected: Expect,
    /// What sends it.
    pub from: &'static [Kind],
    /// The row that must pass in its place.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub twin: &'static str,
    /// How many attempts.
    pub tried: usize,
    /// Attempts that came out otherwise, each in words.
    pub faults: Vec<String>,
    /// How many of them are known for what came of them, not for what could not be known.
    pub leaks: usize,
    /// Tried at all, and no fault.
    pub ok: bool,
}

impl Outcome {
    /// A row that was not tried does not hold.
    pub fn new(rule: &Rule, suffix: &str, tried: usize, faults: Vec<String>, leaks: usize) -> Self {
        Self {
            name: format!("{}{suffix}", rule.id),
            expected: rule.expect,
            from: rule.from,
            twin: rule.twin,
            tried,
            ok: tried > 0 && faults.is_empty(),
            faults,
            leaks,
        }
    }

    /// More that is not as it must be.
    pub fn fail(&mut self, faults: impl Iterator<Item = String>) {
        let before = self.faults.len();
        self.faults.extend(faults);
        self.leaks += self.faults.len() - before;
        self.ok = self.tried > 0 && self.faults.is_empty();
    }

    fn seen(&self) -> String {
        if self.tried == 0 {
            return "nothing was tried".to_owned();
        }
        if self.ok {
            return format!("all {} attempts", self.tried);
        }
        let shown: Vec<&str> = self.faults.iter().take(SHOWN).map(String::as_str).collect();
        let text = format!("{} of {} not: {}", self.faults.len(), self.tried, shown.join("; "));
        match text.char_indices().nth(WIDTH) {
            Some((end, _)) => text.get(..end).unwrap_or_default().to_owned() + " ...",
            None => text,
        }
    }
}

/// For a person.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut table = crate::program::table(&["", "ATTEMPT", "FROM", "MUST", "SEEN", "MUST PASS INSTEAD"]);
    for outcome in outcomes {
        let mark = if outcome.ok { "ok" } else { "FAILED" };
        let must = match outcome.expected {
            Expect::Reaches => "reach its target",
            Expect::ReachesPeers => "reach the peers",
            Expect::Answered => "be answered",
            Expect::Heard => "be heard by itself",
            Expect::Confined => "stay in its VLAN",
            Expect::NoGuest => "reach no guest",
            Expect::NoOther => "reach no other guest",
            Expect::Inside => "stay inside",
            Expect::Dropped => "reach nobody",
            Expect::Limited => "be limited",
        };
        let from = senders(outcome.from);
        table.add_row([mark, &outcome.name, &from, must, &outcome.seen(), outcome.twin]);
    }
    table.to_string()
}

/// Kinds of senders, short: every row has its own.
fn senders(kinds: &[Kind]) -> String {
    let name = |kind: &Kind| match kind {
        Kind::Plain => "plain",
        Kind::Secure => "secure",
        Kind::Protected => "protected",
        Kind::Internet => "internet",
        Kind::Nowhere => "nowhere",
        Kind::Host => "host",
        Kind::Wire => "wire",
    };
    kinds.iter().map(name).collect::<Vec<_>>().join(" ")
}

/// For a program.
pub fn json(outcomes: &[Outcome]) -> String {
    let ok = outcomes.iter().all(|outcome| outcome.ok);
    format!("{:#}", serde_json::json!({ "ok": ok, "attacks": outcomes }))
}

#[cfg(test)]
mod tests {
    use super::super::table::HOSTILE;
    use super::*;

    #[test]
    fn a_row_that_was_never_tried_does_not_hold() {
        let outcome = Outcome::new(&HOSTILE[0], "", 0, Vec::new(), 0);
        assert!(!outcome.ok);
        let shown = table(&[outcome]);
        assert!(shown.contains("nothing was tried"));
        assert!(shown.contains("plain secure protected") && shown.contains(HOSTILE[0].twin));
    }

    #[test]
    fn faults_are_counted_and_the_first_shown() {
        let faults = vec!["a".to_owned(), "b".to_owned(), "c".to_owned(), "d".to_owned()];
        let outcome = Outcome::new(&HOSTILE[0], "", 9, faults, 4);
        assert!(table(std::slice::from_ref(&outcome)).contains("4 of 9 not: a; b"));
        let value: serde_json::Value = serde_json::from_str(&json(&[outcome])).unwrap();
        assert_eq!(value["attacks"][0]["faults"].as_array().unwrap().len(), 4);
        assert_eq!(value["attacks"][0]["expected"], "confined");
    }
}
