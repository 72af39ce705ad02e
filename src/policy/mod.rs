//! Which entry is evicted when the capacity is spent.
//!
//! # How it works
//! Each shard has both halves of a policy:
//! - an [`AccessRecorder`], in which readers record hits without a lock;
//! - a [`Policy`], which belongs to the holder of the shard lock, and which names the victims.
//!
//! A *hit* is a read that finds its entry, or a write that replaces its value. An *access* is a hit or an insert.
//! A hit only writes the stamp of its entry, and only if that changes something (law 5). The policy reads stamps
//! when it looks for a victim, and corrects its order at that time.
//!
//! The policy knows entries by their indices in the slab, and sees them through [`EntryViews`]. It decides, and the
//! shard acts: a policy never removes an entry from the map.
//!
//! # Invariants
//! - `one-kind`: the recorder and the policy of a shard are of one kind.
//! - `known`: the policy knows the live entries of its shard and no others ([`Policy::validate`]).
//!
//! # Why not update the order at each hit
//! A linked list in the order of use needs a lock, or a buffer of hits that some thread drains under a lock, as in
//! Caffeine. Here a hit costs one store at most, and the work is done by the writes that need a victim.

mod lru;
mod tiny_lfu;

use lru::{Lru, RecencyClock};
use tiny_lfu::TinyLfu;
use tiny_lfu::access_stamps::AccessStamps;
use tiny_lfu::window_tuner::{self, WindowFraction};

use crate::collections::try_reserve::NoMemory;
use crate::sync::{AtomicU64, Padded, prefetch_write};

/// The policies that a user can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    TinyLfu,
    Lru,
}

/// A smaller cache is evicted by recency alone, whatever its kind: users of so few entries expect that.
const MIN_CAPACITY_OF_TINY_LFU: u64 = 8;

/// The entries of a shard, as far as a policy sees them.
pub(crate) trait EntryViews {
    fn entry(&self, index: u32) -> EntryView<'_>;
    fn weight(&self, index: u32) -> u64;

    /// Whether weights may differ. Otherwise each entry weighs 1.
    fn is_weighted(&self) -> bool;

    fn hash(&self, index: u32) -> u64 {
        self.entry(index).hash
    }

    fn stamp(&self, index: u32) -> &AtomicU64 {
        self.entry(index).stamp
    }

    /// Prefetches the other memory that changes when an entry of this hash is removed.
    fn prefetch_remove(&self, _hash: u64) {}
}

/// One entry, as far as a policy sees it. To find an entry by its index takes a few loads, so code that needs both
/// fields keeps the view.
#[derive(Clone, Copy)]
pub(crate) struct EntryView<'a> {
    pub hash: u64,
    pub stamp: &'a AtomicU64,
}

/// The half of a policy that readers use.
pub(crate) enum AccessRecorder {
    Lru(Padded<RecencyClock>),
    TinyLfu(AccessStamps),
}

/// The half of a policy that the holder of the shard lock uses.
pub(crate) enum Policy {
    Lru(Lru),
    TinyLfu(Box<TinyLfu>),
}

/// Makes both halves of the policy of each shard of a cache. The first shard is the leader, which tunes the window
/// for all ([`tiny_lfu`]).
pub(crate) fn for_shards(
    kind: Kind,
    capacity: u64,
    shards: usize,
) -> impl ExactSizeIterator<Item = (AccessRecorder, Policy)> {
    let window = WindowFraction::default();
    let share = capacity / shards as u64;
    (0..shards).map(move |shard| match kind {
        Kind::TinyLfu if capacity >= MIN_CAPACITY_OF_TINY_LFU => {
            let is_leader = shard == 0;
            let max_sampled = if is_leader { window_tuner::max_ghost_keys(capacity) } else { 0 };
            let policy = Box::new(TinyLfu::new(share, window.clone(), max_sampled));
            (AccessRecorder::TinyLfu(AccessStamps::new(max_sampled)), Policy::TinyLfu(policy))
        }
        _ => (AccessRecorder::Lru(Padded(RecencyClock::new())), Policy::Lru(Lru::new())),
    })
}

impl AccessRecorder {
    /// Records a hit: a read, or another value.
    #[inline(always)]
    pub fn record(&self, stamp: &AtomicU64) {
        match self {
            AccessRecorder::TinyLfu(stamps) => stamps.record(stamp),
            AccessRecorder::Lru(clock) => clock.0.record(stamp),
        }
    }

    /// Returns the time of the policy, for [`Policy::rank`].
    pub fn time(&self) -> u64 {
        match self {
            AccessRecorder::TinyLfu(_) => 0,
            AccessRecorder::Lru(clock) => clock.0.time(),
        }
    }

    /// Prefetches the memory that an insert will change here.
    #[inline]
    pub fn prefetch_insert(&self) {
        if let AccessRecorder::Lru(clock) = self {
            prefetch_write(clock);
        }
    }
}

impl Policy {
    /// Reserves the memory that an entry needs here, from its insert to its removal.
    #[inline]
    pub fn reserve(&mut self, index: u32) -> Result<(), NoMemory> {
        match self {
            Policy::Lru(lru) => lru.reserve(index),
            Policy::TinyLfu(tiny_lfu) => tiny_lfu.reserve(index),
        }
    }

    /// Takes over another share of the capacity: the weight that the shard has room for.
    pub fn set_share(&mut self, share: u64) {
        if let Policy::TinyLfu(tiny_lfu) = self {
            tiny_lfu.set_share(share);
        }
    }

    /// Prefetches the memory that an insert and its victim will change here. The caller should do so in large shards,
    /// and if several threads use the cache: another thread probably wrote these lines last. With two threads, an
    /// insert that evicts takes 4 to 10 % longer without this.
    #[inline]
    pub fn prefetch(&self, entries: &impl EntryViews) {
        match self {
            Policy::Lru(lru) => lru.prefetch(entries),
            Policy::TinyLfu(tiny_lfu) => tiny_lfu.prefetch(entries),
        }
    }

    /// Adds a new entry. `entry` is its view, and `live` is the number of entries with it.
    pub fn insert(
        &mut self,
        index: u32,
        entry: EntryView<'_>,
        live: usize,
        entries: &impl EntryViews,
        recorder: &AccessRecorder,
    ) {
        match (self, recorder) {
            (Policy::TinyLfu(tiny_lfu), AccessRecorder::TinyLfu(stamps)) => {
                tiny_lfu.insert(index, entry, live, entries, stamps)
            }
            (Policy::Lru(lru), AccessRecorder::Lru(clock)) => {
                lru.insert(index, entry, live, entries, &clock.0)
            }
            _ => unreachable!("`one-kind`"),
        }
    }

    /// Removes an entry, if it is known. Its weight must still be the one that the policy knows.
    pub fn remove(&mut self, index: u32, entries: &impl EntryViews) {
        match self {
            Policy::Lru(lru) => lru.remove(index),
            Policy::TinyLfu(tiny_lfu) => tiny_lfu.remove(index, entries),
        }
    }

    /// Takes over an entry's new weight, which was `old_weight`.
    pub fn update_weight(&mut self, index: u32, old_weight: u64, entries: &impl EntryViews) {
        match self {
            Policy::Lru(lru) => lru.update_weight(index, old_weight, entries),
            Policy::TinyLfu(tiny_lfu) => tiny_lfu.update_weight(index, old_weight, entries),
        }
    }

    /// Removes the next victim from the policy and returns it: never `keep`, nor an entry of weight 0. `None` if
    /// there is no other.
    pub fn take_victim(&mut self, keep: Option<u32>, entries: &impl EntryViews) -> Option<u32> {
        match self {
            Policy::Lru(lru) => lru.take_victim(keep, entries),
            Policy::TinyLfu(tiny_lfu) => tiny_lfu.take_victim(keep, entries),
        }
    }

    /// Brings the window back to its size after a write that needed no victim.
    #[inline]
    pub fn demote_window_overflow(&mut self, entries: &impl EntryViews) {
        if let Policy::TinyLfu(tiny_lfu) = self {
            tiny_lfu.demote_window_overflow(entries);
        }
    }

    /// Returns the rank of an entry: the colder of two entries has the lower rank.
    ///
    /// `time` is the [time](AccessRecorder::time) at which the caller began to rank. Ranks of several shards are
    /// comparable, as far as their estimates are.
    pub fn rank(&self, index: u32, time: u64, entries: &impl EntryViews) -> u64 {
        match self {
            Policy::Lru(_) => lru::rank(entries.stamp(index), time),
            Policy::TinyLfu(tiny_lfu) => tiny_lfu.rank(index, entries),
        }
    }

    /// Returns some entry, a cold one where that takes no search; `None` if there is none.
    pub fn peek_cold(&mut self) -> Option<u32> {
        match self {
            Policy::Lru(lru) => lru.peek_cold(),
            Policy::TinyLfu(tiny_lfu) => tiny_lfu.peek_cold(),
        }
    }

    /// Releases the memory of the indices from `limit` up, which must not be in use. If few entries are `live`, it
    /// also forgets how often former entries were used.
    pub fn trim(&mut self, limit: u32, live: usize) {
        match self {
            Policy::Lru(lru) => lru.trim(limit),
            Policy::TinyLfu(tiny_lfu) => tiny_lfu.trim(limit, live),
        }
    }

    /// Checks `known` for the indices in `live`, which are sorted, and the invariants of the policy itself.
    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self, live: &[u32], entries: &impl EntryViews) {
        let mut known = match self {
            Policy::Lru(lru) => lru.indices(),
            Policy::TinyLfu(tiny_lfu) => tiny_lfu.validate(entries),
        };
        known.sort_unstable();
        assert_eq!(known, live, "`known`");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Ordering, sized_for_miri};

    /// Entries without a cache, by index: hash, weight, stamp. Each is in a box of its own, because Miri walks through a
    /// slice of atomics for each access to one of them.
    #[derive(Default)]
    #[expect(clippy::vec_box, reason = "see above")]
    pub(super) struct TestEntries(pub Vec<Box<(u64, u64, AtomicU64)>>);

    impl TestEntries {
        /// Makes `count` entries of weight 1.
        pub fn of_weight_1(count: u32) -> Self {
            Self::with_weights(&vec![1; count as usize])
        }

        pub fn with_weights(weights: &[u64]) -> Self {
            let entry = |(index, &weight)| Box::new((Self::hash_of(index), weight, AtomicU64::new(0)));
            TestEntries(weights.iter().enumerate().map(entry).collect())
        }

        pub fn hash_of(index: usize) -> u64 {
            (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        }

        pub fn set_stamp(&self, index: u32, stamp: u64) {
            self.stamp(index).store(stamp, Ordering::Relaxed);
        }
    }

    impl EntryViews for TestEntries {
        fn entry(&self, index: u32) -> EntryView<'_> {
            let (hash, _, stamp) = &*self.0[index as usize];
            EntryView { hash: *hash, stamp }
        }

        fn weight(&self, index: u32) -> u64 {
            self.0[index as usize].1
        }

        fn is_weighted(&self) -> bool {
            true
        }
    }

    /// Both halves of the policy of a cache of one shard.
    fn policy_of(kind: Kind, capacity: u64) -> (AccessRecorder, Policy) {
        for_shards(kind, capacity, 1).next().expect("there is one shard")
    }

    #[test]
    fn a_small_cache_is_evicted_by_recency_alone() {
        for capacity in 0..MIN_CAPACITY_OF_TINY_LFU {
            let policy = policy_of(Kind::TinyLfu, capacity);
            assert!(matches!(policy, (AccessRecorder::Lru(_), Policy::Lru(_))));
        }
        let policy = policy_of(Kind::TinyLfu, MIN_CAPACITY_OF_TINY_LFU);
        assert!(matches!(policy, (AccessRecorder::TinyLfu(_), Policy::TinyLfu(_))));
        assert!(matches!(policy_of(Kind::Lru, 1 << 30), (AccessRecorder::Lru(_), Policy::Lru(_))));
    }

    #[test]
    fn a_second_hit_of_the_newest_entry_writes_nothing() {
        let (recorder, _) = policy_of(Kind::Lru, 100);
        let stamps = [AtomicU64::new(0), AtomicU64::new(0)];
        let stamp_after_hit = |index: usize| {
            recorder.record(&stamps[index]);
            stamps[index].load(Ordering::Relaxed)
        };
        let first = stamp_after_hit(0);
        assert_eq!(stamp_after_hit(0), first);
        let second = stamp_after_hit(1);
        assert!(second > first);
        assert!(stamp_after_hit(0) > second);
    }

    #[test]
    fn the_entry_to_keep_is_never_a_victim() {
        for kind in [Kind::Lru, Kind::TinyLfu] {
            for count in (1..40).step_by(sized_for_miri(1, 12)) {
                let (recorder, mut policy) = policy_of(kind, 20);
                let entries = TestEntries::of_weight_1(count);
                for index in 0..count {
                    policy.insert(index, entries.entry(index), index as usize + 1, &entries, &recorder);
                    policy.demote_window_overflow(&entries);
                }
                let keep = count / 2;
                let victims: Vec<u32> =
                    std::iter::from_fn(|| policy.take_victim(Some(keep), &entries)).collect();
                assert_eq!(victims.len(), count as usize - 1, "{kind:?}");
                assert!(!victims.contains(&keep), "{kind:?}");
                policy.validate(&[keep], &entries);
                assert_eq!(policy.take_victim(None, &entries), Some(keep));
            }
        }
    }
}
