//! Tests of retiring and releasing; tests/loom has those of orderings.

use std::cell::Cell;
use std::sync::Arc;
#[cfg(not(moka_gil))]
use std::time::{Duration, Instant};

use super::*;
#[cfg(not(moka_gil))]
use crate::sync::{AtomicBool, AtomicUsize, Ordering, sized_for_miri};

fn counted() -> (Arc<u64>, std::sync::Weak<u64>) {
    let value = Arc::new(7);
    let weak = Arc::downgrade(&value);
    (value, weak)
}

#[test]
fn a_handle_returns_its_old_value_and_drops_its_last_one() {
    let (first, first_seen) = counted();
    let (second, second_seen) = counted();
    let handle = AtomicHandle::<Option<Arc<u64>>>::default();
    assert!(handle.read(&pin()).is_none(), "all bits zero are `None`");
    assert!(handle.swap(Some(first)).is_none());
    let old = handle.swap(Some(second)).transpose().expect("the first was there");
    assert!(Arc::ptr_eq(&old, &first_seen.upgrade().expect("it is retired, not dropped")));
    assert_eq!(handle.read(&pin()).as_deref(), Some(&7));
    drop(handle);
    assert!(second_seen.upgrade().is_none());
    drop(old.into_inner());
    assert!(first_seen.upgrade().is_none());
}

#[test]
fn an_exchange_replaces_the_value_that_was_seen_and_no_other() {
    let handle = AtomicHandle::new(Some(Arc::new(1)));
    let guard = pin();
    let seen = handle.read(&guard);
    let first = handle.exchange(&seen, Some(Arc::new(2))).unwrap_or_else(|_| panic!("it was there"));
    assert_eq!(first.as_deref(), Some(&1));
    let back = handle.exchange(&seen, Some(Arc::new(3))).err().expect("it has gone");
    assert_eq!((back.as_deref(), handle.read(&guard).as_deref()), (Some(&3), Some(&2)));
    assert_eq!(Arc::strong_count(&back.expect("it is the third")), 1);
    drop(first.into_inner());
}

#[test]
fn an_exchange_for_the_same_value_writes_nothing() {
    let one = Arc::new(1);
    let handle = AtomicHandle::new(Some(one.clone()));
    let guard = pin();
    let seen = handle.read(&guard);
    let other = handle.swap(Some(Arc::new(2)));
    // The place lost the value since it was seen, which a write would notice.
    let again = handle.exchange(&seen, Some(one.clone())).unwrap_or_else(|_| panic!("it needs no write"));
    assert_eq!((again.as_deref(), handle.read(&guard).as_deref()), (Some(&1), Some(&2)));
    assert_eq!(Arc::strong_count(&one), 3);
    drop((again.into_inner(), other.into_inner()));
}

#[test]
fn a_retired_value_is_not_dropped_by_itself() {
    /// It has no memory that would leak.
    struct Counted<'a>(u64, &'a Cell<u32>);
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.1.set(self.1.get() + 1);
        }
    }
    let drops = Cell::new(0);
    let pair = || Retired::of(Counted(7, &drops)).zip(Retired::of(Some(Counted(8, &drops))));
    {
        let shown = pair();
        let (first, second) = &*shown;
        assert_eq!((first.0, second.as_ref().map(|second| second.0)), (7, Some(8)));
    }
    assert_eq!(drops.get(), 0);
    drop(pair().into_inner());
    assert_eq!(drops.get(), 2);
}

#[test]
fn a_boxed_structure_is_readable_until_it_is_replaced() {
    let (value, seen) = counted();
    let shared = AtomicBox::empty();
    assert!(shared.get(&pin()).is_none());
    // SAFETY: no other thread has the structure.
    unsafe { shared.replace(Some(value), &mut pin().into_guard()) };
    assert_eq!(shared.get(&pin()).map(|value| **value), Some(7));
    // SAFETY: no other thread has the structure.
    unsafe { shared.replace(Some(Arc::new(9)), &mut pin().into_guard()) };
    assert_eq!(shared.get(&pin()).map(|value| **value), Some(9));
    let lists = StripedRetireLists::<u64>::new();
    while seen.upgrade().is_some() {
        // Another test may be reading for a while.
        lists.flush();
    }
}

#[test]
#[cfg_attr(miri, ignore = "the panic leaks what was to be freed")]
#[cfg(all(debug_assertions, moka_gil))]
#[should_panic(expected = "`one-pin`")]
fn nothing_is_freed_beside_a_second_guard() {
    let shared = AtomicBox::empty();
    let mut guard = pin().into_guard();
    // SAFETY: no other thread has the structure.
    unsafe { shared.replace(Some(1), &mut guard) };
    let _other = pin();
    // SAFETY: no other thread has the structure.
    unsafe { shared.replace(Some(2), &mut guard) };
}

#[test]
#[cfg(not(moka_gil))]
fn a_list_waits_for_the_readers_of_its_time() {
    let mut list = RetireList::<_, 16>::default();
    let reader = pin();
    let (value, seen) = counted();
    list.put(Retired::of(value));
    list.seal();
    let lists = StripedRetireLists::<u64>::new();
    for _ in 0..sized_for_miri(200, 3) {
        lists.flush();
        list.take_ready(drop);
    }
    assert!(seen.upgrade().is_some());
    drop(reader);
    while seen.upgrade().is_some() {
        lists.flush();
        list.take_ready(drop);
    }
}

#[test]
#[cfg(not(moka_gil))]
fn a_writer_beside_a_stopped_reader_waits_before_it_retains_too_much() {
    const MAX_RETAINED: usize = 64;
    let (value, released) = (Arc::new(7), Arc::new(AtomicUsize::new(0)));
    let reader = pin();
    let writer = std::thread::spawn({
        let (value, released) = (value.clone(), released.clone());
        move || {
            let lists = StripedRetireLists::new();
            for _ in 0..10 * MAX_RETAINED {
                lists.release(Retired::of(value.clone()), std::iter::empty());
                released.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let begin = Instant::now();
    while released.load(Ordering::Relaxed) <= MAX_RETAINED && begin.elapsed() < Duration::from_millis(50) {
        std::thread::yield_now();
    }
    assert!(released.load(Ordering::Relaxed) <= MAX_RETAINED, "the reader may see them all");
    drop(reader);
    writer.join().expect("no panic");
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
#[cfg(not(moka_gil))]
fn each_thread_that_sets_a_flag_waits_for_the_readers_that_saw_it_unset() {
    const TURNS: usize = sized_for_miri(1_000, 20);
    let flag = Arc::new(OnceFlag::new(false));
    let is_through = Arc::new(AtomicBool::new(false));
    let reader = pin();
    assert!(!flag.is_set(&reader));
    let setters = [(); 2].map(|()| {
        let (set, is_through) = (flag.clone(), is_through.clone());
        let setter = std::thread::spawn(move || {
            set.set();
            assert!(is_through.load(Ordering::Relaxed), "a reader goes on that saw it unset");
        });
        while !flag.is_set(&reader) {
            std::thread::yield_now();
        }
        setter
    });
    (0..TURNS).for_each(|_| std::thread::yield_now());
    is_through.store(true, Ordering::Relaxed);
    drop(reader);
    setters.into_iter().for_each(|setter| setter.join().expect("no panic"));
    assert!(flag.is_set(&pin()));
}

#[test]
fn the_drop_of_a_list_drops_its_values() {
    let mut list = RetireList::<_, 16>::default();
    let many: Vec<_> = (0..100).map(|_| counted()).collect();
    let (values, seen): (Vec<_>, Vec<_>) = many.into_iter().unzip();
    values.into_iter().for_each(|value| list.put(Retired::of(value)));
    drop(list);
    assert!(seen.iter().all(|seen| seen.upgrade().is_none()));
}
