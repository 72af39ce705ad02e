//! The map: a read beside inserts, replacements, removals and other tables.

use std::sync::Arc;

use crate::support::{World, apart, model, one_hash, one_home, replace_beside_a_removal, spawn};

/// A world with these keys in it, each of ten times its own value.
fn with(keys: &[u64], hash: fn(u64) -> u64) -> Arc<World> {
    let world = Arc::new(World::new(7, false, hash));
    keys.iter().for_each(|&id| drop(world.set(id, 10 * id)));
    world
}

#[test]
fn a_key_that_stays_is_found_while_the_table_grows() {
    model(3, || {
        // The smallest table is full with these.
        let world = with(&[1, 2, 3], apart);
        let writer = spawn(&world, |world| world.set(4, 40));
        assert_eq!(world.get(2), Some(20));
        assert!([None, Some(40)].contains(&world.get(4)));
        assert_eq!(writer.join().expect("no panic"), []);
        assert_eq!(world.get(4), Some(40));
        world.end();
    });
}

#[test]
fn a_key_that_stays_is_found_while_the_table_shrinks() {
    model(3, || {
        let world = with(&[1, 2, 3, 4], apart);
        [1, 2].into_iter().for_each(|id| drop(world.remove(id)));
        let writer = spawn(&world, |world| world.remove(3).0);
        assert_eq!(world.get(4), Some(40));
        assert!([None, Some(30)].contains(&world.get(3)));
        assert_eq!(writer.join().expect("no panic"), Some(30));
        assert_eq!((world.get(3), world.get(4)), (None, Some(40)));
        world.end();
    });
}

#[test]
fn a_new_key_is_there_with_its_value_or_not_at_all() {
    model(3, || {
        // The third entry is the first of a new chunk.
        let world = with(&[1, 2], one_home);
        let writer = spawn(&world, |world| world.set(3, 30));
        let first = world.get(3);
        assert!([None, Some(30)].contains(&first));
        let second = world.get(3);
        assert!(second == Some(30) || (first, second) == (None, None), "it does not go again");
        drop(writer.join().expect("no panic"));
        assert_eq!(world.get(3), Some(30));
        world.end();
    });
}

#[test]
fn a_value_is_the_old_or_the_new_and_never_the_old_again() {
    model(3, || {
        let world = with(&[1], apart);
        let writer = spawn(&world, |world| world.set(1, 11));
        let (first, second) = (world.get(1), world.get(1));
        assert!([(10, 10), (10, 11), (11, 11)].map(|(a, b)| (Some(a), Some(b))).contains(&(first, second)));
        assert_eq!(writer.join().expect("no panic").len(), 1);
        assert_eq!(world.get(1), Some(11));
        world.end();
    });
}

#[test]
fn a_key_in_the_same_probe_is_found_while_one_before_it_goes_and_comes() {
    model(2, || {
        let world = with(&[1, 2, 3], one_home);
        let writer = spawn(&world, |world| {
            world.remove(1);
            world.remove(2);
            world.set(4, 40);
        });
        assert_eq!(world.get(3), Some(30));
        assert!([None, Some(20)].contains(&world.get(2)));
        writer.join().expect("no panic");
        assert_eq!([1, 2, 3, 4].map(|id| world.get(id)), [None, None, Some(30), Some(40)]);
        world.end();
    });
}

#[test]
fn a_number_of_one_key_is_not_given_to_another_under_a_reader() {
    model(3, || {
        let world = with(&[1, 2], one_hash);
        let writer = spawn(&world, |world| {
            world.remove(1);
            // It gets the number of the first, if no reader can hold it.
            world.set(3, 30);
        });
        assert!([None, Some(10)].contains(&world.get(1)));
        writer.join().expect("no panic");
        assert_eq!([1, 2, 3].map(|id| world.get(id)), [None, Some(20), Some(30)]);
        world.end();
    });
}

#[test]
fn what_a_user_compared_is_what_is_found() {
    model(3, || {
        let world = Arc::new(World::new(7, false, one_hash).asking());
        world.set(1, 10);
        let writer = spawn(&world, |world| {
            world.remove(1);
            world.set(2, 20);
        });
        assert!([None, Some(10)].contains(&world.get(1)));
        writer.join().expect("no panic");
        assert_eq!([world.get(1), world.get(2)], [None, Some(20)]);
        world.end();
    });
}

#[test]
fn two_writers_of_one_new_key_leave_one_entry() {
    model(3, || {
        let world = Arc::new(World::new(7, false, one_hash).asking());
        world.set(1, 10);
        let writer = spawn(&world, |world| world.set(2, 20));
        let mine = world.set(2, 21);
        let other = writer.join().expect("no panic");
        assert_eq!(mine.len() + other.len(), 1, "the second replaces the first");
        assert_eq!(world.count(), 2);
        assert_eq!(world.get(2), Some(if mine.is_empty() { 20 } else { 21 }));
        world.end();
    });
}

#[test]
fn a_writer_beside_a_removal_does_not_write_to_what_has_left() {
    model(3, || {
        let world = Arc::new(World::new(7, false, one_hash).asking());
        world.set(1, 10);
        replace_beside_a_removal(world);
    });
}

#[test]
fn a_number_of_one_key_is_not_given_to_another_under_a_writer() {
    // Of one hash, so that the other key would be in the very place that the writer found.
    model(2, || {
        let world = Arc::new(World::new(7, false, one_hash).asking());
        world.set(1, 10);
        let writer = spawn(&world, |world| world.set(1, 11));
        world.remove(1);
        world.set(2, 20);
        writer.join().expect("no panic");
        assert_eq!(world.get(2), Some(20));
        world.end();
    });
}
