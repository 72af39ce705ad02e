//! One shard: a map, a policy and deadlines under one lock.
//!
//! # How it works
//! - A read looks up the key, compares the deadline, clones the value and records the access. It takes no lock.
//! - A write takes the lock, finds the key, and changes the map, the policy and the deadlines together (`write`,
//!   `transaction`). If a user's `__eq__` has to run, the write looks up the key first, without the lock. Then it locks
//!   and checks that the result is still right.
//! - A `set` that only replaces a value needs no lock ([`Shard::replace_fast`]).
//! - A call with a loader may compute a value anew (`refresh`).
//! - A write that depends on the present value or deadlines checks them under the lock (`update`).
//! - Iterations and removals without a key go by index (`scan`).
//! - `weights` has the weight of each entry and the [`Budget`], `shards` the list of all shards of a cache.
//!
//! Under the lock no key or value is dropped and no foreign code runs (law 1). Removed entries go to a list, which the
//! caller hands up.
//!
//! All shards of a cache share one [`Budget`] of weight. A write sums up its changes and adds them to the budget once.
//! So a write that evicts as much weight as it adds writes no shared counter.
//!
//! # Invariants
//! - `known`: the policy knows exactly the live entries, and the deadline queue exactly those that have a deadline.
//! - `published`: before the lock is released, [`Shard::next_due`] is at most the earliest deadline of the shard.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `next_due` | Release, by the holder of the lock | Acquire | see `Cache::schedule`, which combines all shards |

use std::time::Duration;

use crate::config::Config;
use crate::expiry::NEVER;
use crate::expiry::{CacheClock, DeadlineQueue};
use crate::map::query::KeyQuery;
use crate::map::removal::Removals;
use crate::map::{EntryRef, FastLookup, LockedMap, Map};
use crate::policy::{self, AccessRecorder, EntryView, EntryViews, Policy};
use crate::reclaim::Handle;
use crate::reclaim::{Guard, OnceFlag, Pin, pin};
use crate::sync::{AtomicU64, Ordering, Padded};

mod refresh;
mod scan;
pub(crate) mod shards;
mod transaction;
mod update;
mod weights;
mod write;

pub use self::refresh::{LoadLookup, RefreshClaim};
pub(crate) use self::scan::RANKED_PER_BATCH;
#[doc(hidden)]
pub use self::shards::SHARD_SHIFT;
use self::transaction::WriteTxn;
pub(crate) use self::update::Durations;
pub(crate) use self::weights::Budget;
use self::weights::Weights;
pub(crate) use self::write::{Write, WriteKind, WriteOutcome};

/// How many entries one call checks for deadlines.
const MAX_EXPIRY_STEPS_PER_CALL: usize = 32;

/// How many entries a resize evicts under one lock.
const MAX_EVICTIONS_PER_STEP: usize = 256;

pub(crate) struct Shard<K, V> {
    map: Map<K, V, State>,
    recorder: AccessRecorder,
    next_due: Padded<AtomicU64>,
    has_listener: bool,
    /// Whether values are computed anew.
    has_refresh: bool,
    /// Whether each entry weighs 1 and there is no listener.
    is_plain: bool,
    /// Set before an entry has a deadline, and from the start in a cache with `refresh`. Until then a value may be
    /// replaced without the lock.
    can_expire: OnceFlag,
}

/// The state that the lock guards besides the map. The fields that every write needs come first.
#[repr(C)]
struct State {
    policy: Policy,
    weights: Weights,
    deadlines: DeadlineQueue,
}

/// Whether a bound of deadlines is so close that an entry may be due at `now`: within a tick.
pub(crate) fn may_be_due(bound: u64, now: u64) -> bool {
    bound <= now.saturating_add(DeadlineQueue::TICK)
}

/// The entries of a shard, as its policy sees them.
struct ShardView<'a, K, V> {
    map: &'a Map<K, V, State>,
    weights: &'a Weights,
    guard: &'a Guard<'a>,
}

impl<K: Handle, V: Handle> EntryViews for ShardView<'_, K, V> {
    #[inline]
    fn entry(&self, index: u32) -> EntryView<'_> {
        let entry = self.map.entry(index, self.guard);
        // Relaxed: the holder of the lock wrote it.
        EntryView { hash: entry.hash.load(Ordering::Relaxed), stamp: &entry.stamp }
    }

    fn weight(&self, index: u32) -> u64 {
        self.weights.get(index)
    }

    fn is_weighted(&self) -> bool {
        self.weights.are_recorded()
    }

    /// Unlike `entry`, it does not read the entry.
    fn stamp(&self, index: u32) -> &AtomicU64 {
        &self.map.entry(index, self.guard).stamp
    }

    fn prefetch_remove(&self, hash: u64) {
        self.map.prefetch_slot(hash, self.guard);
    }
}

impl<K: Handle, V: Handle> Shard<K, V> {
    /// Creates all shards of a cache that has this capacity now.
    pub fn for_cache(config: &Config, capacity: u64, count: usize) -> Box<[Self]> {
        let policies = policy::for_shards(config.policy, capacity, count);
        let shard = |(recorder, policy)| {
            let weights = Weights::new(config.weighted);
            Shard {
                map: Map::new(
                    config.lifetime,
                    config.refresh,
                    State { policy, deadlines: DeadlineQueue::default(), weights },
                ),
                recorder,
                next_due: Padded(AtomicU64::new(NEVER)),
                has_listener: config.has_listener,
                has_refresh: config.refresh != 0,
                is_plain: !config.has_listener && !config.weighted,
                can_expire: OnceFlag::new(!config.lifetime.is_endless() || config.refresh != 0),
            }
        };
        policies.map(shard).collect()
    }

    /// Returns the value of a key, unless it is absent or due.
    ///
    /// `is_access` says whether this counts as an access. `now` is 0 if the caller saw that nothing can expire.
    #[inline]
    pub fn get<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        is_access: bool,
        now: u64,
        clock: &CacheClock,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        let found = self.with_entry(query, now, removed, |entry_ref, _, now, pin| {
            self.live_value::<false>(entry_ref, is_access, now, clock, pin).flatten()
        })?;
        Ok(found.flatten())
    }

    /// Calls `code` with the entry of a key, if there is one, its index, and the instant: `now`, or 0 if it is to be read
    /// again.
    #[inline(always)]
    fn with_entry<Q: KeyQuery<K>, T>(
        &self,
        query: &Q,
        now: u64,
        removed: &mut Removals<K, V>,
        code: impl FnOnce(EntryRef<'_, K, V>, u32, u64, &Pin<'_>) -> T,
    ) -> Result<Option<T>, Q::Error> {
        let mut pin = pin();
        let (entry_ref, index, now) = match self.map.find_fast(query, &pin) {
            FastLookup::Found(entry_ref, slot_ref) => (entry_ref, slot_ref.index(), now),
            FastLookup::Absent => return Ok(None),
            FastLookup::Undecided => {
                match self.map.find_slow(query, &mut pin, removed, removed.held_keys_mark())? {
                    // The user's code may have taken time, so the caller's `now` is old. With 0, the clock is read
                    // again.
                    Some(slot_ref) => (self.map.entry_ref(slot_ref.index(), &pin), slot_ref.index(), 0),
                    None => return Ok(None),
                }
            }
        };
        Ok(Some(code(entry_ref, index, now, &pin)))
    }

    /// Returns the value of a key and counts the access. Returns `None` if only [`get`](Self::get) can answer; with
    /// `FOR_LOAD`, also if the value is to be computed anew.
    #[inline(always)]
    pub fn try_get_fast<const FOR_LOAD: bool, Q: KeyQuery<K>>(
        &self,
        query: &Q,
        now: u64,
        clock: &CacheClock,
    ) -> Option<Option<V>> {
        let pin = pin();
        match self.map.find_fast(query, &pin) {
            FastLookup::Found(entry_ref, _) => self.live_value::<FOR_LOAD>(entry_ref, true, now, clock, &pin),
            FastLookup::Absent => Some(None),
            FastLookup::Undecided => None,
        }
    }

    /// Returns the value of an entry, unless it is due. With `FOR_LOAD` it returns `None` if the value is to be computed
    /// anew.
    #[inline(always)]
    fn live_value<const FOR_LOAD: bool>(
        &self,
        entry_ref: EntryRef<'_, K, V>,
        is_access: bool,
        now: u64,
        clock: &CacheClock,
        pin: &Pin<'_>,
    ) -> Option<Option<V>> {
        if let Some(deadlines) = entry_ref.deadlines() {
            let deadline = deadlines.deadline();
            if deadline != NEVER {
                // The first deadline of the cache may have come after the caller saw that nothing can expire.
                let now = if now == 0 { clock.now() } else { now };
                if deadline <= now {
                    return Some(None);
                }
                if is_access {
                    deadlines.touch(now);
                }
            }
            if FOR_LOAD && let Some(refresh) = deadlines.refresh() {
                let now = if now == 0 { clock.now() } else { now };
                if refresh.is_due(now) {
                    return None;
                }
            }
        }
        let value = entry_ref.entry.value(pin).clone();
        if is_access && value.is_some() {
            self.recorder.record(&entry_ref.entry.stamp);
        }
        Some(value)
    }

    /// Returns the remaining time of a key's entry; `None` if there is no entry or no deadline.
    pub fn expires_in<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        clock: &CacheClock,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<Duration>, Q::Error> {
        let mut pin = pin();
        let mark = removed.held_keys_mark();
        let Some(slot_ref) = self.map.find(query, &mut pin, removed, mark)? else { return Ok(None) };
        // A cache where nothing can expire does not read the clock.
        let deadlines = self.map.entry_ref(slot_ref.index(), &pin).deadlines();
        let deadlines = deadlines.filter(|deadlines| deadlines.deadline() != NEVER);
        let remaining = deadlines.and_then(|deadlines| deadlines.time_left(clock.now()));
        Ok(remaining.filter(|remaining| !remaining.is_zero()))
    }

    /// Removes due entries: up to [`MAX_EXPIRY_STEPS_PER_CALL`], or with `all` every one.
    pub fn expire(&self, now: u64, all: bool, budget: &Budget, removed: &mut Removals<K, V>) {
        let held = if all { Some(self.map.lock()) } else { self.map.try_lock() };
        let Some(mut held) = held else { return };
        let (mut locked, mut guard) = held.parts();
        let mut txn = self.begin_write(&mut locked, budget, now, removed);
        let mut steps = if all { usize::MAX } else { MAX_EXPIRY_STEPS_PER_CALL };
        while txn.expire_batch(&mut steps, &mut guard) {}
        txn.publish_weight();
        let is_done = steps > 0;
        let next_due = locked.state().deadlines.next_due(now, is_done);
        self.next_due.0.store(next_due, Ordering::Release);
    }

    /// Evicts from this shard until the whole cache fits its capacity, or the shard has no candidate left.
    pub fn evict_over_budget(&self, now: u64, budget: &Budget, removed: &mut Removals<K, V>) {
        let mut held = self.map.lock();
        let (mut locked, mut guard) = held.parts();
        let mut txn = self.begin_write(&mut locked, budget, now, removed);
        txn.evict_over_budget(None, &mut guard);
    }

    /// Takes over another share of the capacity.
    ///
    /// The weight of every earlier write of this shard is seen by the caller, and every later write sees the capacity
    /// that the caller has stored.
    pub fn set_share(&self, share: u64) {
        self.map.lock().parts().0.state().policy.set_share(share);
    }

    /// Evicts this shard's part of an excess of the whole cache: as large a part of its entries as `excess` is of
    /// `total`, and at most [`MAX_EVICTIONS_PER_STEP`].
    pub fn evict_part(
        &self,
        (excess, total): (u64, u64),
        share: u64,
        now: u64,
        budget: &Budget,
        removed: &mut Removals<K, V>,
    ) {
        let mut held = self.map.lock();
        let (mut locked, mut guard) = held.parts();
        locked.state().policy.set_share(share);
        let part = locked.len() as u128 * u128::from(excess);
        let part = part.div_ceil(u128::from(total.max(1))).min(MAX_EVICTIONS_PER_STEP as u128);
        let mut txn = self.begin_write(&mut locked, budget, now, removed);
        txn.evict_some(part as usize, &mut guard);
    }

    /// Prepares a [`trim`](Self::trim): the caller lets a grace period pass in between.
    pub fn prepare_trim(&self) {
        self.map.lock().parts().0.prepare_trim();
    }

    /// Frees unused memory.
    pub fn trim(&self) {
        let mut held = self.map.lock();
        let (mut locked, mut guard) = held.parts();
        let end = locked.trim(&mut guard);
        let live = locked.len();
        let state = locked.state();
        state.policy.trim(end, live);
        state.deadlines.trim(end);
        state.weights.trim(end);
    }

    /// Waits until no write is in progress.
    ///
    /// Every later writer sees the caller's earlier writes, and the caller sees those of earlier writers.
    pub fn sync_with_writers(&self) {
        self.with_lock(|| ());
    }

    /// Runs code under the lock. It must not run a user's code, drop references or take another shard's lock.
    pub fn with_lock(&self, code: impl FnOnce()) {
        let locked = self.map.lock();
        code();
        drop(locked);
    }

    /// Returns an instant before which no entry of the shard is due.
    pub fn next_due(&self) -> u64 {
        // Acquire: pairs with the Release of the stores; see `Cache::schedule`.
        self.next_due.0.load(Ordering::Acquire)
    }

    /// Whether an entry of the shard may be due at `now`.
    ///
    /// It looks a tick ahead, because a check within a tick postpones the next one to the end of the tick.
    pub fn may_be_due(&self, now: u64) -> bool {
        may_be_due(self.next_due(), now)
    }

    /// Returns an instant before which no entry of the shard is due; `NEVER` if none has a deadline.
    ///
    /// Both the queue and `next_due` are bounds, and either may be the closer one. A bound of `next_due` may be late by
    /// a tick, within the tick of the last check.
    pub fn earliest_deadline(&self) -> u64 {
        let mut held = self.map.lock();
        held.parts().0.state().deadlines.earliest().max(self.next_due())
    }

    pub fn count(&self) -> usize {
        self.map.lock().parts().0.len()
    }

    fn begin_write<'a, 'm>(
        &'m self,
        locked: &'a mut LockedMap<'m, K, V, State>,
        budget: &'a Budget,
        now: u64,
        removed: &'a mut Removals<K, V>,
    ) -> WriteTxn<'a, 'm, K, V> {
        WriteTxn { shard: self, locked, budget, now, weight_change: 0, removed }
    }

    /// Checks the invariants of the shard and of everything in it, and returns its weight.
    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self) -> u64 {
        let mut held = self.map.lock();
        let (mut locked, guard) = held.parts();
        locked.validate(&guard);
        let mut live = Vec::new();
        while let Some(index) = locked.next_live(live.last().map_or(0, |last| last + 1), &guard) {
            live.push(index);
        }
        let state = locked.state();
        let view = ShardView { map: &self.map, weights: &state.weights, guard: &guard };
        state.policy.validate(&live, &view);
        let mut queued = state.deadlines.indices();
        queued.sort_unstable();
        let has_deadline = |index: &u32| self.map.deadline(*index, &guard) != NEVER;
        let expected: Vec<u32> = live.iter().copied().filter(has_deadline).collect();
        assert_eq!(queued, expected, "`known`: each entry with a deadline is queued");
        live.iter().map(|&index| state.weights.get(index)).sum()
    }
}

impl<K, V> Shard<K, V> {
    /// Lowers [`next_due`](Self::next_due) so that the shard is checked when this deadline is due.
    fn publish_deadline(&self, deadline: u64) {
        if deadline == NEVER {
            return;
        }
        let due = DeadlineQueue::due_after(deadline);
        // Release: pairs with the Acquire in `next_due`. The load is Relaxed: only the holder of the lock stores.
        if due < self.next_due.0.load(Ordering::Relaxed) {
            self.next_due.0.store(due, Ordering::Release);
        }
    }
}
