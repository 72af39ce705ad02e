//! The weight bound of all shards: exact at rest, and exceeded by at most one entry per thread.

use std::sync::Arc;

use moka_py::Cause;

use crate::support::{World, model, separate_homes, spawn};

/// Even and odd keys are in different shards. Each entry is heavier than half of the capacity.
const CAPACITY: u64 = 8;
const WEIGHT: u32 = 5;

fn empty() -> Arc<World> {
    Arc::new(World::new(CAPACITY, true, separate_homes))
}

fn check_two_writers(keys: [u64; 2], before: &'static [u64]) {
    model(3, move || {
        let world = empty();
        before.iter().for_each(|&key| drop(world.set_with_weight(key, 40, CAPACITY as u32 / 2)));
        let other = spawn(&world, move |world| world.set_with_weight(keys[0], 10, WEIGHT));
        let mut events = world.set_with_weight(keys[1], 20, WEIGHT);
        events.extend(other.join().expect("no panic"));
        assert!(events.iter().all(|&(_, _, cause)| cause == Cause::Size), "{events:?}");
        assert!(world.weight() <= CAPACITY);
        let all = before.iter().chain(&keys);
        let removed = all.clone().filter(|&&key| world.get(key).is_some()).count();
        assert_eq!(
            (removed, world.count()),
            (all.count() - events.len(), removed),
            "each absent entry was reported"
        );
        world.end();
    });
}

#[test]
fn writers_in_two_shards_keep_the_bound_together() {
    check_two_writers([1, 2], &[]);
}

#[test]
fn writers_in_one_shard_keep_the_bound() {
    check_two_writers([1, 3], &[]);
}

#[test]
fn a_full_cache_evicts_for_inserts_into_two_shards() {
    check_two_writers([1, 2], &[4, 5]);
}

#[test]
fn the_excess_is_at_most_one_entry_per_writer() {
    model(2, || {
        let world = empty();
        world.set_with_weight(4, 40, 8);
        let others = [1, 2].map(|key| spawn(&world, move |world| world.set_with_weight(key, 10, WEIGHT)));
        let seen = world.weight();
        assert!(seen <= CAPACITY + 2 * u64::from(WEIGHT), "{seen}");
        others.into_iter().for_each(|other| drop(other.join().expect("no panic")));
        assert!(world.weight() <= CAPACITY);
        world.end();
    });
}

#[test]
fn a_removal_beside_a_writer_makes_room_once() {
    model(3, || {
        let world = empty();
        world.set_with_weight(1, 10, WEIGHT);
        let other = spawn(&world, |world| world.remove(1).0);
        let events = world.set_with_weight(2, 20, WEIGHT);
        let removed = other.join().expect("no panic");
        assert_eq!(events.len() + usize::from(removed.is_some()), 1, "{events:?}, {removed:?}");
        assert_eq!((world.weight(), world.get(2)), (u64::from(WEIGHT), Some(20)));
        world.end();
    });
}

/// Checks that the bound is exact after the calls, and that each absent entry was reported.
fn check_bound(world: Arc<World>, written: &[u64], events: &[(u64, u64, Cause)]) {
    assert!(events.iter().all(|&(_, _, cause)| cause == Cause::Size), "{events:?}");
    assert!(world.weight() <= world.capacity(), "{} of {}", world.weight(), world.capacity());
    let held = written.iter().filter(|&&key| world.get(key).is_some()).count();
    assert_eq!((held, world.count()), (written.len() - events.len(), held), "{events:?}");
    world.end();
}

#[test]
fn a_write_beside_a_resize_keeps_the_new_bound() {
    for key in [1, 2] {
        model(3, move || {
            let world = empty();
            world.set_with_weight(4, 40, 3);
            let other = spawn(&world, |world| world.resize(WEIGHT.into()));
            let mut events = world.set_with_weight(key, 10, WEIGHT);
            events.extend(other.join().expect("no panic"));
            assert_eq!(world.capacity(), u64::from(WEIGHT));
            check_bound(world, &[4, key], &events);
        });
    }
}

#[test]
fn the_excess_that_a_write_leaves_to_a_resize_is_evicted() {
    // In a model a write beside a resize leaves the rest after one eviction, once it has evicted what it added.
    model(2, || {
        let world = empty();
        [2, 4, 6].into_iter().for_each(|key| drop(world.set_with_weight(key, 40, 2)));
        let other = spawn(&world, |world| world.resize(3));
        let mut events = world.set_with_weight(8, 10, 2);
        events.extend(other.join().expect("no panic"));
        check_bound(world, &[2, 4, 6, 8], &events);
    });
}

#[test]
fn a_resize_before_the_first_write_is_seen_by_it() {
    model(3, || {
        let world = empty();
        let other = spawn(&world, |world| world.resize(1));
        let mut events = world.set_with_weight(1, 10, WEIGHT);
        events.extend(other.join().expect("no panic"));
        check_bound(world, &[1], &events);
    });
}

#[test]
fn a_resize_to_zero_beside_a_write_keeps_no_entry_of_weight_zero() {
    model(3, || {
        let world = empty();
        world.set_with_weight(2, 20, 0);
        let other = spawn(&world, |world| world.resize(0));
        let mut events = world.set_with_weight(1, 10, 0);
        events.extend(other.join().expect("no panic"));
        assert_eq!(world.count(), 0);
        check_bound(world, &[1, 2], &events);
    });
}

#[test]
fn the_last_of_two_resizes_wins() {
    model(2, || {
        let world = empty();
        world.set_with_weight(1, 10, 4);
        world.set_with_weight(2, 20, 4);
        let other = spawn(&world, |world| world.resize(4));
        let mut events = world.resize(7);
        events.extend(other.join().expect("no panic"));
        assert!([4, 7].contains(&world.capacity()));
        check_bound(world, &[1, 2], &events);
    });
}
