//! The write path of one shard: `set` and `remove`, with the lock or without it.
//!
//! # How it works
//! [`Shard::lock_and_find`] takes the lock and finds the key. The rest of a write is a [`WriteTxn`](super::WriteTxn)
//! under that lock. A value that replaces another, where nothing else changes, needs no transaction. If `replace_fast`
//! can do it, it needs no lock either.
//!
//! # Why `replace_fast` may skip the lock
//! - The cache has no listener and no weigher, so neither the old key nor a weight matters.
//! - No entry of the cache can have a deadline: `can_expire` is unset. A `set` with a deadline sets that flag and waits
//!   for all pinned threads, so it cannot overlap a replacement that saw the flag unset.
//! - No computation of the key is in flight. Such computations have to be superseded under the lock.
//!
//! With it, two threads that `get` and `set` present keys are 7 to 11 % faster. A thread tries it only if its last
//! `set` replaced a value, since a useless try makes a `set` that evicts 5 % slower.

use crate::collections::try_reserve::NoMemory;
use crate::expiry::Lifetime;
use crate::map::entry::Entry;
use crate::map::query::KeyQuery;
use crate::map::removal::{Cause, Removals};
use crate::map::{FastLookup, HeldLock, LockedMap, SlotRef};
use crate::reclaim::Handle;
use crate::reclaim::{Guard, Retired, pin};
use crate::sync::{is_far, record_set};

use super::{Budget, Shard, ShardView, State};

/// A value to write, and how.
pub(crate) struct Write<V> {
    pub value: V,
    pub weight: u32,
    pub lifetime: Lifetime,
    /// Whether the value is to be kept. Otherwise it counts as expired.
    pub is_kept: bool,
    pub kind: WriteKind,
}

/// The kind of a write: it decides whether a present value stays, and whether the write counts as an access.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteKind {
    /// It replaces a present value, and counts as an access.
    Set,
    /// It keeps a present value, and counts as an access.
    SetIfAbsent,
    /// It replaces a present value, which does not count as an access.
    Refresh,
}

/// The result of a write.
pub(crate) enum WriteOutcome<V> {
    /// The value was stored, or rejected: it is not to be kept, or it alone outweighs the capacity.
    Written,
    /// Nothing was written. The present value is kept, or, with `None`, `may_write` returned false.
    NotWritten(Option<V>),
}

/// The outcome of a write and its instant, unless there was no memory for it.
type TrySet<V> = Result<(WriteOutcome<V>, u64), NoMemory>;

/// The slot of a key's entry, if there is one, and the lock that keeps the entry there.
type LockedSlot<'a, K, V> = (Option<SlotRef>, HeldLock<'a, K, V, State>);

impl<K: Handle, V: Handle> Shard<K, V> {
    /// Replaces the value of a key without the lock. Returns the new value if only [`set`](Self::set) can store it.
    ///
    /// It calls `has_no_flights` after it found the entry. A computation that begins later finds that entry's value and
    /// returns it, so it needs no invalidation.
    #[inline(always)]
    pub fn replace_fast<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        value: V,
        has_no_flights: impl FnOnce() -> bool,
        removed: &mut Removals<K, V>,
    ) -> Result<(), V> {
        if !self.is_plain {
            return Err(value);
        }
        let pin = pin();
        let entry_ref = match self.map.find_fast(query, &pin) {
            FastLookup::Found(entry_ref, _) if !self.can_expire.is_set(&pin) => entry_ref,
            _ => {
                record_set(false);
                return Err(value);
            }
        };
        if !has_no_flights() {
            return Err(value);
        }
        let old = entry_ref.replace_value(value, &pin)?;
        self.record_replaced(entry_ref.entry, old, removed);
        Ok(())
    }

    /// Records that only the value of an entry was replaced.
    #[inline(always)]
    fn record_replaced(&self, entry: &Entry<K, V>, old: Retired<V>, removed: &mut Removals<K, V>) {
        removed.push(Retired::of(None).zip(old), Cause::Replaced);
        self.recorder.record(&entry.stamp);
    }

    /// Writes a value, unless a present one is to be kept or `may_write` returns false.
    ///
    /// `may_write` and `now` are called under the lock at the moment of the write, because a user's `__eq__` may have
    /// taken time before. `now` returns 0 if nothing can expire. Its result is returned.
    pub fn set<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        write: Write<V>,
        budget: &Budget,
        now: impl Fn() -> u64,
        may_write: impl Fn() -> bool,
        removed: &mut Removals<K, V>,
    ) -> Result<(WriteOutcome<V>, u64), Q::Error> {
        if !write.lifetime.is_endless() {
            self.can_expire.set();
        }
        // Law 1: the error is a user's object, so it is created after the unlock.
        self.try_set(query, write, budget, now, may_write, removed)?.map_err(|NoMemory| query.no_memory())
    }

    #[inline(always)]
    fn try_set<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        write: Write<V>,
        budget: &Budget,
        now: impl Fn() -> u64,
        may_write: impl Fn() -> bool,
        removed: &mut Removals<K, V>,
    ) -> Result<TrySet<V>, Q::Error> {
        let (slot_ref, mut held) = self.lock_and_find(query, removed)?;
        let (mut locked, mut guard) = held.parts();
        let now = now();
        let index = slot_ref.as_ref().map(SlotRef::index);
        let present = index.map(|index| self.map.entry_ref(index, &guard));
        let live = present.filter(|present| present.deadline() > now);
        if let Some(live) = live
            && write.kind == WriteKind::SetIfAbsent
        {
            self.recorder.record(&live.entry.stamp);
            if let Some(deadlines) = live.deadlines() {
                deadlines.touch(now);
            }
            let kept = live.entry.value(&guard.pinned()).clone();
            return Ok(Ok((WriteOutcome::NotWritten(kept), now)));
        }
        if !may_write() {
            return Ok(Ok((WriteOutcome::NotWritten(None), now)));
        }
        if let Some(live) = live
            && self.is_plain
            && write.is_kept
            && write.lifetime.is_endless()
            && live.deadlines().is_none()
        {
            // Only the value changes: the entry has no weight or deadline, and no listener needs the key.
            let old = locked.replace_value(live.entry, write.value);
            self.record_replaced(live.entry, old, removed);
            record_set(!self.can_expire.seems_set());
            return Ok(Ok((WriteOutcome::Written, now)));
        }
        if slot_ref.is_none() && is_far(locked.len()) {
            self.prefetch_order(&mut locked, &guard);
        }
        let mut txn = self.begin_write(&mut locked, budget, now, removed);
        if !(write.is_kept && budget.can_fit(write.weight)) {
            txn.reject(index, query.key(), write, &mut guard);
            txn.publish_weight();
            return Ok(Ok((WriteOutcome::Written, now)));
        }
        if let Some((index, live)) = index.zip(live) {
            if !write.lifetime.is_endless()
                && let Err(no_memory) = txn.reserve_deadlines(index, &live, write.lifetime)
            {
                return Ok(Err(no_memory));
            }
            txn.replace(index, &live, write, &guard);
            record_set(false);
            if txn.weight_change != 0 {
                txn.evict_over_budget(Some(index), &mut guard);
            }
            return Ok(Ok((WriteOutcome::Written, now)));
        }
        // A due entry counts as absent. It is removed with its key.
        if let Some(due) = index {
            txn.remove(due, Cause::Expired, &mut guard);
        }
        if let Err(no_memory) = txn.reserve(&write, &mut guard) {
            txn.publish_weight();
            return Ok(Err(no_memory));
        }
        let index = txn.insert(query, write, &guard);
        record_set(false);
        txn.evict_over_budget(Some(index), &mut guard);
        Ok(Ok((WriteOutcome::Written, now)))
    }

    /// Removes the entry of a key, and returns its value unless it was due.
    ///
    /// `supersede` and `now` are called under the lock at the moment of the removal. `supersede` is called even if the
    /// key is absent, because a computation of it may be in flight.
    pub fn remove<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        now: impl Fn() -> u64,
        budget: &Budget,
        supersede: impl Fn(),
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        let (slot_ref, mut held) = self.lock_and_find(query, removed)?;
        let (mut locked, mut guard) = held.parts();
        supersede();
        let Some(slot_ref) = slot_ref else { return Ok(None) };
        let mut txn = self.begin_write(&mut locked, budget, now(), removed);
        let was_due = txn.remove(slot_ref.index(), Cause::Explicit, &mut guard);
        txn.publish_weight();
        let last = removed.last().filter(|_| !was_due);
        Ok(last.map(|removal| removal.value().clone()))
    }

    /// Prefetches the memory that an insert and its victim will change in the order of the policy.
    ///
    /// It makes an insert that evicts 7 % faster if two threads write, because each of these lines was last written by
    /// the other core.
    #[inline(never)]
    fn prefetch_order(&self, locked: &mut LockedMap<'_, K, V, State>, guard: &Guard) {
        let state = locked.state();
        let view = ShardView { map: &self.map, weights: &state.weights, guard };
        state.policy.prefetch(&view);
        self.recorder.prefetch_insert();
    }

    /// Takes the lock and finds the slot of a key.
    ///
    /// A key that needs no user's code is looked up under the lock. Another key is looked up before, and the result is
    /// checked under the lock.
    #[inline(always)]
    pub(super) fn lock_and_find<'a, Q: KeyQuery<K>>(
        &'a self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<LockedSlot<'a, K, V>, Q::Error> {
        let mut held = self.map.lock();
        let (_, guard) = held.parts();
        let slot_ref = match self.map.find_fast(query, &guard) {
            FastLookup::Found(_, slot_ref) => Some(slot_ref),
            FastLookup::Absent => None,
            FastLookup::Undecided => {
                drop(guard);
                drop(held);
                return self.lock_and_find_slow(query, removed);
            }
        };
        drop(guard);
        Ok((slot_ref, held))
    }

    #[cold]
    fn lock_and_find_slow<'a, Q: KeyQuery<K>>(
        &'a self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<LockedSlot<'a, K, V>, Q::Error> {
        // The pin lasts until the lock is taken, so that the index is not used for another key before.
        let mut pin = pin();
        let mark = removed.held_keys_mark();
        loop {
            let slot_ref = self.map.find_slow(query, &mut pin, removed, mark)?;
            let mut held = self.map.lock();
            let (locked, guard) = held.parts();
            let is_unchanged = match &slot_ref {
                Some(slot_ref) => locked.is_valid(slot_ref, &guard),
                None => locked.is_absent(query, removed.unequal_since(mark), &guard),
            };
            drop(guard);
            if is_unchanged {
                return Ok((slot_ref, held));
            }
        }
    }
}
