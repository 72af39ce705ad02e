//! Reclaiming: no thread reads a dropped reference, each reference is dropped once, and never inside a call of the
//! core. The references of [`World`] assert this at each use and at their end.

use std::sync::Arc;

use crate::support::{World, model, one_hash, replace_beside_a_second_thread, separate_homes, spawn};

fn world_with(keys: &[u64]) -> Arc<World> {
    let world = Arc::new(World::new(7, false, separate_homes));
    keys.iter().for_each(|&id| drop(world.set(id, 10 * id)));
    world
}

/// Ends a model, and checks that `alive` keys and values are left. `what` names them.
#[track_caller]
fn end_with(world: Arc<World>, alive: usize, what: &str) {
    world.flush();
    assert_eq!(world.alive(), alive, "{what}");
    world.end();
}

#[test]
fn a_replaced_and_flushed_value_is_valid_for_its_reader() {
    model(3, || {
        let world = world_with(&[1]);
        let writer = spawn(&world, |world| {
            world.set(1, 11);
            world.flush();
        });
        assert!([Some(10), Some(11)].contains(&world.get(1)));
        writer.join().expect("no panic");
        end_with(world, 2, "the key and its second value");
    });
}

#[test]
fn a_removed_key_and_value_are_valid_for_their_reader() {
    model(3, || {
        let world = world_with(&[1]);
        let writer = spawn(&world, |world| {
            world.remove(1);
            world.flush();
        });
        assert!([Some(10), None].contains(&world.get(1)));
        writer.join().expect("no panic");
        end_with(world, 0, "nothing");
    });
}

/// The only thread waits for no readers until a second thread begins, and again after that thread has ended.
#[test]
fn a_value_that_the_only_thread_replaces_is_valid_for_a_second_thread() {
    model(3, || {
        let world = world_with(&[1]);
        replace_beside_a_second_thread(&world);
        end_with(world, 2, "the key and its last value");
    });
}

#[test]
fn a_value_that_the_only_thread_removes_is_valid_for_a_second_thread() {
    model(3, || {
        let world = world_with(&[1]);
        let reader = spawn(&world, |world| world.get(1));
        world.remove(1);
        assert!([Some(10), None].contains(&reader.join().expect("no panic")));
        end_with(world, 0, "nothing");
    });
}

#[test]
fn a_retired_value_outlives_both_of_its_readers() {
    model(1, || {
        let world = world_with(&[1]);
        let readers = [(); 2].map(|()| spawn(&world, |world| world.get(1)));
        world.set(1, 11);
        world.flush();
        for reader in readers {
            assert!([Some(10), Some(11)].contains(&reader.join().expect("no panic")));
        }
        end_with(world, 2, "the key and its second value");
    });
}

#[test]
fn two_writers_report_each_value_once() {
    model(3, || {
        let world = world_with(&[1]);
        let writer = spawn(&world, |world| world.set(1, 11));
        let mut events = world.set(1, 12);
        events.extend(writer.join().expect("no panic"));
        let mut values: Vec<u64> = events.iter().map(|&(_, value, _)| value).collect();
        values.push(world.get(1).expect("the key is present"));
        values.sort_unstable();
        assert_eq!(values, [10, 11, 12]);
        end_with(world, 2, "the key and its last value");
    });
}

#[test]
fn a_replaced_table_is_valid_for_its_reader() {
    model(3, || {
        // These keys fill the smallest table.
        let world = world_with(&[1, 2]);
        let writer = spawn(&world, |world| {
            world.set(3, 30);
            world.flush();
        });
        assert_eq!(world.get(2), Some(20));
        writer.join().expect("no panic");
        world.end();
    });
}

#[test]
fn a_trimmed_chunk_is_valid_for_its_reader() {
    model(3, || {
        let world = world_with(&[1, 2, 3]);
        let writer = spawn(&world, |world| {
            world.remove(3);
            world.remove(2);
            // The second chunk is empty now.
            world.flush();
        });
        assert!([Some(30), None].contains(&world.get(3)));
        writer.join().expect("no panic");
        assert_eq!(world.get(1), Some(10));
        world.end();
    });
}

#[test]
fn an_iteration_beside_a_writer_sees_valid_entries() {
    model(3, || {
        let world = world_with(&[1, 2]);
        let writer = spawn(&world, |world| {
            world.remove(1);
            world.flush();
        });
        let seen = world.entries();
        assert!([vec![(1, 10), (2, 20)], vec![(2, 20)]].contains(&seen), "{seen:?}");
        writer.join().expect("no panic");
        world.end();
    });
}

#[test]
fn a_key_in_a_user_defined_comparison_outlives_its_removal() {
    model(3, || {
        let world = Arc::new(World::new(7, false, one_hash).with_user_eq());
        world.set(1, 10);
        let writer = spawn(&world, |world| {
            world.remove(1);
            world.flush();
        });
        assert!([Some(10), None].contains(&world.get(1)));
        assert_eq!(world.get(2), None);
        writer.join().expect("no panic");
        end_with(world, 0, "nothing");
    });
}
