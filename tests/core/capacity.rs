//! The weight bound holds for the whole cache, and is exact.

use moka_py::{Cause, Config, Kind, NewValue, SHARD_SHIFT};

use crate::support::{BuiltinEqQuery, Random, Subject, event, mix_hash, sized};

/// A capacity at which a cache of the free-threaded build has several shards.
const LARGE: u64 = sized(4096, 128);
const BOTH: [Kind; 2] = [Kind::Lru, Kind::TinyLfu];

fn weighted(capacity: u64) -> Subject {
    Subject::new(Config { weighted: true, ..Config::new(capacity, Kind::Lru) })
}

fn set_with_hash(subject: &Subject, id: u64, hash: u64) {
    let query = BuiltinEqQuery { hash, ..subject.query(id) };
    subject
        .call(|removed| subject.cache.set(&query, subject.stored(id), removed))
        .expect("plain keys do not fail");
}

#[test]
fn a_cache_holds_as_many_entries_as_its_capacity_whatever_their_hashes() {
    for &kind in sized(&BOTH[..], &[Kind::TinyLfu]) {
        for &shift in sized(&[0, SHARD_SHIFT + 1, SHARD_SHIFT + 2, SHARD_SHIFT + 6, 40][..], &[40][..]) {
            let subject = Subject::new(Config::new(LARGE, kind));
            for id in 0..LARGE {
                // Hashes that are shifted far enough share the bits that choose the shard.
                set_with_hash(&subject, id, mix_hash(id) << shift);
            }
            assert_eq!(subject.events(), [], "{kind:?}, shift {shift}");
            assert_eq!(subject.count(), LARGE as usize, "{kind:?}, shift {shift}");
            subject.validate();
            set_with_hash(&subject, LARGE, mix_hash(LARGE) << shift);
            assert_eq!(subject.removed_keys(Cause::Size).len(), 1, "{kind:?}, shift {shift}");
            assert_eq!(subject.count(), LARGE as usize);
            subject.validate();
        }
    }
}

#[test]
fn other_shards_evict_for_a_shard_without_victims() {
    const MORE: u64 = sized(LARGE, 30);
    for &kind in sized(&BOTH[..], &[Kind::TinyLfu]) {
        let subject = Subject::new(Config::new(LARGE, kind));
        for id in 0..LARGE {
            set_with_hash(&subject, id, mix_hash(id) << (SHARD_SHIFT + 6));
        }
        // The shards of the new keys are empty at first.
        for id in LARGE..LARGE + MORE {
            set_with_hash(&subject, id, mix_hash(id));
            assert_eq!(subject.weight(), LARGE);
            let query = BuiltinEqQuery { hash: mix_hash(id), ..subject.query(id) };
            let found =
                subject.call(|removed| subject.cache.peek(&query, removed)).expect("plain keys do not fail");
            assert_eq!(found.map(|value| value.word()), Some(id), "{kind:?}: the new entry must be found");
        }
        assert_eq!(subject.removed_keys(Cause::Size).len(), MORE as usize);
        subject.validate();
    }
}

#[test]
fn one_heavy_entry_can_evict_the_entries_of_all_shards() {
    let subject = weighted(LARGE);
    for id in 0..LARGE {
        subject.set(id, id);
    }
    subject.set_with_weight(LARGE, 1, LARGE as u32);
    assert_eq!(subject.removed_keys(Cause::Size).len(), LARGE as usize);
    assert_eq!(subject.entries(), [(LARGE, 1)]);
    assert_eq!((subject.count(), subject.weight()), (1, LARGE));
    subject.validate();
}

#[test]
fn an_entry_as_heavy_as_the_capacity_evicts_all_others() {
    let subject = weighted(10);
    subject.set_with_weight(1, 1, 4);
    subject.set_with_weight(2, 2, 6);
    assert_eq!((subject.count(), subject.weight()), (2, 10));
    subject.set_with_weight(3, 3, 10);
    assert_eq!(subject.events(), [event(1, 1, Cause::Size), event(2, 2, Cause::Size)]);
    assert_eq!((subject.entries(), subject.weight()), (vec![(3, 3)], 10));
    subject.validate();
}

#[test]
fn an_entry_heavier_than_the_capacity_is_rejected_and_its_old_value_removed() {
    let subject = weighted(10);
    subject.set_with_weight(1, 1, 4);
    subject.set_with_weight(2, 2, 4);
    subject.set_with_weight(1, 3, 11);
    assert_eq!(subject.events(), [event(1, 1, Cause::Replaced), event(1, 3, Cause::Size)]);
    assert_eq!((subject.entries(), subject.weight()), (vec![(2, 2)], 4));
    subject.set_with_weight(9, 9, u32::MAX);
    assert_eq!(subject.events(), [event(9, 9, Cause::Size)]);
    subject.validate();
}

#[test]
fn a_replacement_by_a_heavier_value_evicts_others() {
    let subject = weighted(10);
    subject.set_with_weight(1, 1, 3);
    subject.set_with_weight(2, 2, 3);
    subject.set_with_weight(3, 3, 3);
    subject.set_with_weight(1, 4, 7);
    assert_eq!(subject.events(), [event(1, 1, Cause::Replaced), event(2, 2, Cause::Size)]);
    assert_eq!(subject.weight(), 10);
    subject.set_with_weight(1, 5, 1);
    assert_eq!(subject.weight(), 4);
    subject.validate();
}

#[test]
fn an_entry_of_weight_zero_uses_no_capacity() {
    let subject = weighted(3);
    for id in 0..100 {
        subject.set_with_weight(id, id, 0);
    }
    assert_eq!((subject.count(), subject.weight()), (100, 0));
    subject.set_with_weight(100, 100, 3);
    assert_eq!((subject.count(), subject.weight()), (101, 3));
    assert_eq!(subject.events(), []);
    let empty = weighted(0);
    empty.set_with_weight(1, 1, 0);
    assert_eq!(empty.get(1), Some(1));
    empty.validate();
}

#[test]
fn every_kind_of_removal_frees_the_weight() {
    let subject = weighted(100);
    subject.set_with_weight(1, 1, 10);
    subject.set_with_weight(2, 2, 20);
    subject.store(
        3,
        NewValue { weight: 30, lifetime: moka_py::Lifetime { ttl: 5, tti: 0 }, ..subject.stored(3) },
    );
    subject.set_with_weight(4, 4, 40);
    assert_eq!(subject.weight(), 100);
    subject.remove(1);
    assert_eq!(subject.weight(), 90);
    subject.advance(5);
    assert_eq!(subject.weight(), 60);
    subject.pop_any().expect("two are left");
    subject.clear();
    assert_eq!((subject.count(), subject.weight()), (0, 0));
    subject.validate();
}

#[test]
fn random_weights_never_exceed_the_capacity() {
    for kind in BOTH {
        for capacity in [20, LARGE] {
            let subject = Subject::new(Config { weighted: true, ..Config::new(capacity, kind) });
            let mut random = Random::new(capacity);
            for word in 0..sized(5_000, 20) {
                let weight = if random.one_in(10) { random.below(capacity) } else { random.below(5) };
                subject.set_with_weight(random.below(capacity), word, weight as u32);
                assert!(subject.weight() <= capacity);
            }
            subject.validate();
        }
    }
}
