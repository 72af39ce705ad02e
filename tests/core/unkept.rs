//! Values that are not to be kept: the caller gets them, and the listener hears of them as expired.

use moka_py::{Cause, Clock, Config, Kind, NewValue, RunStart};

use crate::support::{BuiltinEqQuery, LiveCount, Subject, TestCache, Value, call, event, validate};

fn unkept(subject: &Subject, word: u64) -> NewValue<Value> {
    NewValue { is_kept: false, ..subject.stored(word) }
}

fn store_unkept(subject: &Subject, id: u64, word: u64) {
    subject.store(id, unkept(subject, word));
}

/// Loads a key that no other thread computes.
fn load(subject: &Subject, id: u64, new: NewValue<Value>) -> Option<u64> {
    let mut pause = |_: &(dyn Fn() + Sync)| unreachable!("no other thread computes");
    let query = subject.query(id);
    let loaded = subject.call(|removed| subject.cache.get_with(&query, || Ok(new), &mut pause, removed));
    loaded.map(|value| value.word()).ok()
}

#[test]
fn a_value_that_is_not_kept_leaves_as_expired() {
    let subject = Subject::lru(10);
    store_unkept(&subject, 1, 1);
    assert_eq!((subject.peek(1), subject.count()), (None, 0));
    assert_eq!(subject.events(), [event(1, 1, Cause::Expired)]);
    subject.cache.flush();
    assert_eq!(subject.values.alive(), 0);
    subject.validate();
}

#[test]
fn an_older_value_of_the_key_leaves_as_replaced_and_a_due_one_as_expired() {
    let subject = Subject::lru(10);
    subject.set(1, 1);
    store_unkept(&subject, 1, 2);
    assert_eq!(subject.events(), [event(1, 1, Cause::Replaced), event(1, 2, Cause::Expired)]);
    subject.set_with_lifetime(1, 3, 10, 0);
    subject.advance(10);
    store_unkept(&subject, 1, 4);
    assert_eq!(subject.events(), [event(1, 3, Cause::Expired), event(1, 4, Cause::Expired)]);
    assert_eq!((subject.count(), subject.weight()), (0, 0));
    subject.validate();
}

#[test]
fn a_value_that_is_too_heavy_and_not_kept_leaves_as_expired() {
    let subject = Subject::new(Config { weighted: true, ..Config::new(10, Kind::Lru) });
    subject.store(1, NewValue { weight: 11, ..unkept(&subject, 1) });
    assert_eq!(subject.events(), [event(1, 1, Cause::Expired)]);
    subject.validate();
}

#[test]
fn a_present_value_stays_beside_one_that_is_not_kept_if_the_key_must_be_absent() {
    let subject = Subject::lru(10);
    subject.set(1, 1);
    let query = subject.query(1);
    let new = unkept(&subject, 2);
    let present =
        subject.call(|removed| subject.cache.set_if_absent(&query, new, removed)).expect("no failure");
    assert_eq!((present.map(|value| value.word()), subject.peek(1)), (Some(1), Some(1)));
    assert_eq!(subject.events(), []);
}

#[test]
fn a_computed_value_that_is_not_kept_is_returned() {
    let subject = Subject::lru(10);
    assert_eq!(load(&subject, 1, unkept(&subject, 7)), Some(7));
    assert_eq!((subject.peek(1), subject.count()), (None, 0));
    assert_eq!(subject.events(), [event(1, 7, Cause::Expired)]);
    assert_eq!(load(&subject, 1, subject.stored(8)), Some(8), "the computation has ended");
    assert_eq!(subject.peek(1), Some(8));
}

#[test]
fn a_run_whose_result_is_not_kept_ends() {
    let subject = Subject::lru(10);
    let query = subject.query(1);
    let begun = subject.call(|removed| subject.cache.begin_run(&query, removed)).expect("no failure");
    let RunStart::Run(run) = begun else { panic!("there is a value") };
    let new = unkept(&subject, 7);
    subject.call(|removed| subject.cache.complete_run(&query, run, new, removed)).expect("no failure");
    assert_eq!((subject.peek(1), subject.events()), (None, vec![event(1, 7, Cause::Expired)]));
}

#[test]
fn a_write_that_is_not_kept_supersedes_computations() {
    let subject = Subject::lru(10);
    let query = subject.query(1);
    let begun = subject.call(|removed| subject.cache.begin_run(&query, removed)).expect("no failure");
    let RunStart::Run(run) = begun else { panic!("there is a value") };
    store_unkept(&subject, 1, 2);
    assert!(subject.cache.is_superseded(run));
    let new = subject.stored(1);
    let is_stored = subject.call(|removed| subject.cache.complete_run(&query, run, new, removed));
    assert_eq!((is_stored, subject.peek(1)), (Ok(false), None));
}

#[test]
fn a_value_that_is_not_kept_is_not_stored_without_the_lock_either() {
    // A thread whose last set replaced a value tries to store the next one without the lock.
    let cache = TestCache::new(Config::new(10, Kind::Lru), Clock::default());
    let tally = LiveCount::default();
    let query = BuiltinEqQuery::new(1, &tally);
    let set = |word: u64, is_kept: bool| {
        let new = NewValue { is_kept, ..NewValue::plain(Value::new(word, &tally)) };
        call(&cache, |removed| cache.set(&query, new, removed)).0.expect("plain keys do not fail");
    };
    (1..=3).for_each(|word| set(word, true));
    set(4, false);
    let found = call(&cache, |removed| cache.peek(&query, removed)).0.expect("plain keys do not fail");
    assert!(found.is_none());
    validate(&cache);
}
