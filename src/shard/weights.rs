//! What entries weigh: each by its number, and all together against the capacity.

use crate::collections::try_reserve::{self, NoMemory};
use crate::sync::{AtomicU64, Ordering, Padded};

/// The weights by number; a cache without a weigher has none, and each entry weighs 1.
pub(super) struct Weights(Option<Vec<u32>>);

impl Weights {
    pub fn new(weighted: bool) -> Self {
        Weights(weighted.then(Vec::new))
    }

    pub fn get(&self, number: u32) -> u64 {
        self.0.as_ref().map_or(1, |weights| u64::from(weights[number as usize]))
    }

    /// Makes sure that the weight of a number can be set.
    pub fn reserve(&mut self, number: u32) -> Result<(), NoMemory> {
        self.0.as_mut().map_or(Ok(()), |weights| try_reserve::reserve(weights, number))
    }

    pub fn set(&mut self, number: u32, weight: u32) {
        if let Some(weights) = &mut self.0 {
            if weights.len() <= number as usize {
                weights.resize(number as usize + 1, 0);
            }
            weights[number as usize] = weight;
        }
    }

    /// Gives back the memory of numbers from `limit` up, which are not in use.
    pub fn trim(&mut self, limit: u32) {
        if let Some(weights) = &mut self.0 {
            weights.truncate(limit as usize);
            weights.shrink_to_fit();
        }
    }
}

/// The weight that all shards hold together, and may hold.
pub(crate) struct Budget {
    capacity: u64,
    used: Padded<AtomicU64>,
}

impl Budget {
    pub fn new(capacity: u64) -> Self {
        Budget { capacity, used: Padded(AtomicU64::new(0)) }
    }

    pub fn used(&self) -> u64 {
        // Relaxed: exact when no other thread is in a call, which is all that is promised.
        self.used.0.load(Ordering::Relaxed)
    }

    /// Whether an entry of this weight has room, if it is alone.
    pub fn fits(&self, weight: u32) -> bool {
        u64::from(weight) <= self.capacity
    }

    /// Whether the whole is over its capacity, with a change that was not told yet.
    pub fn is_over(&self, change: i64) -> bool {
        self.used().wrapping_add_signed(change) > self.capacity
    }

    pub(super) fn tell(&self, change: i64) {
        if change != 0 {
            self.used.0.fetch_add(change as u64, Ordering::Relaxed);
        }
    }
}
