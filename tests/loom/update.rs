//! Writes that depend on the present entry, beside the other operations.

use std::sync::Arc;

use moka_py::Cause;

use crate::support::{World, model, separate_homes, spawn};

const TTL: u64 = 1 << 20;

fn world_with_one_entry() -> Arc<World> {
    let world = Arc::new(World::without_listener(7, separate_homes));
    world.set(1, 10);
    world
}

#[test]
fn two_threads_that_add_lose_nothing() {
    model(2, || {
        let world = world_with_one_entry();
        let other = spawn(&world, |world| world.add_with_events(1, 1));
        let (sum, mut events) = world.add_with_events(1, 2);
        let (other_sum, others) = other.join().expect("no panic");
        events.extend(others);
        let (first, last) = if sum == 13 { (other_sum, sum) } else { (sum, other_sum) };
        assert!(last == 13 && [11, 12].contains(&first), "{first}, {last}");
        let mut replaced: Vec<_> = events.iter().map(|&(_, value, cause)| (value, cause)).collect();
        replaced.sort_by_key(|&(value, _)| value);
        assert_eq!(replaced, [(10, Cause::Replaced), (first, Cause::Replaced)]);
        assert_eq!(world.get(1), Some(13));
        world.end();
    });
}

#[test]
fn an_addition_beside_a_replacement_without_the_lock_comes_before_or_after_it() {
    model(2, || {
        let world = world_with_one_entry();
        let other = spawn(&world, |world| world.set(1, 20));
        let (sum, _) = world.add_with_events(1, 1);
        other.join().expect("no panic");
        match world.get(1) {
            Some(20) => assert_eq!(sum, 11),
            Some(21) => assert_eq!(sum, 21),
            other => panic!("{other:?} was never the value"),
        }
        world.end();
    });
}

#[test]
fn an_addition_beside_a_removal_comes_before_or_after_it() {
    model(2, || {
        let world = world_with_one_entry();
        let other = spawn(&world, |world| world.remove(1));
        let (sum, _) = world.add_with_events(1, 1);
        let (removed, _) = other.join().expect("no panic");
        match removed {
            Some(11) => assert_eq!((sum, world.get(1)), (11, None)),
            Some(10) => assert_eq!((sum, world.get(1)), (1, Some(1))),
            other => panic!("{other:?} was never the value"),
        }
        world.end();
    });
}

#[test]
fn an_entry_that_is_touched_beside_its_expiry_lives_on_or_is_reported() {
    model(2, || {
        let world = Arc::new(World::new(7, false, separate_homes));
        world.set_with_lifetime(1, 10, TTL, 0);
        world.advance(TTL - 1);
        let other = spawn(&world, |world| world.touch(1, 3 * TTL, 0));
        world.advance(1);
        // The call of another key removes the entry if it is due.
        let mut events = world.get_with_events(2).1;
        let (is_touched, others) = other.join().expect("no panic");
        events.extend(others);
        events.extend(world.get_with_events(2).1);
        assert_eq!(world.get(1), is_touched.then_some(10));
        assert_eq!(events.is_empty(), is_touched, "{events:?}");
        world.advance(3 * TTL);
        events.extend(world.get_with_events(2).1);
        assert_eq!(events, [(1, 10, Cause::Expired)]);
        world.end();
    });
}

#[test]
fn a_sooner_deadline_of_a_touch_is_not_forgotten_beside_maintenance() {
    model(2, || {
        let world = Arc::new(World::new(8, false, separate_homes));
        world.set_with_lifetime(1, 10, 64 * TTL, 0);
        world.set_with_lifetime(2, 20, TTL, 0);
        world.advance(2 * TTL);
        let other = spawn(&world, |world| world.get_with_events(2).1);
        let (is_touched, mut events) = world.touch(1, TTL, 0);
        assert!(is_touched);
        events.extend(other.join().expect("no panic"));
        world.advance(2 * TTL);
        // Any call reports expired entries.
        (0..3).for_each(|_| events.extend(world.get_with_events(4).1));
        events.sort_unstable_by_key(|one| one.0);
        assert_eq!(events, [(1, 10, Cause::Expired), (2, 20, Cause::Expired)]);
        world.end();
    });
}
