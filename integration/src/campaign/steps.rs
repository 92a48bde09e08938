//! What a campaign is made of. Every step is one line of JSON, and so can be written down, replayed and left out.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::drift::Drift;
use super::wish::{Wish, WishedLink, WishedVm};
use crate::LabError;
use crate::lab::Fault;

/// One thing that is done. Faults begin `after_ms` from their turn and stand beside what comes next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum Step {
    /// Makes a slice's draft what is wished, and deploys it where asked.
    Apply { slice: Wish, deploy: bool, twice: bool },
    /// Deploys a draft.
    Deploy { slice: String, twice: bool },
    /// Takes a slice off every host.
    Undeploy { slice: String, twice: bool },
    /// Deploys an earlier revision.
    Rollback { slice: String, number: u32, twice: bool },
    /// Deletes a slice.
    Delete { slice: String, twice: bool },
    /// Puts one more VM into a draft.
    AddVm { slice: String, vm: WishedVm, twice: bool },
    /// Takes a VM out of a draft.
    RemoveVm { slice: String, vm: String, twice: bool },
    /// Puts one more link into a draft.
    AddLink {
        slice: String,
        link: WishedLink,
        twice: bool,
    },
    /// Takes a link out of a draft.
    RemoveLink { slice: String, link: String, twice: bool },
    /// Moves a VM to another worker, in the draft.
    Move {
        slice: String,
        vm: String,
        worker: String,
        twice: bool,
    },
    /// Moves every VM away from a worker, which takes none from now on.
    Drain { worker: String, onto: String, twice: bool },
    /// A worker takes VMs again.
    Uncordon { worker: String, twice: bool },
    /// A worker's agent dies, and the operator vouches that the worker is dead. It comes back in the quiet period.
    Gone { worker: String, twice: bool },
    /// Somebody puts the controller's export away.
    Export,
    /// The controller's state is lost, and the export that was put away comes back. Without one nothing happens.
    Restore,
    /// Kills programs, all at once, and starts them again.
    Kill {
        targets: Vec<Target>,
        after_ms: u64,
        down_ms: u64,
    },
    /// A program dies where it reaches a named point, when it does so in this time.
    FailPoint {
        host: String,
        point: String,
        after_ms: u64,
        for_ms: u64,
    },
    /// A program stands still for a while.
    Freeze { target: Target, after_ms: u64, for_ms: u64 },
    /// A node reads and writes slowly for a while: it stands still for most of the time.
    Slow { host: String, after_ms: u64, for_ms: u64 },
    /// The time of day of a host jumps: from now on it is so many days ahead.
    Clock { host: String, days: i8, after_ms: u64 },
    /// The switch's whole database is lost.
    Wipe { host: String, after_ms: u64 },
    /// A node loses its power and starts anew.
    Reboot { host: String, after_ms: u64, down_ms: u64 },
    /// Something between the hosts is wrong for a while.
    Network { fault: Fault, after_ms: u64, for_ms: u64 },
    /// The disk under a daemon's state is full for a while.
    Full { host: String, after_ms: u64, for_ms: u64 },
    /// A client that watches and never reads.
    Deaf { after_ms: u64, for_ms: u64 },
    /// Somebody changes a host by hand.
    Drift {
        host: String,
        what: Drift,
        pick: usize,
        after_ms: u64,
    },
    /// The same while nothing else happens: it must be told of, and put right.
    ByHand { host: String, what: Drift, pick: usize },
    /// Everything is healed, everything must be as the slices say.
    Quiet,
}

/// A program on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Target {
    /// The host.
    pub(super) host: String,
    /// `ovs-vswitchd`, `trunkline-agent`, `dnsmasq`, ...
    pub(super) program: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Step {
    /// True for what waits until everything is right again.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self, Self::Quiet | Self::ByHand { .. })
    }

    /// True for what an operator asks for, one after the other.
    pub(super) fn is_asked(&self) -> bool {
        use Step::*;
        matches!(
            self,
            Apply { .. }
                | Deploy { .. }
                | Undeploy { .. }
                | Rollback { .. }
                | Delete { .. }
                | AddVm { .. }
                | RemoveVm { .. }
                | AddLink { .. }
                | RemoveLink { .. }
                | Move { .. }
                | Drain { .. }
                | Uncordon { .. }
                | Gone { .. }
                | Export
                | Restore
        )
    }

    /// Reads one line.
    pub(super) fn parse(line: &str) -> Result<Self, LabError> {
        serde_json::from_str(line).map_err(|error| LabError::Other(format!("{line:?} is no step: {error}")))
    }

    /// Reads a list, one step a line; empty lines and comments are left out.
    pub(super) fn parse_all(text: &str) -> Result<Vec<Self>, LabError> {
        let lines = text.lines().map(str::trim);
        lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(Self::parse)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::random::Dice;

    #[test]
    fn a_step_is_one_line_and_comes_back_from_it() {
        let mut dice = Dice::new(7, 2);
        for _ in 0..40 {
            for step in dice.round() {
                let line = step.to_string();
                assert!(!line.contains('\n'), "{line}");
                assert_eq!(Step::parse(&line).unwrap(), step);
            }
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_steps() {
        let rounds = |seed| {
            let mut dice = Dice::new(seed, 2);
            (0..5).map(|_| dice.round()).collect::<Vec<_>>()
        };
        assert_eq!(rounds(3), rounds(3));
        assert_ne!(rounds(3), rounds(4));
    }
}
