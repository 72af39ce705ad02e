//! One write in progress: the shard lock is held, and the map, the policy and the deadlines change together.
//!
//! # How it works
//! A [`WriteTxn`] collects removed entries and sums up the weight that it changed. The caller ends it with
//! [`WriteTxn::publish_weight`] or [`WriteTxn::evict_over_budget`], which add that sum to the budget.
//!
//! # Invariants
//! - `published-weight`: when the lock is released, `weight_change` is 0.

use crate::collections::try_reserve::NoMemory;
use crate::expiry::MAX_DUE_PER_CALL;
use crate::expiry::{Lifetime, NEVER};
use crate::map::query::KeyQuery;
use crate::map::removal::{Cause, Removals};
use crate::map::{EntryRef, LockedMap};
use crate::policy::EntryView;
use crate::reclaim::Handle;
use crate::reclaim::{Borrowed, Guard, Retired};
use crate::sync::{HAS_GIL, sized};

use super::{Budget, MAX_EXPIRY_STEPS_PER_CALL, Shard, ShardView, State, Write, WriteKind};

/// The entries that a write evicts while a resize evicts, too.
const MAX_EVICTIONS_BESIDE_RESIZE: usize = sized(64, 1);

pub(super) struct WriteTxn<'a, 'm, K, V> {
    pub shard: &'m Shard<K, V>,
    pub locked: &'a mut LockedMap<'m, K, V, State>,
    pub budget: &'a Budget,
    pub now: u64,
    /// The weight that was added and not yet published; negative if more was removed.
    pub weight_change: i64,
    pub removed: &'a mut Removals<K, V>,
}

impl<K: Handle, V: Handle> WriteTxn<'_, '_, K, V> {
    /// Reserves the memory of a new entry.
    #[inline]
    pub fn reserve(&mut self, write: &Write<V>, guard: &mut Guard) -> Result<(), NoMemory> {
        let index = self.locked.reserve(guard)?;
        let state = self.locked.state();
        state.policy.reserve(index)?;
        state.weights.reserve(index)?;
        if self.lifetime_from_now(write).is_none() {
            return Ok(());
        }
        let entry_ref = self.shard.map.entry_ref(index, guard);
        self.reserve_deadlines(index, &entry_ref, write.lifetime)
    }

    /// Reserves the memory that an entry needs for its times.
    #[inline]
    pub fn reserve_deadlines(
        &mut self,
        index: u32,
        entry_ref: &EntryRef<'_, K, V>,
        lifetime: Lifetime,
    ) -> Result<(), NoMemory> {
        self.locked.reserve_deadlines(entry_ref, lifetime)?;
        if lifetime.is_endless() {
            return Ok(());
        }
        self.locked.state().deadlines.reserve(index)
    }

    /// Inserts an entry for which memory is reserved, and returns its index.
    pub fn insert<Q: KeyQuery<K>>(&mut self, query: &Q, write: Write<V>, guard: &Guard) -> u32 {
        let shard = self.shard;
        let hash = query.hash();
        let lifetime = self.lifetime_from_now(&write);
        let (index, entry, deadline) = self.locked.insert(hash, query.key(), write.value, lifetime, guard);
        let live = self.locked.len();
        let state = self.locked.state();
        state.weights.set(index, write.weight);
        self.weight_change += state.weights.get(index) as i64;
        let view = ShardView { map: &shard.map, weights: &state.weights, guard };
        state.policy.insert(index, EntryView { hash, stamp: &entry.stamp }, live, &view, &shard.recorder);
        self.update_deadline(index, NEVER, deadline);
        index
    }

    pub fn replace(&mut self, index: u32, entry_ref: &EntryRef<'_, K, V>, write: Write<V>, guard: &Guard) {
        let old_deadline = entry_ref.deadline();
        let lifetime = self.lifetime_from_now(&write);
        let is_access = write.kind != WriteKind::Refresh;
        let (old, deadline) = self.locked.replace(entry_ref, write.value, lifetime);
        self.record_replaced(index, entry_ref, old, write.weight, is_access, guard);
        self.update_deadline(index, old_deadline, deadline);
    }

    /// Records a replacement: the removal of the old value, the new weight, and the access if it counts as one.
    #[inline(always)]
    pub fn record_replaced(
        &mut self,
        index: u32,
        entry_ref: &EntryRef<'_, K, V>,
        old: Retired<V>,
        weight: u32,
        is_access: bool,
        guard: &Guard,
    ) {
        let shard = self.shard;
        let key = if shard.has_listener { entry_ref.entry.key.read(guard).clone() } else { None };
        self.removed.push(Retired::of(key).zip(old), Cause::Replaced);
        if is_access {
            shard.recorder.record(&entry_ref.entry.stamp);
        }
        let state = self.locked.state();
        let old_weight = state.weights.get(index);
        state.weights.set(index, weight);
        let weight = state.weights.get(index);
        if weight != old_weight {
            self.weight_change += weight as i64 - old_weight as i64;
            let view = ShardView { map: &shard.map, weights: &state.weights, guard };
            state.policy.update_weight(index, old_weight, &view);
        }
    }

    /// Starts new deadlines of an entry, for which memory is reserved.
    pub fn restart_deadlines(&mut self, index: u32, entry_ref: &EntryRef<'_, K, V>, lifetime: Lifetime) {
        let old_deadline = entry_ref.deadline();
        let deadline = self.locked.restart_deadlines(entry_ref, self.now, lifetime);
        self.update_deadline(index, old_deadline, deadline);
    }

    #[inline]
    fn update_deadline(&mut self, index: u32, old: u64, new: u64) {
        if new != old {
            self.locked.state().deadlines.update(index, old, new);
            self.shard.publish_deadline(new);
        }
    }

    /// Rejects a value that is not to be kept, or alone outweighs the capacity.
    ///
    /// The value is reported as removed. The former entry of the key, at `index`, is removed too.
    pub fn reject(&mut self, index: Option<u32>, key: K, write: Write<V>, guard: &mut Guard) {
        if let Some(index) = index {
            self.remove(index, Cause::Replaced, guard);
        }
        let cause = if write.is_kept { Cause::Size } else { Cause::Expired };
        self.removed.push(Retired::of((Some(key), write.value)), cause);
    }

    /// Removes a live entry, and pushes it as the last one to `removed`. Returns whether it was due.
    ///
    /// It does not return the value, since a caller that needs none would drop it under the lock.
    pub fn remove(&mut self, index: u32, cause: Cause, guard: &mut Guard) -> bool {
        let was_due = self.remove_no_shrink(index, cause, guard);
        self.locked.shrink(guard);
        was_due
    }

    /// Removes a live entry, and leaves it to the caller to shrink the table.
    ///
    /// A caller that removes many entries shrinks once at the end. Tables of all sizes in between would fill the heap.
    pub fn remove_no_shrink(&mut self, index: u32, cause: Cause, guard: &Guard) -> bool {
        self.remove_from_policy(index, None, cause, guard)
    }

    /// Removes a live entry if its value is still `expected`. Returns whether it was due; `None` if the value changed.
    ///
    /// The caller shrinks the table.
    pub fn remove_if_same(
        &mut self,
        index: u32,
        expected: &Borrowed<'_, Option<V>>,
        cause: Cause,
        guard: &Guard,
    ) -> Option<bool> {
        let value = self.locked.take_value_if_same(index, expected, guard)?;
        Some(self.remove_from_policy(index, Some(value), cause, guard))
    }

    /// Removes an entry from the policy, then from the map. `taken` is its value, if it was taken before.
    fn remove_from_policy(
        &mut self,
        index: u32,
        taken: Option<Retired<V>>,
        cause: Cause,
        guard: &Guard,
    ) -> bool {
        let state = self.locked.state();
        let view = ShardView { map: &self.shard.map, weights: &state.weights, guard };
        state.policy.remove(index, &view);
        self.remove_from_map(index, taken, cause, guard)
    }

    /// Removes an entry that the policy no longer has.
    fn remove_from_map(
        &mut self,
        index: u32,
        taken: Option<Retired<V>>,
        cause: Cause,
        guard: &Guard,
    ) -> bool {
        let deadline = self.locked.deadline(index, guard);
        let is_due = deadline <= self.now;
        let state = self.locked.state();
        self.weight_change -= state.weights.get(index) as i64;
        if deadline != NEVER {
            state.deadlines.remove(index);
        }
        let pair = self.locked.remove(index, taken, guard);
        self.removed.push(pair, if is_due { Cause::Expired } else { cause });
        is_due
    }

    /// Removes a batch of due entries. Returns whether there were any.
    ///
    /// Each entry that it checks takes one of `steps`. Without memory for the list, it removes nothing and sets `steps`
    /// to 0.
    pub fn expire_batch(&mut self, steps: &mut usize, guard: &mut Guard) -> bool {
        if !self.removed.try_reserve(MAX_DUE_PER_CALL) {
            *steps = 0;
            return false;
        }
        let map = &self.shard.map;
        let deadline = |index| map.deadline(index, guard);
        let due = self.locked.state().deadlines.take_due(self.now, steps, deadline);
        for &index in &due {
            self.remove(index, Cause::Expired, guard);
        }
        !due.is_empty()
    }

    /// Evicts until the whole cache fits its capacity, or no candidate is left but `keep`. Due entries go first.
    ///
    /// Beside a resize, it evicts at least as much weight as it added, and may leave the rest. It publishes the weight.
    pub fn evict_over_budget(&mut self, keep: Option<u32>, guard: &mut Guard) {
        let shard = self.shard;
        let mut steps = MAX_EXPIRY_STEPS_PER_CALL;
        let mut evictions = 0;
        loop {
            while self.budget.is_over(self.weight_change) {
                if evictions == MAX_EVICTIONS_BESIDE_RESIZE {
                    evictions = 0;
                    if self.leave_rest_to_resize() {
                        return;
                    }
                }
                if !self.evict_next(keep, &mut steps, guard) {
                    return self.publish_weight();
                }
                evictions += 1;
            }
            if self.weight_change == 0 {
                break;
            }
            self.publish_weight();
            // Without a GIL, other threads may have added weight since the check, so the budget is checked again.
            if HAS_GIL {
                break;
            }
        }
        let state = self.locked.state();
        state.policy.demote_window_overflow(&ShardView { map: &shard.map, weights: &state.weights, guard });
    }

    /// Evicts up to `max_evictions` entries while the whole cache exceeds its capacity. It publishes the weight.
    pub fn evict_some(&mut self, max_evictions: usize, guard: &mut Guard) {
        let mut steps = MAX_EXPIRY_STEPS_PER_CALL;
        for _ in 0..max_evictions {
            if !self.budget.is_over(self.weight_change) || !self.evict_next(None, &mut steps, guard) {
                break;
            }
        }
        self.publish_weight();
    }

    /// Evicts the next victim, or a batch of due entries. Returns false if there is no candidate but `keep`, or no
    /// memory for the list.
    #[inline(always)]
    fn evict_next(&mut self, keep: Option<u32>, steps: &mut usize, guard: &mut Guard) -> bool {
        let shard = self.shard;
        if shard.may_be_due(self.now) && self.expire_batch(steps, guard) {
            return true;
        }
        if !self.removed.try_reserve(1) {
            return false;
        }
        let state = self.locked.state();
        let view = ShardView { map: &shard.map, weights: &state.weights, guard };
        let Some(victim) = state.policy.take_victim(keep, &view) else { return false };
        self.remove_from_map(victim, None, Cause::Size, guard);
        self.locked.shrink(guard);
        true
    }

    /// Publishes the weight and returns true if a resize will evict the excess.
    #[cold]
    fn leave_rest_to_resize(&mut self) -> bool {
        if self.weight_change > 0 {
            return false;
        }
        self.publish_weight();
        self.budget.is_resizing()
    }

    /// Returns the lifetime of the value with the instant at which it begins; `None` if it has no end and the value is
    /// never computed anew.
    fn lifetime_from_now(&self, write: &Write<V>) -> Option<(u64, Lifetime)> {
        let has_times = !write.lifetime.is_endless() || self.shard.has_refresh;
        has_times.then_some((self.now, write.lifetime))
    }

    /// Adds the weight that changed since the last call to the budget.
    pub fn publish_weight(&mut self) {
        self.budget.add(std::mem::take(&mut self.weight_change));
    }
}
