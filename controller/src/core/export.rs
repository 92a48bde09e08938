//! What was committed since the last export.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::Core;
use crate::store::Batch;

/// The newest value of each row that was written; without one it was deleted.
pub type Unexported = BTreeMap<String, Option<Vec<u8>>>;

/// For an export that follows; nothing is kept before one is asked for.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Option<Unexported>>);

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Option<Unexported>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Unexported> {
        self.lock().replace(Unexported::default())
    }

    /// Brings a commit into force. Whoever takes what is kept meanwhile waits: with the new state it finds these rows.
    pub(super) fn bring(&self, batch: Batch, into_force: impl FnOnce()) {
        let Batch { puts, deletes } = batch;
        let mut kept = self.lock();
        into_force();
        if let Some(kept) = &mut *kept {
            kept.extend(puts.into_iter().map(|(key, value)| (key, Some(value))));
            kept.extend(deletes.into_iter().map(|key| (key, None)));
        }
    }
}

impl Core {
    /// What came into force since this was asked for last. `None` the first time: from then on it is kept.
    pub fn unexported(&self) -> Option<Unexported> {
        self.unexported.take()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc;

    use super::*;

    #[test]
    fn who_exports_the_state_of_a_commit_has_its_rows() {
        let kept = Kept::default();
        assert_eq!(kept.take(), None, "the first export is of everything");
        let batch = Batch {
            puts: vec![("slice/shop".to_owned(), b"{}".to_vec())],
            deletes: vec!["slice/blog".to_owned()],
        };
        let (in_force, asked) = mpsc::channel();
        std::thread::scope(|scope| {
            // Asks at the very moment when the state is there and its rows are not kept yet.
            let kept = &kept;
            let export = scope.spawn(move || {
                asked.recv().unwrap();
                kept.take().unwrap()
            });
            kept.bring(batch, || {
                in_force.send(()).unwrap();
                assert!(
                    kept.0.try_lock().is_err(),
                    "nobody takes what is kept before it is whole"
                );
            });
            let taken: Vec<(String, bool)> = export
                .join()
                .unwrap()
                .into_iter()
                .map(|(k, v)| (k, v.is_some()))
                .collect();
            assert_eq!(
                taken,
                [("slice/blog".to_owned(), false), ("slice/shop".to_owned(), true)]
            );
        });
        assert_eq!(kept.take(), Some(Unexported::new()), "once");
    }
}
