//! Counts that threads add to without meeting.
//!
//! # How it works
//! Each thread has a stripe of its own, where to count is a load and a store. Threads beyond the stripes share some
//! more, where it is an atomic add. A sum over all is what was counted; to count anew is to note the sum.
//!
//! # Invariants
//! - `one-writer`: a stripe below [`ALONE`] is written by the one thread that has that number, and the next to
//!   have it sees what was written.
//!
//! # Orderings
//! All are Relaxed: a count orders nothing. Whoever knows that the calls it wants counted have ended was told so
//! by what ended them, a join or a lock, and that makes the sum exact.

use crate::sync::{ALONE, AtomicU64, Ordering::Relaxed, Padded, lone_stripes, shared_stripes, stripe};

/// `N` counts.
pub(crate) struct Tally<const N: usize> {
    stripes: Box<[Padded<[AtomicU64; N]>]>,
    /// The sums at the last reset.
    base: [AtomicU64; N],
}

impl<const N: usize> Tally<N> {
    pub fn new() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        let stripes = (0..lone_stripes() + shared_stripes()).map(|_| Padded(zeros())).collect();
        Tally { stripes, base: zeros() }
    }

    #[inline]
    pub fn add(&self, which: usize) {
        let stripe = stripe();
        if stripe < ALONE {
            let count = &self.stripes[stripe].0[which];
            // `one-writer`
            count.store(count.load(Relaxed) + 1, Relaxed);
        } else {
            self.add_shared(stripe, which);
        }
    }

    #[cold]
    fn add_shared(&self, stripe: usize, which: usize) {
        let shared = &self.stripes[lone_stripes()..];
        shared[stripe % shared.len()].0[which].fetch_add(1, Relaxed);
    }

    fn sum(&self, which: usize) -> u64 {
        self.stripes.iter().fold(0, |sum, stripe| sum + stripe.0[which].load(Relaxed))
    }

    pub fn get(&self, which: usize) -> u64 {
        let base = self.base[which].load(Relaxed);
        // A base of another thread may know of more than is seen here.
        self.sum(which).saturating_sub(base)
    }

    pub fn reset(&self) {
        (0..N).for_each(|which| self.base[which].store(self.sum(which), Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_apart_and_begin_anew_after_a_reset() {
        let tally = Tally::<2>::new();
        (0..5).for_each(|_| tally.add(0));
        tally.add(1);
        assert_eq!([tally.get(0), tally.get(1)], [5, 1]);
        tally.reset();
        assert_eq!([tally.get(0), tally.get(1)], [0, 0]);
        tally.add(1);
        assert_eq!([tally.get(0), tally.get(1)], [0, 1]);
    }

    #[test]
    #[cfg(not(moka_gil))]
    fn nothing_is_lost_between_more_threads_than_stripes_and_those_that_follow_them() {
        use std::sync::Barrier;
        use std::thread;

        const TIMES: u64 = 2_000;
        let tally = Tally::<1>::new();
        let threads = lone_stripes() + 2 * shared_stripes() + 1;
        for round in 1..=3 {
            let barrier = Barrier::new(threads);
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        barrier.wait();
                        (0..TIMES).for_each(|_| tally.add(0));
                        barrier.wait();
                    });
                }
            });
            assert_eq!(tally.get(0), round * threads as u64 * TIMES);
        }
    }
}
