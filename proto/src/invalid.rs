//! The error of every domain type.

/// A value that breaks a rule. Shown as `"5000" is not a VLAN id: write a number from 1 to 4094`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value} is not {wanted}: {instead}")]
pub struct Invalid {
    value: String,
    wanted: &'static str,
    instead: String,
}

impl Invalid {
    /// `value` as it came (shortened, with control characters made visible), what it should have been (`a VLAN id`), and what
    /// to write instead (`write a number from 1 to 4094`).
    pub fn new(value: impl AsRef<str>, wanted: &'static str, instead: impl Into<String>) -> Self {
        Self {
            value: shown(value.as_ref()),
            wanted,
            instead: instead.into(),
        }
    }

    /// What to write instead.
    pub fn instead(&self) -> &str {
        &self.instead
    }
}

/// Quoted, at most 40 characters, everything that is not printable ASCII escaped: an error is read on a terminal.
fn shown(value: &str) -> String {
    const MOST: usize = 40;
    let mut text: String = value.chars().take(MOST).flat_map(char::escape_default).collect();
    if value.chars().nth(MOST).is_some() {
        text.push_str("...");
    }
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_value_is_shown_short_and_escaped() {
        let long = "x".repeat(65_536);
        assert!(Invalid::new(&long, "a name", "").to_string().len() < 80);
        assert_eq!(
            Invalid::new("a\nb\0", "a name", "write a name").to_string(),
            r#""a\nb\u{0}" is not a name: write a name"#
        );
    }
}
