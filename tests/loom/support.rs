//! Keys, values and caches for the models.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64 as Time, AtomicUsize as Count, Ordering::Relaxed as Beside};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use moka_py::{
    Cache, Cause, Clock, Config, Cursor, Failure, Handle, KeyQuery, Kind, Lifetime, LoadError, NewValue,
    Removals, RunStart,
};

pub type Error = &'static str;

/// Tries a model: all runs of it with at most so many preemptions, or what `LOOM_MAX_PREEMPTIONS` says, and
/// `MOKA_MODEL_MORE` beyond that. Without a bound two calls would take hours, and most bugs show with two.
pub fn model(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let more =
        std::env::var("MOKA_MODEL_MORE").map_or(0, |more| more.parse().expect("MOKA_MODEL_MORE is a number"));
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    let bound = builder.preemption_bound.unwrap_or(preemptions) + more;
    builder.preemption_bound = Some(bound);
    let most = builder.max_duration.unwrap_or(Duration::MAX);
    let (runs, began) = (Arc::new(Count::new(0)), Instant::now());
    let counted = runs.clone();
    builder.check(move || {
        counted.fetch_add(1, Beside);
        run();
    });
    let end = if began.elapsed() < most { "all" } else { "not all, for want of time" };
    let name = std::thread::current().name().unwrap_or("a model").to_owned();
    println!("{name}: {} runs with at most {bound} preemptions, {end}", runs.load(Beside));
}

loom::thread_local! {
    /// Whether the thread is in a call of the cache, where nothing of a user may be dropped.
    static IS_INSIDE: Cell<bool> = Cell::new(false);
}

struct Body {
    /// loom's, so that whoever reads it must be ordered after its making, and before its end: it is taken out then.
    word: RwLock<Option<AtomicU64>>,
    count: AtomicUsize,
    alive: Arc<Count>,
}

/// A key or a value: a counted reference that knows when it is used after its end. What it refers to is never
/// freed, so that it can tell.
pub struct Shared(&'static Body);

impl Shared {
    fn new(word: u64, alive: &Arc<Count>) -> Self {
        alive.fetch_add(1, Beside);
        let word = RwLock::new(Some(AtomicU64::new(word)));
        Shared(Box::leak(Box::new(Body { word, count: AtomicUsize::new(1), alive: alive.clone() })))
    }

    pub fn word(&self) -> u64 {
        let word = self.0.word.try_read().expect("nobody ends what is read");
        word.as_ref().expect("it is read after its end").load(Ordering::Relaxed)
    }
}

impl Handle for Shared {}

impl Clone for Shared {
    fn clone(&self) -> Self {
        let before = self.0.count.fetch_add(1, Ordering::Relaxed);
        assert!(before > 0, "it is used after its end");
        Shared(self.0)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let before = self.0.count.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "it is dropped twice");
        if before == 1 {
            assert!(!IS_INSIDE.with(Cell::get), "it is dropped in the middle of a call");
            let word = self.0.word.try_write().expect("nobody reads what ends").take();
            // A write: loom knows who is not ordered before it.
            word.expect("it ends once").with_mut(|_| ());
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
    /// How often that runs until it fails.
    patience: Cell<usize>,
}

impl KeyQuery<Shared> for Query {
    type Error = Error;

    fn hash(&self) -> u64 {
        self.hash
    }

    fn key(&self) -> Shared {
        self.key.clone()
    }

    fn eq_builtin(&self, key: &Shared) -> Option<bool> {
        (!self.asks).then_some(key.word() == self.key.word())
    }

    fn eq_slow(&self, key: &Shared) -> Result<bool, Error> {
        self.patience.set(self.patience.get().checked_sub(1).ok_or("no patience")?);
        Ok(key.word() == self.key.word())
    }

    fn ptr_eq(a: &Shared, b: &Shared) -> bool {
        std::ptr::eq(a.0, b.0)
    }
}

/// One leaving, as a listener is told of it: key, value, cause. Where nobody listens, the key of a value that was replaced
/// is 0.
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
        Self::of(Config { weighted, has_listener: true, ..Config::new(capacity, Kind::Lru) }, hash)
    }

    /// One to which nobody listens.
    pub fn unheard(capacity: u64, hash: fn(u64) -> u64) -> Self {
        Self::of(Config::new(capacity, Kind::Lru), hash)
    }

    fn of(config: Config, hash: fn(u64) -> u64) -> Self {
        let time = Arc::new(Time::new(0));
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
        let patience = Cell::new(usize::MAX);
        Query { key: Shared::new(id, &self.alive), hash: (self.hash)(id), asks: self.asks, patience }
    }

    fn stored(&self, word: u64) -> NewValue<Shared> {
        NewValue::plain(Shared::new(word, &self.alive))
    }

    /// Makes a call of the core as its callers do, and returns what left in it as well.
    fn call<R>(
        &self,
        body: impl FnOnce(&Cache<Shared, Shared, Error>, &mut Removals<Shared, Shared>) -> R,
    ) -> (R, Vec<Gone>) {
        let mut removed = Removals::new();
        IS_INSIDE.with(|inside| inside.set(true));
        let result = body(&self.cache, &mut removed);
        IS_INSIDE.with(|inside| inside.set(false));
        let is_heard = self.cache.config().has_listener;
        let told = |key: Option<&Shared>, value: &Shared, cause| {
            assert!(key.is_some() || !is_heard, "a listener is told it");
            (key.map_or(0, Shared::word), value.word(), cause)
        };
        let gone = removed.iter().map(|one| told(one.key(), one.value(), one.cause())).collect();
        self.cache.release(&mut removed);
        (result, gone)
    }

    pub fn get_and_tell(&self, id: u64) -> (Option<u64>, Vec<Gone>) {
        let query = self.query(id);
        let (found, gone) = self.call(|cache, removed| cache.get(&query, removed));
        (found.expect("no key fails").map(|value| value.word()), gone)
    }

    pub fn get(&self, id: u64) -> Option<u64> {
        self.get_and_tell(id).0
    }

    pub fn set(&self, id: u64, word: u64) -> Vec<Gone> {
        self.store(id, self.stored(word))
    }

    pub fn set_weighing(&self, id: u64, word: u64, weight: u32) -> Vec<Gone> {
        self.store(id, NewValue { weight, ..self.stored(word) })
    }

    pub fn set_for(&self, id: u64, word: u64, ttl: u64, tti: u64) -> Vec<Gone> {
        self.store(id, NewValue { lifetime: Lifetime { ttl, tti }, ..self.stored(word) })
    }

    fn store(&self, id: u64, stored: NewValue<Shared>) -> Vec<Gone> {
        let query = self.query(id);
        let (done, gone) = self.call(|cache, removed| cache.set(&query, stored, removed));
        done.expect("no key fails");
        gone
    }

    /// The very value that a key has.
    pub fn value_of(&self, id: u64) -> Shared {
        let query = self.query(id);
        self.call(|cache, removed| cache.peek(&query, removed)).0.expect("no key fails").expect("it is there")
    }

    pub fn set_shared_for(&self, id: u64, value: Shared, ttl: u64) -> Vec<Gone> {
        self.store(id, NewValue { lifetime: Lifetime { ttl, tti: 0 }, ..NewValue::plain(value) })
    }

    pub fn set_if_absent(&self, id: u64, word: u64) -> Option<u64> {
        let query = self.query(id);
        // The caller has it as well, also where it is not stored.
        let value = Shared::new(word, &self.alive);
        let stored = NewValue::plain(value.clone());
        let kept = self.call(|cache, removed| cache.set_if_absent(&query, stored, removed)).0;
        kept.expect("no key fails").map(|value| value.word())
    }

    /// Goes through all, and removes what has this value still when it comes to that.
    pub fn remove_all_if(&self, word: u64) {
        let mut cursor = Cursor::default();
        while let Some((_, value)) = self.cache.next_entry(&mut cursor) {
            if value.word() == word {
                let is_seen = |_: &Shared, now: &Shared| std::ptr::eq(now.0, value.0);
                self.call(|cache, removed| cache.remove_last_yielded(&cursor, is_seen, removed));
            }
        }
    }

    pub fn remove(&self, id: u64) -> (Option<u64>, Vec<Gone>) {
        let query = self.query(id);
        let (removed, gone) = self.call(|cache, removed| cache.remove(&query, removed));
        (removed.expect("no key fails").map(|value| value.word()), gone)
    }

    /// The value of a key, which `compute` makes where it is not there. The last of those who waited for a
    /// computation drops what is left of it, in its own call.
    pub fn get_with(
        &self,
        id: u64,
        compute: impl FnOnce() -> Result<u64, Failure<Error>>,
    ) -> Result<u64, LoadError<Error>> {
        self.get_with_patience(id, usize::MAX, compute)
    }

    /// The same, with a user's code that fails when it has compared keys so often.
    pub fn get_with_patience(
        &self,
        id: u64,
        patience: usize,
        compute: impl FnOnce() -> Result<u64, Failure<Error>>,
    ) -> Result<u64, LoadError<Error>> {
        let query = self.query(id);
        query.patience.set(patience);
        let mut removed = Removals::new();
        let compute = || compute().map(|word| (Shared::new(word, &self.alive), 1));
        let mut pause = |park: &(dyn Fn() + Sync)| {
            park();
            Ok(())
        };
        let got = self.cache.get_with(&query, Lifetime::default(), compute, &mut pause, &mut removed);
        self.cache.release(&mut removed);
        got.map(|value| value.word())
    }

    /// The value of a key; where it is not there, `compute` makes it, in a run that no other call waits for.
    pub fn run(&self, id: u64, compute: impl FnOnce() -> u64) -> u64 {
        let query = self.query(id);
        if let Some(word) = self.get(id) {
            return word;
        }
        let run = match self.call(|cache, removed| cache.begin_run(&query, removed)).0.expect("no key fails")
        {
            RunStart::Present(value) => return value.word(),
            RunStart::Run(run) => run,
        };
        let word = compute();
        // The caller has it as well, also where it is not stored.
        let value = Shared::new(word, &self.alive);
        let stored = NewValue::plain(value.clone());
        let kept = self.call(|cache, removed| cache.complete_run(&query, run, stored, removed)).0;
        kept.expect("no key fails");
        word
    }

    /// Marks all computations under way, as a removal by a predicate does before it asks.
    pub fn supersede_all(&self) {
        self.cache.supersede_all();
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
        while self.call(|cache, removed| cache.clear_batch(&mut cursor, removed)).0 {}
    }

    /// How many keys and values are alive, in the cache or out of it.
    pub fn alive(&self) -> usize {
        self.alive.load(Beside)
    }

    pub fn flush(&self) {
        self.cache.flush();
    }

    pub fn count(&self) -> usize {
        self.call(|cache, removed| cache.count(removed)).0
    }

    pub fn weight(&self) -> u64 {
        self.call(|cache, removed| cache.weight(removed)).0
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

/// Replaces key 1's value 10, by the only thread, beside a newcomer that reads it.
pub fn replace_beside_a_newcomer(world: &Arc<World>) {
    let newcomer = spawn(world, |world| world.get(1));
    world.set(1, 11);
    world.set(1, 12);
    assert!([Some(10), Some(11), Some(12)].contains(&newcomer.join().expect("no panic")));
}

/// Replaces key 1's value 10 by 11 beside its removal, and ends the model: one comes after the other.
pub fn replace_beside_a_removal(world: Arc<World>) {
    let writer = spawn(&world, |world| world.set(1, 11));
    let (removed, _) = world.remove(1);
    let replaced = writer.join().expect("no panic");
    end_after_a_removal(world, removed, &replaced);
}

/// The same, by what was removed and what the replacement pushed out.
pub fn end_after_a_removal(world: Arc<World>, removed: Option<u64>, replaced: &[Gone]) {
    let expected = match removed {
        Some(10) => Some(11),
        Some(11) => None,
        other => panic!("{other:?} was never the value"),
    };
    assert_eq!(replaced.is_empty(), removed == Some(10), "{removed:?}, {replaced:?}");
    assert_eq!(world.get(1), expected);
    world.end();
}
