//! Changes of the capacity: exact, in bounded steps, in the order of the policy.

use moka_py::{Cause, Config, Kind, NewValue, Removals};

use crate::support::{Random, Subject, call, event, sized};

/// A capacity at which a cache of the free-threaded build has several shards.
const LARGE: u64 = sized(4_096, 128);
/// The most entries that a step removes.
const MAX_PER_STEP: usize = 256;

/// Both policies. A resize treats them alike, so one is enough under Miri.
fn kinds() -> impl Iterator<Item = Kind> {
    [Kind::TinyLfu, Kind::Lru].into_iter().take(sized(2, 1))
}

fn filled(config: Config, entries: u64) -> Subject {
    let subject = Subject::new(config);
    (0..entries).for_each(|id| subject.set(id, id));
    subject.events();
    subject
}

#[test]
fn a_cache_fits_its_new_capacity_when_the_call_returns() {
    for kind in kinds() {
        for &capacity in sized(&[1, 7, 100, LARGE / 2, LARGE - 1][..], &[100][..]) {
            let subject = filled(Config::new(LARGE, kind), LARGE);
            subject.resize(capacity);
            assert_eq!(subject.cache.capacity(), capacity);
            let removed = subject.removed_keys(Cause::Size);
            assert_eq!(removed.len() as u64, LARGE - capacity, "{kind:?}");
            assert_eq!((subject.count() as u64, subject.weight()), (capacity, capacity), "{kind:?}");
            subject.validate();
            subject.set(LARGE, LARGE);
            assert_eq!((subject.weight(), subject.peek(LARGE)), (capacity, Some(LARGE)), "{kind:?}");
            subject.validate();
        }
    }
}

#[test]
fn the_least_recently_used_entries_leave_first() {
    let subject = filled(Config::new(6, Kind::Lru), 6);
    subject.get(0);
    subject.get(2);
    subject.resize(3);
    assert_eq!(subject.events(), [1, 3, 4].map(|id| event(id, id, Cause::Size)));
    assert_eq!(subject.held_keys(), [0, 2, 5]);
}

#[test]
#[cfg_attr(miri, ignore = "slow, and about the policy alone")]
fn tiny_lfu_keeps_the_frequent_entries() {
    let subject = filled(Config::new(1_000, Kind::TinyLfu), 1_000);
    for _ in 0..6 {
        (400..500).for_each(|id| assert!(subject.get(id).is_some()));
    }
    subject.resize(200);
    let kept = (400..500).filter(|&id| subject.peek(id).is_some()).count();
    assert!(kept >= 95, "{kept}");
}

#[test]
fn each_step_is_bounded() {
    for kind in kinds() {
        let subject = filled(Config::new(LARGE, kind), LARGE);
        let mut resize = subject.cache.begin_resize(10);
        let mut steps = 0;
        while subject.call(|removed| resize.step(removed)) {
            assert!(subject.events().len() <= MAX_PER_STEP);
            steps += 1;
        }
        assert!(steps >= LARGE as usize / MAX_PER_STEP, "{steps}");
        assert_eq!(subject.count(), 10);
    }
}

#[test]
fn a_write_beside_a_resize_is_bounded_and_obeys_the_new_capacity() {
    const SMALLER: u64 = LARGE / 4;
    for kind in kinds() {
        let subject = filled(Config::new(LARGE, kind), LARGE);
        let mut resize = subject.cache.begin_resize(SMALLER);
        assert!(subject.call(|removed| resize.step(removed)));
        subject.events();
        let before = subject.weight();
        subject.set(LARGE, LARGE);
        let evicted = subject.removed_keys(Cause::Size).len();
        assert!((1..=64).contains(&evicted), "{kind:?}: {evicted}");
        assert!(subject.weight() <= before, "{kind:?}");
        assert_eq!(subject.peek(LARGE), Some(LARGE));
        while subject.call(|removed| resize.step(removed)) {}
        assert_eq!(subject.weight(), SMALLER);
        subject.validate();
        subject.set(LARGE + 1, 1);
        assert_eq!(subject.weight(), SMALLER);
    }
}

#[test]
fn a_heavy_write_beside_a_resize_evicts_what_it_adds() {
    let subject = filled(Config { weighted: true, ..Config::new(100, Kind::Lru) }, 100);
    let mut resize = subject.cache.begin_resize(80);
    // Beside a resize, a write that adds a weight of 1 evicts at most 64 entries.
    subject.set_with_weight(1_000, 1, 70);
    assert!(subject.weight() <= 100, "{}", subject.weight());
    while subject.call(|removed| resize.step(removed)) {}
    assert_eq!((subject.weight(), subject.peek(1_000)), (80, Some(1)));
    subject.validate();
}

#[test]
fn a_resize_that_is_given_up_leaves_its_excess_to_the_writes() {
    const ENTRIES: u64 = sized(1_000, 120);
    let subject = filled(Config::new(ENTRIES, Kind::Lru), ENTRIES);
    drop(subject.cache.begin_resize(100));
    assert_eq!(subject.count() as u64, ENTRIES);
    subject.set(1_000, 1);
    assert_eq!(subject.count(), 100);
    subject.validate();
}

#[test]
fn all_shards_give_up_the_same_part() {
    let subject = filled(Config::new(2 * LARGE, Kind::Lru), 2 * LARGE);
    subject.resize(LARGE);
    // The oldest entry of each shard is about as old as that of the others.
    let late = (LARGE + LARGE / 2..2 * LARGE).filter(|&id| subject.peek(id).is_some()).count();
    assert_eq!(late as u64, LARGE / 2, "no shard has evicted an entry of the newest quarter");
}

#[test]
fn a_larger_capacity_makes_room() {
    const FEW: u64 = sized(100, 20);
    const MANY: u64 = sized(5_000, 60);
    for kind in kinds() {
        let subject = filled(Config::new(FEW, kind), FEW);
        subject.resize(MANY);
        assert_eq!(subject.events(), []);
        (FEW..MANY).for_each(|id| subject.set(id, id));
        assert_eq!((subject.count() as u64, subject.events()), (MANY, vec![]), "{kind:?}");
        subject.set(MANY, 1);
        assert_eq!((subject.count() as u64, subject.removed_keys(Cause::Size).len()), (MANY, 1), "{kind:?}");
        subject.validate();
    }
}

#[test]
fn a_resize_to_zero_keeps_nothing_also_no_entry_of_weight_zero() {
    const ENTRIES: u64 = sized(2_000, 40);
    for kind in kinds() {
        let subject = Subject::new(Config { weighted: true, ..Config::new(LARGE, kind) });
        (0..ENTRIES).for_each(|id| subject.set_with_weight(id, id, (id % 2) as u32));
        subject.resize(0);
        let mut removed = subject.removed_keys(Cause::Size);
        removed.sort_unstable();
        assert_eq!(removed, (0..ENTRIES).collect::<Vec<_>>(), "{kind:?}");
        assert_eq!((subject.count(), subject.entries()), (0, vec![]));
        for weight in [0, 1] {
            subject.set_with_weight(1, 7, weight);
            assert_eq!(subject.events(), [event(1, 7, Cause::Size)], "{kind:?}");
        }
        assert_eq!(subject.set_if_absent(2, 2), None);
        assert_eq!(subject.count(), 0);
        subject.validate();
        subject.resize(10);
        subject.set_with_weight(1, 8, 0);
        assert_eq!(subject.peek(1), Some(8));
    }
}

#[test]
fn a_resize_does_not_supersede_a_computation() {
    let subject = Subject::lru(10);
    let mut pause = |_: &(dyn Fn() + Sync)| unreachable!("no other thread computes");
    let compute = || {
        subject.resize(0);
        subject.resize(5);
        Ok(subject.stored(7))
    };
    let query = subject.query(1);
    let got = call(&subject.cache, |removed| subject.cache.get_with(&query, compute, &mut pause, removed));
    assert_eq!(got.0.ok().map(|value| value.word()), Some(7));
    assert_eq!(subject.peek(1), Some(7));
}

#[test]
fn due_entries_leave_as_expired() {
    const DUE: u64 = sized(100, 15);
    for kind in kinds() {
        let subject = Subject::new(Config::new(1_000, kind));
        (0..DUE).for_each(|id| subject.set_with_lifetime(id, id, 10, 0));
        (DUE..2 * DUE).for_each(|id| subject.set(id, id));
        subject.advance(10);
        subject.resize(DUE + DUE / 2);
        let events = subject.events();
        assert!(events.iter().all(|one| (one.key < Some(DUE)) == (one.cause == Cause::Expired)), "{kind:?}");
        assert!(subject.weight() <= DUE + DUE / 2);
        subject.validate();
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow, and about the policy alone")]
fn a_resize_before_the_first_write_chooses_the_policy() {
    let subject = Subject::tiny_lfu(0);
    subject.resize(100);
    (0..100).for_each(|id| subject.set(id, id));
    for _ in 0..3 {
        (0..50).for_each(|id| assert!(subject.get(id).is_some()));
    }
    (100..1_000).for_each(|id| subject.set(id, id));
    let kept = (0..50).filter(|&id| subject.peek(id).is_some()).count();
    assert!(kept >= 45, "{kept} of 50 frequent entries survived a scan");
}

#[test]
fn a_resize_inside_a_resize_wins() {
    const ENTRIES: u64 = sized(1_000, 120);
    let subject = filled(Config::new(ENTRIES, Kind::Lru), ENTRIES);
    for (outer, inner) in [(100, 300), (100, 50), (40, 2_000)] {
        let mut outer = subject.cache.begin_resize(outer);
        subject.call(|removed| outer.step(removed));
        subject.resize(inner);
        while subject.call(|removed| outer.step(removed)) {}
        assert_eq!(subject.cache.capacity(), inner);
        assert!(subject.weight() <= inner);
        subject.validate();
    }
}

#[test]
fn random_resizes_and_weights_never_exceed_the_capacity() {
    for kind in kinds() {
        for first in [20, LARGE] {
            let subject = Subject::new(Config { weighted: true, ..Config::new(first, kind) });
            let mut random = Random::new(first);
            let mut capacity = first;
            for word in 0..sized(5_000, 20) {
                if random.one_in(50) {
                    capacity = random.below(2 * first);
                    subject.resize(capacity);
                }
                let weight = if random.one_in(10) { random.below(first) } else { random.below(5) };
                let new = NewValue { weight: weight as u32, ..subject.stored(word) };
                subject.store(random.below(first), new);
                assert!(subject.weight() <= capacity);
            }
            subject.validate();
        }
    }
}

#[test]
fn a_resize_without_anything_to_evict_removes_nothing() {
    let subject = Subject::lru(10);
    let mut resize = subject.cache.begin_resize(3);
    let mut removed = Removals::new();
    while resize.step(&mut removed) {}
    assert!(removed.is_untouched());
    drop(removed);
    (0..5).for_each(|id| subject.set(id, id));
    assert_eq!(subject.held_keys(), [2, 3, 4]);
}
