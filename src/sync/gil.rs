//! What `sync` is where the GIL lets one thread in at a time.

use std::cell::{RefCell, RefMut};
use std::sync::atomic::Ordering::{self, Relaxed};

pub(crate) struct Padded<T>(pub T);

/// None is inside beside another.
#[inline]
pub(crate) fn has_company() -> bool {
    false
}

/// Nobody asks.
pub(crate) fn thread_mark() -> usize {
    1
}

/// A flag that says that the lock is taken. Finding it taken means that a law was broken.
pub(crate) struct Lock<T>(RefCell<T>);

pub(crate) type Locked<'a, T> = RefMut<'a, T>;

// SAFETY: `one-at-a-time`: the GIL serializes every access to the cell.
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
    ($name:ident, $std:ident, $word:ty) => {
        /// An atomic whose read-modify-write is a load and a store (`one-at-a-time`).
        #[derive(Default)]
        pub(crate) struct $name(std::sync::atomic::$std);

        #[allow(dead_code)]
        impl $name {
            pub const fn new(value: $word) -> Self {
                Self(std::sync::atomic::$std::new(value))
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

atomic!(AtomicU64, AtomicU64, u64);
atomic!(AtomicUsize, AtomicUsize, usize);

/// There is nobody to be ordered against.
pub(crate) fn full_fence() {}

/// Entries, of which each takes some 70 bytes, that outgrow the caches of most cores. To ask ahead for what they need is
/// dearer than to wait for it with 100,000 of them, and cheaper with 300,000.
pub(crate) const FAR: usize = 1 << 18;

/// The lock costs nothing, so a `set` gains nothing by avoiding it.
pub(crate) fn last_set_replaced() -> bool {
    false
}

pub(crate) fn record_set(_has_replaced: bool) {}

/// How many shards a cache has: one, since the GIL lets one thread in at a time.
pub(crate) fn shard_count(_capacity: u64) -> usize {
    1
}
