//! How large the window of `tiny_lfu` is: as the workload wants it.
//!
//! [`tiny_lfu`](super) describes the window. One shard of each cache, the leader, has a [`WindowTuner`]; all shards
//! share the [`WindowFraction`].
//!
//! # How it works
//! Four [ghost caches](super::ghost_cache) simulate the cache with windows of 0.1, 15, 50 and 100 %. The last one is an
//! LRU. The cache has the window of one of them, the chosen one. For each of the others, the tuner keeps its *lead*:
//! the hits that it had more than the chosen one, or fewer. A ghost cache with a lead of [`CHOOSING_LEAD`] is chosen,
//! and all leads begin anew at 0.
//!
//! A lead never falls below half of the keys of a ghost cache. So hits of long ago delay a change of the
//! window only a little: this is the cumulative sum of Page, [Continuous Inspection
//! Schemes](https://doi.org/10.2307/2333009) (1954), with a limit below 0. If the keys come in a loop, the ghost caches
//! have their hits in different parts of the loop. With a limit of 0, the chosen one would change in each pass.
//!
//! If several ghost caches have the same lead, the one with the largest window is chosen. The sample may be kind to a
//! window that is a little too small for the keys.
//!
//! # When it learns
//! As long as the cache is not full, all windows have the same hits. The ghost caches begin when 1/64 of the weight is
//! used, and foretell from the entries so far how many there will be. So they are full when the cache is. A cache whose
//! entries turn out to be more than twice as many, or fewer than half, gets new ghost caches. The chosen window stays,
//! also if the capacity changes or all entries are removed.
//!
//! # What it costs
//! The ghost caches of the leader take less than 16 KiB, and less than 64 KiB in a large cache, whatever the
//! capacity. An access to one of their keys takes 0.2 to 0.4 µs more.
//!
//! # Where the constants come from
//! From the traces and the traps that `stress/hit_ratio` replays. With half or twice any of them, the mean hit ratio
//! changes by less than 0.15 points.
//!
//! # Why not a hill climber
//! The hits of the average entry of a region do not tell how many hits one more entry would have there. So a climber
//! can stay on the wrong side. It also takes many periods to cross the cache when the workload changes.

use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering::Relaxed};

use super::access_stamps::{self, AccessStamps};
use super::ghost_cache::GhostCache;
use super::segments::Segments;
use crate::policy::EntryViews;

/// The windows of the ghost caches, as fractions of the whole. A cache begins with the first one, which has at least
/// one entry. If it began as an LRU, a loop that does not quite fit could have half as many hits.
const GHOST_WINDOWS: [f64; 4] = [0.001, 0.15, 0.5, 1.0];
/// A ghost cache that has so many more hits than the chosen one is chosen. A smaller lead is chance.
const CHOOSING_LEAD: i32 = 8;

/// A ghost cache has one key for so many entries, but at least [`MIN_GHOST_KEYS`].
const ENTRIES_PER_GHOST_KEY: usize = 4;
const MIN_GHOST_KEYS: usize = 16;
/// The most keys of a ghost cache, and those of a large one: with one more its sketch is full. More keys foretell
/// better, and cost more.
const MAX_GHOST_KEYS: u64 = 63;
const MAX_GHOST_KEYS_OF_LARGE: u64 = 255;
/// A cache that has so many entries for each of [`MAX_GHOST_KEYS`] has more keys.
const ENTRIES_PER_GHOST_KEY_OF_LARGE: u64 = 64;
/// With fewer entries, the window stays as it is.
const MIN_ENTRIES: usize = 6;

/// The most keys that a ghost cache of a cache of this capacity has.
pub(crate) fn max_ghost_keys(capacity: u64) -> usize {
    (capacity / ENTRIES_PER_GHOST_KEY_OF_LARGE).clamp(MAX_GHOST_KEYS, MAX_GHOST_KEYS_OF_LARGE) as usize
}

/// The part of the weight that the window may have, from 0 to 1: one value for all shards of a cache.
#[derive(Clone)]
pub(crate) struct WindowFraction(Arc<AtomicU64>);

impl Default for WindowFraction {
    fn default() -> Self {
        WindowFraction(Arc::new(AtomicU64::new(GHOST_WINDOWS[0].to_bits())))
    }
}

impl WindowFraction {
    pub fn get(&self) -> f64 {
        // Relaxed: the number guards no other memory.
        f64::from_bits(self.0.load(Relaxed))
    }

    /// Stores the fraction if it changed, so that its cache line usually stays clean.
    fn set(&self, fraction: f64) {
        if self.get() != fraction {
            self.0.store(fraction.to_bits(), Relaxed);
        }
    }
}

/// The leader's record of the workload.
pub(super) struct WindowTuner {
    ghosts: Option<Box<GhostCaches>>,
    /// The ghost cache whose window the cache has.
    chosen: usize,
    max_keys: usize,
    /// Whether there are no ghost caches, or a key of theirs was accessed since the last [`tune`](Self::tune).
    is_due: bool,
}

struct GhostCaches {
    /// The number of entries that they were made for.
    entries: usize,
    /// How many keys each of them holds.
    keys: usize,
    /// How many of 2^32 keys are sampled.
    sampled: u64,
    each: [GhostCache; GHOST_WINDOWS.len()],
    /// The hits of each since the last choice, less those of the chosen one.
    leads: [i32; GHOST_WINDOWS.len()],
}

impl WindowTuner {
    /// Makes the tuner of a leader. Its ghost caches have at most `max_keys` keys.
    pub fn new(max_keys: usize) -> Self {
        WindowTuner { ghosts: None, chosen: 0, max_keys, is_due: true }
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
                if !self.access_if_sampled(hash) {
                    access_stamps::stop_sampling(stamp);
                }
            }
        }
    }

    /// Takes over an insert into a shard that is not known to be full. Returns whether to sample the entry.
    ///
    /// `weight` is that of the entry, and `live` the number of entries with it.
    pub fn record_insert(&mut self, hash: u64, weight: u64, live: usize, segments: &Segments) -> bool {
        if self.ghosts.is_none()
            && let Some(entries) = segments.entries_if_full(weight, live)
        {
            self.ghosts = GhostCaches::new(entries, self.max_keys);
        }
        self.access_if_sampled(hash)
    }

    /// Whether [`tune`](Self::tune) may change anything.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.is_due
    }

    /// Fits the ghost caches to a full shard of `live` entries, and stores the chosen window.
    #[cold]
    pub fn tune(&mut self, live: usize, window: &WindowFraction) {
        if !self.ghosts.as_ref().is_some_and(|ghosts| ghosts.fit(live)) {
            self.ghosts = GhostCaches::new(live, self.max_keys);
        }
        window.set(GHOST_WINDOWS[self.chosen]);
        self.is_due = self.ghosts.is_none();
    }

    /// Accesses the ghost caches if the key with this hash is sampled. Returns whether it is.
    fn access_if_sampled(&mut self, hash: u64) -> bool {
        let Some(ghosts) = &mut self.ghosts else { return false };
        let is_sampled = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 < ghosts.sampled;
        if is_sampled {
            self.chosen = ghosts.access((hash >> 32) as u32, self.chosen);
            self.is_due = true;
        }
        is_sampled
    }
}

impl GhostCaches {
    /// Makes those of a shard that has `entries` entries when it is full. `None` if these are too few.
    fn new(entries: usize, max_keys: usize) -> Option<Box<Self>> {
        let wanted = (entries / ENTRIES_PER_GHOST_KEY).max(MIN_GHOST_KEYS);
        let keys = wanted.min(max_keys).min(entries);
        (entries >= MIN_ENTRIES).then(|| {
            let each = GHOST_WINDOWS.map(|window| GhostCache::new(keys, window));
            let sampled = ((keys as u64) << 32) / entries as u64;
            Box::new(GhostCaches { entries, keys, sampled, each, leads: Default::default() })
        })
    }

    /// Whether their size is right for `live` entries, within a factor of two.
    fn fit(&self, live: usize) -> bool {
        live < MIN_ENTRIES || (live / 2 <= self.entries && self.entries <= live * 2)
    }

    /// Gets a key, or inserts it, in each of them. Returns the ghost cache that is chosen then.
    fn access(&mut self, hash: u32, chosen: usize) -> usize {
        let hits = self.each.each_mut().map(|ghost| i32::from(ghost.access(hash)));
        let min_lead = -(self.keys as i32 / 2);
        for (lead, hit) in self.leads.iter_mut().zip(hits) {
            *lead = (*lead + hit - hits[chosen]).max(min_lead);
        }
        let first = self.leads.iter().copied().max().unwrap_or(0);
        if first < CHOOSING_LEAD {
            return chosen;
        }
        let largest = self.leads.iter().rposition(|&lead| lead == first);
        self.leads = Default::default();
        largest.unwrap_or(chosen)
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

    fn tuner_for(entries: usize) -> WindowTuner {
        let max_keys = max_ghost_keys(entries as u64);
        WindowTuner { ghosts: GhostCaches::new(entries, max_keys), ..WindowTuner::new(max_keys) }
    }

    /// Accesses keys, and returns the windows that the cache had, one after the other.
    fn windows_after(tuner: &mut WindowTuner, keys: impl Iterator<Item = u64>) -> Vec<f64> {
        let mut windows = vec![GHOST_WINDOWS[tuner.chosen]];
        for key in keys {
            tuner.access_if_sampled(hash(key));
            windows.push(GHOST_WINDOWS[tuner.chosen]);
        }
        windows.dedup();
        windows
    }

    fn in_a_loop(keys: u64, accesses: u64) -> impl Iterator<Item = u64> {
        (0..accesses).map(move |access| access % keys)
    }

    /// Keys from `first` on, each of which is used exactly twice, at this distance.
    fn used_twice(first: u64, distance: u64, accesses: u64) -> impl Iterator<Item = u64> {
        let odd = distance | 1;
        (first..first + accesses).map(move |access| {
            if access.is_multiple_of(2) { access } else { access.saturating_sub(odd).max(first) }
        })
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn the_window_is_that_of_the_ghost_cache_with_the_most_hits() {
        for entries in [500, 1_000, 50_000] {
            let after = |keys: &mut dyn Iterator<Item = u64>| {
                *windows_after(&mut tuner_for(entries), keys).last().expect("there is one")
            };
            let size = entries as u64;
            assert_eq!(after(&mut in_a_loop(2 * size, 40 * size)), GHOST_WINDOWS[0], "{entries}");
            assert_eq!(after(&mut used_twice(0, size, 10 * size)), 1.0, "{entries}");
            let fitting = after(&mut in_a_loop(size / 2, 10 * size));
            assert_eq!(fitting, GHOST_WINDOWS[0], "they all have the same hits");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn the_window_is_chosen_soon_after_the_cache_is_full() {
        let mut tuner = tuner_for(1_000);
        // A half of the accesses are those of new keys, so the cache is full after 2,000.
        let windows = windows_after(&mut tuner, used_twice(0, 600, 3_000));
        assert!(windows.last() >= Some(&0.5), "{windows:?}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn what_was_learned_long_ago_delays_a_change_only_a_little() {
        let mut tuner = tuner_for(1_000);
        windows_after(&mut tuner, in_a_loop(2_000, 200_000));
        assert_eq!(tuner.chosen, 0);
        let windows = windows_after(&mut tuner, used_twice(10_000, 600, 5_000));
        assert!(windows.last() >= Some(&0.5), "{windows:?}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn a_loop_that_does_not_fit_never_changes_the_window() {
        for (entries, keys) in [(1_000, 1_100), (1_000, 2_000), (1_000, 5_000), (50_000, 55_000)] {
            let windows = windows_after(&mut tuner_for(entries), in_a_loop(keys, 20 * keys));
            assert_eq!(windows, [GHOST_WINDOWS[0]], "{keys} keys, {entries} entries");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn of_several_ghost_caches_with_the_same_lead_the_largest_window_is_chosen() {
        let mut ghosts = GhostCaches::new(1_000, 63).expect("there are enough entries");
        let mut absent = 0;
        let mut chosen_with = |leads: [i32; GHOST_WINDOWS.len()]| {
            ghosts.leads = leads;
            // An absent key, so no lead changes.
            absent += 1;
            ghosts.access(absent, 0)
        };
        assert_eq!(chosen_with([0, CHOOSING_LEAD - 1, 0, CHOOSING_LEAD - 1]), 0);
        assert_eq!(chosen_with([0, CHOOSING_LEAD, 0, 0]), 1);
        assert_eq!(chosen_with([0, CHOOSING_LEAD, CHOOSING_LEAD, CHOOSING_LEAD - 1]), 2);
        assert_eq!(ghosts.leads, [0; GHOST_WINDOWS.len()]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn ghost_caches_are_small_whatever_the_number_of_entries() {
        let keys_of = |entries: usize| {
            let ghosts = GhostCaches::new(entries, max_ghost_keys(entries as u64));
            ghosts.map(|ghosts| (ghosts.keys, (ghosts.sampled * entries as u64) >> 32))
        };
        assert_eq!(keys_of(MIN_ENTRIES - 1), None);
        for (entries, keys) in [(6, 6), (16, 16), (40, 16), (100, 25), (1_000, 63), (2_048, 63), (8_192, 128)]
        {
            let (found, sampled) = keys_of(entries).expect("there are enough entries");
            assert_eq!(found, keys, "{entries}");
            // A rounded rate has one key less.
            assert!((keys as u64 - 1..=keys as u64).contains(&sampled), "{sampled} of {entries}");
        }
        assert_eq!(keys_of(4_000_000_000).map(|(keys, _)| keys), Some(MAX_GHOST_KEYS_OF_LARGE as usize));
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn ghost_caches_take_less_than_16_or_64_kibibytes() {
        for (entries, max_bytes) in [(1_000, 16_384), (1 << 20, 65_536)] {
            let mut ghosts =
                GhostCaches::new(entries, max_ghost_keys(entries as u64)).expect("there are enough");
            (0..100_000).for_each(|key| _ = ghosts.access(key * 7 % 400 + 1, 0));
            let heap: usize = ghosts.each.iter().map(GhostCache::heap_bytes).sum();
            assert!(heap + size_of::<GhostCaches>() < max_bytes, "{heap}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn ghost_caches_follow_the_number_of_entries_and_the_window_stays() {
        let window = WindowFraction::default();
        let mut tuner = WindowTuner::new(63);
        tuner.chosen = 2;
        for live in [1_000, 100_000, 1_000, 100] {
            tuner.tune(live, &window);
            let entries = tuner.ghosts.as_ref().expect("there are enough entries").entries;
            assert!((live / 2..=live * 2).contains(&entries), "{entries} entries for {live}");
            assert_eq!(window.get(), GHOST_WINDOWS[2]);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn ghost_caches_begin_before_the_cache_is_full() {
        for weight in [1, 50] {
            let entries = TestEntries::with_weights(&[weight; 200]);
            let stamps = AccessStamps::new(63);
            let mut segments = Segments::new(10_000, GHOST_WINDOWS[0]);
            let mut tuner = WindowTuner::new(63);
            let mut begun = None;
            for index in 0..200 {
                let live = index as usize + 1;
                let is_sampled = tuner.record_insert(entries.hash(index), weight, live, &segments);
                segments.insert(index, entries.entry(index), live, is_sampled, &entries, &stamps);
                begun = begun.or(tuner.ghosts.as_ref().map(|ghosts| (ghosts.entries as u64, live as u64)));
            }
            let (foretold, live) = begun.expect("the weight was enough");
            assert_eq!(foretold, 10_000 / weight, "{weight}");
            assert_eq!(live, (10_000 / 64_u64).div_ceil(weight), "{weight}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn a_sample_that_became_too_large_shrinks() {
        let entries = TestEntries::of_weight_1(1_000);
        let stamps = AccessStamps::new(63);
        let mut segments = Segments::new(1_000, GHOST_WINDOWS[0]);
        let mut tuner = WindowTuner::new(63);
        tuner.tune(100, &WindowFraction::default());
        for index in 0..1_000 {
            let is_sampled = tuner.record_insert(entries.hash(index), 1, index as usize + 1, &segments);
            segments.insert(index, entries.entry(index), index as usize + 1, is_sampled, &entries, &stamps);
        }
        let sampled = || (0..1_000).filter(|&index| access_stamps::is_sampled(entries.stamp(index))).count();
        assert!((200..300).contains(&sampled()), "one in four: {}", sampled());
        tuner.tune(1_000, &WindowFraction::default());
        for index in 0..1_000 {
            stamps.record(entries.stamp(index));
            tuner.record_sampled_hits(&mut segments, &entries, &stamps);
        }
        assert!((30..100).contains(&sampled()), "one in sixteen: {}", sampled());
    }
}
