//! The map: many keys, equal hashes, growth and shrinking.

use moka_py::{Config, Kind};

use crate::support::{BuiltinEqQuery, Random, Subject, mix_hash, sized};

fn unbounded() -> Subject {
    Subject::new(Config::new(u64::MAX, Kind::TinyLfu))
}

#[test]
fn entries_survive_growth_and_shrinking() {
    const KEYS: u64 = sized(20_000, 100);
    let subject = unbounded();
    for round in 0..sized(3, 1) {
        for id in 0..KEYS {
            subject.set(id, id ^ round);
        }
        assert_eq!(subject.count() as u64, KEYS);
        for id in (0..KEYS).filter(|id| id % 100 != 0) {
            assert_eq!(subject.remove(id), Some(id ^ round));
        }
        subject.cache.flush();
        subject.validate();
        for id in 0..KEYS {
            assert_eq!(subject.get(id), (id % 100 == 0).then_some(id ^ round));
        }
        assert_eq!(subject.count() as u64, KEYS / 100);
    }
}

#[test]
fn keys_of_equal_hash_are_distinguished() {
    const KEYS: u64 = sized(200, 24);
    let subject = unbounded();
    let query = |id: u64| BuiltinEqQuery { hash: 0x1234_5678_9abc_def0, ..subject.query(id) };
    for id in 0..KEYS {
        subject
            .call(|removed| subject.cache.set(&query(id), subject.stored(id), removed))
            .expect("no failure");
    }
    assert_eq!(subject.count() as u64, KEYS);
    for id in (0..KEYS).step_by(2) {
        let removed = subject.call(|removed| subject.cache.remove(&query(id), removed)).expect("no failure");
        assert_eq!(removed.map(|value| value.word()), Some(id));
    }
    for id in 0..KEYS {
        let found = subject.call(|removed| subject.cache.get(&query(id), removed)).expect("no failure");
        assert_eq!(found.map(|value| value.word()), (id % 2 == 1).then_some(id));
    }
    assert_eq!(subject.count() as u64, KEYS / 2);
    subject.validate();
}

#[test]
fn entries_of_every_special_hash_are_found() {
    // Zero, all ones, and tags that look like an empty slot are ordinary hashes.
    let subject = unbounded();
    let mut hashes = vec![0, 1, 2, 3, u64::MAX, u64::MAX - 1, 1 << 63, 1 << 32, (1 << 32) - 1];
    hashes.extend((0..64).map(|bit| (1u64 << bit) | 5));
    hashes.sort_unstable();
    hashes.dedup();
    let query = |id: usize| BuiltinEqQuery { hash: hashes[id], ..subject.query(id as u64) };
    for id in 0..hashes.len() {
        let stored = subject.stored(id as u64);
        subject.call(|removed| subject.cache.set(&query(id), stored, removed)).expect("no failure");
        if id % sized(1, 24) == 0 {
            subject.validate();
        }
    }
    for id in 0..hashes.len() {
        let found = subject.call(|removed| subject.cache.get(&query(id), removed)).expect("no failure");
        assert_eq!(found.map(|value| value.word()), Some(id as u64));
    }
    assert_eq!(subject.count(), hashes.len());
}

#[test]
fn churn_at_a_constant_size_keeps_probes_short() {
    // Hashes with the same home slot collect tombstones in one place of the table.
    let subject = Subject::lru(40);
    let mut random = Random::new(1);
    for word in 0..sized(20_000, 100) {
        let id = random.below(1_000);
        let hash = mix_hash(id) >> 8;
        let query = BuiltinEqQuery { hash, ..subject.query(id) };
        subject.call(|removed| subject.cache.set(&query, subject.stored(word), removed)).expect("no failure");
        if word % 97 == 0 {
            subject.validate();
        }
    }
    assert_eq!(subject.count(), 40);
    subject.validate();
}

#[test]
fn a_replaced_key_keeps_the_first_key_object() {
    let subject = Subject::lru(10);
    let first = subject.query(1);
    subject.call(|removed| subject.cache.set(&first, subject.stored(1), removed)).expect("no failure");
    subject.set(1, 2);
    assert_eq!(subject.keys.alive(), 1, "the second key object is gone");
    drop(first);
    assert_eq!(subject.keys.alive(), 1);
    assert_eq!(subject.get(1), Some(2));
    let Subject { cache, keys, .. } = subject;
    drop(cache);
    assert_eq!(keys.alive(), 0);
}

#[test]
fn an_empty_cache_of_a_huge_capacity_is_small() {
    // Thousands of caches would not fit into memory if each allocated its whole capacity.
    let many: Vec<Subject> =
        (0..sized(2_000, 5)).map(|_| Subject::new(Config::new(1_000_000_000, Kind::Lru))).collect();
    many.iter().for_each(|subject| subject.set(1, 1));
    many.iter().for_each(|subject| assert_eq!(subject.get(1), Some(1)));
}
