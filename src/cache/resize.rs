//! Changes of the capacity.
//!
//! # How it works
//! A [`Resize`] stores the capacity and passes through the lock of each shard. From then on every write sees the
//! capacity. Then it evicts in steps. A step evicts from one shard, under its lock, and the caller reports the removals
//! before the next step. Steps go around the shards, and each shard gives up the same part of its entries.
//!
//! While a resize evicts, a write evicts a bounded number of entries and leaves the rest to the resize. So at its end the
//! resize says that it ends, and evicts once more what such writes have left.
//!
//! # Invariants
//! - `last-wins`: of several resizes the one whose capacity was stored last holds, and each of them evicts until the
//!   cache fits the capacity of that moment. So the bound is exact when all have ended.
//! - `stays`: the number of shards and the kind of the policy stay as they were made.
//!
//! # Why not all under one lock
//! A million evictions take a second, and every writer of the shard would wait that long.

use crate::map::removal::Removals;
use crate::reclaim::Handle;

use super::{Cache, Cursor};

/// A change of the capacity that is in progress.
///
/// The caller calls [`step`](Self::step) until it returns false, and reports the removals after each step.
pub struct Resize<'a, K: Handle, V: Handle, E> {
    cache: &'a Cache<K, V, E>,
    /// Whether writes may leave an excess to this resize.
    is_announced: bool,
    /// The shard of the next step.
    next_shard: usize,
    /// The excess of the cache at the begin of this round through the shards, and its total weight.
    excess_of_total: (u64, u64),
    /// Whether a step of this round has removed entries.
    has_removed: bool,
    /// The position of the pass that removes entries of weight 0.
    rest: Cursor,
}

impl<K, V, E> Cache<K, V, E>
where
    K: Handle,
    V: Handle,
    E: Clone + Send + Sync + 'static,
{
    /// Begins to change the capacity. Writes that begin after this call see the new one.
    pub fn begin_resize(&self, capacity: u64) -> Resize<'_, K, V, E> {
        self.budget.begin_resize(capacity);
        let resize = Resize {
            cache: self,
            is_announced: true,
            next_shard: 0,
            excess_of_total: (0, 0),
            has_removed: true,
            rest: Cursor::default(),
        };
        // Without shards, a write that creates them could miss the new capacity.
        let shards = self.shards.all_or_init(&self.config, &self.budget);
        shards.iter().for_each(|shard| shard.set_share(self.share()));
        resize
    }

    /// Returns the part of the capacity that each shard has.
    fn share(&self) -> u64 {
        self.budget.capacity() / self.shards.all().len() as u64
    }
}

impl<K, V, E> Resize<'_, K, V, E>
where
    K: Handle,
    V: Handle,
    E: Clone + Send + Sync + 'static,
{
    /// Evicts a bounded number of entries. Returns false at the end: then the cache fits its capacity.
    pub fn step(&mut self, removed: &mut Removals<K, V>) -> bool {
        if self.evict(removed) || self.remove_rest(removed) {
            return true;
        }
        let was_announced = self.is_announced;
        self.end();
        // Now without the mark, for the excess that writes have left.
        self.next_shard = 0;
        self.has_removed = true;
        was_announced
    }

    /// Evicts from the next shard. Returns false if the cache fits its capacity, or no shard has a candidate.
    fn evict(&mut self, removed: &mut Removals<K, V>) -> bool {
        let (budget, shards) = (&self.cache.budget, self.cache.shards.all());
        if !budget.is_over(0) {
            return false;
        }
        if self.next_shard == 0 {
            if !self.has_removed {
                return false;
            }
            self.has_removed = false;
            let total = budget.used();
            self.excess_of_total = (total.saturating_sub(budget.capacity()).max(1), total);
        }
        let shard = &shards[self.next_shard];
        shard.evict_part(self.excess_of_total, self.cache.share(), self.cache.now(), budget, removed);
        self.has_removed |= !removed.is_empty();
        self.next_shard = (self.next_shard + 1) % shards.len();
        true
    }

    /// Removes a batch of the entries that are left after a resize to 0: they have no weight.
    fn remove_rest(&mut self, removed: &mut Removals<K, V>) -> bool {
        self.cache.budget.is_closed() && self.cache.evict_batch(&mut self.rest, removed)
    }
}

impl<K: Handle, V: Handle, E> Resize<'_, K, V, E> {
    fn end(&mut self) {
        if std::mem::take(&mut self.is_announced) {
            self.cache.budget.end_resize();
        }
    }
}

impl<K: Handle, V: Handle, E> Drop for Resize<'_, K, V, E> {
    fn drop(&mut self) {
        self.end();
    }
}
