//! The hottest or the coldest entries of a cache, in the order of its policy.
//!
//! # How it works
//! A [`Ranking`] scans the shards by index, a batch for each lock. In a batch, each entry gets its rank from the policy
//! of its shard ([`Policy::rank`](crate::policy::Policy::rank)). The ranks of all shards are comparable, so the entries
//! are sorted at the end. With a limit, entries that are out of it are dropped between two batches, so the ranking takes
//! little memory.
//!
//! # Invariants
//! - `once`: an entry that stays during the whole scan is ranked once, since entries never change their index.
//!
//! # Why not walk the lists of the policy
//! They would have to be walked under one lock: an entry at which a walk stops may move before the walk goes on. And an
//! entry that was hit is moved only when the policy looks for a victim, so the lists alone are not the order.

use std::collections::TryReserveError;

use crate::reclaim::Handle;
use crate::shard::RANKED_PER_BATCH;

use super::Cache;

/// A scan that ranks all entries and keeps the first ones.
pub struct Ranking<K, V> {
    is_hottest: bool,
    limit: usize,
    shard: usize,
    /// The index of the next entry in this shard.
    index: u32,
    /// The end index of this shard, and the time of its policy, when the scan reached it.
    start: Option<(u32, u64)>,
    kept: Vec<(Place, K, V)>,
    /// No entry after this place is among the first ones.
    last_place: Place,
}

/// The place of an entry in the order that the caller asked for: its rank, then its position, so that no two are equal.
type Place = u128;

impl<K, V> Ranking<K, V> {
    /// Begins a ranking that keeps the `limit` hottest entries.
    pub fn hottest(limit: usize) -> Self {
        Self::new(true, limit)
    }

    /// Begins a ranking that keeps the `limit` coldest entries.
    pub fn coldest(limit: usize) -> Self {
        Self::new(false, limit)
    }

    fn new(is_hottest: bool, limit: usize) -> Self {
        let (kept, last_place) = (Vec::new(), Place::MAX);
        Ranking { is_hottest, limit, shard: 0, index: 0, start: None, kept, last_place }
    }

    /// Returns the entries in their order, the hottest or the coldest first.
    pub fn into_pairs(mut self) -> impl ExactSizeIterator<Item = (K, V)> {
        self.kept.sort_unstable_by_key(|&(place, ..)| place);
        self.kept.truncate(self.limit);
        self.kept.into_iter().map(|(_, key, value)| (key, value))
    }

    fn next_shard(&mut self) {
        (self.shard, self.index, self.start) = (self.shard + 1, 0, None);
    }

    /// Drops entries that are out of the limit, if they are many.
    fn drop_excess(&mut self) {
        if self.limit > 0 && self.kept.len() > self.limit.saturating_mul(2).max(RANKED_PER_BATCH) {
            let (_, last, _) = self.kept.select_nth_unstable_by_key(self.limit - 1, |&(place, ..)| place);
            self.last_place = last.0;
            self.kept.truncate(self.limit);
        }
    }
}

impl<K, V, E> Cache<K, V, E>
where
    K: Handle,
    V: Handle,
    E: Clone + Send + Sync + 'static,
{
    /// Ranks a batch of entries. It does not count as an access, and expired entries are left out.
    ///
    /// The caller must be attached and must hold nothing, since entries are dropped. Returns false at the end.
    pub fn rank_batch(&self, ranking: &mut Ranking<K, V>) -> Result<bool, TryReserveError> {
        let Some(shard) = self.shards.all().get(ranking.shard).filter(|_| ranking.limit > 0) else {
            return Ok(false);
        };
        ranking.kept.try_reserve(RANKED_PER_BATCH)?;
        let (end, time) = *ranking.start.get_or_insert_with(|| (shard.end_index(), shard.policy_time()));
        let position = (ranking.shard as u128) << 32;
        let (is_hottest, last_place) = (ranking.is_hottest, ranking.last_place);
        let place = |rank: u64, index: u32| {
            let place = u128::from(rank) << 64 | position | u128::from(index);
            Some(if is_hottest { !place } else { place }).filter(|&place| place <= last_place)
        };
        match shard.rank_batch(ranking.index..end, time, &self.clock, place, &mut ranking.kept) {
            Some(next) => ranking.index = next,
            None => ranking.next_shard(),
        }
        ranking.drop_excess();
        Ok(true)
    }
}
