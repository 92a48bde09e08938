//! Points in time, as they are stored. Nothing here asks what time it is.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// How far ahead a node's clock may be: people set dates wrong by days, not by years.
const FUTURE: Duration = Duration::from_secs(30 * 86_400);

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// As milliseconds since the epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// That much earlier.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// False for what a node cannot have seen yet, however wrong its clock is.
    pub fn is_credible(self, now: Self) -> bool {
        self <= now.after(FUTURE)
    }

    /// That much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }
}

impl From<std::time::SystemTime> for Timestamp {
    fn from(time: std::time::SystemTime) -> Self {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A point in time on the wire that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time is out of range")]
pub struct OutOfRange;

impl TryFrom<prost_types::Timestamp> for Timestamp {
    type Error = OutOfRange;

    fn try_from(time: prost_types::Timestamp) -> Result<Self, OutOfRange> {
        if !(0..1_000_000_000).contains(&time.nanos) {
            return Err(OutOfRange);
        }
        let millis = time.seconds.checked_mul(1000).ok_or(OutOfRange)?;
        let millis = millis
            .checked_add(i64::from(time.nanos) / 1_000_000)
            .ok_or(OutOfRange)?;
        Ok(Self(millis))
    }
}

impl From<Timestamp> for prost_types::Timestamp {
    fn from(time: Timestamp) -> Self {
        let nanos = time.0.rem_euclid(1000) * 1_000_000;
        Self {
            seconds: time.0.div_euclid(1000),
            nanos: i32::try_from(nanos).unwrap_or(0),
        }
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339, to the second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0.div_euclid(1000)) {
            Ok(time) => time.fmt(f),
            Err(_) => write!(f, "{} ms after 1970", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_rfc_3339() {
        assert_eq!(
            Timestamp::from_millis(1_700_000_000_999).to_string(),
            "2023-11-14T22:13:20Z"
        );
        let wire = prost_types::Timestamp::from(Timestamp::from_millis(1500));
        assert_eq!((wire.seconds, wire.nanos), (1, 500_000_000));
    }
}
