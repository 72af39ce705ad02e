//! How large the window of `tiny_lfu` is: as the workload wants it.
//!
//! [`tiny_lfu`](super) describes the two signals that set it. One shard of each cache, the leader, has a
//! [`WindowTuner`]; all shards share the [`WindowFraction`].
//!
//! # How it works
//! A period lasts four accesses for each entry. If the cache is full at its end, the border between the window and the
//! main region moves. The ratio of their hits for each entry decides how far, at most 1/16 of the cache. Then the
//! window is limited to the range of the ghost cache that had the most hits of late.
//!
//! The four ghost caches of the leader take less than 16 KiB, and less than 64 KiB in a large cache, whatever the
//! capacity.
//!
//! # Where the constants come from
//! From the traces that `stress/hit_ratio` replays, and some synthetic ones. With half or twice any of them, the mean
//! hit ratio changes by less than 0.1 points.
//!
//! # Why not a hill climber alone
//! The hits of the average entry of a region do not tell how many hits one more entry would have there. So a climber
//! can stay on the wrong side. It also takes many periods to cross the cache when the workload changes.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering::Relaxed};

use super::access_stamps::{self, AccessStamps};
use super::ghost_cache::GhostCache;
use super::segments::Segments;
use crate::policy::EntryViews;

/// The window of a new cache, as a fraction of the whole.
const INITIAL_WINDOW: f64 = 0.01;
/// The accesses for each entry after which the window is tuned.
const PERIOD_PER_ENTRY: u64 = 4;
/// The most that the border moves in a period: if one region has at least e² times as many hits for each entry.
const MAX_BORDER_STEP: f64 = 0.0625;

/// The windows of the ghost caches, and the range of the cache's window while that one is the best.
const GHOST_WINDOWS: [(f64, RangeInclusive<f64>); 4] =
    [(0.01, 0.0..=0.05), (0.15, 0.05..=0.3), (0.5, 0.3..=0.7), (0.9, 0.7..=0.99)];
/// The range if no ghost cache is the best.
const FULL_RANGE: RangeInclusive<f64> = 0.0..=0.99;
/// At most one key in 2 to this is sampled.
const MIN_SAMPLING_SHIFT: u32 = 2;
/// The most keys of a ghost cache: with one more its sketch is full. More keys foretell better, and cost more.
const MAX_GHOST_KEYS: usize = 63;
/// The same for a cache of [`LARGE_CACHE_ENTRIES`] or more, of which only a few keys in a thousand are sampled. With
/// 63 keys, a cache of 100,000 entries that is read through by Zipf's law has 78.2 in place of 78.8 % hits in one
/// process of three.
const MAX_GHOST_KEYS_OF_LARGE: usize = 255;
const LARGE_CACHE_ENTRIES: usize = 16_384;
/// With fewer keys, chance decides which ghost cache has the most hits.
const MIN_GHOST_KEYS: usize = 12;
/// Another ghost cache becomes the best once it has so many times the hits of the best one. A smaller lead is chance.
const MIN_LEAD: f64 = 1.01;

/// The part of the weight that the window may have, from 0 to 1: one value for all shards of a cache.
#[derive(Clone)]
pub(crate) struct WindowFraction(Arc<AtomicU64>);

impl Default for WindowFraction {
    fn default() -> Self {
        WindowFraction(Arc::new(AtomicU64::new(INITIAL_WINDOW.to_bits())))
    }
}

impl WindowFraction {
    pub fn get(&self) -> f64 {
        // Relaxed: the number guards no other memory.
        f64::from_bits(self.0.load(Relaxed))
    }

    fn set(&self, fraction: f64) {
        self.0.store(fraction.to_bits(), Relaxed);
    }
}

/// The leader's record of the workload.
pub(super) struct WindowTuner {
    /// The number of shards: the cache has about this many times the entries of the leader.
    shards: usize,
    /// Whether the cache was ever full. Before that no window is better than another.
    was_full: bool,
    /// Inserts since the window was tuned last.
    inserts: u64,
    ghosts: Option<Box<GhostCaches>>,
}

struct GhostCaches {
    /// One key in 2 to this is sampled.
    sampling_shift: u32,
    /// How many keys each of them holds.
    keys: usize,
    each: [GhostCache; GHOST_WINDOWS.len()],
    /// Their hits; those of each earlier period count half as much as those of the next.
    scores: [f64; GHOST_WINDOWS.len()],
    best: Option<usize>,
}

impl WindowTuner {
    /// Makes the tuner of the leader of `shards` shards.
    pub fn new(shards: usize) -> Self {
        WindowTuner { shards, was_full: false, inserts: 0, ghosts: None }
    }

    /// Takes over the hits of sampled entries, in their order.
    pub fn record_sampled_hits(
        &mut self,
        segments: &mut Segments,
        entries: &impl EntryViews,
        stamps: &AccessStamps,
    ) {
        for index in stamps.take_sampled() {
            // The entry may have been removed after the hit, and its index given to another entry.
            if !segments.contains(index) {
                continue;
            }
            let stamp = entries.stamp(index);
            if access_stamps::is_sampled(stamp) {
                segments.record_pending_hits(index, entries);
                let hash = entries.hash(index);
                if self.is_sampled(hash) {
                    self.access_ghosts(hash);
                } else {
                    access_stamps::stop_sampling(stamp);
                }
            }
        }
    }

    /// Takes over an insert. Returns whether to sample the entry.
    pub fn record_insert(&mut self, hash: u64) -> bool {
        self.inserts += 1;
        let is_sampled = self.is_sampled(hash);
        if is_sampled {
            self.access_ghosts(hash);
        }
        is_sampled
    }

    fn is_sampled(&self, hash: u64) -> bool {
        let shift = self.ghosts.as_ref().map_or(MIN_SAMPLING_SHIFT, |ghosts| ghosts.sampling_shift);
        hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - shift) == 0
    }

    fn access_ghosts(&mut self, hash: u64) {
        if let Some(ghosts) = &mut self.ghosts {
            ghosts.each.iter_mut().for_each(|ghost| ghost.access((hash >> 32) as u32));
        }
    }

    /// Tunes the window, if a period has ended. The cache is full, and the leader has `live` entries.
    #[inline]
    pub fn tune(&mut self, segments: &mut Segments, live: usize, window: &WindowFraction) {
        let accesses = self.inserts + segments.hits[0] + segments.hits[1];
        if accesses >= PERIOD_PER_ENTRY * live as u64 || !self.was_full {
            self.tune_slow(segments, live, window);
        }
    }

    #[cold]
    #[inline(never)]
    fn tune_slow(&mut self, segments: &mut Segments, live: usize, window: &WindowFraction) {
        self.inserts = 0;
        let hits = std::mem::take(&mut segments.hits);
        if !std::mem::replace(&mut self.was_full, true) {
            self.ghosts = GhostCaches::new(live, self.shards);
            return;
        }
        let weights = segments.region_weights();
        let rate = |region: usize| (hits[region] as f64 + 0.5) / weights[region].max(1) as f64;
        // Without any hit the rates would depend on the weights alone.
        let step = if hits == [0, 0] {
            0.0
        } else {
            MAX_BORDER_STEP * (rate(0) / rate(1)).ln().clamp(-2.0, 2.0) / 2.0
        };
        let range = match &mut self.ghosts {
            Some(ghosts) if ghosts.fit(live) => ghosts.best_range(),
            other => {
                *other = GhostCaches::new(live, self.shards);
                FULL_RANGE
            }
        };
        window.set((window.get() + step).clamp(*range.start(), *range.end()));
    }
}

impl GhostCaches {
    /// Makes those of a shard with `live` entries, one of `shards`. `None` if these are too few.
    fn new(live: usize, shards: usize) -> Option<Box<Self>> {
        let is_large = live.saturating_mul(shards) >= LARGE_CACHE_ENTRIES;
        let max_keys = if is_large { MAX_GHOST_KEYS_OF_LARGE } else { MAX_GHOST_KEYS };
        let sampling_shift = (MIN_SAMPLING_SHIFT..).find(|&shift| live >> shift <= max_keys)?;
        let keys = live >> sampling_shift;
        let ghost = |index: usize| GhostCache::new(keys, GHOST_WINDOWS[index].0);
        (keys >= MIN_GHOST_KEYS).then(|| {
            let each = std::array::from_fn(ghost);
            Box::new(GhostCaches { sampling_shift, keys, each, scores: Default::default(), best: None })
        })
    }

    /// Whether their size is right for `live` entries, within a factor of about two.
    fn fit(&self, live: usize) -> bool {
        let keys = live >> self.sampling_shift;
        keys / 2 <= self.keys && self.keys <= keys * 2
    }

    /// Ends a period, and returns the range of the best ghost cache.
    fn best_range(&mut self) -> RangeInclusive<f64> {
        for (score, ghost) in self.scores.iter_mut().zip(&mut self.each) {
            *score = *score / 2.0 + f64::from(std::mem::take(&mut ghost.hits));
        }
        let top = self.scores.iter().copied().fold(0.0, f64::max);
        // If all have the same score, none is the best. If several share the top score, the previous best one
        // remains.
        if self.scores.iter().any(|&score| score < top) {
            let is_as_good = |&best: &usize| self.scores[best] * MIN_LEAD >= top;
            let is_top = |&index: &usize| self.scores[index] == top;
            // The cache begins with the window of the first ghost cache.
            let previous = Some(self.best.unwrap_or(0));
            self.best = previous.filter(is_as_good).or_else(|| (0..GHOST_WINDOWS.len()).find(is_top));
        }
        self.best.map_or(FULL_RANGE, |best| GHOST_WINDOWS[best].1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::TestEntries;

    fn hash(key: u64) -> u64 {
        let mixed = (key + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 31).wrapping_mul(0x94d0_49bb_1331_11eb)
    }

    fn tuned(periods: usize, hits: [u64; 2]) -> f64 {
        tuned_after(0, periods, hits)
    }

    /// The window after some periods that each had these inserts and these hits of the regions. It begins with 10
    /// entries of 100.
    fn tuned_after(inserts: u64, periods: usize, hits: [u64; 2]) -> f64 {
        let entries = TestEntries::of_weight_1(100);
        let mut segments = Segments::new(100, 0.1);
        let stamps = AccessStamps::new(false);
        for index in 0..100 {
            segments.insert(index, entries.entry(index), index as usize + 1, false, &entries, &stamps);
            segments.demote_window_overflow(&entries);
        }
        assert_eq!(segments.region_weights(), [10, 90]);
        let window = WindowFraction::default();
        window.set(0.1);
        // Too few entries for ghost caches.
        let live = 40;
        let mut tuner = WindowTuner::new(1);
        tuner.tune(&mut segments, live, &window);
        for _ in 0..periods {
            tuner.inserts = inserts;
            segments.hits = hits;
            tuner.tune(&mut segments, live, &window);
        }
        window.get()
    }

    #[test]
    fn the_border_moves_toward_the_region_with_fewer_hits_for_each_entry() {
        assert_eq!(tuned(1, [0, 0]), 0.1, "the cache has just become full");
        assert_eq!(tuned(1, [100, 59]), 0.1, "the period has not ended");
        assert!(tuned(1, [100, 100]) > 0.1 && tuned(1, [10, 150]) < 0.1);
        let balanced = tuned(1, [16, 144]);
        assert!((balanced - 0.1).abs() < 0.005, "{balanced}");
    }

    #[test]
    fn the_border_stays_if_nothing_hits() {
        assert_eq!(tuned_after(1_000, 10, [0, 0]), 0.1);
        assert!(tuned_after(1_000, 10, [1, 0]) > 0.1);
    }

    #[test]
    fn the_border_moves_by_a_sixteenth_at_most_and_stays_inside() {
        assert_eq!(tuned(1, [1_000_000, 0]), 0.1 + MAX_BORDER_STEP);
        assert_eq!(tuned(100, [1_000_000, 0]), *FULL_RANGE.end());
        assert_eq!(tuned(100, [0, 1_000_000]), *FULL_RANGE.start());
    }

    /// The range that the ghost caches of a cache of `live` entries find best for these keys.
    fn best_range(live: usize, keys: impl Iterator<Item = u64>) -> RangeInclusive<f64> {
        let mut tuner = WindowTuner { ghosts: GhostCaches::new(live, 1), ..WindowTuner::new(1) };
        for key in keys {
            tuner.record_insert(hash(key));
        }
        tuner.ghosts.expect("there are enough entries").best_range()
    }

    #[test]
    fn the_range_is_that_of_the_best_ghost_cache() {
        assert_eq!(best_range(1_000, (0..100_000).map(|access| access % 2_000)), GHOST_WINDOWS[0].1);
        let twice = |access: u64| if access & 1 == 0 { access } else { (access - 999) & !1 };
        assert_eq!(best_range(1_000, (1_000..200_000).map(twice)), GHOST_WINDOWS[3].1);
        let fitting = (0..100_000).map(|access| access % 900);
        assert_eq!(best_range(1_000, fitting), FULL_RANGE, "they all have the same hits");
    }

    #[test]
    fn ghost_caches_are_small_whatever_the_capacity() {
        for live in [48, 100, 255, 256, 1_000, 1_000_000, 4_000_000_000] {
            let ghosts = GhostCaches::new(live, 1).expect("there are enough entries");
            let max_keys = if live < LARGE_CACHE_ENTRIES { MAX_GHOST_KEYS } else { MAX_GHOST_KEYS_OF_LARGE };
            assert!((MIN_GHOST_KEYS..=max_keys).contains(&ghosts.keys));
            assert!(ghosts.fit(live) && !ghosts.fit(live * 3) && !ghosts.fit(live / 3));
        }
        assert!(GhostCaches::new(47, 8).is_none());
        assert_eq!(GhostCaches::new(4_000, 8).map(|ghosts| ghosts.keys), Some(250));
    }

    #[test]
    fn ghost_caches_take_less_than_16_or_64_kibibytes() {
        for (live, keys, max_bytes) in
            [(255, MAX_GHOST_KEYS, 16_384), (1 << 20, MAX_GHOST_KEYS_OF_LARGE, 65_536)]
        {
            // The most keys that any cache of this kind has.
            let mut ghosts = GhostCaches::new(live - 1, 1).expect("there are enough entries");
            assert_eq!(ghosts.keys, keys);
            (0..100_000)
                .for_each(|key| ghosts.each.iter_mut().for_each(|ghost| ghost.access(key * 7 % 400 + 1)));
            let heap: usize = ghosts.each.iter().map(GhostCache::heap_bytes).sum();
            assert!(heap + size_of::<GhostCaches>() < max_bytes, "{heap}");
        }
    }

    #[test]
    fn the_best_ghost_cache_remains_unless_another_leads_by_more_than_chance() {
        let mut ghosts = GhostCaches::new(1_000, 1).expect("there are enough entries");
        let mut range_after = |hits: [u32; GHOST_WINDOWS.len()]| {
            ghosts.each.iter_mut().zip(hits).for_each(|(ghost, hits)| ghost.hits = hits);
            ghosts.best_range()
        };
        assert_eq!(range_after([1_000, 1_000, 1_009, 970]), GHOST_WINDOWS[0].1);
        assert_eq!(range_after([1_000, 1_010, 1_000, 1_000]), GHOST_WINDOWS[0].1);
        assert_eq!(range_after([1_000, 1_100, 1_000, 1_000]), GHOST_WINDOWS[1].1);
        assert_eq!(range_after([1_045, 1_000, 1_000, 1_000]), GHOST_WINDOWS[1].1);
    }

    #[test]
    fn ghost_caches_follow_the_number_of_entries() {
        let window = WindowFraction::default();
        let mut segments = Segments::new(1_000, 0.01);
        let mut tuner = WindowTuner::new(1);
        for live in [1_000, 100_000, 1_000, 100] {
            // The entries of another capacity, after a period of accesses.
            segments.set_share(live as u64);
            for _ in 0..2 {
                tuner.inserts = PERIOD_PER_ENTRY * live as u64;
                tuner.tune(&mut segments, live, &window);
            }
            let ghosts = tuner.ghosts.as_ref().expect("there are enough entries");
            assert!(ghosts.fit(live), "{} keys for {live} entries", ghosts.keys);
        }
    }

    #[test]
    fn a_sample_that_became_too_large_shrinks() {
        let entries = TestEntries::of_weight_1(1_000);
        let stamps = AccessStamps::new(true);
        let mut segments = Segments::new(1_000, 0.01);
        let mut tuner = WindowTuner::new(1);
        for index in 0..1_000 {
            let is_sampled = tuner.record_insert(entries.hash(index));
            segments.insert(index, entries.entry(index), index as usize + 1, is_sampled, &entries, &stamps);
        }
        let sampled = || (0..1_000).filter(|&index| access_stamps::is_sampled(entries.stamp(index))).count();
        assert!((200..300).contains(&sampled()), "one in four: {}", sampled());
        tuner.tune(&mut segments, 1_000, &WindowFraction::default());
        for index in 0..1_000 {
            stamps.record(entries.stamp(index));
            tuner.record_sampled_hits(&mut segments, &entries, &stamps);
        }
        assert!((30..100).contains(&sampled()), "one in sixteen: {}", sampled());
    }
}
