//! What one entry carries.
//!
//! An entry is 32 bytes, so that it never lies across two cache lines. What only some caches need is kept
//! beside it: its [`Life`], in a cache where something can expire; its weight and its links, which only
//! writers look at, with the lock's holder.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `hash` | before the slot's Release | after the slot's Acquire | fixed while the entry is in a slot |
//! | `key`, `value` | Release, by the lock's holder | Acquire | see `Swap` |
//! | `stamp` | Relaxed, readers too | Relaxed | a lost hit costs accuracy, never correctness |
//! | `Life` | the value first, then Release here | Acquire here, then the value | a reader that sees a new deadline sees the new value |

use crate::reclaim::Swap;
use crate::sync::{AtomicU64, Ordering};

/// What a cache holds: references, of a word's width, that threads share. To clone one must not run foreign
/// code, since it is done under locks.
pub trait Reference: Clone + Send + Sync + 'static {}

impl<T: Clone + Send + Sync + 'static> Reference for T {}

/// One entry. All zero is an empty one, so that fresh memory needs no writing.
pub(crate) struct Entry<K, V> {
    pub hash: AtomicU64,
    pub key: Swap<Option<K>>,
    pub value: Swap<Option<V>>,
    /// When it was used last, in the policy's own terms; 0 is not since the policy looked.
    pub stamp: AtomicU64,
}

/// The same as all zero.
impl<K, V> Default for Entry<K, V> {
    fn default() -> Self {
        Entry {
            hash: AtomicU64::new(0),
            key: Swap::default(),
            value: Swap::default(),
            stamp: AtomicU64::new(0),
        }
    }
}

const _: () = assert!(size_of::<Entry<Box<u8>, Box<u8>>>() == 4 * size_of::<AtomicU64>());

/// When an entry expires: the sooner of two deadlines. All zero is never. Instants are nanoseconds of the
/// cache's clock.
#[derive(Default)]
pub(crate) struct Life {
    /// The instant where its time since the write ends; 0 if it does not.
    expires_at: AtomicU64,
    /// The instant of its last use.
    used_at: AtomicU64,
    /// Its time since the last use; 0 if there is no end to it.
    tti: AtomicU64,
}

/// The durations an entry is written with, in nanoseconds; 0 is none.
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

    pub fn is_endless(self) -> bool {
        self == Lifetime::default()
    }
}

/// The deadline of an entry that has none.
pub(crate) const NEVER: u64 = u64::MAX;

impl Life {
    /// The instant from which on the entry is expired.
    pub fn deadline(&self) -> u64 {
        // Acquire: pairs with the Release in `begin`; the value is read after it.
        let expires_at = self.expires_at.load(Ordering::Acquire);
        let tti = self.tti.load(Ordering::Acquire);
        let by_write = if expires_at == 0 { NEVER } else { expires_at };
        if tti == 0 {
            return by_write;
        }
        by_write.min(self.used_at.load(Ordering::Acquire).saturating_add(tti))
    }

    pub fn begin(&self, now: u64, lifetime: Lifetime) {
        let expires_at = if lifetime.ttl == 0 { 0 } else { now.saturating_add(lifetime.ttl) };
        // Release: pairs with the Acquire in `deadline`; the value was written before.
        self.used_at.store(now, Ordering::Release);
        self.tti.store(lifetime.tti, Ordering::Release);
        self.expires_at.store(expires_at, Ordering::Release);
    }

    /// Notes a use, for the time to idle. A use within a microsecond of the last one is not worth a
    /// written cache line: the entry then expires that much early, never late.
    pub fn touch(&self, now: u64) {
        const WORTH_A_WRITE: u64 = 1_000;
        // Relaxed: a use is an instant and nothing else.
        if self.tti.load(Ordering::Relaxed) != 0
            && now > self.used_at.load(Ordering::Relaxed).saturating_add(WORTH_A_WRITE)
        {
            // A maximum: whoever was stopped here must not take back a later use, or a new beginning.
            self.used_at.fetch_max(now, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifetime(ttl: u64, tti: u64) -> Lifetime {
        Lifetime { ttl, tti }
    }

    fn life(now: u64, ttl: u64, tti: u64) -> Life {
        let life = Life::default();
        life.begin(now, lifetime(ttl, tti));
        life
    }

    #[test]
    fn the_shorter_of_two_lifetimes_counts_each_for_itself() {
        assert_eq!(lifetime(5, 0).min(lifetime(3, 9)), lifetime(3, 9));
        assert_eq!(lifetime(0, 7).min(lifetime(4, 0)), lifetime(4, 7));
        assert_eq!(lifetime(2, 7).min(lifetime(4, 6)), lifetime(2, 6));
        assert!(lifetime(0, 0).min(lifetime(0, 0)).is_endless());
    }

    #[test]
    fn the_sooner_end_is_the_deadline() {
        assert_eq!(Life::default().deadline(), NEVER);
        assert_eq!(life(10, 5, 0).deadline(), 15);
        assert_eq!(life(10, 0, 7).deadline(), 17);
        assert_eq!(life(10, 5, 7).deadline(), 15);
        assert_eq!(life(10, 9, 7).deadline(), 17);
        assert_eq!(life(10, u64::MAX, u64::MAX - 3).deadline(), NEVER);
    }

    #[test]
    fn a_use_moves_the_end_of_idleness_alone() {
        let life = life(10, 1_000_000, 5_000);
        life.touch(3_000);
        assert_eq!(life.deadline(), 8_000);
        life.touch(999_000);
        assert_eq!(life.deadline(), 1_000_010);
    }

    #[test]
    fn a_use_soon_after_another_or_before_it_changes_nothing() {
        let life = life(5_000, 0, 10_000);
        life.touch(6_000);
        assert_eq!(life.deadline(), 15_000);
        life.touch(6_001);
        assert_eq!(life.deadline(), 16_001);
        life.touch(2_000);
        assert_eq!(life.deadline(), 16_001);
    }

    #[test]
    fn a_new_beginning_forgets_the_old_life() {
        let life = life(10, 5, 7);
        life.begin(20, lifetime(0, 0));
        assert_eq!(life.deadline(), NEVER);
        life.begin(30, lifetime(100, 0));
        life.touch(50_000);
        assert_eq!(life.deadline(), 130);
    }
}
