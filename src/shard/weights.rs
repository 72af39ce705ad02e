//! The weight of each entry, by its index, and the total weight of a cache against its capacity.

use crate::collections::try_reserve::{self, NoMemory};
use crate::sync::{AtomicU64, Ordering, Padded};

/// The weights by index. A cache without a weigher has none, and each entry weighs 1.
pub(super) struct Weights(Option<Vec<u32>>);

impl Weights {
    pub fn new(weighted: bool) -> Self {
        Weights(weighted.then(Vec::new))
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
    capacity: u64,
    used: Padded<AtomicU64>,
}

impl Budget {
    pub fn new(capacity: u64) -> Self {
        Budget { capacity, used: Padded(AtomicU64::new(0)) }
    }

    pub fn used(&self) -> u64 {
        // Relaxed: law 6 promises an exact total only while no other thread is in a call.
        self.used.0.load(Ordering::Relaxed)
    }

    /// Whether an entry of this weight fits if it is alone.
    pub fn can_fit(&self, weight: u32) -> bool {
        u64::from(weight) <= self.capacity
    }

    /// Whether the total exceeds the capacity, together with a change that is not added yet.
    pub fn is_over(&self, change: i64) -> bool {
        self.used().wrapping_add_signed(change) > self.capacity
    }

    pub(super) fn add(&self, change: i64) {
        if change != 0 {
            self.used.0.fetch_add(change as u64, Ordering::Relaxed);
        }
    }
}
