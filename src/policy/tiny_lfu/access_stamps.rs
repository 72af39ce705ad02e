//! The stamps of `tiny_lfu`: one word for each entry, in which a hit records itself without a lock.
//!
//! # How it works
//! A hit writes to the stamp of its entry, and only what changes the stamp:
//! - a count, which ends at the highest value that the sketch can hold;
//! - the tick of the last use, from a clock of which only a few ticks pass while an entry is in the window
//!   ([`AccessStamps::advance`]).
//!
//! So a hot entry is read without a write (law 5). The policy takes the count when it looks at the entry.
//!
//! The insert of an entry is an access as well. It stays pending in the stamp until the entry is evicted, or is the
//! next victim of the main region. The frequency of the entry is needed then, so its counters are read in any case. If
//! an entry is removed or expires before that, its insert is never counted.
//!
//! The window tuner samples a few entries, chosen by hash. The stamp of a sampled entry holds its index. If a hit
//! changes that stamp, it also pushes the index to a ring, which the policy drains, so the tuner learns the hits in
//! their order.
//!
//! | bits of a stamp | meaning |
//! |---|---|
//! | 0-3 | hits that are not in the sketch yet |
//! | 4 | the sketch has hits for which the entry has not moved yet |
//! | 5 | the entry is sampled |
//! | 6 | the insert is not in the sketch yet |
//! | 8-31 | the tick of the last use |
//! | 32-63 | the index of a sampled entry |
//!
//! # Orderings
//! All are Relaxed. If two threads write one stamp or one place of the ring, a hit is lost or counted twice, which
//! costs accuracy, never correctness.
//!
//! # Why not count each hit in the sketch
//! That is a hash, a cache miss and a store for each hit. The sketch would need atomics, and hot
//! counters would move between the caches of all cores.

use std::ops::Range;

use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, Padded};

use super::sketch::MAX_COUNT;

const HITS: u64 = MAX_COUNT as u64;
const MOVE_DUE: u64 = 1 << 4;
const SAMPLED: u64 = 1 << 5;
const INSERT_PENDING: u64 = 1 << 6;
const TICK_SHIFT: u32 = 8;
pub(super) const MAX_TICK: u64 = 0xff_ffff;
const TICK: u64 = MAX_TICK << TICK_SHIFT;
const INDEX_SHIFT: u32 = 32;

/// The clock that hits read, and the ring that hits of sampled entries write.
pub(crate) struct AccessStamps {
    /// The current tick where a stamp has it, and a full count below: all that a hit compares its stamp with.
    tick: Padded<AtomicU64>,
    ring: Option<Box<Ring>>,
}

/// The indices of sampled entries that were hit, oldest first. If it is full, hits are not recorded.
struct Ring {
    pushed: AtomicU64,
    taken: AtomicU64,
    /// A power of two of them.
    indices: Box<[AtomicU64]>,
}

impl AccessStamps {
    /// Makes a ring in which a hit of each of `max_sampled` entries can wait. With 0, no entries can be sampled.
    ///
    /// If all entries are hit in turn without an insert, as in a loop, no hit is lost. Lost hits would make the loop look
    /// shorter than it is.
    pub fn new(max_sampled: usize) -> Self {
        let ring = || Ring {
            pushed: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            indices: (0..max_sampled.next_power_of_two()).map(|_| AtomicU64::new(0)).collect(),
        };
        AccessStamps { tick: Padded(AtomicU64::new(HITS)), ring: (max_sampled > 0).then(|| Box::new(ring())) }
    }

    /// Records a hit: a read, or another value.
    #[inline(always)]
    pub fn record(&self, stamp: &AtomicU64) {
        let old = stamp.load(Relaxed);
        // The bits of the tick that differ, and those of the count that are not set yet.
        let differs = (old ^ self.tick.0.load(Relaxed)) & (TICK | HITS);
        if differs != 0 {
            let more = u64::from(differs & HITS != 0);
            stamp.store((old ^ differs & TICK) + more, Relaxed);
            if old & SAMPLED != 0 {
                self.push_sampled((old >> INDEX_SHIFT) as u32);
            }
        }
    }

    #[cold]
    fn push_sampled(&self, index: u32) {
        let Some(ring) = &self.ring else { return };
        let pushed = ring.pushed.load(Relaxed);
        if pushed.wrapping_sub(ring.taken.load(Relaxed)) < ring.indices.len() as u64 {
            ring.slot(pushed).store(u64::from(index), Relaxed);
            ring.pushed.store(pushed.wrapping_add(1), Relaxed);
        }
    }

    /// Sets the clock to the tick `now`.
    pub fn advance(&self, now: u64) {
        self.tick.0.store(tick_bits(now) | HITS, Relaxed);
    }

    /// Drains the ring, oldest hit first. Hits that other threads push meanwhile are left to the next call, so these
    /// threads cannot keep the caller here.
    pub fn take_sampled(&self) -> impl Iterator<Item = u32> {
        self.ring
            .iter()
            .flat_map(|ring| ring.take_pushed().map(|number| ring.slot(number).load(Relaxed) as u32))
    }
}

impl Ring {
    /// Takes all hits. Returns their numbers.
    fn take_pushed(&self) -> Range<u64> {
        let (taken, pushed) = (self.taken.load(Relaxed), self.pushed.load(Relaxed));
        if taken == pushed {
            return 0..0;
        }
        self.taken.store(pushed, Relaxed);
        // A thread that was delayed in a push may have stored a number below that of the last drain.
        if pushed.wrapping_sub(taken) <= self.indices.len() as u64 { taken..pushed } else { 0..0 }
    }

    /// The place of the hit with this number.
    fn slot(&self, number: u64) -> &AtomicU64 {
        &self.indices[number as usize & (self.indices.len() - 1)]
    }
}

/// A tick where a stamp has it.
fn tick_bits(tick: u64) -> u64 {
    (tick & MAX_TICK) << TICK_SHIFT
}

/// Writes the first stamp of an entry, in the tick `now`. Its insert is pending.
pub(super) fn init(stamp: &AtomicU64, now: u64, index: u32, is_sampled: bool) {
    let sample = if is_sampled { u64::from(index) << INDEX_SHIFT | SAMPLED } else { 0 };
    stamp.store(tick_bits(now) | INSERT_PENDING | sample, Relaxed);
}

/// Takes the pending hits out of the stamp. The entry still has to move for them.
pub(super) fn take_hits(stamp: &AtomicU64) -> u32 {
    let old = stamp.load(Relaxed);
    if old & HITS != 0 {
        stamp.store(old & !HITS | MOVE_DUE, Relaxed);
    }
    (old & HITS) as u32
}

/// Takes the pending hits out of the stamp of an entry that moves for them. `None` if the entry has had no hit since
/// its last move.
pub(super) fn take_hits_and_move(stamp: &AtomicU64) -> Option<u32> {
    let old = stamp.load(Relaxed);
    if old & (HITS | MOVE_DUE) == 0 {
        return None;
    }
    stamp.store(old & !(HITS | MOVE_DUE), Relaxed);
    Some((old & HITS) as u32)
}

/// Takes the pending insert out of the stamp. Returns whether there was one.
#[inline]
pub(super) fn take_insert(stamp: &AtomicU64) -> bool {
    let old = stamp.load(Relaxed);
    let is_pending = old & INSERT_PENDING != 0;
    if is_pending {
        stamp.store(old & !INSERT_PENDING, Relaxed);
    }
    is_pending
}

/// Whether the entry has had a hit since its last move.
pub(super) fn is_move_due(stamp: &AtomicU64) -> bool {
    stamp.load(Relaxed) & (HITS | MOVE_DUE) != 0
}

/// The accesses that are not in the sketch yet: hits, and the insert.
pub(super) fn pending_accesses(stamp: &AtomicU64) -> u32 {
    let stamp = stamp.load(Relaxed);
    (stamp & HITS) as u32 + u32::from(stamp & INSERT_PENDING != 0)
}

/// The ticks that passed since the last use.
pub(super) fn ticks_since_use(stamp: &AtomicU64, now: u64) -> u64 {
    now.wrapping_sub(stamp.load(Relaxed) >> TICK_SHIFT) & MAX_TICK
}

pub(super) fn is_sampled(stamp: &AtomicU64) -> bool {
    stamp.load(Relaxed) & SAMPLED != 0
}

pub(super) fn stop_sampling(stamp: &AtomicU64) {
    stamp.store(stamp.load(Relaxed) & (HITS | MOVE_DUE | INSERT_PENDING | TICK), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp_of(index: u32, is_sampled: bool) -> AtomicU64 {
        stamp_at(0, index, is_sampled)
    }

    /// A stamp whose insert was counted.
    fn stamp_at(now: u64, index: u32, is_sampled: bool) -> AtomicU64 {
        let stamp = AtomicU64::new(u64::MAX);
        init(&stamp, now, index, is_sampled);
        take_insert(&stamp);
        stamp
    }

    #[test]
    fn a_full_count_is_not_written_again() {
        let stamps = AccessStamps::new(0);
        let stamp = stamp_of(7, false);
        (0..100).for_each(|_| stamps.record(&stamp));
        assert_eq!(pending_accesses(&stamp), MAX_COUNT);
        let before = stamp.load(Relaxed);
        stamps.record(&stamp);
        assert_eq!(stamp.load(Relaxed), before);
        assert_eq!((take_hits(&stamp), take_hits(&stamp), pending_accesses(&stamp)), (MAX_COUNT, 0, 0));
    }

    #[test]
    fn an_insert_counts_once_and_is_no_hit() {
        let stamps = AccessStamps::new(64);
        for is_sampled in [false, true] {
            let stamp = AtomicU64::new(0);
            init(&stamp, 0, 7, is_sampled);
            assert_eq!((pending_accesses(&stamp), take_hits_and_move(&stamp)), (1, None));
            stamps.record(&stamp);
            stop_sampling(&stamp);
            let pending = pending_accesses(&stamp);
            assert_eq!((pending, take_hits(&stamp), take_hits_and_move(&stamp)), (2, 1, Some(0)));
            let pending = pending_accesses(&stamp);
            assert_eq!((pending, take_insert(&stamp), pending_accesses(&stamp)), (1, true, 0));
            assert!(!take_insert(&stamp));
        }
    }

    #[test]
    fn a_move_stays_due_after_its_hits_were_counted() {
        let stamps = AccessStamps::new(0);
        let stamp = stamp_of(7, false);
        assert_eq!(take_hits_and_move(&stamp), None);
        (0..3).for_each(|_| stamps.record(&stamp));
        assert_eq!(take_hits(&stamp), 3);
        assert_eq!(take_hits_and_move(&stamp), Some(0));
        assert_eq!(take_hits_and_move(&stamp), None);
        (0..2).for_each(|_| stamps.record(&stamp));
        assert_eq!((take_hits_and_move(&stamp), pending_accesses(&stamp)), (Some(2), 0));
    }

    #[test]
    fn the_tick_of_the_last_use_is_kept() {
        let stamps = AccessStamps::new(0);
        let first = (1 << 24) - 2;
        stamps.advance(first);
        let stamp = stamp_at(first, 7, false);
        for now in first..first + 5 {
            stamps.advance(now);
            assert_eq!(ticks_since_use(&stamp, now), now - first, "also where the tick of a stamp wraps");
        }
        stamps.record(&stamp);
        assert_eq!(ticks_since_use(&stamp, first + 5), 1);
    }

    #[test]
    fn hits_of_sampled_entries_are_taken_in_order_while_there_is_room() {
        let stamps = AccessStamps::new(64);
        let words: Vec<_> = (0..10).map(|index| stamp_of(index, index != 3)).collect();
        [5, 3, 1, 5].into_iter().for_each(|index: usize| stamps.record(&words[index]));
        let taken = || stamps.take_sampled().collect::<Vec<_>>();
        assert_eq!(taken(), [5, 1, 5]);
        for _ in 0..12 {
            words.iter().for_each(|stamp| stamps.record(stamp));
        }
        assert_eq!(taken().len() as u64, 64);
        stamps.record(&words[9]);
        assert_eq!(taken(), [9]);
        assert!(is_sampled(&words[9]) && !is_sampled(&words[3]));
    }

    #[test]
    fn hits_during_a_drain_do_not_prolong_it() {
        let stamps = AccessStamps::new(64);
        let words: Vec<_> = (0..10).map(|index| stamp_of(index, true)).collect();
        let hit_all = || {
            stamps.advance(0);
            words.iter().for_each(|stamp| stamp.store(stamp.load(Relaxed) & !HITS, Relaxed));
            words.iter().for_each(|stamp| stamps.record(stamp));
        };
        hit_all();
        let taken = stamps.take_sampled().inspect(|_| hit_all()).take(1_000).count();
        assert_eq!(taken, 10);
    }

    #[test]
    fn a_push_that_ends_after_a_drain_loses_its_hit_alone() {
        let stamps = AccessStamps::new(64);
        let stamp = stamp_of(7, true);
        (0..10).for_each(|_| stamps.record(&stamp));
        assert_eq!(stamps.take_sampled().count(), 10);
        // The thread had read 2 before the drain.
        stamps.ring.as_ref().expect("there is one").pushed.store(3, Relaxed);
        assert_eq!(stamps.take_sampled().count(), 0);
        stamps.record(&stamp);
        assert_eq!(stamps.take_sampled().collect::<Vec<_>>(), [7]);
    }
}
