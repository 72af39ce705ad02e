//! How large the window is to be: as the workload wants it.
//!
//! # How it works
//! After a number of accesses to the full cache, the hits in the window are compared with the hits in the main
//! region, each for its size, and the border between the two moves toward the one with fewer. That finds a good window
//! nearby, but the best may be far off: what the average entry of a region is worth does not tell what one more
//! would be. So four [miniatures](GhostCache) with windows of 1, 15, 50 and 90 % see a sample of the accesses,
//! and the window stays in a range around that of the one with the most hits of late.
//!
//! Only one shard of a cache, the leader, does this; the others take over its window. Keys go to shards
//! by hash, so its keys are a sample of all. Its miniatures take less than 16 KB, and those of a large cache less than
//! 64 KB, whatever the capacity.
//!
//! # Where the figures come from
//! From the traces that `stress/hit_ratio` replays and some made ones. Half or twice of any of them changes
//! the mean by less than 0.1 points.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering::Relaxed};

use super::access_stamps::{self, AccessStamps};
use super::ghost_cache::GhostCache;
use super::segments::Segments;
use crate::policy::View;

/// The window to begin with, as a part of the whole.
const FIRST: f64 = 0.01;
/// The window is moved after this many accesses for each entry.
const PERIOD: u64 = 4;
/// The most that it is moved at a time, where one region has at least e² times as many hits for its size.
const STEP: f64 = 0.0625;

/// The windows of the miniatures, and the range in which that of the cache is where that one is best.
const CANDIDATES: [(f64, RangeInclusive<f64>); 4] =
    [(0.01, 0.0..=0.05), (0.15, 0.05..=0.3), (0.5, 0.3..=0.7), (0.9, 0.7..=0.99)];
/// Without miniatures.
const ANY: RangeInclusive<f64> = 0.0..=0.99;
/// At least one key in 2 to this is followed.
const LEAST_SAMPLING: u32 = 2;
/// A miniature has at most this many keys; one more fills its sketch. More of them foretell better, and cost more.
const MOST_KEYS: usize = 63;
/// And so many in a cache of [`LARGE`] entries or more, of which few in a thousand are followed. With 63 keys a cache of
/// 100,000 that was read through by Zipf's law had 78.2 in place of 78.8 % hits in one process of three.
const MOST_KEYS_OF_LARGE: usize = 255;
const LARGE: usize = 16_384;
/// Another miniature is better once it has so many more hits than the one that was best: fewer are chance.
const BETTER: f64 = 1.01;
/// With fewer keys their hits say nothing.
const LEAST_KEYS: usize = 12;

/// The window that all shards of a cache share.
#[derive(Clone)]
pub(crate) struct Window(Arc<AtomicU64>);

impl Default for Window {
    fn default() -> Self {
        Window(Arc::new(AtomicU64::new(FIRST.to_bits())))
    }
}

impl Window {
    pub fn get(&self) -> f64 {
        // Relaxed: a window is a number and nothing else.
        f64::from_bits(self.0.load(Relaxed))
    }

    fn set(&self, window: f64) {
        self.0.store(window.to_bits(), Relaxed);
    }
}

/// What the leader does about the window.
pub(super) struct WindowTuner {
    /// How many shards there are: so many times as many entries as the leader has are in the cache.
    shards: usize,
    /// Whether the cache was full once; before that nothing is at stake.
    was_full: bool,
    /// Entries that came since the window was looked at last.
    births: u64,
    miniatures: Option<Box<Miniatures>>,
}

struct Miniatures {
    /// One key in 2 to this is followed.
    sampling: u32,
    keys: usize,
    each: [GhostCache; CANDIDATES.len()],
    /// Hits, those of long ago for less.
    scores: [f64; CANDIDATES.len()],
    best: Option<usize>,
}

impl WindowTuner {
    /// Of the leader of so many shards.
    pub fn new(shards: usize) -> Self {
        WindowTuner { shards, was_full: false, births: 0, miniatures: None }
    }

    /// Learns of the uses of followed entries, in their order.
    pub fn learn_uses(&mut self, regions: &mut Segments, view: &impl View, uses: &AccessStamps) {
        for number in uses.take_followed() {
            // It may have left since, and another may have its number.
            if !regions.knows(number) {
                continue;
            }
            let stamp = view.stamp(number);
            if access_stamps::is_followed(stamp) {
                regions.count_uses(number, view);
                let hash = view.hash(number);
                if self.is_followed(hash) {
                    self.learn(hash);
                } else {
                    access_stamps::unfollow(stamp);
                }
            }
        }
    }

    /// Learns of a new entry. Returns whether to follow it.
    pub fn learn_birth(&mut self, hash: u64) -> bool {
        self.births += 1;
        let is_followed = self.is_followed(hash);
        if is_followed {
            self.learn(hash);
        }
        is_followed
    }

    fn is_followed(&self, hash: u64) -> bool {
        let sampling = self.miniatures.as_ref().map_or(LEAST_SAMPLING, |miniatures| miniatures.sampling);
        hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - sampling) == 0
    }

    fn learn(&mut self, hash: u64) {
        if let Some(miniatures) = &mut self.miniatures {
            miniatures.each.iter_mut().for_each(|miniature| miniature.access((hash >> 32) as u32));
        }
    }

    /// Moves the border, if it is time to. The cache is full, with `live` entries.
    #[inline]
    pub fn steer(&mut self, regions: &mut Segments, live: usize, window: &Window) {
        let accesses = self.births + regions.hits[0] + regions.hits[1];
        if accesses >= PERIOD * live as u64 || !self.was_full {
            self.steer_slow(regions, live, window);
        }
    }

    #[cold]
    #[inline(never)]
    fn steer_slow(&mut self, regions: &mut Segments, live: usize, window: &Window) {
        self.births = 0;
        let hits = std::mem::take(&mut regions.hits);
        if !std::mem::replace(&mut self.was_full, true) {
            self.miniatures = Miniatures::new(live, self.shards);
            return;
        }
        let sizes = regions.sizes();
        let rate = |region: usize| (hits[region] as f64 + 0.5) / sizes[region].max(1) as f64;
        // Without a hit anywhere the rates tell the sizes and nothing else.
        let step = if hits == [0, 0] { 0.0 } else { STEP * (rate(0) / rate(1)).ln().clamp(-2.0, 2.0) / 2.0 };
        let range = match &mut self.miniatures {
            Some(miniatures) if miniatures.fit(live) => miniatures.range(),
            other => {
                *other = Miniatures::new(live, self.shards);
                ANY
            }
        };
        window.set((window.get() + step).clamp(*range.start(), *range.end()));
    }
}

impl Miniatures {
    /// Of a shard with so many entries, one of so many shards, if that is enough.
    fn new(live: usize, shards: usize) -> Option<Box<Self>> {
        let most = if live.saturating_mul(shards) < LARGE { MOST_KEYS } else { MOST_KEYS_OF_LARGE };
        let sampling = (LEAST_SAMPLING..).find(|&sampling| live >> sampling <= most)?;
        let keys = live >> sampling;
        let miniature = |candidate: usize| GhostCache::new(keys, CANDIDATES[candidate].0);
        (keys >= LEAST_KEYS).then(|| {
            let each = std::array::from_fn(miniature);
            Box::new(Miniatures { sampling, keys, each, scores: Default::default(), best: None })
        })
    }

    /// Whether they are of the size for this many entries, more or less.
    fn fit(&self, live: usize) -> bool {
        let keys = live >> self.sampling;
        keys / 2 <= self.keys && self.keys <= keys * 2
    }

    /// The range of the one that is best now.
    fn range(&mut self) -> RangeInclusive<f64> {
        for (score, miniature) in self.scores.iter_mut().zip(&mut self.each) {
            *score = *score / 2.0 + f64::from(std::mem::take(&mut miniature.hits));
        }
        let top = self.scores.iter().copied().fold(0.0, f64::max);
        // Where all do the same, nothing is known; where some do, the one that was best stays it.
        if self.scores.iter().any(|&score| score < top) {
            let is_as_good = |&best: &usize| self.scores[best] * BETTER >= top;
            let is_top = |&candidate: &usize| self.scores[candidate] == top;
            // The cache begins with the window of the first.
            let before = Some(self.best.unwrap_or(0));
            self.best = before.filter(is_as_good).or_else(|| (0..CANDIDATES.len()).find(is_top));
        }
        self.best.map_or(ANY, |best| CANDIDATES[best].1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::Entries;

    fn hash(key: u64) -> u64 {
        let mixed = (key + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 31).wrapping_mul(0x94d0_49bb_1331_11eb)
    }

    fn steered(steps: usize, hits: [u64; 2]) -> f64 {
        steered_after(0, steps, hits)
    }

    /// The border after so many steps in which so many entries came and each region had these hits, with a window of 10
    /// entries of 100.
    fn steered_after(births: u64, steps: usize, hits: [u64; 2]) -> f64 {
        let entries = Entries::plain(100);
        let mut regions = Segments::new(100, 0.1);
        let uses = AccessStamps::new(false);
        for number in 0..100 {
            regions.insert(number, entries.look(number), number as usize + 1, false, &entries, &uses);
            regions.settle(&entries);
        }
        assert_eq!(regions.sizes(), [10, 90]);
        let window = Window::default();
        window.set(0.1);
        // Too few entries for miniatures.
        let live = 40;
        let mut steering = WindowTuner::new(1);
        steering.steer(&mut regions, live, &window);
        for _ in 0..steps {
            steering.births = births;
            regions.hits = hits;
            steering.steer(&mut regions, live, &window);
        }
        window.get()
    }

    #[test]
    fn the_border_moves_toward_the_region_with_fewer_hits_for_its_size() {
        assert_eq!(steered(1, [0, 0]), 0.1, "the cache is just full");
        assert_eq!(steered(1, [100, 59]), 0.1, "it was too few accesses");
        assert!(steered(1, [100, 100]) > 0.1 && steered(1, [10, 150]) < 0.1);
        let balanced = steered(1, [16, 144]);
        assert!((balanced - 0.1).abs() < 0.005, "{balanced}");
    }

    #[test]
    fn the_border_stays_where_nothing_hits() {
        assert_eq!(steered_after(1_000, 10, [0, 0]), 0.1);
        assert!(steered_after(1_000, 10, [1, 0]) > 0.1);
    }

    #[test]
    fn the_border_moves_by_a_sixteenth_at_most_and_stays_inside() {
        assert_eq!(steered(1, [1_000_000, 0]), 0.1 + STEP);
        assert_eq!(steered(100, [1_000_000, 0]), *ANY.end());
        assert_eq!(steered(100, [0, 1_000_000]), *ANY.start());
    }

    /// The candidate that miniatures of a cache of so many entries find best for these keys.
    fn best(live: usize, keys: impl Iterator<Item = u64>) -> RangeInclusive<f64> {
        let mut steering = WindowTuner { miniatures: Miniatures::new(live, 1), ..WindowTuner::new(1) };
        for key in keys {
            steering.learn_birth(hash(key));
        }
        steering.miniatures.expect("there are enough entries").range()
    }

    #[test]
    fn the_range_is_that_of_the_best_miniature() {
        assert_eq!(best(1_000, (0..100_000).map(|access| access % 2_000)), CANDIDATES[0].1);
        let twice = |access: u64| if access & 1 == 0 { access } else { (access - 999) & !1 };
        assert_eq!(best(1_000, (1_000..200_000).map(twice)), CANDIDATES[3].1);
        assert_eq!(best(1_000, (0..100_000).map(|access| access % 900)), ANY, "they all have the same hits");
    }

    #[test]
    fn miniatures_are_small_whatever_the_capacity() {
        for live in [48, 100, 255, 256, 1_000, 1_000_000, 4_000_000_000] {
            let miniatures = Miniatures::new(live, 1).expect("there are enough entries");
            let most = if live < LARGE { MOST_KEYS } else { MOST_KEYS_OF_LARGE };
            assert!((LEAST_KEYS..=most).contains(&miniatures.keys));
            assert!(miniatures.fit(live) && !miniatures.fit(live * 3) && !miniatures.fit(live / 3));
        }
        assert!(Miniatures::new(47, 8).is_none());
        assert_eq!(Miniatures::new(4_000, 8).map(|miniatures| miniatures.keys), Some(250));
    }

    #[test]
    fn miniatures_take_less_than_16_or_64_kilobytes() {
        for (live, keys, most) in [(255, MOST_KEYS, 16_384), (1 << 20, MOST_KEYS_OF_LARGE, 65_536)] {
            // The most that any cache of this size has.
            let mut miniatures = Miniatures::new(live - 1, 1).expect("there are enough entries");
            assert_eq!(miniatures.keys, keys);
            (0..100_000)
                .for_each(|key| miniatures.each.iter_mut().for_each(|each| each.access(key * 7 % 400 + 1)));
            let heap: usize = miniatures.each.iter().map(GhostCache::heap_bytes).sum();
            assert!(heap + size_of::<Miniatures>() < most, "{heap}");
        }
    }

    #[test]
    fn the_best_miniature_stays_it_unless_another_is_better_by_more_than_chance() {
        let mut miniatures = Miniatures::new(1_000, 1).expect("there are enough entries");
        let mut range_after = |hits: [u32; CANDIDATES.len()]| {
            miniatures.each.iter_mut().zip(hits).for_each(|(each, hits)| each.hits = hits);
            miniatures.range()
        };
        assert_eq!(range_after([1_000, 1_000, 1_009, 970]), CANDIDATES[0].1);
        assert_eq!(range_after([1_000, 1_010, 1_000, 1_000]), CANDIDATES[0].1);
        assert_eq!(range_after([1_000, 1_100, 1_000, 1_000]), CANDIDATES[1].1);
        assert_eq!(range_after([1_045, 1_000, 1_000, 1_000]), CANDIDATES[1].1);
    }

    #[test]
    fn a_sample_that_no_longer_fits_is_no_longer_followed() {
        let entries = Entries::plain(1_000);
        let uses = AccessStamps::new(true);
        let mut regions = Segments::new(1_000, 0.01);
        let mut steering = WindowTuner::new(1);
        for number in 0..1_000 {
            let is_followed = steering.learn_birth(entries.hash(number));
            regions.insert(number, entries.look(number), number as usize + 1, is_followed, &entries, &uses);
        }
        let followed =
            || (0..1_000).filter(|&number| access_stamps::is_followed(entries.stamp(number))).count();
        assert!((200..300).contains(&followed()), "one in four: {}", followed());
        steering.steer(&mut regions, 1_000, &Window::default());
        for number in 0..1_000 {
            uses.record(entries.stamp(number));
            steering.learn_uses(&mut regions, &entries, &uses);
        }
        assert!((30..100).contains(&followed()), "one in sixteen: {}", followed());
    }
}
