//! The entries of a shard in the order of their indices: iteration, and removals that name no key.

use std::ops::Range;

use crate::expiry::CacheClock;
use crate::expiry::NEVER;
use crate::map::removal::{Cause, Removals};
use crate::reclaim::Handle;
use crate::sync::Ordering;

use super::{Budget, Shard, ShardView};

/// The entries that are ranked under one lock.
pub(crate) const RANKED_PER_BATCH: usize = 256;

impl<K: Handle, V: Handle> Shard<K, V> {
    /// Returns an index above those of all present entries.
    pub fn end_index(&self) -> u32 {
        self.map.lock().parts().0.end_index()
    }

    /// Returns the next entry that is not due, with its index, in the range from `from` to `end`.
    pub fn next_entry(&self, mut from: u32, end: u32, clock: &CacheClock) -> Option<(u32, K, V)> {
        let mut held = self.map.lock();
        let (locked, guard) = held.parts();
        loop {
            let index = locked.next_live(from, &guard).filter(|&index| index < end)?;
            let deadline = self.map.deadline(index, &guard);
            if deadline == NEVER || deadline > clock.now() {
                let entry = self.map.entry(index, &guard);
                let key = entry.key.read(&guard).clone();
                let value = entry.value(&guard.pinned()).clone();
                if let Some((key, value)) = key.zip(value) {
                    return Some((index, key, value));
                }
            }
            from = index + 1;
        }
    }

    /// Returns the time of the policy, for [`rank_batch`](Self::rank_batch).
    pub fn policy_time(&self) -> u64 {
        self.recorder.time()
    }

    /// Ranks the entries of a batch that are not due, and returns the index from which to continue; `None` at the end.
    ///
    /// `time` is the time of the policy when the scan began. `place` gets the rank and the index of an entry, and returns
    /// `None` to leave it out. `ranked` must have room for [`RANKED_PER_BATCH`] entries.
    pub fn rank_batch<P>(
        &self,
        range: Range<u32>,
        time: u64,
        clock: &CacheClock,
        place: impl Fn(u64, u32) -> Option<P>,
        ranked: &mut Vec<(P, K, V)>,
    ) -> Option<u32> {
        let mut held = self.map.lock();
        let (mut locked, guard) = held.parts();
        let mut from = range.start;
        for _ in 0..RANKED_PER_BATCH {
            let index = locked.next_live(from, &guard).filter(|&index| index < range.end)?;
            from = index + 1;
            let deadline = self.map.deadline(index, &guard);
            if deadline != NEVER && deadline <= clock.now() {
                continue;
            }
            let state = locked.state();
            let view = ShardView { map: &self.map, weights: &state.weights, guard: &guard };
            let Some(place) = place(state.policy.rank(index, time, &view), index) else { continue };
            let entry = self.map.entry(index, &guard);
            let pair = entry.key.read(&guard).clone().zip(entry.value(&guard.pinned()).clone());
            ranked.extend(pair.map(|(key, value)| (place, key, value)));
        }
        Some(from)
    }

    /// Visits every key and value for the garbage collector, which calls while no thread is in a call.
    pub fn for_each(&self, mut visit: impl FnMut(&K, &V)) {
        let Some(mut held) = self.map.try_lock() else { return };
        let (locked, guard) = held.parts();
        let pin = guard.pinned();
        let mut from = 0;
        while let Some(index) = locked.next_live(from, &guard) {
            let entry = self.map.entry(index, &guard);
            if let (Some(key), Some(value)) = (entry.key.read(&guard).as_ref(), entry.value(&pin).as_ref()) {
                visit(key, value);
            }
            from = index + 1;
        }
    }

    /// Removes the entry of an index, if `predicate` holds for its current key and value.
    ///
    /// `predicate`, `now` and `supersede` are called under the lock; `supersede` gets the hash. Returns whether an
    /// entry was removed that was not due.
    pub fn remove_if(
        &self,
        index: u32,
        predicate: impl Fn(&K, &V) -> bool,
        now: impl Fn() -> u64,
        budget: &Budget,
        supersede: impl Fn(u64),
        removed: &mut Removals<K, V>,
    ) -> bool {
        let mut held = self.map.lock();
        let (mut locked, mut guard) = held.parts();
        if locked.next_live(index, &guard) != Some(index) {
            return false;
        }
        let mut txn = self.begin_write(&mut locked, budget, now(), removed);
        let pin = guard.pinned();
        let entry = self.map.entry(index, &guard);
        let was_due = loop {
            let value = entry.value(&pin);
            let is_match = match (entry.key.read(&guard).as_ref(), value.as_ref()) {
                (Some(key), Some(value)) => predicate(key, value),
                _ => false,
            };
            if !is_match {
                return false;
            }
            supersede(entry.hash.load(Ordering::Relaxed));
            // If a replacement without the lock came in between, the predicate decides about the new value.
            if let Some(was_due) = txn.remove_if_same(index, &value, Cause::Explicit, &guard) {
                break was_due;
            }
        };
        drop(pin);
        txn.publish_weight();
        locked.shrink(&mut guard);
        !was_due
    }

    /// Removes and returns some entry that is not due, preferably a cold one.
    ///
    /// `supersede` is called under the lock with the hash of each removed entry.
    pub fn pop_any(
        &self,
        now: u64,
        budget: &Budget,
        supersede: impl Fn(u64),
        removed: &mut Removals<K, V>,
    ) -> Option<(K, V)> {
        let mut held = self.map.lock();
        let (mut locked, mut guard) = held.parts();
        let mut txn = self.begin_write(&mut locked, budget, now, removed);
        let mut popped = None;
        while popped.is_none()
            && let Some(index) = txn.locked.state().policy.peek_cold()
        {
            supersede(self.map.entry(index, &guard).hash.load(Ordering::Relaxed));
            let was_due = txn.remove(index, Cause::Explicit, &mut guard);
            let last = txn.removed.last().filter(|_| !was_due);
            popped = last.and_then(|last| Some((last.key()?.clone(), last.value().clone())));
        }
        txn.publish_weight();
        popped
    }

    /// Removes a batch of entries for a cause, from an index on. Returns the index from which to continue; `None` at the end.
    pub fn clear_batch(
        &self,
        from: u32,
        cause: Cause,
        now: u64,
        budget: &Budget,
        supersede: impl Fn(),
        removed: &mut Removals<K, V>,
    ) -> Option<u32> {
        const MAX_ENTRIES_PER_CALL: usize = 256;
        let mut held = self.map.lock();
        let (mut locked, mut guard) = held.parts();
        supersede();
        let mut txn = self.begin_write(&mut locked, budget, now, removed);
        let mut next = Some(from);
        for _ in 0..MAX_ENTRIES_PER_CALL {
            next = next.and_then(|from| txn.locked.next_live(from, &guard));
            let Some(index) = next else { break };
            if !txn.removed.try_reserve(1) {
                break;
            }
            txn.remove_no_shrink(index, cause, &guard);
            // Keys and values are anywhere in memory and are dropped soon. Their lines arrive while the loop goes on.
            if let Some(last) = txn.removed.last() {
                last.key().into_iter().for_each(Handle::prefetch);
                last.value().prefetch();
            }
            next = Some(index + 1);
        }
        txn.publish_weight();
        if next.is_none() {
            locked.shrink(&mut guard);
        }
        next
    }
}
