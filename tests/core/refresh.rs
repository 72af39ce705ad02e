//! Refreshes: one call computes a value anew, while the others get the old one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use moka_py::{
    Cause, Clock, Config, Failure, Kind, Lifetime, LoadError, LoadLookup, NewValue, NextRefresh, RefreshClaim,
};

use crate::single_flight_support::Shared;
use crate::support::{BuiltinEqQuery, Error, SECOND, Subject, Value, call, event, within_a_minute};

const REFRESH: u64 = 10 * SECOND;

fn subject_of(config: Config) -> Subject {
    Subject::new(Config { refresh: REFRESH, ..config })
}

fn subject() -> Subject {
    subject_of(Config::new(100, Kind::Lru))
}

/// A cache whose key 1 has the value 10, which is to be computed anew.
fn stale_subject() -> Subject {
    let subject = subject();
    subject.set(1, 10);
    subject.advance(REFRESH + 1);
    subject
}

fn look_up(subject: &Subject, id: u64) -> LoadLookup<Value> {
    subject.call(|removed| subject.cache.get_for_load(&subject.query(id), removed)).expect("no key fails")
}

/// Claims the refresh of a key.
fn claim(subject: &Subject, id: u64) -> RefreshClaim {
    match look_up(subject, id) {
        LoadLookup::Stale(_, claim) => claim,
        _ => panic!("no refresh is due"),
    }
}

/// The value of a key if no refresh is due.
fn fresh(subject: &Subject, id: u64) -> Option<u64> {
    match look_up(subject, id) {
        LoadLookup::Fresh(value) => Some(value.word()),
        LoadLookup::Absent => None,
        LoadLookup::Stale(..) => panic!("a refresh is due"),
    }
}

fn is_due(subject: &Subject, id: u64) -> bool {
    let is_fast = subject.cache.try_get_for_load_fast(&subject.query(id)).is_some();
    let LoadLookup::Stale(_, claim) = look_up(subject, id) else { return false };
    assert!(!is_fast, "the fast look-up leaves a refresh to the other one");
    subject.cache.release_claim(claim, NextRefresh::Now);
    true
}

/// Computes a value anew and runs `during` meanwhile.
fn refresh_during(
    subject: &Subject,
    id: u64,
    claim: RefreshClaim,
    word: u64,
    during: impl FnOnce(),
) -> Option<u64> {
    let compute = || {
        during();
        Ok(subject.stored(word))
    };
    let query = subject.query(id);
    let value = subject.call(|removed| subject.cache.refresh(&query, claim, compute, removed));
    value.expect("nothing fails").map(|value| value.word())
}

fn refresh(subject: &Subject, id: u64, claim: RefreshClaim, word: u64) -> Option<u64> {
    refresh_during(subject, id, claim, word, || ())
}

#[test]
fn a_value_is_to_be_computed_anew_once_its_set_is_longer_ago_than_refresh() {
    let subject = subject();
    subject.set(1, 10);
    subject.advance(REFRESH);
    assert!(!is_due(&subject, 1));
    subject.advance(1);
    assert!(is_due(&subject, 1));
}

#[test]
fn a_get_and_a_peek_claim_nothing() {
    let subject = stale_subject();
    assert_eq!((subject.get(1), subject.peek(1)), (Some(10), Some(10)));
    assert_eq!(subject.cache.try_get_fast(&subject.query(1)).flatten().map(|value| value.word()), Some(10));
    assert!(is_due(&subject, 1));
}

#[test]
fn the_fast_look_up_answers_unless_a_refresh_is_due() {
    let subject = subject();
    subject.set(1, 10);
    assert_eq!(
        subject.cache.try_get_for_load_fast(&subject.query(1)).flatten().map(|value| value.word()),
        Some(10)
    );
    subject.advance(REFRESH + 1);
    assert!(subject.cache.try_get_for_load_fast(&subject.query(1)).is_none());
    let claimed = claim(&subject, 1);
    assert!(subject.cache.try_get_for_load_fast(&subject.query(1)).is_some());
    subject.cache.release_claim(claimed, NextRefresh::Now);
}

#[test]
fn one_call_claims_the_refresh_and_the_others_get_the_old_value() {
    let subject = stale_subject();
    let claimed = claim(&subject, 1);
    assert_eq!((fresh(&subject, 1), fresh(&subject, 1)), (Some(10), Some(10)));
    let seen = std::cell::Cell::new(None);
    let value = refresh_during(&subject, 1, claimed, 11, || seen.set(fresh(&subject, 1)));
    assert_eq!((value, seen.get(), fresh(&subject, 1)), (Some(11), Some(10), Some(11)));
    subject.validate();
}

#[test]
fn a_refresh_is_a_set_for_deadlines_and_listener() {
    let lifetime = Lifetime { ttl: 2 * REFRESH, tti: 0 };
    let subject = subject_of(Config { lifetime, ..Config::new(100, Kind::Lru) });
    subject.set(1, 10);
    subject.advance(REFRESH + 1);
    let claimed = claim(&subject, 1);
    assert_eq!(refresh(&subject, 1, claimed, 11), Some(11));
    assert_eq!(subject.expires_in(1), Some(2 * REFRESH));
    assert_eq!(subject.events(), [event(1, 10, Cause::Replaced)]);
    subject.advance(REFRESH);
    assert!(!is_due(&subject, 1));
    subject.advance(1);
    assert!(is_due(&subject, 1));
    subject.validate();
}

#[test]
fn a_refresh_does_not_count_as_an_access() {
    let subject = subject_of(Config::new(2, Kind::Lru));
    subject.set(1, 10);
    subject.advance(REFRESH + 1);
    subject.set(2, 20);
    let claimed = claim(&subject, 1);
    subject.get(2);
    assert_eq!(refresh(&subject, 1, claimed, 11), Some(11));
    subject.set(3, 30);
    assert_eq!(subject.held_keys(), [2, 3]);
}

#[test]
fn every_write_since_the_claim_makes_it_void() {
    let writes: [fn(&Subject); 6] = [
        |subject| subject.set(1, 9),
        |subject| assert_eq!(subject.remove(1), Some(10)),
        Subject::clear,
        |subject| {
            let seen = subject.cache.peek(&subject.query(1), &mut Default::default()).expect("no failure");
            assert!(subject.set_if_same(1, seen.as_ref(), subject.stored(9)));
        },
        |subject| {
            subject.remove(1);
            subject.set(1, 9);
        },
        |subject| {
            // The entry of another key has the same place.
            subject.remove(1);
            subject.set(2, 9);
        },
    ];
    for write in writes {
        let subject = stale_subject();
        let claimed = claim(&subject, 1);
        write(&subject);
        let before = subject.entries();
        let unreachable = || unreachable!("there is nothing to compute");
        assert_eq!(refresh_during(&subject, 1, claimed, 11, unreachable), None);
        let run = subject.cache.begin_refresh_run(&subject.query(1), claimed).expect("no failure");
        assert!(run.is_none());
        subject.cache.release_claim(claimed, NextRefresh::Now);
        assert_eq!(subject.entries(), before);
        assert!(!before.iter().any(|&(id, _)| is_due(&subject, id)), "the release changes nothing");
        subject.validate();
    }
}

#[test]
fn every_write_during_the_computation_wins() {
    type Write = fn(&Subject);
    let writes: [(Write, Option<u64>); 4] = [
        (|subject| subject.set(1, 9), Some(9)),
        (|subject| assert_eq!(subject.remove(1), Some(10)), None),
        (Subject::clear, None),
        (|subject| subject.cache.supersede_all(), Some(10)),
    ];
    for (write, after) in writes {
        for is_run in [false, true] {
            let subject = stale_subject();
            let claimed = claim(&subject, 1);
            if is_run {
                let query = subject.query(1);
                let run = subject.cache.begin_refresh_run(&query, claimed).expect("no failure");
                let run = run.expect("the claim stands");
                write(&subject);
                let new = subject.stored(11);
                let complete =
                    |removed: &mut _| subject.cache.complete_refresh_run(&query, run, new, removed);
                assert!(!subject.call(complete).expect("no failure"));
            } else {
                assert_eq!(refresh_during(&subject, 1, claimed, 11, || write(&subject)), Some(11));
            }
            assert_eq!(subject.peek(1), after);
            subject.cache.release_claim(claimed, NextRefresh::Now);
            assert_eq!(after == Some(10), after.is_some() && is_due(&subject, 1), "the next attempt");
            subject.validate();
        }
    }
}

#[test]
fn a_run_of_a_refresh_stores_its_result() {
    let subject = stale_subject();
    let claimed = claim(&subject, 1);
    let query = subject.query(1);
    let run =
        subject.cache.begin_refresh_run(&query, claimed).expect("no failure").expect("the claim stands");
    let new = subject.stored(11);
    let complete = |removed: &mut _| subject.cache.complete_refresh_run(&query, run, new, removed);
    assert!(subject.call(complete).expect("no failure"));
    assert_eq!(fresh(&subject, 1), Some(11));
}

#[test]
fn a_released_claim_is_due_now_or_a_tenth_of_refresh_later() {
    let subject = stale_subject();
    subject.cache.release_claim(claim(&subject, 1), NextRefresh::Now);
    subject.cache.release_claim(claim(&subject, 1), NextRefresh::Later);
    assert!(!is_due(&subject, 1));
    subject.advance(REFRESH / 10 - 1);
    assert!(!is_due(&subject, 1));
    subject.advance(1);
    assert!(is_due(&subject, 1));
}

#[test]
fn a_failed_refresh_keeps_the_old_value() {
    let subject = stale_subject();
    let claimed = claim(&subject, 1);
    let failed = subject.call(|removed| {
        let compute = || -> Result<NewValue<Value>, Failure<Error>> {
            Err(Failure { error: "boom", for_waiters: Some("boom") })
        };
        subject.cache.refresh(&subject.query(1), claimed, compute, removed)
    });
    assert_eq!(failed.map(drop), Err("boom"));
    assert_eq!((subject.peek(1), subject.events()), (Some(10), vec![]));
}

#[test]
fn the_old_value_lives_until_its_deadline_which_a_use_may_move() {
    let lifetime = Lifetime { ttl: 0, tti: 2 * REFRESH };
    let subject = subject_of(Config { lifetime, ..Config::new(100, Kind::Lru) });
    subject.set(1, 10);
    subject.advance(REFRESH + 1);
    let claimed = claim(&subject, 1);
    subject.advance(REFRESH);
    subject.get(1);
    subject.advance(REFRESH + 1);
    assert!(subject.cache.is_claimed_value_live(claimed));
    subject.advance(REFRESH);
    assert!(!subject.cache.is_claimed_value_live(claimed));
    assert!(matches!(look_up(&subject, 1), LoadLookup::Absent));
}

#[test]
fn new_deadlines_alone_do_not_put_a_refresh_off() {
    let subject = subject();
    subject.set(1, 10);
    subject.advance(REFRESH);
    assert!(subject.touch(1, 5 * REFRESH, 0));
    assert!(!is_due(&subject, 1));
    subject.advance(1);
    assert!(is_due(&subject, 1));
}

#[test]
fn an_expired_value_is_absent_and_not_stale() {
    let subject = subject();
    subject.set_with_lifetime(1, 10, REFRESH + 1, 0);
    subject.advance(REFRESH + 1);
    assert!(matches!(look_up(&subject, 1), LoadLookup::Absent));
}

#[test]
fn a_refresh_inserts_its_result_if_the_entry_was_evicted() {
    let subject = subject_of(Config::new(1, Kind::Lru));
    subject.set(1, 10);
    subject.advance(REFRESH + 1);
    let claimed = claim(&subject, 1);
    assert_eq!(refresh_during(&subject, 1, claimed, 11, || subject.set(2, 20)), Some(11));
    assert_eq!(subject.entries(), [(1, 11)]);
    subject.validate();
}

#[test]
fn a_second_computation_of_the_key_leaves_the_claim_to_the_first() {
    let subject = stale_subject();
    let claimed = claim(&subject, 1);
    let seen = std::cell::Cell::new(Some(0));
    let value = refresh_during(&subject, 1, claimed, 11, || seen.set(refresh(&subject, 1, claimed, 12)));
    assert_eq!((value, seen.get(), subject.peek(1)), (Some(11), None, Some(11)));
}

#[test]
fn a_call_that_finds_no_value_joins_a_refresh_that_hangs_past_the_deadline() {
    within_a_minute(|| {
        let time = Arc::new(AtomicU64::new(0));
        let lifetime = Lifetime { ttl: 2 * REFRESH, tti: 0 };
        let config = Config { lifetime, refresh: REFRESH, ..Config::new(100, Kind::Lru) };
        let shared = Shared::with_clock(config, 1, &Clock::Manual(Arc::clone(&time)));
        shared.attached(|cache| {
            let query = BuiltinEqQuery::new(1, &shared.tally);
            let new = NewValue::plain(Value::new(10, &shared.tally));
            call(cache, |removed| cache.set(&query, new, removed)).0.expect("no failure");
        });
        time.store(REFRESH + 1, SeqCst);
        let (computing, end) = shared.leader_by(|shared, wait| {
            let (cache, query) = (&shared.caches[0], BuiltinEqQuery::new(1, &shared.tally));
            let found = call(cache, |removed| cache.get_for_load(&query, removed)).0.expect("no failure");
            let LoadLookup::Stale(old, claim) = found else { panic!("a refresh is due") };
            assert_eq!(old.word(), 10);
            let compute = || {
                wait();
                Ok(NewValue::plain(Value::new(11, &shared.tally)))
            };
            let new = call(cache, |removed| cache.refresh(&query, claim, compute, removed)).0;
            new.expect("no failure").map(|value| value.word())
        });
        shared.attach();
        assert_eq!(shared.load(0, 1, || unreachable!("there is a value")), Ok(10));
        shared.detach();
        time.store(2 * REFRESH + 1, SeqCst);
        let waiters = shared.waiters(3, 99);
        drop(end);
        assert_eq!(computing.join().expect("no panic"), Some(11));
        for waiter in waiters {
            assert_eq!(waiter.join().expect("no panic"), Ok::<_, LoadError<Error>>(11));
        }
        assert_eq!(shared.computed.load(SeqCst), 0);
    });
}
