//! The budget of all shards: exact at rest, and never more than an entry a thread over.

use std::sync::Arc;

use moka_py::Cause;

use crate::support::{World, apart, model, spawn};

/// Two shards, which even and odd keys go to; each entry is more than half of what they hold together.
const CAPACITY: u64 = 8;
const WEIGHT: u32 = 5;

fn empty() -> Arc<World> {
    Arc::new(World::new(CAPACITY, true, apart))
}

fn both_set(keys: [u64; 2], before: &'static [u64]) {
    model(3, move || {
        let world = empty();
        before.iter().for_each(|&key| drop(world.set_weighing(key, 40, CAPACITY as u32 / 2)));
        let other = spawn(&world, move |world| world.set_weighing(keys[0], 10, WEIGHT));
        let mut gone = world.set_weighing(keys[1], 20, WEIGHT);
        gone.extend(other.join().expect("no panic"));
        assert!(gone.iter().all(|&(_, _, cause)| cause == Cause::Size), "{gone:?}");
        assert!(world.weight() <= CAPACITY);
        let all = before.iter().chain(&keys);
        let removed = all.clone().filter(|&&key| world.get(key).is_some()).count();
        assert_eq!(
            (removed, world.count()),
            (all.count() - gone.len(), removed),
            "what is not there was told"
        );
        world.end();
    });
}

#[test]
fn writers_in_two_shards_keep_to_it_together() {
    both_set([1, 2], &[]);
}

#[test]
fn writers_in_one_shard_keep_to_it() {
    both_set([1, 3], &[]);
}

#[test]
fn a_full_cache_takes_what_two_shards_bring() {
    both_set([1, 2], &[4, 5]);
}

#[test]
fn nobody_sees_more_than_an_entry_a_thread_over_it() {
    model(2, || {
        let world = empty();
        world.set_weighing(4, 40, 8);
        let others = [1, 2].map(|key| spawn(&world, move |world| world.set_weighing(key, 10, WEIGHT)));
        let seen = world.weight();
        assert!(seen <= CAPACITY + 2 * u64::from(WEIGHT), "{seen}");
        others.into_iter().for_each(|other| drop(other.join().expect("no panic")));
        assert!(world.weight() <= CAPACITY);
        world.end();
    });
}

#[test]
fn what_leaves_beside_a_writer_makes_room_once() {
    model(3, || {
        let world = empty();
        world.set_weighing(1, 10, WEIGHT);
        let other = spawn(&world, |world| world.remove(1).0);
        let gone = world.set_weighing(2, 20, WEIGHT);
        let removed = other.join().expect("no panic");
        assert_eq!(gone.len() + usize::from(removed.is_some()), 1, "{gone:?}, {removed:?}");
        assert_eq!((world.weight(), world.get(2)), (u64::from(WEIGHT), Some(20)));
        world.end();
    });
}
