//! A value that was unlinked and must not be dropped yet.

use std::mem::ManuallyDrop;
use std::ops::Deref;

/// A value that was unlinked and that other threads may still read. It can be looked at, not dropped.
pub(crate) struct Retired<T> {
    inner: ManuallyDrop<T>,
    /// Whether no other thread can see the value, now or later.
    pub(super) is_unshared: bool,
}

impl<T> Retired<T> {
    /// Wraps a value that no other thread can see, so that it travels with shared ones.
    pub fn of(value: T) -> Self {
        Retired { inner: ManuallyDrop::new(value), is_unshared: true }
    }

    /// Wraps a value from a place where other threads may have seen it.
    pub(super) fn shared(inner: ManuallyDrop<T>) -> Self {
        Retired { inner, is_unshared: false }
    }

    pub fn zip<U>(self, other: Retired<U>) -> Retired<(T, U)> {
        let is_unshared = self.is_unshared && other.is_unshared;
        Retired { inner: ManuallyDrop::new((self.into_inner(), other.into_inner())), is_unshared }
    }

    /// Returns the owned value. For `reclaim` alone: the caller knows that the grace period is over.
    pub(super) fn into_inner(self) -> T {
        ManuallyDrop::into_inner(self.inner)
    }
}

impl<T> Retired<Option<T>> {
    pub fn transpose(self) -> Option<Retired<T>> {
        let is_unshared = self.is_unshared;
        self.into_inner().map(|value| Retired { inner: ManuallyDrop::new(value), is_unshared })
    }
}

impl<T> Deref for Retired<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}
