//! References are dropped promptly, by an attached thread, with no lock held and nothing pinned.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use moka_py::{Cache, Clock, Config, Cursor, Handle, KeyQuery, Kind, Lifetime, NewValue, Removals};

use crate::support::{
    BuiltinEqQuery, Error, Key, LiveCount, Random, Subject, assert_alive_after_flushes, mix_hash, sized,
    validate, within_a_minute,
};

#[test]
fn dropping_a_cache_drops_all_keys_and_values() {
    let subject = Subject::lru(sized(1_000, 30));
    (0..sized(2_000, 60)).for_each(|id| subject.set(id, id));
    let Subject { cache, keys, values, .. } = subject;
    drop(cache);
    assert_eq!((values.alive(), keys.alive()), (0, 0));
}

/// A hook that stands for a user's `__del__`. Its argument says whether the last reference was dropped.
type AtDrop = Rc<dyn Fn(bool)>;

thread_local! {
    /// The hook that every drop of a [`HookedRef`] runs.
    static AT_DROP: RefCell<Option<AtDrop>> = const { RefCell::new(None) };
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
    static DROPS: Cell<usize> = const { Cell::new(0) };
}

/// A reference whose drop runs a hook, even if other references to the value remain.
struct HookedRef(Arc<u64>);

impl Handle for HookedRef {}

impl Clone for HookedRef {
    fn clone(&self) -> Self {
        HookedRef(Arc::clone(&self.0))
    }
}

impl Drop for HookedRef {
    fn drop(&mut self) {
        let Some(at_drop) = AT_DROP.with_borrow(Clone::clone) else { return };
        if !std::thread::panicking() && !IS_INSIDE.replace(true) {
            // Only the drop of the last reference may run a user's code.
            let is_last = Arc::strong_count(&self.0) == 1;
            if is_last {
                assert_unpinned();
            }
            DROPS.set(DROPS.get() + 1);
            at_drop(is_last);
            IS_INSIDE.set(false);
        }
    }
}

struct HookedQuery(HookedRef);

impl KeyQuery<HookedRef> for HookedQuery {
    type Error = Error;

    fn hash(&self) -> u64 {
        // Three keys share a hash, so that probes meet other keys.
        mix_hash(*self.0.0 / 3)
    }

    fn key(&self) -> HookedRef {
        self.0.clone()
    }

    fn eq_builtin(&self, key: &HookedRef) -> Option<bool> {
        (*self.0.0).is_multiple_of(2).then_some(self.0.0 == key.0)
    }

    fn eq_slow(&self, key: &HookedRef) -> Result<bool, Error> {
        assert_unpinned();
        if *self.0.0 == 99 { Err("boom") } else { Ok(self.0.0 == key.0) }
    }

    fn ptr_eq(a: &HookedRef, b: &HookedRef) -> bool {
        Arc::ptr_eq(&a.0, &b.0)
    }
}

/// Runs `body`, and `at_drop` at each drop in it, except inside `at_drop`. Returns the number of these drops.
fn run_with_drop_hook(at_drop: impl Fn(bool) + 'static, body: impl FnOnce()) -> usize {
    /// Drops the hook itself outside of its own borrow.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            drop(AT_DROP.take());
        }
    }
    AT_DROP.set(Some(Rc::new(at_drop)));
    let reset = Reset;
    body();
    drop(reset);
    DROPS.take()
}

fn assert_unpinned() {
    #[cfg(all(debug_assertions, not(moka_gil)))]
    assert!(!moka_py::is_pinned(), "a user's code runs with nothing pinned");
}

fn query(id: u64) -> HookedQuery {
    HookedQuery(HookedRef(Arc::new(id)))
}

fn stored(word: u64, weight: u32, ttl: u64) -> NewValue<HookedRef> {
    NewValue { weight, lifetime: Lifetime { ttl, tti: 0 }, ..NewValue::plain(HookedRef(Arc::new(word))) }
}

/// Makes a random call of a kind that removes entries.
fn random_call<K: KeyQuery<HookedRef>>(
    cache: &Cache<HookedRef, HookedRef, Error>,
    query: &K,
    random: &mut Random,
) {
    let mut removed = Removals::new();
    let weight = random.below(5) as u32;
    let ttl = random.pick(&[0, 1, 1 << 20]);
    match random.below(9) {
        0..=2 => drop(cache.set(query, stored(1, weight, ttl), &mut removed)),
        3 => drop(cache.set_if_absent(query, stored(2, weight, ttl), &mut removed)),
        4 => drop(cache.remove(query, &mut removed)),
        5 => drop(cache.get(query, &mut removed)),
        6 => drop(cache.pop_any(&mut removed)),
        7 => drop(cache.set(query, stored(3, 1_000_000, 0), &mut removed)),
        _ if random.one_in(10) => {
            let mut cursor = Cursor::default();
            while cache.clear_batch(&mut cursor, &mut removed) {}
        }
        _ => drop((cache.count(&mut removed), cache.next_entry(&mut Cursor::default()))),
    }
    cache.release(&mut removed);
}

fn hooked_cache(capacity: u64, kind: Kind, clock: Clock) -> Rc<Cache<HookedRef, HookedRef, Error>> {
    let config = Config { weighted: true, has_listener: true, ..Config::new(capacity, kind) };
    Rc::new(Cache::new(config, clock))
}

#[test]
fn no_reference_is_dropped_under_a_lock_and_no_last_one_while_pinned() {
    const CALLS: usize = sized(20_000, 50);
    within_a_minute(|| {
        for (capacity, kind) in [(10, Kind::Lru), (40, Kind::TinyLfu), (3_000, Kind::TinyLfu)] {
            let time = Arc::default();
            let cache = hooked_cache(capacity, kind, Clock::Manual(Arc::clone(&time)));
            let seen = Rc::clone(&cache);
            let at_drop = move |is_last: bool| {
                if cfg!(moka_gil) && !is_last {
                    return;
                }
                // If a shard lock were held, this call would deadlock.
                let mut removed = Removals::new();
                seen.count(&mut removed);
                seen.release(&mut removed);
            };
            let drops = run_with_drop_hook(at_drop, || {
                let mut random = Random::new(capacity);
                for _ in 0..CALLS {
                    time.fetch_add(random.below(1 << 18), Relaxed);
                    random_call(&cache, &query(random.below(100)), &mut random);
                }
            });
            assert!(drops > CALLS);
            cache.flush();
            validate(&cache);
        }
    });
}

#[test]
fn a_drop_can_use_the_cache_freely() {
    within_a_minute(|| {
        let cache = hooked_cache(20, Kind::TinyLfu, Clock::default());
        let (seen, inner) = (Rc::clone(&cache), RefCell::new(Random::new(7)));
        let at_drop = move |is_last: bool| {
            for _ in 0..if is_last { 3 } else { 0 } {
                let id = inner.borrow_mut().below(100);
                random_call(&seen, &query(id), &mut inner.borrow_mut());
            }
        };
        run_with_drop_hook(at_drop, || {
            let mut random = Random::new(8);
            for _ in 0..sized(3_000, 20) {
                random_call(&cache, &query(random.below(100)), &mut random);
            }
        });
        validate(&cache);
        let mut removed = Removals::new();
        assert!(cache.weight(&mut removed) <= 20);
        cache.release(&mut removed);
    });
}

/// A reference to an immortal value, which counts its drops.
#[derive(Clone)]
struct Immortal(&'static AtomicU64);

impl Handle for Immortal {
    fn is_immortal(&self) -> bool {
        true
    }
}

impl Drop for Immortal {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn immortal_values_are_not_dropped() {
    static DROPS: AtomicU64 = AtomicU64::new(0);
    let tally = LiveCount::default();
    let cache = Cache::<Key, Immortal, Error>::new(Config::new(20, Kind::Lru), Clock::default());
    let mut removed = Removals::new();
    for _ in 0..5 {
        let stored = NewValue::plain(Immortal(&DROPS));
        cache.set(&BuiltinEqQuery::new(1, &tally), stored, &mut removed).expect("plain keys do not fail");
        cache.release(&mut removed);
    }
    cache.flush();
    assert_eq!(DROPS.load(Relaxed), 0, "four were replaced");
    drop(cache.remove(&BuiltinEqQuery::new(1, &tally), &mut removed));
    cache.release(&mut removed);
    // The returned value, and the removed value, whose key is dropped.
    assert_alive_after_flushes(&cache, 2, || DROPS.load(Relaxed));
}

#[test]
fn a_cache_is_send_and_sync() {
    fn is_reference<T: Handle>() {}
    is_reference::<HookedRef>();
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Cache<HookedRef, HookedRef, Error>>();
}
