//! Computations that would wait for themselves fail instead of hanging.

use std::sync::{Arc, Barrier, mpsc};

use moka_py::{Config, Failure, Kind, LoadError, Removals};

use crate::single_flight_support::{Loaded, Shared, shared_failure};
use crate::support::{BuiltinEqQuery, Error, sized, validate, within_a_minute};

#[test]
fn a_load_that_needs_its_own_key_fails() {
    let shared = Shared::one();
    shared.attach();
    let loaded = shared.load(0, 1, || {
        assert_eq!(shared.load(0, 1, || Ok(5)), Err(LoadError::OwnKey));
        assert_eq!(shared.load(0, 2, || Ok(6)), Ok(6));
        Ok(7)
    });
    assert_eq!(loaded, Ok(7));
    shared.detach();
    assert_eq!((shared.peek(1), shared.peek(2)), (Some(7), Some(6)));
}

#[test]
fn a_load_can_load_an_equal_key_of_another_cache() {
    let shared = Shared::new(Config::new(100, Kind::Lru), 2);
    shared.attach();
    assert_eq!(shared.load(0, 1, || Ok(shared.load(1, 1, || Ok(5)).expect("no failure") + 1)), Ok(6));
}

/// Runs threads that each compute a key and then load the key of the next thread. `keys` has the cache and key of each.
fn run_waiting_threads(shared: &Arc<Shared>, keys: &[(usize, u64)]) -> Vec<Loaded> {
    let barrier = Arc::new(Barrier::new(keys.len()));
    let threads: Vec<_> = (0..keys.len())
        .map(|index| {
            let (own, next) = (keys[index], keys[(index + 1) % keys.len()]);
            let barrier = Arc::clone(&barrier);
            shared.thread(move |shared| {
                shared.load(own.0, own.1, || {
                    shared.detached(|| barrier.wait());
                    match shared.load(next.0, next.1, || Ok(500)) {
                        Ok(word) => Ok(word + 1),
                        Err(LoadError::Deadlock) => shared_failure("deadlock"),
                        Err(LoadError::User(error)) => shared_failure(error),
                        Err(LoadError::OwnKey) => shared_failure("own key"),
                    }
                })
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
}

#[test]
fn threads_that_wait_for_each_other_fail_and_do_not_hang() {
    within_a_minute(|| {
        for keys in
            [&[(0, 1), (0, 2)][..], &[(0, 1), (0, 2), (0, 3)], &[(0, 1), (1, 1)], &[(0, 1), (1, 2), (0, 3)]]
        {
            for _ in 0..sized(20, 1) {
                let shared = Shared::new(Config::new(100, Kind::Lru), 2);
                for loaded in run_waiting_threads(&shared, keys) {
                    assert_eq!(loaded, Err(LoadError::User("deadlock")), "{keys:?}");
                }
                shared.caches.iter().for_each(validate);
            }
        }
    });
}

#[test]
fn a_chain_of_waiting_threads_is_not_a_deadlock() {
    within_a_minute(|| {
        let shared = Shared::one();
        let (leader, end) = shared.leader(Ok(10));
        let second = shared
            .thread(|shared| shared.load(0, 2, || Ok(shared.load(0, 1, || Ok(99)).expect("no failure") + 1)));
        let third = shared
            .thread(|shared| shared.load(0, 3, || Ok(shared.load(0, 1, || Ok(99)).expect("no failure") + 2)));
        shared.until_waited(2);
        drop(end);
        assert_eq!(leader.join().expect("no panic"), Ok(10));
        assert_eq!(second.join().expect("no panic"), Ok(11));
        assert_eq!(third.join().expect("no panic"), Ok(12));
    });
}

#[test]
fn a_load_in_a_signal_handler_does_not_hide_a_deadlock() {
    // The first thread waits for the second. During that wait it waits for a third thread, whose load ends. Then the
    // second thread loads the key of the first, which would be a deadlock.
    within_a_minute(|| {
        let shared = Shared::one();
        let (is_waiting, first_waits) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel::<()>();
        let second = shared.thread(move |shared| {
            shared.load(0, 2, || {
                begin.send(()).expect("the test waits");
                shared.detached(|| first_waits.recv().expect("the first waits"));
                match shared.load(0, 1, || Ok(0)) {
                    Err(LoadError::Deadlock) => shared_failure("deadlock"),
                    other => panic!("{other:?}"),
                }
            })
        });
        begun.recv().expect("the second begins");
        shared.attach();
        let first = shared.load(0, 1, || {
            let mut events = false;
            let mut pause = |park: &(dyn Fn() + Sync)| {
                if !events {
                    let slow = shared.thread_computing(3);
                    let mut inner = |park: &(dyn Fn() + Sync)| {
                        shared.detached(park);
                        Ok(())
                    };
                    let query = BuiltinEqQuery::new(3, &shared.tally);
                    let compute = || -> Result<_, Failure<Error>> { unreachable!("another computes") };
                    let (cache, removed) = (&shared.caches[0], &mut Removals::new());
                    cache.get_with(&query, compute, &mut inner, removed).expect("no failure");
                    shared.detached(|| slow.join().expect("no panic")).expect("no failure");
                    is_waiting.send(()).expect("the second waits");
                    events = true;
                }
                shared.detached(park);
                Ok(())
            };
            let query = BuiltinEqQuery::new(2, &shared.tally);
            let compute = || -> Result<_, Failure<Error>> { unreachable!("another computes") };
            let (cache, removed) = (&shared.caches[0], &mut Removals::new());
            match cache.get_with(&query, compute, &mut pause, removed) {
                Err(LoadError::User(error)) => shared_failure(error),
                other => panic!("{:?}", other.map(|value| value.word())),
            }
        });
        shared.detach();
        assert_eq!(first, Err(LoadError::User("deadlock")));
        assert_eq!(second.join().expect("no panic"), Err(LoadError::User("deadlock")));
    });
}
