//! Least recently used: the entry whose last use is the longest ago is evicted.
//!
//! # How it works
//! [`RecencyClock`] counts hits. A hit stamps its entry with the count, and [`Lru`] reads stamps only when it looks
//! for a victim. Entries are in one of three places:
//! - An entry without a hit since its insert is in a list in the order of inserts. A bit of its stamp says so, and a
//!   hit clears that bit.
//! - An entry that was hit moves from the front of that list to a [`LazyRadixHeap`]. The heap reads the stamp of an
//!   entry again before it yields the entry, so it is in the order of the last hits.
//! - An entry of weight 0 is in a list of its own, since its eviction would make no room.
//!
//! # Invariants
//! - `one-place`: a known entry is in one list or in the heap, and nowhere else.
//! - `exact-order`: as long as one thread uses the shard, no two stamps are equal, so the order is exactly that of
//!   the uses.
//!
//! # Orderings
//! All are Relaxed: a hit that threads lose or count twice costs accuracy, never correctness.
//!
//! # Why not the heap alone
//! Many entries are never hit. A list takes them in and yields them for two writes of links each.

use std::ptr;

use crate::collections::index_lists::IndexLists;
use crate::collections::lazy_radix_heap::LazyRadixHeap;
use crate::collections::try_reserve::NoMemory;
use crate::sync::{
    AtomicU64, AtomicUsize, HAS_GIL, Ordering::Relaxed, has_other_threads, prefetch_write, thread_mark,
};

use super::{EntryView, EntryViews};

const UNUSED_LIST: usize = 0;
const WEIGHTLESS_LIST: usize = 1;
const LISTS: usize = 2;

/// The bit of a stamp that says that the entry was not hit since its insert.
const UNUSED: u64 = 1 << 63;

/// While several threads use a shard, the clock advances at least this often during as many hits as the shard has
/// entries, and at most twice as often. If each hit advanced the clock, two threads that mostly get would do half as
/// many calls a second. With 4 or 16, hit ratios on traces are the same.
const MIN_TICKS_PER_SHARD: usize = 8;

/// In place of a thread: no hit was recorded yet, or hits of several threads were.
const NO_THREAD: usize = 0;
const SEVERAL_THREADS: usize = usize::MAX;

/// The half of the policy that readers use: a clock that hits advance.
///
/// An entry whose stamp is the time of the clock is the newest, so another hit of it writes nothing. With one thread,
/// each hit that changes the order advances the clock. With several, each of them would then wait for the cache lines
/// of the clock and of hot entries. So only one in a number of their hits advances it, and the hits in between share
/// a stamp. Then an entry's place in the order is known to about an eighth of the shard.
pub(crate) struct RecencyClock {
    /// The time, from 1 on.
    time: AtomicU64,
    /// A hit advances the clock if a random number has none of these bits: a power of two, less one.
    skip_mask: AtomicU64,
    /// The thread whose hits were recorded.
    thread: AtomicUsize,
}

impl RecencyClock {
    pub fn new() -> Self {
        RecencyClock {
            time: AtomicU64::new(1),
            skip_mask: AtomicU64::new(0),
            thread: AtomicUsize::new(NO_THREAD),
        }
    }

    /// Records a hit of the entry that has this stamp.
    #[inline(always)]
    pub fn record(&self, stamp: &AtomicU64) {
        let now = self.time.load(Relaxed);
        if stamp.load(Relaxed) != now {
            let is_skipped = self.is_shared() && self.skips(stamp, now);
            stamp.store(if is_skipped { now } else { self.advance() }, Relaxed);
        }
    }

    /// Whether hits of several threads were recorded, and there still are several threads.
    #[inline]
    fn is_shared(&self) -> bool {
        let thread = self.thread.load(Relaxed);
        if !has_other_threads() {
            if !HAS_GIL && thread == SEVERAL_THREADS {
                self.thread.store(NO_THREAD, Relaxed);
            }
            return false;
        }
        thread == SEVERAL_THREADS || self.record_thread(thread)
    }

    /// Records that this thread has a hit after `previous`. Returns whether that is another thread.
    fn record_thread(&self, previous: usize) -> bool {
        let own = thread_mark();
        if previous != own {
            self.thread.store(if previous == NO_THREAD { own } else { SEVERAL_THREADS }, Relaxed);
        }
        previous != own && previous != NO_THREAD
    }

    /// Whether a hit leaves the clock as it is. This is drawn from the address of the entry and the time, so no entry
    /// is skipped always.
    #[inline]
    fn skips(&self, stamp: &AtomicU64, now: u64) -> bool {
        // Entries are 32 bytes apart.
        let place = ptr::from_ref(stamp).addr() as u64 >> 5;
        // Multiplied twice, so that entries that are hit in turn do not draw in a pattern. The multiplier is that of
        // Fibonacci hashing (Knuth, "Sorting and Searching", 6.4), whose upper bits are even.
        let mixed = (place ^ now << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let draw = (mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        draw & self.skip_mask.load(Relaxed) != 0
    }

    /// Advances the clock and returns the new time.
    fn advance(&self) -> u64 {
        self.time.fetch_add(1, Relaxed) + 1
    }

    pub fn time(&self) -> u64 {
        self.time.load(Relaxed)
    }

    /// Fits the skipping of hits to the number of entries.
    fn set_live(&self, live: usize) {
        let skip_mask = (1 << (live / MIN_TICKS_PER_SHARD).max(1).ilog2()) - 1;
        if !HAS_GIL && self.skip_mask.load(Relaxed) != skip_mask {
            self.skip_mask.store(skip_mask, Relaxed);
        }
    }
}

/// Returns the rank of the entry that has this stamp: when it was last used, as a part of the time that passed until
/// `now`. All shards of a cache began at the same time, but the clock of a shard counts its own hits. So the parts are
/// compared, in steps of 2 to the power of -63, which keep the stamps of a shard apart.
pub(super) fn rank(stamp: &AtomicU64, now: u64) -> u64 {
    let used_at = stamp.load(Relaxed) & !UNUSED;
    let part = (u128::from(used_at) << 63) / u128::from(now.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// The half of the policy that the holder of the shard lock uses.
pub(crate) struct Lru {
    /// Entries without a hit in the order of their inserts, and entries of weight 0.
    lists: IndexLists,
    /// Entries that were hit, by their stamps.
    heap: LazyRadixHeap,
}

impl Lru {
    pub fn new() -> Self {
        Lru { lists: IndexLists::with_lists(LISTS), heap: LazyRadixHeap::default() }
    }

    /// Adds a new entry. `live` is the number of entries with it. The insert counts as a use.
    pub fn insert(
        &mut self,
        index: u32,
        entry: EntryView<'_>,
        live: usize,
        entries: &impl EntryViews,
        clock: &RecencyClock,
    ) {
        let now = clock.advance();
        clock.set_live(live);
        entry.stamp.store(now | UNUSED, Relaxed);
        self.link_as(index, now | UNUSED, entries);
    }

    pub fn prefetch(&self, entries: &impl EntryViews) {
        self.lists.prefetch_anchor(UNUSED_LIST);
        if let Some(unused) = self.lists.front(UNUSED_LIST) {
            self.lists.prefetch(unused);
            prefetch_write(entries.stamp(unused));
        }
    }

    pub fn reserve(&mut self, index: u32) -> Result<(), NoMemory> {
        self.lists.reserve(index)?;
        self.heap.reserve(index)
    }

    pub fn remove(&mut self, index: u32) {
        if !self.lists.unlink(index) {
            self.heap.remove(index);
        }
    }

    /// Takes over an entry's new weight, which was `old_weight`.
    pub fn update_weight(&mut self, index: u32, old_weight: u64, entries: &impl EntryViews) {
        if (old_weight == 0) != (entries.weight(index) == 0) {
            self.remove(index);
            // At the end of the list it would be out of the order of inserts, so it must not go there.
            let stamp = entries.stamp(index);
            stamp.store(stamp.load(Relaxed) & !UNUSED, Relaxed);
            self.link(index, entries);
        }
    }

    pub fn take_victim(&mut self, keep: Option<u32>, entries: &impl EntryViews) -> Option<u32> {
        let first = self.pop_oldest(entries)?;
        if Some(first) != keep {
            return Some(first);
        }
        // The entry to keep was used last, so it is the only one, unless other threads stamped at the same time.
        let second = self.pop_oldest(entries);
        self.link(first, entries);
        second
    }

    fn pop_oldest(&mut self, entries: &impl EntryViews) -> Option<u32> {
        while let Some(first) = self.lists.front(UNUSED_LIST) {
            let stamp = entries.stamp(first).load(Relaxed);
            if stamp & UNUSED != 0 {
                // All others of the list are newer. An entry of the heap with this very stamp was hit after the
                // insert.
                let older = self.pop_heap((stamp & !UNUSED) - 1, entries);
                return older.or_else(|| self.lists.unlink(first).then_some(first));
            }
            self.lists.unlink(first);
            self.heap.insert(first, stamp);
        }
        self.pop_heap(u64::MAX, entries)
    }

    /// Removes the oldest entry of the heap, if its stamp is at most `max_stamp`.
    fn pop_heap(&mut self, max_stamp: u64, entries: &impl EntryViews) -> Option<u32> {
        let stamp = |index| Some(entries.stamp(index).load(Relaxed));
        self.heap.pop(max_stamp, &mut usize::MAX.clone(), stamp)
    }

    /// Puts an entry where its weight and its stamp belong.
    fn link(&mut self, index: u32, entries: &impl EntryViews) {
        self.link_as(index, entries.stamp(index).load(Relaxed), entries);
    }

    /// Does the same for an entry whose stamp is known.
    #[inline]
    fn link_as(&mut self, index: u32, stamp: u64, entries: &impl EntryViews) {
        if entries.weight(index) == 0 {
            self.lists.push_back(WEIGHTLESS_LIST, index);
        } else if stamp & UNUSED != 0 {
            self.lists.push_back(UNUSED_LIST, index);
        } else {
            self.heap.insert(index, stamp);
        }
    }

    /// Returns some entry, a cold one where that takes no search; `None` if there is none.
    pub fn peek_cold(&mut self) -> Option<u32> {
        let unused = self.lists.front(UNUSED_LIST);
        unused.or_else(|| self.heap.peek_low()).or_else(|| self.lists.front(WEIGHTLESS_LIST))
    }

    pub fn trim(&mut self, limit: u32) {
        self.heap.trim(limit);
        self.lists.trim(limit);
    }

    /// The indices that it knows, in no order.
    #[cfg(any(test, debug_assertions))]
    pub fn indices(&self) -> Vec<u32> {
        let listed = self.lists.iter(UNUSED_LIST).chain(self.lists.iter(WEIGHTLESS_LIST));
        self.heap.indices().into_iter().chain(listed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::TestEntries;
    use crate::policy::{AccessRecorder, Kind, for_shards};
    use crate::sync::sized_for_miri;

    fn lru_of(stamps: &[u64]) -> (Lru, TestEntries) {
        let entries = TestEntries::of_weight_1(stamps.len() as u32);
        let mut lru = Lru::new();
        for (index, &stamp) in stamps.iter().enumerate() {
            entries.set_stamp(index as u32, stamp);
            lru.link(index as u32, &entries);
        }
        (lru, entries)
    }

    fn victims(lru: &mut Lru, entries: &TestEntries) -> Vec<u32> {
        std::iter::from_fn(|| lru.take_victim(None, entries)).collect()
    }

    #[test]
    fn the_oldest_stamp_is_evicted_first() {
        let (mut lru, entries) = lru_of(&[1, 2, 3, 4, 70, 5_000]);
        entries.set_stamp(0, 100);
        entries.set_stamp(2, 6_000);
        assert_eq!(victims(&mut lru, &entries), [1, 3, 4, 0, 5, 2]);
    }

    #[test]
    fn the_entry_to_keep_stays_in_its_place() {
        let (mut lru, entries) = lru_of(&[1, 2, 3]);
        assert_eq!(lru.take_victim(Some(0), &entries), Some(1));
        assert_eq!(victims(&mut lru, &entries), [0, 2]);
        lru.link(0, &entries);
        assert_eq!(lru.take_victim(Some(0), &entries), None);
        assert_eq!(lru.indices(), [0]);
    }

    #[test]
    fn a_removed_entry_is_no_victim() {
        let (mut lru, entries) = lru_of(&[1, 2, 3]);
        lru.remove(1);
        assert_eq!(victims(&mut lru, &entries), [0, 2]);
        assert_eq!(lru.peek_cold(), None);
    }

    #[test]
    fn inserts_and_hits_have_one_order() {
        const ENTRIES: u32 = sized_for_miri(200, 50);
        let entries = TestEntries::of_weight_1(ENTRIES);
        let mut lru = Lru::new();
        let (recorder, _) = for_shards(Kind::Lru, u64::from(ENTRIES), 1).next().expect("there is one shard");
        let AccessRecorder::Lru(clock) = &recorder else { unreachable!("it is of that kind") };
        let mut naive: Vec<u32> = Vec::new();
        let mut random = 7u64;
        for index in 0..ENTRIES {
            lru.insert(index, entries.entry(index), index as usize + 1, &entries, &clock.0);
            naive.push(index);
            for _ in 0..3 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let drawn = (random >> 33) as usize % naive.len();
                let hit = naive.remove(drawn);
                recorder.record(entries.stamp(hit));
                naive.push(hit);
            }
            if index % 4 == 3 {
                assert_eq!(lru.take_victim(Some(index), &entries), Some(naive.remove(0)));
            }
        }
        assert_eq!(victims(&mut lru, &entries), naive);
    }

    #[test]
    fn an_entry_of_weight_0_is_no_victim() {
        let mut entries = TestEntries::with_weights(&[0, 1, 0]);
        let mut lru = Lru::new();
        let clock = RecencyClock::new();
        (0..3).for_each(|index| lru.insert(index, entries.entry(index), 3, &entries, &clock));
        entries.0[1].1 = 0;
        lru.update_weight(1, 1, &entries);
        assert_eq!(lru.take_victim(None, &entries), None);
        assert_eq!((lru.peek_cold(), lru.indices().len()), (Some(0), 3));
        entries.0[2].1 = 5;
        lru.update_weight(2, 0, &entries);
        assert_eq!(lru.take_victim(None, &entries), Some(2));
        lru.remove(0);
        assert_eq!(lru.indices(), [1]);
    }

    #[test]
    #[cfg(not(moka_gil))]
    fn few_hits_of_several_threads_advance_the_clock() {
        const ENTRIES: u32 = sized_for_miri(2_000, 100);
        const HITS: u64 = sized_for_miri(200_000, 400);
        let entries = TestEntries::of_weight_1(ENTRIES);
        drop(crate::reclaim::pin());
        let time_after = |live, is_shared| {
            let clock = RecencyClock::new();
            clock.set_live(live);
            let (sender, receiver) = std::sync::mpsc::channel();
            std::thread::scope(|scope| {
                let (entries, clock) = (&entries, &clock);
                let other = scope.spawn(move || {
                    drop(crate::reclaim::pin());
                    if is_shared {
                        clock.record(entries.stamp(0));
                    }
                    sender.send(()).expect("the receiver waits");
                    std::thread::park();
                });
                receiver.recv().expect("the other thread sends");
                (0..HITS).for_each(|step| clock.record(entries.stamp(step as u32 % ENTRIES)));
                other.thread().unpark();
            });
            clock.time.load(Relaxed)
        };
        let live = ENTRIES as usize;
        assert_eq!(time_after(live, false), 1 + HITS, "the other thread does not use the shard");
        assert_eq!(time_after(15, true), 1 + HITS, "the other's hit is of the entry that is hit first");
        // The mean is 1,562 and the standard deviation 40; under Miri they are 50 and 7.
        let time = time_after(live, true);
        let (least, most) = sized_for_miri((1_000, 2_500), (20, 90));
        assert!((least..most).contains(&time), "{time}");
    }
}
