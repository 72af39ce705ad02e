//! The shards of a cache. They are created by the first write: many caches are never used, and a shard has 1 to 2 KB.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `Shards::0` | a leader: it creates the shards, then a full fence, then it computes | a removal that finds no shards: its caller's earlier writes, then a full fence, then a second look | one of the two fences comes first. So the removal sees the shards, or the computation begins after the removal. |

use crate::config::Config;
use crate::reclaim::Handle;
use crate::shard::{Budget, Shard};
use crate::sync::{HAS_GIL, OnceLock, full_fence, shard_count};

/// The lowest of the bits of a hash that choose the shard.
///
/// They are below the half that the map uses. The lowest bits of a mixed hash (`cache/seed.rs`) spread numbers
/// in a sequence badly: in 1 of 16 processes, one of 64 shards would have 1.5 to 5 times its part of the keys.
pub const SHARD_SHIFT: u32 = 24;

pub(crate) struct Shards<K, V>(OnceLock<Box<[Shard<K, V>]>>);

impl<K: Handle, V: Handle> Shards<K, V> {
    pub fn new() -> Self {
        Shards(OnceLock::new())
    }

    /// Returns all shards; none before the first write.
    #[inline]
    pub fn all(&self) -> &[Shard<K, V>] {
        self.0.get().map_or(&[], |shards| shards)
    }

    /// Returns the shard of a hash; `None` before the first write.
    #[inline]
    pub fn get(&self, hash: u64) -> Option<&Shard<K, V>> {
        let shards = self.0.get()?;
        Some(&shards[shard_index(hash, shards)])
    }

    /// Returns the shard of a hash, and creates all shards if there are none.
    #[inline]
    pub fn get_or_init(&self, hash: u64, config: &Config, budget: &Budget) -> &Shard<K, V> {
        let shards = self.0.get_or_init(|| create(config, budget));
        &shards[shard_index(hash, shards)]
    }

    /// Returns all shards, and creates them if there are none.
    pub fn all_or_init(&self, config: &Config, budget: &Budget) -> &[Shard<K, V>] {
        self.0.get_or_init(|| create(config, budget))
    }

    /// Returns the index of the shard of a hash. The shards exist.
    pub fn index(&self, hash: u64) -> usize {
        shard_index(hash, self.all())
    }

    /// Orders a removal before every computation that begins later, if there are no shards yet.
    ///
    /// The removal must look for shards again after this call.
    #[inline]
    pub fn fence_before_first_load(&self) {
        if self.0.get().is_none() {
            // Pairs with the one in `Cache::fence_after_register`: see the module's orderings.
            full_fence();
        }
    }
}

/// Creates the shards. Their number is that of the first capacity: tables of flights have the same number.
///
/// It is not inlined, because a shard under construction takes 1 KB of the stack. That would be in the frame of each
/// write, under the user's code that it runs.
#[cold]
#[inline(never)]
fn create<K: Handle, V: Handle>(config: &Config, budget: &Budget) -> Box<[Shard<K, V>]> {
    Shard::for_cache(config, budget.capacity(), shard_count(config.capacity))
}

/// Returns the index of a hash among the shards, or among other things that exist once for each shard.
///
/// The length of the slice is a power of two; with the GIL it is 1.
#[inline(always)]
pub(crate) fn shard_index<T>(hash: u64, shards: &[T]) -> usize {
    if HAS_GIL { 0 } else { (hash >> SHARD_SHIFT) as usize & (shards.len() - 1) }
}
