//! Keys, values and caches for the models.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Time, AtomicUsize as Count, Ordering::Relaxed as Beside};

use loom::sync::atomic::{AtomicUsize, Ordering};
use moka_py::{
    Cache, Cause, Clock, Config, Cursor, Departures, Failure, Kind, Lifetime, LoadError, Lookup, Stored,
};

pub type Error = &'static str;

/// Tries a model: all its runs with at most so many preemptions, which `LOOM_MAX_PREEMPTIONS` overrides.
///
/// Most bugs show with two. Without a bound a model of two calls takes hours.
pub fn model(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    let runs = Arc::new(Count::new(0));
    let counted = runs.clone();
    builder.check(move || {
        counted.fetch_add(1, Beside);
        run();
    });
    println!("{} runs", runs.load(Beside));
}

loom::thread_local! {
    /// Whether the thread is in a call of the cache, where nothing of a user may be dropped.
    static IS_INSIDE: Cell<bool> = Cell::new(false);
}

struct Body {
    word: u64,
    /// loom's, so that whoever counts up must be ordered after its making.
    count: AtomicUsize,
    alive: Arc<Count>,
}

/// A key or a value: a counted reference that knows when it is used after its end. What it refers to is never
/// freed, so that it can tell.
pub struct Shared(&'static Body);

impl Shared {
    fn new(word: u64, alive: &Arc<Count>) -> Self {
        alive.fetch_add(1, Beside);
        Shared(Box::leak(Box::new(Body { word, count: AtomicUsize::new(1), alive: alive.clone() })))
    }

    pub fn word(&self) -> u64 {
        self.0.word
    }
}

impl Clone for Shared {
    fn clone(&self) -> Self {
        let before = self.0.count.fetch_add(1, Ordering::Relaxed);
        assert!(before > 0, "{} is used after its end", self.0.word);
        Shared(self.0)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let before = self.0.count.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "{} is dropped twice", self.0.word);
        if before == 1 {
            let is_inside = IS_INSIDE.with(Cell::get);
            assert!(!is_inside, "{} is dropped in the middle of a call", self.0.word);
            self.0.alive.fetch_sub(1, Beside);
        }
    }
}

/// How a key asks. Keys of one tag meet in one probe.
pub struct Query {
    key: Shared,
    hash: u64,
    /// Whether equality needs a user's code.
    asks: bool,
}

impl Lookup<Shared> for Query {
    type Error = Error;

    fn hash(&self) -> u64 {
        self.hash
    }

    fn key(&self) -> Shared {
        self.key.clone()
    }

    fn quick(&self, key: &Shared) -> Option<bool> {
        (!self.asks).then_some(key.word() == self.key.word())
    }

    fn equals(&self, key: &Shared) -> Result<bool, Error> {
        Ok(key.word() == self.key.word())
    }

    fn same(a: &Shared, b: &Shared) -> bool {
        std::ptr::eq(a.0, b.0)
    }
}

/// One leaving, as a listener is told of it: key, value, cause.
pub type Gone = (u64, u64, Cause);

/// A cache in a model.
pub struct World {
    cache: Cache<Shared, Shared, Error>,
    time: Arc<Time>,
    alive: Arc<Count>,
    hash: fn(u64) -> u64,
    asks: bool,
}

/// Spreads keys over the slots of the smallest table, one after the other; even and odd ones are in different shards.
pub fn apart(id: u64) -> u64 {
    id << 62 | id << 32 | id & 1
}

/// All keys have one home, and so a common probe; their tags differ.
pub fn one_home(id: u64) -> u64 {
    id << 32
}

/// All keys have one hash.
pub fn one_hash(_: u64) -> u64 {
    0
}

impl World {
    pub fn new(capacity: u64, weighted: bool, hash: fn(u64) -> u64) -> Self {
        let time = Arc::new(Time::new(0));
        let config = Config { weighted, listened: true, ..Config::new(capacity, Kind::Lru) };
        let cache = Cache::new(config, Clock::Manual(time.clone()));
        World { cache, time, alive: Arc::default(), hash, asks: false }
    }

    /// One in which each comparison is a user's code.
    pub fn asking(self) -> Self {
        World { asks: true, ..self }
    }

    pub fn now(&self) -> u64 {
        self.time.load(Beside)
    }

    pub fn advance(&self, by: u64) {
        self.time.fetch_add(by, Beside);
    }

    fn query(&self, id: u64) -> Query {
        Query { key: Shared::new(id, &self.alive), hash: (self.hash)(id), asks: self.asks }
    }

    fn stored(&self, word: u64) -> Stored<Shared> {
        Stored::plain(Shared::new(word, &self.alive))
    }

    /// Makes a call of the core as its callers do, and returns what left in it as well.
    fn call<R>(
        &self,
        body: impl FnOnce(&Cache<Shared, Shared, Error>, &mut Departures<Shared, Shared>) -> R,
    ) -> (R, Vec<Gone>) {
        let mut left = Departures::new();
        IS_INSIDE.with(|inside| inside.set(true));
        let result = body(&self.cache, &mut left);
        IS_INSIDE.with(|inside| inside.set(false));
        let told = |key: &Shared, value: &Shared, cause| (key.word(), value.word(), cause);
        let gone =
            left.iter().map(|one| told(one.key().expect("a listener is told it"), one.value(), one.cause()));
        let gone = gone.collect();
        self.cache.release(&mut left);
        (result, gone)
    }

    pub fn get_and_tell(&self, id: u64) -> (Option<u64>, Vec<Gone>) {
        let query = self.query(id);
        let (found, gone) = self.call(|cache, left| cache.get(&query, left));
        (found.expect("no key fails").map(|value| value.word()), gone)
    }

    pub fn get(&self, id: u64) -> Option<u64> {
        self.get_and_tell(id).0
    }

    pub fn set(&self, id: u64, word: u64) -> Vec<Gone> {
        self.store(id, self.stored(word))
    }

    pub fn set_weighing(&self, id: u64, word: u64, weight: u32) -> Vec<Gone> {
        self.store(id, Stored { weight, ..self.stored(word) })
    }

    pub fn set_for(&self, id: u64, word: u64, ttl: u64, tti: u64) -> Vec<Gone> {
        self.store(id, Stored { lifetime: Lifetime { ttl, tti }, ..self.stored(word) })
    }

    fn store(&self, id: u64, stored: Stored<Shared>) -> Vec<Gone> {
        let query = self.query(id);
        let (done, gone) = self.call(|cache, left| cache.set(&query, stored, left));
        done.expect("no key fails");
        gone
    }

    pub fn remove(&self, id: u64) -> (Option<u64>, Vec<Gone>) {
        let query = self.query(id);
        let (removed, gone) = self.call(|cache, left| cache.remove(&query, left));
        (removed.expect("no key fails").map(|value| value.word()), gone)
    }

    /// The value of a key, which `compute` makes where it is not there. The last of those who waited for a
    /// computation drops what is left of it, in its own call.
    pub fn get_with(
        &self,
        id: u64,
        compute: impl FnOnce() -> Result<u64, Failure<Error>>,
    ) -> Result<u64, LoadError<Error>> {
        let query = self.query(id);
        let mut left = Departures::new();
        let compute = || compute().map(|word| (Shared::new(word, &self.alive), 1));
        let mut pause = |park: &(dyn Fn() + Sync)| {
            park();
            Ok(())
        };
        let got = self.cache.get_with(&query, Lifetime::default(), compute, &mut pause, &mut left);
        self.cache.release(&mut left);
        got.map(|value| value.word())
    }

    /// Keys and values by iteration, in the order of the keys.
    pub fn entries(&self) -> Vec<(u64, u64)> {
        let mut cursor = Cursor::default();
        let next = || self.cache.next_entry(&mut cursor).map(|(key, value)| (key.word(), value.word()));
        let mut entries: Vec<_> = std::iter::from_fn(next).collect();
        entries.sort_unstable();
        entries
    }

    pub fn clear(&self) {
        let mut cursor = Cursor::default();
        while self.call(|cache, left| cache.clear_batch(&mut cursor, left)).0 {}
    }

    /// How many keys and values are alive, in the cache or out of it.
    pub fn alive(&self) -> usize {
        self.alive.load(Beside)
    }

    pub fn flush(&self) {
        self.cache.flush();
    }

    pub fn count(&self) -> usize {
        self.call(|cache, left| cache.count(left)).0
    }

    pub fn weight(&self) -> u64 {
        self.call(|cache, left| cache.weight(left)).0
    }

    /// Ends the model, once its threads have: the invariants hold, and with the cache all it held goes.
    pub fn end(self: Arc<Self>) {
        let World { cache, alive, .. } = Arc::into_inner(self).expect("the threads have ended");
        cache.validate();
        cache.flush();
        drop(cache);
        assert_eq!(alive.load(Beside), 0, "nothing lives on");
    }
}

/// Starts a thread of the model.
pub fn spawn<R: 'static>(
    world: &Arc<World>,
    body: impl FnOnce(&World) -> R + 'static,
) -> loom::thread::JoinHandle<R> {
    let world = world.clone();
    loom::thread::spawn(move || body(&world))
}
