//! Counts that threads add to without meeting.
//!
//! # How it works
//! Each thread has a stripe of its own, where to count is a load and a store. Threads beyond the stripes share some
//! more, where it is an atomic add. A sum over all is what was counted; to count anew is to note the sum. Stripes are
//! made when the first thread of theirs counts, so what nobody uses takes next to nothing, however many threads
//! could. On the GIL build there is one stripe, in place.
//!
//! # Invariants
//! - `one-writer`: a stripe below [`ALONE`] is written by the one thread that has that number, and the next to
//!   have it sees what was written.
//!
//! # Orderings
//! All are Relaxed: a count orders nothing. Whoever knows that the calls it wants counted have ended was told so
//! by what ended them, a join or a lock, and that makes the sum exact.

use crate::sync::{AtomicU64, Ordering::Relaxed};
use stripes::Stripes;

/// `N` counts.
pub(crate) struct StripedCounter<const N: usize> {
    stripes: Stripes<N>,
    /// The sums at the last reset.
    base: [AtomicU64; N],
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

impl<const N: usize> StripedCounter<N> {
    pub fn new() -> Self {
        StripedCounter { stripes: Stripes::new(), base: zeros() }
    }

    #[inline]
    pub fn add(&self, which: usize) {
        self.stripes.add([(which, 1)]);
    }

    /// Adds to several counts, each by so many.
    #[inline]
    pub fn add_all<const M: usize>(&self, sums: [(usize, u64); M]) {
        self.stripes.add(sums);
    }

    fn sum(&self, which: usize) -> u64 {
        let mut sum = 0_u64;
        self.stripes.each(|counts| sum = sum.wrapping_add(counts[which].load(Relaxed)));
        sum
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

#[cfg(moka_gil)]
mod stripes {
    use crate::sync::{AtomicU64, Ordering::Relaxed};

    /// The one stripe of whoever holds the GIL.
    pub(super) struct Stripes<const N: usize>([AtomicU64; N]);

    impl<const N: usize> Stripes<N> {
        pub fn new() -> Self {
            Stripes(super::zeros())
        }

        #[inline]
        pub fn add<const M: usize>(&self, sums: [(usize, u64); M]) {
            for (which, many) in sums {
                self.0[which].fetch_add(many, Relaxed);
            }
        }

        pub fn each(&self, mut visit: impl FnMut(&[AtomicU64; N])) {
            visit(&self.0);
        }
    }
}

#[cfg(not(moka_gil))]
mod stripes {
    use std::sync::OnceLock;

    use crate::sync::{ALONE, AtomicU64, Ordering::Relaxed, Padded, shared_stripes, thread_slot};

    type Segment<const N: usize> = OnceLock<Box<[Padded<[AtomicU64; N]>]>>;

    /// Of 1, 1, 2, 4, 8 stripes and so on, by the length of their numbers in bits: few threads need few. The last is for
    /// the threads that share.
    const SEGMENTS: usize = ALONE.ilog2() as usize + 2;
    const SHARED: usize = SEGMENTS - 1;

    pub(super) struct Stripes<const N: usize>([Segment<N>; SEGMENTS]);

    impl<const N: usize> Stripes<N> {
        pub fn new() -> Self {
            Stripes([const { OnceLock::new() }; SEGMENTS])
        }

        #[inline]
        pub fn add<const M: usize>(&self, sums: [(usize, u64); M]) {
            let thread_slot = thread_slot();
            let segment = (usize::BITS - thread_slot.leading_zeros()) as usize;
            if segment < SHARED
                && let Some(stripes) = self.0[segment].get()
            {
                let first = (1 << segment) >> 1;
                let counts = &stripes[thread_slot - first].0;
                for (which, many) in sums {
                    // `one-writer`
                    counts[which].store(counts[which].load(Relaxed).wrapping_add(many), Relaxed);
                }
            } else {
                self.add_slow(segment, thread_slot, &sums);
            }
        }

        #[cold]
        fn add_slow(&self, segment: usize, thread_slot: usize, sums: &[(usize, u64)]) {
            let segment = segment.min(SHARED);
            let stripes = self.0[segment].get_or_init(|| {
                let len = if segment == SHARED { shared_stripes() } else { ((1 << segment) >> 1).max(1) };
                (0..len).map(|_| Padded(super::zeros())).collect()
            });
            // Numbers of a segment begin at a multiple of its length. Shared ones may fall anywhere.
            let counts = &stripes[thread_slot % stripes.len()].0;
            for &(which, many) in sums {
                counts[which].fetch_add(many, Relaxed);
            }
        }

        pub fn each(&self, mut visit: impl FnMut(&[AtomicU64; N])) {
            self.0.iter().filter_map(OnceLock::get).flatten().for_each(|thread_slot| visit(&thread_slot.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(not(moka_gil))]
    use crate::sync::{lone_stripes, shared_stripes};

    #[test]
    fn counts_are_apart_and_begin_anew_after_a_reset() {
        let tally = StripedCounter::<2>::new();
        (0..5).for_each(|_| tally.add(0));
        tally.add(1);
        assert_eq!([tally.get(0), tally.get(1)], [5, 1]);
        tally.reset();
        assert_eq!([tally.get(0), tally.get(1)], [0, 0]);
        tally.add_all([(1, 7), (0, 2)]);
        assert_eq!([tally.get(0), tally.get(1)], [2, 7]);
    }

    #[test]
    #[cfg(not(moka_gil))]
    fn stripes_are_made_for_those_who_count() {
        assert!(size_of::<StripedCounter<9>>() <= 512, "whatever the number of cores");
        let made = |tally: &StripedCounter<9>| {
            let mut made = 0;
            tally.stripes.each(|_| made += 1);
            made
        };
        let tally = StripedCounter::<9>::new();
        assert_eq!(made(&tally), 0);
        // The stripes of a segment are made together.
        let most = (crate::sync::thread_slot() + 1).next_power_of_two().max(shared_stripes());
        for which in 0..9 {
            tally.add(which);
            assert!((1..=most).contains(&made(&tally)));
        }
    }

    #[test]
    #[cfg(not(moka_gil))]
    fn nothing_is_lost_between_more_threads_than_stripes_and_those_that_follow_them() {
        use std::sync::Barrier;
        use std::thread;

        const TIMES: u64 = 2_000;
        let tally = StripedCounter::<1>::new();
        let threads = lone_stripes() + 2 * shared_stripes() + 1;
        for round in 1..=3 {
            let barrier = Barrier::new(threads);
            let work = || {
                barrier.wait();
                (0..TIMES).for_each(|_| tally.add(0));
                barrier.wait();
            };
            thread::scope(|scope| {
                let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                // Joined one by one: ThreadSanitizer does not see the scope's end.
                running.into_iter().for_each(|one| one.join().expect("no panic"));
            });
            assert_eq!(tally.get(0), round * threads as u64 * TIMES);
        }
    }
}
