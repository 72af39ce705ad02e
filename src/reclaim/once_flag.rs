//! A flag that is set once and that pinned threads read without an ordering.

use super::Pin;
#[cfg(not(moka_gil))]
use super::epoch::wait_for_readers;
#[cfg(moka_gil)]
use super::gil::wait_for_readers;
use crate::sync::{AtomicBool, Ordering};

/// A flag that is set once. When `set` returns, no thread is still pinned that saw the flag unset.
pub(crate) struct OnceFlag {
    is_set: AtomicBool,
    /// Whether all readers that saw the flag unset are gone.
    is_known: AtomicBool,
}

impl OnceFlag {
    pub fn new(is_set: bool) -> Self {
        OnceFlag { is_set: AtomicBool::new(is_set), is_known: AtomicBool::new(is_set) }
    }

    #[inline]
    pub fn is_set(&self, _pin: &Pin<'_>) -> bool {
        // Relaxed: `set` waits for this pin, or the epoch orders this pin after the store in `set_slow`.
        self.is_set.load(Ordering::Relaxed)
    }

    /// Reads the flag without a pin, as a hint. The caller must be correct with either answer.
    pub fn seems_set(&self) -> bool {
        // Relaxed: a hint.
        self.is_set.load(Ordering::Relaxed)
    }

    /// Sets the flag. The thread must have neither a pin nor a lock.
    #[inline]
    pub fn set(&self) {
        // Acquire: pairs with the Release in `set_slow`.
        if !self.is_known.load(Ordering::Acquire) {
            self.set_slow();
        }
    }

    #[cold]
    #[inline(never)]
    fn set_slow(&self) {
        // Relaxed: `wait_for_readers` orders it.
        self.is_set.store(true, Ordering::Relaxed);
        wait_for_readers();
        // Release: pairs with the Acquire in `set`.
        self.is_known.store(true, Ordering::Release);
    }
}
