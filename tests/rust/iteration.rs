//! Iteration and `clear`: weakly consistent walks over all shards.

use moka_py::{Cause, Config, Cursor, Kind};

use crate::support::Subject;

#[test]
fn iteration_yields_each_entry_once() {
    for capacity in [100, 5_000] {
        let subject = Subject::tiny_lfu(capacity);
        (0..capacity).for_each(|id| subject.set(id, id * 2));
        let expected: Vec<_> = (0..capacity).map(|id| (id, id * 2)).collect();
        assert_eq!(subject.entries(), expected);
    }
}

#[test]
fn an_entry_that_stays_is_yielded_once_whatever_else_happens() {
    let subject = Subject::lru(100_000);
    (0..1_000).for_each(|id| subject.set(id, id));
    let mut cursor = Cursor::default();
    let mut seen = Vec::new();
    let mut fresh = 10_000;
    while let Some((key, value)) = subject.cache.next_entry(&mut cursor) {
        seen.push(key.id());
        drop((key, value));
        // Odd keys go, others come, even ones get other values; the table grows and shrinks.
        subject.remove(((seen.len() as u64 * 7) % 1_000) | 1);
        (fresh..fresh + 5).for_each(|id| subject.set(id, id));
        fresh += 5;
        subject.set(seen.len() as u64 % 500 * 2, 5);
        if seen.len().is_multiple_of(100) {
            subject.cache.flush();
        }
        if seen.len() > 3_000 {
            (10_000..fresh).for_each(|id| assert!(subject.remove(id).is_none_or(|word| word == id)));
        }
    }
    let mut even: Vec<_> = seen.into_iter().filter(|id| *id < 1_000 && id.is_multiple_of(2)).collect();
    even.sort_unstable();
    assert_eq!(even, (0..1_000).step_by(2).collect::<Vec<_>>());
    subject.validate();
}

#[test]
fn clear_tells_each_entry_once() {
    let subject = Subject::new(Config::new(10_000, Kind::TinyLfu));
    (0..5_000).for_each(|id| subject.set(id, id));
    subject.clear();
    let mut told = subject.told_keys(Cause::Explicit);
    told.sort_unstable();
    assert_eq!(told, (0..5_000).collect::<Vec<_>>());
    assert_eq!((subject.count(), subject.weight(), subject.entries().len()), (0, 0, 0));
    subject.clear();
    assert_eq!(subject.told(), []);
    (0..5_000).for_each(|id| subject.set(id, id));
    assert_eq!(subject.count(), 5_000);
    subject.validate();
}

#[test]
fn a_walk_over_an_empty_cache_ends() {
    let subject = Subject::lru(1 << 40);
    assert_eq!(subject.entries(), []);
    subject.clear();
    assert_eq!(subject.pop_any(), None);
    subject.cache.flush();
    subject.validate();
}
