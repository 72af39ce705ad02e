//! Keys, values and caches for the tests.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use moka_py::{Cache, Cause, Clock, Config, Cursor, Handle, KeyQuery, Kind, Lifetime, NewValue, Removals};

pub type Error = &'static str;
pub type TestCache = Cache<Key, Value, Error>;

pub const MICRO: u64 = 1_000;
pub const MILLI: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;
pub const YEAR: u64 = 31_557_600 * SECOND;

/// Counts what is alive.
#[derive(Clone, Default)]
pub struct StripedCounter(Arc<AtomicUsize>);

impl StripedCounter {
    pub fn alive(&self) -> usize {
        self.0.load(SeqCst)
    }
}

struct Token(StripedCounter);

impl Token {
    fn of(tally: &StripedCounter) -> Self {
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
    fn new(word: u64, tally: &StripedCounter) -> Arc<Self> {
        Arc::new(Body { word, let_go: AtomicUsize::new(0), _token: Token::of(tally) })
    }

    /// Tells ThreadSanitizer that the last reference is dropped after the uses of all others: it does not see the
    /// fence by which `Arc` makes it so.
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
    pub fn new(id: u64, tally: &StripedCounter) -> Self {
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
    pub fn new(word: u64, tally: &StripedCounter) -> Self {
        Value(Body::new(word, tally))
    }

    pub fn word(&self) -> u64 {
        self.0.word
    }

    pub fn is(&self, other: &Value) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A hash that depends on every bit of the key.
pub fn mixed(id: u64) -> u64 {
    let x = id.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A key whose equality needs no code of a user.
pub struct Plain {
    pub key: Key,
    pub hash: u64,
}

impl Plain {
    pub fn new(id: u64, tally: &StripedCounter) -> Self {
        Plain { key: Key::new(id, tally), hash: mixed(id) }
    }
}

impl KeyQuery<Key> for Plain {
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

/// A key whose equality is a user's code; only the very same object is equal without it.
pub struct Asking<F> {
    pub key: Key,
    pub hash: u64,
    pub eq_slow: F,
}

impl<F: Fn(&Key) -> Result<bool, Error>> KeyQuery<Key> for Asking<F> {
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

/// One leaving, as a listener is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    pub key: Option<u64>,
    pub value: u64,
    pub cause: Cause,
}

pub fn gone(key: u64, value: u64, cause: Cause) -> Gone {
    Gone { key: Some(key), value, cause }
}

/// Makes a call of the core as its callers do: with a list, which is told and released afterwards.
pub fn call<R>(cache: &TestCache, body: impl FnOnce(&mut Removals<Key, Value>) -> R) -> (R, Vec<Gone>) {
    let mut removed = Removals::new();
    let result = body(&mut removed);
    let told = removed
        .iter()
        .map(|one| Gone { key: one.key().map(Key::id), value: one.value().word(), cause: one.cause() })
        .collect();
    cache.release(&mut removed);
    (result, told)
}

/// Checks a cache's invariants, where the build has the check.
pub fn validate<K: Handle, V: Handle, E: Clone + Send + Sync + 'static>(_cache: &Cache<K, V, E>) {
    #[cfg(debug_assertions)]
    _cache.validate();
}

/// A cache in one thread, with its clock, its leavings and counts of what is alive.
pub struct Subject {
    pub cache: TestCache,
    pub keys: StripedCounter,
    pub values: StripedCounter,
    time: Arc<AtomicU64>,
    told: RefCell<Vec<Gone>>,
}

impl Subject {
    pub fn new(config: Config) -> Self {
        let time = Arc::new(AtomicU64::new(0));
        let cache = Cache::new(Config { has_listener: true, ..config }, Clock::Manual(time.clone()));
        Subject {
            cache,
            keys: StripedCounter::default(),
            values: StripedCounter::default(),
            time,
            told: RefCell::default(),
        }
    }

    pub fn lru(capacity: u64) -> Self {
        Self::new(Config::new(capacity, Kind::Lru))
    }

    pub fn tiny_lfu(capacity: u64) -> Self {
        Self::new(Config::new(capacity, Kind::TinyLfu))
    }

    pub fn call<R>(&self, body: impl FnOnce(&mut Removals<Key, Value>) -> R) -> R {
        let (result, told) = call(&self.cache, body);
        self.told.borrow_mut().extend(told);
        result
    }

    /// What left since this was last asked.
    pub fn told(&self) -> Vec<Gone> {
        self.told.take()
    }

    /// What left since this was last asked, for this cause.
    pub fn told_keys(&self, cause: Cause) -> Vec<u64> {
        let told = self.told().into_iter().filter(|gone| gone.cause == cause);
        told.map(|gone| gone.key.expect("keys are told")).collect()
    }

    pub fn advance(&self, nanos: u64) {
        self.time.fetch_add(nanos, SeqCst);
    }

    pub fn query(&self, id: u64) -> Plain {
        Plain::new(id, &self.keys)
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

    pub fn set_weighing(&self, id: u64, word: u64, weight: u32) {
        self.store(id, NewValue { weight, ..self.stored(word) });
    }

    pub fn set_for(&self, id: u64, word: u64, ttl: u64, tti: u64) {
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

    pub fn count(&self) -> usize {
        self.call(|removed| self.cache.count(removed))
    }

    pub fn weight(&self) -> u64 {
        self.call(|removed| self.cache.weight(removed))
    }

    pub fn time_left(&self, id: u64) -> Option<Duration> {
        self.call(|removed| self.cache.expires_in(&self.query(id), removed)).expect("plain keys do not fail")
    }

    /// The same in nanoseconds.
    pub fn expires_in(&self, id: u64) -> Option<u64> {
        self.time_left(id).map(|removed| removed.as_nanos() as u64)
    }

    /// Keys and values by iteration, in the order of the keys.
    pub fn entries(&self) -> Vec<(u64, u64)> {
        let mut cursor = Cursor::default();
        let next = || self.cache.next_entry(&mut cursor).map(|(key, value)| (key.id(), value.word()));
        let mut entries: Vec<_> = std::iter::from_fn(next).collect();
        entries.sort_unstable();
        entries
    }

    pub fn keys_held(&self) -> Vec<u64> {
        self.entries().into_iter().map(|(key, _)| key).collect()
    }

    pub fn validate(&self) {
        validate(&self.cache);
    }
}

/// Where tests take their choices from.
pub enum Random {
    /// Random numbers, enough for tests.
    Seed(u64),
    /// What a fuzzer made up, which ends.
    Tape(VecDeque<u8>),
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Random::Seed(mixed(seed) | 1)
    }

    pub fn tape(bytes: &[u8]) -> Self {
        Random::Tape(bytes.iter().copied().collect())
    }

    /// Whether there is nothing more to choose by. From then on every number is 0.
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

    /// A number below `end`; of a tape it takes no more bytes than that needs, so that a byte is a choice.
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

/// The seed of this run: `MOKA_TEST_SEED`, or one of the moment. It is printed, for who wants to repeat a failure.
pub fn seed() -> u64 {
    let seed = match std::env::var("MOKA_TEST_SEED") {
        Ok(seed) => seed.parse().expect("MOKA_TEST_SEED is a number"),
        Err(_) => std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64),
    };
    println!("MOKA_TEST_SEED={seed}");
    seed
}

/// Threads that end with a scope.
#[derive(Clone, Copy)]
pub struct Scope<'scope, 'env>(&'scope thread::Scope<'scope, 'env>);

/// How many threads of a [`Scope`] have ended.
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

/// `std::thread::scope`, whose end ThreadSanitizer sees too: that of the standard library is not compiled with it.
pub fn scope<'env, R>(body: impl for<'scope> FnOnce(Scope<'scope, 'env>) -> R) -> R {
    let result = thread::scope(|scope| body(Scope(scope)));
    ENDED.load(SeqCst);
    result
}

/// Runs what must end, and fails when it has not within a minute.
pub fn must_end<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = mpsc::channel();
    let running = thread::spawn(move || {
        let result = body();
        let _ = sender.send(());
        result
    });
    match receiver.recv_timeout(Duration::from_secs(60)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}
