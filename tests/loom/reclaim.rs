//! Who drops what, when: nobody reads what was dropped, each thing is dropped once, and never in the middle of a
//! call. The values of [`World`] see to the assertions: in each use, and at its end.

use std::sync::Arc;

use crate::support::{World, apart, model, one_hash, replace_beside_a_newcomer, spawn};

fn with(keys: &[u64]) -> Arc<World> {
    let world = Arc::new(World::new(7, false, apart));
    keys.iter().for_each(|&id| drop(world.set(id, 10 * id)));
    world
}

/// Ends a model after which so many keys and values live, and what they are.
#[track_caller]
fn end_with(world: Arc<World>, alive: usize, what: &str) {
    world.flush();
    assert_eq!(world.alive(), alive, "{what}");
    world.end();
}

#[test]
fn a_value_that_is_replaced_and_flushed_is_whole_for_its_reader() {
    model(3, || {
        let world = with(&[1]);
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
fn a_key_and_value_that_are_removed_are_whole_for_their_reader() {
    model(3, || {
        let world = with(&[1]);
        let writer = spawn(&world, |world| {
            world.remove(1);
            world.flush();
        });
        assert!([Some(10), None].contains(&world.get(1)));
        writer.join().expect("no panic");
        end_with(world, 0, "nothing");
    });
}

/// The only registered thread needs no grace period, until a reader registers, and again after that reader ended.
#[test]
fn what_the_only_thread_replaces_is_whole_for_a_newcomer() {
    model(3, || {
        let world = with(&[1]);
        replace_beside_a_newcomer(&world);
        end_with(world, 2, "the key and its last value");
    });
}

#[test]
fn what_the_only_thread_removes_is_whole_for_a_newcomer() {
    model(3, || {
        let world = with(&[1]);
        let reader = spawn(&world, |world| world.get(1));
        world.remove(1);
        assert!([Some(10), None].contains(&reader.join().expect("no panic")));
        end_with(world, 0, "nothing");
    });
}

#[test]
fn two_readers_hold_a_value_up_until_both_are_gone() {
    model(1, || {
        let world = with(&[1]);
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
fn two_writers_hand_on_each_value_once() {
    model(3, || {
        let world = with(&[1]);
        let writer = spawn(&world, |world| world.set(1, 11));
        let mut gone = world.set(1, 12);
        gone.extend(writer.join().expect("no panic"));
        let mut values: Vec<u64> = gone.iter().map(|&(_, value, _)| value).collect();
        values.push(world.get(1).expect("it is there"));
        values.sort_unstable();
        assert_eq!(values, [10, 11, 12]);
        end_with(world, 2, "the key and its last value");
    });
}

#[test]
fn a_table_that_is_replaced_is_whole_for_its_reader() {
    model(3, || {
        let world = with(&[1, 2, 3]);
        let writer = spawn(&world, |world| {
            world.set(4, 40);
            world.flush();
        });
        assert_eq!(world.get(3), Some(30));
        writer.join().expect("no panic");
        world.end();
    });
}

#[test]
fn a_chunk_that_is_trimmed_is_whole_for_its_reader() {
    model(3, || {
        let world = with(&[1, 2, 3]);
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
fn an_iteration_beside_a_writer_sees_what_was_there() {
    model(3, || {
        let world = with(&[1, 2]);
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
fn a_key_that_is_compared_by_a_user_is_held_while_it_leaves() {
    model(3, || {
        let world = Arc::new(World::new(7, false, one_hash).asking());
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
