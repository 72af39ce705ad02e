//! A write that replaces a value without the shard lock, beside the other operations.

use std::sync::Arc;

use moka_py::Cause;

use crate::runner::JoinHandle;
use crate::support::{
    Event, World, end_after_a_removal, model, replace_beside_a_removal, replace_beside_a_second_thread,
    separate_homes, spawn,
};

const TTL: u64 = 1 << 20;

/// Makes a cache that may replace without the lock, with the value 10 for key 1.
fn world_with_one_entry() -> Arc<World> {
    let world = Arc::new(World::without_listener(7, separate_homes));
    world.set(1, 10);
    world
}

/// Replaces the value of key 1, and drops the old value unless a reader is seen.
fn replace_and_flush(world: &World) {
    world.set(1, 11);
    world.flush();
}

/// Returns the removed values and causes of a call and of the other thread's call, sorted by value.
fn time_left_of(mut events: Vec<Event>, other: JoinHandle<Vec<Event>>) -> Vec<(u64, Cause)> {
    events.extend(other.join().expect("no panic"));
    let mut removed: Vec<_> = events.into_iter().map(|(_, value, cause)| (value, cause)).collect();
    removed.sort_by_key(|&(value, _)| value);
    removed
}

#[test]
fn each_value_is_reported_as_replaced_once() {
    model(2, || {
        let world = world_with_one_entry();
        let other = spawn(&world, |world| world.set(1, 11));
        let events = world.set(1, 12);
        let last = world.get(1).expect("no thread removes it");
        let removed = time_left_of(events, other);
        let stays = world.get(1).expect("no thread removes it");
        assert_eq!(removed, [(10, Cause::Replaced), (23 - stays, Cause::Replaced)]);
        assert!([11, 12].contains(&last));
        world.end();
    });
}

#[test]
fn a_value_set_beside_a_removal_is_present_or_removed() {
    model(3, || {
        replace_beside_a_removal(world_with_one_entry());
    });
}

/// While a single thread uses the cache, a second one must wait until a replacement is complete.
#[test]
fn a_value_that_the_only_thread_replaces_is_valid_for_a_second_thread() {
    model(3, || {
        let world = world_with_one_entry();
        replace_beside_a_second_thread(&world);
        world.end();
    });
}

#[test]
fn a_value_set_by_the_only_thread_beside_a_removal_is_present_or_removed() {
    model(3, || {
        let world = world_with_one_entry();
        let second = spawn(&world, |world| world.remove(1));
        let replaced = world.set(1, 11);
        let (removed, _) = second.join().expect("no panic");
        end_after_a_removal(world, removed, &replaced);
    });
}

#[test]
fn setting_the_present_value_beside_a_removal_is_linearizable() {
    model(3, || {
        let world = world_with_one_entry();
        let again = world.value_of(1);
        let writer = spawn(&world, move |world| world.set_value_with_lifetime(1, again, 0));
        let (removed, _) = world.remove(1);
        assert_eq!(removed, Some(10));
        let replaced = writer.join().expect("no panic");
        let stays = world.get(1);
        assert_eq!(replaced.is_empty(), stays == Some(10), "{replaced:?}, {stays:?}");
        world.end();
    });
}

#[test]
fn setting_the_present_value_beside_another_set_is_linearizable() {
    model(3, || {
        let world = world_with_one_entry();
        let again = world.value_of(1);
        let other = spawn(&world, |world| world.set(1, 11));
        let events = world.set_value_with_lifetime(1, again, 0);
        let removed = time_left_of(events, other);
        let stays = world.get(1).expect("no thread removes it");
        assert_eq!(removed, [(10, Cause::Replaced), (21 - stays, Cause::Replaced)]);
        world.end();
    });
}

#[test]
fn a_value_set_beside_an_eviction_is_present_or_evicted() {
    model(3, || {
        let world = Arc::new(World::without_listener(2, separate_homes));
        world.set(1, 10);
        world.set(2, 20);
        let other = spawn(&world, |world| world.set(1, 11));
        let mut events = world.set(3, 30);
        events.extend(other.join().expect("no panic"));
        assert_eq!(world.count(), 2);
        assert_eq!(events.len(), 2, "{events:?}");
        world.end();
    });
}

#[test]
fn an_iteration_beside_a_replacement_yields_a_valid_value() {
    model(3, || {
        let world = world_with_one_entry();
        let other = spawn(&world, replace_and_flush);
        let entries = world.entries();
        assert!([[(1, 10)], [(1, 11)]].iter().any(|seen| entries == seen), "{entries:?}");
        other.join().expect("no panic");
        world.end();
    });
}

#[test]
fn a_set_if_absent_beside_a_replacement_returns_a_valid_value() {
    model(3, || {
        let world = world_with_one_entry();
        let other = spawn(&world, replace_and_flush);
        let kept = world.set_if_absent(1, 12);
        assert!([Some(10), Some(11)].contains(&kept), "{kept:?}");
        other.join().expect("no panic");
        world.end();
    });
}

#[test]
fn removing_a_yielded_entry_does_not_remove_its_replacement() {
    model(3, || {
        let world = world_with_one_entry();
        let other = spawn(&world, |world| world.set(1, 11));
        world.remove_all_if(10);
        other.join().expect("no panic");
        assert_eq!(world.get(1), Some(11));
        world.end();
    });
}

#[test]
fn a_replacement_does_not_get_the_deadline_of_another_write() {
    model(3, || {
        let world = world_with_one_entry();
        let again = world.value_of(1);
        // This write sets the present value again, so that a comparison of values cannot detect it.
        let other = spawn(&world, move |world| world.set_value_with_lifetime(1, again, TTL));
        world.set(1, 11);
        other.join().expect("no panic");
        let last = world.get(1);
        world.advance(2 * TTL);
        let expected = if last == Some(11) { Some(11) } else { None };
        assert_eq!(world.get(1), expected, "{last:?} was last");
        world.end();
    });
}

#[test]
fn a_key_that_gets_its_first_deadline_is_always_present() {
    model(3, || {
        let world = world_with_one_entry();
        let other = spawn(&world, |world| world.set_with_lifetime(1, 11, TTL, 0));
        let found = world.get(1);
        assert!([Some(10), Some(11)].contains(&found), "{found:?}");
        other.join().expect("no panic");
        world.end();
    });
}

#[test]
fn a_computed_value_does_not_overwrite_a_replacement() {
    model(2, || {
        let world = Arc::new(World::without_listener(7, separate_homes));
        let other = spawn(&world, |world| world.get_with(1, || Ok(77)));
        world.set(1, 10);
        world.set(1, 11);
        let got = other.join().expect("no panic");
        assert!([77, 10, 11].map(Ok).contains(&got), "{got:?}");
        assert_eq!(world.get(1), Some(11));
        world.end();
    });
}

#[test]
fn a_call_after_a_replacement_gets_no_older_value() {
    model(2, || {
        let world = Arc::new(World::without_listener(7, separate_homes));
        let other = spawn(&world, |world| world.get_with(1, || Ok(77)));
        world.set(1, 10);
        world.set(1, 11);
        assert_eq!(world.get_with(1, || Ok(78)), Ok(11));
        other.join().expect("no panic").expect("nothing fails");
        world.end();
    });
}
