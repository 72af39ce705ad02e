//! Computations that wait for themselves: they fail, and do not hang.

use std::sync::{Arc, Barrier, mpsc};

use moka_py::{Config, Failure, Kind, Lifetime, LoadError, Removals};

use crate::single_flight_support::{Loaded, Shared, shared_failure};
use crate::support::{Error, Plain, must_end, validate};

#[test]
fn a_computation_that_asks_for_its_own_key_fails() {
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
fn a_computation_may_ask_another_cache_for_the_same_key() {
    let shared = Shared::new(Config::new(100, Kind::Lru), 2);
    shared.attach();
    assert_eq!(shared.load(0, 1, || Ok(shared.load(1, 1, || Ok(5)).expect("no failure") + 1)), Ok(6));
}

/// Threads that each compute a key, and then ask for the next one's: `keys` names cache and key of each.
fn circle(shared: &Arc<Shared>, keys: &[(usize, u64)]) -> Vec<Loaded> {
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
                        Err(LoadError::Deadlock) => shared_failure("circle"),
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
fn a_circle_of_threads_fails_and_does_not_hang() {
    must_end(|| {
        for keys in
            [&[(0, 1), (0, 2)][..], &[(0, 1), (0, 2), (0, 3)], &[(0, 1), (1, 1)], &[(0, 1), (1, 2), (0, 3)]]
        {
            for _ in 0..20 {
                let shared = Shared::new(Config::new(100, Kind::Lru), 2);
                for loaded in circle(&shared, keys) {
                    assert_eq!(loaded, Err(LoadError::User("circle")), "{keys:?}");
                }
                shared.caches.iter().for_each(validate);
            }
        }
    });
}

#[test]
fn a_chain_of_threads_is_no_circle() {
    must_end(|| {
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
fn a_signal_handler_that_computes_does_not_hide_a_circle() {
    // The first thread waits for the second; in its pause it waits for a third and comes back. Then the second
    // asks for the first's key, which would last for ever.
    must_end(|| {
        let shared = Shared::one();
        let (is_waiting, first_waits) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel::<()>();
        let second = shared.thread(move |shared| {
            shared.load(0, 2, || {
                begin.send(()).expect("the test waits");
                shared.detached(|| first_waits.recv().expect("the first waits"));
                match shared.load(0, 1, || Ok(0)) {
                    Err(LoadError::Deadlock) => shared_failure("circle"),
                    other => panic!("{other:?}"),
                }
            })
        });
        begun.recv().expect("the second begins");
        shared.attach();
        let first = shared.load(0, 1, || {
            let mut told = false;
            let mut pause = |park: &(dyn Fn() + Sync)| {
                if !told {
                    let slow = shared.thread_computing(3);
                    let mut inner = |park: &(dyn Fn() + Sync)| {
                        shared.detached(park);
                        Ok(())
                    };
                    let query = Plain::new(3, &shared.tally);
                    let compute = || -> Result<_, Failure<Error>> { unreachable!("another computes") };
                    let (cache, removed) = (&shared.caches[0], &mut Removals::new());
                    cache
                        .get_with(&query, Lifetime::default(), compute, &mut inner, removed)
                        .expect("no failure");
                    shared.detached(|| slow.join().expect("no panic")).expect("no failure");
                    is_waiting.send(()).expect("the second waits");
                    told = true;
                }
                shared.detached(park);
                Ok(())
            };
            let query = Plain::new(2, &shared.tally);
            let compute = || -> Result<_, Failure<Error>> { unreachable!("another computes") };
            let (cache, removed) = (&shared.caches[0], &mut Removals::new());
            match cache.get_with(&query, Lifetime::default(), compute, &mut pause, removed) {
                Err(LoadError::User(error)) => shared_failure(error),
                other => panic!("{:?}", other.map(|value| value.word())),
            }
        });
        shared.detach();
        assert_eq!(first, Err(LoadError::User("circle")));
        assert_eq!(second.join().expect("no panic"), Err(LoadError::User("circle")));
    });
}
