//! What is waited for. Pure: a status goes in, a verdict comes out.

use trunkline_proto::{
    resource::State,
    wire::{GetStatusResponse, SliceStatus},
};

use super::emptied::Emptied;

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Goal {
    /// Slices that it is about; none for all.
    pub(crate) slices: Vec<String>,
    /// What is to become of them.
    pub(crate) until: Until,
    /// (term, generation) before which a status says nothing about it yet.
    pub(crate) after: (u64, u64),
    /// A node that is to hold nothing any more. Then it is about the named slices only, be it none, and those of them that are deployed.
    pub(crate) emptied: Option<Emptied>,
}

/// What is to become of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Deployed and true on every host.
    Ready,
    /// On no host any more.
    Gone,
}

/// What a status means for a goal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is so.
    Done,
    /// It may become so.
    NotYet,
    /// It cannot become so by waiting; why, and what to do.
    Never(String),
}

impl Verdict {
    /// `None` to go on waiting.
    pub(crate) fn finished(self) -> Option<Result<(), String>> {
        match self {
            Self::Done => Some(Ok(())),
            Self::NotYet => None,
            Self::Never(why) => Some(Err(why)),
        }
    }
}

/// How far a slice is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) slice: String,
    pub(crate) ready: u32,
    /// 0 where nothing is counted.
    pub(crate) of: u32,
    /// State and worst reason.
    pub(crate) words: String,
    pub(crate) done: bool,
}

impl Goal {
    /// How it would be said: `ready`.
    pub(crate) fn wish(&self) -> &'static str {
        match self.until {
            Until::Ready => "ready",
            Until::Gone => "gone from every host",
        }
    }

    /// Whether it is so.
    pub(crate) fn judge(&self, status: &GetStatusResponse) -> Verdict {
        if (status.term, status.generation) < self.after {
            return Verdict::NotYet;
        }
        let find = |name: &String| status.slices.iter().find(|s| s.name == *name);
        if let Some(emptied) = &self.emptied {
            let slices = self.slices.iter().map(|name| self.one(name, find(name)));
            return worst(slices.chain([emptied.judge(status)]));
        }
        if self.slices.is_empty() {
            return worst(status.slices.iter().map(|slice| self.one(&slice.name, Some(slice))));
        }
        worst(self.slices.iter().map(|name| self.one(name, find(name))))
    }

    fn one(&self, name: &str, slice: Option<&SliceStatus>) -> Verdict {
        let deployed = slice.is_some_and(|s| s.deployed_number != 0);
        match self.until {
            Until::Gone if !slice.is_some_and(on_hosts) => Verdict::Done,
            Until::Gone => Verdict::NotYet,
            Until::Ready if deployed && slice.is_some_and(is_ready) => Verdict::Done,
            Until::Ready if deployed => Verdict::NotYet,
            // Of all slices some may be going away, and that is settled when they are gone. So it is with those that a node is emptied
            // of: a draft that moved is on no host.
            Until::Ready if self.slices.is_empty() || self.emptied.is_some() => match slice {
                Some(slice) if on_hosts(slice) => Verdict::NotYet,
                _ => Verdict::Done,
            },
            Until::Ready => Verdict::Never(format!(
                "{name} is not deployed; do it with `trunkctl slice deploy {name}`"
            )),
        }
    }

    /// One line per slice that it is about.
    pub(crate) fn progress(&self, status: &GetStatusResponse) -> Vec<Progress> {
        let behind = (status.term, status.generation) < self.after;
        let about = status.slices.iter().filter(|s| self.is_about(s));
        let progress = |slice: &SliceStatus| Progress {
            slice: slice.name.clone(),
            ready: slice.resources_ready,
            of: slice.resources,
            words: if behind {
                "waiting for the controller".to_owned()
            } else {
                words(slice)
            },
            done: !behind && self.one(&slice.name, Some(slice)) == Verdict::Done,
        };
        let node = self
            .emptied
            .iter()
            .map(|emptied| emptied.progress((!behind).then_some(status)));
        about.map(progress).chain(node).collect()
    }

    fn is_about(&self, slice: &SliceStatus) -> bool {
        (self.slices.is_empty() && self.emptied.is_none()) || self.slices.contains(&slice.name)
    }

    /// What is not so yet, and why: a line each.
    pub(crate) fn missing(&self, status: &GetStatusResponse) -> Vec<String> {
        const MOST: usize = 20;
        let mut lines = Vec::new();
        for slice in &status.slices {
            if !self.is_about(slice) || self.one(&slice.name, Some(slice)) == Verdict::Done {
                continue;
            }
            let links = slice.links.iter().map(|l| ("link", &l.name, l.state, &l.reason));
            let vms = slice.vms.iter().map(|v| ("VM", &v.name, v.state, &v.reason));
            let parts = links
                .chain(vms)
                .filter(|(_, _, state, _)| State::try_from(*state) != Ok(State::Ready));
            let before = lines.len();
            lines.extend(parts.map(|(kind, name, state, reason)| {
                format!("{}: {kind} {name} is {}", slice.name, state_words(state, reason))
            }));
            if lines.len() == before {
                lines.push(format!(
                    "{}: {}/{} ready, {}",
                    slice.name,
                    slice.resources_ready,
                    slice.resources,
                    words(slice)
                ));
            }
        }
        let node = self.emptied.iter().filter(|e| e.judge(status) != Verdict::Done);
        lines.extend(node.map(|emptied| format!("{}: {}", emptied.node, emptied.words(status))));
        if lines.len() > MOST {
            let more = lines.len() - MOST;
            lines.truncate(MOST);
            lines.push(format!("and {more} more; see `trunkctl status`"));
        }
        lines
    }
}

fn worst(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let mut all = Verdict::Done;
    for verdict in verdicts {
        match verdict {
            Verdict::Never(_) => return verdict,
            Verdict::NotYet => all = Verdict::NotYet,
            Verdict::Done => {}
        }
    }
    all
}

fn is_ready(slice: &SliceStatus) -> bool {
    State::try_from(slice.state) == Ok(State::Ready) && !slice.removing
}

/// True while any host holds something of it, or is to.
fn on_hosts(slice: &SliceStatus) -> bool {
    slice.deployed_number != 0 || slice.removing
}

fn words(slice: &SliceStatus) -> String {
    match slice.removing {
        true if slice.reason.is_empty() => "removing".to_owned(),
        true => format!("removing: {}", slice.reason),
        false => state_words(slice.state, &slice.reason),
    }
}

fn state_words(state: i32, reason: &str) -> String {
    let state = State::try_from(state).map_or_else(|_| "not deployed".to_owned(), |s| s.to_string());
    if reason.is_empty() || reason == state {
        state
    } else {
        format!("{state}: {reason}")
    }
}

#[cfg(test)]
mod tests {
    use trunkline_proto::wire::{self, LinkStatus};

    use super::*;

    fn slice(name: &str, state: wire::State, number: u32, removing: bool) -> SliceStatus {
        SliceStatus {
            name: name.to_owned(),
            state: state.into(),
            deployed_number: number,
            removing,
            resources: 4,
            resources_ready: 2,
            ..SliceStatus::default()
        }
    }

    fn status(generation: u64, slices: Vec<SliceStatus>) -> GetStatusResponse {
        GetStatusResponse {
            term: 1,
            generation,
            slices,
            ..GetStatusResponse::default()
        }
    }

    fn goal(until: Until, slices: &[&str]) -> Goal {
        Goal {
            slices: slices.iter().map(|s| (*s).to_owned()).collect(),
            until,
            after: (1, 5),
            emptied: None,
        }
    }

    #[test]
    fn a_status_from_before_the_change_says_nothing() {
        let ready = vec![slice("a", wire::State::Ready, 1, false)];
        assert_eq!(
            goal(Until::Ready, &["a"]).judge(&status(4, ready.clone())),
            Verdict::NotYet
        );
        assert_eq!(
            goal(Until::Ready, &["a"]).judge(&status(5, ready.clone())),
            Verdict::Done
        );
        let restored = GetStatusResponse {
            term: 2,
            ..status(1, ready)
        };
        assert_eq!(goal(Until::Ready, &["a"]).judge(&restored), Verdict::Done);
        assert_eq!(goal(Until::Gone, &["a"]).judge(&status(4, vec![])), Verdict::NotYet);
    }

    #[test]
    fn ready_means_every_slice_deployed_and_ready() {
        let both = |state| vec![slice("a", wire::State::Ready, 1, false), slice("b", state, 1, false)];
        let goal = goal(Until::Ready, &["a", "b"]);
        assert_eq!(goal.judge(&status(5, both(wire::State::Ready))), Verdict::Done);
        for state in [
            wire::State::Pending,
            wire::State::Degraded,
            wire::State::Failed,
            wire::State::Unknown,
        ] {
            assert_eq!(goal.judge(&status(5, both(state))), Verdict::NotYet, "{state:?}");
        }
        let undeployed = vec![
            slice("a", wire::State::Ready, 1, false),
            slice("b", wire::State::Ready, 0, false),
        ];
        assert!(matches!(goal.judge(&status(5, undeployed)), Verdict::Never(_)));
        assert!(matches!(goal.judge(&status(5, vec![])), Verdict::Never(_)));
    }

    #[test]
    fn gone_means_that_no_host_holds_anything() {
        let goal = goal(Until::Gone, &["a"]);
        assert_eq!(
            goal.judge(&status(5, vec![slice("a", wire::State::Pending, 0, true)])),
            Verdict::NotYet
        );
        assert_eq!(
            goal.judge(&status(5, vec![slice("a", wire::State::Ready, 0, false)])),
            Verdict::Done
        );
        assert_eq!(goal.judge(&status(5, vec![])), Verdict::Done);
    }

    #[test]
    fn of_all_slices_drafts_are_not_waited_for_and_leaving_ones_are() {
        let all = goal(Until::Ready, &[]);
        assert_eq!(all.judge(&status(5, vec![])), Verdict::Done);
        assert_eq!(
            all.judge(&status(5, vec![slice("a", wire::State::Ready, 0, false)])),
            Verdict::Done
        );
        assert_eq!(
            all.judge(&status(5, vec![slice("a", wire::State::Pending, 0, true)])),
            Verdict::NotYet
        );
    }

    #[test]
    fn what_is_missing_is_named_with_its_reason() {
        let mut a = slice("a", wire::State::Failed, 1, false);
        a.links = vec![
            LinkStatus {
                name: "good".to_owned(),
                state: wire::State::Ready.into(),
                ..LinkStatus::default()
            },
            LinkStatus {
                name: "back".to_owned(),
                state: wire::State::Failed.into(),
                reason: "w1: no such port".to_owned(),
                ..LinkStatus::default()
            },
        ];
        let b = slice("b", wire::State::Pending, 1, false);
        assert_eq!(
            goal(Until::Ready, &["a", "b"]).missing(&status(5, vec![a, b])),
            ["a: link back is failed: w1: no such port", "b: 2/4 ready, pending"]
        );
    }
}
