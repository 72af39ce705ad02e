//! A small simulation of the cache, without values: how many hits would another window have?
//!
//! # How it works
//! It is accessed with a sample of the keys, chosen by hash, and has room for the same part of the entries:
//! Waldspurger, Saemundsson, Ahmad, Park, [Cache Modeling and Optimization using Miniature
//! Simulations](https://www.usenix.org/conference/atc17/technical-sessions/presentation/waldspurger) (2017). It holds
//! 32 bits of each hash in place of the key, and the same [`Segments`] as the cache, with a window that stays as it
//! is.
//!
//! # Why not a hash table
//! It holds at most 255 hashes of 4 bytes. A search compares all of them, several by one instruction.

use crate::sync::AtomicU64;

use super::access_stamps::AccessStamps;
use super::segments::Segments;
use crate::policy::{EntryView, EntryViews};

pub(super) struct GhostCache {
    entries: GhostEntries,
    live: usize,
    /// An index without an entry.
    free: usize,
    segments: Segments,
    stamps: AccessStamps,
}

/// By index.
struct GhostEntries {
    hashes: Vec<u32>,
    stamps: Vec<AtomicU64>,
}

/// The hash at an index without an entry. A key that has it is taken for one of hash 1.
const EMPTY: u32 = 0;

impl GhostEntries {
    /// Returns the index of a hash, if it is held.
    fn find(&self, hash: u32) -> Option<usize> {
        // The first search has no early end, so one instruction compares several hashes. Most keys are absent.
        let is_held = self.hashes.iter().fold(false, |is_held, &other| is_held | (other == hash));
        if is_held { self.hashes.iter().position(|&other| other == hash) } else { None }
    }
}

impl EntryViews for GhostEntries {
    fn entry(&self, index: u32) -> EntryView<'_> {
        EntryView { hash: u64::from(self.hashes[index as usize]), stamp: &self.stamps[index as usize] }
    }

    fn weight(&self, _index: u32) -> u64 {
        1
    }

    fn is_weighted(&self) -> bool {
        false
    }
}

impl GhostCache {
    pub fn new(capacity: usize, window_fraction: f64) -> Self {
        // A new entry is inserted before its victim is taken.
        let slots = capacity + 1;
        let stamps = std::iter::repeat_with(AtomicU64::default).take(slots).collect();
        GhostCache {
            entries: GhostEntries { hashes: vec![EMPTY; slots], stamps },
            live: 0,
            free: 0,
            segments: Segments::new(capacity as u64, window_fraction),
            stamps: AccessStamps::new(0),
        }
    }

    /// Gets a key, and inserts it if it is absent. Returns whether it was present.
    pub fn access(&mut self, hash: u32) -> bool {
        let hash = hash.max(EMPTY + 1);
        let present = self.entries.find(hash);
        match present {
            Some(index) => self.stamps.record(&self.entries.stamps[index]),
            None => self.insert(hash),
        }
        present.is_some()
    }

    fn insert(&mut self, hash: u32) {
        let index = self.free as u32;
        self.entries.hashes[self.free] = hash;
        self.live += 1;
        self.free = self.live;
        let entry = self.entries.entry(index);
        self.segments.insert(index, entry, self.live, false, &self.entries, &self.stamps);
        if self.live == self.entries.hashes.len() {
            let victim = self.segments.take_victim(Some(index), &self.entries);
            self.free = victim.expect("there are others") as usize;
            self.entries.hashes[self.free] = EMPTY;
            self.live -= 1;
        }
        self.segments.demote_window_overflow(&self.entries);
    }
}

#[cfg(test)]
impl GhostCache {
    pub fn heap_bytes(&self) -> usize {
        let entries = self.entries.hashes.capacity() * 4 + self.entries.stamps.capacity() * 8;
        entries + self.segments.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(capacity: usize, window: f64, keys: impl Iterator<Item = u32>) -> u32 {
        let mut ghost = GhostCache::new(capacity, window);
        let mut hits = 0;
        for key in keys {
            hits += u32::from(ghost.access(key.wrapping_mul(0x9e37_79b9)));
            let live = ghost.entries.hashes.iter().filter(|&&hash| hash != EMPTY).count();
            assert!(live == ghost.live && live <= capacity);
        }
        ghost.segments.validate(&ghost.entries);
        hits
    }

    #[test]
    fn keys_that_fit_are_held() {
        assert_eq!(hits(10, 0.5, (0..100).map(|access| access % 10)), 90);
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn a_small_window_is_better_for_a_loop_and_a_large_one_for_keys_used_twice() {
        let repeated = || (0..3_000).map(|access| access % 40);
        assert!(hits(20, 0.01, repeated()) > 2 * hits(20, 0.9, repeated()));
        // Each key comes again after eight others, and then never.
        let twice = || (10..6_000).map(|access| if access & 1 == 0 { access } else { (access - 9) & !1 });
        assert!(hits(20, 0.9, twice()) > 2 * hits(20, 0.01, twice()));
    }
}
