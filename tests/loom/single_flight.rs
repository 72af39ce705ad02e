//! Single flight: a leader, its waiters, its failure, and writes during the computation. That nobody waits for ever
//! is loom's own assertion: a run where all threads wait fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use loom::sync::atomic::{AtomicU64 as Seen, Ordering};
use moka_py::{Failure, LoadError};

use crate::support::{World, apart, model, one_hash, spawn};

fn empty() -> Arc<World> {
    Arc::new(World::new(7, false, apart))
}

/// Counts beside the model, without a step in it.
fn counter() -> Arc<AtomicU64> {
    Arc::default()
}

#[test]
fn one_thread_computes_for_both() {
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
fn all_that_wait_are_woken() {
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
fn keys_of_one_hash_are_computed_each_for_itself() {
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
fn who_waits_for_a_leader_that_fails_computes_itself() {
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
fn a_shared_failure_is_that_of_its_waiters_and_is_not_cached() {
    model(2, || {
        let world = empty();
        let failing =
            spawn(&world, |world| world.get_with(1, || Err(Failure { error: "boom", for_waiters: Some("boom") })));
        let mine = world.get_with(1, || Ok(10));
        let failed = failing.join().expect("no panic");
        match mine {
            Ok(10) => assert_eq!(world.get(1), Some(10)),
            // It waited for the other.
            Err(LoadError::User("boom")) => assert_eq!((failed, world.get(1)), (mine, None)),
            other => panic!("{other:?}"),
        }
        world.end();
    });
}

#[test]
fn a_leader_that_fails_before_it_computes_leaves_nobody_waiting() {
    model(2, || {
        let world = Arc::new(World::new(7, false, one_hash).asking());
        world.set(2, 20);
        // The first comparison is that of the look before, the second that of the leader.
        let failing = spawn(&world, |world| world.get_with_patience(1, 1, || Ok(10)));
        assert_eq!(world.get_with(1, || Ok(10)), Ok(10));
        let failed = failing.join().expect("no panic");
        assert!([Ok(10), Err(LoadError::User("no patience"))].contains(&failed), "{failed:?}");
        assert_eq!(world.get(1), Some(10));
        world.end();
    });
}

/// A run that no other call waits for reads a source that changes. A result of before the change is not to be in the cache
/// after a write that came with it.
fn run_beside_a_change(world: fn() -> World, change: fn(&World), expected: fn(Option<u64>) -> bool) {
    run_beside_a_change_of(2, world, change, expected);
}

/// The same with so many preemptions at most.
fn run_beside_a_change_of(
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

fn heard() -> World {
    World::new(7, false, apart)
}

fn is_new(now: Option<u64>) -> bool {
    [None, Some(2)].contains(&now)
}

#[test]
fn a_removal_during_a_run_keeps_its_result_out() {
    run_beside_a_change(heard, |world| drop(world.remove(1)), is_new);
}

#[test]
fn a_removal_during_a_run_keeps_its_result_out_where_a_user_compares() {
    run_beside_a_change(|| heard().asking(), |world| drop(world.remove(1)), is_new);
}

#[test]
fn clearing_during_a_run_keeps_its_result_out() {
    run_beside_a_change(heard, World::clear, is_new);
}

#[test]
fn a_removal_by_a_predicate_during_a_run_keeps_its_result_out() {
    let change = |world: &World| {
        world.supersede_all();
        world.remove_all_if(1);
    };
    // The run asks whether it was marked, and stores its result, between two steps of the removal.
    run_beside_a_change_of(3, heard, change, is_new);
}

#[test]
fn a_set_during_a_run_wins() {
    run_beside_a_change(heard, |world| drop(world.set(1, 9)), |now| now == Some(9));
}

/// The second `set` finds a value and puts its own in the place of that one without the lock.
#[test]
fn a_set_without_the_lock_during_a_run_wins() {
    let change = |world: &World| {
        world.set(1, 8);
        world.set(1, 8);
        world.set(1, 9);
    };
    run_beside_a_change(|| World::unheard(7, apart), change, |now| now == Some(9));
}

/// Two runs of one key, of which the first may be kept before a `set` puts its value in the place of the result.
#[test]
fn a_set_without_the_lock_beside_two_runs_wins() {
    model(1, || {
        let world = Arc::new(World::unheard(7, apart));
        // The thread's last set is one that replaced a value, so that the next tries to do without the lock.
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

/// Computes from a source that changes. A result of before the change is not to be in the cache after a removal
/// that came with it.
fn beside_a_change(change: fn(&World), asks: bool, expected: fn(Option<u64>) -> bool) {
    model(2, move || {
        let world = World::new(7, false, apart);
        let world = Arc::new(if asks { world.asking() } else { world });
        let source = Arc::new(Seen::new(1));
        let read = {
            let source = source.clone();
            move || Ok(source.load(Ordering::SeqCst))
        };
        let other = spawn(&world, move |world| {
            // A change to a value that is read in a computation, and then what tells the cache of it.
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
    beside_a_change(|world| drop(world.remove(1)), false, |now| [None, Some(2)].contains(&now));
}

#[test]
fn a_removal_during_the_computation_keeps_its_result_out_where_a_user_compares() {
    beside_a_change(|world| drop(world.remove(1)), true, |now| [None, Some(2)].contains(&now));
}

#[test]
fn clearing_during_the_computation_keeps_its_result_out() {
    beside_a_change(World::clear, false, |now| [None, Some(2)].contains(&now));
}

#[test]
fn a_set_during_the_computation_wins() {
    beside_a_change(|world| drop(world.set(1, 9)), false, |now| now == Some(9));
}

#[test]
fn who_comes_after_a_removal_does_not_get_what_was_computed_before() {
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
fn a_circle_of_two_threads_is_told_to_one_of_them() {
    model(2, || {
        let world = empty();
        let nested = |world: &Arc<World>, first: u64, second: u64| {
            let inner = world.clone();
            move |world: &World| {
                world.get_with(first, || {
                    inner.get_with(second, || Ok(100 * second)).map_err(|error| match error {
                        LoadError::Deadlock => Failure { error: "circle", for_waiters: None },
                        other => panic!("{other:?}"),
                    })
                })
            }
        };
        let other = spawn(&world, nested(&world, 1, 2));
        let mine = nested(&world, 2, 1)(&world);
        let other = other.join().expect("no panic");
        let is_circle = |got: &Result<u64, _>| *got == Err(LoadError::User("circle"));
        assert!(!(is_circle(&mine) && is_circle(&other)), "{mine:?}, {other:?}");
        world.end();
    });
}
