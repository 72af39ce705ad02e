//! The weight of each entry, by its index, and the total weight of a cache against its capacity.
//!
//! # How the bound holds while the capacity changes
//! A write adds its weight and compares the total with the capacity under the lock of its shard. A resize stores the
//! capacity, passes through the lock of each shard, and then evicts. So each write sees the new capacity, or its weight
//! is seen by the resize.
//!
//! While a resize evicts, a write evicts a bounded number of entries, and leaves the rest to the resize.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `capacity` | Relaxed, by a resize, before it takes the lock of each shard | Relaxed, by a write under the lock | the locks order the two |
//! | `used` | Relaxed, by a write under the lock | Relaxed | law 6 promises an exact total only while no other thread is in a call |
//! | `resizing` | a resize: it subtracts itself, then a full fence, then it reads `used` again | a write: it adds its weight to `used`, then a full fence | one of the two fences comes first. So the write does not leave its excess behind, or the resize sees the excess. |

use crate::collections::try_reserve::{self, NoMemory};
use crate::sync::{AtomicU64, AtomicUsize, Ordering, Padded, full_fence};

/// The weights by index. A cache without a weigher has none, and each entry weighs 1.
pub(super) struct Weights(Option<Vec<u32>>);

impl Weights {
    pub fn new(weighted: bool) -> Self {
        Weights(weighted.then(Vec::new))
    }

    /// Whether the cache has a weigher.
    pub fn are_recorded(&self) -> bool {
        self.0.is_some()
    }

    pub fn get(&self, index: u32) -> u64 {
        self.0.as_ref().map_or(1, |weights| u64::from(weights[index as usize]))
    }

    /// Reserves memory for the weight of an index.
    pub fn reserve(&mut self, index: u32) -> Result<(), NoMemory> {
        self.0.as_mut().map_or(Ok(()), |weights| try_reserve::reserve(weights, index))
    }

    pub fn set(&mut self, index: u32, weight: u32) {
        if let Some(weights) = &mut self.0 {
            if weights.len() <= index as usize {
                weights.resize(index as usize + 1, 0);
            }
            weights[index as usize] = weight;
        }
    }

    /// Frees the memory of the indices from `end` on, which are not in use.
    pub fn trim(&mut self, end: u32) {
        if let Some(weights) = &mut self.0 {
            weights.truncate(end as usize);
            weights.shrink_to_fit();
        }
    }
}

/// The total weight of all shards, and the capacity.
pub(crate) struct Budget {
    capacity: AtomicU64,
    /// The number of resizes that evict.
    resizing: AtomicUsize,
    /// 1 after the first resize.
    was_resized: AtomicUsize,
    used: Padded<AtomicU64>,
}

impl Budget {
    pub fn new(capacity: u64) -> Self {
        Budget {
            capacity: AtomicU64::new(capacity),
            resizing: AtomicUsize::new(0),
            was_resized: AtomicUsize::new(0),
            used: Padded(AtomicU64::new(0)),
        }
    }

    pub fn capacity(&self) -> u64 {
        // Relaxed: see the module's orderings.
        self.capacity.load(Ordering::Relaxed)
    }

    pub fn used(&self) -> u64 {
        // Relaxed: law 6 promises an exact total only while no other thread is in a call.
        self.used.0.load(Ordering::Relaxed)
    }

    /// Whether an entry of this weight fits if it is alone.
    pub fn can_fit(&self, weight: u32) -> bool {
        u64::from(weight) <= self.capacity() && (weight > 0 || !self.is_closed())
    }

    /// Whether the cache was resized to 0, and so keeps nothing, also no entry of weight 0.
    pub fn is_closed(&self) -> bool {
        self.capacity() == 0 && self.was_resized.load(Ordering::Relaxed) == 1
    }

    /// Whether the total exceeds the capacity, together with a change that is not added yet.
    pub fn is_over(&self, change: i64) -> bool {
        self.used().wrapping_add_signed(change) > self.capacity()
    }

    /// Sets the capacity. Until [`end_resize`](Self::end_resize), writes may leave an excess to the caller.
    pub fn begin_resize(&self, capacity: u64) {
        self.resizing.fetch_add(1, Ordering::Relaxed);
        self.capacity.store(capacity, Ordering::Relaxed);
        self.was_resized.store(1, Ordering::Relaxed);
    }

    /// Ends a resize. The caller must check for an excess afterwards.
    pub fn end_resize(&self) {
        self.resizing.fetch_sub(1, Ordering::Relaxed);
        full_fence();
    }

    /// Whether a resize will evict the excess, after the caller has added all its weight.
    pub fn is_resizing(&self) -> bool {
        full_fence();
        self.resizing.load(Ordering::Relaxed) > 0
    }

    pub(super) fn add(&self, change: i64) {
        if change != 0 {
            self.used.0.fetch_add(change as u64, Ordering::Relaxed);
        }
    }
}
