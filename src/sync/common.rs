//! Parts that are the standard library's on both builds. Threads wait on them detached, so the GIL does not protect
//! them.

use std::cell::Cell;
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

pub(crate) use std::sync::atomic::AtomicBool;
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
pub(crate) use std::thread;
pub(crate) use std::thread_local;

/// Asks the processor to fetch a cache line, while the thread does other things. Does nothing on processors other
/// than x86-64.
#[inline(always)]
pub(crate) fn prefetch_write<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, which changes no memory and no register.
        unsafe { _mm_prefetch::<{ _MM_HINT_T0 }>(std::ptr::from_ref(place).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Returns the id of this thread. It is cached, because `thread::current` counts a reference of the thread.
#[inline]
pub(crate) fn thread_id() -> thread::ThreadId {
    thread_local! {
        static ID: Cell<Option<thread::ThreadId>> = const { Cell::new(None) };
    }
    ID.get().unwrap_or_else(|| {
        let id = thread::current().id();
        ID.set(Some(id));
        id
    })
}

/// Locks a mutex. It is never poisoned, since no code between lock and unlock panics.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    if cfg!(moka_sanitize_thread) {
        loop {
            match try_lock(mutex) {
                Some(locked) => return locked,
                None => std::thread::yield_now(),
            }
        }
    }
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[inline]
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(locked) => Some(locked),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Unlocks the mutex and waits until the condition is notified, or until the timeout.
pub(crate) fn wait_timeout<T>(condition: &Condvar, locked: MutexGuard<'_, T>, timeout: Duration) {
    if cfg!(moka_sanitize_thread) {
        drop(locked);
        std::thread::sleep(Duration::from_micros(100));
    } else {
        drop(condition.wait_timeout(locked, timeout));
    }
}

/// Returns the first size. A model uses the second one, with which two threads reach the hard cases in a few steps.
pub(crate) const fn sized<T: Copy>(size: T, in_model: T) -> T {
    if cfg!(moka_model) { in_model } else { size }
}

/// Returns the first size. Under Miri a test uses the second one, because each step takes far longer there.
#[cfg(test)]
pub(crate) const fn sized_for_miri<T: Copy>(size: T, under_miri: T) -> T {
    if cfg!(miri) { under_miri } else { size }
}

/// Declares a static, which a model makes anew for each of its runs.
macro_rules! process_wide {
    ($(#[$about:meta])* static $name:ident: $kind:ty = $value:expr;) => {
        $(#[$about])*
        static $name: $kind = $value;
    };
}
pub(crate) use process_wide;
