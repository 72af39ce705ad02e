//! Where the GIL lets one thread in at a time: what is retired can be dropped at once.

use std::marker::PhantomData;
use std::ops::Deref;

use super::Retired;

/// Proof that the thread is reading, for at most as long as a lock is held or another guard is. It holds the GIL, so it
/// costs nothing.
pub(crate) struct Guard<'l>(#[allow(dead_code)] Counted, PhantomData<(*mut (), &'l ())>);

/// A guard that also keeps what is replaced without a lock: here each does.
pub(crate) struct Pin<'l>(Guard<'l>);

/// In a debug build, the guards of a thread are counted, for `one-pin`.
struct Counted;

#[cfg(debug_assertions)]
std::thread_local! {
    static GUARDS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Counted {
    #[inline]
    fn new() -> Self {
        #[cfg(debug_assertions)]
        GUARDS.set(GUARDS.get() + 1);
        Counted
    }
}

#[cfg(debug_assertions)]
impl Drop for Counted {
    fn drop(&mut self) {
        GUARDS.set(GUARDS.get() - 1);
    }
}

#[inline]
pub(crate) fn pin() -> Pin<'static> {
    Pin(Guard(Counted::new(), PhantomData))
}

#[inline]
pub(crate) fn pin_briefly() -> Pin<'static> {
    pin()
}

/// Nobody counts.
pub(crate) fn register_thread() {}

/// Nobody is known of who could be forgotten.
#[cfg_attr(not(all(feature = "python", unix)), allow(dead_code))]
pub(crate) fn after_fork_child() {}

impl<'l> Pin<'l> {
    /// Runs `code` of a user, with nothing borrowed through the pin.
    pub fn unpinned<R>(&mut self, code: impl FnOnce() -> R) -> R {
        // Meanwhile it does not count.
        #[cfg(debug_assertions)]
        GUARDS.set(GUARDS.get() - 1);
        let result = code();
        #[cfg(debug_assertions)]
        GUARDS.set(GUARDS.get() + 1);
        result
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
    /// Of a lock that `owner` has. The caller chooses the lifetime.
    ///
    /// # Safety
    /// - The lifetime ends before the unlock.
    #[inline]
    pub unsafe fn of_lock<'l, T>(_owner: &T) -> Guard<'l> {
        pin().0
    }

    /// A pin beside it. While there is one, nothing is freed through this guard.
    #[inline]
    pub fn pinned(&self) -> Pin<'_> {
        pin()
    }

    /// Whether it may keep what `owner` has, for assertions.
    #[cfg(debug_assertions)]
    pub fn serves<T>(&self, _owner: &T) -> bool {
        true
    }

    /// Nobody else is inside, but it may outlast a user's code, which may change anything.
    pub(super) fn is_alone(&self) -> bool {
        false
    }

    /// Frees a box.
    ///
    /// # Safety
    /// - `pointer` came from `Box::into_raw`, is unlinked, and is passed here once.
    pub(super) unsafe fn free<T>(&mut self, pointer: *mut T) {
        #[cfg(debug_assertions)]
        assert_eq!(GUARDS.get(), 1, "`one-pin`");
        // SAFETY: the caller's; and `one-pin`: nobody reads it.
        drop(unsafe { Box::from_raw(pointer) });
    }
}

/// Nobody else is inside.
pub(super) fn wait_for_readers() {}

/// Retired values on their way to an owner.
pub(crate) struct RetireList<T, const LOT: usize>(Vec<T>);

impl<T, const LOT: usize> Default for RetireList<T, LOT> {
    fn default() -> Self {
        RetireList(Vec::new())
    }
}

impl<T, const LOT: usize> RetireList<T, LOT> {
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
pub(crate) struct StripedRetireLists<T>(PhantomData<fn(T)>);

impl<T> StripedRetireLists<T> {
    pub fn new() -> Self {
        StripedRetireLists(PhantomData)
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
