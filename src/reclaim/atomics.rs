//! Places that readers look at without a lock: a handle of one word, and a boxed structure.
//!
//! The invariants and orderings are those of the module above.

use std::marker::PhantomData;
use std::mem::{ManuallyDrop, size_of};
use std::ops::Deref;
use std::ptr;

use super::{Guard, Pin, Retired};
use crate::sync::{AtomicPtr, Ordering};

/// A place for a value of one word, which readers borrow without a lock and writers swap.
///
/// The word is a pointer. As an integer it would lose the provenance of the reference in it.
pub(crate) struct AtomicHandle<T> {
    word: AtomicPtr<()>,
    holds: PhantomData<T>,
}

// SAFETY: `word` is a `T` that threads move in and out (`Send`) and borrow (`Sync`), and the atomic serializes the
// accesses.
unsafe impl<T: Send + Sync> Sync for AtomicHandle<T> {}

/// A value that an [`AtomicHandle`] lends for as long as the guard lives.
pub(crate) struct Borrowed<'g, T> {
    value: ManuallyDrop<T>,
    guard: PhantomData<&'g ()>,
}

impl<T> Deref for Borrowed<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> AtomicHandle<T> {
    const ONE_WORD: () = assert!(size_of::<T>() == size_of::<*mut ()>(), "a handle is one word wide");

    #[cfg(any(feature = "python", test))]
    pub fn new(value: T) -> Self {
        AtomicHandle { word: AtomicPtr::new(Self::into_word(value)), holds: PhantomData }
    }

    #[inline]
    pub fn read<'g>(&self, _pin: &'g Pin<'_>) -> Borrowed<'g, T> {
        self.lend()
    }

    #[inline]
    fn lend<'g>(&self) -> Borrowed<'g, T> {
        // Acquire: pairs with the AcqRel in `swap` and `exchange` and the Release in `put`.
        let value = Self::from_word(self.word.load(Ordering::Acquire));
        Borrowed { value, guard: PhantomData }
    }

    /// Stores a value and returns the old one, which readers may still borrow. Cheaper than `swap`, for the only
    /// writer.
    ///
    /// # Safety
    /// - A lock or the like orders all writers of this place.
    pub unsafe fn put(&self, value: T) -> Retired<T> {
        let word = Self::into_word(value);
        // Relaxed: the lock orders this load after the last writer's store.
        let old = self.word.load(Ordering::Relaxed);
        // Release: pairs with the Acquire in `lend`.
        self.word.store(word, Ordering::Release);
        Retired::shared(Self::from_word(old))
    }

    /// Stores a value and returns the old one, which readers may still borrow.
    pub fn swap(&self, value: T) -> Retired<T> {
        let word = Self::into_word(value);
        // AcqRel: pairs with the Acquire in `lend`, and with the swap that stored the old value.
        Retired::shared(Self::from_word(self.word.swap(word, Ordering::AcqRel)))
    }

    /// Stores a value if the place still holds the one that was `seen`, and returns the old value. Else it returns
    /// the new one as an error. If both are the same object, nothing is written. A place that lost the seen value and
    /// got it again counts as unchanged.
    #[inline]
    pub fn exchange(&self, seen: &Borrowed<'_, T>, value: T) -> Result<Retired<T>, T> {
        let (old, new) = (Self::word(&seen.value), Self::into_word(value));
        if old == new {
            // Two references to one object: the place keeps the old one, which readers may see. The new one is the
            // caller's.
            return Ok(Retired::of(ManuallyDrop::into_inner(Self::from_word(new))));
        }
        // AcqRel: as in `swap`. Relaxed: on failure the current value is not used.
        match self.word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(old) => Ok(Retired::shared(Self::from_word(old))),
            Err(_) => Err(ManuallyDrop::into_inner(Self::from_word(new))),
        }
    }

    fn into_word(value: T) -> *mut () {
        Self::word(&ManuallyDrop::new(value))
    }

    fn word(value: &ManuallyDrop<T>) -> *mut () {
        const { Self::ONE_WORD };
        // SAFETY: `word`: both are one word wide, and all bits of a handle or of an optional handle are initialized.
        unsafe { std::mem::transmute_copy::<ManuallyDrop<T>, *mut ()>(value) }
    }

    fn from_word(word: *mut ()) -> ManuallyDrop<T> {
        const { Self::ONE_WORD };
        // SAFETY: `word`: the bits came from a `T`, and `ManuallyDrop` keeps this copy from being dropped.
        unsafe { std::mem::transmute_copy::<*mut (), ManuallyDrop<T>>(&word) }
    }
}

impl<T> Default for AtomicHandle<Option<T>> {
    /// `None`, which is the only value whose bits are all zero.
    fn default() -> Self {
        AtomicHandle { word: AtomicPtr::new(ptr::null_mut()), holds: PhantomData }
    }
}

impl<T> Drop for AtomicHandle<T> {
    fn drop(&mut self) {
        // Relaxed: `&mut self` excludes other threads.
        drop(ManuallyDrop::into_inner(Self::from_word(self.word.load(Ordering::Relaxed))));
    }
}

/// An [`AtomicHandle`] that only the holder of one lock writes. So a guard of that lock protects its readers, too.
pub(crate) struct LockedAtomicHandle<T>(AtomicHandle<T>);

impl<T> LockedAtomicHandle<T> {
    #[inline]
    pub fn read<'g>(&self, _guard: &'g Guard<'_>) -> Borrowed<'g, T> {
        self.0.lend()
    }

    /// Stores a value and returns the old one, which readers may still borrow.
    ///
    /// # Safety
    /// - The caller holds the lock whose guards ([`Guard::of_lock`]) read this place.
    pub unsafe fn put(&self, value: T) -> Retired<T> {
        // SAFETY: the lock that the caller holds orders all writers.
        unsafe { self.0.put(value) }
    }
}

impl<T> Default for LockedAtomicHandle<Option<T>> {
    /// `None`.
    fn default() -> Self {
        LockedAtomicHandle(AtomicHandle::default())
    }
}

/// A place for a boxed structure, which readers borrow without a lock and a writer replaces. The structure must own
/// no key or value.
pub(crate) struct AtomicBox<T> {
    pointer: AtomicPtr<T>,
    owns: PhantomData<T>,
}

impl<T: Send + Sync> AtomicBox<T> {
    pub fn empty() -> Self {
        AtomicBox { pointer: AtomicPtr::new(ptr::null_mut()), owns: PhantomData }
    }

    #[inline]
    pub fn get<'g>(&self, _guard: &'g Guard<'_>) -> Option<&'g T> {
        // Acquire: pairs with the AcqRel in `replace`.
        let pointer = self.pointer.load(Ordering::Acquire);
        // SAFETY: `grace`: the pointer is null or a box that is freed after this guard is gone.
        unsafe { pointer.as_ref() }
    }

    /// Stores another structure, or none. The old one is freed when no guard can see it.
    ///
    /// # Safety
    /// - The caller holds the lock whose guards ([`Guard::of_lock`]) read this place.
    pub unsafe fn replace(&self, next: Option<T>, guard: &mut Guard<'_>) {
        let next = next.map_or(ptr::null_mut(), |next| Box::into_raw(Box::new(next)));
        // AcqRel: pairs with the Acquire in `get`, and with the swap that stored the old structure.
        let old = self.pointer.swap(next, Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: `replace` made it from a box and has just unlinked it, so it is freed once.
            unsafe { guard.free(old) };
        }
    }
}

impl<T> Drop for AtomicBox<T> {
    fn drop(&mut self) {
        // Relaxed: `&mut self` excludes other threads.
        let pointer = self.pointer.load(Ordering::Relaxed);
        if !pointer.is_null() {
            // SAFETY: `replace` made it from a box, and `&mut self` excludes readers.
            drop(unsafe { Box::from_raw(pointer) });
        }
    }
}
