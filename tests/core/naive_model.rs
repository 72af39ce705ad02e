//! Random calls on a cache and on a naive model of it: a list in the order of uses, and a clock.
//!
//! The model foretells every result and every leaving. Two choices are the cache's own: which of the entries
//! that are due leave in a call, and (with `TinyLfu`) which one the capacity costs. There the model checks that
//! the choice was a lawful one, and follows it.

use std::time::Duration;

use moka_py::{Cause, Config, Kind, Lifetime, NewValue};

use crate::support::{
    Asking, Error, Gone, Key, MICRO, MILLI, Plain, Random, SECOND, Subject, gone, mixed, seed,
};

#[derive(Clone, Debug)]
struct Item {
    key: u64,
    value: u64,
    weight: u64,
    expires_at: u64,
    used_at: u64,
    tti: u64,
}

impl Item {
    fn deadline(&self) -> u64 {
        let idle_at = if self.tti == 0 { u64::MAX } else { self.used_at + self.tti };
        self.expires_at.min(idle_at)
    }
}

struct Model {
    /// Least recently used first.
    items: Vec<Item>,
    config: Config,
    is_exact: bool,
    now: u64,
}

fn shorter(a: u64, b: u64) -> u64 {
    if a == 0 || (b != 0 && b < a) { b } else { a }
}

impl Model {
    fn position(&self, key: u64) -> Option<usize> {
        self.items.iter().position(|item| item.key == key)
    }

    fn is_due(&self, at: usize) -> bool {
        self.items[at].deadline() <= self.now
    }

    fn weight(&self) -> u64 {
        self.items.iter().map(|item| item.weight).sum()
    }

    fn live(&self) -> Vec<(u64, u64)> {
        let live = self.items.iter().filter(|item| item.deadline() > self.now);
        let mut live: Vec<_> = live.map(|item| (item.key, item.value)).collect();
        live.sort_unstable();
        live
    }

    fn find(&self, key: u64) -> Option<usize> {
        self.position(key).filter(|&at| !self.is_due(at))
    }

    /// A hit, which is a use.
    fn hit(&mut self, at: usize) -> u64 {
        let mut item = self.items.remove(at);
        // A use within a microsecond of the last one does not count.
        if item.tti != 0 && self.now > item.used_at + MICRO {
            item.used_at = self.now;
        }
        let value = item.value;
        self.items.push(item);
        value
    }

    fn take(&mut self, at: usize, cause: Cause) -> Gone {
        let cause = if self.is_due(at) { Cause::Expired } else { cause };
        let item = self.items.remove(at);
        gone(item.key, item.value, cause)
    }

    /// What is told of a write, as far as its own key is concerned.
    fn write(&mut self, key: u64, value: u64, weight: u64, lifetime: Lifetime) -> Vec<Gone> {
        let mut told = Vec::new();
        if let Some(at) = self.position(key) {
            told.push(self.take(at, Cause::Replaced));
        }
        if weight > self.config.capacity {
            told.push(gone(key, value, Cause::Size));
            return told;
        }
        let Lifetime { ttl, tti } = self.config.lifetime;
        let (ttl, tti) = (shorter(ttl, lifetime.ttl), shorter(tti, lifetime.tti));
        let expires_at = if ttl == 0 { u64::MAX } else { self.now + ttl };
        self.items.push(Item { key, value, weight, expires_at, used_at: self.now, tti });
        told
    }

    /// Follows what left besides: evictions, of others than `keep`, only as long as the capacity is spent; and what
    /// is due.
    fn follow(&mut self, told: &[Gone], keep: Option<u64>) {
        for one in told {
            let at = self.position(one.key.expect("keys are told")).expect("only what is there leaves");
            let is_over = self.weight() > self.config.capacity;
            match one.cause {
                Cause::Expired => assert!(self.is_due(at), "{one:?} is not due"),
                Cause::Size => {
                    assert!(is_over, "{one:?}: there was room");
                    assert_ne!(one.key, keep, "an entry is not the victim of its own write");
                    assert_ne!(self.items[at].weight, 0, "that it leaves makes no room");
                    let mut others = self.items.iter().filter(|item| Some(item.key) != keep);
                    let oldest = others.find(|item| item.weight != 0);
                    if self.is_exact {
                        assert_eq!(oldest.map(|item| item.key), one.key, "the oldest leaves");
                    }
                }
                _ => panic!("{one:?} is not foretold"),
            }
            assert_eq!(self.take(at, one.cause), *one);
        }
        assert!(self.weight() <= self.config.capacity, "the bound is exact");
    }
}

/// How hashes and comparisons are in a run.
#[derive(Clone, Copy, Debug)]
pub enum Hashes {
    Spread,
    /// A few hashes for all keys.
    Few,
    /// All in one shard, with neighbouring homes.
    Narrow,
}

/// One call, or time that passes. `asks` says that a user's code compares the key.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Get { key: u64, asks: bool },
    Peek { key: u64 },
    Set { key: u64, asks: bool, weight: u64, lifetime: Lifetime },
    SetIfAbsent { key: u64, weight: u64, lifetime: Lifetime },
    GetWith { key: u64, weight: u64, lifetime: Lifetime },
    Remove { key: u64 },
    Pop,
    ExpiresIn { key: u64 },
    Settle,
    Clear,
    Advance { by: u64 },
}

/// A few durations, so that deadlines coincide; also some that end within one tick.
pub const DURATIONS: [u64; 9] =
    [1, 700, 5 * MICRO, 70 * MICRO, MILLI, 3 * MILLI, 40 * MILLI, SECOND, 3600 * SECOND];

/// The most that time passes in a step.
pub const STEPS: [u64; 9] = [1, 300, MICRO, 30 * MICRO, 66 * MICRO, MILLI, 10 * MILLI, SECOND, 1800 * SECOND];

pub struct Run {
    subject: Subject,
    model: Model,
    hashes: Hashes,
    word: u64,
}

/// Chooses the calls of a run.
struct Chooser {
    random: Random,
    keys: u64,
    config: Config,
    /// Whether entries have deadlines of their own, and time goes by.
    ages: bool,
}

impl Chooser {
    fn duration(&mut self) -> u64 {
        if self.random.one_in(2) { 0 } else { self.random.pick(&DURATIONS) }
    }

    fn lifetime(&mut self) -> Lifetime {
        if !self.ages {
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
        let asks = self.random.one_in(2);
        match self.random.below(24) {
            0..=6 => Op::Get { key, asks },
            7 => Op::Peek { key },
            8..=13 => Op::Set { key, asks, weight, lifetime },
            14 | 15 => Op::SetIfAbsent { key, weight, lifetime },
            16 => Op::GetWith { key, weight, lifetime },
            17 | 18 => Op::Remove { key },
            19 => Op::Pop,
            20 => Op::ExpiresIn { key },
            21 => Op::Settle,
            22 if self.random.one_in(20) => Op::Clear,
            _ if !self.ages => Op::Settle,
            _ => {
                let most = self.random.pick(&STEPS);
                Op::Advance { by: self.random.below(most) + 1 }
            }
        }
    }
}

impl Run {
    pub fn new(config: Config, hashes: Hashes) -> Self {
        let config = Config { has_listener: true, ..config };
        // A cache of several shards has an order for each.
        let is_exact = config.capacity < 2048 && (config.policy == Kind::Lru || config.capacity < 8);
        let model = Model { items: Vec::new(), config, is_exact, now: 1 };
        Run { subject: Subject::new(config), model, hashes, word: 0 }
    }

    fn hash(&self, key: u64) -> u64 {
        match self.hashes {
            Hashes::Spread => mixed(key),
            Hashes::Few => mixed(key % 5),
            Hashes::Narrow => mixed(key) >> 12 << 6,
        }
    }

    fn plain(&self, key: u64) -> Plain {
        Plain { hash: self.hash(key), ..self.subject.query(key) }
    }

    fn asking(&self, key: u64) -> Asking<impl Fn(&Key) -> Result<bool, Error>> {
        let eq_slow = move |other: &Key| Ok(other.id() == key);
        Asking { key: Key::new(key, &self.subject.keys), hash: self.hash(key), eq_slow }
    }

    fn advance(&mut self, by: u64) {
        self.subject.advance(by);
        self.model.now += by;
    }

    /// One call on both, with all that came of it compared. Without a weigher weights count for nothing.
    pub fn step(&mut self, op: Op) {
        self.word += 1;
        let (word, subject) = (self.word, &self.subject);
        let weigh = |weight: u64| if self.model.config.weighted { weight } else { 1 };
        let stored =
            |weight: u64, lifetime| NewValue { weight: weight as u32, lifetime, ..subject.stored(word) };
        let word_of = |found: Result<Option<crate::support::Value>, Error>| {
            found.expect("no failure").map(|value| value.word())
        };
        match op {
            Op::Get { key, asks } => {
                let found = match asks {
                    false => word_of(subject.call(|removed| subject.cache.get(&self.plain(key), removed))),
                    true => word_of(subject.call(|removed| subject.cache.get(&self.asking(key), removed))),
                };
                assert_eq!(found, self.model.find(key).map(|at| self.model.hit(at)));
                self.model.follow(&subject.told(), None);
            }
            Op::Peek { key } => {
                let found = word_of(subject.call(|removed| subject.cache.peek(&self.plain(key), removed)));
                assert_eq!(found, self.model.find(key).map(|at| self.model.items[at].value));
                self.model.follow(&subject.told(), None);
            }
            Op::Set { key, asks, weight, lifetime } => {
                let weight = weigh(weight);
                let value = stored(weight, lifetime);
                match asks {
                    false => subject.call(|removed| subject.cache.set(&self.plain(key), value, removed)),
                    true => subject.call(|removed| subject.cache.set(&self.asking(key), value, removed)),
                }
                .expect("no failure");
                self.wrote(key, word, weight, lifetime);
            }
            Op::SetIfAbsent { key, weight, lifetime } => {
                let weight = weigh(weight);
                let (query, value) = (self.plain(key), stored(weight, lifetime));
                let kept =
                    word_of(subject.call(|removed| subject.cache.set_if_absent(&query, value, removed)));
                assert_eq!(kept, self.model.find(key).map(|at| self.model.hit(at)));
                match kept {
                    Some(_) => self.model.follow(&subject.told(), None),
                    None => self.wrote(key, word, weight, lifetime),
                }
            }
            Op::GetWith { key, weight, lifetime } => {
                let weight = weigh(weight);
                let loaded = subject.call(|removed| {
                    let compute = || Ok((stored(weight, lifetime).value, weight as u32));
                    let mut pause = |_: &(dyn Fn() + Sync)| unreachable!("nobody else computes");
                    subject.cache.get_with(&self.asking(key), lifetime, compute, &mut pause, removed)
                });
                let loaded = loaded.map(|value| value.word()).ok();
                match self.model.find(key) {
                    Some(at) => {
                        assert_eq!(loaded, Some(self.model.hit(at)));
                        self.model.follow(&subject.told(), None);
                    }
                    None => {
                        assert_eq!(loaded, Some(word));
                        // The look before the computation may have driven out what was due.
                        let told = subject.told();
                        let is_early = told.first().is_some_and(|first| first.cause == Cause::Expired);
                        let early =
                            told.iter().take_while(|one| is_early && one.cause == Cause::Expired).count();
                        self.model.follow(&told[..early], None);
                        self.wrote_told(key, word, weight, lifetime, &told[early..]);
                    }
                }
            }
            Op::Remove { key } => {
                let removed =
                    word_of(subject.call(|removed| subject.cache.remove(&self.plain(key), removed)));
                let mut told = subject.told();
                assert_eq!(removed, self.model.find(key).map(|at| self.model.items[at].value));
                if let Some(at) = self.model.position(key) {
                    assert_eq!(told.remove(0), self.model.take(at, Cause::Explicit));
                }
                self.model.follow(&told, None);
            }
            Op::Pop => self.pop(),
            Op::ExpiresIn { key } => {
                let expected = self.model.find(key).map(|at| self.model.items[at].deadline());
                let expected = expected.filter(|&deadline| deadline != u64::MAX);
                let removed = subject.call(|removed| subject.cache.expires_in(&self.plain(key), removed));
                assert_eq!(
                    removed,
                    Ok(expected.map(|deadline| Duration::from_nanos(deadline - self.model.now)))
                );
            }
            Op::Settle => self.settle(),
            Op::Clear => self.clear(),
            Op::Advance { by } => self.advance(by),
        }
    }

    fn wrote(&mut self, key: u64, word: u64, weight: u64, lifetime: Lifetime) {
        let told = self.subject.told();
        self.wrote_told(key, word, weight, lifetime, &told);
    }

    fn wrote_told(&mut self, key: u64, word: u64, weight: u64, lifetime: Lifetime, told: &[Gone]) {
        let foretold = self.model.write(key, word, weight, lifetime);
        let (own, others) = told.split_at(foretold.len());
        assert_eq!(own, foretold);
        self.model.follow(others, Some(key));
    }

    fn pop(&mut self) {
        let popped = self.subject.pop_any();
        let mut told = self.subject.told();
        match popped {
            Some((key, value)) => {
                assert_eq!(told.pop(), Some(gone(key, value, Cause::Explicit)));
                self.model.follow(&told, None);
                let at = self.model.find(key).expect("what is popped is there");
                assert_eq!(self.model.take(at, Cause::Explicit), gone(key, value, Cause::Explicit));
            }
            None => {
                self.model.follow(&told, None);
                assert!(self.model.items.is_empty());
            }
        }
    }

    /// Counts, after which nothing that is due is there; and drops what waits.
    pub fn settle(&mut self) {
        let (count, weight) = (self.subject.count(), self.subject.weight());
        self.model.follow(&self.subject.told(), None);
        assert!((0..self.model.items.len()).all(|at| !self.model.is_due(at)), "all that is due has left");
        assert_eq!((count, weight), (self.model.items.len(), self.model.weight()));
        self.subject.cache.flush();
        // Each entry has one value and one key; what other threads of this process read may hold up more.
        assert!(self.subject.values.alive() >= count);
        if cfg!(moka_gil) {
            assert_eq!((self.subject.values.alive(), self.subject.keys.alive()), (count, count));
        }
    }

    fn clear(&mut self) {
        self.subject.clear();
        let mut told = self.subject.told();
        let mut foretold: Vec<Gone> = Vec::new();
        while !self.model.items.is_empty() {
            foretold.push(self.model.take(0, Cause::Explicit));
        }
        told.sort_unstable_by_key(|one| one.value);
        foretold.sort_unstable_by_key(|one| one.value);
        assert_eq!(told, foretold);
    }

    pub fn check(&self) {
        assert_eq!(self.subject.entries(), self.model.live());
        self.subject.validate();
    }
}

/// What a fuzzer tries: a room of the cache, by the calls that come to it most, or all of it.
#[derive(Clone, Copy, Debug)]
pub enum Room {
    /// Nothing leaves but by a call, and hashes collide: the map grows, shrinks, and probes.
    Map,
    /// A small capacity and entries that weigh something.
    Policy,
    /// Room for everything, and every entry with a deadline or two.
    Expiry,
    /// All of it.
    Cache,
}

/// Plays the calls that a fuzzer made up, and checks each against the model.
pub fn play(room: Room, bytes: &[u8]) {
    let mut random = Random::tape(bytes);
    let kind = random.pick(&[Kind::Lru, Kind::TinyLfu]);
    let hashes = random.pick(&[Hashes::Spread, Hashes::Few, Hashes::Narrow]);
    let sizes = [0, 1, 2, 3, 7, 8, 9, 20, 60, 300];
    let capacity = match room {
        Room::Map | Room::Expiry => random.pick(&[10_000, u64::MAX]),
        Room::Policy | Room::Cache => random.pick(&sizes),
    };
    let weighted = matches!(room, Room::Policy | Room::Cache) && random.one_in(2);
    let lifetime = match room {
        Room::Map | Room::Policy => Lifetime::default(),
        Room::Expiry | Room::Cache => {
            Lifetime { ttl: random.pick(&[0, 50 * MILLI, SECOND]), tti: random.pick(&[0, 20 * MILLI]) }
        }
    };
    let keys = 1 + random.below(256);
    let config = Config { lifetime, weighted, ..Config::new(capacity, kind) };
    let mut chooser = Chooser { random, keys, config, ages: matches!(room, Room::Expiry | Room::Cache) };
    let mut run = Run::new(config, hashes);
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

fn run(name: &str, seed: u64, steps: u64, every: u64, keys: u64, hashes: Hashes, config: Config) {
    println!("{name}: seed {seed}, {keys} keys, {hashes:?}, {config:?}");
    let mut chooser = Chooser { random: Random::new(seed), keys, config, ages: true };
    let mut run = Run::new(config, hashes);
    for step in 0..steps {
        run.step(chooser.op());
        if step % every == 0 {
            run.check();
        }
    }
    run.check();
    run.settle();
}

/// Runs over a spread of configurations.
fn runs(name: &str, kind: Kind, capacities: &[u64], steps: u64, every: u64) {
    let seed = seed();
    let mut random = Random::new(seed ^ mixed(name.len() as u64));
    for &capacity in capacities {
        for weighted in [false, true] {
            for lifetime in [(0, 0), (50 * MILLI, 0), (0, 20 * MILLI), (SECOND, 5 * MILLI)] {
                let (ttl, tti) = lifetime;
                let config =
                    Config { lifetime: Lifetime { ttl, tti }, weighted, ..Config::new(capacity, kind) };
                let hashes = random.pick(&[Hashes::Spread, Hashes::Few, Hashes::Narrow]);
                let keys = 1 + random.below(2 * capacity.min(5_000) + 4);
                run(name, random.next(), steps, every, keys, hashes, config);
            }
        }
    }
}

#[test]
fn lru_is_as_the_model_after_every_step() {
    runs("lru", Kind::Lru, &[0, 1, 2, 3, 7, 16, 40], 1_000, 1);
}

#[test]
fn tiny_lfu_is_as_the_model_after_every_step() {
    runs("tiny_lfu", Kind::TinyLfu, &[0, 1, 2, 7, 8, 9, 16, 60], 1_000, 1);
}

#[test]
fn large_caches_are_as_the_model() {
    for kind in [Kind::Lru, Kind::TinyLfu] {
        runs("large", kind, &[300, 2_048], 4_000, 100);
    }
}
