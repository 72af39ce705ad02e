//! A computation that has landed, in the moment before its call returns: it can still be waited for, unless its value
//! was taken out.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread;

use moka_py::{Cache, Clock, Config, Cursor, Handle, Kind, Lifetime, LoadError, Removals};

use crate::support::{Error, Key, Plain, StripedCounter, must_end};

type Cleared = Cache<Key, Hooked, Error>;
type Hook = Box<dyn FnOnce()>;

thread_local! {
    /// What this thread does at its next copy of a value.
    static AT_COPY: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// A value whose copies are noticed: the leader copies what it computed for those who wait.
struct Hooked(Box<u64>);

impl Handle for Hooked {}

impl Clone for Hooked {
    fn clone(&self) -> Self {
        if let Some(hook) = AT_COPY.take() {
            hook();
        }
        Hooked(self.0.clone())
    }
}

fn settled<R>(cache: &Cleared, body: impl FnOnce(&mut Removals<Key, Hooked>) -> R) -> R {
    let mut removed = Removals::new();
    let result = body(&mut removed);
    cache.release(&mut removed);
    result
}

fn get_with(cache: &Cleared, id: u64, word: u64) -> Result<u64, LoadError<Error>> {
    let query = Plain::new(id, &StripedCounter::default());
    let compute = || Ok((Hooked(Box::new(word)), 1));
    let mut pause = |_: &(dyn Fn() + Sync)| Err("it waits");
    let got =
        settled(cache, |removed| cache.get_with(&query, Lifetime::default(), compute, &mut pause, removed));
    got.map(|value| *value.0)
}

/// Computes a key; when the value is in the cache and the call has not returned, `takes_out` does so. What somebody else
/// gets then.
fn got_after(
    others: u64,
    takes_out: impl Fn(&Cleared, &mut Cursor) + Send + 'static,
) -> Result<u64, LoadError<Error>> {
    must_end(move || {
        let cache: Arc<Cleared> = Arc::new(Cache::new(Config::new(1_000, Kind::Lru), Clock::default()));
        (1..=others).for_each(|id| assert_eq!(get_with(&cache, id, id), Ok(id)));
        let mut cursor = Cursor::default();
        if others > 0 {
            assert!(settled(&cache, |removed| cache.clear_batch(&mut cursor, removed)));
            // They take the places that the batch left, so that the computed one is put behind it.
            (1..=others).for_each(|id| assert_eq!(get_with(&cache, id, id), Ok(id)));
        }
        let got = Arc::new(std::sync::Mutex::new(None));
        let hook = {
            let (cache, got) = (Arc::clone(&cache), Arc::clone(&got));
            move || {
                takes_out(&cache, &mut cursor);
                let other = thread::spawn(move || get_with(&cache, 0, 20)).join();
                *got.lock().expect("no panic") = Some(other.expect("no panic"));
            }
        };
        at_landing(Arc::clone(&cache), hook);
        assert_eq!(get_with(&cache, 0, 10), Ok(10));
        let got = got.lock().expect("no panic").take();
        got.expect("the value was copied once it was in the cache")
    })
}

/// Runs it when this thread copies a value and the key 0 is in the cache.
fn at_landing(cache: Arc<Cleared>, hook: impl FnOnce() + 'static) {
    let at_copy = move || {
        let query = Plain::new(0, &StripedCounter::default());
        let is_there = settled(&cache, |removed| cache.peek(&query, removed)).expect("no failure").is_some();
        if is_there {
            hook();
        } else {
            at_landing(cache, hook);
        }
    };
    AT_COPY.set(Some(Box::new(at_copy)));
}

#[test]
fn what_popitem_took_is_not_waited_for() {
    let pop = |cache: &Cleared, _: &mut Cursor| {
        let popped = settled(cache, |removed| cache.pop_any(removed)).expect("it is there");
        assert_eq!(*popped.1.0, 10);
    };
    assert_eq!(got_after(0, pop), Ok(20));
}

#[test]
fn what_a_clear_took_in_a_later_batch_is_not_waited_for() {
    let clear = |cache: &Cleared, cursor: &mut Cursor| {
        while settled(cache, |removed| cache.clear_batch(cursor, removed)) {}
    };
    assert_eq!(got_after(300, clear), Ok(20));
}

#[test]
fn what_is_there_is_had() {
    assert_eq!(got_after(0, |_, _| {}), Ok(10));
}
