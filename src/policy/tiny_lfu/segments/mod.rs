//! The segments of W-TinyLFU, window, probation and protected: which entry is in which, and in what order.
//!
//! [`tiny_lfu`](super) describes the algorithm. This file inserts, removes and moves entries, [`victim`] chooses
//! which entry is evicted, and [`second_chance`] says which of the next victims stay.
//!
//! # How it works
//! The window is in the order of the last use, as exact as the ticks of the stamps. It has a list for each of the
//! last few ticks. If the first entry of the oldest list has a later tick in its stamp, it moves to the list of that
//! tick.
//!
//! Probation and protected are queues with a second chance: if the first entry of either was hit often enough for its
//! weight, it goes to the end of protected.
//!
//! Entries of weight 0 are in a list of their own, `Weightless`, which no victim is taken from.
//!
//! Each call looks at a bounded number of entries ([`MAX_STEPS_PER_CALL`]).
//!
//! # Invariants
//! - `one-segment`: a known entry is in a list of the segment that `segments` says, and in no other list.
//! - `sums`: the weight of a segment is the sum of the weights of its entries, where an entry of weight 0 counts as 1.
//! - `oldest-tick`: no entry is in a list of the window for a tick before `oldest_tick`.
//!
//! # Why not one list for the window
//! A hit would have to move its entry, under a lock. With a list for each tick, a hit writes the stamp, and an entry
//! moves when it is about to leave the window.

mod second_chance;
mod victim;

use crate::collections::index_lists::IndexLists;
use crate::collections::try_reserve::{self, NoMemory};
use crate::sync::prefetch_write;

use super::access_stamps::{self, AccessStamps};
use super::sketch::Sketch;
use crate::policy::{EntryView, EntryViews};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Segment {
    Probation,
    Protected,
    Weightless,
    Window,
}

use Segment::{Probation, Protected, Weightless, Window};

/// How many segments there are.
const SEGMENTS: usize = 4;
/// The first list of the window. Each other segment has one list, whose position is its discriminant.
const FIRST_WINDOW_LIST: usize = Window as usize;
/// The ticks that the window can tell apart.
const WINDOW_TICKS: u64 = 64;
const LISTS: usize = FIRST_WINDOW_LIST + WINDOW_TICKS as usize;
/// The ticks in which as many entries are inserted as the window holds. With 4, a window of 100 % is an LRU only by and
/// large: a loop of 90 % of the capacity loses its first keys, and phases of such loops have 2 to 3 points fewer hits.
const TICKS_PER_WINDOW: u32 = 32;
/// The ticks in which as many entries are inserted as the shard holds, at most. With more, hits of hot entries would
/// write more often.
const MAX_TICKS_PER_SHARD: u32 = 512;
/// Less than one part in so many of its share tells too little about a shard.
const MIN_FORETOLD_PART: u64 = 64;
/// The entries that one call looks at. With 16 the hit ratio is 0.1 points lower, with 200 0.1 points higher.
const MAX_STEPS_PER_CALL: usize = 32;
/// The least that an entry adds to the weight of its segment. So the weight of `Weightless` is its number of entries.
const MIN_WEIGHT: u64 = 1;

/// The fields that each write changes come first, in one cache line, since usually another thread wrote it last.
#[repr(C)]
pub(super) struct Segments {
    /// The number of entries at the last insert.
    live: u32,
    /// The inserts that the current tick still has.
    inserts_until_tick: u32,
    /// The weight of each segment; of `Weightless`, the number of entries.
    weights: [u64; SEGMENTS],
    /// The current tick, and the oldest one of which the window has entries.
    tick: u64,
    oldest_tick: u64,
    sketch: Sketch,
    lists: IndexLists,
    /// The segment of each index that is in a list.
    segments: Vec<Segment>,
    /// The weight that the shard has room for.
    share: u64,
    /// The part of the weight that the window may have, from 0 to 1, and that weight. Updated with each tick.
    window_fraction: f64,
    window_share: u64,
    /// The average weight of the entries that have a weight. Updated with each tick.
    average_weight: u64,
    /// Candidates that lost although they were frequent.
    frequent_losses: u64,
    /// The weight of heavy entries that lost their second chance, less that of light entries that stayed in its place.
    forfeited: u64,
}

impl Segments {
    pub fn new(share: u64, window_fraction: f64) -> Self {
        Segments {
            live: 0,
            inserts_until_tick: 0,
            weights: [0; SEGMENTS],
            tick: 0,
            oldest_tick: 0,
            sketch: Sketch::default(),
            lists: IndexLists::with_lists(LISTS),
            segments: Vec::new(),
            share,
            window_fraction,
            window_share: 1,
            frequent_losses: 0,
            average_weight: 0,
            forfeited: 0,
        }
    }

    /// Reserves the memory that an entry needs here.
    pub fn reserve(&mut self, index: u32) -> Result<(), NoMemory> {
        self.lists.reserve(index)?;
        try_reserve::reserve(&mut self.segments, index)
    }

    /// Prefetches the memory that an insert and its victim will change here.
    pub fn prefetch(&self, entries: &impl EntryViews) {
        prefetch_write(self);
        for list in [Probation as usize, window_list(self.oldest_tick), window_list(self.tick)] {
            self.lists.prefetch_anchor(list);
        }
        for head in self.heads() {
            self.lists.prefetch(head);
            prefetch_write(entries.stamp(head));
        }
    }

    /// Prefetches the memory that the removal of the next victim will change in the map. Without this, an insert that
    /// evicts takes a third longer in a cache of 300,000 entries.
    #[inline(never)]
    fn prefetch_victim(&self, entries: &impl EntryViews) {
        for head in self.heads() {
            entries.prefetch_remove(entries.hash(head));
        }
    }

    /// The first entries of the window and of probation: one of them is usually the next victim.
    fn heads(&self) -> impl Iterator<Item = u32> {
        [window_list(self.oldest_tick), Probation as usize]
            .into_iter()
            .filter_map(|list| self.lists.front(list))
    }

    /// Adds a new entry to the window. `live` is the number of entries with it.
    pub fn insert(
        &mut self,
        index: u32,
        EntryView { stamp, .. }: EntryView<'_>,
        live: usize,
        is_sampled: bool,
        entries: &impl EntryViews,
        stamps: &AccessStamps,
    ) {
        self.live = live as u32;
        self.sketch.maintain(live);
        if self.inserts_until_tick == 0 {
            self.begin_tick(live, entries, stamps);
        }
        self.inserts_until_tick -= 1;
        access_stamps::init(stamp, self.tick, index, is_sampled);
        self.link(Window, index, entries);
    }

    #[cold]
    fn begin_tick(&mut self, live: usize, entries: &impl EntryViews, stamps: &AccessStamps) {
        self.tick += 1;
        stamps.advance(self.tick);
        let window_entries = (live as f64 * self.window_fraction) as u32;
        let min_inserts = live as u32 / MAX_TICKS_PER_SHARD;
        self.inserts_until_tick = (window_entries / TICKS_PER_WINDOW).max(min_inserts).max(1);
        self.set_window_fraction(self.window_fraction);
        if entries.is_weighted() {
            // The new entry is not in a list yet.
            self.update_average_weight(live - 1);
        }
    }

    /// Sets the part of the weight that the window may have.
    pub fn set_window_fraction(&mut self, fraction: f64) {
        // If the keys of one shard hold more than its share, the segments grow with them.
        let held = self.weight().max(self.share);
        let share = ((held as f64 * fraction) as u64).max(1);
        // Usually nothing changes, and then the cache line stays clean.
        if (self.window_fraction, self.window_share) != (fraction, share) {
            (self.window_fraction, self.window_share) = (fraction, share);
        }
    }

    /// Takes over another share of the capacity. The window gets the same part of it as before.
    ///
    /// Entries that the share has no room for do not count here: they are about to be evicted.
    pub fn set_share(&mut self, share: u64) {
        self.share = share;
        self.window_share = ((share as f64 * self.window_fraction) as u64).max(1);
        // The next insert begins a tick, whose length fits the new size.
        self.inserts_until_tick = 0;
    }

    /// The number of entries at the last insert.
    pub fn live(&self) -> usize {
        self.live as usize
    }

    pub fn window_fraction(&self) -> f64 {
        self.window_fraction
    }

    pub fn remove(&mut self, index: u32, entries: &impl EntryViews) {
        self.unlink(index, entries.weight(index));
    }

    /// Takes over an entry's new weight, which was `old_weight`.
    pub fn update_weight(&mut self, index: u32, old_weight: u64, entries: &impl EntryViews) {
        if old_weight == 0 || entries.weight(index) == 0 {
            self.unlink(index, old_weight);
            self.link(Window, index, entries);
        } else {
            let weight = &mut self.weights[self.segment_of(index) as usize];
            *weight = *weight - old_weight + entries.weight(index);
        }
    }

    /// Returns some entry, a cold one where that takes no search; `None` if there is none.
    pub fn peek_cold(&mut self) -> Option<u32> {
        let lists = [Probation as usize, Protected as usize, Weightless as usize].into_iter();
        let window = (self.oldest_tick..self.oldest_tick + WINDOW_TICKS).map(window_list);
        lists.chain(window).find_map(|list| self.lists.front(list))
    }

    /// Releases the memory of the indices from `limit` up, which must not be in use. If few entries are `live`, it
    /// also forgets how often former entries were used.
    pub fn trim(&mut self, limit: u32, live: usize) {
        self.sketch.trim(live);
        self.lists.trim(limit);
        self.segments.truncate(limit as usize);
        self.segments.shrink_to_fit();
    }

    pub fn contains(&self, index: u32) -> bool {
        self.lists.contains(index)
    }

    /// Foretells how many entries the shard has when it is full, from those that it has with a new one of this weight.
    /// `None` as long as less than [`MIN_FORETOLD_PART`] of its share is used.
    pub fn entries_if_full(&self, new_weight: u64, live: usize) -> Option<usize> {
        let weight = self.weight() + new_weight;
        let is_enough = weight > 0 && weight >= self.share / MIN_FORETOLD_PART;
        is_enough.then(|| (live as f64 * self.share as f64 / weight as f64) as usize)
    }

    /// Adds the pending hits of an entry to the sketch.
    pub fn record_pending_hits(&mut self, index: u32, entries: &impl EntryViews) {
        let entry = entries.entry(index);
        self.record_hits(access_stamps::take_hits(entry.stamp), entry.hash);
    }

    fn record_hits(&mut self, hits: u32, hash: u64) {
        if hits > 0 {
            self.sketch.add(hash, hits);
        }
    }

    /// Adds the insert of an entry to the sketch, if it is pending.
    #[inline]
    fn record_pending_insert(&mut self, entry: EntryView<'_>) {
        if access_stamps::take_insert(entry.stamp) {
            self.sketch.add(entry.hash, 1);
        }
    }

    /// The weight of all entries.
    fn weight(&self) -> u64 {
        self.weights[Window as usize] + self.main_weight()
    }

    fn main_weight(&self) -> u64 {
        self.weights[Probation as usize] + self.weights[Protected as usize]
    }

    fn segment_of(&self, index: u32) -> Segment {
        debug_assert!(self.contains(index), "`one-segment`");
        self.segments[index as usize]
    }

    /// Appends an entry to a segment, or to `Weightless` if it has no weight.
    fn link(&mut self, segment: Segment, index: u32, entries: &impl EntryViews) {
        let weight = entries.weight(index);
        let segment = if weight == 0 { Weightless } else { segment };
        let weight = weight.max(MIN_WEIGHT);
        let list = if segment == Window { self.window_list_of(self.tick) } else { segment as usize };
        self.lists.push_back(list, index);
        if self.segments.len() <= index as usize {
            self.segments.resize(index as usize + 1, segment);
        }
        self.segments[index as usize] = segment;
        self.weights[segment as usize] += weight;
    }

    /// Removes an entry of this weight from its segment, if it is known.
    fn unlink(&mut self, index: u32, weight: u64) {
        if self.lists.unlink(index) {
            self.weights[self.segments[index as usize] as usize] -= weight.max(MIN_WEIGHT);
        }
    }

    /// Moves an entry, which has a weight, to the end of probation or protected.
    fn move_to(&mut self, segment: Segment, index: u32, entries: &impl EntryViews) {
        let weight = entries.weight(index);
        debug_assert_ne!(weight, 0, "an entry of weight 0 stays in its own list");
        self.weights[self.segment_of(index) as usize] -= weight;
        self.weights[segment as usize] += weight;
        self.lists.move_back(segment as usize, index);
        self.segments[index as usize] = segment;
    }

    /// The list for a tick from `oldest_tick` to the current one. The last list also has all later ticks.
    fn window_list_of(&self, tick: u64) -> usize {
        window_list(tick.min(self.oldest_tick + WINDOW_TICKS - 1))
    }

    /// Checks `one-segment` and `sums`, and returns the indices that it knows.
    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self, entries: &impl EntryViews) -> Vec<u32> {
        let mut known = Vec::new();
        let window: Vec<usize> = (0..WINDOW_TICKS).map(window_list).collect();
        let others = [Probation, Protected, Weightless].map(|segment| (segment, vec![segment as usize]));
        for (segment, lists) in others.into_iter().chain([(Window, window)]) {
            let indices: Vec<u32> = lists.iter().flat_map(|&list| self.lists.iter(list)).collect();
            assert!(indices.iter().all(|&index| self.segment_of(index) == segment), "`one-segment`");
            let weight: u64 = indices.iter().map(|&index| entries.weight(index).max(MIN_WEIGHT)).sum();
            assert_eq!(weight, self.weights[segment as usize], "`sums`");
            known.extend(indices);
        }
        known
    }
}

fn window_list(tick: u64) -> usize {
    FIRST_WINDOW_LIST + (tick % WINDOW_TICKS) as usize
}

#[cfg(test)]
impl Segments {
    /// The weights of the window and of the main region.
    pub fn region_weights(&self) -> [u64; 2] {
        [self.weights[Window as usize], self.main_weight()]
    }

    pub fn heap_bytes(&self) -> usize {
        self.lists.heap_bytes() + self.segments.capacity() * size_of::<Segment>() + self.sketch.heap_bytes()
    }
}

#[cfg(test)]
mod victim_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::TestEntries;

    #[test]
    fn the_window_keeps_its_part_of_another_share() {
        let entries = TestEntries::of_weight_1(100);
        let stamps = AccessStamps::new(0);
        let mut segments = Segments::new(100, 0.4);
        for index in 0..100 {
            segments.insert(index, entries.entry(index), index as usize + 1, false, &entries, &stamps);
            segments.demote_window_overflow(&entries);
        }
        assert_eq!(segments.region_weights(), [40, 60]);
        segments.set_share(50);
        assert!((0..50).all(|_| segments.take_victim(None, &entries).is_some()));
        assert_eq!(segments.region_weights(), [20, 30]);
        segments.set_share(1_000);
        assert_eq!((segments.window_share, segments.inserts_until_tick), (400, 0));
    }
}
