//! One entry: hash, key, value and stamp.
//!
//! An entry has 32 bytes where a pointer has 8, so it never lies across two cache lines. Data that only some caches need
//! is beside the entries. A cache where something can expire has a
//! [`DeadlineTable`](crate::expiry::deadlines::DeadlineTable) for each chunk. The weights and the links of the policy's
//! lists are in the state that the shard lock guards, because only writers read them.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `hash` | Relaxed, before the slot's Release | Relaxed, after the slot's Acquire | fixed while the entry is in a slot |
//! | `key` | Release, by the holder of the lock | Acquire | see `LockedAtomicHandle` |
//! | `value` | AcqRel, by the holder of the lock or by a replacement without it | Acquire | see `AtomicHandle` |
//! | `stamp` | Relaxed, also by readers | Relaxed | a lost hit costs accuracy, never correctness |

use crate::reclaim::{AtomicHandle, Borrowed, LockedAtomicHandle, Pin};
use crate::sync::AtomicU64;

/// One entry. All zero is an empty one, so fresh memory needs no writing.
pub(crate) struct Entry<K, V> {
    pub hash: AtomicU64,
    pub key: LockedAtomicHandle<Option<K>>,
    /// Writers may replace it without the lock, so the lock does not protect a reader of it.
    pub value: AtomicHandle<Option<V>>,
    /// The last access, in the policy's own terms; 0 if there was none since the policy read it.
    pub stamp: AtomicU64,
}

impl<K, V> Entry<K, V> {
    /// Returns the value, for as long as the pin lives.
    #[inline(always)]
    pub fn value<'g>(&self, pin: &'g Pin<'_>) -> Borrowed<'g, Option<V>> {
        self.value.read(pin)
    }
}

/// The default is all zero.
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

const _: () =
    assert!(size_of::<Entry<Box<u8>, Box<u8>>>() == 2 * size_of::<AtomicU64>() + 2 * size_of::<*mut ()>());
