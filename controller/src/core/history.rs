//! The last commits, as changes of slices: what a watch resumes from. In memory only; after a restart it begins anew.

use std::{collections::VecDeque, sync::Arc};

use trunkline_proto::Name;

use crate::model::{SharedMap, Slice};

/// What a commit did to a slice: its new state, or nothing when it is gone.
pub type SliceChange = (Name, Option<Arc<Slice>>);

/// A commit that touched slices: its revision, and what it did.
pub type Commit = (u64, Arc<Vec<SliceChange>>);

/// A bounded list of commits.
#[derive(Debug)]
pub(super) struct History {
    keep: usize,
    /// Everything after this revision is here.
    floor: u64,
    /// The last commit, whether it touched a slice or not.
    newest: u64,
    commits: VecDeque<Commit>,
}

/// The revision is older than what is kept, or was never reached: list again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Oldest revision that a watch can resume from.
    pub oldest: u64,
}

impl History {
    pub(super) fn new(revision: u64, keep: usize) -> Self {
        Self {
            keep: keep.max(1),
            floor: revision,
            newest: revision,
            commits: VecDeque::new(),
        }
    }

    /// A commit happened. One that touched no slice takes no room.
    pub(super) fn push(&mut self, revision: u64, changes: Vec<SliceChange>) {
        self.newest = revision;
        if !changes.is_empty() {
            self.commits.push_back((revision, Arc::new(changes)));
        }
        while self.commits.len() > self.keep {
            if let Some((gone, _)) = self.commits.pop_front() {
                self.floor = gone;
            }
        }
    }

    /// Commits after `revision`, oldest first, at most `most`.
    pub(super) fn after(&self, revision: u64, most: usize) -> Result<Vec<Commit>, Compacted> {
        if revision < self.floor || revision > self.newest {
            return Err(Compacted { oldest: self.floor });
        }
        let start = self.commits.partition_point(|(at, _)| *at <= revision);
        Ok(self.commits.iter().skip(start).take(most).cloned().collect())
    }
}

/// How `new` differs from `old`: slices that are gone, then those that are another.
pub(super) fn changes(old: &SharedMap<Name, Arc<Slice>>, new: &SharedMap<Name, Arc<Slice>>) -> Vec<SliceChange> {
    let gone = old.differences(new).filter(|(_, _, is)| is.is_none());
    let gone = gone.map(|(name, _, _)| (name.clone(), None));
    let put = old.differences(new).filter_map(|(name, was, is)| {
        let is = is.filter(|is| !was.is_some_and(|was| Arc::ptr_eq(was, is)))?;
        Some((name.clone(), Some(is.clone())))
    });
    gone.chain(put).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_resumes_within_what_is_kept_and_nowhere_else() {
        let mut history = History::new(10, 3);
        for revision in 11..=15 {
            history.push(revision, vec![("a".parse().unwrap(), None)]);
        }
        history.push(16, Vec::new());
        let revisions = |after| {
            history
                .after(after, 10)
                .map(|found| found.iter().map(|(r, _)| *r).collect::<Vec<_>>())
        };
        assert_eq!(revisions(12), Ok(vec![13, 14, 15]));
        assert_eq!(revisions(14), Ok(vec![15]));
        assert_eq!(revisions(15), Ok(vec![]));
        assert_eq!(revisions(16), Ok(vec![]), "a commit that touched no slice");
        assert_eq!(revisions(11), Err(Compacted { oldest: 12 }));
        assert_eq!(revisions(17), Err(Compacted { oldest: 12 }), "another term's revision");
    }
}
