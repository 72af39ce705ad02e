//! Loads of many keys: two that overlap, a write during a load, and values that were not asked for. A run in which all
//! threads wait fails by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::runner::{AtomicU64 as Source, Ordering};
use crate::support::{World, model, one_hash, separate_homes, spawn};

fn empty() -> Arc<World> {
    Arc::new(World::new(7, false, separate_homes))
}

/// Loads values that tell how many keys were loaded before. The counter is not a step of the model.
fn counted(count: &Arc<AtomicU64>) -> impl FnOnce(&[u64]) -> Vec<(u64, u64)> + 'static {
    let count = count.clone();
    move |ids| ids.iter().map(|&id| (id, 10 * id + count.fetch_add(1, Relaxed))).collect()
}

fn check_two_loads(world: Arc<World>, ids: [u64; 2], other_ids: [u64; 2]) {
    let count = Arc::default();
    let (mine, others) = (counted(&count), counted(&count));
    let other = spawn(&world, move |world| world.load_many(&other_ids, others));
    let mine = world.load_many(&ids, mine);
    let other = other.join().expect("no panic");
    assert_eq!(mine, other);
    assert_eq!(count.load(Relaxed), 2, "each key is loaded once");
    ids.into_iter().for_each(|id| assert_eq!(world.get(id), mine.get(&id).copied()));
    world.end();
}

#[test]
fn two_loads_in_opposite_orders_load_each_key_once() {
    model(2, || check_two_loads(empty(), [1, 2], [2, 1]));
}

#[test]
fn two_loads_of_keys_of_equal_hash_load_each_key_once() {
    model(1, || check_two_loads(Arc::new(World::new(7, false, one_hash)), [1, 2], [2, 1]));
}

#[test]
fn a_single_load_and_a_load_of_many_keys_share_a_key() {
    model(2, || {
        let world = empty();
        let count = Arc::default();
        let load = counted(&count);
        let other = spawn(&world, move |world| world.load_many(&[1, 2], load));
        let mine = world.get_with(2, || Ok(20 + count.fetch_add(1, Relaxed)));
        let other = other.join().expect("no panic");
        assert_eq!(mine.ok(), other.get(&2).copied());
        assert_eq!(count.load(Relaxed), 2, "each key is loaded once");
        world.end();
    });
}

/// A load of two keys reads a source that changes. A value from before the change must not be in the cache after the
/// write that came with the change.
fn check_load_beside_change(change: fn(&World), expected: fn(Option<u64>) -> bool) {
    model(2, move || {
        let world = empty();
        let source = Arc::new(Source::new(1));
        let read = source.clone();
        let other = spawn(&world, move |world| {
            source.store(2, Ordering::SeqCst);
            change(world);
        });
        let got = world.load_many(&[2, 1], |ids| {
            let word = read.load(Ordering::SeqCst);
            ids.iter().map(|&id| (id, word)).collect()
        });
        assert!(got.values().all(|word| [1, 2, 9].contains(word)), "{got:?}");
        other.join().expect("no panic");
        let now = world.get(1);
        assert!(expected(now), "{now:?}");
        world.end();
    });
}

#[test]
fn a_set_during_a_load_wins() {
    check_load_beside_change(|world| drop(world.set(1, 9)), |now| now == Some(9));
}

#[test]
fn a_removal_during_a_load_keeps_its_value_out() {
    check_load_beside_change(|world| drop(world.remove(1)), |now| [None, Some(2)].contains(&now));
}

#[test]
fn a_clear_during_a_load_keeps_its_values_out() {
    check_load_beside_change(World::clear, |now| [None, Some(2)].contains(&now));
}

#[test]
fn a_set_beside_two_loads_wins() {
    model(0, || {
        let world = empty();
        let load = |ids: &[u64]| ids.iter().map(|&id| (id, id)).collect::<Vec<_>>();
        let threads = [[1, 2], [2, 1]].map(|ids| spawn(&world, move |world| world.load_many(&ids, load)));
        world.set(1, 9);
        for thread in threads {
            let got = thread.join().expect("no panic");
            assert!([Some(&1), Some(&9)].contains(&got.get(&1)) && got.get(&2) == Some(&2), "{got:?}");
        }
        assert_eq!([world.get(1), world.get(2)], [Some(9), Some(2)]);
        world.end();
    });
}

#[test]
fn a_value_that_was_not_asked_for_does_not_replace_the_one_that_another_thread_computes() {
    model(2, || {
        let world = empty();
        let other = spawn(&world, |world| world.get_with(2, || Ok(21)));
        world.load_many(&[1], |_| vec![(1, 10), (2, 20)]);
        let other = other.join().expect("no panic");
        assert!([Ok(20), Ok(21)].contains(&other), "{other:?}");
        assert_eq!(world.get(2), other.ok());
        world.end();
    });
}
