//! Maintenance of all shards: expiry, eviction across shards, and the release of removed entries.
//!
//! # How it works
//! `Cache::earliest_due` is a lower bound of all deadlines. At the end of a call, one relaxed load of it tells whether
//! something may be due ([`Cache::maintain`]). Then the call checks a few shards. Without deadlines the bound is
//! `NEVER` and no call reads the clock.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `earliest_due` | a write: it lowers its shard's `next_due`, then a full fence, then it lowers this | a call, Relaxed | seeing an old value is the same as calling earlier |
//! | | maintenance: an AcqRel swap to the least `next_due`, then a full fence, then a second look at all `next_due` | | one of the two fences comes first, and the thread of the other sees its store. So no deadline is lost. |

use crate::expiry::NEVER;
use crate::map::removal::{Removal, Removals};
use crate::reclaim::Handle;
use crate::shard::Shard;
use crate::sync::{Ordering, full_fence};

use super::Cache;

/// How many shards one call checks for due entries.
const MAX_SHARDS_PER_CALL: usize = 2;

impl<K, V, E> Cache<K, V, E>
where
    K: Handle,
    V: Handle,
    E: Clone + Send + Sync + 'static,
{
    /// Returns the current instant, or 0 if nothing can expire.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        // Relaxed: see the module's orderings.
        if self.earliest_due.0.load(Ordering::Relaxed) == NEVER { 0 } else { self.clock.now() }
    }

    /// Returns the same instant as [`now`](Self::now); `None` if an entry may be due.
    #[inline(always)]
    pub(super) fn now_if_nothing_due(&self) -> Option<u64> {
        let earliest = self.earliest_due.0.load(Ordering::Relaxed);
        let now = if earliest == NEVER { 0 } else { self.clock.now() };
        (earliest > now).then_some(now)
    }

    /// Does the bounded maintenance at the end of a call.
    #[inline]
    pub(super) fn maintain(&self, now: u64, removed: &mut Removals<K, V>) {
        if now != 0 && self.earliest_due.0.load(Ordering::Relaxed) <= now {
            self.maintain_slow(now, removed);
        }
    }

    #[cold]
    fn maintain_slow(&self, now: u64, removed: &mut Removals<K, V>) {
        let due = self.shards.all().iter().filter(|shard| shard.next_due() <= now);
        for shard in due.take(MAX_SHARDS_PER_CALL) {
            shard.expire(now, false, &self.budget, removed);
        }
        self.reschedule();
    }

    /// Removes all due entries.
    pub fn expire_all(&self, removed: &mut Removals<K, V>) {
        let now = self.now();
        if now == 0 {
            return;
        }
        for shard in self.shards.all().iter().filter(|shard| shard.may_be_due(now)) {
            shard.expire(now, true, &self.budget, removed);
        }
        self.reschedule();
    }

    /// Lowers `earliest_due` to an instant at which a shard has to be checked.
    pub(super) fn schedule(&self, due: u64) {
        full_fence();
        if due < self.earliest_due.0.load(Ordering::Relaxed) {
            self.earliest_due.0.fetch_min(due, Ordering::AcqRel);
        }
    }

    fn reschedule(&self) {
        let least = || self.shards.all().iter().map(Shard::next_due).min().unwrap_or(NEVER);
        // AcqRel: this acquires the minimum that it overwrites, and with it the `next_due` behind that minimum.
        self.earliest_due.0.swap(least(), Ordering::AcqRel);
        full_fence();
        self.schedule(least());
    }

    /// Evicts from the other shards, if the writer's own shard had too few victims.
    #[cold]
    pub(super) fn evict_from_neighbours(&self, hash: u64, now: u64, removed: &mut Removals<K, V>) {
        if self.budget.is_resizing() {
            // The resize goes around all shards in any case.
            return;
        }
        let shards = self.shards.all();
        let own = self.shards.index(hash);
        for step in 1..shards.len() {
            shards[(own + step) % shards.len()].evict_over_budget(now, &self.budget, removed);
            if !self.budget.is_over(0) {
                break;
            }
        }
    }

    /// Continues an eviction that ended over the capacity because its list had no memory for more removals.
    #[cold]
    pub fn finish_eviction(&self, removed: &mut Removals<K, V>) {
        let now = self.now();
        for shard in self.shards.all() {
            if !self.budget.is_over(0) {
                break;
            }
            shard.evict_over_budget(now, &self.budget, removed);
        }
    }

    /// Drops the removals of a call as soon as no reader can see them.
    ///
    /// The caller has called the listener, is attached, and holds nothing. A drop may run any code, including calls of
    /// this cache.
    #[inline]
    pub fn release(&self, removed: &mut Removals<K, V>) {
        self.release_each(removed, |_| {});
    }

    /// Like [`release`](Self::release), and calls `before_drop` for each removal.
    #[inline]
    pub fn release_each(&self, removed: &mut Removals<K, V>, mut before_drop: impl FnMut(&Removal<K, V>)) {
        // Most calls remove one value. It is read in place and moved in two registers: a wide load of two words
        // that were just stored one by one would wait for both stores.
        let Some(first) = removed.first() else { return };
        before_drop(first);
        let is_mortal = first.is_mortal();
        if let Some(first) = removed.take_first().filter(|_| is_mortal) {
            self.retired.release_one(first);
        }
        if let Some(more) = removed.take_more() {
            let more = more.inspect(|removal| before_drop(removal)).filter(Removal::is_mortal);
            let mut more = more.map(|removal| removal.pair);
            if let Some(first) = more.next() {
                self.retired.release(first, more);
            }
        }
    }

    /// Drops everything that waits for a drop, unless another thread is reading, and frees unused memory.
    ///
    /// The caller is attached and holds nothing.
    pub fn flush(&self) {
        self.shards.all().iter().for_each(Shard::prepare_trim);
        self.retired.flush();
        self.shards.all().iter().for_each(Shard::trim);
        self.retired.free_memory();
    }
}
