//! The clock of one cache: a [`Clock`] that a test can stop, advance and start again.
//!
//! # How it works
//! One word says how the clock of the cache differs from its [`Clock`]. It is 0 for a cache of the process clock that no
//! test moves, so such a cache loads one word that never changes. The word of another cache holds the instant at which
//! the clock stands, or what it is ahead.
//!
//! # Invariants
//! - `monotonic`: the clock of a cache never goes back. When it starts again, it is at the instant at which it stood, or at
//!   that of its [`Clock`], whichever is later.
//!
//! # Orderings
//! All are Relaxed: a test that moves a clock synchronizes with its other threads by its own means.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Clock;

/// The word of a cache whose clock is the process clock.
const PROCESS: u64 = 0;
/// The bit of a stopped clock. The rest of the word is the instant.
const STOPPED: u64 = 1 << 63;
/// The bit of a running clock that is not the bare process clock. The rest of the word is what it is ahead, in nanoseconds.
const RUNNING: u64 = 1 << 62;
const REST: u64 = RUNNING - 1;

const _: () = assert!(Clock::END < REST, "an instant fits below the bits");

pub struct CacheClock {
    word: AtomicU64,
    base: Clock,
}

impl CacheClock {
    pub(crate) fn new(base: Clock) -> Self {
        let word = if matches!(base, Clock::Process) { PROCESS } else { RUNNING };
        CacheClock { word: AtomicU64::new(word), base }
    }

    /// Returns the current instant, as [`Clock::now`] does.
    #[inline]
    pub fn now(&self) -> u64 {
        match self.word.load(Relaxed) {
            PROCESS => Clock::Process.now(),
            word => self.now_slow(word),
        }
    }

    #[cold]
    fn now_slow(&self, word: u64) -> u64 {
        if word & STOPPED != 0 { word & REST } else { instant(self.base.now() + (word & REST)) }
    }

    /// Returns whether a test advances this clock, from the birth of its cache on.
    pub fn is_manual(&self) -> bool {
        matches!(self.base, Clock::Manual(_))
    }

    /// Stops the clock where it is, until [`start`](Self::start).
    pub fn stop(&self) {
        let word = self.word.load(Relaxed);
        if word & STOPPED == 0 {
            self.word.store(STOPPED | self.now_slow(word), Relaxed);
        }
    }

    /// Advances a stopped clock; a running one stays as it is. It ends before [`Clock::END`].
    pub fn advance(&self, nanos: u64) {
        let advanced =
            |word: u64| (word & STOPPED != 0).then(|| STOPPED | instant((word & REST).saturating_add(nanos)));
        let _ = self.word.fetch_update(Relaxed, Relaxed, advanced);
    }

    /// Lets a stopped clock run again (`monotonic`).
    pub fn start(&self) {
        let word = self.word.load(Relaxed);
        if word & STOPPED != 0 {
            let ahead = (word & REST).saturating_sub(self.base.now());
            let is_process = ahead == 0 && matches!(self.base, Clock::Process);
            self.word.store(if is_process { PROCESS } else { RUNNING | ahead }, Relaxed);
        }
    }
}

/// The nearest instant that a clock may show.
fn instant(nanos: u64) -> u64 {
    nanos.min(Clock::END - 1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_stopped_clock_moves_by_hand_alone_and_goes_on_where_it_stood() {
        let time = Arc::new(AtomicU64::new(10));
        let clock = CacheClock::new(Clock::Manual(Arc::clone(&time)));
        clock.advance(5);
        assert_eq!(clock.now(), 11, "a running clock is not advanced");
        clock.stop();
        time.store(12, Relaxed);
        assert_eq!(clock.now(), 11);
        clock.advance(100);
        clock.stop();
        assert_eq!(clock.now(), 111);
        clock.start();
        assert_eq!(clock.now(), 111);
        time.store(15, Relaxed);
        clock.start();
        assert_eq!(clock.now(), 114);
    }

    #[test]
    fn a_clock_that_was_not_advanced_is_that_of_the_process_again() {
        let clock = CacheClock::new(Clock::Process);
        clock.stop();
        let stopped_at = clock.now();
        while Clock::Process.now() == stopped_at {}
        clock.start();
        assert_eq!(clock.word.load(Relaxed), PROCESS);
        clock.stop();
        clock.advance(1 << 50);
        clock.start();
        assert_ne!(clock.word.load(Relaxed), PROCESS);
        assert!(clock.now() > 1 << 50);
    }

    #[test]
    fn no_clock_passes_the_end() {
        let clock = CacheClock::new(Clock::Process);
        clock.stop();
        clock.advance(u64::MAX);
        assert_eq!(clock.now(), Clock::END - 1);
        clock.start();
        assert_eq!(clock.now(), Clock::END - 1);
    }
}
