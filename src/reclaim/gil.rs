//! Where the GIL lets one thread in at a time: what is retired can be dropped at once.

use std::marker::PhantomData;

use super::Retired;

/// Proof that the thread is reading. It holds the GIL, so it costs nothing.
pub(crate) struct Guard(PhantomData<*mut ()>);

#[inline]
pub(crate) fn pin() -> Guard {
    Guard(PhantomData)
}

#[inline]
pub(crate) fn pin_briefly() -> Guard {
    pin()
}

/// Nobody counts.
pub(crate) fn be_counted() {}

/// Nobody is known of who could be forgotten.
#[cfg_attr(not(feature = "python"), allow(dead_code))]
pub(crate) fn forget_others() {}

impl Guard {
    /// For who holds a lock.
    ///
    /// # Safety
    /// - It is not used past the unlock.
    #[inline]
    pub unsafe fn of_lock() -> Guard {
        pin()
    }

    /// Whether it keeps what can be replaced without the lock.
    pub fn is_pin(&self) -> bool {
        true
    }

    /// Nobody else is inside, but it may outlast a user's code, which may change anything.
    pub(super) fn is_alone(&self) -> bool {
        false
    }

    /// Runs `code` of a user, with nothing borrowed through the guard.
    pub fn unpinned<R>(&mut self, code: impl FnOnce() -> R) -> R {
        code()
    }

    /// Frees a box.
    ///
    /// # Safety
    /// - `pointer` came from `Box::into_raw`, is unlinked, and is passed here once.
    pub(super) unsafe fn free<T>(&mut self, pointer: *mut T) {
        // SAFETY: the caller's; and `one-pin`: nobody reads it.
        drop(unsafe { Box::from_raw(pointer) });
    }
}

/// Nobody else is inside.
pub(super) fn wait_for_readers() {}

/// Retired values on their way to an owner.
pub(crate) struct Bin<T, const LOT: usize>(Vec<T>);

impl<T, const LOT: usize> Default for Bin<T, LOT> {
    fn default() -> Self {
        Bin(Vec::new())
    }
}

impl<T, const LOT: usize> Bin<T, LOT> {
    pub fn put(&mut self, retired: Retired<T>) {
        self.0.push(retired.open());
    }

    /// Hands it out, as nobody can see it.
    #[inline]
    pub fn pass(&mut self, retired: Retired<T>, mut take: impl FnMut(T)) {
        take(retired.open());
    }

    /// Hands out all of it.
    #[inline]
    pub fn take_ready(&mut self, mut take: impl FnMut(T)) {
        while let Some(value) = self.0.pop() {
            take(value);
        }
    }
}

/// Where values wait: nowhere.
pub(crate) struct Bins<T>(PhantomData<fn(T)>);

impl<T> Bins<T> {
    pub fn new() -> Self {
        Bins(PhantomData)
    }

    /// Drops what left. The thread is neither pinned nor under a lock: a drop may run anything.
    #[inline]
    pub fn release_one(&self, retired: Retired<T>) {
        drop(retired.open());
    }

    /// The same, of several.
    #[inline]
    pub fn release(&self, first: Retired<T>, more: impl Iterator<Item = Retired<T>>) {
        drop(first.open());
        more.for_each(|retired| drop(retired.open()));
    }

    pub fn flush(&self) {}

    pub fn free_memory(&self) {}

    #[cfg_attr(not(feature = "python"), allow(dead_code))]
    pub fn each(&self, _visit: impl FnMut(&T)) {}
}
