//! The proof as data, as a table and as JSON.

use serde::Serialize;

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
pub fn json(rows: &[Row]) -> String {
    let ok = rows.iter().all(|row| row.ok);
    format!("{:#}", serde_json::json!({ "ok": ok, "proof": rows }))
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
        let value: serde_json::Value = serde_json::from_str(&json(&rows)).unwrap();
        assert_eq!(value["ok"], false);
        assert_eq!(value["proof"][0]["seen"], "none");
    }
}
