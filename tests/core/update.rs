//! Writes that depend on the present entry: a value in place of the one that was seen, and restarted deadlines.

use moka_py::{Cause, Config, Kind, Lifetime, NewValue, RunStart};

use crate::support::{SECOND, Subject, Value, event};

const TTL: u64 = 10 * SECOND;
const TTI: u64 = 4 * SECOND;

fn living(ttl: u64, tti: u64) -> Subject {
    Subject::new(Config { lifetime: Lifetime { ttl, tti }, ..Config::new(1000, Kind::Lru) })
}

fn value_of(subject: &Subject, id: u64) -> Option<Value> {
    subject.call(|removed| subject.cache.peek(&subject.query(id), removed)).expect("plain keys do not fail")
}

/// Sets a value in place of the present one, with durations of its own.
fn replace_seen(subject: &Subject, id: u64, word: u64, ttl: u64, tti: u64) {
    let seen = value_of(subject, id);
    let new = NewValue { lifetime: Lifetime { ttl, tti }, ..subject.stored(word) };
    assert!(subject.set_if_same(id, seen.as_ref(), new));
}

#[test]
fn a_value_replaces_the_one_that_was_seen_and_no_other() {
    let subject = Subject::lru(10);
    assert!(subject.set_if_same(1, None, subject.stored(1)));
    let seen = value_of(&subject, 1);
    assert!(!subject.set_if_same(1, None, subject.stored(2)), "the key is present");
    assert!(subject.set_if_same(1, seen.as_ref(), subject.stored(3)));
    assert!(!subject.set_if_same(1, seen.as_ref(), subject.stored(4)), "the value was replaced");
    assert_eq!(subject.peek(1), Some(3));
    subject.remove(1);
    assert!(!subject.set_if_same(1, seen.as_ref(), subject.stored(5)), "the entry was removed");
    assert_eq!(subject.events(), [event(1, 1, Cause::Replaced), event(1, 3, Cause::Explicit)]);
    assert_eq!(subject.count(), 0);
    drop(seen);
    subject.cache.flush();
    assert_eq!(subject.values.alive(), 0);
    subject.validate();
}

#[test]
fn a_write_that_depends_on_the_value_evicts_and_may_be_too_heavy() {
    let subject = Subject::new(Config { weighted: true, ..Config::new(10, Kind::Lru) });
    (1..=5).for_each(|id| subject.set_with_weight(id, id, 2));
    let seen = value_of(&subject, 5);
    assert!(subject.set_if_same(5, seen.as_ref(), NewValue { weight: 5, ..subject.stored(50) }));
    assert_eq!((subject.held_keys(), subject.weight()), (vec![3, 4, 5], 9));
    let seen = value_of(&subject, 5);
    assert!(subject.set_if_same(5, seen.as_ref(), NewValue { weight: 11, ..subject.stored(51) }));
    assert_eq!(subject.held_keys(), [3, 4]);
    assert!(subject.set_if_same(6, None, NewValue { weight: 10, ..subject.stored(60) }));
    assert_eq!((subject.held_keys(), subject.weight()), (vec![6], 10));
    subject.validate();
}

#[test]
fn a_write_that_depends_on_the_value_is_a_use_for_the_policy_if_it_is_made() {
    let subject = Subject::lru(2);
    subject.set(1, 1);
    subject.set(2, 2);
    assert!(!subject.set_if_same(1, None, subject.stored(9)));
    subject.set(3, 3);
    assert_eq!(subject.held_keys(), [2, 3], "a write that is not made is no use");
    replace_seen(&subject, 2, 20, 0, 0);
    subject.set(4, 4);
    assert_eq!(subject.held_keys(), [2, 4]);
}

#[test]
fn a_write_that_depends_on_the_value_keeps_the_deadlines() {
    for (ttl, tti) in [(TTL, 0), (0, TTI), (TTL, TTI)] {
        let subject = living(ttl, tti);
        subject.set(1, 1);
        subject.set_with_lifetime(2, 2, SECOND, 0);
        subject.advance(SECOND / 2);
        let before = (subject.expires_in(1), subject.expires_in(2));
        replace_seen(&subject, 1, 10, 0, 0);
        replace_seen(&subject, 2, 20, 0, 0);
        assert_eq!((subject.expires_in(1), subject.expires_in(2)), before);
        subject.advance(SECOND / 2);
        assert_eq!((subject.peek(1), subject.peek(2)), (Some(10), None));
        subject.validate();
    }
}

#[test]
fn durations_restart_both_deadlines_of_a_present_entry() {
    let subject = living(TTL, TTI);
    subject.set(1, 1);
    subject.advance(3 * SECOND);
    replace_seen(&subject, 1, 2, 3 * SECOND, 0);
    assert_eq!(subject.expires_in(1), Some(3 * SECOND));
    subject.get(1);
    // A duration that is not given stays the entry's own.
    subject.advance(SECOND);
    replace_seen(&subject, 1, 3, 0, 2 * SECOND);
    assert_eq!(subject.expires_in(1), Some(2 * SECOND));
    subject.advance(SECOND);
    subject.get(1);
    assert_eq!(subject.expires_in(1), Some(2 * SECOND), "the ttl of 3 seconds began anew");
    replace_seen(&subject, 1, 4, 100 * TTL, 100 * TTI);
    assert_eq!(subject.expires_in(1), Some(TTI), "the durations of the cache bound those of an entry");
    subject.validate();
}

#[test]
fn an_absent_or_expired_key_gets_the_deadlines_of_a_set() {
    let subject = living(TTL, 0);
    replace_seen(&subject, 1, 1, 0, 0);
    assert_eq!(subject.expires_in(1), Some(TTL));
    subject.advance(TTL);
    replace_seen(&subject, 1, 2, 0, SECOND);
    assert_eq!(subject.expires_in(1), Some(SECOND));
    assert_eq!(subject.events(), [event(1, 1, Cause::Expired)]);
    subject.validate();
}

#[test]
fn a_touch_restarts_the_deadlines_with_the_durations_of_the_entry() {
    let subject = living(TTL, 0);
    subject.set(1, 1);
    subject.set_with_lifetime(2, 2, 5 * SECOND, 0);
    subject.set_with_lifetime(3, 3, 5 * SECOND, 3 * SECOND);
    subject.advance(2 * SECOND);
    assert!((1..=3).all(|id| subject.touch(id, 0, 0)));
    assert_eq!([1, 2, 3].map(|id| subject.expires_in(id)), [TTL, 5 * SECOND, 3 * SECOND].map(Some));
    subject.advance(2 * SECOND);
    subject.get(3);
    subject.advance(2 * SECOND);
    assert_eq!(subject.expires_in(3), Some(SECOND), "the ttl of 5 seconds began anew");
    subject.validate();
}

#[test]
fn a_touch_gives_an_entry_new_deadlines_within_those_of_the_cache() {
    let subject = living(TTL, 0);
    subject.set(1, 1);
    assert!(subject.touch(1, SECOND, 0));
    assert_eq!(subject.expires_in(1), Some(SECOND));
    assert!(subject.touch(1, 100 * TTL, 0));
    assert_eq!(subject.expires_in(1), Some(TTL));
    assert!(subject.touch(1, 0, TTI));
    assert_eq!(subject.expires_in(1), Some(TTI));
    subject.advance(TTI);
    assert!(!subject.touch(1, 0, 0), "the entry is past its deadline");
    assert!(!subject.touch(2, SECOND, 0), "there is no such entry");
    assert_eq!(subject.count(), 0);
    assert_eq!(subject.events(), [event(1, 1, Cause::Expired)]);
    subject.validate();
}

#[test]
fn a_touch_gives_the_first_deadline_of_a_cache() {
    let subject = Subject::tiny_lfu(10);
    subject.set(1, 1);
    assert!(subject.touch(1, 0, 0));
    assert_eq!((subject.expires_in(1), subject.next_deadline()), (None, None));
    assert!(subject.touch(1, SECOND, 0));
    assert_eq!(subject.expires_in(1), Some(SECOND));
    subject.advance(SECOND);
    // Any call removes the due entry.
    assert_eq!(subject.get(2), None);
    assert_eq!(subject.events(), [event(1, 1, Cause::Expired)]);
    subject.validate();
}

#[test]
fn a_touch_is_a_use_for_the_policy() {
    let subject = Subject::lru(2);
    subject.set(1, 1);
    subject.set(2, 2);
    assert!(subject.touch(1, 0, 0));
    subject.set(3, 3);
    assert_eq!(subject.held_keys(), [1, 3]);
}

#[test]
fn a_run_in_flight_is_superseded_by_a_write_that_depends_on_the_value_and_not_by_a_touch() {
    let subject = Subject::lru(10);
    subject.set(2, 2);
    let begin = |id| {
        let query = subject.query(id);
        match subject.call(|removed| subject.cache.begin_run(&query, removed)).expect("no failure") {
            RunStart::Run(run) => run,
            RunStart::Present(_) => panic!("the key is absent"),
        }
    };
    let (touched, failed, written) = (begin(1), begin(3), begin(4));
    subject.touch(1, 0, 0);
    let seen = value_of(&subject, 2);
    assert!(!subject.set_if_same(3, seen.as_ref(), subject.stored(3)));
    assert!(subject.set_if_same(4, None, subject.stored(4)));
    let superseded = [touched, failed, written].map(|run| subject.cache.is_superseded(run));
    assert_eq!(superseded, [false, false, true]);
    [touched, failed, written].into_iter().for_each(|run| subject.cache.end_run(run));
}

#[test]
fn the_next_deadline_is_never_later_than_it_is_and_comes_closer() {
    let subject = living(0, 0);
    assert_eq!(subject.next_deadline(), None);
    subject.set(1, 1);
    assert_eq!(subject.next_deadline(), None);
    subject.set_with_lifetime(2, 2, 3600 * SECOND, 0);
    subject.set_with_lifetime(3, 3, 7200 * SECOND, 0);
    let (mut now, mut looks) = (0, 0);
    while subject.count() == 3 {
        let remaining = subject.next_deadline().expect("two entries have deadlines");
        assert!(now + remaining <= 3600 * SECOND, "{remaining} at {now}");
        // A scheduler that has nothing due sleeps for a moment.
        let sleep = remaining.max(SECOND / 1000);
        subject.advance(sleep);
        (now, looks) = (now + sleep, looks + 1);
    }
    assert!(looks < 100, "a program wakes up {looks} times for an entry");
    subject.remove(3);
    assert_eq!(subject.next_deadline(), None, "no entry has a deadline any more");
}

#[test]
#[cfg(not(moka_gil))]
fn threads_that_count_lose_no_increment() {
    use moka_py::{Cache, Clock};

    use crate::support::{BuiltinEqQuery, LiveCount, TestCache, call, is_same_value, scope, sized, validate};

    const THREADS: u64 = 4;
    const ROUNDS: u64 = sized(2_000, 5);
    let cache: TestCache = Cache::new(Config::new(100, Kind::TinyLfu), Clock::default());
    let tally = LiveCount::default();
    scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let query = BuiltinEqQuery::new(1, &tally);
                for _ in 0..ROUNDS {
                    loop {
                        let seen = call(&cache, |removed| cache.peek(&query, removed)).0.expect("no failure");
                        let word = seen.as_ref().map_or(0, Value::word);
                        let new = NewValue::plain(Value::new(word + 1, &tally));
                        let is_same = |present: Option<&Value>| is_same_value(seen.as_ref(), present);
                        let set = |removed: &mut _| cache.set_if_same(&query, new, is_same, removed);
                        if call(&cache, set).0.expect("no failure").is_none() {
                            break;
                        }
                    }
                }
            });
        }
    });
    let found = call(&cache, |removed| cache.peek(&BuiltinEqQuery::new(1, &tally), removed)).0;
    assert_eq!(found.expect("no failure").map(|value| value.word()), Some(THREADS * ROUNDS));
    validate(&cache);
}

#[test]
fn a_restart_stays_within_the_entrys_own_ttl_if_a_function_made_that() {
    let subject = Subject::new(Config { has_ttl_function: true, ..Config::new(1000, Kind::Lru) });
    subject.set_with_lifetime(1, 1, 4 * SECOND, 0);
    subject.set(2, 2);
    subject.advance(SECOND);
    for (given, expected) in [(100 * SECOND, 4 * SECOND), (0, 4 * SECOND), (3 * SECOND, 3 * SECOND)] {
        assert!(subject.touch(1, given, 0));
        assert_eq!(subject.expires_in(1), Some(expected));
    }
    replace_seen(&subject, 1, 10, 100 * SECOND, 0);
    assert_eq!(subject.expires_in(1), Some(3 * SECOND));
    assert!(subject.touch(2, 100 * SECOND, 0), "an entry without a ttl has no such bound");
    assert_eq!(subject.expires_in(2), Some(100 * SECOND));
    subject.validate();
}
