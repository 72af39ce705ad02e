//! Deadlines: no read returns an expired entry, no live entry is lost, and each expiry is reported once.

use std::sync::Arc;

use moka_py::Cause;

use crate::support::{World, model, separate_homes, spawn};

const TTL: u64 = 1 << 20;

fn empty() -> Arc<World> {
    Arc::new(World::new(7, false, separate_homes))
}

#[test]
fn a_read_beside_an_expiry_returns_live_values_only() {
    model(3, || {
        let world = empty();
        world.set_with_lifetime(1, 10, TTL, 0);
        world.set_with_lifetime(2, 20, 4 * TTL, 0);
        let other = spawn(&world, |world| {
            world.advance(2 * TTL);
            world.get_with_events(2)
        });
        let before = world.now();
        let (found, mut events) = world.get_with_events(1);
        assert!(found.is_none() || found == Some(10) && before < TTL, "{found:?} at {before}");
        let (kept, others) = other.join().expect("no panic");
        assert_eq!(kept, Some(20));
        events.extend(others);
        assert_eq!((world.count(), world.get(1)), (1, None));
        assert!(events.len() <= 1);
        world.end();
    });
}

#[test]
fn each_expiry_is_reported_once() {
    model(3, || {
        let world = empty();
        world.set_with_lifetime(1, 10, TTL, 0);
        world.set_with_lifetime(2, 20, 4 * TTL, 0);
        world.advance(2 * TTL);
        let other = spawn(&world, |world| world.get_with_events(1));
        let mut events = world.get_with_events(2).1;
        let (found, others) = other.join().expect("no panic");
        events.extend(others);
        events.extend(world.get_with_events(2).1);
        assert_eq!((found, events), (None, vec![(1, 10, Cause::Expired)]));
        world.end();
    });
}

#[test]
fn a_new_value_does_not_get_the_deadline_of_the_old_one() {
    model(3, || {
        let world = empty();
        world.set_with_lifetime(1, 10, TTL, 0);
        let other = spawn(&world, |world| {
            world.advance(2 * TTL);
            world.set_with_lifetime(1, 11, TTL, 0)
        });
        let before = world.now();
        match world.get(1) {
            Some(10) => assert!(before < TTL, "the old value at {before}"),
            Some(11) | None => {}
            other => panic!("{other:?} was never the value"),
        }
        assert_eq!(other.join().expect("no panic").len(), 1);
        assert_eq!(world.get(1), Some(11));
        world.end();
    });
}

#[test]
fn a_replaced_value_keeps_its_own_deadline() {
    model(3, || {
        let world = empty();
        world.set_with_lifetime(1, 10, TTL, 0);
        // The old value is still alive.
        world.advance(TTL - 1);
        let other = spawn(&world, |world| {
            world.set_with_lifetime(1, 11, TTL, 0);
            world.advance(1);
        });
        let before = world.now();
        match world.get(1) {
            Some(10) => assert!(before < TTL, "the old value at {before}"),
            Some(11) => {}
            None => assert!(world.now() >= TTL, "neither value lived"),
            other => panic!("{other:?} was never the value"),
        }
        other.join().expect("no panic");
        assert_eq!(world.get(1), Some(11));
        world.end();
    });
}

#[test]
fn an_old_value_does_not_get_the_deadline_of_a_new_one() {
    model(2, || {
        let world = empty();
        world.set_with_lifetime(1, 10, TTL, 0);
        world.advance(TTL - 1);
        // The write comes just before or just after the deadline.
        let writer = spawn(&world, |world| world.set_with_lifetime(1, 11, TTL, 0));
        let reader = spawn(&world, |world| {
            world.advance(1);
            world.get(1)
        });
        assert_ne!(reader.join().expect("no panic"), Some(10));
        writer.join().expect("no panic");
        assert_eq!(world.get(1), Some(11));
        world.end();
    });
}

#[test]
fn a_key_that_gets_a_time_to_idle_is_always_present() {
    model(3, || {
        let world = empty();
        world.set_with_lifetime(1, 10, 8 * TTL, 0);
        // The last access is longer ago than the new time to idle.
        world.advance(2 * TTL);
        let other = spawn(&world, |world| world.set_with_lifetime(1, 11, 0, TTL));
        assert!([Some(10), Some(11)].contains(&world.get(1)));
        other.join().expect("no panic");
        world.end();
    });
}

#[test]
fn a_time_to_idle_of_an_earlier_value_does_not_come_back() {
    model(3, || {
        let world = empty();
        world.set_with_lifetime(1, 9, 0, 1);
        world.set_with_lifetime(1, 10, 8 * TTL, 0);
        let writer = spawn(&world, |world| world.set_with_lifetime(1, 11, 0, TTL));
        let reader = spawn(&world, |world| {
            world.advance(1);
            world.get(1)
        });
        assert!([Some(10), Some(11)].contains(&reader.join().expect("no panic")));
        writer.join().expect("no panic");
        world.end();
    });
}

#[test]
fn an_access_extends_the_idle_deadline_but_does_not_restore_a_removed_one() {
    model(2, || {
        let world = empty();
        world.set_with_lifetime(1, 10, 0, TTL);
        world.advance(TTL / 2);
        let other = spawn(&world, |world| world.get(1));
        // The new value has no time to idle.
        world.set_with_lifetime(1, 11, 3 * TTL, 0);
        assert!([Some(10), Some(11)].contains(&other.join().expect("no panic")));
        world.advance(2 * TTL);
        assert_eq!(world.get(1), Some(11));
        world.advance(2 * TTL);
        assert_eq!(world.get(1), None);
        world.end();
    });
}

#[test]
fn the_later_of_two_accesses_counts() {
    model(2, || {
        let world = empty();
        world.set_with_lifetime(1, 10, 0, TTL);
        world.advance(TTL / 4);
        let early = spawn(&world, |world| world.get(1));
        let late = spawn(&world, |world| {
            world.advance(TTL / 2);
            world.get(1)
        });
        [early, late].into_iter().for_each(|use_of| assert_eq!(use_of.join().expect("no panic"), Some(10)));
        world.advance(TTL - 1);
        assert_eq!(world.get(1), Some(10), "the entry was accessed within its time to idle");
        world.end();
    });
}

#[test]
fn the_earlier_of_two_deadlines_is_published() {
    model(2, || {
        let world = Arc::new(World::new(8, false, separate_homes));
        let other = spawn(&world, |world| world.set_with_lifetime(1, 10, TTL, 0));
        world.set_with_lifetime(2, 20, 4 * TTL, 0);
        other.join().expect("no panic");
        world.advance(2 * TTL);
        // Any call reports expired entries.
        assert_eq!(world.get_with_events(4).1, [(1, 10, Cause::Expired)]);
        world.end();
    });
}

/// A writer files a deadline in one shard while maintenance by another thread looks for the earliest one.
#[test]
fn no_deadline_is_forgotten() {
    model(3, || {
        let world = Arc::new(World::new(8, false, separate_homes));
        world.set_with_lifetime(2, 20, TTL, 0);
        world.advance(2 * TTL);
        let other = spawn(&world, |world| world.get_with_events(2).1);
        let mut events = world.set_with_lifetime(1, 10, TTL, 0);
        events.extend(other.join().expect("no panic"));
        world.advance(2 * TTL);
        // Any call reports expired entries.
        (0..3).for_each(|_| events.extend(world.get_with_events(4).1));
        events.sort_unstable_by_key(|one| one.0);
        assert_eq!(events, [(1, 10, Cause::Expired), (2, 20, Cause::Expired)]);
        world.end();
    });
}
