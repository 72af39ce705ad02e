//! Refreshes: one claim for many calls, and writes beside the computation.

use std::sync::Arc;

use moka_py::RefreshClaim;

use crate::runner::{AtomicU64 as Seen, Ordering};
use crate::support::{World, model, separate_homes, spawn};

const REFRESH: u64 = 10;

/// Key 1 has the value 1, which is to be computed anew.
fn stale() -> Arc<World> {
    let world = World::refreshing(7, REFRESH, separate_homes);
    world.set(1, 1);
    world.advance(REFRESH + 1);
    Arc::new(world)
}

fn claim(world: &World) -> RefreshClaim {
    world.look_up(1).1.expect("the refresh is due")
}

#[test]
fn one_of_two_calls_claims_the_refresh() {
    model(3, || {
        let world = stale();
        let other = spawn(&world, |world| world.look_up(1));
        let (mine, my_claim) = world.look_up(1);
        let (other, other_claim) = other.join().expect("no panic");
        assert_eq!((mine, other), (Some(1), Some(1)));
        assert!(my_claim.is_some() != other_claim.is_some());
        world.end();
    });
}

#[test]
fn a_call_beside_a_refresh_gets_the_old_value_or_the_new_one() {
    model(2, || {
        let world = stale();
        let claim = claim(&world);
        let other = spawn(&world, |world| world.look_up(1));
        assert_eq!(world.refresh(1, claim, || 2), Some(2));
        let (other, other_claim) = other.join().expect("no panic");
        assert!([Some(1), Some(2)].contains(&other) && other_claim.is_none(), "{other:?}");
        assert_eq!(world.look_up(1).0, Some(2));
        world.end();
    });
}

#[test]
fn a_claim_of_an_old_value_is_void_after_a_set() {
    model(2, || {
        let world = stale();
        let other = spawn(&world, |world| drop(world.set(1, 9)));
        if let (seen, Some(claim)) = world.look_up(1) {
            assert!([Some(1), Some(9)].contains(&seen), "{seen:?}");
            // A reader of the new value may have claimed by the word of the old one. Then the writer voids the claim.
            let computed = world.refresh(1, claim, || 2);
            assert!(seen == Some(1) || computed.is_none(), "{seen:?} was computed anew");
        }
        other.join().expect("no panic");
        assert_eq!(world.look_up(1), (Some(9), None));
        world.end();
    });
}

type Refresh = fn(&World, RefreshClaim, Arc<Seen>) -> Option<u64>;

fn by_flight(world: &World, claim: RefreshClaim, source: Arc<Seen>) -> Option<u64> {
    world.refresh(1, claim, || source.load(Ordering::SeqCst))
}

fn by_run(world: &World, claim: RefreshClaim, source: Arc<Seen>) -> Option<u64> {
    world.refresh_by_run(1, claim, || source.load(Ordering::SeqCst))
}

/// A refresh reads a source that changes. A result from before the change must not be in the cache after the write that
/// came with the change.
fn check_beside_change(refresh: Refresh, change: fn(&World), expected: fn(Option<u64>) -> bool) {
    model(2, move || {
        let world = stale();
        let claim = claim(&world);
        let source = Arc::new(Seen::new(3));
        let other = {
            let source = source.clone();
            spawn(&world, move |world| {
                source.store(4, Ordering::SeqCst);
                change(world);
            })
        };
        let computed = refresh(&world, claim, source);
        assert!([None, Some(3), Some(4)].contains(&computed), "{computed:?}");
        other.join().expect("no panic");
        let now = world.get(1);
        assert!(expected(now), "{now:?}");
        world.end();
    });
}

#[test]
fn a_set_beside_a_refresh_wins() {
    check_beside_change(by_flight, |world| drop(world.set(1, 9)), |now| now == Some(9));
}

#[test]
fn a_set_beside_the_run_of_a_refresh_wins() {
    check_beside_change(by_run, |world| drop(world.set(1, 9)), |now| now == Some(9));
}

#[test]
fn a_removal_beside_a_refresh_keeps_its_result_out() {
    check_beside_change(by_flight, |world| drop(world.remove(1)), |now| [None, Some(4)].contains(&now));
}

#[test]
fn a_removal_beside_the_run_of_a_refresh_keeps_its_result_out() {
    check_beside_change(by_run, |world| drop(world.remove(1)), |now| [None, Some(4)].contains(&now));
}

#[test]
fn a_clear_beside_a_refresh_keeps_its_result_out() {
    check_beside_change(by_flight, World::clear, |now| [None, Some(4)].contains(&now));
}

/// The release of a claim meets a write that reuses the place of the entry.
#[test]
fn a_release_beside_writes_leaves_other_entries_alone() {
    model(2, || {
        let world = stale();
        let claim = claim(&world);
        let other = spawn(&world, |world| {
            world.remove(1);
            world.set(3, 3);
        });
        world.release_claim(claim);
        other.join().expect("no panic");
        assert_eq!(world.look_up(3), (Some(3), None));
        world.end();
    });
}
