//! Who drops what, when: promptly, by an attached thread, and with nothing held.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use moka_py::{Cache, Clock, Config, Cursor, Handle, KeyQuery, Kind, Lifetime, NewValue, Removals};

use crate::support::{Error, Key, Plain, Random, StripedCounter, Subject, mixed, must_end, validate};

#[test]
fn the_end_of_a_cache_drops_all() {
    let subject = Subject::lru(1_000);
    (0..2_000).for_each(|id| subject.set(id, id));
    let Subject { cache, keys, values, .. } = subject;
    drop(cache);
    assert_eq!((values.alive(), keys.alive()), (0, 0));
}

/// What a user's `__del__` may do, told whether the drop is the last of its value.
type AtDrop = Rc<dyn Fn(bool)>;

thread_local! {
    /// What every drop of a [`Nosy`] runs.
    static AT_DROP: RefCell<Option<AtDrop>> = const { RefCell::new(None) };
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
    static DROPS: Cell<usize> = const { Cell::new(0) };
}

/// A reference whose drop, even of a mere copy, runs code.
struct Nosy(Arc<u64>);

impl Handle for Nosy {}

impl Clone for Nosy {
    fn clone(&self) -> Self {
        Nosy(Arc::clone(&self.0))
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        let Some(at_drop) = AT_DROP.with_borrow(Clone::clone) else { return };
        if !std::thread::panicking() && !IS_INSIDE.replace(true) {
            // To drop a copy is to count down; to drop the last runs its owner's code.
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

struct NosyQuery(Nosy);

impl KeyQuery<Nosy> for NosyQuery {
    type Error = Error;

    fn hash(&self) -> u64 {
        // Three keys to a hash, so that others are met on the way.
        mixed(*self.0.0 / 3)
    }

    fn key(&self) -> Nosy {
        self.0.clone()
    }

    fn eq_builtin(&self, key: &Nosy) -> Option<bool> {
        (*self.0.0).is_multiple_of(2).then_some(self.0.0 == key.0)
    }

    fn eq_slow(&self, key: &Nosy) -> Result<bool, Error> {
        assert_unpinned();
        if *self.0.0 == 99 { Err("boom") } else { Ok(self.0.0 == key.0) }
    }

    fn ptr_eq(a: &Nosy, b: &Nosy) -> bool {
        Arc::ptr_eq(&a.0, &b.0)
    }
}

/// Runs `body`, and `at_drop` at each drop in it, but for those in `at_drop`. Returns how many there were.
fn with_drops_that_run(at_drop: impl Fn(bool) + 'static, body: impl FnOnce()) -> usize {
    /// Drops what is run where drops are harmless again.
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

fn query(id: u64) -> NosyQuery {
    NosyQuery(Nosy(Arc::new(id)))
}

fn stored(word: u64, weight: u32, ttl: u64) -> NewValue<Nosy> {
    NewValue { value: Nosy(Arc::new(word)), weight, lifetime: Lifetime { ttl, tti: 0 } }
}

/// Does one of everything that makes something leave.
fn do_something<K: KeyQuery<Nosy>>(cache: &Cache<Nosy, Nosy, Error>, query: &K, random: &mut Random) {
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

fn nosy_cache(capacity: u64, kind: Kind, clock: Clock) -> Rc<Cache<Nosy, Nosy, Error>> {
    let config = Config { weighted: true, has_listener: true, ..Config::new(capacity, kind) };
    Rc::new(Cache::new(config, clock))
}

#[test]
fn no_reference_is_dropped_under_a_lock_and_no_last_one_pinned() {
    must_end(|| {
        for (capacity, kind) in [(10, Kind::Lru), (40, Kind::TinyLfu), (3_000, Kind::TinyLfu)] {
            let time = Arc::default();
            let cache = nosy_cache(capacity, kind, Clock::Manual(Arc::clone(&time)));
            let seen = Rc::clone(&cache);
            let at_drop = move |is_last: bool| {
                if cfg!(moka_gil) && !is_last {
                    return;
                }
                // With a lock held, this would wait for itself.
                let mut removed = Removals::new();
                seen.count(&mut removed);
                seen.release(&mut removed);
            };
            let drops = with_drops_that_run(at_drop, || {
                let mut random = Random::new(capacity);
                for _ in 0..20_000 {
                    time.fetch_add(random.below(1 << 18), Relaxed);
                    do_something(&cache, &query(random.below(100)), &mut random);
                }
            });
            assert!(drops > 20_000);
            cache.flush();
            validate(&cache);
        }
    });
}

#[test]
fn a_drop_may_use_the_cache_freely() {
    must_end(|| {
        let cache = nosy_cache(20, Kind::TinyLfu, Clock::default());
        let (seen, inner) = (Rc::clone(&cache), RefCell::new(Random::new(7)));
        let at_drop = move |is_last: bool| {
            for _ in 0..if is_last { 3 } else { 0 } {
                let id = inner.borrow_mut().below(100);
                do_something(&seen, &query(id), &mut inner.borrow_mut());
            }
        };
        with_drops_that_run(at_drop, || {
            let mut random = Random::new(8);
            for _ in 0..3_000 {
                do_something(&cache, &query(random.below(100)), &mut random);
            }
        });
        validate(&cache);
        let mut removed = Removals::new();
        assert!(cache.weight(&mut removed) <= 20);
        cache.release(&mut removed);
    });
}

/// A reference to what lives for ever, which counts its drops.
#[derive(Clone)]
struct Eternal(&'static AtomicU64);

impl Handle for Eternal {
    fn is_immortal(&self) -> bool {
        true
    }
}

impl Drop for Eternal {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn what_lives_for_ever_is_not_dropped() {
    static DROPS: AtomicU64 = AtomicU64::new(0);
    let tally = StripedCounter::default();
    let cache = Cache::<Key, Eternal, Error>::new(Config::new(20, Kind::Lru), Clock::default());
    let mut removed = Removals::new();
    for _ in 0..5 {
        let stored = NewValue::plain(Eternal(&DROPS));
        cache.set(&Plain::new(1, &tally), stored, &mut removed).expect("plain keys do not fail");
        cache.release(&mut removed);
    }
    cache.flush();
    assert_eq!(DROPS.load(Relaxed), 0, "four were replaced");
    drop(cache.remove(&Plain::new(1, &tally), &mut removed));
    cache.release(&mut removed);
    cache.flush();
    assert_eq!(DROPS.load(Relaxed), 2, "what was returned, and what left with a key that is dropped");
}

#[test]
fn references_are_threads_business() {
    fn is_reference<T: Handle>() {}
    is_reference::<Nosy>();
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Cache<Nosy, Nosy, Error>>();
}
