//! The proof as data, as a table and as JSON.

use serde::Serialize;
use trunkline_proto::wire::Slice;

/// One point of the proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What was looked at.
    pub name: String,
    /// What must be seen.
    pub expected: String,
    /// What was seen.
    pub seen: String,
    /// Whether that is good.
    pub ok: bool,
}

impl Row {
    /// A point that holds when what is seen is just what was expected.
    pub fn equal(name: impl Into<String>, expected: impl Into<String>, seen: impl Into<String>) -> Self {
        let (name, expected, seen) = (name.into(), expected.into(), seen.into());
        let ok = expected == seen;
        Self {
            name,
            expected,
            seen,
            ok,
        }
    }
}

/// For a person.
pub fn table(rows: &[Row]) -> String {
    let mut table = crate::program::table(&["", "POINT", "SEEN"]);
    for row in rows {
        let mark = if row.ok { "ok" } else { "FAILED" };
        let seen = if row.ok {
            row.seen.clone()
        } else {
            format!("{} (expected {})", row.seen, row.expected)
        };
        table.add_row([mark, &row.name, &seen]);
    }
    table.to_string()
}

/// For a program.
pub fn json(rows: &[Row], note: &str) -> String {
    let ok = rows.iter().all(|row| row.ok);
    format!("{:#}", serde_json::json!({ "ok": ok, "proof": rows, "note": note }))
}

/// What the proof says about the VLAN of the internet, and what it does not say.
pub fn shared_vlan(slices: &[Slice]) -> String {
    let on_it = |slice: &&Slice| slice.vms.iter().any(|vm| vm.internet_enabled);
    let names: Vec<&str> = slices.iter().filter(on_it).map(|slice| slice.name.as_str()).collect();
    let met = match names.as_slice() {
        [] => "no slice is on it here, so nothing is proven about it".to_owned(),
        [one] => format!(
            "only slice {one} is on it here. Proven: its leases, its way to the internet, and that the other slices do \
             not reach it.\nNot proven here, but by `./integration/demo --attacks`: that guests of two slices which are \
             both on VLAN 400 do not reach each other there"
        ),
        several => format!(
            "slices {} are on it here, and the points above say whether they reach each other there",
            several.join(" ")
        ),
    };
    format!("VLAN 400 is shared: eth0 of every VM with internet is on it, whatever its slice. Of these slices {met}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_that_fails_shows_what_was_expected() {
        let rows = [Row::equal("a lease", "10.64.0.10", "none")];
        let text = table(&rows);
        assert!(
            text.contains("FAILED") && text.contains("none (expected 10.64.0.10)"),
            "{text}"
        );
        let value: serde_json::Value = serde_json::from_str(&json(&rows, "a note")).unwrap();
        assert_eq!(value["ok"], false);
        assert_eq!(value["proof"][0]["seen"], "none");
    }
}
