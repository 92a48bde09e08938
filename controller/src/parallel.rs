//! The same work on many things, on all cores. Pure work only: what comes out is the same, and in the same order, on however many.

use std::{
    num::NonZeroUsize,
    panic::resume_unwind,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Starting threads costs as much as some hundred small objects.
const WORTH_IT: usize = 2_000;

/// How many threads run at once. Asked for once: the answer is made of the control groups' files, which takes longer than a small change.
static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, NonZeroUsize::get));

/// Maps every item. `weight` is about how many small objects are in all of them together: few are not worth a thread.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], weight: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if weight < WORTH_IT || items.len() < 2 || *CORES < 2 {
        return items.iter().map(work).collect();
    }
    let cores = (*CORES).min(items.len());
    // Small enough that no core waits long for the others.
    let piece = (items.len() / (cores * 8)).max(1);
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let from = next.fetch_add(piece, Ordering::Relaxed);
            let Some(rest) = items.get(from..).filter(|rest| !rest.is_empty()) else {
                return done;
            };
            let mapped: Vec<R> = rest.iter().take(piece).map(&work).collect();
            done.push((from, mapped));
        }
    };
    let mut all = thread::scope(|scope| {
        let others: Vec<_> = (1..cores).map(|_| scope.spawn(take)).collect();
        let mut all = take();
        for other in others {
            all.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        all
    });
    all.sort_unstable_by_key(|(from, _)| *from);
    all.into_iter().flat_map(|(_, mapped)| mapped).collect()
}

/// Both, at once when that is worth it; `weight` as in [`map`].
pub(crate) fn both<A, B: Send>(weight: usize, one: impl FnOnce() -> A, other: impl FnOnce() -> B + Send) -> (A, B) {
    if weight < WORTH_IT {
        return (one(), other());
    }
    thread::scope(|scope| {
        let other = scope.spawn(other);
        let one = one();
        (one, other.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_out_is_in_the_order_of_what_went_in() {
        for count in [0, 1, 7, 1000, 12_345] {
            let items: Vec<usize> = (0..count).collect();
            let doubled: Vec<usize> = items.iter().map(|item| item * 2).collect();
            assert_eq!(map(&items, usize::MAX, |item| item * 2), doubled);
            assert_eq!(map(&items, 0, |item| item * 2), doubled);
        }
    }

    #[test]
    #[should_panic(expected = "the third")]
    fn a_panic_comes_through() {
        let work = |item: &u32| assert_ne!(*item, 3, "the third");
        map(&[1, 2, 3, 4, 5], usize::MAX, work);
    }
}
