//! What one entry carries.
//!
//! An entry is 32 bytes, so that it never lies across two cache lines. What only some caches need is kept
//! beside it: its [`Life`](crate::life::Life), in a cache where something can expire; its weight and its links, which only
//! writers look at, with the lock's holder.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `hash` | before the slot's Release | after the slot's Acquire | fixed while the entry is in a slot |
//! | `key` | Release, by the lock's holder | Acquire | see `LockedSwap` |
//! | `value` | AcqRel, by the lock's holder or in the place of another value | Acquire | see `Swap` |
//! | `stamp` | Relaxed, readers too | Relaxed | a lost hit costs accuracy, never correctness |

use std::sync::Arc;

use crate::reclaim::{Lent, LockedSwap, Pin, Swap};
use crate::sync::AtomicU64;

/// What a cache holds: references, of a word's width, that threads share. To clone one must not run foreign
/// code, since it is done under locks.
pub trait Reference: Clone + Send + Sync + 'static {
    /// Whether what it refers to lives for ever, so that to drop a reference does nothing.
    fn is_immortal(&self) -> bool {
        false
    }

    /// Asks ahead for what dropping the reference will change.
    fn prefetch(&self) {}
}

impl<T: Send + Sync + 'static> Reference for Arc<T> {}

/// One entry. All zero is an empty one, so that fresh memory needs no writing.
pub(crate) struct Entry<K, V> {
    pub hash: AtomicU64,
    pub key: LockedSwap<Option<K>>,
    /// Writers may replace it without the lock, so the lock does not keep it.
    pub value: Swap<Option<V>>,
    /// When it was used last, in the policy's own terms; 0 is not since the policy looked.
    pub stamp: AtomicU64,
}

impl<K, V> Entry<K, V> {
    /// The value, for as long as the pin lives.
    #[inline(always)]
    pub fn value<'g>(&self, pin: &'g Pin<'_>) -> Lent<'g, Option<V>> {
        self.value.read(pin)
    }
}

/// The same as all zero.
impl<K, V> Default for Entry<K, V> {
    fn default() -> Self {
        Entry {
            hash: AtomicU64::new(0),
            key: LockedSwap::default(),
            value: Swap::default(),
            stamp: AtomicU64::new(0),
        }
    }
}

const _: () = assert!(size_of::<Entry<Box<u8>, Box<u8>>>() == 4 * size_of::<AtomicU64>());

/// The durations an entry is written with, in nanoseconds, or as [`word_of_nanos`](crate::word_of_nanos) has long ones; 0
/// is none.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub ttl: u64,
    pub tti: u64,
}

impl Lifetime {
    /// The shorter of both, each for itself.
    pub fn min(self, other: Lifetime) -> Lifetime {
        let shorter = |a: u64, b: u64| if a == 0 || (b != 0 && b < a) { b } else { a };
        Lifetime { ttl: shorter(self.ttl, other.ttl), tti: shorter(self.tti, other.tti) }
    }

    #[inline(always)]
    pub fn is_endless(self) -> bool {
        self.ttl | self.tti == 0
    }
}

/// The deadline of an entry that has none.
pub(crate) const NEVER: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_of_two_lifetimes_counts_each_for_itself() {
        let lifetime = |ttl, tti| Lifetime { ttl, tti };
        assert_eq!(lifetime(5, 0).min(lifetime(3, 9)), lifetime(3, 9));
        assert_eq!(lifetime(0, 7).min(lifetime(4, 0)), lifetime(4, 7));
        assert_eq!(lifetime(2, 7).min(lifetime(4, 6)), lifetime(2, 6));
        assert!(lifetime(0, 0).min(lifetime(0, 0)).is_endless());
    }
}
