//! Changes that wait for their turn. Whoever comes when nobody works them off does that, for all who come meanwhile.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most that are taken at once: an answer waits for all that are committed with it.
const MOST: usize = 256;

/// First come, first served.
#[derive(Debug)]
pub(super) struct Queue<T>(Mutex<Waiting<T>>);

#[derive(Debug)]
struct Waiting<T> {
    jobs: Vec<T>,
    /// Somebody works them off, and will see what comes now.
    busy: bool,
    /// Whoever worked them off did not come to an end.
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self(Mutex::new(Waiting {
            jobs: Vec::new(),
            busy: false,
            closed: false,
        }))
    }
}

impl<T> Queue<T> {
    /// Adds a job. True: nobody works them off, so the caller has to.
    pub(super) fn join(&self, job: T) -> bool {
        let mut waiting = self.waiting();
        if waiting.closed {
            return false;
        }
        waiting.jobs.push(job);
        !std::mem::replace(&mut waiting.busy, true)
    }

    /// The next jobs, in the order in which they came. `None`: there are none, and the caller no longer has to work them off.
    pub(super) fn next(&self) -> Option<Vec<T>> {
        let mut waiting = self.waiting();
        let most = waiting.jobs.len().min(MOST);
        waiting.busy = most > 0;
        waiting.busy.then(|| waiting.jobs.drain(..most).collect())
    }

    /// True while there are jobs, which somebody has to work off. Otherwise the caller no longer has to.
    pub(super) fn goes_on(&self) -> bool {
        let mut waiting = self.waiting();
        waiting.busy = !waiting.jobs.is_empty();
        waiting.busy
    }

    /// Drops what waits and whatever comes.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.jobs.clear();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_works_off_what_all_the_others_bring() {
        let queue = Queue::default();
        assert!(queue.join(1), "nobody does it yet");
        assert!(!queue.join(2));
        assert_eq!(queue.next(), Some(vec![1, 2]));
        assert!(!queue.join(3), "whoever works them off looks again");
        assert_eq!(queue.next(), Some(vec![3]));
        assert_eq!(queue.next(), None);
        assert!(queue.join(4), "and is done once nothing is left");
    }

    #[test]
    fn who_stops_early_knows_whether_somebody_has_to_go_on() {
        let queue = Queue::default();
        assert!(queue.join(1));
        assert_eq!(queue.next(), Some(vec![1]));
        assert!(!queue.join(2));
        assert!(queue.goes_on(), "and nobody else begins");
        assert!(!queue.join(3));
        assert_eq!(queue.next(), Some(vec![2, 3]));
        assert!(!queue.goes_on());
        assert!(queue.join(4), "nothing was left, so who comes begins");
    }

    #[test]
    fn a_flood_is_taken_in_pieces_and_in_order() {
        let queue = Queue::default();
        for job in 0..=MOST {
            queue.join(job);
        }
        assert_eq!(queue.next().map(|jobs| jobs.len()), Some(MOST));
        assert_eq!(queue.next(), Some(vec![MOST]));
    }

    #[test]
    fn nothing_waits_in_a_closed_queue() {
        let queue = Queue::default();
        let job = std::sync::Arc::new(());
        queue.join(job.clone());
        queue.close();
        assert!(!queue.join(job.clone()));
        assert_eq!(std::sync::Arc::strong_count(&job), 1);
    }
}
