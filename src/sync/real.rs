//! What is real on either build: for threads that wait detached, and for what is written once.

use std::cell::Cell;
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
pub(crate) use std::thread;
pub(crate) use std::thread_local;

/// Asks for the cache line of what is to be written soon and [is far](super::is_far): so it comes while other things
/// are done. By the instruction itself, since `core::arch` asks for a line to be read, unless a build is for
/// processors of the feature alone; one without it does nothing here.
#[inline(always)]
pub(crate) fn prefetch_write<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it changes no memory and no register.
    unsafe {
        std::arch::asm!(
            "prefetchw [{}]",
            in(reg) std::ptr::from_ref(place),
            options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// The id of this thread. The standard library counts references of the thread each time that it is asked.
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

/// Takes a mutex that is never poisoned: nothing panics between lock and unlock.
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

/// Waits with the mutex free until the condition is told, or for a while.
pub(crate) fn wait_a_while<T>(condition: &Condvar, locked: MutexGuard<'_, T>, how_long: Duration) {
    if cfg!(moka_sanitize_thread) {
        drop(locked);
        std::thread::sleep(Duration::from_micros(100));
    } else {
        drop(condition.wait_timeout(locked, how_long));
    }
}

/// A size, and a smaller one for models, where two threads are to reach the hard cases in a few steps.
pub(crate) const fn sized<T: Copy>(size: T, _in_model: T) -> T {
    size
}

/// A static that a model makes anew for each of its runs.
macro_rules! process_wide {
    ($(#[$about:meta])* static $name:ident: $kind:ty = $value:expr;) => {
        $(#[$about])*
        static $name: $kind = $value;
    };
}
pub(crate) use process_wide;
