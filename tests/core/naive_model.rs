//! Random calls on a cache and on a naive model of it: a list in order of use, and a clock.
//!
//! The model predicts every result and every removal. Two choices belong to the cache: which of the expired entries a
//! call removes, and (with `TinyLfu`) which entries it evicts. The model checks that each choice was allowed, and
//! follows it.

use std::time::Duration;

use moka_py::{Cause, Config, Kind, Lifetime, NewValue};

use crate::support::{
    BuiltinEqQuery, Error, Event, Key, MICRO, MILLI, Random, SECOND, Subject, UserEqQuery, Value, event,
    is_same_value, mix_hash, seed, sized,
};

#[derive(Clone, Debug)]
struct ModelEntry {
    key: u64,
    value: u64,
    weight: u64,
    expires_at: u64,
    used_at: u64,
    ttl: u64,
    tti: u64,
}

impl ModelEntry {
    fn deadline(&self) -> u64 {
        let idle_at = if self.tti == 0 { u64::MAX } else { self.used_at + self.tti };
        self.expires_at.min(idle_at)
    }
}

/// How a value is written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub weight: u64,
    pub lifetime: Lifetime,
    pub is_kept: bool,
}

struct NaiveModel {
    /// In order of use, the least recently used first.
    entries: Vec<ModelEntry>,
    config: Config,
    is_exact: bool,
    /// Whether the cache was resized. Then a capacity of 0 keeps no entry of weight 0.
    was_resized: bool,
    /// Whether there was a write. The capacity of that moment chooses the policy.
    was_written: bool,
    now: u64,
}

fn shorter(a: u64, b: u64) -> u64 {
    if a == 0 || (b != 0 && b < a) { b } else { a }
}

impl NaiveModel {
    fn position(&self, key: u64) -> Option<usize> {
        self.entries.iter().position(|entry| entry.key == key)
    }

    fn is_expired(&self, at: usize) -> bool {
        self.entries[at].deadline() <= self.now
    }

    fn weight(&self) -> u64 {
        self.entries.iter().map(|entry| entry.weight).sum()
    }

    fn live(&self) -> Vec<(u64, u64)> {
        let live = self.entries.iter().filter(|entry| entry.deadline() > self.now);
        let mut live: Vec<_> = live.map(|entry| (entry.key, entry.value)).collect();
        live.sort_unstable();
        live
    }

    fn find(&self, key: u64) -> Option<usize> {
        self.position(key).filter(|&at| !self.is_expired(at))
    }

    /// Counts a hit as an access, and returns the value.
    fn hit(&mut self, at: usize) -> u64 {
        let mut entry = self.entries.remove(at);
        // An access within a microsecond of the last one does not restart the time to idle.
        if entry.tti != 0 && self.now > entry.used_at + MICRO {
            entry.used_at = self.now;
        }
        let value = entry.value;
        self.entries.push(entry);
        value
    }

    fn take(&mut self, at: usize, cause: Cause) -> Event {
        let cause = if self.is_expired(at) { Cause::Expired } else { cause };
        let entry = self.entries.remove(at);
        event(entry.key, entry.value, cause)
    }

    /// Makes a write. Returns the events about its own key.
    fn write(&mut self, key: u64, value: u64, how: Written) -> Vec<Event> {
        let Written { weight, lifetime, is_kept } = how;
        let mut events = Vec::new();
        self.was_written = true;
        if let Some(at) = self.position(key) {
            events.push(self.take(at, Cause::Replaced));
        }
        if !is_kept {
            events.push(event(key, value, Cause::Expired));
            return events;
        }
        if weight > self.config.capacity || self.is_closed() {
            events.push(event(key, value, Cause::Size));
            return events;
        }
        let Lifetime { ttl, tti } = self.config.lifetime;
        let (ttl, tti) = (shorter(ttl, lifetime.ttl), shorter(tti, lifetime.tti));
        let expires_at = if ttl == 0 { u64::MAX } else { self.now + ttl };
        self.entries.push(ModelEntry { key, value, weight, expires_at, used_at: self.now, ttl, tti });
        events
    }

    /// Returns the durations of a present entry whose deadlines start anew. One that is not given stays its own.
    fn restarted(&self, at: usize, given: Lifetime) -> Lifetime {
        let or = |given: u64, own: u64| if given == 0 { own } else { given };
        let own = self.entries[at].ttl;
        let ttl = or(given.ttl, own);
        let ttl = if self.config.has_ttl_function { shorter(own, ttl) } else { ttl };
        Lifetime { ttl, tti: or(given.tti, self.entries[at].tti) }
    }

    /// Makes a write that keeps the deadlines of a present entry, unless durations are given.
    fn set_with(&mut self, key: u64, value: u64, how: Written) -> Vec<Event> {
        let Some(at) = self.find(key) else { return self.write(key, value, how) };
        let present = self.entries[at].clone();
        let events = self.write(key, value, Written { lifetime: self.restarted(at, how.lifetime), ..how });
        if let Some(at) = self.position(key).filter(|_| how.lifetime.is_endless()) {
            self.entries[at].expires_at = present.expires_at;
            self.entries[at].used_at = present.used_at;
        }
        events
    }

    /// Starts the deadlines of a key's entry anew. Returns whether there is such an entry.
    fn touch(&mut self, key: u64, given: Lifetime) -> bool {
        let Some(at) = self.find(key) else { return false };
        let ModelEntry { value, weight, .. } = self.entries[at];
        self.write(key, value, Written { weight, lifetime: self.restarted(at, given), is_kept: true });
        true
    }

    /// Whether the cache keeps nothing, because it was resized to 0.
    fn is_closed(&self) -> bool {
        self.config.capacity == 0 && self.was_resized
    }

    /// Changes the capacity, and accounts for the removals.
    fn resize(&mut self, capacity: u64, events: &[Event]) {
        self.config.capacity = capacity;
        self.was_resized = true;
        self.is_exact &= self.was_written || self.config.policy == Kind::Lru;
        self.account_for(events, None);
        assert!(!self.is_closed() || self.entries.is_empty(), "the cache must be empty");
    }

    /// Accounts for the other removals of a call: expired entries, and evictions of other keys than `keep` while the
    /// weight is too high.
    fn account_for(&mut self, events: &[Event], keep: Option<u64>) {
        for one in events {
            let at = self
                .position(one.key.expect("the listener gets keys"))
                .expect("only present entries are removed");
            let is_over = self.weight() > self.config.capacity;
            match one.cause {
                Cause::Expired => assert!(self.is_expired(at), "{one:?} has not expired"),
                Cause::Size if self.is_closed() && !is_over => {}
                Cause::Size => {
                    assert!(is_over, "{one:?}: the cache had room");
                    assert_ne!(one.key, keep, "an entry must not be the victim of its own write");
                    assert_ne!(
                        self.entries[at].weight, 0,
                        "the eviction of an entry of weight zero makes no room"
                    );
                    let mut others = self.entries.iter().filter(|entry| Some(entry.key) != keep);
                    let oldest = others.find(|entry| entry.weight != 0);
                    if self.is_exact {
                        assert_eq!(
                            oldest.map(|entry| entry.key),
                            one.key,
                            "the victim must be the oldest entry"
                        );
                    }
                }
                _ => panic!("{one:?} was not expected"),
            }
            assert_eq!(self.take(at, one.cause), *one);
        }
        assert!(self.weight() <= self.config.capacity, "the weight must not exceed the capacity");
    }
}

/// The hashes of the keys in a comparison.
#[derive(Clone, Copy, Debug)]
pub enum Hashes {
    Spread,
    /// A few hashes for all keys.
    Few,
    /// All keys are in one shard, with neighbouring home slots.
    Narrow,
}

/// One call, or an advance of the clock. With `user_eq` a user-defined comparison runs.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Get { key: u64, user_eq: bool },
    Peek { key: u64 },
    Set { key: u64, user_eq: bool, how: Written },
    SetIfAbsent { key: u64, how: Written },
    SetWith { key: u64, how: Written },
    Touch { key: u64, lifetime: Lifetime },
    GetWith { key: u64, how: Written },
    Remove { key: u64 },
    Pop,
    ExpiresIn { key: u64 },
    Settle,
    Clear,
    Resize { capacity: u64 },
    Advance { by: u64 },
}

/// Capacities to resize to.
pub const CAPACITIES: [u64; 8] = [0, 1, 2, 5, 8, 20, 100, 3_000];

/// A few durations, so that deadlines coincide. Some of them end within one tick.
pub const DURATIONS: [u64; 9] =
    [1, 700, 5 * MICRO, 70 * MICRO, MILLI, 3 * MILLI, 40 * MILLI, SECOND, 3600 * SECOND];

/// Upper bounds of the time that passes in a step.
pub const STEPS: [u64; 9] = [1, 300, MICRO, 30 * MICRO, 66 * MICRO, MILLI, 10 * MILLI, SECOND, 1800 * SECOND];

pub struct Comparison {
    subject: Subject,
    model: NaiveModel,
    hashes: Hashes,
    word: u64,
}

/// Chooses the calls of a comparison.
struct Chooser {
    random: Random,
    keys: u64,
    config: Config,
    /// Whether entries have their own durations, and time passes.
    has_deadlines: bool,
    /// Whether the capacity changes.
    can_resize: bool,
}

impl Chooser {
    fn duration(&mut self) -> u64 {
        if self.random.one_in(2) { 0 } else { self.random.pick(&DURATIONS) }
    }

    fn lifetime(&mut self) -> Lifetime {
        if !self.has_deadlines {
            return Lifetime::default();
        }
        match self.random.below(3) {
            0 => Lifetime { ttl: self.duration(), tti: self.duration() },
            _ => Lifetime::default(),
        }
    }

    fn op(&mut self) -> Op {
        let key = self.random.below(self.keys);
        let lifetime = self.lifetime();
        let heavy = self.random.one_in(40);
        let most = if heavy { self.config.capacity.saturating_add(3) } else { 4 };
        let weight = self.random.below(most);
        let is_kept = !self.random.one_in(16);
        let how = Written { weight, lifetime, is_kept };
        let user_eq = self.random.one_in(2);
        match self.random.below(24) {
            0..=6 => Op::Get { key, user_eq },
            7 => Op::Peek { key },
            8..=11 => Op::Set { key, user_eq, how },
            12 => Op::SetWith { key, how },
            13 => Op::Touch { key, lifetime },
            14 | 15 => Op::SetIfAbsent { key, how },
            16 => Op::GetWith { key, how },
            17 | 18 => Op::Remove { key },
            19 => Op::Pop,
            20 => Op::ExpiresIn { key },
            21 if self.can_resize && self.random.one_in(8) => {
                Op::Resize { capacity: self.random.pick(&CAPACITIES) }
            }
            21 => Op::Settle,
            22 if self.random.one_in(20) => Op::Clear,
            _ if !self.has_deadlines => Op::Settle,
            _ => {
                let most = self.random.pick(&STEPS);
                Op::Advance { by: self.random.below(most) + 1 }
            }
        }
    }
}

impl Comparison {
    pub fn new(config: Config, hashes: Hashes) -> Self {
        let config = Config { has_listener: true, ..config };
        // A cache of several shards has an order within each shard only.
        let is_exact = config.capacity < 2048 && (config.policy == Kind::Lru || config.capacity < 8);
        let model = NaiveModel {
            entries: Vec::new(),
            config,
            is_exact,
            was_resized: false,
            was_written: false,
            now: 1,
        };
        Comparison { subject: Subject::new(config), model, hashes, word: 0 }
    }

    fn hash(&self, key: u64) -> u64 {
        match self.hashes {
            Hashes::Spread => mix_hash(key),
            Hashes::Few => mix_hash(key % 5),
            Hashes::Narrow => mix_hash(key) >> 12 << 6,
        }
    }

    fn builtin_eq_query(&self, key: u64) -> BuiltinEqQuery {
        BuiltinEqQuery { hash: self.hash(key), ..self.subject.query(key) }
    }

    fn user_eq_query(&self, key: u64) -> UserEqQuery<impl Fn(&Key) -> Result<bool, Error>> {
        let eq_slow = move |other: &Key| Ok(other.id() == key);
        UserEqQuery { key: Key::new(key, &self.subject.keys), hash: self.hash(key), eq_slow }
    }

    fn advance(&mut self, by: u64) {
        self.subject.advance(by);
        self.model.now += by;
    }

    /// Makes one call on both, and compares the results and events. Without a weigher every entry has the weight 1.
    pub fn step(&mut self, op: Op) {
        self.word += 1;
        let (word, subject) = (self.word, &self.subject);
        let is_weighted = self.model.config.weighted;
        let weigh = |how: Written| Written { weight: if is_weighted { how.weight } else { 1 }, ..how };
        let stored = |Written { weight, lifetime, is_kept }| NewValue {
            weight: weight as u32,
            lifetime,
            is_kept,
            ..subject.stored(word)
        };
        let word_of = |found: Result<Option<crate::support::Value>, Error>| {
            found.expect("no failure").map(|value| value.word())
        };
        match op {
            Op::Get { key, user_eq } => {
                let found = match user_eq {
                    false => word_of(
                        subject.call(|removed| subject.cache.get(&self.builtin_eq_query(key), removed)),
                    ),
                    true => {
                        word_of(subject.call(|removed| subject.cache.get(&self.user_eq_query(key), removed)))
                    }
                };
                assert_eq!(found, self.model.find(key).map(|at| self.model.hit(at)));
                self.model.account_for(&subject.events(), None);
            }
            Op::Peek { key } => {
                let found =
                    word_of(subject.call(|removed| subject.cache.peek(&self.builtin_eq_query(key), removed)));
                assert_eq!(found, self.model.find(key).map(|at| self.model.entries[at].value));
                self.model.account_for(&subject.events(), None);
            }
            Op::Set { key, user_eq, how } => {
                let how = weigh(how);
                let value = stored(how);
                match user_eq {
                    false => {
                        subject.call(|removed| subject.cache.set(&self.builtin_eq_query(key), value, removed))
                    }
                    true => {
                        subject.call(|removed| subject.cache.set(&self.user_eq_query(key), value, removed))
                    }
                }
                .expect("no failure");
                self.check_write(key, word, how);
            }
            Op::SetIfAbsent { key, how } => {
                let how = weigh(how);
                let (query, value) = (self.builtin_eq_query(key), stored(how));
                let kept =
                    word_of(subject.call(|removed| subject.cache.set_if_absent(&query, value, removed)));
                assert_eq!(kept, self.model.find(key).map(|at| self.model.hit(at)));
                match kept {
                    Some(_) => self.model.account_for(&subject.events(), None),
                    None => self.check_write(key, word, how),
                }
            }
            Op::SetWith { key, how } => {
                let how = weigh(how);
                let (query, value) = (self.builtin_eq_query(key), stored(how));
                let seen = subject.call(|removed| subject.cache.peek(&query, removed)).expect("no failure");
                assert_eq!(
                    seen.as_ref().map(|value| value.word()),
                    self.model.find(key).map(|at| self.model.entries[at].value)
                );
                // The look-up may have removed expired entries.
                self.model.account_for(&subject.events(), None);
                let is_same = |present: Option<&Value>| is_same_value(seen.as_ref(), present);
                let unwritten = subject.call(|removed| {
                    subject.cache.set_if_same(&self.user_eq_query(key), value, is_same, removed)
                });
                assert!(unwritten.expect("no failure").is_none(), "no other thread writes");
                drop(seen);
                let expected_events = self.model.set_with(key, word, how);
                let events = self.subject.events();
                let (own, others) = events.split_at(expected_events.len());
                assert_eq!(own, expected_events);
                self.model.account_for(others, Some(key));
            }
            Op::Touch { key, lifetime } => {
                let touched =
                    subject.call(|removed| subject.cache.touch(&self.user_eq_query(key), lifetime, removed));
                assert_eq!(touched, Ok(self.model.touch(key, lifetime)));
                self.model.account_for(&subject.events(), None);
            }
            Op::GetWith { key, how } => {
                let how = weigh(how);
                let loaded = subject.call(|removed| {
                    let compute = || Ok(stored(how));
                    let mut pause = |_: &(dyn Fn() + Sync)| unreachable!("no other thread computes");
                    subject.cache.get_with(&self.user_eq_query(key), compute, &mut pause, removed)
                });
                let loaded = loaded.map(|value| value.word()).ok();
                match self.model.find(key) {
                    Some(at) => {
                        assert_eq!(loaded, Some(self.model.hit(at)));
                        self.model.account_for(&subject.events(), None);
                    }
                    None => {
                        assert_eq!(loaded, Some(word));
                        // The look-up before the computation may have removed expired entries.
                        let events = subject.events();
                        let is_early = |one: &&Event| one.cause == Cause::Expired && one.value != word;
                        let early = events.iter().take_while(is_early).count();
                        self.model.account_for(&events[..early], None);
                        self.check_write_events(key, word, how, &events[early..]);
                    }
                }
            }
            Op::Remove { key } => {
                let removed = word_of(
                    subject.call(|removed| subject.cache.remove(&self.builtin_eq_query(key), removed)),
                );
                let mut events = subject.events();
                assert_eq!(removed, self.model.find(key).map(|at| self.model.entries[at].value));
                if let Some(at) = self.model.position(key) {
                    assert_eq!(events.remove(0), self.model.take(at, Cause::Explicit));
                }
                self.model.account_for(&events, None);
            }
            Op::Pop => self.pop(),
            Op::ExpiresIn { key } => {
                let expected = self.model.find(key).map(|at| self.model.entries[at].deadline());
                let expected = expected.filter(|&deadline| deadline != u64::MAX);
                let removed =
                    subject.call(|removed| subject.cache.expires_in(&self.builtin_eq_query(key), removed));
                assert_eq!(
                    removed,
                    Ok(expected.map(|deadline| Duration::from_nanos(deadline - self.model.now)))
                );
            }
            Op::Settle => self.settle(),
            Op::Clear => self.clear(),
            Op::Resize { capacity } => {
                subject.resize(capacity);
                assert_eq!(subject.cache.capacity(), capacity);
                let events = subject.events();
                self.model.resize(capacity, &events);
            }
            Op::Advance { by } => self.advance(by),
        }
    }

    fn check_write(&mut self, key: u64, word: u64, how: Written) {
        let events = self.subject.events();
        self.check_write_events(key, word, how, &events);
    }

    fn check_write_events(&mut self, key: u64, word: u64, how: Written, events: &[Event]) {
        let expected_events = self.model.write(key, word, how);
        let (own, others) = events.split_at(expected_events.len());
        assert_eq!(own, expected_events);
        self.model.account_for(others, Some(key));
    }

    fn pop(&mut self) {
        let popped = self.subject.pop_any();
        let mut events = self.subject.events();
        match popped {
            Some((key, value)) => {
                assert_eq!(events.pop(), Some(event(key, value, Cause::Explicit)));
                self.model.account_for(&events, None);
                let at = self.model.find(key).expect("a popped entry was present");
                assert_eq!(self.model.take(at, Cause::Explicit), event(key, value, Cause::Explicit));
            }
            None => {
                self.model.account_for(&events, None);
                assert!(self.model.entries.is_empty());
            }
        }
    }

    /// Counts the entries, which removes the expired ones, and flushes the cache.
    pub fn settle(&mut self) {
        let (count, weight) = (self.subject.count(), self.subject.weight());
        self.model.account_for(&self.subject.events(), None);
        assert!(
            (0..self.model.entries.len()).all(|at| !self.model.is_expired(at)),
            "an expired entry is still in the cache"
        );
        assert_eq!((count, weight), (self.model.entries.len(), self.model.weight()));
        self.subject.cache.flush();
        // Each entry has one key and one value. Other threads of this process may delay the release of more.
        assert!(self.subject.values.alive() >= count);
        if cfg!(moka_gil) {
            assert_eq!((self.subject.values.alive(), self.subject.keys.alive()), (count, count));
        }
    }

    fn clear(&mut self) {
        self.subject.clear();
        let mut events = self.subject.events();
        let mut expected_events: Vec<Event> = Vec::new();
        while !self.model.entries.is_empty() {
            expected_events.push(self.model.take(0, Cause::Explicit));
        }
        events.sort_unstable_by_key(|one| one.value);
        expected_events.sort_unstable_by_key(|one| one.value);
        assert_eq!(events, expected_events);
    }

    pub fn check(&self) {
        assert_eq!(self.subject.entries(), self.model.live());
        let earliest = self.model.entries.iter().map(ModelEntry::deadline).min().filter(|&at| at != u64::MAX);
        let remaining = earliest.map(|deadline| deadline.saturating_sub(self.model.now));
        match (self.subject.next_deadline(), remaining) {
            (Some(remaining), Some(expected)) => assert!(remaining <= expected, "{remaining} of {expected}"),
            (found, expected) => assert_eq!(found, expected),
        }
        self.subject.validate();
    }
}

/// A fuzz target: a part of the cache, which the chosen calls and options exercise most, or the whole cache.
#[derive(Clone, Copy, Debug)]
pub enum FuzzTarget {
    /// Entries are removed by calls only, and hashes collide, so that the map grows, shrinks and probes.
    Map,
    /// The capacity is small, and entries have weights.
    Policy,
    /// The capacity is large, and entries have deadlines.
    Expiry,
    /// The whole cache.
    Cache,
}

/// Makes the calls that the bytes of a fuzzer encode, and compares each with the model.
pub fn check_input(target: FuzzTarget, bytes: &[u8]) {
    let mut random = Random::tape(bytes);
    let kind = random.pick(&[Kind::Lru, Kind::TinyLfu]);
    let hashes = random.pick(&[Hashes::Spread, Hashes::Few, Hashes::Narrow]);
    let sizes = [0, 1, 2, 3, 7, 8, 9, 20, 60, 300];
    let capacity = match target {
        FuzzTarget::Map | FuzzTarget::Expiry => random.pick(&[10_000, u64::MAX]),
        FuzzTarget::Policy | FuzzTarget::Cache => random.pick(&sizes),
    };
    let weighted = matches!(target, FuzzTarget::Policy | FuzzTarget::Cache) && random.one_in(2);
    let lifetime = match target {
        FuzzTarget::Map | FuzzTarget::Policy => Lifetime::default(),
        FuzzTarget::Expiry | FuzzTarget::Cache => {
            Lifetime { ttl: random.pick(&[0, 50 * MILLI, SECOND]), tti: random.pick(&[0, 20 * MILLI]) }
        }
    };
    let keys = 1 + random.below(256);
    let config = Config { lifetime, weighted, ..Config::new(capacity, kind) };
    let mut chooser = Chooser {
        random,
        keys,
        config,
        has_deadlines: matches!(target, FuzzTarget::Expiry | FuzzTarget::Cache),
        can_resize: matches!(target, FuzzTarget::Policy | FuzzTarget::Cache),
    };
    let mut run = Comparison::new(config, hashes);
    let mut steps = 0_u64;
    while !chooser.random.is_over() {
        run.step(chooser.op());
        steps += 1;
        if steps.is_multiple_of(16) {
            run.check();
        }
    }
    run.check();
    run.settle();
}

fn compare_random_calls(
    name: &str,
    seed: u64,
    steps: u64,
    every: u64,
    keys: u64,
    hashes: Hashes,
    config: Config,
) {
    println!("{name}: seed {seed}, {keys} keys, {hashes:?}, {config:?}");
    let mut chooser =
        Chooser { random: Random::new(seed), keys, config, has_deadlines: true, can_resize: true };
    let mut run = Comparison::new(config, hashes);
    for step in 0..steps {
        run.step(chooser.op());
        if step % every == 0 {
            run.check();
        }
    }
    run.check();
    run.settle();
}

/// Compares random calls with the model over many configurations.
fn compare_configs(name: &str, kind: Kind, capacities: &[u64], steps: u64, every: u64) {
    let seed = seed();
    let mut random = Random::new(seed ^ mix_hash(name.len() as u64));
    for &capacity in capacities {
        for weighted in [false, true] {
            for lifetime in [(0, 0), (50 * MILLI, 0), (0, 20 * MILLI), (SECOND, 5 * MILLI)] {
                let (ttl, tti) = lifetime;
                let config = Config {
                    lifetime: Lifetime { ttl, tti },
                    has_ttl_function: random.one_in(2),
                    weighted,
                    ..Config::new(capacity, kind)
                };
                let hashes = random.pick(&[Hashes::Spread, Hashes::Few, Hashes::Narrow]);
                let keys = 1 + random.below(2 * capacity.min(5_000) + 4);
                compare_random_calls(name, random.next(), steps, every, keys, hashes, config);
            }
        }
    }
}

#[test]
fn lru_agrees_with_the_model_after_every_call() {
    let capacities = sized(&[0, 1, 2, 3, 7, 16, 40][..], &[0, 2][..]);
    compare_configs("lru", Kind::Lru, capacities, sized(1_000, 4), 1);
}

#[test]
fn tiny_lfu_agrees_with_the_model_after_every_call() {
    let capacities = sized(&[0, 1, 2, 7, 8, 9, 16, 60][..], &[9][..]);
    compare_configs("tiny_lfu", Kind::TinyLfu, capacities, sized(1_000, 4), 1);
}

#[test]
fn large_caches_agree_with_the_model() {
    for kind in [Kind::Lru, Kind::TinyLfu] {
        compare_configs("large", kind, sized(&[300, 2_048][..], &[128][..]), sized(4_000, 3), 100);
    }
}
