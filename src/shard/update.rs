//! Writes that depend on the present entry: a value in place of the one that the caller saw, and new deadlines.
//!
//! # How it works
//! The caller looks at the entry, runs a user's code with nothing held, and then writes. The write takes the lock and
//! asks whether the entry still holds the value that was seen. A replacement without the lock may come after that
//! question, so the write is an exchange of the two values, which fails if the value changed.
//!
//! # Why deadlines are restarted under the lock
//! A use moves the time to idle without the lock, always to a later instant. New durations may end sooner, and then the
//! queue of deadlines must know.

use crate::collections::try_reserve::NoMemory;
use crate::config::Config;
use crate::expiry::{CacheClock, Lifetime, NEVER};
use crate::map::query::KeyQuery;
use crate::map::removal::{Cause, Removals};
use crate::map::{EntryRef, SlotRef};
use crate::reclaim::{Guard, Handle};

use super::transaction::WriteTxn;
use super::{Budget, Shard, Write};

/// The durations of an update.
pub(crate) struct Durations {
    /// Those that the caller gave.
    given: Lifetime,
    /// Those of the cache, which no entry exceeds.
    of_cache: Lifetime,
    /// Whether no restart exceeds the time to live that the entry has.
    is_bounded_by_own_ttl: bool,
}

impl Durations {
    pub fn new(given: Lifetime, config: &Config) -> Self {
        Durations { given, of_cache: config.lifetime, is_bounded_by_own_ttl: config.has_ttl_function }
    }

    /// Returns the durations of a new entry.
    fn of_new(&self) -> Lifetime {
        self.of_cache.min(self.given)
    }

    /// Returns the durations of an entry whose deadlines start anew. One that was not given stays the entry's own.
    fn of_restarted<K, V>(&self, live: &EntryRef<'_, K, V>) -> Lifetime {
        let own = live.deadlines().map_or_else(Lifetime::default, |deadlines| deadlines.lifetime());
        let bound = Lifetime { ttl: if self.is_bounded_by_own_ttl { own.ttl } else { 0 }, tti: 0 };
        self.of_cache.min(bound).min(self.given.or(own))
    }
}

/// The result of an update with its instant, unless there was no memory for it.
type TryUpdate<T> = Result<(T, u64), NoMemory>;

impl<K: Handle, V: Handle> Shard<K, V> {
    /// Writes a value if `is_same` holds for the present one, or for `None` if the key is absent. Returns the value if
    /// it was not written.
    ///
    /// A present entry keeps its deadlines, unless durations are given. `is_same`, `supersede` and `now` are called
    /// under the lock. `now` returns 0 if nothing can expire. The instant of the write is returned.
    #[expect(clippy::too_many_arguments, reason = "the caller has one of each, and no two belong together")]
    pub fn set_if_same<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        write: Write<V>,
        durations: &Durations,
        is_same: impl Fn(Option<&V>) -> bool,
        budget: &Budget,
        clock: &CacheClock,
        now: impl Fn() -> u64,
        supersede: impl Fn(),
        removed: &mut Removals<K, V>,
    ) -> Result<(Option<V>, u64), Q::Error> {
        if !write.lifetime.is_endless() {
            self.can_expire.set();
        }
        // Law 1: the error is a user's object, so it is created after the unlock.
        self.try_set_if_same(query, write, durations, is_same, budget, clock, now, supersede, removed)?
            .map_err(|NoMemory| query.no_memory())
    }

    /// A value that is not written leaves this call with its result, or with `write`, which outlives the lock (law 1).
    #[expect(clippy::too_many_arguments, reason = "those of `set_if_same`")]
    fn try_set_if_same<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        write: Write<V>,
        durations: &Durations,
        is_same: impl Fn(Option<&V>) -> bool,
        budget: &Budget,
        clock: &CacheClock,
        now: impl Fn() -> u64,
        supersede: impl Fn(),
        removed: &mut Removals<K, V>,
    ) -> Result<TryUpdate<Option<V>>, Q::Error> {
        let (slot_ref, mut held) = self.lock_and_find(query, removed)?;
        let (mut locked, mut guard) = held.parts();
        let index = slot_ref.as_ref().map(SlotRef::index);
        let present = index.map(|index| self.map.entry_ref(index, &guard));
        let now = exact_now(present.as_ref(), now(), clock);
        let live = present.filter(|present| present.deadline() > now);
        let is_unchanged = match &live {
            Some(live) => is_same(live.entry.value(&guard.pinned()).as_ref()),
            None => is_same(None),
        };
        if !is_unchanged {
            return Ok(Ok((Some(write.value), now)));
        }
        supersede();
        let mut txn = self.begin_write(&mut locked, budget, now, removed);
        if !(write.is_kept && budget.can_fit(write.weight)) {
            txn.reject(index, query.key(), write, &mut guard);
            txn.publish_weight();
            return Ok(Ok((None, now)));
        }
        if let Some((index, live)) = index.zip(live) {
            let restart = (!durations.given.is_endless()).then(|| durations.of_restarted(&live));
            if let Some(lifetime) = restart
                && let Err(no_memory) = txn.reserve_deadlines(index, &live, lifetime)
            {
                return Ok(Err(no_memory));
            }
            let Write { value, weight, .. } = write;
            if let Err(value) = txn.replace_if_same(index, &live, value, weight, &is_same, &guard) {
                return Ok(Ok((Some(value), now)));
            }
            if let Some(lifetime) = restart {
                txn.restart_deadlines(index, &live, lifetime);
            }
            if txn.weight_change != 0 {
                txn.evict_over_budget(Some(index), &mut guard);
            }
            return Ok(Ok((None, now)));
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
        txn.evict_over_budget(Some(index), &mut guard);
        Ok(Ok((None, now)))
    }

    /// Starts the deadlines of a key's entry anew, and counts as an access. Returns whether there is such an entry, and
    /// the instant.
    ///
    /// `now` is called under the lock. It returns 0 if nothing can expire.
    pub fn touch<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        durations: &Durations,
        budget: &Budget,
        clock: &CacheClock,
        now: impl Fn() -> u64,
        removed: &mut Removals<K, V>,
    ) -> Result<(bool, u64), Q::Error> {
        if !durations.of_new().is_endless() {
            self.can_expire.set();
        }
        // Law 1: as in `set_if_same`.
        self.try_touch(query, durations, budget, clock, now, removed)?.map_err(|NoMemory| query.no_memory())
    }

    fn try_touch<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        durations: &Durations,
        budget: &Budget,
        clock: &CacheClock,
        now: impl Fn() -> u64,
        removed: &mut Removals<K, V>,
    ) -> Result<TryUpdate<bool>, Q::Error> {
        let (slot_ref, mut held) = self.lock_and_find(query, removed)?;
        let (mut locked, guard) = held.parts();
        let present =
            slot_ref.map(|slot_ref| (slot_ref.index(), self.map.entry_ref(slot_ref.index(), &guard)));
        let now = exact_now(present.as_ref().map(|(_, present)| present), now(), clock);
        let Some((index, live)) = present.filter(|(_, present)| present.deadline() > now) else {
            return Ok(Ok((false, now)));
        };
        let lifetime = durations.of_restarted(&live);
        if !lifetime.is_endless() {
            let mut txn = self.begin_write(&mut locked, budget, now, removed);
            if let Err(no_memory) = txn.reserve_deadlines(index, &live, lifetime) {
                return Ok(Err(no_memory));
            }
            txn.restart_deadlines(index, &live, lifetime);
        }
        self.recorder.record(&live.entry.stamp);
        Ok(Ok((true, now)))
    }
}

/// Reads the clock if `now` is 0 and the entry has a deadline: the first deadline of the cache may have come after the
/// caller saw that nothing can expire.
fn exact_now<K, V>(present: Option<&EntryRef<'_, K, V>>, now: u64, clock: &CacheClock) -> u64 {
    if now == 0 && present.is_some_and(|present| present.deadline() != NEVER) { clock.now() } else { now }
}

impl<K: Handle, V: Handle> WriteTxn<'_, '_, K, V> {
    /// Replaces the value of a live entry if `is_same` holds for it, and keeps the deadlines. Otherwise it returns the
    /// new value.
    fn replace_if_same(
        &mut self,
        index: u32,
        live: &EntryRef<'_, K, V>,
        value: V,
        weight: u32,
        is_same: &impl Fn(Option<&V>) -> bool,
        guard: &Guard,
    ) -> Result<(), V> {
        let pin = guard.pinned();
        let current = live.entry.value(&pin);
        if !is_same(current.as_ref()) {
            return Err(value);
        }
        let old = self.locked.replace_value_if_same(live.entry, &current, value)?;
        if let Some(refresh) = live.deadlines().and_then(|deadlines| deadlines.refresh()) {
            refresh.restart(self.now);
        }
        self.record_replaced(index, live, old, weight, true, guard);
        Ok(())
    }
}
