//! What one entry carries.
//!
//! An entry is 32 bytes, so that it never lies across two cache lines. What only some caches need is kept
//! beside it: its [`Deadlines`](crate::expiry::deadlines::Deadlines), in a cache where something can expire; its weight and its links, which only
//! writers look at, with the lock's holder.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `hash` | before the slot's Release | after the slot's Acquire | fixed while the entry is in a slot |
//! | `key` | Release, by the lock's holder | Acquire | see `LockedAtomicHandle` |
//! | `value` | AcqRel, by the lock's holder or in the place of another value | Acquire | see `AtomicHandle` |
//! | `stamp` | Relaxed, readers too | Relaxed | a lost hit costs accuracy, never correctness |

use crate::reclaim::{AtomicHandle, Borrowed, LockedAtomicHandle, Pin};
use crate::sync::AtomicU64;

/// One entry. All zero is an empty one, so that fresh memory needs no writing.
pub(crate) struct Entry<K, V> {
    pub hash: AtomicU64,
    pub key: LockedAtomicHandle<Option<K>>,
    /// Writers may replace it without the lock, so the lock does not keep it.
    pub value: AtomicHandle<Option<V>>,
    /// When it was used last, in the policy's own terms; 0 is not since the policy looked.
    pub stamp: AtomicU64,
}

impl<K, V> Entry<K, V> {
    /// The value, for as long as the pin lives.
    #[inline(always)]
    pub fn value<'g>(&self, pin: &'g Pin<'_>) -> Borrowed<'g, Option<V>> {
        self.value.read(pin)
    }
}

/// The same as all zero.
impl<K, V> Default for Entry<K, V> {
    fn default() -> Self {
        Entry {
            hash: AtomicU64::new(0),
            key: LockedAtomicHandle::default(),
            value: AtomicHandle::default(),
            stamp: AtomicU64::new(0),
        }
    }
}

const _: () = assert!(size_of::<Entry<Box<u8>, Box<u8>>>() == 4 * size_of::<AtomicU64>());
