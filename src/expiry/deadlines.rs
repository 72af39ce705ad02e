//! The deadlines of the entries of a chunk: two words for each entry.
//!
//! # How it works
//! An entry expires at the sooner of two instants. One is the end of its time to live, which is stored. The other is
//! its last use plus its time to idle. The time to idle is usually that of the cache, so the entry stores only where
//! to find it ([`TtiSource`]). An entry with a time to idle of its own stores it in a third word. The memory of these
//! words is allocated for the first such entry of the chunk.
//!
//! A restart of the deadlines needs the durations again ([`DeadlineRef::lifetime`]). Without a time to idle, the time
//! to live is the time from `used_at` to `end`. With one, uses move `used_at`, so a time to live that is not that of the
//! cache is stored in a fourth word.
//!
//! In a cache with `refresh` the table also has the [words](super::refresh_table) that say when the values are to be
//! computed anew. So a cache without deadlines and without `refresh` has no table, and a read checks one thing.
//!
//! # Orderings
//! | field | written | read | why |
//! |---|---|---|---|
//! | `end`, `used_at`, a time to idle | by the writer, after the value: Release, `end` last | Acquire, `end` first, then the value | a reader that sees a new deadline sees the new value too |
//! | `used_at` | by a reader: Relaxed, a maximum | Acquire | an instant guards no other memory |
//! | a time to live | by the writer: Relaxed | Relaxed | only the holder of the lock reads it |
//!
//! # Why not one deadline
//! A use moves the time to idle, but not the end of the time to live. With one word a use could not tell how far it
//! may move it.

use std::time::Duration;

use crate::collections::try_reserve::NoMemory;
use crate::expiry::refresh_table::{RefreshRef, RefreshTable};
use crate::expiry::{Lifetime, NEVER, end_of, time_left_of, word_of_nanos};
use crate::sync::{AtomicU64, OnceLock, Ordering, Zeroed, zeroed_atomics};

/// Where an entry's time to idle is: the lowest bits of `end`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TtiSource {
    /// The entry has none.
    None,
    /// The entry has that of the cache.
    Cache,
    /// The entry has its own.
    Entry,
}

impl TtiSource {
    const BITS: u32 = 2;

    #[inline(always)]
    fn of(end: u64) -> Self {
        match end & ((1 << Self::BITS) - 1) {
            0 => TtiSource::None,
            1 => TtiSource::Cache,
            _ => TtiSource::Entry,
        }
    }
}

/// The deadlines of the entries of a chunk. Instants are nanoseconds of the cache's clock.
pub(crate) struct DeadlineTable {
    /// The cache's own durations.
    of_cache: Lifetime,
    /// Two words for each entry, side by side, and 0 if it never expires.
    /// - `end`: the instant where its time to live ends, or 0 if it has none; in the lowest two bits its
    ///   [`TtiSource`].
    /// - `used_at`: the instant of its last use.
    words: Zeroed<AtomicU64>,
    /// The times to idle of entries that have their own.
    ttis: OnceLock<Zeroed<AtomicU64>>,
    /// The times to live of entries that have their own, and a time to idle. 0 for that of the cache.
    ttls: OnceLock<Zeroed<AtomicU64>>,
    /// In a cache with `refresh`.
    refresh: Option<RefreshTable>,
}

/// The deadline of one entry.
#[derive(Clone, Copy)]
pub(crate) struct DeadlineRef<'g> {
    table: &'g DeadlineTable,
    offset: usize,
}

impl DeadlineTable {
    /// Makes the table of `len` entries that never expire, in a cache of these durations. `refresh` is 0 if values are
    /// not computed anew.
    pub fn new(len: usize, of_cache: Lifetime, refresh: u64) -> Result<Self, NoMemory> {
        let words = zeroed_atomics(2 * len).ok_or(NoMemory)?;
        let refresh = (refresh != 0).then(|| RefreshTable::new(len, refresh)).transpose()?;
        Ok(DeadlineTable { of_cache, words, ttis: OnceLock::new(), ttls: OnceLock::new(), refresh })
    }

    /// Reserves the memory that an entry of this lifetime needs here. The caller must hold the shard lock.
    #[inline]
    pub fn reserve(&self, lifetime: Lifetime) -> Result<(), NoMemory> {
        if self.tti_source(lifetime) == TtiSource::Entry && self.ttis.get().is_none() {
            let _ = self.ttis.set(zeroed_atomics(self.words.len() / 2).ok_or(NoMemory)?);
        }
        if self.stored_ttl(lifetime) != 0 && self.ttls.get().is_none() {
            let _ = self.ttls.set(zeroed_atomics(self.words.len() / 2).ok_or(NoMemory)?);
        }
        Ok(())
    }

    #[inline(always)]
    pub fn at(&self, offset: usize) -> DeadlineRef<'_> {
        DeadlineRef { table: self, offset }
    }

    fn tti_source(&self, lifetime: Lifetime) -> TtiSource {
        match lifetime.tti {
            0 => TtiSource::None,
            tti if tti == self.of_cache.tti => TtiSource::Cache,
            _ => TtiSource::Entry,
        }
    }

    /// The time to live that an entry of this lifetime stores; 0 if it stores none.
    #[inline]
    fn stored_ttl(&self, lifetime: Lifetime) -> u64 {
        if lifetime.tti == 0 || lifetime.ttl == self.of_cache.ttl { 0 } else { lifetime.ttl }
    }
}

impl<'g> DeadlineRef<'g> {
    #[inline(always)]
    fn end(&self) -> &AtomicU64 {
        &self.table.words[2 * self.offset]
    }

    #[inline(always)]
    fn used_at(&self) -> &AtomicU64 {
        &self.table.words[2 * self.offset + 1]
    }

    /// The time to idle that goes with an `end`; 0 if there is none.
    #[inline]
    fn tti(&self, end: u64) -> u64 {
        match TtiSource::of(end) {
            TtiSource::None => 0,
            TtiSource::Cache => self.table.of_cache.tti,
            // Acquire: pairs with the Release in `restart`.
            TtiSource::Entry => {
                self.table.ttis.get().map_or(0, |ttis| ttis[self.offset].load(Ordering::Acquire))
            }
        }
    }

    /// Returns the instant from which on the entry is expired.
    #[inline]
    pub fn deadline(&self) -> u64 {
        // Acquire: pairs with the Release in `restart`; the caller reads the value after it.
        let end = self.end().load(Ordering::Acquire);
        let by_ttl = if end >> TtiSource::BITS == 0 { NEVER } else { end >> TtiSource::BITS };
        match self.tti(end) {
            0 => by_ttl,
            tti => by_ttl.min(self.used_at().load(Ordering::Acquire).saturating_add(tti)),
        }
    }

    /// Returns the time until the deadline, 0 after it; `None` if the entry does not expire.
    pub fn time_left(&self, now: u64) -> Option<Duration> {
        // Acquire: as in `deadline`.
        let end = self.end().load(Ordering::Acquire);
        let by_ttl = (end >> TtiSource::BITS != 0).then(|| time_left_of(now, 0, end >> TtiSource::BITS));
        let by_tti = match self.tti(end) {
            0 => None,
            tti => Some(time_left_of(now, self.used_at().load(Ordering::Acquire), tti)),
        };
        by_ttl.into_iter().chain(by_tti).min()
    }

    /// Returns the durations that the deadlines were last started with. The caller must hold the shard lock.
    pub fn lifetime(&self) -> Lifetime {
        // Relaxed, here and below: the holder of the lock wrote them. Uses do not matter where there is no time to idle.
        let end = self.end().load(Ordering::Relaxed);
        let (expires_at, tti) = (end >> TtiSource::BITS, self.tti(end));
        let stored_ttl = || self.table.ttls.get().map_or(0, |ttls| ttls[self.offset].load(Ordering::Relaxed));
        let ttl = if expires_at == 0 {
            0
        } else if tti == 0 {
            let began_at = self.used_at().load(Ordering::Relaxed);
            word_of_nanos(time_left_of(began_at, 0, expires_at).as_nanos()).max(1)
        } else {
            match stored_ttl() {
                0 => self.table.of_cache.ttl,
                ttl => ttl,
            }
        };
        Lifetime { ttl, tti }
    }

    /// Returns when the entry's value is to be computed anew, in a cache with `refresh`.
    #[inline(always)]
    pub fn refresh(&self) -> Option<RefreshRef<'g>> {
        self.table.refresh.as_ref().map(|refresh| refresh.at(self.offset))
    }

    /// Starts the times of a value that was just written, and returns its deadline. The memory for the lifetime must
    /// have been [reserved](DeadlineTable::reserve).
    #[inline]
    pub fn reset(&self, now: u64, lifetime: Lifetime) -> u64 {
        if let Some(refresh) = self.refresh() {
            refresh.restart(now);
        }
        self.restart(now, lifetime)
    }

    /// Starts the deadlines anew, and returns the sooner of them. The memory for the lifetime must have been
    /// [reserved](DeadlineTable::reserve).
    #[inline]
    pub fn restart(&self, now: u64, lifetime: Lifetime) -> u64 {
        let expires_at = if lifetime.ttl == 0 { 0 } else { end_of(now, lifetime.ttl) };
        let source = self.table.tti_source(lifetime);
        // Release, here and below: pairs with the Acquire in `deadline`; the value was written before.
        self.used_at().store(now, Ordering::Release);
        if let (TtiSource::Entry, Some(ttis)) = (source, self.table.ttis.get()) {
            ttis[self.offset].store(lifetime.tti, Ordering::Release);
        }
        if let Some(ttls) = self.table.ttls.get() {
            // Relaxed: only the holder of the lock reads it.
            ttls[self.offset].store(self.table.stored_ttl(lifetime), Ordering::Relaxed);
        }
        self.end().store(expires_at << TtiSource::BITS | source as u64, Ordering::Release);
        let by_ttl = if expires_at == 0 { NEVER } else { expires_at };
        if lifetime.tti == 0 { by_ttl } else { by_ttl.min(now.saturating_add(lifetime.tti)) }
    }

    /// Records a use, for the time to idle. A use within a microsecond of the last one does not write, to leave the
    /// cache line to other readers. The entry then expires up to a microsecond early, never late.
    #[inline]
    pub fn touch(&self, now: u64) {
        const MIN_STEP_NANOS: u64 = 1_000;
        // Relaxed: an instant guards no other memory.
        let has_tti = TtiSource::of(self.end().load(Ordering::Relaxed)) != TtiSource::None;
        if has_tti && now > self.used_at().load(Ordering::Relaxed).saturating_add(MIN_STEP_NANOS) {
            // A maximum: a thread that was stopped here must not take back a later use, or a reset.
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

    /// A table of three entries in a cache that has a time to idle. The second entry has this lifetime.
    fn table_with(now: u64, of_entry: Lifetime) -> DeadlineTable {
        let table = DeadlineTable::new(3, lifetime(0, TTI), 0).expect("there is memory");
        reset(&table, now, of_entry);
        table
    }

    fn reset(table: &DeadlineTable, now: u64, lifetime: Lifetime) {
        table.reserve(lifetime).expect("there is memory");
        table.at(1).reset(now, lifetime);
    }

    #[test]
    fn the_sooner_end_is_the_deadline() {
        let deadline = |ttl, tti| table_with(10, lifetime(ttl, tti)).at(1).deadline();
        assert_eq!(deadline(0, 0), NEVER);
        assert_eq!(deadline(5, 0), 15);
        assert_eq!(deadline(0, TTI), 17);
        assert_eq!(deadline(0, 4), 14);
        assert_eq!(deadline(5, TTI), 15);
        assert_eq!(deadline(9, TTI), 17);
        assert_eq!(deadline(9, 8), 18);
    }

    #[test]
    fn a_lifetime_longer_than_the_clock_has_a_deadline_too() {
        let millennium = word_of_nanos(1_000 * 31_557_600 * 1_000_000_000);
        for (ttl, tti) in [(millennium, 0), (0, millennium), (millennium, millennium)] {
            let table = table_with(10, lifetime(ttl, tti));
            let deadline = table.at(1).deadline();
            assert!(deadline >= Clock::END && deadline != NEVER);
            let time_left = table.at(1).time_left(1_000_010).expect("there is a deadline");
            assert!(Duration::from_secs(31_557_600_000).abs_diff(time_left) < Duration::from_millis(2));
        }
    }

    #[test]
    fn the_time_left_is_the_shorter_of_both() {
        let nanos_left = |now, ttl, tti| {
            table_with(10, lifetime(ttl, tti)).at(1).time_left(now).map(|time_left| time_left.as_nanos())
        };
        assert_eq!(nanos_left(10, 0, 0), None);
        assert_eq!(nanos_left(12, 5, 0), Some(3));
        assert_eq!(nanos_left(12, 9, TTI), Some(5));
        assert_eq!(nanos_left(12, 5, Clock::END + 1), Some(3));
        assert_eq!(nanos_left(12, Clock::END + 1, 4), Some(2));
        assert_eq!(nanos_left(99, 5, 4), Some(0));
    }

    #[test]
    fn neighbours_have_deadlines_of_their_own() {
        let table = table_with(10, lifetime(5, 3));
        assert_eq!((table.at(0).deadline(), table.at(2).deadline()), (NEVER, NEVER));
        table.at(2).reset(20, lifetime(0, 3));
        assert_eq!((table.at(1).deadline(), table.at(2).deadline()), (13, 23));
    }

    #[test]
    fn a_use_moves_the_end_of_idleness_alone() {
        let table = table_with(10, lifetime(1_000_000, 5_000));
        table.at(1).touch(3_000);
        assert_eq!(table.at(1).deadline(), 8_000);
        table.at(1).touch(999_000);
        assert_eq!(table.at(1).deadline(), 1_000_010);
    }

    #[test]
    fn a_use_soon_after_another_or_before_it_changes_nothing() {
        let table = table_with(5_000, lifetime(0, 10_000));
        let deadline_after = |now| {
            table.at(1).touch(now);
            table.at(1).deadline()
        };
        assert_eq!(deadline_after(6_000), 15_000);
        assert_eq!(deadline_after(6_001), 16_001);
        assert_eq!(deadline_after(2_000), 16_001);
    }

    #[test]
    fn the_durations_of_an_entry_can_be_read_again() {
        let millennium = word_of_nanos(1_000 * 31_557_600 * 1_000_000_000);
        let of_cache = lifetime(100, TTI);
        let durations = [0, 1, 5, 100].into_iter().flat_map(|ttl| [(ttl, 0), (ttl, TTI), (ttl, 3)]);
        for (ttl, tti) in durations.chain([(millennium, 0), (millennium, TTI), (0, millennium)]) {
            let table = DeadlineTable::new(3, of_cache, 0).expect("there is memory");
            reset(&table, 5, lifetime(3, 2));
            reset(&table, 10, lifetime(ttl, tti));
            table.at(1).touch(2_000);
            let read = table.at(1).lifetime();
            // A time to live of more than 144 years is exact to a microsecond.
            assert!(read.tti == tti && read.ttl <= ttl && ttl - read.ttl <= 2, "{read:?} of {ttl} and {tti}");
            assert!(ttl == millennium || read.ttl == ttl, "{read:?} of {ttl} and {tti}");
        }
    }

    #[test]
    fn a_reset_forgets_the_old_lifetime() {
        let table = table_with(10, lifetime(5, 4));
        reset(&table, 20, lifetime(0, 0));
        assert_eq!(table.at(1).deadline(), NEVER);
        reset(&table, 30, lifetime(100, 0));
        table.at(1).touch(50_000);
        assert_eq!(table.at(1).deadline(), 130);
        reset(&table, 60_000, lifetime(0, TTI));
        assert_eq!(table.at(1).deadline(), 60_007);
    }
}
