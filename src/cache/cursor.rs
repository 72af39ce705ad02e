//! Passes over all entries: iteration, removal of what an iteration yielded, and `clear` in batches.
//!
//! # How it works
//! A [`Cursor`] is a position: a shard, and the index of an entry there. Entries never change their index, so an entry
//! that stays during the whole iteration is yielded exactly once. No lock is held between two steps.

use crate::map::removal::{Cause, Removals};
use crate::reclaim::Handle;

use super::Cache;

/// The position of a pass over all entries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    shard: usize,
    /// The index of the next entry in this shard.
    index: u32,
    /// The end index of this shard when the iteration reached it.
    end: Option<u32>,
}

impl Cursor {
    fn next_shard(self) -> Self {
        Cursor { shard: self.shard + 1, index: 0, end: None }
    }

    /// Moves to an index of this shard, or with `None` to the next shard.
    fn advance(&mut self, index: Option<u32>) {
        match index {
            Some(index) => self.index = index,
            None => *self = self.next_shard(),
        }
    }
}

impl<K, V, E> Cache<K, V, E>
where
    K: Handle,
    V: Handle,
    E: Clone + Send + Sync + 'static,
{
    /// Returns the next entry of an iteration. It does not count as an access.
    ///
    /// Each entry that stays during the whole iteration is yielded once.
    pub fn next_entry(&self, cursor: &mut Cursor) -> Option<(K, V)> {
        while let Some(shard) = self.shards.all().get(cursor.shard) {
            // Entries that come during the iteration may get higher indices, without end.
            let end = *cursor.end.get_or_insert_with(|| shard.end_index());
            if let Some((index, key, value)) = shard.next_entry(cursor.index, end, &self.clock) {
                cursor.index = index + 1;
                return Some((key, value));
            }
            *cursor = cursor.next_shard();
        }
        None
    }

    /// Removes the entry that an iteration yielded last, if `is_same` holds for its current key and value.
    ///
    /// `is_same` is called under the lock. It must not block, drop anything or run foreign code. Returns whether an
    /// entry was removed that was not due.
    pub fn remove_last_yielded(
        &self,
        cursor: &Cursor,
        is_same: impl Fn(&K, &V) -> bool,
        removed: &mut Removals<K, V>,
    ) -> bool {
        let Some(index) = cursor.index.checked_sub(1) else { return false };
        let supersede = |hash| self.supersede_hash(hash);
        let shard = &self.shards.all()[cursor.shard];
        let is_removed = shard.remove_if(index, is_same, || self.now(), &self.budget, supersede, removed);
        self.maintain(self.now(), removed);
        is_removed
    }

    /// Removes a batch of entries and advances the cursor, which starts at its default.
    ///
    /// Returns false at the end. Then every entry that was present at the start is removed.
    pub fn clear_batch(&self, cursor: &mut Cursor, removed: &mut Removals<K, V>) -> bool {
        self.shards.fence_before_first_load();
        let Some(shard) = self.shards.all().get(cursor.shard) else { return false };
        let supersede = || {
            // In each batch: a flight may have stored a value since the last one. This batch removes that value, but
            // other calls could still join the flight until its call returns.
            self.flights.supersede_shard(cursor.shard);
        };
        let next =
            shard.clear_batch(cursor.index, Cause::Explicit, self.now(), &self.budget, supersede, removed);
        cursor.advance(next);
        true
    }

    /// Evicts a batch of entries, also of weight 0, and advances the cursor. Returns false at the end.
    ///
    /// No computation is superseded.
    pub(super) fn evict_batch(&self, cursor: &mut Cursor, removed: &mut Removals<K, V>) -> bool {
        let Some(shard) = self.shards.all().get(cursor.shard) else { return false };
        let next = shard.clear_batch(cursor.index, Cause::Size, self.now(), &self.budget, || (), removed);
        cursor.advance(next);
        true
    }
}
