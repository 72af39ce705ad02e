//! The cache: picks the shard, reads the clock once, joins flights, keeps to the budget.
//!
//! # How it works
//! A call goes to the shard of the key's hash. When it comes back the cache sees to what concerns all
//! shards: the whole is over its capacity and the shard had nothing left to give, so a neighbour must; a
//! deadline is due somewhere, which one relaxed load of the earliest one tells.
//!
//! Every call puts what left the cache into the caller's [`Removals`], also when it fails. The caller tells
//! the listener and then hands the list to [`Cache::release`], attached and with nothing held.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `earliest` | a writer: its shard's `next_due`, full fence, then a minimum here | a call, Relaxed | a late look is as good as an earlier call |
//! | | maintenance: AcqRel swap to the least `next_due`, full fence, then looks at all `next_due` again | | either side of the two fences sees the other, so no deadline is forgotten |

pub(crate) mod seed;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::config::Config;
use crate::expiry::Clock;
use crate::expiry::{Lifetime, NEVER};
use crate::map::query::KeyQuery;
use crate::map::removal::{Removal, Removals};
use crate::reclaim::Handle;
use crate::reclaim::StripedRetireLists;
use crate::shard::shards::Shards;
use crate::shard::{Budget, Shard, Write, Written};
use crate::single_flight::{Flights, LoadError, OtherFlights, Outcome, Role, Run, WaitStep};
use crate::sync::{AtomicU64, HAS_GIL, LastSet, Ordering, Padded, full_fence, last_set};

/// Shards that one call looks at for what is due.
const SHARDS_A_STEP: usize = 2;

/// An in-process cache. `K` and `V` are one word wide, as references are; `E` is what a user's code raises.
pub struct Cache<K, V, E = std::convert::Infallible> {
    shards: Shards<K, V>,
    budget: Budget,
    /// No entry is due before this instant.
    earliest: Padded<AtomicU64>,
    flights: Flights<K, V, E>,
    bins: StripedRetireLists<(Option<K>, V)>,
    clock: Clock,
    config: Config,
}

/// Where an iteration is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    shard: usize,
    number: u32,
    /// No number of this shard from here on was in use when the iteration came to it.
    limit: Option<u32>,
}

impl Cursor {
    fn next_shard(self) -> Self {
        Cursor { shard: self.shard + 1, number: 0, limit: None }
    }
}

/// A value as it is to be stored.
pub struct NewValue<V> {
    pub value: V,
    pub weight: u32,
    /// Durations of the entry's own; the cache's hold as well, and the shorter counts.
    pub lifetime: Lifetime,
}

impl<V> NewValue<V> {
    /// A value of weight 1 that lives as long as the cache lets it.
    pub fn plain(value: V) -> Self {
        NewValue { value, weight: 1, lifetime: Lifetime::default() }
    }
}

/// How a computation begins that its caller keeps to itself.
pub enum RunStart<V> {
    /// There is a value already: another thread stored it since the caller's look.
    Present(V),
    /// The caller computes. It must end the run by [`Cache::keep`] or [`Cache::end_run`].
    Run(Run),
}

/// How a computation failed, and with what those fail who wait for it; with `None` they try for themselves.
pub struct Failure<E> {
    pub error: E,
    pub shared: Option<E>,
}

impl<K, V, E> Cache<K, V, E>
where
    K: Handle,
    V: Handle,
    E: Clone + Send + Sync + 'static,
{
    pub fn new(config: Config, clock: Clock) -> Self {
        Cache {
            shards: Shards::new(),
            budget: Budget::new(config.capacity),
            earliest: Padded(AtomicU64::new(NEVER)),
            flights: Flights::new(config.capacity),
            bins: StripedRetireLists::new(),
            clock,
            config,
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The value of a key. It counts as a use.
    #[inline]
    pub fn get<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        let now = self.now();
        let Some(shard) = self.shards.of(query.hash()) else { return Ok(None) };
        let value = shard.get(query, true, now, &self.clock, removed);
        self.maintain(now, removed);
        value
    }

    /// The value of a key as a use, where that needs neither a user's code nor maintenance; else `None`, and
    /// [`Cache::get`] answers.
    #[inline(always)]
    pub fn try_get_fast<Q: KeyQuery<K>>(&self, query: &Q) -> Option<Option<V>> {
        let now = self.now_if_quiet()?;
        match self.shards.of(query.hash()) {
            Some(shard) => shard.try_get_fast(query, now, &self.clock),
            None => Some(None),
        }
    }

    /// The value of a key, without a trace.
    pub fn peek<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        let now = self.now();
        let Some(shard) = self.shards.of(query.hash()) else { return Ok(None) };
        let value = shard.get(query, false, now, &self.clock, removed);
        self.maintain(now, removed);
        value
    }

    /// The time that the entry of a key has left. It does not count as a use.
    pub fn expires_in<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<Duration>, Q::Error> {
        match self.shards.of(query.hash()) {
            Some(shard) => shard.expires_in(query, &self.clock, removed),
            None => Ok(None),
        }
    }

    #[inline]
    pub fn set<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        mut stored: NewValue<V>,
        removed: &mut Removals<K, V>,
    ) -> Result<(), Q::Error> {
        // Another value and nothing else: no weight, no deadline, nobody who hears of the key.
        if last_set() == LastSet::Replaced
            && stored.lifetime.is_endless()
            && let Some(shard) = self.shards.of(query.hash())
        {
            match shard.replace(query, stored.value, || self.flights.has_no_flights(query.hash()), removed) {
                Ok(()) => {
                    self.maintain(self.now(), removed);
                    return Ok(());
                }
                Err(back) => stored.value = back,
            }
        }
        if !self.flights.has_no_flights(query.hash()) {
            return self.set_beside_flights(query, stored, removed);
        }
        // One that begins before the lock is taken is overtaken, whichever key of this hash it is for.
        let hash = query.hash();
        let at_lock = || {
            self.supersede_hash(hash);
            true
        };
        self.write(query, stored, false, at_lock, removed).map(drop)
    }

    #[cold]
    fn set_beside_flights<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        stored: NewValue<V>,
        removed: &mut Removals<K, V>,
    ) -> Result<(), Q::Error> {
        let supersede = self.superseder(query)?;
        self.write(query, stored, false, &supersede, removed).map(drop)
    }

    /// The value that is there, which counts as a use, or `None` after storing this one.
    pub fn set_if_absent<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        stored: NewValue<V>,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        let supersede = self.superseder(query)?;
        match self.write(query, stored, true, &supersede, removed)? {
            Written::Kept(value) => Ok(value),
            Written::Done => Ok(None),
        }
    }

    /// Takes an entry out and returns its value.
    #[inline]
    pub fn remove<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        if !self.flights.has_no_flights(query.hash()) {
            return self.remove_beside_flights(query, removed);
        }
        let hash = query.hash();
        self.take_out(query, || self.supersede_hash(hash), removed)
    }

    #[cold]
    fn remove_beside_flights<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        let supersede = self.superseder(query)?;
        let at_lock = || {
            supersede();
        };
        self.take_out(query, at_lock, removed)
    }

    #[inline]
    fn take_out<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        at_lock: impl Fn(),
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        self.shards.fence_before_first_load();
        // Without a shard there is nothing to remove, and no computation to tell.
        let Some(shard) = self.shards.of(query.hash()) else { return Ok(None) };
        let value = shard.remove(query, || self.now(), &self.budget, at_lock, removed);
        self.maintain(self.now(), removed);
        value
    }

    /// Takes out some entry, the colder the better.
    pub fn pop_any(&self, removed: &mut Removals<K, V>) -> Option<(K, V)> {
        let now = self.now();
        self.shards
            .all()
            .iter()
            .find_map(|shard| shard.pop_any(now, &self.budget, |hash| self.supersede_hash(hash), removed))
    }

    /// Takes out a batch of all entries, from a cursor that starts at its default and is moved on. Returns
    /// false when it is through: then everything that was there at the start is gone.
    pub fn clear_batch(&self, cursor: &mut Cursor, removed: &mut Removals<K, V>) -> bool {
        self.shards.fence_before_first_load();
        let Some(shard) = self.shards.all().get(cursor.shard) else { return false };
        let supersede = || {
            // At each batch: what has landed meanwhile and is taken out can be waited for until its call returns.
            self.flights.supersede_shard(cursor.shard);
        };
        match shard.clear_batch(cursor.number, self.now(), &self.budget, supersede, removed) {
            Some(number) => cursor.number = number,
            None => *cursor = cursor.next_shard(),
        }
        true
    }

    /// The value of a key, computed if it is not there, by one thread for all that ask at the same time.
    ///
    /// `compute` runs with nothing held and returns the value and its weight.
    pub fn get_with<Q: KeyQuery<K, Error = E>>(
        &self,
        query: &Q,
        lifetime: Lifetime,
        compute: impl FnOnce() -> Result<(V, u32), Failure<E>>,
        pause: &mut WaitStep<'_, E>,
        removed: &mut Removals<K, V>,
    ) -> Result<V, LoadError<E>> {
        match self.get(query, removed)? {
            Some(value) => Ok(value),
            None => self.load(query, lifetime, false, |_| compute(), pause, removed),
        }
    }

    /// The same for a key whose value the caller has looked for and not found; `is_just_now` says that neither that look
    /// nor anything since has run code of a user. `compute` is given what left so far, which need not wait for its end.
    pub fn load<Q: KeyQuery<K, Error = E>>(
        &self,
        query: &Q,
        lifetime: Lifetime,
        is_just_now: bool,
        compute: impl FnOnce(&mut Removals<K, V>) -> Result<(V, u32), Failure<E>>,
        pause: &mut WaitStep<'_, E>,
        removed: &mut Removals<K, V>,
    ) -> Result<V, LoadError<E>> {
        let mut is_absent = HAS_GIL && is_just_now;
        loop {
            // To join others may run the user's `__eq__`, or wait.
            is_absent &= self.flights.has_no_flights(query.hash());
            let leader = match self.flights.join(query)? {
                Role::Lead(leader) => leader,
                Role::Wait(flight) => match flight.wait(pause)? {
                    Outcome::Value(value) => return Ok(value),
                    Outcome::Failed(error) => return Err(LoadError::User(error)),
                    Outcome::Abandoned => match self.get(query, removed)? {
                        Some(value) => return Ok(value),
                        None => continue,
                    },
                },
            };
            // Another leader may have landed between the look and the join.
            self.fence_after_register(query);
            // No use, since the look before it was the access.
            if !is_absent && let Some(value) = self.peek(query, removed)? {
                leader.land(Outcome::Value(value.clone()));
                return Ok(value);
            }
            let (computed, weight) = match compute(removed) {
                Ok(computed) => computed,
                Err(Failure { error, shared }) => {
                    leader.land(shared.map_or(Outcome::Abandoned, Outcome::Failed));
                    return Err(LoadError::User(error));
                }
            };
            // The cache keeps the very reference that it was given, which may be counted for that.
            let value = computed.clone();
            let stored = NewValue { value: computed, weight, lifetime };
            if let Err(error) = self.write(query, stored, false, || !leader.is_superseded(), removed) {
                // It is of the leader's own key, or for want of memory. What was computed is right.
                leader.land(Outcome::Value(value));
                return Err(LoadError::User(error));
            }
            leader.land(Outcome::Value(value.clone()));
            return Ok(value);
        }
    }

    /// Begins a computation of a key that the caller has looked for and not found. Other calls neither wait for it nor
    /// see it. A write to the key from now on keeps its result out.
    pub fn begin<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<RunStart<V>, Q::Error> {
        let run = self.flights.begin(query)?;
        self.fence_after_register(query);
        // A value that another thread stored since the look may be replaced without the lock, which this run need not be seen
        // by. Where one thread is let in at a time each write takes the lock.
        if !HAS_GIL {
            let found = self.peek(query, removed);
            if !matches!(found, Ok(None)) {
                self.flights.end(run);
            }
            if let Some(value) = found? {
                return Ok(RunStart::Present(value));
            }
        }
        Ok(RunStart::Run(run))
    }

    /// Whether the key of a run was written to since the run began.
    #[cfg_attr(not(feature = "python"), allow(dead_code))]
    pub fn is_superseded(&self, run: Run) -> bool {
        self.flights.is_superseded(run)
    }

    /// Ends a run whose result is not kept. A run that has ended already stays as it is.
    pub fn end_run(&self, run: Run) {
        self.flights.end(run);
    }

    /// Ends a run and stores its result, unless the key was written to since the run began. Returns whether it is stored.
    /// After an error the caller ends the run, or tries again.
    pub fn keep<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        run: Run,
        stored: NewValue<V>,
        removed: &mut Removals<K, V>,
    ) -> Result<bool, Q::Error> {
        let written = self.write(query, stored, false, || self.flights.end(run), removed)?;
        Ok(matches!(written, Written::Done))
    }

    /// Marks all computations under way: their values are not kept.
    pub fn supersede_all(&self) {
        self.shards.fence_before_first_load();
        for (number, shard) in self.shards.all().iter().enumerate() {
            // Under the lock, so that a leader which has asked for the mark has stored its value, too. A computation that this
            // thread does not see begins after this.
            shard.under_lock(|| self.flights.supersede_shard(number));
        }
    }

    /// Orders a computation that was just registered against writers. A writer that did not see it is through with the
    /// lock now, so what that writer did is seen.
    #[inline]
    fn fence_after_register<Q: KeyQuery<K>>(&self, query: &Q) {
        self.shards.made(query.hash(), &self.config).sync_with_writers();
        // Pairs with the one in `Shards::fence_before_first_load`: a removal that finds no shards comes before the computation.
        full_fence();
    }

    /// The next entry of an iteration, which is no use. Each entry that stays throughout comes once.
    pub fn next_entry(&self, cursor: &mut Cursor) -> Option<(K, V)> {
        while let Some(shard) = self.shards.all().get(cursor.shard) {
            // What comes while it goes on may get higher numbers, without end.
            let limit = *cursor.limit.get_or_insert_with(|| shard.limit());
            if let Some((number, key, value)) = shard.next_entry(cursor.number, limit, &self.clock) {
                cursor.number = number + 1;
                return Some((key, value));
            }
            *cursor = cursor.next_shard();
        }
        None
    }

    /// Takes out the entry that an iteration came to last, if `is_seen` says that key and value are those that it
    /// yielded. Under the lock, so `is_seen` must not block, drop anything or run foreign code. Returns whether an
    /// entry that was not due left.
    pub fn remove_last_seen(
        &self,
        cursor: &Cursor,
        is_seen: impl Fn(&K, &V) -> bool,
        removed: &mut Removals<K, V>,
    ) -> bool {
        let Some(number) = cursor.number.checked_sub(1) else { return false };
        let supersede = |hash| self.supersede_hash(hash);
        let shard = &self.shards.all()[cursor.shard];
        let is_removed = shard.remove_if(number, is_seen, || self.now(), &self.budget, supersede, removed);
        self.maintain(self.now(), removed);
        is_removed
    }

    /// How many entries there are, after all that is due has left.
    pub fn count(&self, removed: &mut Removals<K, V>) -> usize {
        self.totals(removed).0
    }

    /// The weight of all entries, after all that is due has left.
    pub fn weight(&self, removed: &mut Removals<K, V>) -> u64 {
        self.expire_all(removed);
        self.budget.used()
    }

    /// How many entries there are and their weight, after all that is due has left.
    pub fn totals(&self, removed: &mut Removals<K, V>) -> (usize, u64) {
        self.expire_all(removed);
        (self.shards.all().iter().map(Shard::count).sum(), self.budget.used())
    }

    /// Takes out all that is due.
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

    /// Drops what left in a call, as soon as no reader can see it. The caller has told the listener, is
    /// attached, and holds nothing: a drop may run anything, also calls of this cache.
    #[inline]
    pub fn release(&self, removed: &mut Removals<K, V>) {
        self.release_each(removed, |_| {});
    }

    /// The same, with a word for each before it is dropped.
    #[inline]
    pub fn release_each(&self, removed: &mut Removals<K, V>, mut each: impl FnMut(&Removal<K, V>)) {
        // Mostly one leaves. It is looked at where it lies and moved in two registers: to load at once what two stores
        // have just written takes until both are through.
        let Some(first) = removed.first() else { return };
        each(first);
        let is_mortal = first.is_mortal();
        if let Some(first) = removed.take_first().filter(|_| is_mortal) {
            self.bins.release_one(first);
        }
        if let Some(more) = removed.take_more() {
            let more = more.inspect(|departure| each(departure)).filter(Removal::is_mortal);
            let mut more = more.map(|departure| departure.pair);
            if let Some(first) = more.next() {
                self.bins.release(first, more);
            }
        }
    }

    /// Drops everything that waits to be dropped, unless another thread is reading, and gives back memory.
    /// The caller is attached and holds nothing.
    pub fn flush(&self) {
        self.shards.all().iter().for_each(Shard::prepare_trim);
        self.bins.flush();
        self.shards.all().iter().for_each(Shard::trim);
        self.bins.free_memory();
    }

    /// Shows every key and value to the collector, which calls while no thread is inside.
    #[cfg_attr(not(feature = "python"), allow(dead_code))]
    pub fn each(&self, mut visit: impl FnMut(Option<&K>, &V)) {
        for shard in self.shards.all() {
            shard.each(|key, value| visit(Some(key), value));
        }
        self.bins.each(|(key, value)| visit(key.as_ref(), value));
    }

    /// The instant of now, or 0 where nothing can expire.
    #[inline]
    fn now(&self) -> u64 {
        // Relaxed: see the module's orderings.
        if self.earliest.0.load(Ordering::Relaxed) == NEVER { 0 } else { self.clock.now() }
    }

    /// The same, if nothing is due.
    #[inline(always)]
    fn now_if_quiet(&self) -> Option<u64> {
        let earliest = self.earliest.0.load(Ordering::Relaxed);
        let now = if earliest == NEVER { 0 } else { self.clock.now() };
        (earliest > now).then_some(now)
    }

    /// What marks computations under way for a key that is written to. It is true, as a word at the lock.
    fn superseder<Q: KeyQuery<K>>(&self, query: &Q) -> Result<impl Fn() -> bool, Q::Error> {
        let other_flights = self.flights.other_flights(query)?;
        let hash = query.hash();
        Ok(move || {
            self.flights.supersede(hash, &other_flights);
            true
        })
    }

    /// Marks computations under way for an entry that is taken out by its number. Under the lock.
    #[inline]
    fn supersede_hash(&self, hash: u64) {
        // Of another key with the same full hash the result is not cached either, which is no harm.
        self.flights.supersede(hash, &OtherFlights::new());
    }

    #[inline]
    fn write<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        stored: NewValue<V>,
        if_absent: bool,
        at_lock: impl Fn() -> bool,
        removed: &mut Removals<K, V>,
    ) -> Result<Written<V>, Q::Error> {
        let NewValue { value, weight, lifetime } = stored;
        let lifetime = self.config.lifetime.min(lifetime);
        let now = || if lifetime.is_endless() { self.now() } else { self.clock.now() };
        let shard = self.shards.made(query.hash(), &self.config);
        let write = Write { value, weight, lifetime, if_absent };
        let (written, now) = shard.set(query, write, &self.budget, now, at_lock, removed)?;
        if !lifetime.is_endless() {
            self.schedule(shard.next_due());
        }
        if self.budget.is_over(0) {
            self.evict_from_neighbours(query.hash(), now, removed);
        }
        self.maintain(now, removed);
        Ok(written)
    }

    /// Takes from the neighbours what the writer's own shard could not give.
    #[cold]
    fn evict_from_neighbours(&self, hash: u64, now: u64, removed: &mut Removals<K, V>) {
        let shards = self.shards.all();
        let own = self.shards.index(hash);
        for step in 1..shards.len() {
            shards[(own + step) % shards.len()].evict_from_neighbours(now, &self.budget, removed);
            if !self.budget.is_over(0) {
                break;
            }
        }
    }

    /// Goes on with what a call left over the capacity, because its list had no memory for all that was to leave.
    #[cold]
    pub fn finish_eviction(&self, removed: &mut Removals<K, V>) {
        let now = self.now();
        for shard in self.shards.all() {
            if !self.budget.is_over(0) {
                break;
            }
            shard.evict_from_neighbours(now, &self.budget, removed);
        }
    }

    /// Makes sure that the shards are looked at by this instant.
    fn schedule(&self, due: u64) {
        full_fence();
        if due < self.earliest.0.load(Ordering::Relaxed) {
            self.earliest.0.fetch_min(due, Ordering::AcqRel);
        }
    }

    /// The bounded step of maintenance at the end of a call.
    #[inline]
    fn maintain(&self, now: u64, removed: &mut Removals<K, V>) {
        if now != 0 && self.earliest.0.load(Ordering::Relaxed) <= now {
            self.maintain_slow(now, removed);
        }
    }

    #[cold]
    fn maintain_slow(&self, now: u64, removed: &mut Removals<K, V>) {
        let due = self.shards.all().iter().filter(|shard| shard.next_due() <= now);
        for shard in due.take(SHARDS_A_STEP) {
            shard.expire(now, false, &self.budget, removed);
        }
        self.reschedule();
    }

    fn reschedule(&self) {
        let least = || self.shards.all().iter().map(Shard::next_due).min().unwrap_or(NEVER);
        // AcqRel: a minimum that this overwrites is acquired, and with it the `next_due` behind it.
        self.earliest.0.swap(least(), Ordering::AcqRel);
        full_fence();
        self.schedule(least());
    }

    /// Checks the invariants of everything, while no other thread is in a call. For tests.
    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self) {
        let weight: u64 = self.shards.all().iter().map(Shard::validate).sum();
        assert_eq!(weight, self.budget.used(), "the budget knows the weight of all shards");
        assert!(weight <= self.config.capacity, "the whole fits its capacity");
    }
}
