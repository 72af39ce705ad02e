//! Iteration and `clear`, which scan all shards and are weakly consistent.

use moka_py::{Cause, Config, Cursor, Kind};

use crate::support::{BuiltinEqQuery, Key, SECOND, Subject, Value, event, sized};

/// Removes the entry that the iteration yielded last, if it is unchanged.
fn remove_last_yielded(subject: &Subject, cursor: &Cursor, key: &Key, value: &Value) -> bool {
    let is_seen = |held_key: &Key, held: &Value| held_key.is(key) && held.is(value);
    subject.call(|removed| subject.cache.remove_last_yielded(cursor, is_seen, removed))
}

/// Begins an iteration, and returns its cursor and its first entry.
fn first(subject: &Subject) -> (Cursor, Key, Value) {
    let mut cursor = Cursor::default();
    let (key, value) = subject.cache.next_entry(&mut cursor).expect("there is an entry");
    (cursor, key, value)
}

#[test]
fn iteration_yields_each_entry_once() {
    for capacity in [sized(100, 20), sized(5_000, 128)] {
        let subject = Subject::tiny_lfu(capacity);
        (0..capacity).for_each(|id| subject.set(id, id * 2));
        let expected: Vec<_> = (0..capacity).map(|id| (id, id * 2)).collect();
        assert_eq!(subject.entries(), expected);
    }
}

#[test]
fn iteration_yields_a_lasting_entry_once_whatever_else_happens() {
    const ENTRIES: u64 = sized(1_000, 8);
    let subject = Subject::lru(100_000);
    (0..ENTRIES).for_each(|id| subject.set(id, id));
    let mut cursor = Cursor::default();
    let mut seen = Vec::new();
    let mut fresh = 10_000;
    while let Some((key, value)) = subject.cache.next_entry(&mut cursor) {
        seen.push(key.id());
        drop((key, value));
        // Odd keys are removed, new keys are added, even keys get other values, and the table grows and shrinks.
        subject.remove(((seen.len() as u64 * 7) % ENTRIES) | 1);
        (fresh..fresh + 5).for_each(|id| subject.set(id, id));
        fresh += 5;
        subject.set(seen.len() as u64 % (ENTRIES / 2) * 2, 5);
        if seen.len().is_multiple_of(100) {
            subject.cache.flush();
        }
        if seen.len() as u64 > 3 * ENTRIES {
            (10_000..fresh).for_each(|id| assert!(subject.remove(id).is_none_or(|word| word == id)));
        }
    }
    let mut even: Vec<_> = seen.into_iter().filter(|id| *id < ENTRIES && id.is_multiple_of(2)).collect();
    even.sort_unstable();
    assert_eq!(even, (0..ENTRIES).step_by(2).collect::<Vec<_>>());
    subject.validate();
}

#[test]
fn the_entry_yielded_last_can_be_removed() {
    for &capacity in sized(&[100, 5_000][..], &[20][..]) {
        let subject = Subject::tiny_lfu(capacity);
        (0..capacity).for_each(|id| subject.set(id, id * 2));
        let mut cursor = Cursor::default();
        while let Some((key, value)) = subject.cache.next_entry(&mut cursor) {
            assert!(key.id() % 3 != 0 || remove_last_yielded(&subject, &cursor, &key, &value));
        }
        let kept: Vec<_> = (0..capacity).filter(|id| id % 3 != 0).collect();
        assert_eq!(subject.held_keys(), kept);
        let mut events = subject.events();
        events.sort_unstable_by_key(|event| event.value);
        let removed = (0..capacity).step_by(3);
        assert_eq!(events, removed.map(|id| event(id, id * 2, Cause::Explicit)).collect::<Vec<_>>());
        subject.validate();
    }
}

#[test]
fn a_yielded_entry_that_changed_is_not_removed() {
    type WriteTxn = fn(&Subject);
    let changes: [(&str, WriteTxn); 5] = [
        ("replaced", |subject| subject.set(1, 11)),
        ("removed", |subject| {
            subject.remove(1);
        }),
        ("set anew", |subject| {
            subject.remove(1);
            subject.set(1, 10);
        }),
        ("its number is another's", |subject| {
            subject.remove(1);
            subject.set(2, 20);
        }),
        ("its memory is given back", |subject| {
            subject.clear();
            (0..4).for_each(|_| subject.cache.flush());
        }),
    ];
    for (what, change) in changes {
        let subject = Subject::lru(10);
        subject.set(1, 10);
        let (cursor, key, value) = first(&subject);
        change(&subject);
        let (before, _) = (subject.entries(), subject.events());
        assert!(!remove_last_yielded(&subject, &cursor, &key, &value), "{what}");
        assert_eq!((subject.entries(), subject.events()), (before, vec![]), "{what}");
        subject.validate();
    }
}

#[test]
fn an_iteration_that_yielded_nothing_removes_nothing() {
    let subject = Subject::lru(10);
    subject.set(1, 10);
    let (_, key, value) = first(&subject);
    assert!(!remove_last_yielded(&subject, &Cursor::default(), &key, &value));
    assert_eq!(subject.held_keys(), [1]);
}

#[test]
fn a_yielded_entry_that_expired_is_removed_with_the_cause_expired() {
    let subject = Subject::lru(10);
    subject.set_with_lifetime(1, 10, SECOND, 0);
    let (cursor, key, value) = first(&subject);
    subject.advance(2 * SECOND);
    assert!(!remove_last_yielded(&subject, &cursor, &key, &value));
    assert_eq!(subject.events(), [event(1, 10, Cause::Expired)]);
    assert_eq!(subject.count(), 0);
    subject.validate();
}

#[test]
fn removing_a_yielded_entry_frees_its_weight() {
    let subject = Subject::new(Config { weighted: true, ..Config::new(100, Kind::Lru) });
    subject.set_with_weight(1, 10, 30);
    subject.set_with_weight(2, 20, 40);
    let (cursor, key, value) = first(&subject);
    assert!(remove_last_yielded(&subject, &cursor, &key, &value));
    assert_eq!(subject.weight(), if key.id() == 1 { 40 } else { 30 });
    subject.validate();
}

/// The removal cannot select the loads of its own key, because a user-defined comparison would have to run.
#[test]
fn removing_a_yielded_entry_supersedes_the_loads_of_its_hash() {
    let subject = Subject::lru(10);
    let of_one_hash = |id| BuiltinEqQuery { hash: 7, ..subject.query(id) };
    let set = subject.call(|removed| subject.cache.set(&of_one_hash(1), subject.stored(10), removed));
    set.expect("plain keys do not fail");
    let (cursor, key, value) = first(&subject);
    for (is_removed, kept) in [(false, Some(20)), (true, None)] {
        let compute = || {
            assert!(!is_removed || remove_last_yielded(&subject, &cursor, &key, &value));
            Ok(subject.stored(20))
        };
        let mut pause = |_: &(dyn Fn() + Sync)| unreachable!("no other thread computes");
        let query = of_one_hash(2);
        let load = |removed: &mut _| subject.cache.get_with(&query, compute, &mut pause, removed);
        assert_eq!(subject.call(load).map(|value| value.word()).ok(), Some(20));
        let held =
            subject.call(|removed| subject.cache.remove(&query, removed)).expect("plain keys do not fail");
        assert_eq!(held.map(|value| value.word()), kept);
    }
}

#[test]
fn clear_reports_each_entry_once() {
    const ENTRIES: u64 = sized(5_000, 20);
    let subject = Subject::new(Config::new(10_000, Kind::TinyLfu));
    (0..ENTRIES).for_each(|id| subject.set(id, id));
    subject.clear();
    let mut events = subject.removed_keys(Cause::Explicit);
    events.sort_unstable();
    assert_eq!(events, (0..ENTRIES).collect::<Vec<_>>());
    assert_eq!((subject.count(), subject.weight(), subject.entries().len()), (0, 0, 0));
    subject.clear();
    assert_eq!(subject.events(), []);
    (0..ENTRIES).for_each(|id| subject.set(id, id));
    assert_eq!(subject.count() as u64, ENTRIES);
    subject.validate();
}

#[test]
fn iteration_over_an_empty_cache_terminates() {
    let subject = Subject::lru(1 << 40);
    assert_eq!(subject.entries(), []);
    subject.clear();
    assert_eq!(subject.pop_any(), None);
    subject.cache.flush();
    subject.validate();
}
