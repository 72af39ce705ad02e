//! The least recently used entry leaves.
//!
//! A hit stamps its entry and tells nobody. An entry that was not used since it was born stands in a list, in the order of
//! births; it has a mark in its stamp, which a use takes away. One that was used goes on to a queue once it comes up there,
//! which asks for the stamp late, and so gives the order of the stamps all the same. In one thread these are never equal, so the
//! order is exactly that of the uses. An entry of weight 0 is in neither: that it leaves makes no room.

use std::ptr;

use crate::collections::index_lists::IndexLists;
use crate::collections::lazy_radix_heap::LazyRadixHeap;
use crate::collections::try_reserve::NoMemory;
use crate::sync::{AtomicU64, AtomicUsize, HAS_GIL, Ordering, has_company, prefetch_write, thread_mark};

use super::{EntryView, View};

const YOUNG: usize = 0;
const WEIGHTLESS: usize = 1;

/// The mark of an entry that was not used since its birth, in its stamp.
const UNUSED: u64 = 1 << 63;

/// While several threads use a shard, this many are counted of as many uses as it has entries, or up to twice as many. Two
/// threads that mostly get by Zipf's law, and two of which each sets as often as it gets, do 34 and 18 million calls a second
/// with 8, 32 and 15 with 16, 34 and 23 with 4, 17 and 14 where each use is counted. Hit ratios on traces are the same with all.
const PARTS: usize = 8;

/// Instead of a thread: no use was noted yet; or uses of several threads were.
const NOBODY: usize = 0;
const SEVERAL: usize = usize::MAX;

/// The readers' side.
///
/// An entry's stamp is the count of uses at its last one, so the entry whose stamp is the count is the newest, and using it
/// again writes nothing. Of one thread each use that changes the order is counted. Threads that did so would wait for each
/// other at each hit, for the count and for the stamps of hot entries. So while there are several, one of a number of
/// uses is counted, and those in between have one stamp: the order is known to about an eighth of the entries.
pub(crate) struct Recency {
    /// The count, from 1 on.
    uses: AtomicU64,
    /// The uses from one that is counted to the next, a power of two, less one.
    uncounted: AtomicU64,
    /// Whose uses they are.
    user: AtomicUsize,
}

impl Recency {
    pub fn new() -> Self {
        Recency { uses: AtomicU64::new(1), uncounted: AtomicU64::new(0), user: AtomicUsize::new(NOBODY) }
    }

    /// Notes a use of an entry.
    #[inline(always)]
    pub fn record(&self, stamp: &AtomicU64) {
        // Relaxed, here and below: a use that is lost or doubled between threads costs accuracy, never correctness.
        let now = self.uses.load(Ordering::Relaxed);
        if stamp.load(Ordering::Relaxed) != now {
            let is_uncounted = self.is_shared() && self.is_uncounted(stamp, now);
            stamp.store(if is_uncounted { now } else { self.count() }, Ordering::Relaxed);
        }
    }

    /// Whether uses of several threads were noted, and there still are several.
    #[inline]
    fn is_shared(&self) -> bool {
        let user = self.user.load(Ordering::Relaxed);
        if !has_company() {
            if !HAS_GIL && user == SEVERAL {
                self.user.store(NOBODY, Ordering::Relaxed);
            }
            return false;
        }
        user == SEVERAL || self.is_of_another(user)
    }

    /// Notes whose use this is, and tells whether the one before was another's.
    fn is_of_another(&self, user: usize) -> bool {
        let own = thread_mark();
        if user != own {
            self.user.store(if user == NOBODY { own } else { SEVERAL }, Ordering::Relaxed);
        }
        user != own && user != NOBODY
    }

    /// Which uses are counted is drawn from the entry's place and the count, so that no entry's uses always are.
    #[inline]
    fn is_uncounted(&self, stamp: &AtomicU64, now: u64) -> bool {
        // Entries are 32 bytes apart.
        let place = ptr::from_ref(stamp).addr() as u64 >> 5;
        // Twice multiplied, so that entries that are used in turn do not draw in a pattern: the multiplier of Fibonacci
        // hashing (Knuth, "Sorting and searching", 6.4), whose upper bits are even.
        let mixed = (place ^ now << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let draw = (mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        draw & self.uncounted.load(Ordering::Relaxed) != 0
    }

    fn count(&self) -> u64 {
        self.uses.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Learns that there are so many entries.
    fn fit(&self, live: usize) {
        let uncounted = (1 << (live / PARTS).max(1).ilog2()) - 1;
        if !HAS_GIL && self.uncounted.load(Ordering::Relaxed) != uncounted {
            self.uncounted.store(uncounted, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
pub(crate) struct Lru {
    /// Those not used when last looked at, in the order of their births; and those of weight 0.
    lists: IndexLists<2>,
    queue: LazyRadixHeap,
}

impl Lru {
    /// Takes in a new entry, one of `live` with it. Its birth is a use.
    pub fn insert(
        &mut self,
        number: u32,
        look: EntryView<'_>,
        live: usize,
        view: &impl View,
        recency: &Recency,
    ) {
        let birth = recency.count();
        recency.fit(live);
        look.stamp.store(birth | UNUSED, Ordering::Relaxed);
        self.file_as(number, birth | UNUSED, view);
    }

    pub fn prefetch(&self, view: &impl View) {
        self.lists.prefetch_ends();
        if let Some(young) = self.lists.front(YOUNG) {
            self.lists.prefetch(young);
            prefetch_write(view.stamp(young));
        }
    }

    pub fn reserve(&mut self, number: u32) -> Result<(), NoMemory> {
        self.lists.reserve(number)?;
        self.queue.reserve(number)
    }

    pub fn remove(&mut self, number: u32) {
        if !self.lists.unlink(number) {
            self.queue.remove(number);
        }
    }

    /// Learns that an entry's weight was `before`.
    pub fn reweigh(&mut self, number: u32, before: u64, view: &impl View) {
        if (before == 0) != (view.weight(number) == 0) {
            self.remove(number);
            // Its birth is no longer the last of the young.
            let stamp = view.stamp(number);
            stamp.store(stamp.load(Ordering::Relaxed) & !UNUSED, Ordering::Relaxed);
            self.file(number, view);
        }
    }

    pub fn victim(&mut self, keep: Option<u32>, view: &impl View) -> Option<u32> {
        let first = self.pop(view)?;
        if Some(first) != keep {
            return Some(first);
        }
        // The entry to keep was used last, so it is alone; or other threads stamped at the same time.
        let second = self.pop(view);
        self.file(first, view);
        second
    }

    fn pop(&mut self, view: &impl View) -> Option<u32> {
        while let Some(young) = self.lists.front(YOUNG) {
            let stamp = view.stamp(young).load(Ordering::Relaxed);
            if stamp & UNUSED != 0 {
                // No other of the young is as old, and what was used with its birth as the count was used after it.
                let older = self.pop_queue((stamp & !UNUSED) - 1, view);
                return older.or_else(|| self.lists.unlink(young).then_some(young));
            }
            self.lists.unlink(young);
            self.queue.file(young, stamp);
        }
        self.pop_queue(u64::MAX, view)
    }

    fn pop_queue(&mut self, upto: u64, view: &impl View) -> Option<u32> {
        let stamp = |number| Some(view.stamp(number).load(Ordering::Relaxed));
        self.queue.pop(upto, &mut usize::MAX.clone(), stamp)
    }

    fn file(&mut self, number: u32, view: &impl View) {
        self.file_as(number, view.stamp(number).load(Ordering::Relaxed), view);
    }

    /// The same for an entry whose stamp is known.
    #[inline]
    fn file_as(&mut self, number: u32, stamp: u64, view: &impl View) {
        if view.weight(number) == 0 {
            self.lists.push_back(WEIGHTLESS, number);
        } else if stamp & UNUSED != 0 {
            self.lists.push_back(YOUNG, number);
        } else {
            self.queue.file(number, stamp);
        }
    }

    pub fn any(&mut self) -> Option<u32> {
        self.lists.front(YOUNG).or_else(|| self.queue.any()).or_else(|| self.lists.front(WEIGHTLESS))
    }

    pub fn trim(&mut self, limit: u32) {
        self.queue.trim(limit);
        self.lists.trim(limit);
    }

    #[cfg(any(test, debug_assertions))]
    pub fn numbers(&self) -> Vec<u32> {
        let listed = self.lists.iter(YOUNG).chain(self.lists.iter(WEIGHTLESS));
        self.queue.numbers().into_iter().chain(listed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::Entries;
    use crate::policy::{AccessRecorder, Kind, for_shards};

    fn queue_of(stamps: &[u64]) -> (Lru, Entries) {
        let entries = Entries::plain(stamps.len() as u32);
        let mut lru = Lru::default();
        for (number, &stamp) in stamps.iter().enumerate() {
            entries.stamp_with(number as u32, stamp);
            lru.file(number as u32, &entries);
        }
        (lru, entries)
    }

    fn victims(lru: &mut Lru, entries: &Entries) -> Vec<u32> {
        std::iter::from_fn(|| lru.victim(None, entries)).collect()
    }

    #[test]
    fn the_oldest_stamp_leaves_first() {
        let (mut lru, entries) = queue_of(&[1, 2, 3, 4, 70, 5_000]);
        entries.stamp_with(0, 100);
        entries.stamp_with(2, 6_000);
        assert_eq!(victims(&mut lru, &entries), [1, 3, 4, 0, 5, 2]);
    }

    #[test]
    fn the_entry_to_keep_stays_in_its_place() {
        let (mut lru, entries) = queue_of(&[1, 2, 3]);
        assert_eq!(lru.victim(Some(0), &entries), Some(1));
        assert_eq!(victims(&mut lru, &entries), [0, 2]);
        lru.file(0, &entries);
        assert_eq!(lru.victim(Some(0), &entries), None);
        assert_eq!(lru.numbers(), [0]);
    }

    #[test]
    fn a_removed_entry_is_no_victim() {
        let (mut lru, entries) = queue_of(&[1, 2, 3]);
        lru.remove(1);
        assert_eq!(victims(&mut lru, &entries), [0, 2]);
        assert_eq!(lru.any(), None);
    }

    #[test]
    fn births_and_uses_have_one_order() {
        let entries = Entries::plain(200);
        let mut lru = Lru::default();
        let (recorder, _) = for_shards(Kind::Lru, 200, 1).next().expect("there is one shard");
        let AccessRecorder::Lru(recency) = &recorder else { unreachable!("it is of that kind") };
        let mut naive: Vec<u32> = Vec::new();
        let mut random = 7u64;
        for number in 0..200 {
            lru.insert(number, entries.look(number), number as usize + 1, &entries, &recency.0);
            naive.push(number);
            for _ in 0..3 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let place = (random >> 33) as usize % naive.len();
                let used = naive.remove(place);
                recorder.record(entries.stamp(used));
                naive.push(used);
            }
            if number % 4 == 3 {
                assert_eq!(lru.victim(Some(number), &entries), Some(naive.remove(0)));
            }
        }
        assert_eq!(victims(&mut lru, &entries), naive);
    }

    #[test]
    fn an_entry_of_no_weight_is_no_victim() {
        let mut entries = Entries::weighing(&[0, 1, 0]);
        let mut lru = Lru::default();
        let recency = Recency::new();
        (0..3).for_each(|number| lru.insert(number, entries.look(number), 3, &entries, &recency));
        entries.0[1].1 = 0;
        lru.reweigh(1, 1, &entries);
        assert_eq!(lru.victim(None, &entries), None);
        assert_eq!((lru.any(), lru.numbers().len()), (Some(0), 3));
        entries.0[2].1 = 5;
        lru.reweigh(2, 0, &entries);
        assert_eq!(lru.victim(None, &entries), Some(2));
        lru.remove(0);
        assert_eq!(lru.numbers(), [1]);
    }

    #[test]
    #[cfg(not(moka_gil))]
    fn of_several_threads_few_uses_are_counted() {
        const USES: u64 = 200_000;
        let entries = Entries::plain(2_000);
        drop(crate::reclaim::pin());
        let counted = |live, is_shared| {
            let recency = Recency::new();
            recency.fit(live);
            let (told, tells) = std::sync::mpsc::channel();
            std::thread::scope(|scope| {
                let (entries, recency) = (&entries, &recency);
                let other = scope.spawn(move || {
                    drop(crate::reclaim::pin());
                    if is_shared {
                        recency.record(entries.stamp(0));
                    }
                    told.send(()).expect("it is waited for");
                    std::thread::park();
                });
                tells.recv().expect("it is told");
                (0..USES).for_each(|step| recency.record(entries.stamp((step % 2_000) as u32)));
                other.thread().unpark();
            });
            recency.uses.load(Ordering::Relaxed)
        };
        assert_eq!(counted(2_000, false), 1 + USES, "the other thread has nothing to do with it");
        assert_eq!(counted(15, true), 1 + USES, "the other's use is of the entry that is used first");
        // Of 1,562 on the mean, 40 more or less are a standard deviation.
        let few = counted(2_000, true);
        assert!((1_000..2_500).contains(&few), "{few}");
    }
}
