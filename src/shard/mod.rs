//! One shard: its map, its policy and its deadlines under one lock, and what a call does with them.
//!
//! # How it works
//! A read looks the key up, compares the deadline, takes the value and notes the use; no lock. A write looks
//! the key up first, without the lock, since its `__eq__` may run there. Then it locks and checks that what
//! it found still holds; else it looks again. A value that takes the place of another, with nothing else to be
//! done, needs no lock ([`Shard::replace`]). Under the lock no key or value is dropped and no foreign code runs
//! (law 1): what leaves goes to a list that the caller hands up.
//!
//! The weight bound is one [`Budget`] for all shards. A write adds up what it changed and tells the budget
//! once, so one that evicts as much as it adds writes no shared counter.
//!
//! # Invariants
//! - `known`: a live entry is known to the policy, and filed if it has a deadline; no other number is.
//! - `told`: the shard's earliest deadline is told ([`Shard::next_due`]) before its lock is free.

use std::time::Duration;

use crate::collections::try_reserve::NoMemory;
use crate::config::Config;
use crate::expiry::{Clock, DeadlineQueue};
use crate::expiry::{Lifetime, NEVER};
use crate::map::entry::Entry;
use crate::map::query::KeyQuery;
use crate::map::removal::{Cause, Removals};
use crate::map::{Found, Glance, HeldMap, Map, MapLock, Place};
use crate::policy::{self, AccessRecorder, EntryView, Policy, View};
use crate::reclaim::Handle;
use crate::reclaim::{Guard, OnceFlag, Pin, Retired, pin, pin_briefly};
use crate::sync::{AtomicU64, LastSet, Ordering, Padded, is_far, last_set, note_set};

mod scan;
pub(crate) mod shards;
mod weights;
mod write;

pub(crate) use self::weights::Budget;
use self::weights::Weights;
use self::write::WriteTxn;

/// Entries that one call looks at for deadlines.
const EXPIRY_STEPS: usize = 32;

pub(crate) struct Shard<K, V> {
    map: Map<K, V, State>,
    recorder: AccessRecorder,
    next_due: Padded<AtomicU64>,
    has_listener: bool,
    /// Whether entries weigh 1 each and nobody listens.
    is_plain: bool,
    /// Set before an entry has a deadline. Until then a value may be replaced without the lock.
    can_expire: OnceFlag,
}

/// What the lock guards besides the map. What every write needs comes first.
#[repr(C)]
struct State {
    policy: Policy,
    weights: Weights,
    deadlines: DeadlineQueue,
}

/// What the policy sees of the entries.
struct ShardView<'a, K, V> {
    map: &'a Map<K, V, State>,
    weights: &'a Weights,
    guard: &'a Guard<'a>,
}

impl<K: Handle, V: Handle> View for ShardView<'_, K, V> {
    #[inline]
    fn look(&self, number: u32) -> EntryView<'_> {
        let entry = self.map.entry(number, self.guard);
        // Relaxed: the lock's holder wrote it.
        EntryView { hash: entry.hash.load(Ordering::Relaxed), stamp: &entry.stamp }
    }

    fn weight(&self, number: u32) -> u64 {
        self.weights.get(number)
    }

    /// Without a look at the entry, which would fetch it to be read.
    fn stamp(&self, number: u32) -> &AtomicU64 {
        &self.map.entry(number, self.guard).stamp
    }

    fn prefetch_leaving(&self, hash: u64) {
        self.map.prefetch_slot(hash, self.guard);
    }
}

/// A value to write, and how.
pub(crate) struct Write<V> {
    pub value: V,
    pub weight: u32,
    pub lifetime: Lifetime,
    /// Whether a value that is there is to be kept.
    pub if_absent: bool,
}

/// What a write found in its way.
pub(crate) enum Written<V> {
    Done,
    /// Somebody else's value is there, or the caller's word at the lock was no.
    Kept(Option<V>),
}

/// What became of a write and when, unless there was no memory for it.
type Tried<V> = Result<(Written<V>, u64), NoMemory>;

/// The place of a key's entry, if there is one, the lock that keeps it there, and a guard to be dropped before that.
type LockedAt<'a, K, V> = (Option<Place>, HeldMap<'a, K, V, State>);

impl<K: Handle, V: Handle> Shard<K, V> {
    /// All the shards of a cache.
    pub fn all(config: &Config, shards: usize) -> Box<[Self]> {
        let policies = policy::for_shards(config.policy, config.capacity, shards);
        let shard = |(recorder, policy)| {
            let weights = Weights::new(config.weighted);
            Shard {
                map: Map::new(
                    config.lifetime.tti,
                    State { policy, deadlines: DeadlineQueue::default(), weights },
                ),
                recorder,
                next_due: Padded(AtomicU64::new(NEVER)),
                has_listener: config.has_listener,
                is_plain: !config.has_listener && !config.weighted,
                can_expire: OnceFlag::new(!config.lifetime.is_endless()),
            }
        };
        policies.map(shard).collect()
    }

    /// The value of a key, if it is there and not due. `is_use` says that the entry counts as used. `now` is
    /// 0 where the caller saw nothing that can expire.
    #[inline]
    pub fn get<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        is_use: bool,
        now: u64,
        clock: &Clock,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        let mut guard = pin();
        let (found, now) = match self.map.try_get_fast(query, &guard) {
            Glance::Found(found, _) => (found, now),
            Glance::Absent => return Ok(self.nothing(query, is_use)),
            Glance::Unclear => match self.map.find_slow(query, &mut guard, removed, removed.mark())? {
                // A user's code may have taken its time, so the caller's look at the clock is old.
                Some(place) => (self.map.found(place.number(), &guard), 0),
                None => return Ok(self.nothing(query, is_use)),
            },
        };
        Ok(self.value_of(found, is_use, now, clock, &guard))
    }

    /// The value of a key as a use, or `None` where the answer needs a user's code.
    #[inline(always)]
    pub fn try_get_fast<Q: KeyQuery<K>>(&self, query: &Q, now: u64, clock: &Clock) -> Option<Option<V>> {
        let guard = pin();
        match self.map.try_get_fast(query, &guard) {
            Glance::Found(found, _) => Some(self.value_of(found, true, now, clock, &guard)),
            Glance::Absent => Some(self.nothing(query, true)),
            Glance::Unclear => None,
        }
    }

    /// The value of a key that is not there.
    #[inline]
    fn nothing<Q: KeyQuery<K>>(&self, query: &Q, is_use: bool) -> Option<V> {
        if is_use {
            self.recorder.record_miss(query.hash());
        }
        None
    }

    #[inline(always)]
    fn value_of(
        &self,
        found: Found<'_, K, V>,
        is_use: bool,
        now: u64,
        clock: &Clock,
        pin: &Pin<'_>,
    ) -> Option<V> {
        if let Some(life) = found.life() {
            let deadline = life.deadline();
            if deadline != NEVER {
                // A deadline may have come to the cache after the caller looked for one.
                let now = if now == 0 { clock.now() } else { now };
                if deadline <= now {
                    return None;
                }
                if is_use {
                    life.touch(now);
                }
            }
        }
        let value = found.entry.value(pin).clone();
        if is_use && value.is_some() {
            self.recorder.record(&found.entry.stamp);
        }
        value
    }

    /// The time that the entry of a key has left; `None` if there is none or no end.
    pub fn expires_in<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        clock: &Clock,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<Duration>, Q::Error> {
        let mut guard = pin();
        let since = removed.mark();
        let Some(place) = self.map.find(query, &mut guard, removed, since)? else { return Ok(None) };
        let life = self.map.found(place.number(), &guard).life();
        // A cache where nothing can expire reads no clock.
        let deadline = life.filter(|life| life.deadline() != NEVER);
        Ok(deadline.and_then(|life| life.time_left(clock.now())).filter(|time_left| !time_left.is_zero()))
    }

    /// Puts another value in the place of a key's, where that needs neither a user's code nor the lock; else hands it back.
    ///
    /// `has_no_flights` says whether no computation is under way; it is asked after the value was found. Computations under way
    /// need an invalidation, which takes the lock. One that is not seen here began after the value came, so it finds that
    /// value and returns it.
    #[inline(always)]
    pub fn replace<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        value: V,
        has_no_flights: impl FnOnce() -> bool,
        removed: &mut Removals<K, V>,
    ) -> Result<(), V> {
        if !self.is_plain {
            return Err(value);
        }
        let guard = pin_briefly();
        let found = match self.map.try_get_fast(query, &guard) {
            Glance::Found(found, _) if !self.can_expire.is_set(&guard) => found,
            _ => {
                note_set(LastSet::Other);
                return Err(value);
            }
        };
        if !has_no_flights() {
            return Err(value);
        }
        let old = found.replace_value(value, &guard)?;
        self.note_replaced(found.entry, old, removed);
        Ok(())
    }

    /// Notes that another value is in the place of this one, which leaves with nothing else.
    #[inline(always)]
    fn note_replaced(&self, entry: &Entry<K, V>, old: Retired<V>, removed: &mut Removals<K, V>) {
        removed.push(Retired::of(None).zip(old), Cause::Replaced);
        self.recorder.record(&entry.stamp);
    }

    /// Writes a value, unless there is one to be kept or the caller's `at_lock` says no.
    ///
    /// `at_lock` and `now` are asked under the lock, at the moment of the write: a user's `__eq__` may have
    /// taken its time before. `now` is 0 where nothing can expire; it is handed back.
    pub fn set<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        write: Write<V>,
        budget: &Budget,
        now: impl Fn() -> u64,
        at_lock: impl Fn() -> bool,
        removed: &mut Removals<K, V>,
    ) -> Result<(Written<V>, u64), Q::Error> {
        if !write.lifetime.is_endless() {
            self.can_expire.set();
        }
        // Law 1: an error is an object of the user's world, so it is made with nothing held.
        self.try_set(query, write, budget, now, at_lock, removed)?.map_err(|NoMemory| query.no_memory())
    }

    #[inline(always)]
    fn try_set<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        write: Write<V>,
        budget: &Budget,
        now: impl Fn() -> u64,
        at_lock: impl Fn() -> bool,
        removed: &mut Removals<K, V>,
    ) -> Result<Tried<V>, Q::Error> {
        let expects_insert = last_set() == LastSet::Inserted;
        let (place, mut held) = self.lock_at(query, expects_insert, removed)?;
        let (mut locked, mut guard) = held.parts();
        let now = now();
        let number = place.as_ref().map(Place::number);
        let found = number.map(|number| self.map.found(number, &guard));
        let live = found.filter(|found| found.deadline() > now);
        if let Some(live) = live
            && write.if_absent
        {
            self.recorder.record(&live.entry.stamp);
            if let Some(life) = live.life() {
                life.touch(now);
            }
            return Ok(Ok((Written::Kept(live.entry.value(&guard.pinned()).clone()), now)));
        }
        if !at_lock() {
            return Ok(Ok((Written::Kept(None), now)));
        }
        if let Some(live) = live
            && self.is_plain
            && write.lifetime.is_endless()
            && live.life().is_none()
        {
            // Another value and nothing else: no weight, no deadline, nobody who hears of the key.
            let old = locked.replace_value(live.entry, write.value);
            self.note_replaced(live.entry, old, removed);
            note_set(if self.can_expire.seems_set() { LastSet::Other } else { LastSet::Replaced });
            return Ok(Ok((Written::Done, now)));
        }
        if place.is_none() && !expects_insert && is_far(locked.len()) {
            self.prefetch_insert(query.hash(), &mut locked, &guard);
        }
        let mut change = self.change(&mut locked, budget, now, removed);
        if !budget.fits(write.weight) {
            change.refuse(number, query.key(), write.value, &mut guard);
            change.tell();
            return Ok(Ok((Written::Done, now)));
        }
        if let Some((number, live)) = number.zip(live) {
            if !write.lifetime.is_endless()
                && let Err(no_memory) = change.reserve_life(number, &live, write.lifetime)
            {
                return Ok(Err(no_memory));
            }
            change.replace(number, &live, write, &guard);
            note_set(LastSet::Other);
            if change.weight != 0 {
                change.make_room(Some(number), &mut guard);
            }
            return Ok(Ok((Written::Done, now)));
        }
        // What is due is as good as gone, with its key.
        if let Some(due) = number {
            change.take_out(due, Cause::Expired, &mut guard);
        }
        if let Err(no_memory) = change.reserve(&write, &mut guard) {
            change.tell();
            return Ok(Err(no_memory));
        }
        let number = change.insert(query, write, &guard);
        note_set(LastSet::Inserted);
        change.make_room(Some(number), &mut guard);
        Ok(Ok((Written::Done, now)))
    }

    /// Takes an entry out. `at_lock` and `now` are asked under the lock, at the moment of the removal; `at_lock`
    /// also where the key is absent, for it may be under way.
    pub fn remove<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        now: impl Fn() -> u64,
        budget: &Budget,
        at_lock: impl Fn(),
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        let (place, mut held) = self.lock_at(query, false, removed)?;
        let (mut locked, mut guard) = held.parts();
        at_lock();
        let Some(place) = place else { return Ok(None) };
        let mut change = self.change(&mut locked, budget, now(), removed);
        let was_due = change.take_out(place.number(), Cause::Explicit, &mut guard);
        change.tell();
        let removed = removed.last().filter(|_| !was_due);
        Ok(removed.map(|departure| departure.value().clone()))
    }

    /// Asks ahead for what a newcomer, and who must leave for it, will change, where that is far: one after the other
    /// these lines would take longer than all else.
    #[inline(never)]
    fn prefetch_insert(&self, hash: u64, locked: &mut MapLock<'_, K, V, State>, guard: &Guard) {
        self.map.prefetch_slot(hash, guard);
        locked.prefetch_number(guard);
        let state = locked.state();
        let sight = ShardView { map: &self.map, weights: &state.weights, guard };
        state.policy.prefetch(&sight);
        self.recorder.prefetch_insert();
    }

    /// Takes the lock, and tells where the key's entry is.
    ///
    /// A key that is compared in place is looked up under the lock. For another the user's code may run, so that is
    /// looked up first, and what was found must still be so once the lock is taken.
    #[inline(always)]
    fn lock_at<'a, Q: KeyQuery<K>>(
        &'a self,
        query: &Q,
        expects_insert: bool,
        removed: &mut Removals<K, V>,
    ) -> Result<LockedAt<'a, K, V>, Q::Error> {
        let mut held = self.map.lock();
        let (mut locked, guard) = held.parts();
        if expects_insert && is_far(locked.len()) {
            self.prefetch_insert(query.hash(), &mut locked, &guard);
        }
        let place = match self.map.try_get_fast(query, &guard) {
            Glance::Found(_, place) => Some(place),
            Glance::Absent => None,
            Glance::Unclear => {
                drop(guard);
                drop(held);
                return self.lock_at_slow(query, removed);
            }
        };
        drop(guard);
        Ok((place, held))
    }

    #[cold]
    fn lock_at_slow<'a, Q: KeyQuery<K>>(
        &'a self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<LockedAt<'a, K, V>, Q::Error> {
        // One pin until the lock is taken: the number that is found must not be given to another key before.
        let mut pin = pin();
        let since = removed.mark();
        loop {
            let place = self.map.find_slow(query, &mut pin, removed, since)?;
            let mut held = self.map.lock();
            let (locked, guard) = held.parts();
            let is_still = match &place {
                Some(place) => locked.holds(place, &guard),
                None => locked.is_absent(query, removed.unequal(since), &guard),
            };
            drop(guard);
            if is_still {
                return Ok((place, held));
            }
        }
    }

    /// Takes out entries that are due: some, or with `all` every one.
    pub fn expire(&self, now: u64, all: bool, budget: &Budget, removed: &mut Removals<K, V>) {
        let held = if all { Some(self.map.lock()) } else { self.map.try_lock() };
        let Some(mut held) = held else { return };
        let (mut locked, mut guard) = held.parts();
        let mut change = self.change(&mut locked, budget, now, removed);
        let mut steps = if all { usize::MAX } else { EXPIRY_STEPS };
        while change.expire_some(&mut steps, &mut guard) {}
        change.tell();
        let is_done = steps > 0;
        let next_due = locked.state().deadlines.next_due(now, is_done);
        self.next_due.0.store(next_due, Ordering::Release);
    }

    /// Evicts for the whole what no longer fits, from this shard.
    pub fn evict_from_neighbours(&self, now: u64, budget: &Budget, removed: &mut Removals<K, V>) {
        let mut held = self.map.lock();
        let (mut locked, mut guard) = held.parts();
        let mut change = self.change(&mut locked, budget, now, removed);
        change.make_room(None, &mut guard);
    }

    /// Prepares a [`trim`](Self::trim), a grace ahead of it.
    pub fn prepare_trim(&self) {
        self.map.lock().parts().0.prepare_trim();
    }

    /// Gives back memory that nothing uses.
    pub fn trim(&self) {
        let mut held = self.map.lock();
        let (mut locked, mut guard) = held.parts();
        let limit = locked.trim(&mut guard);
        let live = locked.len();
        let state = locked.state();
        state.policy.trim(limit, live);
        state.deadlines.trim(limit);
        state.weights.trim(limit);
    }

    /// Waits until no writer is under way. What a caller wrote before is seen by every later writer, and
    /// what they wrote before is seen by the caller.
    pub fn sync_with_writers(&self) {
        self.under_lock(|| ());
    }

    /// Runs code under the lock. It must not run code of a user, drop references or take another shard's lock.
    pub fn under_lock(&self, code: impl FnOnce()) {
        let locked = self.map.lock();
        code();
        drop(locked);
    }

    /// An instant before which nothing here is due.
    pub fn next_due(&self) -> u64 {
        // Acquire: pairs with the Release where it is stored; see `Cache::schedule`.
        self.next_due.0.load(Ordering::Acquire)
    }

    /// Whether something here may be due by now: a look within a tick puts off the rest of the tick.
    pub fn may_be_due(&self, now: u64) -> bool {
        self.next_due() <= now.saturating_add(DeadlineQueue::TICK)
    }

    pub fn count(&self) -> usize {
        self.map.lock().parts().0.len()
    }

    fn change<'a, 'm>(
        &'m self,
        locked: &'a mut MapLock<'m, K, V, State>,
        budget: &'a Budget,
        now: u64,
        removed: &'a mut Removals<K, V>,
    ) -> WriteTxn<'a, 'm, K, V> {
        WriteTxn { shard: self, locked, budget, now, weight: 0, removed }
    }

    /// Checks the invariants of the shard and everything in it, and returns its weight.
    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self) -> u64 {
        let mut held = self.map.lock();
        let (mut locked, guard) = held.parts();
        locked.validate(&guard);
        let mut live = Vec::new();
        while let Some(number) = locked.next_live(live.last().map_or(0, |last| last + 1), &guard) {
            live.push(number);
        }
        let state = locked.state();
        let sight = ShardView { map: &self.map, weights: &state.weights, guard: &guard };
        state.policy.validate(&live, &sight);
        let mut filed = state.deadlines.numbers();
        filed.sort_unstable();
        let has_deadline = |number: &u32| self.map.deadline(*number, &guard) != NEVER;
        let expected: Vec<u32> = live.iter().copied().filter(has_deadline).collect();
        assert_eq!(filed, expected, "`known`: each entry with a deadline is filed");
        live.iter().map(|&number| state.weights.get(number)).sum()
    }
}

impl<K, V> Shard<K, V> {
    /// Tells when the shard must be looked at for an entry of this deadline.
    fn publish_deadline(&self, deadline: u64) {
        if deadline == NEVER {
            return;
        }
        let due = DeadlineQueue::due_after(deadline);
        // Release: pairs with the Acquire in `next_due`. The lock's holder is the one writer.
        if due < self.next_due.0.load(Ordering::Relaxed) {
            self.next_due.0.store(due, Ordering::Release);
        }
    }
}
