//! Counters that threads add to without sharing a cache line.
//!
//! # How it works
//! Each thread has a stripe of its own, to which it adds with a load and a store. If there are more threads than
//! stripes, the others share a few more, to which they add atomically. The value of a counter is the sum over all
//! stripes. A reset stores the current sum, which is subtracted from then on.
//!
//! A stripe is allocated when its first thread counts, in blocks of 1, 1, 2, 4, 8 and so on. So an unused counter
//! takes next to no memory, however many threads there could be. On the GIL build there is one stripe, in place.
//!
//! # Invariants
//! - `one-writer`: a stripe below `MAX_OWNED_SLOTS` is written only by the thread that has that slot. The next
//!   thread to have the slot sees these writes.
//!
//! # Orderings
//! All are Relaxed: a counter orders nothing. If a sum must include the calls of other threads, the reader waits for
//! their end by a join or a lock. That orders the additions before the sum.

use crate::sync::{AtomicU64, Ordering::Relaxed};
use stripes::Stripes;

/// `N` counters.
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

    /// Adds 1 to a counter.
    #[inline]
    pub fn add(&self, which: usize) {
        self.stripes.add([(which, 1)]);
    }

    /// Adds to several counters: pairs of a counter and an amount.
    #[inline]
    pub fn add_all<const M: usize>(&self, amounts: [(usize, u64); M]) {
        self.stripes.add(amounts);
    }

    fn sum(&self, which: usize) -> u64 {
        let mut sum = 0_u64;
        self.stripes.for_each(|counts| sum = sum.wrapping_add(counts[which].load(Relaxed)));
        sum
    }

    pub fn get(&self, which: usize) -> u64 {
        let base = self.base[which].load(Relaxed);
        // A thread that resets may have seen more than this thread sees.
        self.sum(which).saturating_sub(base)
    }

    pub fn reset(&self) {
        (0..N).for_each(|which| self.base[which].store(self.sum(which), Relaxed));
    }
}

#[cfg(moka_gil)]
mod stripes {
    use crate::sync::{AtomicU64, Ordering::Relaxed};

    /// The one stripe of the thread that holds the GIL.
    pub(super) struct Stripes<const N: usize>([AtomicU64; N]);

    impl<const N: usize> Stripes<N> {
        pub fn new() -> Self {
            Stripes(super::zeros())
        }

        #[inline]
        pub fn add<const M: usize>(&self, amounts: [(usize, u64); M]) {
            for (which, amount) in amounts {
                self.0[which].fetch_add(amount, Relaxed);
            }
        }

        pub fn for_each(&self, mut visit: impl FnMut(&[AtomicU64; N])) {
            visit(&self.0);
        }
    }
}

#[cfg(not(moka_gil))]
mod stripes {
    use std::sync::OnceLock;

    use crate::sync::{AtomicU64, MAX_OWNED_SLOTS, Ordering::Relaxed, Padded, shared_slots, thread_slot};

    type Block<const N: usize> = OnceLock<Box<[Padded<[AtomicU64; N]>]>>;

    /// A block for each length of a thread's slot in bits, of 1, 1, 2, 4, 8 stripes and so on: few threads need few.
    /// The last block is for the threads that share.
    const BLOCKS: usize = MAX_OWNED_SLOTS.ilog2() as usize + 2;
    const SHARED_BLOCK: usize = BLOCKS - 1;

    pub(super) struct Stripes<const N: usize>([Block<N>; BLOCKS]);

    impl<const N: usize> Stripes<N> {
        pub fn new() -> Self {
            Stripes([const { OnceLock::new() }; BLOCKS])
        }

        #[inline]
        pub fn add<const M: usize>(&self, amounts: [(usize, u64); M]) {
            let thread_slot = thread_slot();
            let block = (usize::BITS - thread_slot.leading_zeros()) as usize;
            if block < SHARED_BLOCK
                && let Some(stripes) = self.0[block].get()
            {
                let first = (1 << block) >> 1;
                let counts = &stripes[thread_slot - first].0;
                for (which, amount) in amounts {
                    // Relaxed, and not a read-modify-write: `one-writer`.
                    counts[which].store(counts[which].load(Relaxed).wrapping_add(amount), Relaxed);
                }
            } else {
                self.add_slow(block, thread_slot, &amounts);
            }
        }

        #[cold]
        fn add_slow(&self, block: usize, thread_slot: usize, amounts: &[(usize, u64)]) {
            let block = block.min(SHARED_BLOCK);
            let stripes = self.0[block].get_or_init(|| {
                let len = if block == SHARED_BLOCK { shared_slots() } else { ((1 << block) >> 1).max(1) };
                (0..len).map(|_| Padded(super::zeros())).collect()
            });
            // The slots of a block begin at a multiple of its length. Threads that share may have any stripe.
            let counts = &stripes[thread_slot % stripes.len()].0;
            for &(which, amount) in amounts {
                counts[which].fetch_add(amount, Relaxed);
            }
        }

        pub fn for_each(&self, mut visit: impl FnMut(&[AtomicU64; N])) {
            self.0.iter().filter_map(OnceLock::get).flatten().for_each(|stripe| visit(&stripe.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(not(moka_gil))]
    use crate::sync::{owned_slots, shared_slots, sized_for_miri};

    #[test]
    fn counters_are_apart_and_begin_at_0_after_a_reset() {
        let counter = StripedCounter::<2>::new();
        (0..5).for_each(|_| counter.add(0));
        counter.add(1);
        assert_eq!([counter.get(0), counter.get(1)], [5, 1]);
        counter.reset();
        assert_eq!([counter.get(0), counter.get(1)], [0, 0]);
        counter.add_all([(1, 7), (0, 2)]);
        assert_eq!([counter.get(0), counter.get(1)], [2, 7]);
    }

    #[test]
    #[cfg(not(moka_gil))]
    fn stripes_are_allocated_for_the_threads_that_count() {
        assert!(size_of::<StripedCounter<9>>() <= 512, "whatever the number of cores");
        let allocated = |counter: &StripedCounter<9>| {
            let mut allocated = 0;
            counter.stripes.for_each(|_| allocated += 1);
            allocated
        };
        let counter = StripedCounter::<9>::new();
        assert_eq!(allocated(&counter), 0);
        // The stripes of a block are allocated together.
        let most = (crate::sync::thread_slot() + 1).next_power_of_two().max(shared_slots());
        for which in 0..9 {
            counter.add(which);
            assert!((1..=most).contains(&allocated(&counter)));
        }
    }

    #[test]
    #[cfg(not(moka_gil))]
    fn no_addition_is_lost_between_more_threads_than_stripes_and_later_threads() {
        use std::sync::Barrier;
        use std::thread;

        const TIMES: u64 = sized_for_miri(2_000, 20);
        let counter = StripedCounter::<1>::new();
        let threads = owned_slots() + 2 * shared_slots() + 1;
        for round in 1..=3 {
            let barrier = Barrier::new(threads);
            let work = || {
                barrier.wait();
                (0..TIMES).for_each(|_| counter.add(0));
                barrier.wait();
            };
            thread::scope(|scope| {
                let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                // Joined one by one: ThreadSanitizer does not see the end of the scope.
                running.into_iter().for_each(|one| one.join().expect("no panic"));
            });
            assert_eq!(counter.get(0), round * threads as u64 * TIMES);
        }
    }
}
