//! One step on the way.

use trunkline_proto::{
    Name,
    resource::State as Health,
    wire::{self, hop::Kind},
};

/// What a step does to a frame; worse is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// It lets it pass.
    Passes,
    /// Nobody has told.
    Unknown,
    /// Some frames do not pass, or it is not as it should be for those that do.
    Hinders,
    /// It will pass, but does not yet.
    Waits,
    /// None passes.
    Stops,
}

impl Effect {
    pub(super) fn is_broken(self) -> bool {
        match self {
            Self::Passes | Self::Unknown => false,
            Self::Hinders | Self::Waits | Self::Stops => true,
        }
    }
}

/// As it will be told.
#[derive(Debug, Clone)]
pub(super) struct Step {
    kind: Kind,
    node: String,
    what: String,
    state: Health,
    pub(super) effect: Effect,
    /// No frame comes there.
    pub(super) aside: bool,
    expected: String,
    seen: String,
    mend: String,
}

impl Step {
    /// Of which nothing is known yet. `node`: none for what is on no node.
    pub(super) fn new(kind: Kind, node: Option<&Name>, what: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            kind,
            node: node.map(ToString::to_string).unwrap_or_default(),
            what: what.into(),
            state: Health::Unknown,
            effect: Effect::Unknown,
            aside: false,
            expected: expected.into(),
            seen: String::new(),
            mend: String::new(),
        }
    }

    pub(super) fn passes(mut self, seen: impl Into<String>) -> Self {
        self.seen = seen.into();
        self.mend.clear();
        (self.state, self.effect) = (Health::Ready, Effect::Passes);
        self
    }

    /// Not known, and what would make it known; that may be nothing here.
    pub(super) fn unknown(self, seen: impl Into<String>, mend: impl Into<String>) -> Self {
        self.broken(Health::Unknown, Effect::Unknown, seen, mend)
    }

    pub(super) fn stops(self, seen: impl Into<String>, mend: impl Into<String>) -> Self {
        self.broken(Health::Failed, Effect::Stops, seen, mend)
    }

    pub(super) fn waits(self, seen: impl Into<String>, mend: impl Into<String>) -> Self {
        self.broken(Health::Pending, Effect::Waits, seen, mend)
    }

    pub(super) fn hinders(self, seen: impl Into<String>, mend: impl Into<String>) -> Self {
        self.broken(Health::Degraded, Effect::Hinders, seen, mend)
    }

    pub(super) fn broken(
        mut self,
        state: Health,
        effect: Effect,
        seen: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        (self.seen, self.mend) = (seen.into(), mend.into());
        (self.state, self.effect) = (state, effect);
        if is_left_alone(&self.seen) {
            return self.hindering();
        }
        self
    }

    /// It says what is to be done.
    pub(super) fn is_mendable(&self) -> bool {
        !self.mend.is_empty()
    }

    /// True when both tell of the same thing.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.kind, &self.node, &self.what) == (other.kind, &other.node, &other.what)
    }

    /// Beside the way: what is there stops no frame, but it is not as it should be without.
    pub(super) fn aside(mut self) -> Self {
        self.aside = true;
        self.hindering()
    }

    /// It does not stop every frame, whatever it says.
    pub(super) fn hindering(mut self) -> Self {
        if self.effect.is_broken() {
            self.effect = Effect::Hinders;
        }
        self
    }

    /// For a sentence: where, and what was seen.
    pub(super) fn found(&self) -> String {
        match (self.kind, self.node.as_str()) {
            (Kind::Joined | Kind::Probe, _) | (Kind::Node, "") => self.seen.clone(),
            (Kind::Node, _) => format!("{} {}", self.what, self.seen),
            (_, "") => format!("{}: {}", self.what, self.seen),
            (Kind::Lease, node) => format!("the lease of {} on {node}: {}", self.what, self.seen),
            (_, node) => format!("{} on {node}: {}", self.what, self.seen),
        }
    }
}

/// Of a bridge that is somebody else's a node changes nothing, so what passed there still does: but nobody looks after it.
fn is_left_alone(seen: &str) -> bool {
    seen.starts_with("the bridge ") && seen.contains("was not made by Trunkline")
}

impl From<Step> for wire::Hop {
    fn from(step: Step) -> Self {
        let Step {
            kind,
            node,
            what,
            state,
            effect: _,
            aside: _,
            expected,
            seen,
            mend,
        } = step;
        Self {
            kind: kind.into(),
            node,
            what,
            state: wire::State::from(state).into(),
            expected,
            seen,
            mend,
        }
    }
}
