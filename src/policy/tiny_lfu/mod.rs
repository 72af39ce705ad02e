//! W-TinyLFU: eviction by frequency and recency, with a window whose size adapts to the workload.
//!
//! # Window and main region
//! A new entry enters the *window*, a small part of the cache in the order of the last use. Entries that the window
//! has no room for move to the *main region*, which consists of two queues. An entry enters *probation*. If it is
//! used there, it moves to *protected*, which has up to 80 % of the main region. An entry that protected has no room
//! for returns to probation, where it has another chance. The window serves bursts, and the main region keeps what is
//! used again and again. [`segments`] holds both.
//!
//! # Admission
//! While the cache is not full, each entry that the window has no room for enters probation. In a full cache it is a
//! *candidate*, and the oldest entry of probation is the *victim*. The entry that was used more often of late stays,
//! and the other is evicted. On a tie the victim stays, so keys that come only once do not displace one another in
//! the main region. `Segments::admits` in `segments/victim.rs` decides. The design is from Einziger, Friedman, Manes,
//! [TinyLFU: A Highly Efficient Cache Admission Policy](https://doi.org/10.1145/3149371) (2017).
//!
//! # Frequencies
//! "How often of late" is asked of a count-min sketch, which also counts keys that are not in the cache. It takes 8
//! to 16 bytes for each entry, whatever the keys. All counters are halved now and then, so the past fades. See
//! [`sketch`].
//!
//! # Weights
//! A candidate that weighs more than its victim displaces several entries. It must have been used more often than all
//! of them together: Einziger, Eytan, Friedman, Manes,
//! [Lightweight Robust Size Aware Cache Management](https://arxiv.org/abs/2105.08770) (2021).
//!
//! In the main region, an entry that is heavier than the average needs more than one hit to stay, and lighter entries
//! take over the room that such entries lose. `segments/second_chance.rs` has the rule, and why it does not ask for
//! more hits for each byte in the admission decision as well.
//!
//! An entry of weight 0 takes no room, so it is never a candidate or a victim.
//!
//! # Random admission against hash flooding
//! Keys that share the counters of a victim make the victim look frequent. A client that finds such keys could
//! request them until no candidate is admitted any more, and the main region would never change. So of the candidates
//! that lose although they are frequent, one in 1,024 is admitted all the same. This comes on top of the seed of each
//! process, which hides the hashes.
//!
//! # Hits
//! A hit takes no lock: it writes a counter and a clock tick to the stamp of its entry, and only if that changes
//! the stamp. The policy reads the stamps of the few entries that it looks at, when it looks for a victim. Only then
//! are hits added to the sketch, and only then do entries move. See [`access_stamps`].
//!
//! # Tuning the window
//! Some workloads want the smallest window, others an LRU. So four *ghost caches*, which hold hashes in place of entries,
//! simulate windows of 0.1, 15, 50 and 100 %. The cache has the window of the one that proves better than the others.
//! See [`ghost_cache`] and [`window_tuner`].
//!
//! A ghost cache sees a sample of the keys, chosen by hash, and is smaller than the cache in the same proportion. If
//! a sampled entry is hit, its index goes to a small ring, which the next insert drains. Keys go to shards by hash,
//! so the keys of one shard are a sample as well. One shard of each cache, the leader, tunes the [`WindowFraction`]
//! that all shards use.
//!
//! # Why not LRU, LFU or a fixed window
//! A scan flushes LRU, and LFU keeps what was popular long ago. A small fixed window can lose more than half of the hits
//! if keys come again soon and then never.

pub(super) mod access_stamps;
mod ghost_cache;
mod segments;
mod sketch;
pub(super) mod window_tuner;

use crate::collections::try_reserve::NoMemory;

use self::access_stamps::AccessStamps;
use self::segments::Segments;
use self::window_tuner::{WindowFraction, WindowTuner};
use crate::policy::{EntryView, EntryViews};

#[repr(C, align(64))]
pub(crate) struct TinyLfu {
    segments: Segments,
    window: WindowFraction,
    /// Only the leader has one.
    tuner: Option<WindowTuner>,
}

impl TinyLfu {
    /// Makes the policy of a shard that has room for the weight `share`. The leader samples up to `max_sampled` entries,
    /// and the other shards 0.
    pub fn new(share: u64, window: WindowFraction, max_sampled: usize) -> Self {
        TinyLfu {
            segments: Segments::new(share, window.get()),
            window,
            tuner: (max_sampled > 0).then(|| WindowTuner::new(max_sampled)),
        }
    }

    pub fn insert(
        &mut self,
        index: u32,
        entry: EntryView<'_>,
        live: usize,
        entries: &impl EntryViews,
        stamps: &AccessStamps,
    ) {
        let mut is_sampled = false;
        if let Some(tuner) = &mut self.tuner {
            tuner.record_sampled_hits(&mut self.segments, entries, stamps);
            is_sampled = tuner.record_insert(entry.hash, entries.weight(index), live, &self.segments);
        }
        self.segments.insert(index, entry, live, is_sampled, entries, stamps);
    }

    pub fn set_share(&mut self, share: u64) {
        self.segments.set_share(share);
    }

    #[inline]
    pub fn prefetch(&self, entries: &impl EntryViews) {
        self.segments.prefetch(entries);
    }

    pub fn reserve(&mut self, index: u32) -> Result<(), NoMemory> {
        self.segments.reserve(index)
    }

    pub fn remove(&mut self, index: u32, entries: &impl EntryViews) {
        self.segments.remove(index, entries);
    }

    pub fn update_weight(&mut self, index: u32, old_weight: u64, entries: &impl EntryViews) {
        self.segments.update_weight(index, old_weight, entries);
    }

    pub fn take_victim(&mut self, keep: Option<u32>, entries: &impl EntryViews) -> Option<u32> {
        if let Some(tuner) = self.tuner.as_mut().filter(|tuner| tuner.is_due()) {
            tuner.tune(self.segments.live(), &self.window);
        }
        let window = self.window.get();
        if window != self.segments.window_fraction() {
            self.segments.set_window_fraction(window);
        }
        self.segments.take_victim(keep, entries)
    }

    pub fn demote_window_overflow(&mut self, entries: &impl EntryViews) {
        self.segments.demote_window_overflow(entries);
    }

    pub fn rank(&self, index: u32, entries: &impl EntryViews) -> u64 {
        self.segments.rank(index, entries)
    }

    pub fn peek_cold(&mut self) -> Option<u32> {
        self.segments.peek_cold()
    }

    pub fn trim(&mut self, limit: u32, live: usize) {
        self.segments.trim(limit, live);
    }

    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self, entries: &impl EntryViews) -> Vec<u32> {
        self.segments.validate(entries)
    }
}
