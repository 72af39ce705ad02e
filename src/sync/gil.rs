//! Atomics and locks for the GIL build, where one thread runs at a time.

use std::cell::{RefCell, RefMut};
use std::sync::atomic::Ordering::{self, Relaxed};

pub(crate) struct Padded<T>(pub T);

/// Returns whether other threads may run at the same time.
#[inline]
pub(crate) fn has_other_threads() -> bool {
    false
}

/// Returns a number that no other running thread has.
pub(crate) fn thread_mark() -> usize {
    1
}

/// A flag that the lock is taken. Only a bug can find it taken (`one-at-a-time`), so a second lock panics.
pub(crate) struct Lock<T>(RefCell<T>);

pub(crate) type Locked<'a, T> = RefMut<'a, T>;

// SAFETY: by `one-at-a-time` the GIL serializes every access to the cell.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    pub fn new(value: T) -> Self {
        Lock(RefCell::new(value))
    }

    pub fn lock(&self) -> Locked<'_, T> {
        self.0.borrow_mut()
    }

    pub fn try_lock(&self) -> Option<Locked<'_, T>> {
        self.0.try_borrow_mut().ok()
    }
}

macro_rules! atomic {
    ($name:ident, $std:ty, $word:ty $(, $of:ident)?) => {
        /// An atomic whose read-modify-write is a load and a store (`one-at-a-time`).
        pub(crate) struct $name $(<$of>)? ($std);

        #[allow(dead_code)]
        impl $(<$of>)? $name $(<$of>)? {
            pub const fn new(value: $word) -> Self {
                Self(<$std>::new(value))
            }

            pub fn load(&self, _: Ordering) -> $word {
                self.0.load(Relaxed)
            }

            pub fn store(&self, value: $word, _: Ordering) {
                self.0.store(value, Relaxed)
            }

            pub fn swap(&self, value: $word, _: Ordering) -> $word {
                let old = self.0.load(Relaxed);
                self.0.store(value, Relaxed);
                old
            }

            pub fn compare_exchange(
                &self,
                seen: $word,
                value: $word,
                _: Ordering,
                _: Ordering,
            ) -> Result<$word, $word> {
                let old = self.0.load(Relaxed);
                if old != seen {
                    return Err(old);
                }
                self.0.store(value, Relaxed);
                Ok(old)
            }
        }
    };
}

macro_rules! atomic_integer {
    ($name:ident, $word:ty) => {
        atomic!($name, std::sync::atomic::$name, $word);

        impl Default for $name {
            fn default() -> Self {
                Self::new(0)
            }
        }

        #[allow(dead_code)]
        impl $name {
            pub fn fetch_add(&self, by: $word, _: Ordering) -> $word {
                let old = self.0.load(Relaxed);
                self.0.store(old.wrapping_add(by), Relaxed);
                old
            }

            pub fn fetch_sub(&self, by: $word, order: Ordering) -> $word {
                self.fetch_add(by.wrapping_neg(), order)
            }

            pub fn fetch_min(&self, other: $word, order: Ordering) -> $word {
                let old = self.0.load(Relaxed);
                self.store(old.min(other), order);
                old
            }

            pub fn fetch_max(&self, other: $word, order: Ordering) -> $word {
                let old = self.0.load(Relaxed);
                self.store(old.max(other), order);
                old
            }
        }
    };
}

atomic_integer!(AtomicU64, u64);
atomic_integer!(AtomicUsize, usize);
atomic!(AtomicPtr, std::sync::atomic::AtomicPtr<T>, *mut T, T);

/// Does nothing: the GIL orders all threads.
pub(crate) fn full_fence() {}

/// Entries of a shard, about 70 bytes each, that outgrow the caches of most cores. A prefetch costs more than it
/// saves with 100,000 entries, and less with 300,000.
pub(crate) const FAR: usize = 1 << 18;

/// The lock costs nothing, so a `set` gains nothing by avoiding it.
pub(crate) fn last_set_replaced() -> bool {
    false
}

pub(crate) fn record_set(_has_replaced: bool) {}

/// Returns how many shards a cache has: one, since one thread runs at a time.
pub(crate) fn shard_count(_capacity: u64) -> usize {
    1
}
