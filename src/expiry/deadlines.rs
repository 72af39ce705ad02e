//! When entries expire: two words for each, beside the entries of a chunk.
//!
//! # How it works
//! An entry has the sooner of two deadlines. The one since its write is an instant. The one since its last use is counted from
//! that use by a duration, which mostly is the cache's own for all entries, so that only a mark says so; the durations
//! that entries were given for themselves have a list of their own, made when the first of a chunk has one.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | all | the value first, then Release here, `end` last | Acquire here, `end` first, then the value | a reader that sees a new deadline sees the new value |
//! | `used_at` | Relaxed, a maximum, by a reader | Acquire | a use is an instant and nothing else |

use std::time::Duration;

use crate::collections::try_reserve::NoMemory;
use crate::expiry::{Lifetime, NEVER};
use crate::expiry::{end_of, time_left_of};
use crate::sync::{AtomicU64, OnceLock, Ordering, Zeroed, zeroed_atomics};

const WHOSE_BITS: u32 = 2;
const WHOSE: u64 = (1 << WHOSE_BITS) - 1;
const NOBODYS: u64 = 0;
const CACHES: u64 = 1;
const ITS_OWN: u64 = 2;

/// The lives of the entries of a chunk. Instants are nanoseconds of the cache's clock.
pub(crate) struct DeadlineTable {
    /// The cache's time to idle, in nanoseconds; 0 if it has none.
    tti: u64,
    /// Two for each entry, side by side, and 0 where it never expires. `end`: the instant where its time since the write
    /// ends, or 0 if it does not; and in the lowest two bits, whose time to idle it has. `used_at`: the instant of its
    /// last use.
    words: Zeroed<AtomicU64>,
    /// The times to idle of entries that have their own.
    ttis: OnceLock<Zeroed<AtomicU64>>,
}

/// The life of one entry.
#[derive(Clone, Copy)]
pub(crate) struct DeadlineRef<'g> {
    lives: &'g DeadlineTable,
    offset: usize,
}

impl DeadlineTable {
    /// So many lives without an end, in a cache of this time to idle.
    pub fn new(len: usize, tti: u64) -> Result<Self, NoMemory> {
        Ok(DeadlineTable { tti, words: zeroed_atomics(2 * len).ok_or(NoMemory)?, ttis: OnceLock::new() })
    }

    /// Makes sure that an entry can have such a lifetime. Called by the lock's holder.
    #[inline]
    pub fn reserve(&self, lifetime: Lifetime) -> Result<(), NoMemory> {
        if self.whose(lifetime) == ITS_OWN && self.ttis.get().is_none() {
            let _ = self.ttis.set(zeroed_atomics(self.words.len() / 2).ok_or(NoMemory)?);
        }
        Ok(())
    }

    #[inline(always)]
    pub fn at(&self, offset: usize) -> DeadlineRef<'_> {
        DeadlineRef { lives: self, offset }
    }

    fn whose(&self, lifetime: Lifetime) -> u64 {
        match lifetime.tti {
            0 => NOBODYS,
            tti if tti == self.tti => CACHES,
            _ => ITS_OWN,
        }
    }
}

impl DeadlineRef<'_> {
    #[inline(always)]
    fn end(&self) -> &AtomicU64 {
        &self.lives.words[2 * self.offset]
    }

    #[inline(always)]
    fn used_at(&self) -> &AtomicU64 {
        &self.lives.words[2 * self.offset + 1]
    }

    /// The time to idle that an end speaks of; 0 if there is none.
    #[inline]
    fn tti(&self, end: u64) -> u64 {
        match end & WHOSE {
            NOBODYS => 0,
            CACHES => self.lives.tti,
            // Acquire: pairs with the Release in `begin`.
            _ => self.lives.ttis.get().map_or(0, |ttis| ttis[self.offset].load(Ordering::Acquire)),
        }
    }

    /// The instant from which on the entry is expired.
    #[inline]
    pub fn deadline(&self) -> u64 {
        // Acquire: pairs with the Release in `begin`; the value is read after it.
        let end = self.end().load(Ordering::Acquire);
        let by_write = if end >> WHOSE_BITS == 0 { NEVER } else { end >> WHOSE_BITS };
        match self.tti(end) {
            0 => by_write,
            tti => by_write.min(self.used_at().load(Ordering::Acquire).saturating_add(tti)),
        }
    }

    /// The time that the entry has left, 0 after its deadline; `None` if it has none.
    pub fn time_left(&self, now: u64) -> Option<Duration> {
        // Acquire: as in `deadline`.
        let end = self.end().load(Ordering::Acquire);
        let by_write = (end >> WHOSE_BITS != 0).then(|| time_left_of(now, 0, end >> WHOSE_BITS));
        let by_use = match self.tti(end) {
            0 => None,
            tti => Some(time_left_of(now, self.used_at().load(Ordering::Acquire), tti)),
        };
        by_write.into_iter().chain(by_use).min()
    }

    /// Begins anew, with the deadline that it returns. The memory of a time to idle of its own was reserved.
    #[inline]
    pub fn begin(&self, now: u64, lifetime: Lifetime) -> u64 {
        let expires_at = if lifetime.ttl == 0 { 0 } else { end_of(now, lifetime.ttl) };
        let whose = self.lives.whose(lifetime);
        // Release: pairs with the Acquire in `deadline`; the value was written before.
        self.used_at().store(now, Ordering::Release);
        if let (ITS_OWN, Some(ttis)) = (whose, self.lives.ttis.get()) {
            ttis[self.offset].store(lifetime.tti, Ordering::Release);
        }
        self.end().store(expires_at << WHOSE_BITS | whose, Ordering::Release);
        let by_write = if expires_at == 0 { NEVER } else { expires_at };
        if lifetime.tti == 0 { by_write } else { by_write.min(now.saturating_add(lifetime.tti)) }
    }

    /// Notes a use, for the time to idle. A use within a microsecond of the last one is not worth a
    /// written cache line: the entry then expires that much early, never late.
    #[inline]
    pub fn touch(&self, now: u64) {
        const WORTH_A_WRITE: u64 = 1_000;
        // Relaxed: a use is an instant and nothing else.
        let has_no_flights = self.end().load(Ordering::Relaxed) & WHOSE != NOBODYS;
        if has_no_flights && now > self.used_at().load(Ordering::Relaxed).saturating_add(WORTH_A_WRITE) {
            // A maximum: whoever was stopped here must not take back a later use, or a new beginning.
            self.used_at().fetch_max(now, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clock, word_of_nanos};

    const TTI: u64 = 7;

    fn lifetime(ttl: u64, tti: u64) -> Lifetime {
        Lifetime { ttl, tti }
    }

    /// The second of three lives in a cache that has a time to idle.
    fn begun(now: u64, lifetime: Lifetime) -> DeadlineTable {
        let lives = DeadlineTable::new(3, TTI).expect("there is memory");
        begin(&lives, now, lifetime);
        lives
    }

    fn begin(lives: &DeadlineTable, now: u64, lifetime: Lifetime) {
        lives.reserve(lifetime).expect("there is memory");
        lives.at(1).begin(now, lifetime);
    }

    #[test]
    fn the_sooner_end_is_the_deadline() {
        let deadline = |ttl, tti| begun(10, lifetime(ttl, tti)).at(1).deadline();
        assert_eq!(deadline(0, 0), NEVER);
        assert_eq!(deadline(5, 0), 15);
        assert_eq!(deadline(0, TTI), 17);
        assert_eq!(deadline(0, 4), 14);
        assert_eq!(deadline(5, TTI), 15);
        assert_eq!(deadline(9, TTI), 17);
        assert_eq!(deadline(9, 8), 18);
    }

    #[test]
    fn what_outlives_the_clock_has_a_deadline_too() {
        let millennium = word_of_nanos(1_000 * 31_557_600 * 1_000_000_000);
        for (ttl, tti) in [(millennium, 0), (0, millennium), (millennium, millennium)] {
            let lives = begun(10, lifetime(ttl, tti));
            let deadline = lives.at(1).deadline();
            assert!(deadline >= Clock::END && deadline != NEVER);
            let left = lives.at(1).time_left(1_000_010).expect("there is a deadline");
            assert!(Duration::from_secs(31_557_600_000).abs_diff(left) < Duration::from_millis(2));
        }
    }

    #[test]
    fn what_is_left_is_the_sooner_of_both() {
        let left =
            |now, ttl, tti| begun(10, lifetime(ttl, tti)).at(1).time_left(now).map(|left| left.as_nanos());
        assert_eq!(left(10, 0, 0), None);
        assert_eq!(left(12, 5, 0), Some(3));
        assert_eq!(left(12, 9, TTI), Some(5));
        assert_eq!(left(12, 5, Clock::END + 1), Some(3));
        assert_eq!(left(12, Clock::END + 1, 4), Some(2));
        assert_eq!(left(99, 5, 4), Some(0));
    }

    #[test]
    fn neighbours_have_lives_of_their_own() {
        let lives = begun(10, lifetime(5, 3));
        assert_eq!((lives.at(0).deadline(), lives.at(2).deadline()), (NEVER, NEVER));
        lives.at(2).begin(20, lifetime(0, 3));
        assert_eq!((lives.at(1).deadline(), lives.at(2).deadline()), (13, 23));
    }

    #[test]
    fn a_use_moves_the_end_of_idleness_alone() {
        let lives = begun(10, lifetime(1_000_000, 5_000));
        lives.at(1).touch(3_000);
        assert_eq!(lives.at(1).deadline(), 8_000);
        lives.at(1).touch(999_000);
        assert_eq!(lives.at(1).deadline(), 1_000_010);
    }

    #[test]
    fn a_use_soon_after_another_or_before_it_changes_nothing() {
        let lives = begun(5_000, lifetime(0, 10_000));
        let after = |now| {
            lives.at(1).touch(now);
            lives.at(1).deadline()
        };
        assert_eq!(after(6_000), 15_000);
        assert_eq!(after(6_001), 16_001);
        assert_eq!(after(2_000), 16_001);
    }

    #[test]
    fn a_new_beginning_forgets_the_old_life() {
        let lives = begun(10, lifetime(5, 4));
        begin(&lives, 20, lifetime(0, 0));
        assert_eq!(lives.at(1).deadline(), NEVER);
        begin(&lives, 30, lifetime(100, 0));
        lives.at(1).touch(50_000);
        assert_eq!(lives.at(1).deadline(), 130);
        begin(&lives, 60_000, lifetime(0, TTI));
        assert_eq!(lives.at(1).deadline(), 60_007);
    }
}
