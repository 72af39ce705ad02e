//! A value replaced without the lock, beside all that has it.

use std::sync::Arc;

use loom::thread::JoinHandle;
use moka_py::Cause;

use crate::support::{
    Gone, World, apart, end_after_a_removal, model, replace_beside_a_newcomer, replace_beside_a_removal,
    spawn,
};

const TTL: u64 = 1 << 20;

/// Key 1 with the value 10, in a cache where a value may be replaced so.
fn with_one() -> Arc<World> {
    let world = Arc::new(World::unheard(7, apart));
    world.set(1, 10);
    world
}

/// So that what was there is dropped, if nobody is seen to look at it.
fn replace_and_flush(world: &World) {
    world.set(1, 11);
    world.flush();
}

/// What left in a call, and in that of the other thread: the values in their order, and why.
fn time_left_of(mut gone: Vec<Gone>, other: JoinHandle<Vec<Gone>>) -> Vec<(u64, Cause)> {
    gone.extend(other.join().expect("no panic"));
    let mut removed: Vec<_> = gone.into_iter().map(|(_, value, cause)| (value, cause)).collect();
    removed.sort_by_key(|&(value, _)| value);
    removed
}

#[test]
fn each_value_is_replaced_once() {
    model(3, || {
        let world = with_one();
        let other = spawn(&world, |world| world.set(1, 11));
        let gone = world.set(1, 12);
        let last = world.get(1).expect("nobody removes it");
        let removed = time_left_of(gone, other);
        let stays = world.get(1).expect("nobody removes it");
        assert_eq!(removed, [(10, Cause::Replaced), (23 - stays, Cause::Replaced)]);
        assert!([11, 12].contains(&last));
        world.end();
    });
}

#[test]
fn a_value_that_comes_beside_a_removal_is_there_or_is_what_was_removed() {
    model(3, || {
        replace_beside_a_removal(with_one());
    });
}

/// A new thread registers while the only one replaces a value.
#[test]
fn what_the_only_thread_replaces_is_whole_for_a_newcomer() {
    model(3, || {
        let world = with_one();
        replace_beside_a_newcomer(&world);
        world.end();
    });
}

#[test]
fn what_the_only_thread_replaces_is_what_a_newcomer_removes_or_is_there_after_it() {
    model(3, || {
        let world = with_one();
        let newcomer = spawn(&world, |world| world.remove(1));
        let replaced = world.set(1, 11);
        let (removed, _) = newcomer.join().expect("no panic");
        end_after_a_removal(world, removed, &replaced);
    });
}

#[test]
fn the_value_that_is_there_comes_again_beside_a_removal_and_stays_if_it_comes_after() {
    model(3, || {
        let world = with_one();
        let again = world.value_of(1);
        let writer = spawn(&world, move |world| world.set_shared_for(1, again, 0));
        let (removed, _) = world.remove(1);
        assert_eq!(removed, Some(10));
        let replaced = writer.join().expect("no panic");
        let stays = world.get(1);
        assert_eq!(replaced.is_empty(), stays == Some(10), "{replaced:?}, {stays:?}");
        world.end();
    });
}

#[test]
fn the_value_that_is_there_comes_again_beside_another_and_one_of_them_is_last() {
    model(3, || {
        let world = with_one();
        let again = world.value_of(1);
        let other = spawn(&world, |world| world.set(1, 11));
        let gone = world.set_shared_for(1, again, 0);
        let removed = time_left_of(gone, other);
        let stays = world.get(1).expect("nobody removes it");
        assert_eq!(removed, [(10, Cause::Replaced), (21 - stays, Cause::Replaced)]);
        world.end();
    });
}

#[test]
fn a_value_that_comes_beside_an_eviction_is_there_or_left_with_its_key() {
    model(3, || {
        let world = Arc::new(World::unheard(2, apart));
        world.set(1, 10);
        world.set(2, 20);
        let other = spawn(&world, |world| world.set(1, 11));
        let mut gone = world.set(3, 30);
        gone.extend(other.join().expect("no panic"));
        assert_eq!(world.count(), 2);
        assert_eq!(gone.len(), 2, "{gone:?}");
        world.end();
    });
}

#[test]
fn an_iteration_beside_it_yields_a_whole_value() {
    model(3, || {
        let world = with_one();
        let other = spawn(&world, replace_and_flush);
        let entries = world.entries();
        assert!([[(1, 10)], [(1, 11)]].iter().any(|seen| entries == seen), "{entries:?}");
        other.join().expect("no panic");
        world.end();
    });
}

#[test]
fn what_is_kept_beside_it_is_a_whole_value() {
    model(3, || {
        let world = with_one();
        let other = spawn(&world, replace_and_flush);
        let kept = world.set_if_absent(1, 12);
        assert!([Some(10), Some(11)].contains(&kept), "{kept:?}");
        other.join().expect("no panic");
        world.end();
    });
}

#[test]
fn who_removes_what_was_seen_does_not_remove_what_came_in_its_place() {
    model(3, || {
        let world = with_one();
        let other = spawn(&world, |world| world.set(1, 11));
        world.remove_all_if(10);
        other.join().expect("no panic");
        assert_eq!(world.get(1), Some(11));
        world.end();
    });
}

#[test]
fn it_does_not_get_the_deadline_of_another_write() {
    model(3, || {
        let world = with_one();
        let again = world.value_of(1);
        // The very value that is there, so that nobody can tell it from what was seen.
        let other = spawn(&world, move |world| world.set_shared_for(1, again, TTL));
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
fn a_key_that_gets_its_first_deadline_is_there_throughout() {
    model(3, || {
        let world = with_one();
        let other = spawn(&world, |world| world.set_for(1, 11, TTL, 0));
        let found = world.get(1);
        assert!([Some(10), Some(11)].contains(&found), "{found:?}");
        other.join().expect("no panic");
        world.end();
    });
}

#[test]
fn a_computation_does_not_take_its_place() {
    model(2, || {
        let world = Arc::new(World::unheard(7, apart));
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
fn who_joins_a_computation_after_it_gets_no_older_value_than_it_could_have_seen() {
    model(2, || {
        let world = Arc::new(World::unheard(7, apart));
        let other = spawn(&world, |world| world.get_with(1, || Ok(77)));
        world.set(1, 10);
        world.set(1, 11);
        assert_eq!(world.get_with(1, || Ok(78)), Ok(11));
        other.join().expect("no panic").expect("nothing fails");
        world.end();
    });
}
