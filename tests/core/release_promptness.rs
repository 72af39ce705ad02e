//! How soon what left is dropped: in a process of their own, since an epoch moves on only while no thread of
//! the whole process is reading.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use moka_py::{Clock, Config, Kind, NewValue};

use crate::support::{Plain, Random, StripedCounter, Subject, TestCache, Value, call, scope, validate};

#[test]
fn what_left_is_dropped_promptly_in_a_process_of_its_own() {
    let own = std::env::current_exe().expect("a test knows its program");
    let own = Command::new(own).args(["release_promptness::", "--ignored", "--test-threads=1"]).output();
    let output = own.expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("4 passed"), "{told}");
}

/// How many values may wait for readers, of so many threads.
fn may_wait(threads: usize) -> usize {
    if cfg!(moka_gil) { 0 } else { 64 * threads }
}

#[test]
#[ignore = "needs a process of its own"]
fn what_left_is_released_promptly() {
    for capacity in [10, 5_000] {
        let subject = Subject::tiny_lfu(capacity);
        let mut random = Random::new(capacity);
        for word in 0..20_000 {
            match random.below(4) {
                0 => drop(subject.remove(random.below(capacity))),
                _ => subject.set(random.below(2 * capacity), word),
            }
            let waiting = subject.values.alive() - subject.count();
            assert!(waiting <= may_wait(1), "{waiting} wait");
        }
        subject.cache.flush();
        assert_eq!((subject.values.alive(), subject.keys.alive()), (subject.count(), subject.count()));
        subject.clear();
        subject.cache.flush();
        assert_eq!((subject.values.alive(), subject.keys.alive()), (0, 0));
        subject.validate();
    }
}

#[test]
#[ignore = "needs a process of its own"]
fn nothing_waits_after_a_large_clear_and_a_flush() {
    let subject = Subject::lru(100_000);
    (0..50_000).for_each(|id| subject.set(id, id));
    subject.clear();
    assert!(subject.values.alive() <= may_wait(1), "{} wait", subject.values.alive());
    subject.cache.flush();
    assert_eq!((subject.values.alive(), subject.keys.alive()), (0, 0));
}

#[test]
#[ignore = "needs a process of its own"]
fn nothing_waits_after_many_threads_and_a_flush() {
    // In the GIL build the threads take turns.
    const HELD: u64 = 5_000;
    const THREADS: usize = 8;
    let alive = StripedCounter::default();
    let cache: TestCache = TestCache::new(Config::new(HELD, Kind::TinyLfu), Clock::default());
    let most = AtomicUsize::new(0);
    for round in 0..4 {
        let (alive, cache, most) = (&alive, &cache, &most);
        let turn = move |seed: usize| {
            let mut random = Random::new(seed as u64);
            for word in 0..10_000 {
                let query = Plain::new(random.below(9_000), alive);
                let stored = NewValue::plain(Value::new(word, alive));
                call(cache, |removed| cache.set(&query, stored, removed)).0.expect("no failure");
                most.fetch_max(alive.alive(), Relaxed);
            }
        };
        scope(|scope| {
            let mut running = Vec::new();
            for thread in 0..THREADS {
                let one = scope.spawn(move || turn(round * THREADS + thread));
                if cfg!(moka_gil) {
                    one.join().expect("no panic");
                } else {
                    running.push(one);
                }
            }
            // To be joined is more than to have left the scope: until then a thread may still be on its way out.
            running.into_iter().for_each(|running| running.join().expect("no panic"));
        });
        let (held, _) = call(cache, |removed| cache.count(removed));
        cache.flush();
        assert_eq!(alive.alive(), 2 * held);
        validate(cache);
    }
    // Keys and values; and each thread has some of its own. On a busy machine one that reads may be stopped for longer
    // than the others wait for it, so this is not the law itself.
    let most = most.into_inner() - 2 * HELD as usize;
    assert!(most <= 4 * 2 * may_wait(THREADS) + 4 * THREADS, "{most} keys and values waited");
}

#[test]
#[ignore = "needs a process of its own"]
fn many_caches_do_not_keep_each_others_values() {
    let many: Vec<Subject> = (0..50).map(|_| Subject::lru(20)).collect();
    for word in 0..500 {
        many.iter().for_each(|subject| subject.set(word, word));
    }
    for subject in &many {
        assert!(subject.values.alive() <= 20 + may_wait(1));
        subject.cache.flush();
        assert_eq!(subject.values.alive(), 20);
    }
}
