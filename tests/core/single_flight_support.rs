//! Helpers for tests of single flight: caches that threads share.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use moka_py::{Cache, Clock, Config, Failure, KeyQuery, Kind, LoadError, NewValue, Removals};

use crate::support::{BuiltinEqQuery, Error, Key, LiveCount, TestCache, Value, load_many};

pub type Loaded = Result<u64, LoadError<Error>>;
pub type LoadedMany = Result<Vec<(u64, u64)>, LoadError<Error>>;

/// Caches that threads share, and a lock that stands for the GIL: a thread holds it while it is attached. The
/// free-threaded build does not need it.
pub struct Shared {
    pub caches: Vec<TestCache>,
    is_taken: Mutex<bool>,
    freed: Condvar,
    pub tally: LiveCount,
    pub computed: AtomicUsize,
    /// The number of calls that have waited for another thread's computation.
    waited: AtomicUsize,
}

impl Shared {
    pub fn new(config: Config, caches: usize) -> Arc<Self> {
        Self::with_clock(config, caches, &Clock::default())
    }

    pub fn with_clock(config: Config, caches: usize, clock: &Clock) -> Arc<Self> {
        let cache = || Cache::new(Config { has_listener: true, ..config }, clock.clone());
        Arc::new(Shared {
            caches: (0..caches).map(|_| cache()).collect(),
            is_taken: Mutex::new(false),
            freed: Condvar::new(),
            tally: LiveCount::default(),
            computed: AtomicUsize::new(0),
            waited: AtomicUsize::new(0),
        })
    }

    pub fn one() -> Arc<Self> {
        Self::new(Config::new(100, Kind::Lru), 1)
    }

    pub fn attach(&self) {
        let taken = self.is_taken.lock().expect("no thread panics with it");
        *self.freed.wait_while(taken, |taken| *taken).expect("no thread panics with it") = true;
    }

    pub fn detach(&self) {
        *self.is_taken.lock().expect("no thread panics with it") = false;
        self.freed.notify_one();
    }

    pub fn detached<R>(&self, body: impl FnOnce() -> R) -> R {
        self.detach();
        let result = body();
        self.attach();
        result
    }

    pub fn attached<R>(&self, body: impl FnOnce(&TestCache) -> R) -> R {
        self.attach();
        let result = body(&self.caches[0]);
        self.detach();
        result
    }

    /// Calls `get_with` in an attached thread, which detaches to wait.
    pub fn load_query<Q: KeyQuery<Key, Error = Error>>(
        &self,
        cache: usize,
        query: &Q,
        compute: impl FnOnce() -> Result<u64, Failure<Error>>,
    ) -> Loaded {
        let cache = &self.caches[cache];
        let compute = || {
            self.computed.fetch_add(1, SeqCst);
            compute().map(|word| NewValue::plain(Value::new(word, &self.tally)))
        };
        let mut removed = Removals::new();
        let loaded = cache.get_with(query, compute, &mut self.pause(), &mut removed);
        cache.release(&mut removed);
        loaded.map(|value| value.word())
    }

    pub fn load(
        &self,
        cache: usize,
        id: u64,
        compute: impl FnOnce() -> Result<u64, Failure<Error>>,
    ) -> Loaded {
        self.load_query(cache, &BuiltinEqQuery::new(id, &self.tally), compute)
    }

    /// Loads many keys in an attached thread, which detaches to wait. Returns pairs of key and value, sorted by key.
    pub fn load_many(
        &self,
        ids: &[u64],
        load: impl FnOnce(&[u64]) -> Result<Vec<(u64, u64)>, Failure<Error>>,
    ) -> LoadedMany {
        let load = |ids: &[u64]| {
            let pairs = load(ids)?;
            Ok(pairs
                .into_iter()
                .map(|(id, word)| (id, NewValue::plain(Value::new(word, &self.tally))))
                .collect())
        };
        let query = |id| BuiltinEqQuery::new(id, &self.tally);
        let loaded = load_many(&self.caches[0], ids, query, load, &mut self.pause());
        loaded.map(|values| values.into_iter().map(|(id, value)| (id, value.word())).collect())
    }

    /// A step of a wait, which counts the wait.
    fn pause(&self) -> impl FnMut(&(dyn Fn() + Sync)) -> Result<(), Error> {
        let mut is_first = true;
        move |park| {
            self.waited.fetch_add(usize::from(std::mem::take(&mut is_first)), SeqCst);
            self.detached(park);
            Ok(())
        }
    }

    pub fn peek(&self, id: u64) -> Option<u64> {
        self.attached(|cache| {
            let found = cache.peek(&BuiltinEqQuery::new(id, &self.tally), &mut Removals::new());
            found.expect("plain keys do not fail").map(|value| value.word())
        })
    }

    pub fn thread<R: Send + 'static>(
        self: &Arc<Self>,
        body: impl FnOnce(&Self) -> R + Send + 'static,
    ) -> thread::JoinHandle<R> {
        let shared = Arc::clone(self);
        thread::spawn(move || {
            shared.attach();
            let result = body(&shared);
            shared.detach();
            result
        })
    }

    /// Starts a thread that computes key 1 and, during the computation, waits until the sender is dropped.
    pub fn leader(
        self: &Arc<Self>,
        outcome: Result<u64, Failure<Error>>,
    ) -> (thread::JoinHandle<Loaded>, mpsc::Sender<()>) {
        self.leader_by(|shared, wait| {
            shared.load(0, 1, || {
                wait();
                outcome
            })
        })
    }

    /// The same with a given body, which calls its second argument once to wait.
    pub fn leader_by<R: Send + 'static>(
        self: &Arc<Self>,
        body: impl FnOnce(&Self, &dyn Fn()) -> R + Send + 'static,
    ) -> (thread::JoinHandle<R>, mpsc::Sender<()>) {
        let (begun, has_begun) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let leader = self.thread(move |shared| {
            body(shared, &|| {
                begun.send(()).expect("the test waits");
                shared.detached(|| ended.recv().expect_err("nothing is sent"));
            })
        });
        has_begun.recv().expect("the leader begins");
        (leader, end)
    }

    /// Starts threads that wait for key 1, which another thread computes.
    pub fn waiters(self: &Arc<Self>, many: usize, word: u64) -> Vec<thread::JoinHandle<Loaded>> {
        let before = self.waited.load(SeqCst);
        let waiters = (0..many).map(|_| self.thread(move |shared| shared.load(0, 1, || Ok(word)))).collect();
        self.until_waited(before + many);
        waiters
    }

    /// Returns when that many calls have begun to wait.
    pub fn until_waited(&self, many: usize) {
        while self.waited.load(SeqCst) < many {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Starts a thread that computes a key for a while. Returns when the computation has begun.
    pub fn thread_computing(self: &Arc<Self>, id: u64) -> thread::JoinHandle<Loaded> {
        let (begun, has_begun) = mpsc::channel();
        let slow = self.thread(move |shared| {
            shared.load(0, id, || {
                begun.send(()).expect("the test waits");
                shared.detached(|| thread::sleep(Duration::from_millis(80)));
                Ok(1)
            })
        });
        self.detached(|| has_begun.recv().expect("it begins"));
        slow
    }
}

pub fn shared_failure(error: Error) -> Result<u64, Failure<Error>> {
    Err(Failure { error, for_waiters: Some(error) })
}
