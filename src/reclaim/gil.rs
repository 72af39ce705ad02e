//! Reclamation for the GIL build: no other thread is reading, so a retired value can be dropped immediately.

use std::marker::PhantomData;

use super::Retired;

/// Proof that the thread is reading. It lives at most as long as the lock or the guard that it stands for. The thread
/// holds the GIL, so the guard costs nothing.
pub(crate) struct Guard<'l>(#[allow(dead_code)] GuardCount, PhantomData<(*mut (), &'l ())>);

/// In a debug build, counts the guards of a thread, for `one-pin`.
struct GuardCount;

#[cfg(debug_assertions)]
std::thread_local! {
    static GUARDS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl GuardCount {
    #[inline]
    fn new() -> Self {
        #[cfg(debug_assertions)]
        GUARDS.set(GUARDS.get() + 1);
        GuardCount
    }
}

#[cfg(debug_assertions)]
impl Drop for GuardCount {
    fn drop(&mut self) {
        GUARDS.set(GUARDS.get() - 1);
    }
}

/// Does nothing: the GIL build counts no threads.
pub(crate) fn register_thread() {}

/// Does nothing, likewise.
#[cfg_attr(not(all(feature = "python", unix)), allow(dead_code))]
pub(crate) fn after_fork_child() {}

impl Guard<'_> {
    #[inline]
    pub(super) fn of_pin() -> Guard<'static> {
        Guard(GuardCount::new(), PhantomData)
    }

    /// Stands for a lock that protects `owner`. The caller chooses the lifetime.
    ///
    /// # Safety
    /// - The lifetime ends before the unlock.
    #[inline]
    pub unsafe fn of_lock<'l, T>(_owner: &T) -> Guard<'l> {
        Guard::of_pin()
    }

    /// Returns whether the guard protects the contents of `owner`, for assertions.
    #[cfg(debug_assertions)]
    pub fn serves<T>(&self, _owner: &T) -> bool {
        true
    }

    /// Runs `code` without counting this guard.
    pub(super) fn unpinned<R>(&mut self, code: impl FnOnce() -> R) -> R {
        #[cfg(debug_assertions)]
        GUARDS.set(GUARDS.get() - 1);
        let result = code();
        #[cfg(debug_assertions)]
        GUARDS.set(GUARDS.get() + 1);
        result
    }

    /// Frees a box.
    ///
    /// # Safety
    /// - `pointer` came from `Box::into_raw`, is unlinked, and is passed here once.
    pub(super) unsafe fn free<T>(&mut self, pointer: *mut T) {
        #[cfg(debug_assertions)]
        assert_eq!(GUARDS.get(), 1, "`one-pin`");
        // SAFETY: the caller passed an unlinked box once, and by `one-pin` no reader has it.
        drop(unsafe { Box::from_raw(pointer) });
    }
}

/// Does nothing: no other thread is reading.
pub(super) fn wait_for_readers() {}

/// Retired values on their way to an owner. None has to wait.
pub(crate) struct RetireList<T, const BATCH: usize>(Vec<T>);

impl<T, const BATCH: usize> Default for RetireList<T, BATCH> {
    fn default() -> Self {
        RetireList(Vec::new())
    }
}

impl<T, const BATCH: usize> RetireList<T, BATCH> {
    pub fn put(&mut self, retired: Retired<T>) {
        self.0.push(retired.into_inner());
    }

    /// Passes each value to `take`.
    #[inline]
    pub fn take_ready(&mut self, mut take: impl FnMut(T)) {
        while let Some(value) = self.0.pop() {
            take(value);
        }
    }

    /// Passes the value to `take`.
    #[inline]
    pub fn put_and_take_ready(&mut self, retired: Retired<T>, mut take: impl FnMut(T)) {
        take(retired.into_inner());
    }
}

/// Drops retired values immediately, and so holds none.
pub(crate) struct StripedRetireLists<T>(PhantomData<fn(T)>);

impl<T> StripedRetireLists<T> {
    pub fn new() -> Self {
        StripedRetireLists(PhantomData)
    }

    /// Drops a value. The thread must have neither a pin nor a lock: a drop may run any code.
    #[inline]
    pub fn release_one(&self, retired: Retired<T>) {
        drop(retired.into_inner());
    }

    /// Does the same with several values.
    #[inline]
    pub fn release(&self, first: Retired<T>, more: impl Iterator<Item = Retired<T>>) {
        drop(first.into_inner());
        more.for_each(|retired| drop(retired.into_inner()));
    }

    pub fn flush(&self) {}

    pub fn free_memory(&self) {}

    pub fn each(&self, _visit: impl FnMut(&T)) {}
}
