//! Keys, values, caches, random choices and threads for the tests of the core.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use moka_py::{
    BulkKey, Cache, Cause, Clock, Config, Cursor, Failure, Handle, KeyQuery, Kind, Lifetime, LoadError,
    NewValue, Removals, WaitStep,
};

pub type Error = &'static str;
pub type TestCache = Cache<Key, Value, Error>;

/// Returns the first size. Miri, where a step takes about a thousand times as long, uses the second one.
pub const fn sized<T: Copy>(size: T, under_miri: T) -> T {
    if cfg!(miri) { under_miri } else { size }
}

pub const MICRO: u64 = 1_000;
pub const MILLI: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;
pub const YEAR: u64 = 31_557_600 * SECOND;

/// How often a test flushes a cache, with a pause of a millisecond, before it gives up. On the GIL build one flush is
/// enough.
const MAX_FLUSHES: usize = if cfg!(moka_gil) { 1 } else { 10_000 };

/// Counts the living objects of a test.
#[derive(Clone, Default)]
pub struct LiveCount(Arc<AtomicUsize>);

impl LiveCount {
    pub fn alive(&self) -> usize {
        self.0.load(SeqCst)
    }
}

struct Token(LiveCount);

impl Token {
    fn of(tally: &LiveCount) -> Self {
        tally.0.fetch_add(1, SeqCst);
        Token(tally.clone())
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let before = self.0.0.fetch_sub(1, SeqCst);
        assert!(before > 0, "something was dropped twice");
    }
}

struct Body {
    word: u64,
    let_go: AtomicUsize,
    _token: Token,
}

impl Body {
    fn new(word: u64, tally: &LiveCount) -> Arc<Self> {
        Arc::new(Body { word, let_go: AtomicUsize::new(0), _token: Token::of(tally) })
    }

    /// Orders the last drop after all other uses for ThreadSanitizer, which does not see the fence of `Arc`.
    fn let_go(&self) {
        if cfg!(moka_sanitize_thread) {
            self.let_go.fetch_add(1, SeqCst);
        }
    }
}

#[derive(Clone)]
pub struct Key(Arc<Body>);

#[derive(Clone)]
pub struct Value(Arc<Body>);

impl Handle for Key {}

impl Handle for Value {}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

impl Key {
    pub fn new(id: u64, tally: &LiveCount) -> Self {
        Key(Body::new(id, tally))
    }

    pub fn id(&self) -> u64 {
        self.0.word
    }

    pub fn is(&self, other: &Key) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Value {
    pub fn new(word: u64, tally: &LiveCount) -> Self {
        Value(Body::new(word, tally))
    }

    pub fn word(&self) -> u64 {
        self.0.word
    }

    pub fn is(&self, other: &Value) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Whether both are the same object, or both are absent.
pub fn is_same_value(seen: Option<&Value>, present: Option<&Value>) -> bool {
    match (seen, present) {
        (Some(seen), Some(present)) => seen.is(present),
        (None, None) => true,
        _ => false,
    }
}

/// Returns a hash that depends on every bit of the key.
pub fn mix_hash(id: u64) -> u64 {
    let x = id.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A query whose comparison runs no code of a user.
pub struct BuiltinEqQuery {
    pub key: Key,
    pub hash: u64,
}

impl BuiltinEqQuery {
    pub fn new(id: u64, tally: &LiveCount) -> Self {
        BuiltinEqQuery { key: Key::new(id, tally), hash: mix_hash(id) }
    }
}

impl KeyQuery<Key> for BuiltinEqQuery {
    type Error = Error;

    fn hash(&self) -> u64 {
        self.hash
    }

    fn key(&self) -> Key {
        self.key.clone()
    }

    fn eq_builtin(&self, key: &Key) -> Option<bool> {
        Some(self.key.id() == key.id())
    }

    fn eq_slow(&self, _: &Key) -> Result<bool, Error> {
        unreachable!("a plain key is compared quickly")
    }

    fn ptr_eq(a: &Key, b: &Key) -> bool {
        Arc::ptr_eq(&a.0, &b.0)
    }
}

/// A query whose comparison runs code of a user, unless both keys are the same object.
pub struct UserEqQuery<F> {
    pub key: Key,
    pub hash: u64,
    pub eq_slow: F,
}

impl<F: Fn(&Key) -> Result<bool, Error>> KeyQuery<Key> for UserEqQuery<F> {
    type Error = Error;

    fn hash(&self) -> u64 {
        self.hash
    }

    fn key(&self) -> Key {
        self.key.clone()
    }

    fn eq_builtin(&self, key: &Key) -> Option<bool> {
        Arc::ptr_eq(&self.key.0, &key.0).then_some(true)
    }

    fn eq_slow(&self, key: &Key) -> Result<bool, Error> {
        (self.eq_slow)(key)
    }

    fn ptr_eq(a: &Key, b: &Key) -> bool {
        Arc::ptr_eq(&a.0, &b.0)
    }
}

/// One removal, as the listener gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub key: Option<u64>,
    pub value: u64,
    pub cause: Cause,
}

pub fn event(key: u64, value: u64, cause: Cause) -> Event {
    Event { key: Some(key), value, cause }
}

/// Calls the core as the Python layer does: with a list of removals, which are reported and released afterwards.
pub fn call<R>(cache: &TestCache, body: impl FnOnce(&mut Removals<Key, Value>) -> R) -> (R, Vec<Event>) {
    let mut removed = Removals::new();
    let result = body(&mut removed);
    let events = removed
        .iter()
        .map(|one| Event { key: one.key().map(Key::id), value: one.value().word(), cause: one.cause() })
        .collect();
    cache.release(&mut removed);
    (result, events)
}

/// Loads many keys as the Python layer does. `load` gets the keys that the call leads, and returns values of any keys.
pub fn load_many<Q: KeyQuery<Key, Error = Error>>(
    cache: &TestCache,
    ids: &[u64],
    query: impl Fn(u64) -> Q,
    load: impl FnOnce(&[u64]) -> Result<BTreeMap<u64, NewValue<Value>>, Failure<Error>>,
    wait_step: &mut WaitStep<'_, Error>,
) -> Result<BTreeMap<u64, Value>, LoadError<Error>> {
    let mut removed = Removals::new();
    let mut values = BTreeMap::new();
    let run = || {
        let mut bulk = cache.begin_bulk_load();
        let (mut led, mut awaited) = (Vec::new(), Vec::new());
        for &id in ids {
            match bulk.begin(&query(id), &mut removed)? {
                BulkKey::Present(value) => drop(values.insert(id, value)),
                BulkKey::Lead => led.push(id),
                BulkKey::Wait => awaited.push(id),
            }
        }
        if !led.is_empty() {
            let mut loaded = match load(&led) {
                Ok(loaded) => loaded,
                Err(Failure { error, for_waiters }) => {
                    bulk.fail(for_waiters);
                    return Err(LoadError::User(error));
                }
            };
            for &id in &led {
                let new = loaded.remove(&id);
                values.extend(new.as_ref().map(|new| (id, new.value.clone())));
                bulk.complete_next(&query(id), new, &mut removed)?;
            }
            for (id, new) in loaded {
                values.entry(id).or_insert_with(|| new.value.clone());
                cache.insert_unless_in_flight(&query(id), new, &mut removed)?;
            }
        }
        let mut waits = bulk.into_waits();
        for id in awaited {
            let value = waits.wait_next(&query(id), wait_step, &mut removed)?;
            values.extend(value.map(|value| (id, value)));
        }
        Ok(())
    };
    let result = run();
    cache.release(&mut removed);
    result.map(|()| values)
}

/// Checks the invariants of a cache. Release builds have no such check.
pub fn validate<K: Handle, V: Handle, E: Clone + Send + Sync + 'static>(_cache: &Cache<K, V, E>) {
    #[cfg(debug_assertions)]
    _cache.validate();
}

/// A cache in one thread, with its clock, its events, and counts of living keys and values.
pub struct Subject {
    pub cache: TestCache,
    pub keys: LiveCount,
    pub values: LiveCount,
    time: Arc<AtomicU64>,
    events: RefCell<Vec<Event>>,
}

impl Subject {
    pub fn new(config: Config) -> Self {
        let time = Arc::new(AtomicU64::new(0));
        let cache = Cache::new(Config { has_listener: true, ..config }, Clock::Manual(time.clone()));
        Subject {
            cache,
            keys: LiveCount::default(),
            values: LiveCount::default(),
            time,
            events: RefCell::default(),
        }
    }

    pub fn lru(capacity: u64) -> Self {
        Self::new(Config::new(capacity, Kind::Lru))
    }

    pub fn tiny_lfu(capacity: u64) -> Self {
        Self::new(Config::new(capacity, Kind::TinyLfu))
    }

    pub fn call<R>(&self, body: impl FnOnce(&mut Removals<Key, Value>) -> R) -> R {
        let (result, events) = call(&self.cache, body);
        self.events.borrow_mut().extend(events);
        result
    }

    /// Returns the events since the last call.
    pub fn events(&self) -> Vec<Event> {
        self.events.take()
    }

    /// Returns the keys of the events with this cause since the last call.
    pub fn removed_keys(&self, cause: Cause) -> Vec<u64> {
        let events = self.events().into_iter().filter(|event| event.cause == cause);
        events.map(|event| event.key.expect("the listener gets keys")).collect()
    }

    pub fn advance(&self, nanos: u64) {
        self.time.fetch_add(nanos, SeqCst);
    }

    pub fn query(&self, id: u64) -> BuiltinEqQuery {
        BuiltinEqQuery::new(id, &self.keys)
    }

    pub fn stored(&self, word: u64) -> NewValue<Value> {
        NewValue::plain(Value::new(word, &self.values))
    }

    pub fn get(&self, id: u64) -> Option<u64> {
        let found = self.call(|removed| self.cache.get(&self.query(id), removed));
        found.expect("plain keys do not fail").map(|value| value.word())
    }

    pub fn peek(&self, id: u64) -> Option<u64> {
        let found = self.call(|removed| self.cache.peek(&self.query(id), removed));
        found.expect("plain keys do not fail").map(|value| value.word())
    }

    pub fn set(&self, id: u64, word: u64) {
        self.store(id, self.stored(word));
    }

    pub fn set_with_weight(&self, id: u64, word: u64, weight: u32) {
        self.store(id, NewValue { weight, ..self.stored(word) });
    }

    pub fn set_with_lifetime(&self, id: u64, word: u64, ttl: u64, tti: u64) {
        self.store(id, NewValue { lifetime: Lifetime { ttl, tti }, ..self.stored(word) });
    }

    pub fn store(&self, id: u64, stored: NewValue<Value>) {
        let stored = self.call(|removed| self.cache.set(&self.query(id), stored, removed));
        stored.expect("plain keys do not fail");
    }

    pub fn set_if_absent(&self, id: u64, word: u64) -> Option<u64> {
        let kept = self.call(|removed| self.cache.set_if_absent(&self.query(id), self.stored(word), removed));
        kept.expect("plain keys do not fail").map(|value| value.word())
    }

    /// Sets a value if the key still has the value `seen`. Returns whether it did.
    pub fn set_if_same(&self, id: u64, seen: Option<&Value>, stored: NewValue<Value>) -> bool {
        let is_same = |present: Option<&Value>| is_same_value(seen, present);
        let set = |removed: &mut _| self.cache.set_if_same(&self.query(id), stored, is_same, removed);
        self.call(set).expect("plain keys do not fail").is_none()
    }

    pub fn touch(&self, id: u64, ttl: u64, tti: u64) -> bool {
        let touched = self.call(|removed| self.cache.touch(&self.query(id), Lifetime { ttl, tti }, removed));
        touched.expect("plain keys do not fail")
    }

    /// Returns the time until an entry may be due, in nanoseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        self.cache.next_deadline().map(|remaining| remaining.as_nanos() as u64)
    }

    pub fn remove(&self, id: u64) -> Option<u64> {
        let removed = self.call(|removed| self.cache.remove(&self.query(id), removed));
        removed.expect("plain keys do not fail").map(|value| value.word())
    }

    pub fn pop_any(&self) -> Option<(u64, u64)> {
        self.call(|removed| self.cache.pop_any(removed)).map(|(key, value)| (key.id(), value.word()))
    }

    pub fn clear(&self) {
        let mut cursor = Cursor::default();
        while self.call(|removed| self.cache.clear_batch(&mut cursor, removed)) {}
    }

    pub fn resize(&self, capacity: u64) {
        let mut resize = self.cache.begin_resize(capacity);
        while self.call(|removed| resize.step(removed)) {}
    }

    pub fn count(&self) -> usize {
        self.call(|removed| self.cache.count(removed))
    }

    pub fn weight(&self) -> u64 {
        self.call(|removed| self.cache.weight(removed))
    }

    pub fn remaining_time(&self, id: u64) -> Option<Duration> {
        self.call(|removed| self.cache.expires_in(&self.query(id), removed)).expect("plain keys do not fail")
    }

    /// Returns the remaining time in nanoseconds.
    pub fn expires_in(&self, id: u64) -> Option<u64> {
        self.remaining_time(id).map(|removed| removed.as_nanos() as u64)
    }

    /// Returns keys and values by iteration, sorted by key.
    pub fn entries(&self) -> Vec<(u64, u64)> {
        let mut cursor = Cursor::default();
        let next = || self.cache.next_entry(&mut cursor).map(|(key, value)| (key.id(), value.word()));
        let mut entries: Vec<_> = std::iter::from_fn(next).collect();
        entries.sort_unstable();
        entries
    }

    pub fn held_keys(&self) -> Vec<u64> {
        self.entries().into_iter().map(|(key, _)| key).collect()
    }

    pub fn validate(&self) {
        validate(&self.cache);
    }
}

/// The source of a test's choices.
pub enum Random {
    /// Pseudo-random numbers.
    Seed(u64),
    /// The bytes of a fuzzer, which end.
    Tape(VecDeque<u8>),
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Random::Seed(mix_hash(seed) | 1)
    }

    pub fn tape(bytes: &[u8]) -> Self {
        Random::Tape(bytes.iter().copied().collect())
    }

    /// Whether the bytes are used up. From then on every number is 0.
    pub fn is_over(&self) -> bool {
        matches!(self, Random::Tape(bytes) if bytes.is_empty())
    }

    pub fn next(&mut self) -> u64 {
        match self {
            Random::Seed(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                state.wrapping_mul(0x2545_f491_4f6c_dd1d)
            }
            Random::Tape(_) => self.take(8),
        }
    }

    /// Returns a number below `end`. It takes only as many bytes from a tape as `end` needs.
    pub fn below(&mut self, end: u64) -> u64 {
        match self {
            Random::Seed(_) => (self.next() >> 32) % end,
            Random::Tape(_) => self.take((end.ilog2() / 8 + 1) as usize) % end,
        }
    }

    fn take(&mut self, many: usize) -> u64 {
        let Random::Tape(bytes) = self else { unreachable!("only a tape is asked") };
        (0..many).fold(0, |number, _| number << 8 | u64::from(bytes.pop_front().unwrap_or(0)))
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Returns the seed of this run: `MOKA_TEST_SEED`, or the time. It is printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let seed = match std::env::var("MOKA_TEST_SEED") {
        Ok(seed) => seed.parse().expect("MOKA_TEST_SEED is a number"),
        // Miri has no time of day.
        Err(_) if cfg!(miri) => 1,
        Err(_) => std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64),
    };
    println!("MOKA_TEST_SEED={seed}");
    seed
}

/// A scope of threads.
#[derive(Clone, Copy)]
pub struct Scope<'scope, 'env>(&'scope thread::Scope<'scope, 'env>);

/// The number of threads of all [`Scope`]s that have ended.
static ENDED: AtomicUsize = AtomicUsize::new(0);

impl<'scope> Scope<'scope, '_> {
    pub fn spawn<R: Send + 'scope>(
        &self,
        body: impl FnOnce() -> R + Send + 'scope,
    ) -> thread::ScopedJoinHandle<'scope, R> {
        self.0.spawn(|| {
            let result = body();
            ENDED.fetch_add(1, SeqCst);
            result
        })
    }
}

/// `std::thread::scope` with an end that ThreadSanitizer sees. The standard library is not compiled with it.
pub fn scope<'env, R>(body: impl for<'scope> FnOnce(Scope<'scope, 'env>) -> R) -> R {
    let result = thread::scope(|scope| body(Scope(scope)));
    ENDED.load(SeqCst);
    result
}

/// Runs a function that must end within a minute. Miri's clock is far ahead, so it gets an hour there.
pub fn within_a_minute<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = mpsc::channel();
    let running = thread::spawn(move || {
        let result = body();
        let _ = sender.send(());
        result
    });
    match receiver.recv_timeout(Duration::from_secs(sized(60, 3_600))) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// Flushes a cache until `alive` returns the expected numbers. Readers of other tests in this process can delay the
/// release, but not for long.
pub fn assert_alive_after_flushes<K, V, E, T>(cache: &Cache<K, V, E>, expected: T, alive: impl Fn() -> T)
where
    K: Handle,
    V: Handle,
    E: Clone + Send + Sync + 'static,
    T: PartialEq + std::fmt::Debug,
{
    for _ in 0..MAX_FLUSHES {
        cache.flush();
        if alive() == expected {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("{:?} are alive in place of {expected:?}", alive());
}
