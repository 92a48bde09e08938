//! A daemon's TOML file.
//!
//! The struct it is read into has `#[serde(deny_unknown_fields)]`, in every section: a misspelt key must not silently mean the default.

use std::fmt;
use std::fs;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A duration as people write it: a whole number and `ms`, `s`, `m` or `h`, as in `"5s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurationText(pub Duration);

/// A configuration that cannot be used. The text begins with file and, where there is one, line.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not TOML, an unknown key, or a value that does not fit.
    #[error("{}:{line}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong; for an unknown key, its name and the keys that exist.
        message: String,
    },
}

/// Not a duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no duration: a whole number and ms, s, m or h, as in \"5s\"")]
pub struct DurationError(String);

/// Reads a configuration file.
///
/// # Errors
/// The file cannot be read, or does not fit `T`.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text)
}

/// Reads a configuration from its text; `path` is for the errors.
///
/// # Errors
/// The text does not fit `T`.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::Parse {
        path: path.to_owned(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        message: error.message().trim_end().to_owned(),
    })
}

impl Deref for DurationText {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl From<DurationText> for Duration {
    fn from(text: DurationText) -> Duration {
        text.0
    }
}

impl FromStr for DurationText {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || DurationError(text.chars().take(32).collect());
        let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(split);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let milliseconds = match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1000),
            "m" => number.checked_mul(60 * 1000),
            "h" => number.checked_mul(60 * 60 * 1000),
            _ => None,
        };
        milliseconds.map(|ms| Self(Duration::from_millis(ms))).ok_or_else(wrong)
    }
}

/// In the largest unit that divides it.
impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0 => f.write_str("0s"),
            _ if ms.is_multiple_of(3_600_000) => write!(f, "{}h", ms / 3_600_000),
            _ if ms.is_multiple_of(60_000) => write!(f, "{}m", ms / 60_000),
            _ if ms.is_multiple_of(1000) => write!(f, "{}s", ms / 1000),
            _ => write!(f, "{ms}ms"),
        }
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for DurationText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        timeout: DurationText,
        #[serde(default)]
        section: Section,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Section {
        #[serde(default)]
        port: u16,
    }

    fn error(text: &str) -> String {
        parse::<Example>(Path::new("/etc/x.toml"), text)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn durations_are_read_and_written_alike() {
        for (text, ms) in [
            ("5s", 5000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("0s", 0),
            ("90s", 90_000),
        ] {
            let parsed: DurationText = text.parse().unwrap();
            assert_eq!(parsed.as_millis(), ms);
            assert_eq!(parsed.to_string(), text);
        }
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "1.5s",
            "5d",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(text.parse::<DurationText>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_right_file_is_read() {
        let text = "timeout = \"5s\"\n[section]\nport = 7\n";
        let example: Example = parse(Path::new("x"), text).unwrap();
        assert_eq!((example.timeout.as_secs(), example.section.port), (5, 7));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name_with_file_line_and_the_keys_there_are() {
        let top = error("timeout = \"5s\"\n\ntimout = 1\n");
        assert_eq!(
            top,
            "/etc/x.toml:3: unknown field `timout`, expected `timeout` or `section`"
        );
        let nested = error("timeout = \"5s\"\n[section]\nprot = 1\n");
        assert_eq!(nested, "/etc/x.toml:3: unknown field `prot`, expected `port`");
    }

    #[test]
    fn a_wrong_value_and_a_missing_key_name_the_place() {
        assert!(error("timeout = \"soon\"").starts_with("/etc/x.toml:1: `soon` is no duration"));
        assert!(error("timeout = \"5s\"\n[section]\nport = 70000").starts_with("/etc/x.toml:3: "));
        assert!(error("").contains("missing field `timeout`"));
        assert!(error("timeout = ").starts_with("/etc/x.toml:1: "));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load::<Example>(Path::new("/nowhere/x.toml")).unwrap_err();
        assert_eq!(error.to_string(), "/nowhere/x.toml: cannot be read");
    }
}
