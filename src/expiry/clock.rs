//! The time since the process first asked, in nanoseconds.
//!
//! quanta reads the processor's time stamp counter, which it calibrates once a process, at the first cache that
//! can expire. A cache where nothing can never reads a clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::span::COARSE;

#[derive(Clone, Default)]
pub enum Clock {
    #[default]
    Process,
    /// Stands still until somebody moves it on. For tests.
    Manual(Arc<AtomicU64>),
}

struct Process {
    clock: quanta::Clock,
    origin: u64,
}

impl Clock {
    /// The first instant that no clock shows, after almost 144 years.
    pub const END: u64 = COARSE;

    /// The instant of now. Never 0, and never before one that this thread has seen.
    #[inline]
    pub fn now(&self) -> u64 {
        match self {
            Clock::Process => {
                static PROCESS: OnceLock<Process> = OnceLock::new();
                let process = PROCESS.get_or_init(|| {
                    let clock = quanta::Clock::new();
                    let origin = clock.raw();
                    Process { clock, origin }
                });
                1 + process.clock.delta_as_nanos(process.origin, process.clock.raw())
            }
            // Relaxed: whoever moves it on tells the others by means of his own.
            Clock::Manual(now) => 1 + now.load(Ordering::Relaxed),
        }
    }
}
