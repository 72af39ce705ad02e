//! The map: reads beside inserts, replacements, removals and resizes.

use std::sync::Arc;

use crate::support::{World, model, one_hash, one_home, replace_beside_a_removal, separate_homes, spawn};

/// Makes a world with these keys, whose values are ten times as large.
fn world_with(keys: &[u64], hash: fn(u64) -> u64) -> Arc<World> {
    let world = Arc::new(World::new(7, false, hash));
    keys.iter().for_each(|&id| drop(world.set(id, 10 * id)));
    world
}

#[test]
fn a_lasting_key_is_found_while_the_table_grows() {
    model(3, || {
        // These keys fill the smallest table.
        let world = world_with(&[1, 2], separate_homes);
        let writer = spawn(&world, |world| world.set(3, 30));
        assert_eq!(world.get(2), Some(20));
        assert!([None, Some(30)].contains(&world.get(3)));
        assert_eq!(writer.join().expect("no panic"), []);
        assert_eq!(world.get(3), Some(30));
        world.end();
    });
}

#[test]
fn a_lasting_key_is_found_while_the_table_shrinks() {
    model(2, || {
        let world = world_with(&[1, 2, 3, 4], separate_homes);
        [1, 2].into_iter().for_each(|id| drop(world.remove(id)));
        let writer = spawn(&world, |world| {
            let removed = world.remove(3).0;
            // It ends the resize, which the removal has begun.
            world.flush();
            removed
        });
        assert_eq!(world.get(4), Some(40));
        assert!([None, Some(30)].contains(&world.get(3)));
        assert_eq!(writer.join().expect("no panic"), Some(30));
        assert_eq!((world.get(3), world.get(4)), (None, Some(40)));
        world.end();
    });
}

#[test]
fn a_new_key_is_found_with_its_value_or_not_at_all() {
    model(3, || {
        // The third entry is the first of a new chunk.
        let world = world_with(&[1, 2], one_home);
        let writer = spawn(&world, |world| world.set(3, 30));
        let first = world.get(3);
        assert!([None, Some(30)].contains(&first));
        let second = world.get(3);
        assert!(second == Some(30) || (first, second) == (None, None), "the key must not disappear");
        drop(writer.join().expect("no panic"));
        assert_eq!(world.get(3), Some(30));
        world.end();
    });
}

#[test]
fn a_read_never_returns_the_old_value_after_the_new_one() {
    model(2, || {
        let world = world_with(&[1], separate_homes);
        let writer = spawn(&world, |world| world.set(1, 11));
        let (first, second) = (world.get(1), world.get(1));
        assert!([(10, 10), (10, 11), (11, 11)].map(|(a, b)| (Some(a), Some(b))).contains(&(first, second)));
        assert_eq!(writer.join().expect("no panic").len(), 1);
        assert_eq!(world.get(1), Some(11));
        world.end();
    });
}

#[test]
fn a_key_is_found_while_keys_before_it_in_the_probe_change() {
    model(2, || {
        let world = world_with(&[1, 2, 3], one_home);
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
fn an_index_is_not_reused_under_a_reader() {
    model(1, || {
        let world = world_with(&[1, 2], one_hash);
        // Two writers, since a thread that removes waits for readers before it goes on.
        let remover = spawn(&world, |world| drop(world.remove(1)));
        // This key gets the index of the first one, if no reader can hold that.
        let writer = spawn(&world, |world| drop(world.set(3, 30)));
        assert!([None, Some(10)].contains(&world.get(1)));
        [remover, writer].into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!([1, 2, 3].map(|id| world.get(id)), [None, Some(20), Some(30)]);
        world.end();
    });
}

#[test]
fn a_user_defined_comparison_and_the_result_are_of_the_same_entry() {
    model(3, || {
        let world = Arc::new(World::new(7, false, one_hash).with_user_eq());
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
        let world = Arc::new(World::new(7, false, one_hash).with_user_eq());
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
fn a_writer_beside_a_removal_does_not_write_to_the_removed_entry() {
    model(3, || {
        let world = Arc::new(World::new(7, false, one_hash).with_user_eq());
        world.set(1, 10);
        replace_beside_a_removal(world);
    });
}

#[test]
fn an_index_is_not_reused_under_a_writer() {
    // The keys share a hash, so that the other key can get the slot that the writer found.
    model(2, || {
        let world = Arc::new(World::new(7, false, one_hash).with_user_eq());
        world.set(1, 10);
        let writer = spawn(&world, |world| world.set(1, 11));
        world.remove(1);
        world.set(2, 20);
        writer.join().expect("no panic");
        assert_eq!(world.get(2), Some(20));
        world.end();
    });
}
