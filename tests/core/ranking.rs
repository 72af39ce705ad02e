//! The hottest and the coldest entries, in the order of the policy.

use moka_py::{Cause, Config, Kind, Ranking};

use crate::support::{Key, SECOND, Subject, Value, assert_alive_after_flushes, sized};

const MAX_RANKED_PER_LOCK: usize = 256;

fn ids(subject: &Subject, mut ranking: Ranking<Key, Value>) -> Vec<u64> {
    while subject.cache.rank_batch(&mut ranking).expect("there is memory") {}
    ranking.into_pairs().map(|(key, _)| key.id()).collect()
}

fn hottest(subject: &Subject, limit: usize) -> Vec<u64> {
    ids(subject, Ranking::hottest(limit))
}

fn coldest(subject: &Subject, limit: usize) -> Vec<u64> {
    ids(subject, Ranking::coldest(limit))
}

/// Uses some entries of ids below `ids`, several of them more than once.
fn use_some(subject: &Subject, ids: u64) {
    for step in 0..3 * ids {
        subject.get(step * step % ids);
    }
}

#[test]
fn lru_evicts_the_coldest_first() {
    const ENTRIES: u64 = sized(1_000, 50);
    let subject = Subject::lru(ENTRIES);
    (0..ENTRIES).for_each(|id| subject.set(id, id));
    use_some(&subject, ENTRIES);
    let order = coldest(&subject, usize::MAX);
    subject.events();
    (ENTRIES..2 * ENTRIES).for_each(|id| subject.set(id, id));
    assert_eq!(subject.removed_keys(Cause::Size), order);
}

#[test]
fn the_coldest_are_the_hottest_in_reverse() {
    const SMALL: u64 = sized(500, 20);
    const LARGE: u64 = sized(10_000, 128);
    const CASES: [(Kind, u64); 4] =
        [(Kind::TinyLfu, LARGE), (Kind::Lru, SMALL), (Kind::TinyLfu, SMALL), (Kind::Lru, LARGE)];
    for (kind, capacity) in CASES.into_iter().take(sized(4, 2)) {
        let subject = Subject::new(Config::new(capacity, kind));
        (0..capacity + sized(capacity, 10)).for_each(|id| subject.set(id, id));
        use_some(&subject, sized(capacity, 10));
        let mut order = coldest(&subject, usize::MAX);
        assert_eq!(order.len(), subject.count());
        order.reverse();
        assert_eq!(hottest(&subject, usize::MAX), order);
        for &limit in sized(&[0, 1, 2, 255, 256, 257, 400, 100_000][..], &[1, 100][..]) {
            assert_eq!(hottest(&subject, limit), order[..limit.min(order.len())], "{kind:?} {limit}");
        }
    }
}

#[test]
fn tiny_lfu_ranks_by_frequency_then_by_the_main_region_then_by_the_last_use() {
    let subject = Subject::tiny_lfu(100);
    (0..10).for_each(|id| subject.set(id, id));
    for id in [3, 3, 3, 3, 3, 7, 7, 1, 1, 1] {
        subject.get(id);
    }
    // The newest entry is in the window: it is the next candidate, and would lose against the others.
    assert_eq!(hottest(&subject, usize::MAX), [3, 1, 7, 8, 6, 5, 4, 2, 0, 9]);
}

#[test]
fn a_ranking_does_not_count_as_an_access() {
    let subject = Subject::lru(3);
    (0..3).for_each(|id| subject.set(id, id));
    for _ in 0..5 {
        assert_eq!(coldest(&subject, usize::MAX), [0, 1, 2]);
        assert_eq!(hottest(&subject, 1), [2]);
    }
    subject.set_with_lifetime(2, 2, 0, 10 * SECOND);
    subject.advance(6 * SECOND);
    assert_eq!(hottest(&subject, 1), [2]);
    subject.advance(4 * SECOND);
    assert_eq!(subject.get(2), None, "its time to idle did not begin again");
}

#[test]
fn expired_entries_are_left_out() {
    for kind in [Kind::Lru, Kind::TinyLfu] {
        let subject = Subject::new(Config::new(100, kind));
        subject.set_with_lifetime(1, 1, SECOND, 0);
        subject.set_with_lifetime(2, 2, 2 * SECOND, 0);
        subject.set(3, 3);
        subject.advance(SECOND);
        let mut found = hottest(&subject, usize::MAX);
        found.sort_unstable();
        assert_eq!(found, [2, 3]);
        assert_eq!(coldest(&subject, 10).len(), 2);
    }
}

#[test]
fn a_cache_without_entries_has_no_hottest() {
    let subject = Subject::lru(10);
    assert_eq!(hottest(&subject, usize::MAX), []);
    subject.set(1, 1);
    subject.remove(1);
    assert_eq!(coldest(&subject, usize::MAX), []);
}

#[test]
fn no_lock_is_held_for_more_entries_than_a_batch() {
    const ENTRIES: u64 = sized(1_000, 60);
    for kind in [Kind::Lru, Kind::TinyLfu] {
        let subject = Subject::new(Config::new(2_000, kind));
        (0..ENTRIES).for_each(|id| subject.set(id, id));
        let mut ranking = Ranking::hottest(usize::MAX);
        let mut batches = 0;
        while subject.cache.rank_batch(&mut ranking).expect("there is memory") {
            // A write needs the lock.
            subject.set(5_000 + batches as u64, 0);
            batches += 1;
        }
        assert!(batches >= (ENTRIES as usize).div_ceil(MAX_RANKED_PER_LOCK));
        let mut found: Vec<u64> =
            ranking.into_pairs().map(|(key, _)| key.id()).filter(|&id| id < ENTRIES).collect();
        found.sort_unstable();
        assert_eq!(found, (0..ENTRIES).collect::<Vec<_>>(), "an entry that stays is ranked once");
    }
}

#[test]
fn several_shards_are_merged() {
    const ENTRIES: u64 = sized(20_000, 130);
    const USED: u64 = ENTRIES / 10;
    for kind in [Kind::Lru, Kind::TinyLfu] {
        let subject = Subject::new(Config::new(2 * ENTRIES, kind));
        (0..ENTRIES).for_each(|id| subject.set(id, id));
        for use_number in 0..3 * USED {
            subject.get(use_number % USED * 7);
        }
        let is_used = |&id: &u64| id < 7 * USED && id.is_multiple_of(7);
        let found = hottest(&subject, USED as usize).iter().filter(|id| is_used(id)).count();
        assert!(found as u64 >= USED * 9 / 10, "{kind:?}: {found}");
    }
}

#[test]
fn what_a_ranking_held_is_dropped_with_it() {
    let subject = Subject::tiny_lfu(5_000);
    (0..sized(3_000, 80)).for_each(|id| subject.set(id, id));
    assert_eq!(hottest(&subject, 10).len(), 10);
    let mut ranking = Ranking::coldest(sized(2_000, 50));
    assert!(subject.cache.rank_batch(&mut ranking).expect("there is memory"));
    drop(ranking);
    subject.clear();
    assert_alive_after_flushes(&subject.cache, (0, 0), || (subject.keys.alive(), subject.values.alive()));
}
