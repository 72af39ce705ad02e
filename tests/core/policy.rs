//! Which entries the policies evict.

use moka_py::{Cause, Config, Kind};

use crate::support::{Random, Subject, event, sized};

const BOTH: [Kind; 2] = [Kind::Lru, Kind::TinyLfu];

#[test]
fn lru_evicts_in_order_of_access() {
    let subject = Subject::lru(4);
    for id in 0..4 {
        subject.set(id, id);
    }
    // A hit, a replacement, and a `set_if_absent` of a present key count as accesses.
    assert_eq!(subject.get(1), Some(1));
    subject.set(0, 10);
    assert_eq!(subject.set_if_absent(2, 20), Some(2));
    subject.events();
    for id in 10..14 {
        subject.set(id, id);
    }
    assert_eq!(subject.removed_keys(Cause::Size), [3, 1, 0, 2]);
    subject.validate();
}

#[test]
fn a_peek_does_not_count_as_an_access() {
    let subject = Subject::lru(2);
    subject.set(1, 1);
    subject.set(2, 2);
    assert_eq!(subject.peek(1), Some(1));
    assert_eq!(subject.held_keys(), [1, 2]);
    assert_eq!(subject.expires_in(1), None);
    subject.set(3, 3);
    assert_eq!(subject.removed_keys(Cause::Size), [1]);
}

#[test]
fn accessing_the_newest_entry_keeps_it_newest() {
    let subject = Subject::lru(2);
    subject.set(1, 1);
    subject.set(2, 2);
    for _ in 0..3 {
        assert_eq!(subject.get(2), Some(2));
    }
    subject.get(1);
    subject.set(3, 3);
    assert_eq!(subject.removed_keys(Cause::Size), [2]);
}

#[test]
fn a_cache_of_two_evicts_by_recency() {
    const HELLO: u64 = 1;
    const FOO: u64 = 2;
    const BAZ: u64 = 3;
    for kind in BOTH {
        let subject = Subject::new(Config::new(2, kind));
        subject.set(HELLO, 10);
        subject.set(HELLO, 11);
        subject.set(FOO, 20);
        subject.set(BAZ, 30);
        let expected = [event(HELLO, 10, Cause::Replaced), event(HELLO, 11, Cause::Size)];
        assert_eq!(subject.events(), expected, "{kind:?}");
        assert_eq!(subject.held_keys(), [FOO, BAZ], "{kind:?}");
        subject.validate();
    }
}

#[test]
fn a_cache_of_one_holds_the_last_entry() {
    for kind in BOTH {
        let subject = Subject::new(Config::new(1, kind));
        for id in 0..10 {
            subject.set(id, id);
            assert_eq!(subject.entries(), [(id, id)], "{kind:?}");
        }
        assert_eq!(subject.removed_keys(Cause::Size), (0..9).collect::<Vec<_>>(), "{kind:?}");
        subject.validate();
    }
}

#[test]
fn a_cache_of_capacity_zero_keeps_nothing() {
    for kind in BOTH {
        let subject = Subject::new(Config::new(0, kind));
        subject.set(1, 10);
        assert_eq!(subject.get(1), None, "{kind:?}");
        assert_eq!(subject.events(), [event(1, 10, Cause::Size)], "{kind:?}");
        assert_eq!((subject.count(), subject.weight()), (0, 0), "{kind:?}");
        subject.validate();
    }
}

#[test]
fn an_entry_that_was_just_set_is_found() {
    for kind in BOTH {
        for &capacity in sized(&[1, 2, 3, 15, 16, 17, 100, 1000][..], &[1, 9][..]) {
            let subject = Subject::new(Config::new(capacity, kind));
            let mut random = Random::new(capacity);
            for word in 0..3 * capacity + 10 {
                let id = random.below(2 * capacity + 2);
                subject.set(id, word);
                assert_eq!(subject.peek(id), Some(word), "{kind:?}, capacity {capacity}");
            }
            subject.validate();
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow, and about the policy alone")]
fn tiny_lfu_keeps_frequent_keys_through_a_scan() {
    let subject = Subject::tiny_lfu(100);
    for id in 0..80 {
        subject.set(id, id);
    }
    for _ in 0..5 {
        (0..80).for_each(|id| assert_eq!(subject.get(id), Some(id)));
    }
    for id in 1000..3000 {
        subject.set(id, id);
    }
    let kept = (0..80).filter(|&id| subject.peek(id).is_some()).count();
    assert!(kept >= 76, "{kept} of 80 are kept");
    assert_eq!(subject.count(), 100);
    subject.validate();
}

#[test]
#[cfg_attr(miri, ignore = "slow, and about the policy alone")]
fn tiny_lfu_forgets_keys_that_are_no_longer_accessed() {
    let subject = Subject::tiny_lfu(100);
    let use_all = |ids: std::ops::Range<u64>| {
        for id in ids {
            if subject.get(id).is_none() {
                subject.set(id, id);
            }
        }
    };
    (0..20).for_each(|_| use_all(0..90));
    (0..60).for_each(|_| use_all(1000..1090));
    let kept = (1000..1090).filter(|&id| subject.peek(id).is_some()).count();
    assert!(kept >= 80, "{kept} of 90 of today are kept");
    subject.validate();
}

#[test]
fn lru_keeps_only_the_last_entries() {
    const CAPACITY: u64 = sized(100, 30);
    let subject = Subject::lru(CAPACITY);
    for id in 0..3 * CAPACITY {
        subject.set(id, id);
    }
    assert_eq!(subject.held_keys(), (2 * CAPACITY..3 * CAPACITY).collect::<Vec<_>>());
}

#[test]
fn pop_any_returns_each_entry_once() {
    for kind in BOTH {
        let subject = Subject::new(Config::new(50, kind));
        (0..50).for_each(|id| subject.set(id, id + 100));
        let mut popped: Vec<u64> = std::iter::from_fn(|| subject.pop_any())
            .map(|(key, value)| {
                assert_eq!(value, key + 100);
                key
            })
            .collect();
        assert_eq!(subject.removed_keys(Cause::Explicit), popped, "{kind:?}");
        popped.sort_unstable();
        assert_eq!(popped, (0..50).collect::<Vec<_>>(), "{kind:?}");
        assert_eq!(subject.count(), 0);
        subject.validate();
    }
}
