//! A small copy of the cache, without values: how would another window do?
//!
//! # How it works
//! It sees one key of many, chosen by hash, and has room for as small a part of the entries. It holds 32 bits of
//! each hash in place of the key, and the same [`Segments`] as the cache itself, with a window that stays as it
//! is. Waldspurger, Saemundsson, Ahmad, Park, "Cache Modeling and Optimization using Miniature
//! Simulations" (2017).

use crate::sync::AtomicU64;

use super::access_stamps::AccessStamps;
use super::segments::Segments;
use crate::policy::{EntryView, View};

pub(super) struct GhostCache {
    entries: Entries,
    live: usize,
    /// A number without an entry.
    free: usize,
    regions: Segments,
    uses: AccessStamps,
    /// Accesses that found their key.
    pub hits: u32,
}

struct Entries {
    hashes: Vec<u32>,
    stamps: Vec<AtomicU64>,
}

/// The hash of a number without an entry. A key that has it is taken for one of hash 1.
const NONE: u32 = 0;

impl View for Entries {
    fn look(&self, number: u32) -> EntryView<'_> {
        EntryView { hash: u64::from(self.hashes[number as usize]), stamp: &self.stamps[number as usize] }
    }

    fn weight(&self, _number: u32) -> u64 {
        1
    }
}

impl GhostCache {
    pub fn new(capacity: usize, window: f64) -> Self {
        // The newcomer is there before the victim leaves.
        let numbers = capacity + 1;
        let stamps = std::iter::repeat_with(AtomicU64::default).take(numbers).collect();
        GhostCache {
            entries: Entries { hashes: vec![NONE; numbers], stamps },
            live: 0,
            free: 0,
            regions: Segments::new(capacity as u64, window),
            uses: AccessStamps::new(false),
            hits: 0,
        }
    }

    /// Gets a key, and sets it if it is not there.
    pub fn access(&mut self, hash: u32) {
        let hash = hash.max(NONE + 1);
        match self.entries.hashes.iter().position(|&other| other == hash) {
            Some(number) => {
                self.hits += 1;
                self.uses.record(&self.entries.stamps[number]);
            }
            None => self.insert(hash),
        }
    }

    fn insert(&mut self, hash: u32) {
        let number = self.free;
        self.entries.hashes[number] = hash;
        self.live += 1;
        self.free = self.live;
        let look = self.entries.look(number as u32);
        self.regions.insert(number as u32, look, self.live, false, &self.entries, &self.uses);
        if self.live == self.entries.hashes.len() {
            let victim = self.regions.victim(Some(number as u32), &self.entries);
            self.free = victim.expect("there are others") as usize;
            self.entries.hashes[self.free] = NONE;
            self.live -= 1;
        }
        self.regions.settle(&self.entries);
    }
}

#[cfg(test)]
impl GhostCache {
    pub fn heap_bytes(&self) -> usize {
        let entries = self.entries.hashes.capacity() * 4 + self.entries.stamps.capacity() * 8;
        entries + self.regions.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(capacity: usize, window: f64, keys: impl Iterator<Item = u32>) -> u32 {
        let mut miniature = GhostCache::new(capacity, window);
        for key in keys {
            miniature.access(key.wrapping_mul(0x9e37_79b9));
            let live = miniature.entries.hashes.iter().filter(|&&hash| hash != NONE).count();
            assert!(live == miniature.live && live <= capacity);
        }
        miniature.regions.validate(&miniature.entries);
        miniature.hits
    }

    #[test]
    fn what_fits_is_held() {
        assert_eq!(hits(10, 0.5, (0..100).map(|access| access % 10)), 90);
    }

    #[test]
    fn a_small_window_is_better_for_a_loop_and_a_large_one_for_what_is_used_twice() {
        let repeated = || (0..3_000).map(|access| access % 40);
        assert!(hits(20, 0.01, repeated()) > 2 * hits(20, 0.9, repeated()));
        // Each key comes again after eight others, and then never.
        let twice = || (10..6_000).map(|access| if access & 1 == 0 { access } else { (access - 9) & !1 });
        assert!(hits(20, 0.9, twice()) > 2 * hits(20, 0.01, twice()));
    }
}
