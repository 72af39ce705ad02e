//! A pin: the guard of a thread that reads without a lock.

use std::ops::Deref;

use super::Guard;

/// A guard that also protects values that other threads replace without a lock.
pub(crate) struct Pin<'l>(Guard<'l>);

/// Pins the thread: no value that it can see from now on is dropped until the pin is gone.
#[inline]
pub(crate) fn pin() -> Pin<'static> {
    Pin(Guard::of_pin())
}

impl<'l> Pin<'l> {
    /// Runs `code` unpinned. A user's code must run so (law 4).
    pub fn unpinned<R>(&mut self, code: impl FnOnce() -> R) -> R {
        self.0.unpinned(code)
    }

    #[cfg(test)]
    pub fn into_guard(self) -> Guard<'l> {
        self.0
    }
}

impl<'l> Deref for Pin<'l> {
    type Target = Guard<'l>;

    #[inline(always)]
    fn deref(&self) -> &Guard<'l> {
        &self.0
    }
}

impl Guard<'_> {
    /// Pins the thread beside this guard. The pin borrows the guard, so nothing is freed through the guard while the
    /// pin lives.
    #[inline]
    pub fn pinned(&self) -> Pin<'_> {
        pin()
    }
}
