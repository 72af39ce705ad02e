//! The clock of a cache, in nanoseconds since a first look at it.
//!
//! quanta reads the time stamp counter of the processor. It calibrates the counter once in a process, when the first
//! cache that can expire looks at the clock. A cache in which no entry can expire never does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::time_word::FIRST_COARSE;
#[cfg(miri)]
use miri_clock as quanta;

#[derive(Clone, Default)]
pub enum Clock {
    /// The clock that all caches of the process share.
    #[default]
    Process,
    /// A clock that stands still until its owner advances it. For tests.
    Manual(Arc<AtomicU64>),
}

struct ProcessClock {
    clock: quanta::Clock,
    origin: u64,
}

impl Clock {
    /// The first instant that no clock reaches, after almost 144 years.
    pub const END: u64 = FIRST_COARSE;

    /// Returns the current instant: never 0, and never before one that this thread has seen.
    #[inline]
    pub fn now(&self) -> u64 {
        match self {
            Clock::Process => {
                let ProcessClock { clock, origin } = process_clock();
                1 + clock.delta_as_nanos(*origin, clock.raw())
            }
            // Relaxed: a test that advances the clock synchronizes with its other threads by its own means.
            Clock::Manual(now) => 1 + now.load(Ordering::Relaxed),
        }
    }

    /// Returns the count of the processor, for [`ticks_since`](Self::ticks_since).
    #[inline]
    pub fn ticks() -> u64 {
        process_clock().clock.raw()
    }

    /// Returns the ticks since the processor had this count. [`nanos_of`](Self::nanos_of) tells how long they took.
    #[inline]
    pub fn ticks_since(start: u64) -> u64 {
        // The counts of two processors may differ a little.
        Self::ticks().saturating_sub(start)
    }

    /// Returns the nanoseconds of a number of ticks.
    pub fn nanos_of(ticks: u64) -> u64 {
        process_clock().clock.delta_as_nanos(0, ticks)
    }
}

#[inline]
fn process_clock() -> &'static ProcessClock {
    static PROCESS: OnceLock<ProcessClock> = OnceLock::new();
    PROCESS.get_or_init(|| {
        let clock = quanta::Clock::new();
        let origin = clock.raw();
        ProcessClock { clock, origin }
    })
}

/// A clock in place of quanta's, for Miri, which has no time stamp counter.
#[cfg(miri)]
mod miri_clock {
    use std::time::Instant;

    pub struct Clock(Instant);

    impl Clock {
        pub fn new() -> Self {
            Clock(Instant::now())
        }

        pub fn raw(&self) -> u64 {
            self.0.elapsed().as_nanos() as u64
        }

        pub fn delta_as_nanos(&self, start: u64, end: u64) -> u64 {
            end.saturating_sub(start)
        }
    }
}
