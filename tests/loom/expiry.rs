//! Deadlines: no read returns what is past its own, what lives is not lost, and each end is told once.

use std::sync::Arc;

use moka_py::Cause;

use crate::support::{World, apart, model, spawn};

const TTL: u64 = 1 << 20;

fn empty() -> Arc<World> {
    Arc::new(World::new(7, false, apart))
}

#[test]
fn a_read_beside_the_end_returns_what_lives() {
    model(3, || {
        let world = empty();
        world.set_for(1, 10, TTL, 0);
        world.set_for(2, 20, 4 * TTL, 0);
        let other = spawn(&world, |world| {
            world.advance(2 * TTL);
            world.get_and_tell(2)
        });
        let before = world.now();
        let (found, mut gone) = world.get_and_tell(1);
        assert!(found.is_none() || found == Some(10) && before < TTL, "{found:?} at {before}");
        let (kept, told) = other.join().expect("no panic");
        assert_eq!(kept, Some(20));
        gone.extend(told);
        assert_eq!((world.count(), world.get(1)), (1, None));
        assert!(gone.len() <= 1);
        world.end();
    });
}

#[test]
fn each_end_is_told_once_whoever_comes_upon_it() {
    model(3, || {
        let world = empty();
        world.set_for(1, 10, TTL, 0);
        world.set_for(2, 20, 4 * TTL, 0);
        world.advance(2 * TTL);
        let other = spawn(&world, |world| world.get_and_tell(1));
        let mut gone = world.get_and_tell(2).1;
        let (found, told) = other.join().expect("no panic");
        gone.extend(told);
        gone.extend(world.get_and_tell(2).1);
        assert_eq!((found, gone), (None, vec![(1, 10, Cause::Expired)]));
        world.end();
    });
}

#[test]
fn a_new_life_is_not_that_of_the_old_value() {
    model(3, || {
        let world = empty();
        world.set_for(1, 10, TTL, 0);
        let other = spawn(&world, |world| {
            world.advance(2 * TTL);
            world.set_for(1, 11, TTL, 0)
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
fn a_value_that_is_replaced_takes_its_own_deadline() {
    model(3, || {
        let world = empty();
        world.set_for(1, 10, TTL, 0);
        // Just in time.
        world.advance(TTL - 1);
        let other = spawn(&world, |world| {
            world.set_for(1, 11, TTL, 0);
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
        world.set_for(1, 10, TTL, 0);
        world.advance(TTL - 1);
        // Just in time, or too late.
        let writer = spawn(&world, |world| world.set_for(1, 11, TTL, 0));
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
fn a_key_that_gets_a_time_to_idle_is_there_throughout() {
    model(3, || {
        let world = empty();
        world.set_for(1, 10, 8 * TTL, 0);
        // Its last use is longer ago than the time to idle that comes.
        world.advance(2 * TTL);
        let other = spawn(&world, |world| world.set_for(1, 11, 0, TTL));
        assert!([Some(10), Some(11)].contains(&world.get(1)));
        other.join().expect("no panic");
        world.end();
    });
}

#[test]
fn a_time_to_idle_of_a_former_value_does_not_come_back() {
    model(3, || {
        let world = empty();
        world.set_for(1, 9, 0, 1);
        world.set_for(1, 10, 8 * TTL, 0);
        let writer = spawn(&world, |world| world.set_for(1, 11, 0, TTL));
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
fn a_use_puts_the_end_off_and_does_not_bring_it_back() {
    model(2, || {
        let world = empty();
        world.set_for(1, 10, 0, TTL);
        world.advance(TTL / 2);
        let other = spawn(&world, |world| world.get(1));
        // Another life, without an end to idleness.
        world.set_for(1, 11, 3 * TTL, 0);
        assert!([Some(10), Some(11)].contains(&other.join().expect("no panic")));
        world.advance(2 * TTL);
        assert_eq!(world.get(1), Some(11));
        world.advance(2 * TTL);
        assert_eq!(world.get(1), None);
        world.end();
    });
}

#[test]
fn two_uses_leave_the_later_one() {
    model(2, || {
        let world = empty();
        world.set_for(1, 10, 0, TTL);
        world.advance(TTL / 4);
        let early = spawn(&world, |world| world.get(1));
        let late = spawn(&world, |world| {
            world.advance(TTL / 2);
            world.get(1)
        });
        [early, late].into_iter().for_each(|use_of| assert_eq!(use_of.join().expect("no panic"), Some(10)));
        world.advance(TTL - 1);
        assert_eq!(world.get(1), Some(10), "it was used within its time");
        world.end();
    });
}

#[test]
fn of_two_deadlines_the_earlier_one_is_kept() {
    model(2, || {
        let world = Arc::new(World::new(8, false, apart));
        let other = spawn(&world, |world| world.set_for(1, 10, TTL, 0));
        world.set_for(2, 20, 4 * TTL, 0);
        other.join().expect("no panic");
        world.advance(2 * TTL);
        // Any call tells what is due.
        assert_eq!(world.get_and_tell(4).1, [(1, 10, Cause::Expired)]);
        world.end();
    });
}

/// Two shards, where a writer files a deadline while another thread's maintenance looks for the earliest one.
#[test]
fn no_deadline_is_forgotten() {
    model(3, || {
        let world = Arc::new(World::new(8, false, apart));
        world.set_for(2, 20, TTL, 0);
        world.advance(2 * TTL);
        let other = spawn(&world, |world| world.get_and_tell(2).1);
        let mut gone = world.set_for(1, 10, TTL, 0);
        gone.extend(other.join().expect("no panic"));
        world.advance(2 * TTL);
        // Any call tells what is due.
        (0..3).for_each(|_| gone.extend(world.get_and_tell(4).1));
        gone.sort_unstable_by_key(|one| one.0);
        assert_eq!(gone, [(1, 10, Cause::Expired), (2, 20, Cause::Expired)]);
        world.end();
    });
}
