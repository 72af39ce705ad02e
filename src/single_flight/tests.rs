//! Tests of joining, superseding, forks and nested waits.

use super::waiters::{HasLeader, RegisteredWait, waited_for};
use super::*;
use crate::expiry::serialize_tests;
use crate::sync::thread;

type TestFlights = Flights<Arc<u64>, Arc<u64>, &'static str>;

/// Looks for a key. Ten keys in a row share a hash, as 0 to 9 do.
struct Query(u64);

impl KeyQuery<Arc<u64>> for Query {
    type Error = &'static str;

    fn hash(&self) -> u64 {
        self.0 / 10
    }

    fn key(&self) -> Arc<u64> {
        Arc::new(self.0)
    }

    fn eq_builtin(&self, key: &Arc<u64>) -> Option<bool> {
        Some(self.0 == **key)
    }

    fn eq_slow(&self, _: &Arc<u64>) -> Result<bool, Self::Error> {
        unreachable!("`eq_builtin` decides")
    }

    fn ptr_eq(a: &Arc<u64>, b: &Arc<u64>) -> bool {
        Arc::ptr_eq(a, b)
    }
}

fn lead(flights: &TestFlights, key: u64) -> Leader<'_, Arc<u64>, Arc<u64>, &'static str> {
    match flights.join(&Query(key)).expect("no flight of this thread has the key") {
        Role::Lead(leader) => leader,
        Role::Wait(_) => panic!("another thread leads"),
    }
}

/// Returns whether another thread that asks for the key now would wait.
fn waits(flights: &TestFlights, key: u64) -> bool {
    let join = || matches!(flights.join(&Query(key)), Ok(Role::Wait(_)));
    thread::scope(|scope| scope.spawn(join).join().expect("no panic"))
}

#[test]
fn a_flight_is_joined_until_it_is_complete() {
    let _running = serialize_tests();
    let flights = TestFlights::new(100);
    assert!(flights.has_no_flights(0));
    let leader = lead(&flights, 1);
    assert!(!flights.has_no_flights(0));
    assert!(waits(&flights, 1));
    assert!(matches!(flights.join(&Query(1)), Err(LoadError::OwnKey)));
    assert!(!waits(&flights, 2), "another key of the same hash is its own flight");
    leader.complete(Outcome::Value(Arc::new(5)));
    assert!(flights.has_no_flights(0));
    assert!(!waits(&flights, 1));
    assert!(flights.has_no_flights(0), "a dropped leader ends its flight");
}

#[test]
fn a_superseded_flight_is_marked_and_not_joined() {
    let _running = serialize_tests();
    let flights = TestFlights::new(100);
    let (first, other) = (lead(&flights, 1), lead(&flights, 11));
    let other_key = lead(&flights, 2);
    let other_flights = flights.other_flights(&Query(1)).expect("integers compare without errors");
    flights.supersede(0, &other_flights);
    assert!(first.is_superseded() && !other.is_superseded() && !other_key.is_superseded());
    drop((other_flights, other_key));
    let second = lead(&flights, 1);
    assert!(waits(&flights, 1) && !second.is_superseded());
    first.complete(Outcome::Abandoned);
    assert!(!flights.has_no_flights(0) && waits(&flights, 1), "the second is still in flight");
    flights.supersede_shard(0);
    assert!(other.is_superseded() && second.is_superseded());
    drop((second, other));
    assert!(flights.has_no_flights(0));
}

#[test]
fn a_flight_from_before_a_fork_counts_as_absent() {
    let _running = serialize_tests();
    let flights = TestFlights::new(100);
    let (lost, returned) = (lead(&flights, 1), lead(&flights, 11));
    after_fork_child();
    let fresh = lead(&flights, 1);
    assert!(waits(&flights, 1));
    assert!(lost.is_superseded() && returned.is_superseded(), "no write could mark them");
    assert!(!fresh.is_superseded());
    fresh.complete(Outcome::Value(Arc::new(5)));
    // The thread that forked may have been a leader, which goes on in the child.
    returned.complete(Outcome::Value(Arc::new(6)));
    drop(lost);
    assert!(flights.has_no_flights(0));
    drop(lead(&flights, 1));
}

#[test]
fn another_strand_of_a_thread_leads_its_own_flight() {
    /// Looks for a key from a strand.
    struct In(Query, usize);

    impl KeyQuery<Arc<u64>> for In {
        type Error = &'static str;

        fn hash(&self) -> u64 {
            self.0.hash()
        }

        fn key(&self) -> Arc<u64> {
            self.0.key()
        }

        fn eq_builtin(&self, key: &Arc<u64>) -> Option<bool> {
            self.0.eq_builtin(key)
        }

        fn eq_slow(&self, key: &Arc<u64>) -> Result<bool, Self::Error> {
            self.0.eq_slow(key)
        }

        fn ptr_eq(a: &Arc<u64>, b: &Arc<u64>) -> bool {
            Query::ptr_eq(a, b)
        }

        fn strand(&self) -> usize {
            self.1
        }

        fn is_strand(&self, strand: usize) -> bool {
            self.1 == strand
        }
    }

    let _running = serialize_tests();
    let flights = TestFlights::new(100);
    let leader = |strand| match flights.join(&In(Query(1), strand)) {
        Ok(Role::Lead(leader)) => leader,
        _ => panic!("the strand does not lead"),
    };
    let (first, second) = (leader(1), leader(2));
    for strand in [1, 2] {
        assert!(matches!(flights.join(&In(Query(1), strand)), Err(LoadError::OwnKey)));
    }
    assert!(waits(&flights, 1), "another thread waits for one of them");
    drop(first);
    assert!(matches!(flights.join(&In(Query(1), 2)), Err(LoadError::OwnKey)));
    drop((leader(1), second));
    assert!(flights.has_no_flights(0));
}

#[test]
fn the_first_call_in_a_child_empties_the_table() {
    let _running = serialize_tests();
    let flights = TestFlights::new(100);
    let (lost, run) = (lead(&flights, 1), flights.begin(&Query(2)).expect("there is memory"));
    after_fork_child();
    assert!(!flights.has_no_flights(0), "the fork itself takes no lock");
    flights.other_flights(&Query(11)).expect("integers compare without errors");
    assert!(flights.has_no_flights(0), "a later `set` does not lock the table");
    assert!(lost.is_superseded() && flights.is_superseded(run));
    assert!(!flights.end(run));
    drop(lost);
    assert!(flights.has_no_flights(0));
}

#[test]
fn a_nested_wait_restores_the_outer_one() {
    let _running = serialize_tests();
    let flights = TestFlights::new(100);
    let _leaders = (lead(&flights, 1), lead(&flights, 11));
    let result_of = |key| match flights.join(&Query(key)) {
        Ok(Role::Wait(result)) => result,
        _ => panic!("no other thread leads"),
    };
    let is_for = |result: &Arc<FlightResult<_, _>>| {
        let result: Arc<dyn HasLeader> = result.clone();
        waited_for().is_some_and(|waited| Arc::ptr_eq(&waited, &result))
    };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let (outer, inner) = (result_of(1), result_of(11));
            let first = RegisteredWait::begin(outer.clone()).expect("no deadlock");
            assert!(is_for(&outer));
            let second = RegisteredWait::begin(inner.clone()).expect("no deadlock");
            assert!(is_for(&inner));
            drop(second);
            assert!(is_for(&outer));
            drop(first);
            assert!(waited_for().is_none());
        });
        waiting.join().expect("no panic");
    });
}
