//! What a node saw of a resource.

use std::fmt;

use super::Key;
use crate::{Hash, Invalid, wire};

/// How far a resource, link, VM or slice is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Told to the node, not yet reported.
    Pending,
    /// Read back from the system and right.
    Ready,
    /// Works in part.
    Degraded,
    /// Does not work; the node tries again.
    Failed,
    /// Not known: the node has not reported since it was last seen.
    Unknown,
}

impl State {
    /// The state of a whole: that of its worst part, in the order failed, unknown, degraded, pending, ready. A whole without
    /// parts is ready.
    pub fn worst(parts: impl IntoIterator<Item = Self>) -> Self {
        parts.into_iter().max_by_key(|s| s.badness()).unwrap_or(Self::Ready)
    }

    /// 0 for ready, higher for worse: the order of aggregation.
    pub fn badness(self) -> u8 {
        match self {
            Self::Ready => 0,
            Self::Pending => 1,
            Self::Degraded => 2,
            Self::Unknown => 3,
            Self::Failed => 4,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        })
    }
}

impl From<State> for wire::State {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Ready => Self::Ready,
            State::Degraded => Self::Degraded,
            State::Failed => Self::Failed,
            State::Unknown => Self::Unknown,
        }
    }
}

impl TryFrom<i32> for State {
    type Error = Invalid;

    fn try_from(number: i32) -> Result<Self, Invalid> {
        match wire::State::try_from(number) {
            Ok(wire::State::Pending) => Ok(Self::Pending),
            Ok(wire::State::Ready) => Ok(Self::Ready),
            Ok(wire::State::Degraded) => Ok(Self::Degraded),
            Ok(wire::State::Failed) => Ok(Self::Failed),
            Ok(wire::State::Unknown) => Ok(Self::Unknown),
            Ok(wire::State::Unspecified) | Err(_) => Err(Invalid::new(
                number.to_string(),
                "a state",
                "send 1 (pending) to 5 (unknown)",
            )),
        }
    }
}

/// What was read back, per kind. These are plain wire messages: nobody decides by them, people look at them.
pub type Facts = wire::observation::Facts;

/// What a node saw of one version of one resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Which resource.
    pub key: Key,
    /// Which version of it.
    pub hash: Hash,
    /// How far it is true.
    pub state: State,
    /// Empty when ready; otherwise words a person can act on.
    pub reason: String,
    /// What was read back, when anything was.
    pub facts: Option<Facts>,
}

impl Observation {
    /// Longest reason that is taken from a node, in bytes.
    pub const MAX_REASON: usize = 1024;
}

impl TryFrom<wire::Observation> for Observation {
    type Error = Invalid;

    fn try_from(observation: wire::Observation) -> Result<Self, Invalid> {
        let wire::Observation {
            key,
            hash,
            state,
            reason,
            facts,
        } = observation;
        if reason.len() > Self::MAX_REASON {
            return Err(Invalid::new(&reason, "a reason", "send at most 1024 bytes"));
        }
        let key = key.ok_or_else(|| Invalid::new("", "a resource's key", "send kind and name"))?;
        Ok(Self {
            key: key.try_into()?,
            hash: Hash::try_from(&hash[..])?,
            state: state.try_into()?,
            reason,
            facts,
        })
    }
}

impl From<&Observation> for wire::Observation {
    fn from(observation: &Observation) -> Self {
        let Observation {
            key,
            hash,
            state,
            reason,
            facts,
        } = observation;
        Self {
            key: Some(key.into()),
            hash: hash.to_vec(),
            state: wire::State::from(*state).into(),
            reason: reason.clone(),
            facts: facts.clone(),
        }
    }
}
