//! How promptly removed values are dropped. These tests run in a separate process, because readers of any test in a
//! process hold back its epoch.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use moka_py::{Clock, Config, Kind, NewValue};

use crate::support::{BuiltinEqQuery, LiveCount, Random, Subject, TestCache, Value, call, scope, validate};

#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn removed_values_are_dropped_promptly_in_a_separate_process() {
    let own = std::env::current_exe().expect("a test knows its program");
    let own = Command::new(own).args(["release_promptness::", "--ignored", "--test-threads=1"]).output();
    let output = own.expect("it runs");
    let events = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{events}");
    assert!(events.contains("4 passed"), "{events}");
}

/// The number of removed values that may await release, for a number of threads.
fn max_unreleased(threads: usize) -> usize {
    if cfg!(moka_gil) { 0 } else { 64 * threads }
}

#[test]
#[ignore = "needs a process of its own"]
fn removed_values_are_released_promptly() {
    for capacity in [10, 5_000] {
        let subject = Subject::tiny_lfu(capacity);
        let mut random = Random::new(capacity);
        for word in 0..20_000 {
            match random.below(4) {
                0 => drop(subject.remove(random.below(capacity))),
                _ => subject.set(random.below(2 * capacity), word),
            }
            let waiting = subject.values.alive() - subject.count();
            assert!(waiting <= max_unreleased(1), "{waiting} wait");
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
fn nothing_awaits_release_after_a_large_clear_and_a_flush() {
    let subject = Subject::lru(100_000);
    (0..50_000).for_each(|id| subject.set(id, id));
    subject.clear();
    assert!(subject.values.alive() <= max_unreleased(1), "{} wait", subject.values.alive());
    subject.cache.flush();
    assert_eq!((subject.values.alive(), subject.keys.alive()), (0, 0));
}

#[test]
#[ignore = "needs a process of its own"]
fn nothing_awaits_release_after_many_threads_and_a_flush() {
    // On the GIL build the threads take turns.
    const HELD: u64 = 5_000;
    const THREADS: usize = 8;
    let alive = LiveCount::default();
    let cache: TestCache = TestCache::new(Config::new(HELD, Kind::TinyLfu), Clock::default());
    let most = AtomicUsize::new(0);
    for round in 0..4 {
        let (alive, cache, most) = (&alive, &cache, &most);
        let turn = move |seed: usize| {
            let mut random = Random::new(seed as u64);
            for word in 0..10_000 {
                let query = BuiltinEqQuery::new(random.below(9_000), alive);
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
            // The end of the scope does not wait for the destructors of thread-locals, but a join does.
            running.into_iter().for_each(|running| running.join().expect("no panic"));
        });
        let (held, _) = call(cache, |removed| cache.count(removed));
        cache.flush();
        assert_eq!(alive.alive(), 2 * held);
        validate(cache);
    }
    // The count has keys and values, and each thread has some of its own. A busy machine can stop a reader for longer
    // than the other threads wait for it, so this bound is looser than the law.
    let most = most.into_inner() - 2 * HELD as usize;
    assert!(most <= 4 * 2 * max_unreleased(THREADS) + 4 * THREADS, "{most} keys and values waited");
}

#[test]
#[ignore = "needs a process of its own"]
fn caches_do_not_delay_the_release_of_each_others_values() {
    let many: Vec<Subject> = (0..50).map(|_| Subject::lru(20)).collect();
    for word in 0..500 {
        many.iter().for_each(|subject| subject.set(word, word));
    }
    for subject in &many {
        assert!(subject.values.alive() <= 20 + max_unreleased(1));
        subject.cache.flush();
        assert_eq!(subject.values.alive(), 20);
    }
}
