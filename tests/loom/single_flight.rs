//! Single flight: a leader, its waiters, its failure, and writes during the computation. A run in which all threads
//! wait fails by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use moka_py::{Failure, LoadError};

use crate::runner::{AtomicU64 as Seen, Ordering};
use crate::support::{World, model, one_hash, separate_homes, spawn};

fn empty() -> Arc<World> {
    Arc::new(World::new(7, false, separate_homes))
}

/// A counter that is not a step of the model.
fn counter() -> Arc<AtomicU64> {
    Arc::default()
}

#[test]
fn one_thread_computes_for_both_callers() {
    model(2, || {
        let (world, computed) = (empty(), counter());
        let count = computed.clone();
        let compute = move || Ok(10 + count.fetch_add(1, Relaxed));
        let other = {
            let compute = compute.clone();
            spawn(&world, move |world| world.get_with(1, compute))
        };
        let mine = world.get_with(1, compute);
        assert_eq!((mine, other.join().expect("no panic")), (Ok(10), Ok(10)));
        assert_eq!((computed.load(Relaxed), world.get(1)), (1, Some(10)));
        world.end();
    });
}

#[test]
fn all_waiters_are_woken() {
    model(1, || {
        let (world, computed) = (empty(), counter());
        let mut waiters = Vec::new();
        let mine = world.get_with(1, || {
            for _ in 0..2 {
                let computed = computed.clone();
                let compute = move || Ok(10 + computed.fetch_add(1, Relaxed));
                waiters.push(spawn(&world, move |world| world.get_with(1, compute)));
            }
            Ok(10)
        });
        assert_eq!(mine, Ok(10));
        waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().expect("no panic"), Ok(10)));
        assert_eq!((computed.load(Relaxed), world.get(1)), (0, Some(10)));
        world.end();
    });
}

#[test]
fn keys_of_equal_hash_are_computed_separately() {
    model(2, || {
        let world = Arc::new(World::new(7, false, one_hash));
        let other = spawn(&world, |world| world.get_with(1, || Ok(10)));
        assert_eq!(world.get_with(2, || Ok(20)), Ok(20));
        assert_eq!(other.join().expect("no panic"), Ok(10));
        assert_eq!([world.get(1), world.get(2)], [Some(10), Some(20)]);
        world.end();
    });
}

#[test]
fn a_waiter_of_a_failed_leader_computes_itself() {
    model(2, || {
        let world = empty();
        let failing =
            spawn(&world, |world| world.get_with(1, || Err(Failure { error: "boom", for_waiters: None })));
        assert_eq!(world.get_with(1, || Ok(10)), Ok(10));
        let failed = failing.join().expect("no panic");
        assert!([Ok(10), Err(LoadError::User("boom"))].contains(&failed), "{failed:?}");
        assert_eq!(world.get(1), Some(10));
        world.end();
    });
}

#[test]
fn a_shared_failure_goes_to_the_waiters_and_is_not_cached() {
    model(2, || {
        let world = empty();
        let failing = spawn(&world, |world| {
            world.get_with(1, || Err(Failure { error: "boom", for_waiters: Some("boom") }))
        });
        let mine = world.get_with(1, || Ok(10));
        let failed = failing.join().expect("no panic");
        match mine {
            Ok(10) => assert_eq!(world.get(1), Some(10)),
            // This thread waited for the failing one.
            Err(LoadError::User("boom")) => assert_eq!((failed, world.get(1)), (mine, None)),
            other => panic!("{other:?}"),
        }
        world.end();
    });
}

#[test]
fn a_leader_that_fails_before_it_computes_leaves_no_thread_waiting() {
    model(2, || {
        let world = Arc::new(World::new(7, false, one_hash).with_user_eq());
        world.set(2, 20);
        // The first comparison is that of the look-up, the second that of the leader.
        let failing = spawn(&world, |world| world.get_with_failing_eq(1, 1, || Ok(10)));
        assert_eq!(world.get_with(1, || Ok(10)), Ok(10));
        let failed = failing.join().expect("no panic");
        assert!([Ok(10), Err(LoadError::User("no patience"))].contains(&failed), "{failed:?}");
        assert_eq!(world.get(1), Some(10));
        world.end();
    });
}

/// A run that no other call waits for reads a source that changes. A result from before the change must not be in the
/// cache after the write that came with the change.
fn check_run_beside_change(world: fn() -> World, change: fn(&World), expected: fn(Option<u64>) -> bool) {
    check_run_beside_change_with(2, world, change, expected);
}

/// The same with a given bound of preemptions.
fn check_run_beside_change_with(
    preemptions: usize,
    world: fn() -> World,
    change: fn(&World),
    expected: fn(Option<u64>) -> bool,
) {
    model(preemptions, move || {
        let world = Arc::new(world());
        let source = Arc::new(Seen::new(1));
        let read = {
            let source = source.clone();
            move || source.load(Ordering::SeqCst)
        };
        let other = spawn(&world, move |world| {
            source.store(2, Ordering::SeqCst);
            change(world);
        });
        let got = world.run(1, read);
        assert!([1, 2, 8, 9].contains(&got), "{got}");
        other.join().expect("no panic");
        let now = world.get(1);
        assert!(expected(now), "{now:?}");
        world.end();
    });
}

fn with_listener() -> World {
    World::new(7, false, separate_homes)
}

fn is_new(now: Option<u64>) -> bool {
    [None, Some(2)].contains(&now)
}

#[test]
fn a_removal_during_a_run_keeps_its_result_out() {
    check_run_beside_change(with_listener, |world| drop(world.remove(1)), is_new);
}

/// The cache has shards already, so no fence of the removal takes part. The lock alone orders the removal and the run.
#[test]
fn a_removal_during_a_run_in_a_used_cache_keeps_its_result_out() {
    let world = || {
        let world = with_listener();
        world.set(2, 20);
        world
    };
    check_run_beside_change(world, |world| drop(world.remove(1)), is_new);
}

#[test]
fn a_removal_during_a_run_keeps_its_result_out_with_user_defined_comparisons() {
    check_run_beside_change(|| with_listener().with_user_eq(), |world| drop(world.remove(1)), is_new);
}

#[test]
fn a_clear_during_a_run_keeps_its_result_out() {
    check_run_beside_change(with_listener, World::clear, is_new);
}

#[test]
fn a_remove_if_during_a_run_keeps_its_result_out() {
    let change = |world: &World| {
        world.supersede_all();
        world.remove_all_if(1);
    };
    // The run checks whether it was superseded and stores its result between two steps of the removal.
    check_run_beside_change_with(3, with_listener, change, is_new);
}

#[test]
fn a_set_during_a_run_wins() {
    check_run_beside_change(with_listener, |world| drop(world.set(1, 9)), |now| now == Some(9));
}

/// The second `set` finds a value and replaces it without the lock.
#[test]
fn a_lock_free_set_during_a_run_wins() {
    let change = |world: &World| {
        world.set(1, 8);
        world.set(1, 8);
        world.set(1, 9);
    };
    check_run_beside_change(|| World::without_listener(7, separate_homes), change, |now| now == Some(9));
}

/// Two runs of one key. The result of the first may be stored before a `set` replaces it without the lock.
#[test]
fn a_lock_free_set_beside_two_runs_wins() {
    model(1, || {
        let world = Arc::new(World::without_listener(7, separate_homes));
        // The last set of this thread replaced a value, so the next one tries to replace without the lock.
        world.set(2, 1);
        world.set(2, 1);
        let other = spawn(&world, |world| world.run(1, || 1));
        world.run(1, || 2);
        world.set(1, 9);
        let got = other.join().expect("no panic");
        assert!([1, 2, 9].contains(&got), "{got}");
        assert_eq!(world.get(1), Some(9));
        world.end();
    });
}

/// Computes from a source that changes. A result from before the change must not be in the cache after the removal that
/// came with the change.
fn check_load_beside_change(change: fn(&World), user_eq: bool, expected: fn(Option<u64>) -> bool) {
    model(2, move || {
        let world = World::new(7, false, separate_homes);
        let world = Arc::new(if user_eq { world.with_user_eq() } else { world });
        let source = Arc::new(Seen::new(1));
        let read = {
            let source = source.clone();
            move || Ok(source.load(Ordering::SeqCst))
        };
        let other = spawn(&world, move |world| {
            // The source changes, and then a write tells the cache.
            source.store(2, Ordering::SeqCst);
            change(world);
        });
        let got = world.get_with(1, read);
        assert!([Ok(1), Ok(2), Ok(9)].contains(&got), "{got:?}");
        other.join().expect("no panic");
        let now = world.get(1);
        assert!(expected(now), "{now:?}");
        world.end();
    });
}

#[test]
fn a_removal_during_the_computation_keeps_its_result_out() {
    check_load_beside_change(|world| drop(world.remove(1)), false, |now| [None, Some(2)].contains(&now));
}

#[test]
fn a_removal_during_the_computation_keeps_its_result_out_with_user_defined_comparisons() {
    check_load_beside_change(|world| drop(world.remove(1)), true, |now| [None, Some(2)].contains(&now));
}

#[test]
fn a_clear_during_the_computation_keeps_its_result_out() {
    check_load_beside_change(World::clear, false, |now| [None, Some(2)].contains(&now));
}

#[test]
fn a_set_during_the_computation_wins() {
    check_load_beside_change(|world| drop(world.set(1, 9)), false, |now| now == Some(9));
}

#[test]
fn a_call_after_a_removal_does_not_get_an_earlier_result() {
    model(2, || {
        let world = empty();
        let source = Arc::new(Seen::new(1));
        let read = |source: &Arc<Seen>| {
            let source = source.clone();
            move || Ok(source.load(Ordering::SeqCst))
        };
        let (first, second) = (read(&source), read(&source));
        let early = spawn(&world, move |world| world.get_with(1, first));
        source.store(2, Ordering::SeqCst);
        world.remove(1);
        assert_eq!(world.get_with(1, second), Ok(2));
        assert!([Ok(1), Ok(2)].contains(&early.join().expect("no panic")));
        assert_eq!(world.get(1), Some(2));
        world.end();
    });
}

#[test]
fn a_deadlock_of_two_threads_is_reported_to_one_of_them() {
    model(2, || {
        let world = empty();
        let nested = |world: &Arc<World>, first: u64, second: u64| {
            let inner = world.clone();
            move |world: &World| {
                world.get_with(first, || {
                    inner.get_with(second, || Ok(100 * second)).map_err(|error| match error {
                        LoadError::Deadlock => Failure { error: "deadlock", for_waiters: None },
                        other => panic!("{other:?}"),
                    })
                })
            }
        };
        let other = spawn(&world, nested(&world, 1, 2));
        let mine = nested(&world, 2, 1)(&world);
        let other = other.join().expect("no panic");
        let is_deadlock = |got: &Result<u64, _>| *got == Err(LoadError::User("deadlock"));
        assert!(!(is_deadlock(&mine) && is_deadlock(&other)), "{mine:?}, {other:?}");
        world.end();
    });
}
