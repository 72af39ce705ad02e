//! What threads see of a key can be told as one call after the other.
//!
//! In each round threads call one cache at once, on few keys, and note the moments before and after each call and
//! what came of it. Which calls there are in a round is by chance, since some hide what others would show. Beside it they set and remove other keys, so that the table grows, shrinks and uses places again.
//! Afterwards each key's steps must have an order. The moments are of the system's monotonic clock, which all cores
//! share: calls seem longer than they were, never shorter. A shared counter would say more, but each count is a fence, and
//! would hide what is to be found.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use moka_py::{Cache, Clock, Config, Cursor, Failure, Kind, Lifetime, LoadError, NewValue};

use crate::history_checker::{Act, FAILS, Leave, Step, Verdict, explain};
use crate::support::{
    Asking, Error, Key, Plain, Random, StripedCounter, TestCache, Value, call, mixed, seed, validate,
};

const CALLS: usize = 1_500;
const KEYS: u64 = 3;
/// The first of the keys that only disturb.
const OTHERS: u64 = 100;

/// What a cache could do wrong. The search must find each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// Answers now and then what it answered before.
    StaleGet,
    /// Looks, then removes.
    TornRemove,
    /// Looks, then sets.
    TornSetIfAbsent,
    /// Puts what it computed over what came meanwhile.
    LateLanding,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    seed: u64,
    threads: u64,
    keys: u64,
    leave: Leave,
    asks: bool,
    /// Of a hundred values set, so many have a deadline. Until the first of them a value may be replaced without the lock.
    expiring: u64,
    mistake: Mistake,
}

struct Worker<'a> {
    round: Round,
    cache: &'a TestCache,
    origin: Instant,
    tally: StripedCounter,
    random: Random,
    fresh: u64,
    before: Option<(u64, Option<u64>)>,
    log: BTreeMap<u64, Vec<Step>>,
}

/// A call on a key, or on all.
type Call<'a> = fn(&mut Worker<'a>, u64);

impl<'a> Worker<'a> {
    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn note(&mut self, key: u64, call: u64, act: Act) {
        let ret = self.now();
        self.log.entry(key).or_default().push(Step { call, ret, act });
    }

    fn fresh(&mut self) -> Value {
        self.fresh += 1;
        Value::new(self.fresh, &self.tally)
    }

    fn hash(&self, key: u64) -> u64 {
        if self.round.leave.collides && key < OTHERS { mixed(0) } else { mixed(key) }
    }

    fn plain(&self, key: u64) -> Plain {
        Plain { key: Key::new(key, &self.tally), hash: self.hash(key) }
    }

    fn asking(&self, key: u64) -> Asking<impl Fn(&Key) -> Result<bool, Error> + use<>> {
        let eq_slow = move |other: &Key| {
            thread::yield_now();
            Ok(other.id() == key)
        };
        Asking { key: Key::new(key, &self.tally), hash: self.hash(key), eq_slow }
    }

    /// A call by one kind of key or the other.
    fn by_key<R>(
        &self,
        key: u64,
        plain: impl FnOnce(&Plain) -> Result<R, Error>,
        asking: impl FnOnce(&Asking<Box<dyn Fn(&Key) -> Result<bool, Error>>>) -> Result<R, Error>,
    ) -> R {
        let result = if self.round.asks {
            let Asking { key, hash, eq_slow } = self.asking(key);
            asking(&Asking { key, hash, eq_slow: Box::new(eq_slow) })
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
        let is_stale = self.round.mistake == Mistake::StaleGet && self.random.one_in(100);
        let seen = before.filter(|_| is_stale).map_or(got, |(_, before)| before);
        self.note(key, begun, Act::Read(seen));
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
        self.note(key, begun, Act::Read(got.as_ref().map(|value| value.word())));
        got
    }

    fn set(&mut self, key: u64) {
        let value = self.fresh();
        self.set_to(key, value);
    }

    /// Sets what is there, mostly the very value, which takes another way.
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
        self.note(key, begun, Act::Write(value.word()));
    }

    fn set_if_absent(&mut self, key: u64) {
        let value = self.fresh();
        let stored = || NewValue::plain(value.clone());
        let (cache, begun) = (self.cache, self.now());
        let kept = if self.round.mistake == Mistake::TornSetIfAbsent {
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
        let act = kept.map_or(Act::Put(value.word()), |kept| Act::Read(Some(kept.word())));
        self.note(key, begun, act);
    }

    fn remove(&mut self, key: u64) {
        let (cache, begun) = (self.cache, self.now());
        let seen = (self.round.mistake == Mistake::TornRemove).then(|| {
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
        self.note(key, begun, Act::Take(seen.unwrap_or(removed).map(|value| value.word())));
    }

    /// Computed here it is three steps; else the value, or the failure, is somebody else's.
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
                Ok((value.clone(), 1))
            }
        };
        let mut pause = |park: &(dyn Fn() + Sync)| {
            park();
            Ok(())
        };
        let query = self.plain(key);
        let got = if self.round.mistake == Mistake::LateLanding {
            match call(cache, |removed| cache.get(&query, removed)).0.expect("no failure") {
                Some(value) => Ok(value),
                None => compute().map_err(|failure| LoadError::User(failure.error)).map(|(value, _)| {
                    let stored = NewValue::plain(value.clone());
                    call(cache, |removed| cache.set(&query, stored, removed)).0.expect("no failure");
                    value
                }),
            }
        } else {
            call(cache, |removed| cache.get_with(&query, Lifetime::default(), compute, &mut pause, removed)).0
        };
        let ret = self.now();
        let steps = self.log.entry(key).or_default();
        match (ran.get(), got) {
            (None, Ok(value)) => steps.push(Step { call: begun, ret, act: Act::Wait(value.word()) }),
            (None, Err(_)) => steps.push(Step { call: begun, ret, act: Act::WaitFailed }),
            (Some((from, to)), got) => {
                let land = got.map_or(Act::Fail(outcome), |_| Act::Land(outcome));
                steps.extend([
                    Step { call: begun, ret: from, act: Act::Join(outcome) },
                    Step { call: begun, ret: from, act: Act::EntryView },
                    Step { call: to, ret, act: land },
                ]);
            }
        }
    }

    fn pop_any(&mut self, _: u64) {
        let (cache, begun) = (self.cache, self.now());
        match call(cache, |removed| cache.pop_any(removed)).0 {
            Some((key, value)) if key.id() < OTHERS => {
                self.note(key.id(), begun, Act::Take(Some(value.word())));
            }
            Some(_) => {}
            None => (0..self.round.keys).for_each(|key| self.note(key, begun, Act::Read(None))),
        }
    }

    /// What an iteration yields was there, and what it does not yield was not all the time.
    fn iterate(&mut self, _: u64) {
        let (cache, begun) = (self.cache, self.now());
        let mut cursor = Cursor::default();
        let next = || cache.next_entry(&mut cursor).map(|(key, value)| (key.id(), value.word()));
        let seen: Vec<(u64, u64)> = std::iter::from_fn(next).filter(|&(key, _)| key < OTHERS).collect();
        for key in 0..self.round.keys {
            let mut values = seen.iter().filter(|&&(other, _)| other == key).map(|&(_, value)| value);
            // What leaves and comes again may be yielded twice.
            if let (first, None) = (values.next(), values.next()) {
                self.note(key, begun, Act::Read(first));
            }
        }
    }

    /// Removes the entry of a key that an iteration comes to, if it has not changed since.
    fn remove_seen(&mut self, key: u64) {
        let (cache, begun) = (self.cache, self.now());
        let mut cursor = Cursor::default();
        while let Some((found, value)) = cache.next_entry(&mut cursor) {
            if found.id() == key {
                let is_seen = |other: &Key, now: &Value| found.is(other) && value.is(now);
                let is_gone = call(cache, |removed| cache.remove_last_yielded(&cursor, is_seen, removed)).0;
                let word = Some(value.word());
                return self.note(key, begun, if is_gone { Act::Take(word) } else { Act::Read(word) });
            }
        }
        self.note(key, begun, Act::Read(None));
    }

    fn clear(&mut self, _: u64) {
        let (cache, begun) = (self.cache, self.now());
        let mut cursor = Cursor::default();
        while call(cache, |removed| cache.clear_batch(&mut cursor, removed)).0 {}
        (0..self.round.keys).for_each(|key| self.note(key, begun, Act::Clear));
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
        let calls: [(Call<'a>, u64); 11] = [
            (Self::get, 1),
            (Self::get_with, 1),
            (Self::peek, 0),
            (Self::set, 0),
            (Self::set_again, 0),
            (Self::set_if_absent, 0),
            (Self::remove, 0),
            (Self::remove_seen, 0),
            (Self::iterate, 0),
            (Self::pop_any, 0),
            (Self::clear, 0),
        ];
        // The same for each thread of the round.
        let mut shares = Random::new(self.round.seed);
        let mut all: Vec<Call<'a>> = Vec::new();
        // Few calls in one half of the rounds, which meet oftener; any in the other.
        let is_few = shares.one_in(2);
        for (call, least) in calls {
            let is_in = !is_few || shares.one_in(5);
            let share = least + if is_in { shares.pick(&[1, 4, 16]) } else { 0 };
            all.extend((0..share).map(|_| call));
        }
        let disturbs = self.round.leave.evicts || !shares.one_in(3);
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

/// Keys of which the search could say whether there is an order, and those of which it could not.
#[derive(Default)]
struct Searched {
    decided: u64,
    undecided: u64,
}

/// One round: whether each key has an order.
fn play(seed: u64, evicts: bool, mistake: Mistake, searched: &mut Searched) -> Result<(), String> {
    let mut random = Random::new(seed);
    let keys = 1 + random.below(KEYS);
    let leave = Leave { evicts, collides: random.one_in(5) };
    let threads = 2 + random.below(3);
    let expiring = random.pick(&[0, 1, 50]);
    let round = Round { seed, threads, keys, leave, asks: random.one_in(3), expiring, mistake };
    let capacity = if evicts { random.pick(&[1, 2, 4, 16]) } else { random.pick(&[1_000, 5_000]) };
    let kind = random.pick(&[Kind::Lru, Kind::TinyLfu]);
    let cache: TestCache = Cache::new(Config::new(capacity, kind), Clock::default());
    let (origin, barrier) = (Instant::now(), Barrier::new(round.threads as usize));
    let logs: Vec<BTreeMap<u64, Vec<Step>>> = thread::scope(|scope| {
        let begin = |thread: u64| {
            let (cache, barrier) = (&cache, &barrier);
            scope.spawn(move || {
                let (tally, random) = (StripedCounter::default(), Random::new(seed ^ mixed(thread)));
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
        match explain(&threads, leave) {
            Verdict::Ordered => searched.decided += 1,
            Verdict::Undecided => searched.undecided += 1,
            Verdict::Disordered(wrong) => {
                return Err(format!("{round:?}, capacity {capacity}, key {key}: {wrong}"));
            }
        }
    }
    Ok(())
}

fn play_all(evicts: bool) {
    let (seed, rounds) = (seed(), rounds());
    let mut searched = Searched::default();
    for round in 0..rounds {
        if let Err(wrong) = play(seed.wrapping_add(round), evicts, Mistake::None, &mut searched) {
            panic!("MOKA_TEST_SEED={}: {wrong}", seed.wrapping_add(round));
        }
    }
    let Searched { decided, undecided } = searched;
    println!("{decided} histories have an order, {undecided} have too many states");
    assert!(undecided <= decided, "too few histories could be decided");
}

/// `MOKA_ROUNDS`, for who has more time.
fn rounds() -> u64 {
    std::env::var("MOKA_ROUNDS").map_or(30, |rounds| rounds.parse().expect("MOKA_ROUNDS is a number"))
}

#[test]
fn each_key_has_an_order() {
    play_all(false);
}

#[test]
fn each_key_has_an_order_while_entries_are_evicted() {
    play_all(true);
}

#[test]
fn a_mistake_is_found() {
    for mistake in [Mistake::StaleGet, Mistake::TornRemove, Mistake::TornSetIfAbsent, Mistake::LateLanding] {
        let seed = seed();
        let play = |round| play(seed.wrapping_add(round), false, mistake, &mut Searched::default());
        let is_found = (0..2_000).any(|round| play(round).is_err());
        assert!(is_found, "{mistake:?}");
    }
}
