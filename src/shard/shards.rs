//! The shards of a cache, made when something is first stored: many caches are never used, and each shard takes a kilobyte
//! or two.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `Shards::0` | a leader: made at the latest then, full fence, then it computes | who removes and finds none: what it did before, full fence, then another look | either side of the two fences sees the other, so no result of before a removal is cached after it |

use crate::config::Config;
use crate::reclaim::Handle;
use crate::shard::Shard;
use crate::sync::{HAS_GIL, OnceLock, full_fence, shard_count};

pub(crate) struct Shards<K, V>(OnceLock<Box<[Shard<K, V>]>>);

impl<K: Handle, V: Handle> Shards<K, V> {
    pub fn new() -> Self {
        Shards(OnceLock::new())
    }

    /// All; none before the first write.
    #[inline]
    pub fn all(&self) -> &[Shard<K, V>] {
        self.0.get().map_or(&[], |shards| shards)
    }

    /// The shard of a hash, if there are any.
    #[inline]
    pub fn of(&self, hash: u64) -> Option<&Shard<K, V>> {
        let shards = self.0.get()?;
        Some(&shards[place(hash, shards)])
    }

    /// The shard of a hash.
    #[inline]
    pub fn made(&self, hash: u64, config: &Config) -> &Shard<K, V> {
        let shards = self.0.get_or_init(|| make(config));
        &shards[place(hash, shards)]
    }

    /// Which of all, of which there are some, a hash belongs to.
    pub fn index(&self, hash: u64) -> usize {
        place(hash, self.all())
    }

    /// For who removes: if there are no shards after it, each computation begins after what the caller did before.
    #[inline]
    pub fn fence_before_first_load(&self) {
        if self.0.get().is_none() {
            // Pairs with the one in `Cache::load`: there the shards are made first, here they are looked at last.
            full_fence();
        }
    }
}

/// Apart, since a shard takes a kilobyte on the stack while it is made, which would be there under each user's code that
/// a write runs.
#[cold]
#[inline(never)]
fn make<K: Handle, V: Handle>(config: &Config) -> Box<[Shard<K, V>]> {
    Shard::all(config, shard_count(config.capacity))
}

/// There is a power of two of them: one, where one thread is let in at a time.
#[inline(always)]
pub(crate) fn place<T>(hash: u64, shards: &[T]) -> usize {
    if HAS_GIL { 0 } else { hash as usize & (shards.len() - 1) }
}
