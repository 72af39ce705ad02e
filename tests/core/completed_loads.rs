//! A computation whose value is stored, while its call has not returned: later calls get the value, unless the value
//! was removed meanwhile.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread;

use moka_py::{Cache, Clock, Config, Cursor, Handle, Kind, LoadError, NewValue, Removals};

use crate::support::{BuiltinEqQuery, Error, Key, LiveCount, within_a_minute};

type HookedCache = Cache<Key, Hooked, Error>;
type Hook = Box<dyn FnOnce()>;

thread_local! {
    /// The hook that this thread runs at its next copy of a value.
    static AT_COPY: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// A value whose `clone` runs a hook. The leader clones the computed value for its waiters.
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

fn call_and_release<R>(cache: &HookedCache, body: impl FnOnce(&mut Removals<Key, Hooked>) -> R) -> R {
    let mut removed = Removals::new();
    let result = body(&mut removed);
    cache.release(&mut removed);
    result
}

fn get_with(cache: &HookedCache, id: u64, word: u64) -> Result<u64, LoadError<Error>> {
    let query = BuiltinEqQuery::new(id, &LiveCount::default());
    let compute = || Ok(NewValue::plain(Hooked(Box::new(word))));
    let mut pause = |_: &(dyn Fn() + Sync)| Err("it waits");
    let got = call_and_release(cache, |removed| cache.get_with(&query, compute, &mut pause, removed));
    got.map(|value| *value.0)
}

/// Computes a key, and runs `remove_value` when the value is stored and the call has not returned. Returns the result
/// of another thread's call after that.
fn result_of_later_call(
    others: u64,
    remove_value: impl Fn(&HookedCache, &mut Cursor) + Send + 'static,
) -> Result<u64, LoadError<Error>> {
    within_a_minute(move || {
        let cache: Arc<HookedCache> = Arc::new(Cache::new(Config::new(1_000, Kind::Lru), Clock::default()));
        (1..=others).for_each(|id| assert_eq!(get_with(&cache, id, id), Ok(id)));
        let mut cursor = Cursor::default();
        if others > 0 {
            assert!(call_and_release(&cache, |removed| cache.clear_batch(&mut cursor, removed)));
            // These entries take the slots that the batch freed, so the computed value is stored behind the cursor.
            (1..=others).for_each(|id| assert_eq!(get_with(&cache, id, id), Ok(id)));
        }
        let got = Arc::new(std::sync::Mutex::new(None));
        let hook = {
            let (cache, got) = (Arc::clone(&cache), Arc::clone(&got));
            move || {
                remove_value(&cache, &mut cursor);
                let other = thread::spawn(move || get_with(&cache, 0, 20)).join();
                *got.lock().expect("no panic") = Some(other.expect("no panic"));
            }
        };
        run_hook_once_stored(Arc::clone(&cache), hook);
        assert_eq!(get_with(&cache, 0, 10), Ok(10));
        let got = got.lock().expect("no panic").take();
        got.expect("the value was copied once it was in the cache")
    })
}

/// Runs the hook at the first copy of a value in this thread at which key 0 is in the cache.
fn run_hook_once_stored(cache: Arc<HookedCache>, hook: impl FnOnce() + 'static) {
    let at_copy = move || {
        let query = BuiltinEqQuery::new(0, &LiveCount::default());
        let is_there =
            call_and_release(&cache, |removed| cache.peek(&query, removed)).expect("no failure").is_some();
        if is_there {
            hook();
        } else {
            run_hook_once_stored(cache, hook);
        }
    };
    AT_COPY.set(Some(Box::new(at_copy)));
}

#[test]
fn a_value_that_popitem_took_is_not_returned_to_later_calls() {
    let pop = |cache: &HookedCache, _: &mut Cursor| {
        let popped = call_and_release(cache, |removed| cache.pop_any(removed)).expect("the value is stored");
        assert_eq!(*popped.1.0, 10);
    };
    assert_eq!(result_of_later_call(0, pop), Ok(20));
}

#[test]
#[cfg_attr(miri, ignore = "slow, because a batch has hundreds of entries")]
fn a_value_that_a_later_batch_of_clear_took_is_not_returned_to_later_calls() {
    let clear = |cache: &HookedCache, cursor: &mut Cursor| {
        while call_and_release(cache, |removed| cache.clear_batch(cursor, removed)) {}
    };
    assert_eq!(result_of_later_call(300, clear), Ok(20));
}

#[test]
fn a_completed_value_is_returned_to_later_calls() {
    assert_eq!(result_of_later_call(0, |_, _| {}), Ok(10));
}
