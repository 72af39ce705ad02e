//! Loads that no other call waits for: a write to the key keeps their result out (law 13).

use std::sync::Arc;

use moka_py::{Cache, Clock, Config, Kind, Run, RunStart};

use crate::support::Subject;

fn begin(subject: &Subject, id: u64) -> Run {
    match subject.call(|removed| subject.cache.begin_run(&subject.query(id), removed)).expect("no key fails")
    {
        RunStart::Run(run) => run,
        RunStart::Present(_) => panic!("there is a value"),
    }
}

fn store(subject: &Subject, id: u64, run: Run, word: u64) -> bool {
    let stored = subject.stored(word);
    subject
        .call(|removed| subject.cache.complete_run(&subject.query(id), run, stored, removed))
        .expect("no key fails")
}

/// Begins a run of key 1, makes a write, and ends the run with the value 10. Returns the value of the key after that.
fn value_after(write: impl FnOnce(&Subject)) -> Option<u64> {
    let subject = Subject::lru(10);
    subject.set(2, 20);
    let run = begin(&subject, 1);
    write(&subject);
    let is_kept = store(&subject, 1, run, 10);
    let now = subject.peek(1);
    assert_eq!(is_kept, now == Some(10));
    subject.validate();
    now
}

#[test]
fn a_result_is_stored_if_its_key_was_not_written() {
    assert_eq!(value_after(|_| ()), Some(10));
    assert_eq!(
        value_after(|subject| assert_eq!(subject.remove(2), Some(20))),
        Some(10),
        "a removal of another key"
    );
    assert_eq!(value_after(|subject| subject.set(3, 30)), Some(10), "a set of another key");
    assert_eq!(value_after(|subject| (3..30).for_each(|id| subject.set(id, id))), Some(10), "eviction");
}

#[test]
fn every_write_to_the_key_keeps_the_result_out() {
    assert_eq!(value_after(|subject| assert_eq!(subject.remove(1), None)), None);
    assert_eq!(value_after(Subject::clear), None);
    assert_eq!(value_after(|subject| subject.cache.supersede_all()), None);
    assert_eq!(value_after(|subject| subject.set(1, 9)), Some(9));
    assert_eq!(value_after(|subject| assert_eq!(subject.set_if_absent(1, 9), None)), Some(9));
    assert_eq!(value_after(|subject| (1..3).for_each(|word| subject.set(1, word))), Some(2));
    let set_and_pop = |subject: &Subject| {
        subject.clear();
        subject.set(1, 9);
        assert_eq!(subject.pop_any(), Some((1, 9)));
    };
    assert_eq!(value_after(set_and_pop), None);
}

#[test]
fn runs_of_one_key_proceed_concurrently() {
    let subject = Subject::lru(10);
    let (first, second, given_up) = (begin(&subject, 1), begin(&subject, 1), begin(&subject, 1));
    assert!(first != second && !subject.cache.is_superseded(first));
    subject.cache.end_run(given_up);
    subject.cache.end_run(given_up);
    assert!(store(&subject, 1, first, 10) && store(&subject, 1, second, 11));
    assert_eq!(subject.peek(1), Some(11));
    subject.validate();
}

#[test]
fn the_result_of_a_run_that_begins_after_the_write_is_stored() {
    let subject = Subject::lru(10);
    let early = begin(&subject, 1);
    subject.remove(1);
    let late = begin(&subject, 1);
    assert!(subject.cache.is_superseded(early) && !subject.cache.is_superseded(late));
    assert!(store(&subject, 1, late, 11) && !store(&subject, 1, early, 10));
    assert_eq!(subject.peek(1), Some(11));
}

#[cfg(not(moka_gil))]
#[test]
fn a_value_stored_before_the_run_is_returned() {
    let subject = Subject::lru(10);
    subject.set(1, 9);
    let begun =
        subject.call(|removed| subject.cache.begin_run(&subject.query(1), removed)).expect("no key fails");
    assert!(matches!(begun, RunStart::Present(value) if value.word() == 9));
}

/// Begins a run of a key that may have a value.
fn begin_beside_value(subject: &Subject, id: u64) -> Run {
    subject.cache.begin_run_beside_value(&subject.query(id)).expect("no key fails")
}

fn store_as_set(subject: &Subject, id: u64, run: Run, word: u64) -> bool {
    let stored = subject.stored(word);
    subject
        .call(|removed| subject.cache.complete_run_as_set(&subject.query(id), run, stored, removed))
        .expect("no key fails")
}

#[test]
fn a_run_beside_a_value_replaces_it() {
    let subject = Subject::lru(10);
    subject.set(1, 9);
    let run = begin_beside_value(&subject, 1);
    assert_eq!(subject.peek(1), Some(9));
    assert!(store_as_set(&subject, 1, run, 10));
    assert_eq!(subject.peek(1), Some(10));
    subject.validate();
}

#[test]
fn a_write_keeps_the_result_of_a_run_beside_a_value_out() {
    let subject = Subject::lru(10);
    subject.set(1, 9);
    let run = begin_beside_value(&subject, 1);
    subject.set(1, 11);
    assert!(!store_as_set(&subject, 1, run, 10));
    assert_eq!(subject.peek(1), Some(11));
    let run = begin_beside_value(&subject, 1);
    subject.remove(1);
    assert!(!store_as_set(&subject, 1, run, 10));
    assert_eq!(subject.peek(1), None);
}

#[test]
fn a_replacement_without_the_lock_keeps_the_result_of_a_run_out() {
    let mut subject = Subject::lru(10);
    // Without a listener a replacement needs no lock, if the one before was a replacement, too.
    subject.cache = Cache::new(Config::new(10, Kind::Lru), Clock::Manual(Arc::default()));
    subject.set(1, 8);
    subject.set(1, 9);
    let run = begin_beside_value(&subject, 1);
    subject.set(1, 11);
    assert!(!store_as_set(&subject, 1, run, 10));
    assert_eq!(subject.peek(1), Some(11));
}

#[test]
fn a_run_that_ends_as_a_set_supersedes_the_runs_that_began_before_it_alone() {
    let subject = Subject::lru(10);
    let earlier = begin(&subject, 1);
    let run = begin_beside_value(&subject, 1);
    let later = begin(&subject, 1);
    let other = begin(&subject, 2);
    assert!(store_as_set(&subject, 1, run, 10));
    assert!(!store(&subject, 1, earlier, 9));
    assert_eq!(subject.peek(1), Some(10));
    assert!(store(&subject, 1, later, 11) && store(&subject, 2, other, 20));
    assert_eq!((subject.peek(1), subject.peek(2)), (Some(11), Some(20)));
}

#[test]
fn a_run_that_was_superseded_supersedes_no_other_one() {
    let subject = Subject::lru(10);
    let run = begin_beside_value(&subject, 1);
    subject.remove(1);
    let fresh = begin(&subject, 1);
    assert!(!store_as_set(&subject, 1, run, 10));
    assert!(store(&subject, 1, fresh, 11));
}
