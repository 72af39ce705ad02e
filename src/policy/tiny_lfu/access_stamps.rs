//! What readers tell `tiny_lfu` without a lock: the uses of entries.
//!
//! # How it works
//! A hit writes to the stamp of its entry, and only what changes it: a count that ends where the sketch does, and
//! the [tick](AccessStamps::advance) of the last use, of which there are a few in the time that an entry spends in
//! the window. So a hot entry is read without a write (law 5). The policy takes the count
//! when it comes upon the entry.
//!
//! A few entries, chosen by hash, are followed: their stamps carry a mark and their number, and a use that
//! changes the stamp also puts the number into a ring, in the order of the uses, which the policy empties.
//!
//! The access that brought an entry, its birth, is a mark in the stamp until the entry leaves or is the next of the main
//! region to leave, where its frequency is asked for in any case. Of what is removed or expires before, it is not counted.
//!
//! | bits of a stamp | meaning |
//! |---|---|
//! | 0-3 | uses since they were counted last |
//! | 4 | there were uses that are counted, and its place in the order is not yet put right for them |
//! | 5 | it is followed |
//! | 6 | its birth is not counted yet |
//! | 8-31 | the tick of its last use |
//! | 32-63 | the number of a followed entry |
//!
//! # Orderings
//! All are Relaxed: an access that is lost or doubled between threads costs accuracy, never correctness.

use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, Padded};

use super::sketch::MOST;

const COUNT: u64 = MOST as u64;
const USED: u64 = 1 << 4;
const FOLLOWED: u64 = 1 << 5;
const BORN: u64 = 1 << 6;
const TICK_SHIFT: u32 = 8;
const TICKS: u64 = 0xff_ffff;
const TICK: u64 = TICKS << TICK_SHIFT;
const NUMBER_SHIFT: u32 = 32;

/// The uses of followed entries that can wait.
const RING: u64 = 64;

pub(crate) struct AccessStamps {
    /// The tick of now in its place in a stamp, and a full count: what readers need of it.
    tick: Padded<AtomicU64>,
    ring: Option<Box<Ring>>,
}

/// The numbers of followed entries that were used, oldest first, while there is room.
struct Ring {
    pushed: AtomicU64,
    taken: AtomicU64,
    numbers: [AtomicU64; RING as usize],
}

fn zeros<const COUNT: usize>() -> [AtomicU64; COUNT] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

impl AccessStamps {
    /// `can_follow` says whether there can be followed entries.
    pub fn new(can_follow: bool) -> Self {
        let ring = || Ring { pushed: AtomicU64::new(0), taken: AtomicU64::new(0), numbers: zeros() };
        AccessStamps {
            tick: Padded(AtomicU64::new(COUNT)),
            ring: can_follow.then(|| Box::new(ring())),
        }
    }

    /// Notes a use of an entry: a hit, or another value.
    #[inline(always)]
    pub fn record(&self, stamp: &AtomicU64) {
        let old = stamp.load(Relaxed);
        // What of the tick is another, and how far the count is from its end.
        let differs = (old ^ self.tick.0.load(Relaxed)) & (TICK | COUNT);
        if differs != 0 {
            let more = u64::from(differs & COUNT != 0);
            stamp.store((old ^ differs & TICK) + more, Relaxed);
            if old & FOLLOWED != 0 {
                self.push((old >> NUMBER_SHIFT) as u32);
            }
        }
    }

    #[cold]
    fn push(&self, number: u32) {
        let Some(ring) = &self.ring else { return };
        let pushed = ring.pushed.load(Relaxed);
        if pushed.wrapping_sub(ring.taken.load(Relaxed)) < RING {
            ring.numbers[(pushed % RING) as usize].store(u64::from(number), Relaxed);
            ring.pushed.store(pushed.wrapping_add(1), Relaxed);
        }
    }

    /// Begins another tick.
    pub fn advance(&self, now: u64) {
        self.tick.0.store(tick(now) | COUNT, Relaxed);
    }

    /// The uses of followed entries that wait, taken in order. Threads that use such entries all the while do not
    /// keep the caller: no more come than can wait.
    pub fn take_followed(&self) -> impl Iterator<Item = u32> {
        std::iter::from_fn(|| self.next_followed()).take(RING as usize)
    }

    fn next_followed(&self) -> Option<u32> {
        let ring = self.ring.as_ref()?;
        let taken = ring.taken.load(Relaxed);
        if taken == ring.pushed.load(Relaxed) {
            return None;
        }
        ring.taken.store(taken.wrapping_add(1), Relaxed);
        Some(ring.numbers[(taken % RING) as usize].load(Relaxed) as u32)
    }
}

/// The tick of now in its place in a stamp.
fn tick(now: u64) -> u64 {
    (now & TICKS) << TICK_SHIFT
}

/// Stamps an entry that is new to the policy, in the tick of now.
pub(super) fn begin(stamp: &AtomicU64, now: u64, number: u32, is_followed: bool) {
    let mark = if is_followed { u64::from(number) << NUMBER_SHIFT | FOLLOWED } else { 0 };
    stamp.store(tick(now) | BORN | mark, Relaxed);
}

/// The uses since they were counted last, which are counted with this.
pub(super) fn count(stamp: &AtomicU64) -> u32 {
    let old = stamp.load(Relaxed);
    if old & COUNT != 0 {
        stamp.store(old & !COUNT | USED, Relaxed);
    }
    (old & COUNT) as u32
}

/// Whether there were uses since the entry's place was put right last, which it is with this; and those that
/// were not counted, which are with this.
pub(super) fn take(stamp: &AtomicU64) -> Option<u32> {
    let old = stamp.load(Relaxed);
    if old & (COUNT | USED) == 0 {
        return None;
    }
    stamp.store(old & !(COUNT | USED), Relaxed);
    Some((old & COUNT) as u32)
}

/// Whether the birth was not counted, which it is with this.
#[inline]
pub(super) fn take_birth(stamp: &AtomicU64) -> bool {
    let old = stamp.load(Relaxed);
    let is_uncounted = old & BORN != 0;
    if is_uncounted {
        stamp.store(old & !BORN, Relaxed);
    }
    is_uncounted
}

/// The uses since they were counted last, and the birth if it was not, without counting them.
pub(super) fn uncounted(stamp: &AtomicU64) -> u32 {
    let stamp = stamp.load(Relaxed);
    (stamp & COUNT) as u32 + u32::from(stamp & BORN != 0)
}

/// How many ticks ago the entry was used last.
pub(super) fn age(stamp: &AtomicU64, now: u64) -> u64 {
    now.wrapping_sub(stamp.load(Relaxed) >> TICK_SHIFT) & TICKS
}

pub(super) fn is_followed(stamp: &AtomicU64) -> bool {
    stamp.load(Relaxed) & FOLLOWED != 0
}

pub(super) fn unfollow(stamp: &AtomicU64) {
    stamp.store(stamp.load(Relaxed) & (COUNT | USED | BORN | TICK), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp_of(number: u32, is_followed: bool) -> AtomicU64 {
        stamp_at(0, number, is_followed)
    }

    fn stamp_at(now: u64, number: u32, is_followed: bool) -> AtomicU64 {
        let stamp = AtomicU64::new(u64::MAX);
        begin(&stamp, now, number, is_followed);
        take_birth(&stamp);
        stamp
    }

    #[test]
    fn a_count_ends_where_the_sketch_does_and_then_nothing_is_written() {
        let uses = AccessStamps::new(false);
        let stamp = stamp_of(7, false);
        (0..100).for_each(|_| uses.record(&stamp));
        assert_eq!(uncounted(&stamp), MOST);
        let before = stamp.load(Relaxed);
        uses.record(&stamp);
        assert_eq!(stamp.load(Relaxed), before);
        assert_eq!((count(&stamp), count(&stamp), uncounted(&stamp)), (MOST, 0, 0));
    }

    #[test]
    fn a_birth_counts_once_and_is_no_use() {
        let uses = AccessStamps::new(true);
        for is_followed in [false, true] {
            let stamp = AtomicU64::new(0);
            begin(&stamp, 0, 7, is_followed);
            assert_eq!((uncounted(&stamp), take(&stamp)), (1, None));
            uses.record(&stamp);
            unfollow(&stamp);
            assert_eq!((uncounted(&stamp), count(&stamp), take(&stamp)), (2, 1, Some(0)));
            assert_eq!((uncounted(&stamp), take_birth(&stamp), uncounted(&stamp)), (1, true, 0));
            assert!(!take_birth(&stamp));
        }
        assert!(!take_birth(&stamp_of(7, false)), "it was counted before");
    }

    #[test]
    fn counted_uses_are_remembered_until_the_order_is_put_right() {
        let uses = AccessStamps::new(false);
        let stamp = stamp_of(7, false);
        assert_eq!(take(&stamp), None);
        (0..3).for_each(|_| uses.record(&stamp));
        assert_eq!(count(&stamp), 3);
        assert_eq!(take(&stamp), Some(0));
        assert_eq!(take(&stamp), None);
        (0..2).for_each(|_| uses.record(&stamp));
        assert_eq!((take(&stamp), uncounted(&stamp)), (Some(2), 0));
    }

    #[test]
    fn the_tick_of_the_last_use_is_kept() {
        let uses = AccessStamps::new(false);
        let first = (1 << 24) - 2;
        uses.advance(first);
        let stamp = stamp_at(first, 7, false);
        for now in first..first + 5 {
            uses.advance(now);
            assert_eq!(age(&stamp, now), now - first, "also where the ticks of a stamp begin anew");
        }
        uses.record(&stamp);
        assert_eq!(age(&stamp, first + 5), 1);
    }

    #[test]
    fn uses_of_followed_entries_come_in_their_order_while_there_is_room() {
        let uses = AccessStamps::new(true);
        let stamps: Vec<_> = (0..10).map(|number| stamp_of(number, number != 3)).collect();
        [5, 3, 1, 5].into_iter().for_each(|number: usize| uses.record(&stamps[number]));
        let taken = || uses.take_followed().collect::<Vec<_>>();
        assert_eq!(taken(), [5, 1, 5]);
        for _ in 0..12 {
            stamps.iter().for_each(|stamp| uses.record(stamp));
        }
        assert_eq!(taken().len() as u64, RING);
        uses.record(&stamps[9]);
        assert_eq!(taken(), [9]);
        assert!(is_followed(&stamps[9]) && !is_followed(&stamps[3]));
    }

    #[test]
    fn uses_that_come_while_others_are_taken_do_not_keep_the_taker() {
        let uses = AccessStamps::new(true);
        let stamps: Vec<_> = (0..10).map(|number| stamp_of(number, true)).collect();
        let use_all = || {
            uses.advance(0);
            stamps.iter().for_each(|stamp| stamp.store(stamp.load(Relaxed) & !COUNT, Relaxed));
            stamps.iter().for_each(|stamp| uses.record(stamp));
        };
        use_all();
        let taken = uses.take_followed().inspect(|_| use_all()).take(1_000).count();
        assert_eq!(taken as u64, RING);
    }
}
