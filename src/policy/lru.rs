//! The least recently used entry leaves.
//!
//! A hit stamps its entry and tells nobody; a queue that asks for the stamp late gives the exact order all
//! the same. In one thread stamps are never equal, so the order is exactly that of the uses. An entry
//! of weight 0 is not in the queue: that it leaves makes no room.

use crate::lazy_queue::LazyQueue;
use crate::lists::Lists;
use crate::sync::{AtomicU64, Ordering};

use super::View;

pub(crate) struct Lru {
    queue: LazyQueue,
    weightless: Lists,
}

impl Default for Lru {
    fn default() -> Self {
        Lru { queue: LazyQueue::default(), weightless: Lists::new(1) }
    }
}

impl Lru {
    /// Takes in a new entry. Its birth is a use, of which `uses` is the count.
    pub fn insert(&mut self, number: u32, view: &impl View, uses: &AtomicU64) {
        // Relaxed: as any other use.
        let birth = uses.fetch_add(1, Ordering::Relaxed) + 1;
        view.stamp(number).store(birth, Ordering::Relaxed);
        self.file(number, view);
    }

    pub fn remove(&mut self, number: u32) {
        if !self.queue.remove(number) {
            self.weightless.unlink(number);
        }
    }

    /// Learns that an entry's weight was `before`.
    pub fn reweigh(&mut self, number: u32, before: u64, view: &impl View) {
        if (before == 0) != (view.weight(number) == 0) {
            self.remove(number);
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
        let stamp = |number| Some(view.stamp(number).load(Ordering::Relaxed));
        self.queue.pop(u64::MAX, &mut usize::MAX.clone(), stamp)
    }

    fn file(&mut self, number: u32, view: &impl View) {
        if view.weight(number) == 0 {
            self.weightless.push_back(0, number);
        } else {
            self.queue.file(number, view.stamp(number).load(Ordering::Relaxed));
        }
    }

    pub fn any(&mut self) -> Option<u32> {
        self.queue.any().or_else(|| self.weightless.front(0))
    }

    pub fn trim(&mut self, limit: u32) {
        self.queue.trim(limit);
        self.weightless.trim(limit);
    }

    #[cfg(any(test, debug_assertions))]
    pub fn numbers(&self) -> Vec<u32> {
        self.queue.numbers().into_iter().chain(self.weightless.iter(0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::Entries;

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
    fn an_entry_of_no_weight_is_no_victim() {
        let mut entries = Entries::weighing(&[0, 1, 0]);
        let mut lru = Lru::default();
        let uses = AtomicU64::new(1);
        (0..3).for_each(|number| lru.insert(number, &entries, &uses));
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
}
