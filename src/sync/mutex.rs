//! The lock for threads that run in parallel: a mutex without poisoning, for critical sections of less than a
//! microsecond.

use super::{Mutex, MutexGuard, lock, sized, try_lock};

/// A contended lock spins for about 50 µs, with growing pauses between its tries. Then it parks.
///
/// A holder mostly unlocks within a few pauses, and within 50 µs even if an interrupt stops it. To park and to be woken
/// takes longer than that.
const TRIES: u32 = 30;
/// The number of pauses between two tries is at most 2 to this power.
const MAX_PAUSES_LOG2: u32 = 6;

pub(crate) struct Lock<T>(Mutex<T>);

pub(crate) type Locked<'a, T> = MutexGuard<'a, T>;

impl<T> Lock<T> {
    pub fn new(value: T) -> Self {
        Lock(Mutex::new(value))
    }

    pub fn lock(&self) -> Locked<'_, T> {
        // A model tries all orders of threads in any case.
        let can_spin = sized(true, false);
        if can_spin { self.try_lock().unwrap_or_else(|| self.lock_slow()) } else { lock(&self.0) }
    }

    #[cold]
    fn lock_slow(&self) -> Locked<'_, T> {
        for attempt in 0..TRIES {
            (0..1 << attempt.min(MAX_PAUSES_LOG2)).for_each(|_| std::hint::spin_loop());
            if let Some(locked) = self.try_lock() {
                return locked;
            }
        }
        lock(&self.0)
    }

    pub fn try_lock(&self) -> Option<Locked<'_, T>> {
        try_lock(&self.0)
    }
}

#[cfg(all(test, not(moka_loom)))]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::sync::{sized_for_miri, yield_now};

    #[test]
    fn a_lock_whose_holders_yield_has_one_holder_at_a_time() {
        const THREADS: u32 = 4;
        const TIMES: u32 = sized_for_miri(500, 20);
        let (count, start) = (Lock::new(0), Barrier::new(THREADS as usize));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..TIMES {
                        let mut locked = count.lock();
                        let seen = *locked;
                        // Sometimes for longer than the other threads spin before they park.
                        (0..seen % 64).for_each(|_| yield_now());
                        *locked = seen + 1;
                    }
                });
            }
        });
        assert_eq!(*count.lock(), THREADS * TIMES);
    }
}
