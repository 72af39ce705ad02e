//! Calls of threads on one key are linearizable: a sequential order explains their results.
//!
//! In each round threads call one cache at once, on few keys, and record the times before and after each call and its
//! result. The kinds of calls in a round are random, because some calls hide the bugs of others. The threads also set
//! and remove other keys, so that the table grows, shrinks and reuses slots. Afterwards the steps of each key must
//! have an order.
//!
//! The times come from the system's monotonic clock, which all cores share. So calls can look longer than they were,
//! but never shorter. A shared counter would be more precise, but each increment is a fence that would hide bugs.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use moka_py::{Cache, Clock, Config, Cursor, Failure, Kind, Lifetime, LoadError, NewValue};

use crate::history_checker::{Action, Allowed, FAILS, Step, Verdict, explain};
use crate::support::{
    BuiltinEqQuery, Error, Key, LiveCount, Random, TestCache, UserEqQuery, Value, call, is_same_value,
    load_many, mix_hash, seed, sized, validate,
};

const CALLS: usize = sized(1_500, 3);
const KEYS: u64 = 3;
/// The first of the keys that are not checked and only change the table.
const OTHERS: u64 = 100;

/// Bugs that a cache could have. The search must find each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// A read sometimes repeats an earlier result.
    StaleGet,
    /// A removal reads the value first, and then removes it in a second step.
    TornRemove,
    /// A `set_with` looks the key up, and then sets it in a second step.
    TornSetWith,
    /// A `set_if_absent` looks the key up, and then sets it in a second step.
    TornSetIfAbsent,
    /// A load stores its value over a later write.
    OverwritingLoad,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    seed: u64,
    threads: u64,
    keys: u64,
    allowed: Allowed,
    asks: bool,
    /// The percentage of written values with a deadline. Before the first deadline, writes may replace without the
    /// lock.
    expiring: u64,
    bug: Bug,
}

struct Worker<'a> {
    round: Round,
    cache: &'a TestCache,
    origin: Instant,
    tally: LiveCount,
    random: Random,
    fresh: u64,
    before: Option<(u64, Option<u64>)>,
    log: BTreeMap<u64, Vec<Step>>,
}

/// A call on a key, or on all keys.
type Call<'a> = fn(&mut Worker<'a>, u64);

impl<'a> Worker<'a> {
    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn record(&mut self, key: u64, call: u64, act: Action) {
        let ret = self.now();
        self.log.entry(key).or_default().push(Step { call, ret, act });
    }

    fn fresh(&mut self) -> Value {
        self.fresh += 1;
        Value::new(self.fresh, &self.tally)
    }

    fn hash(&self, key: u64) -> u64 {
        if self.round.allowed.collides && key < OTHERS { mix_hash(0) } else { mix_hash(key) }
    }

    fn plain(&self, key: u64) -> BuiltinEqQuery {
        BuiltinEqQuery { key: Key::new(key, &self.tally), hash: self.hash(key) }
    }

    fn asking(&self, key: u64) -> UserEqQuery<impl Fn(&Key) -> Result<bool, Error> + use<>> {
        let eq_slow = move |other: &Key| {
            thread::yield_now();
            Ok(other.id() == key)
        };
        UserEqQuery { key: Key::new(key, &self.tally), hash: self.hash(key), eq_slow }
    }

    /// Makes a call with one of the two kinds of query.
    fn by_key<R>(
        &self,
        key: u64,
        plain: impl FnOnce(&BuiltinEqQuery) -> Result<R, Error>,
        asking: impl FnOnce(&UserEqQuery<Box<dyn Fn(&Key) -> Result<bool, Error>>>) -> Result<R, Error>,
    ) -> R {
        let result = if self.round.asks {
            let UserEqQuery { key, hash, eq_slow } = self.asking(key);
            asking(&UserEqQuery { key, hash, eq_slow: Box::new(eq_slow) })
        } else {
            plain(&self.plain(key))
        };
        result.expect("no failure")
    }

    fn get(&mut self, key: u64) {
        let (cache, begun) = (self.cache, self.now());
        let got = self.by_key(
            key,
            |query| match cache.try_get_fast(query) {
                Some(found) => Ok(found),
                None => call(cache, |removed| cache.get(query, removed)).0,
            },
            |query| call(cache, |removed| cache.get(query, removed)).0,
        );
        let got = got.map(|value| value.word());
        let before = self.before.replace((key, got)).filter(|&(other, _)| other == key);
        let is_stale = self.round.bug == Bug::StaleGet && self.random.one_in(100);
        let seen = before.filter(|_| is_stale).map_or(got, |(_, before)| before);
        self.record(key, begun, Action::Read(seen));
    }

    fn peek(&mut self, key: u64) {
        self.peek_value(key);
    }

    fn peek_value(&mut self, key: u64) -> Option<Value> {
        let (cache, begun) = (self.cache, self.now());
        let got = self.by_key(
            key,
            |query| call(cache, |removed| cache.peek(query, removed)).0,
            |query| call(cache, |removed| cache.peek(query, removed)).0,
        );
        self.record(key, begun, Action::Read(got.as_ref().map(|value| value.word())));
        got
    }

    fn set(&mut self, key: u64) {
        let value = self.fresh();
        self.set_to(key, value);
    }

    /// Sets the present value again, which takes another code path.
    fn set_again(&mut self, key: u64) {
        if let Some(value) = self.peek_value(key) {
            self.set_to(key, value);
        }
    }

    fn set_to(&mut self, key: u64, value: Value) {
        let ttl = if self.random.below(100) < self.round.expiring { 1 << 40 } else { 0 };
        let stored = || NewValue { lifetime: Lifetime { ttl, tti: 0 }, ..NewValue::plain(value.clone()) };
        let (cache, begun) = (self.cache, self.now());
        self.by_key(
            key,
            |query| call(cache, |removed| cache.set(query, stored(), removed)).0,
            |query| call(cache, |removed| cache.set(query, stored(), removed)).0,
        );
        self.record(key, begun, Action::Write(value.word()));
    }

    fn set_if_absent(&mut self, key: u64) {
        let value = self.fresh();
        let stored = || NewValue::plain(value.clone());
        let (cache, begun) = (self.cache, self.now());
        let kept = if self.round.bug == Bug::TornSetIfAbsent {
            let query = self.plain(key);
            let kept = call(cache, |removed| cache.peek(&query, removed)).0.expect("no failure");
            if kept.is_none() {
                thread::yield_now();
                call(cache, |removed| cache.set(&query, stored(), removed)).0.expect("no failure");
            }
            kept
        } else {
            self.by_key(
                key,
                |query| call(cache, |removed| cache.set_if_absent(query, stored(), removed)).0,
                |query| call(cache, |removed| cache.set_if_absent(query, stored(), removed)).0,
            )
        };
        let act = kept.map_or(Action::SetIfAbsent(value.word()), |kept| Action::Read(Some(kept.word())));
        self.record(key, begun, act);
    }

    /// Sets a value in place of the one that the key has, or in place of none.
    fn set_with(&mut self, key: u64) {
        let ttl = if self.random.below(100) < self.round.expiring { 1 << 40 } else { 0 };
        let (cache, begun) = (self.cache, self.now());
        let (seen, value) = loop {
            let seen = self.by_key(
                key,
                |query| call(cache, |removed| cache.peek(query, removed)).0,
                |query| call(cache, |removed| cache.peek(query, removed)).0,
            );
            let value = self.fresh();
            if self.random.one_in(3) {
                thread::yield_now();
            }
            let stored = || NewValue { lifetime: Lifetime { ttl, tti: 0 }, ..NewValue::plain(value.clone()) };
            let is_torn = self.round.bug == Bug::TornSetWith;
            let is_same = |present: Option<&Value>| is_torn || is_same_value(seen.as_ref(), present);
            let unwritten = self.by_key(
                key,
                |query| call(cache, |removed| cache.set_if_same(query, stored(), is_same, removed)).0,
                |query| call(cache, |removed| cache.set_if_same(query, stored(), is_same, removed)).0,
            );
            if unwritten.is_none() {
                break (seen, value);
            }
        };
        self.record(key, begun, Action::SetWith(seen.map(|value| value.word()), value.word()));
    }

    fn touch(&mut self, key: u64) {
        let ttl = if self.random.below(100) < self.round.expiring { 1 << 40 } else { 0 };
        let (cache, begun) = (self.cache, self.now());
        let lifetime = Lifetime { ttl, tti: 0 };
        let is_present = self.by_key(
            key,
            |query| call(cache, |removed| cache.touch(query, lifetime, removed)).0,
            |query| call(cache, |removed| cache.touch(query, lifetime, removed)).0,
        );
        self.record(key, begun, if is_present { Action::Has } else { Action::Read(None) });
    }

    fn remove(&mut self, key: u64) {
        let (cache, begun) = (self.cache, self.now());
        let seen = (self.round.bug == Bug::TornRemove).then(|| {
            let query = self.plain(key);
            let seen = call(cache, |removed| cache.peek(&query, removed)).0.expect("no failure");
            thread::yield_now();
            seen
        });
        let removed = self.by_key(
            key,
            |query| call(cache, |removed| cache.remove(query, removed)).0,
            |query| call(cache, |removed| cache.remove(query, removed)).0,
        );
        self.record(key, begun, Action::Remove(seen.unwrap_or(removed).map(|value| value.word())));
    }

    /// If this thread computes, the call is three steps. Otherwise the result is that of another thread.
    fn get_with(&mut self, key: u64) {
        let value = self.fresh();
        let (fails, yields) = (self.random.one_in(5), self.random.one_in(3));
        let outcome = value.word() | if fails { FAILS } else { 0 };
        let ran = Cell::new(None);
        let (cache, begun) = (self.cache, self.now());
        let compute = || {
            let from = self.now();
            if yields {
                thread::yield_now();
            }
            ran.set(Some((from, self.now())));
            if fails {
                Err(Failure { error: "planned", for_waiters: Some("planned") })
            } else {
                Ok(NewValue::plain(value.clone()))
            }
        };
        let mut pause = |park: &(dyn Fn() + Sync)| {
            park();
            Ok(())
        };
        let query = self.plain(key);
        let got = if self.round.bug == Bug::OverwritingLoad {
            match call(cache, |removed| cache.get(&query, removed)).0.expect("no failure") {
                Some(value) => Ok(value),
                None => compute().map_err(|failure| LoadError::User(failure.error)).map(|stored| {
                    let value = stored.value.clone();
                    call(cache, |removed| cache.set(&query, stored, removed)).0.expect("no failure");
                    value
                }),
            }
        } else {
            call(cache, |removed| cache.get_with(&query, compute, &mut pause, removed)).0
        };
        let ret = self.now();
        let steps = self.log.entry(key).or_default();
        match (ran.get(), got) {
            (None, Ok(value)) => steps.push(Step { call: begun, ret, act: Action::Wait(value.word()) }),
            (None, Err(_)) => steps.push(Step { call: begun, ret, act: Action::WaitFailed }),
            (Some((from, to)), got) => {
                let land = got.map_or(Action::FailLoad(outcome), |_| Action::CompleteLoad(outcome));
                steps.extend([
                    Step { call: begun, ret: from, act: Action::BeginLoad(outcome) },
                    Step { call: begun, ret: from, act: Action::EntryView },
                    Step { call: to, ret, act: land },
                ]);
            }
        }
    }

    /// Loads all keys of the round. For each key that this thread computes, the call is three steps, as in `get_with`.
    fn load_many(&mut self, _: u64) {
        let value = self.fresh();
        let outcome = value.word();
        let (fails, yields) = (self.random.one_in(5), self.random.one_in(3));
        let (left_out, offered) = (self.random.below(10), self.random.below(10));
        let ids: Vec<u64> = (0..self.round.keys).collect();
        let mut ran = None;
        let (cache, begun) = (self.cache, self.now());
        let load = |led: &[u64]| {
            let from = self.now();
            if yields {
                thread::yield_now();
            }
            ran = Some((from, self.now(), led.to_vec()));
            if fails {
                return Err(Failure { error: "planned", for_waiters: Some("planned") });
            }
            let is_answered = |id: &u64| if led.contains(id) { *id != left_out } else { *id == offered };
            let answered = ids.iter().copied().filter(is_answered);
            Ok(answered.map(|id| (id, NewValue::plain(value.clone()))).collect())
        };
        let mut pause = |park: &(dyn Fn() + Sync)| {
            park();
            Ok(())
        };
        let got = load_many(cache, &ids, |id| self.plain(id), load, &mut pause);
        let ret = self.now();
        let (from, to, led) = ran.unwrap_or_default();
        for key in ids {
            let steps = self.log.entry(key).or_default();
            let step = |act| Step { call: begun, ret, act };
            if led.contains(&key) {
                let is_kept = !fails && key != left_out;
                let value = if fails { outcome | FAILS } else { outcome };
                let end = if is_kept { Action::CompleteLoad(value) } else { Action::FailLoad(value) };
                steps.extend([
                    Step { call: begun, ret: from, act: Action::BeginLoad(value) },
                    Step { call: begun, ret: from, act: Action::EntryView },
                    Step { call: to, ret, act: end },
                ]);
                continue;
            }
            // If a computation of another thread failed, this thread does not know which.
            match got.as_ref().map(|got| got.get(&key).map(Value::word)) {
                Ok(None) => steps.push(step(Action::Read(None))),
                Ok(Some(value)) if value != outcome => steps.push(step(Action::Wait(value))),
                Ok(Some(_)) | Err(_) => {}
            }
            if key == offered && !fails && !led.is_empty() {
                steps.push(Step { call: to, ret, act: Action::Offer(outcome) });
            }
        }
    }

    fn pop_any(&mut self, _: u64) {
        let (cache, begun) = (self.cache, self.now());
        match call(cache, |removed| cache.pop_any(removed)).0 {
            Some((key, value)) if key.id() < OTHERS => {
                self.record(key.id(), begun, Action::Remove(Some(value.word())));
            }
            Some(_) => {}
            None => (0..self.round.keys).for_each(|key| self.record(key, begun, Action::Read(None))),
        }
    }

    /// An iteration reads the values that it yields. A key that it does not yield was absent at some moment.
    fn iterate(&mut self, _: u64) {
        let (cache, begun) = (self.cache, self.now());
        let mut cursor = Cursor::default();
        let next = || cache.next_entry(&mut cursor).map(|(key, value)| (key.id(), value.word()));
        let seen: Vec<(u64, u64)> = std::iter::from_fn(next).filter(|&(key, _)| key < OTHERS).collect();
        for key in 0..self.round.keys {
            let mut values = seen.iter().filter(|&&(other, _)| other == key).map(|&(_, value)| value);
            // An entry that was removed and inserted again may be yielded twice.
            if let (first, None) = (values.next(), values.next()) {
                self.record(key, begun, Action::Read(first));
            }
        }
    }

    /// Removes a key's entry when an iteration yields it, if the entry has not changed.
    fn remove_seen(&mut self, key: u64) {
        let (cache, begun) = (self.cache, self.now());
        let mut cursor = Cursor::default();
        while let Some((found, value)) = cache.next_entry(&mut cursor) {
            if found.id() == key {
                let is_seen = |other: &Key, now: &Value| found.is(other) && value.is(now);
                let is_gone = call(cache, |removed| cache.remove_last_yielded(&cursor, is_seen, removed)).0;
                let word = Some(value.word());
                return self.record(
                    key,
                    begun,
                    if is_gone { Action::Remove(word) } else { Action::Read(word) },
                );
            }
        }
        self.record(key, begun, Action::Read(None));
    }

    fn clear(&mut self, _: u64) {
        let (cache, begun) = (self.cache, self.now());
        let mut cursor = Cursor::default();
        while call(cache, |removed| cache.clear_batch(&mut cursor, removed)).0 {}
        (0..self.round.keys).for_each(|key| self.record(key, begun, Action::Clear));
    }

    /// An eviction of a key that the round does not allow would be found by the later reads.
    fn resize(&mut self, _: u64) {
        let capacities: &[u64] =
            if self.round.allowed.evicts { &[0, 1, 2, 4, 16, 64] } else { &[1_000, 2_000, 5_000, 20_000] };
        let mut resize = self.cache.begin_resize(self.random.pick(capacities));
        while call(self.cache, |removed| resize.step(removed)).0 {}
    }

    fn disturb(&mut self) {
        let cache = self.cache;
        let other = OTHERS + self.random.below(300);
        let query = self.plain(other);
        let stored = NewValue::plain(Value::new(0, &self.tally));
        if self.random.one_in(3) {
            let _ = call(cache, |removed| cache.remove(&query, removed));
        } else {
            let _ = call(cache, |removed| cache.set(&query, stored, removed));
        }
    }

    fn run(mut self) -> BTreeMap<u64, Vec<Step>> {
        let calls: [(Call<'a>, u64); 15] = [
            (Self::get, 1),
            (Self::get_with, 1),
            (Self::load_many, 0),
            (Self::peek, 0),
            (Self::set, 0),
            (Self::set_again, 0),
            (Self::set_if_absent, 0),
            (Self::set_with, 0),
            (Self::touch, 0),
            (Self::remove, 0),
            (Self::remove_seen, 0),
            (Self::iterate, 0),
            (Self::pop_any, 0),
            (Self::clear, 0),
            (Self::resize, 0),
        ];
        // Every thread of the round has the same shares.
        let mut shares = Random::new(self.round.seed);
        let mut all: Vec<Call<'a>> = Vec::new();
        // Half of the rounds have few kinds of calls, which then meet more often.
        let is_few = shares.one_in(2);
        for (call, least) in calls {
            let is_in = !is_few || shares.one_in(5);
            let share = least + if is_in { shares.pick(&[1, 4, 16]) } else { 0 };
            all.extend((0..share).map(|_| call));
        }
        let disturbs = self.round.allowed.evicts || !shares.one_in(3);
        for _ in 0..CALLS {
            let key = self.random.below(self.round.keys);
            self.random.pick(&all)(&mut self, key);
            if disturbs && self.random.one_in(3) {
                self.disturb();
            }
        }
        self.log
    }
}

/// The numbers of keys whose search reached a verdict, and of those with too many states.
#[derive(Default)]
struct SearchCounts {
    decided: u64,
    undecided: u64,
}

/// Runs one round, and checks that each key has an order.
fn play(seed: u64, evicts: bool, bug: Bug, counts: &mut SearchCounts) -> Result<(), String> {
    let mut random = Random::new(seed);
    let keys = 1 + random.below(KEYS);
    let allowed = Allowed { evicts, collides: random.one_in(5) };
    let threads = 2 + random.below(3);
    let expiring = random.pick(&[0, 1, 50]);
    let round = Round { seed, threads, keys, allowed, asks: random.one_in(3), expiring, bug };
    let capacity = if evicts { random.pick(&[1, 2, 4, 16]) } else { random.pick(&[1_000, 5_000]) };
    let kind = random.pick(&[Kind::Lru, Kind::TinyLfu]);
    let cache: TestCache = Cache::new(Config::new(capacity, kind), Clock::default());
    let (origin, barrier) = (Instant::now(), Barrier::new(round.threads as usize));
    let logs: Vec<BTreeMap<u64, Vec<Step>>> = thread::scope(|scope| {
        let begin = |thread: u64| {
            let (cache, barrier) = (&cache, &barrier);
            scope.spawn(move || {
                let (tally, random) = (LiveCount::default(), Random::new(seed ^ mix_hash(thread)));
                let (fresh, log) = (thread << 32, BTreeMap::new());
                let worker = Worker { round, cache, origin, tally, random, fresh, before: None, log };
                barrier.wait();
                worker.run()
            })
        };
        let threads: Vec<_> = (1..=round.threads).map(begin).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    validate(&cache);
    for key in 0..keys {
        let threads: Vec<Vec<Step>> = logs.iter().filter_map(|log| log.get(&key).cloned()).collect();
        match explain(&threads, allowed) {
            Verdict::Ordered => counts.decided += 1,
            Verdict::Undecided => counts.undecided += 1,
            Verdict::Disordered(wrong) => {
                return Err(format!("{round:?}, capacity {capacity}, key {key}: {wrong}"));
            }
        }
    }
    Ok(())
}

fn play_all(evicts: bool) {
    let (seed, rounds) = (seed(), rounds());
    let mut counts = SearchCounts::default();
    for round in 0..rounds {
        if let Err(wrong) = play(seed.wrapping_add(round), evicts, Bug::None, &mut counts) {
            panic!("MOKA_TEST_SEED={}: {wrong}", seed.wrapping_add(round));
        }
    }
    let SearchCounts { decided, undecided } = counts;
    println!("{decided} histories have an order, {undecided} have too many states");
    assert!(undecided <= decided, "too few histories could be decided");
}

/// The number of rounds, which `MOKA_ROUNDS` sets.
fn rounds() -> u64 {
    std::env::var("MOKA_ROUNDS")
        .map_or(sized(30, 1), |rounds| rounds.parse().expect("MOKA_ROUNDS is a number"))
}

#[test]
fn calls_on_each_key_are_linearizable() {
    play_all(false);
}

#[test]
fn calls_on_each_key_are_linearizable_while_entries_are_evicted() {
    play_all(true);
}

#[test]
#[cfg_attr(miri, ignore = "plays hundreds of rounds, until threads meet")]
fn the_checker_finds_each_injected_bug() {
    for bug in [Bug::StaleGet, Bug::TornRemove, Bug::TornSetIfAbsent, Bug::TornSetWith, Bug::OverwritingLoad]
    {
        let seed = seed();
        let play = |round| play(seed.wrapping_add(round), false, bug, &mut SearchCounts::default());
        let is_found = (0..2_000).any(|round| play(round).is_err());
        assert!(is_found, "{bug:?}");
    }
}
