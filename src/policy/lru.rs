//! The least recently used entry leaves.
//!
//! A hit stamps its entry and tells nobody; a queue that asks for the stamp late gives the exact order all
//! the same. In one thread stamps are never equal, so the order is exactly that of the uses.

use crate::lazy_queue::LazyQueue;
use crate::sync::Ordering;

use super::View;

#[derive(Default)]
pub(crate) struct Lru {
    queue: LazyQueue,
}

impl Lru {
    pub fn insert(&mut self, number: u32, view: &impl View) {
        self.queue.file(number, view.stamp(number).load(Ordering::Relaxed));
    }

    pub fn remove(&mut self, number: u32) {
        self.queue.remove(number);
    }

    pub fn victim(&mut self, keep: Option<u32>, view: &impl View) -> Option<u32> {
        let first = self.pop(view)?;
        if Some(first) != keep {
            return Some(first);
        }
        // The entry to keep was used last, so it is alone; or other threads stamped at the same time.
        let second = self.pop(view);
        self.insert(first, view);
        second
    }

    fn pop(&mut self, view: &impl View) -> Option<u32> {
        let stamp = |number| Some(view.stamp(number).load(Ordering::Relaxed));
        self.queue.pop(u64::MAX, &mut usize::MAX.clone(), stamp)
    }

    pub fn any(&mut self) -> Option<u32> {
        self.queue.any()
    }

    pub fn trim(&mut self, limit: u32) {
        self.queue.trim(limit);
    }

    #[cfg(any(test, debug_assertions))]
    pub fn numbers(&self) -> Vec<u32> {
        self.queue.numbers()
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
            lru.insert(number as u32, &entries);
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
        lru.insert(0, &entries);
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
}
