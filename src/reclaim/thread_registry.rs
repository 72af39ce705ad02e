//! The registry of threads that read or write: each is counted before its first pin or lock, until it ends.
//!
//! If a thread is the only registered one, no other thread can see a value that it unlinked. So it drops the value
//! without a grace period.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `registered_threads` | a new thread adds one, Acquire, before it reads | the unlinking thread exchanges one for one, Release | one comes after the other: the new thread counts, or it does not find the unlinked value |
//! | | an ending thread subtracts one, Release | the unlinking thread exchanges one for one, Acquire | the ended thread's reads come before the drop |

use std::cell::Cell;

use crate::sync::{Ordering, RegisteredThreads, epoch, has_other_threads, registered_threads, thread_local};

thread_local! {
    static REGISTRATION: Registration = Registration::new();
}
std::thread_local! {
    /// Whether this thread is registered, for code that must not register it by asking.
    static IS_REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// A thread's entry in the registry, and its part of the epoch.
struct Registration {
    handle: epoch::LocalHandle,
    threads: RegisteredThreads,
}

impl Registration {
    fn new() -> Self {
        let threads = registered_threads();
        // Acquire: pairs with the Release in `is_only_thread`.
        threads.fetch_add(1, Ordering::Acquire);
        IS_REGISTERED.set(true);
        Registration { handle: epoch::default_collector().register(), threads }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        IS_REGISTERED.set(false);
        // Release: pairs with the Acquire in `is_only_thread`.
        self.threads.fetch_sub(1, Ordering::Release);
    }
}

/// Registers this thread and pins the epoch.
#[inline]
pub(super) fn pin() -> epoch::Guard {
    REGISTRATION.try_with(|own| own.handle.pin()).unwrap_or_else(|_| pin_ending_thread())
}

/// Registers this thread without a pin, before it takes a lock.
#[inline]
pub(crate) fn register_thread() {
    REGISTRATION.try_with(|_| ()).unwrap_or_else(|_| drop(pin_ending_thread()));
}

/// Pins for a thread whose registration is destroyed already. The new registration is never removed.
#[cold]
fn pin_ending_thread() -> epoch::Guard {
    let registration = Registration::new();
    let guard = registration.handle.pin();
    std::mem::forget(registration);
    guard
}

/// Removes all other threads, which the child of a fork does not have. Allocates nothing.
#[cfg_attr(not(all(feature = "python", unix)), allow(dead_code))]
pub(crate) fn after_fork_child() {
    // Relaxed: the child has one thread.
    registered_threads().store(usize::from(IS_REGISTERED.get()), Ordering::Relaxed);
}

/// Returns whether this thread is pinned. For tests.
#[cfg(all(debug_assertions, not(moka_loom)))]
pub fn is_pinned() -> bool {
    REGISTRATION.try_with(|own| own.handle.is_pinned()).unwrap_or(false)
}

/// Returns whether no other thread can see, now or later, the values that this thread unlinked before.
#[inline]
pub(super) fn is_only_thread() -> bool {
    // `try_with` registers a thread that never pinned. With several threads the shared line is only read.
    REGISTRATION.try_with(|_| ()).is_ok()
        && !has_other_threads()
        // AcqRel: pairs with the Acquire of a new thread and with the Release of one that ended.
        && registered_threads().compare_exchange(1, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}
