//! Atomics and locks for models: loom's, and stand-ins for code that does not use loom.
//!
//! # Invariants
//! - `end-of-life`: the drop of an atomic counts as a write to it. So loom finds an access that is not ordered against
//!   the drop: a use after free, or a free that is too early.

use std::alloc::{GlobalAlloc, Layout, System};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::time::Duration;

pub(crate) use ::loom::sync::atomic::AtomicBool;
pub(crate) use ::loom::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use ::loom::thread::{self, yield_now};
pub(crate) use ::loom::thread_local;

pub(crate) mod epoch;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    mutex.try_lock().ok()
}

pub(crate) fn wait_timeout<T>(condition: &Condvar, locked: MutexGuard<'_, T>, timeout: Duration) {
    drop(condition.wait_timeout(locked, timeout));
}

/// Does nothing: a model has no caches.
pub(crate) fn prefetch_write<T>(_place: &T) {}

/// More entries than a model has.
pub(crate) const FAR: usize = 1 << 15;

#[derive(Default)]
pub(crate) struct Padded<T>(pub T);

macro_rules! atomic {
    ($name:ident, $inner:ty, $value:ty $(, $of:ident)?) => {
        /// An atomic of loom, with an `end-of-life`.
        pub(crate) struct $name $(<$of>)? ($inner);

        impl $(<$of>)? $name $(<$of>)? {
            pub fn new(value: $value) -> Self {
                $name(<$inner>::new(value))
            }
        }

        impl $(<$of>)? Deref for $name $(<$of>)? {
            type Target = $inner;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }

        impl $(<$of>)? Drop for $name $(<$of>)? {
            fn drop(&mut self) {
                if !std::thread::panicking() {
                    self.0.with_mut(|_| ());
                }
            }
        }
    };
}

atomic!(AtomicU64, ::loom::sync::atomic::AtomicU64, u64);
atomic!(AtomicUsize, ::loom::sync::atomic::AtomicUsize, usize);
atomic!(AtomicPtr, ::loom::sync::atomic::AtomicPtr<T>, *mut T, T);

impl Default for AtomicU64 {
    fn default() -> Self {
        AtomicU64::new(0)
    }
}

pub(crate) fn full_fence() {
    ::loom::sync::atomic::fence(SeqCst);
}

/// True, so that each `set` of a model first tries without the lock.
pub(crate) fn last_set_replaced() -> bool {
    true
}

pub(crate) fn record_set(_has_replaced: bool) {}

pub(crate) fn thread_id() -> thread::ThreadId {
    thread::current().id()
}

/// Few enough for two threads to meet.
pub(crate) fn cores() -> usize {
    1
}

/// Counted, because a registered thread still uses it when loom has destroyed its lazy statics.
pub(crate) type RegisteredThreads = ::loom::sync::Arc<AtomicUsize>;

pub(crate) fn registered_threads() -> RegisteredThreads {
    ::loom::lazy_static! {
        static ref THREADS: RegisteredThreads = RegisteredThreads::new(AtomicUsize::new(0));
    }
    RegisteredThreads::clone(&THREADS)
}

pub(crate) fn has_other_threads() -> bool {
    registered_threads().load(Relaxed) > 1
}

/// Returns the number of the thread.
pub(crate) fn thread_slot() -> usize {
    ::loom::lazy_static! {
        static ref NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    }
    ::loom::thread_local! {
        static SLOT: usize = NEXT.fetch_add(1, Relaxed);
    }
    SLOT.with(|slot| *slot)
}

pub(crate) fn thread_mark() -> usize {
    thread_slot() + 1
}

/// Two shards from a capacity of eight on, so that a model chooses the number of shards.
pub(crate) fn shard_count(capacity: u64) -> usize {
    if capacity < 8 { 1 } else { 2 }
}

pub(crate) const fn sized<T: Copy>(_size: T, in_model: T) -> T {
    in_model
}

pub(crate) type Zeroed<T> = Box<[T]>;

/// # Safety
/// - As outside of a model: all bits zero are a valid `T`. Here each item is made by `default`, since an atomic of
///   loom is not all zero.
pub(crate) unsafe fn zeroed<T: Default>(len: usize) -> Option<Zeroed<T>> {
    Some((0..len).map(|_| T::default()).collect())
}

macro_rules! process_wide {
    ($(#[$about:meta])* static $name:ident: $kind:ty = $value:expr;) => {
        ::loom::lazy_static! {
            $(#[$about])*
            static ref $name: $kind = $value;
        }
    };
}
pub(crate) use process_wide;

/// As the standard library's, except that two threads may both make the value, of which one is kept.
pub(crate) struct OnceLock<T> {
    value: AtomicPtr<T>,
    owns: PhantomData<T>,
}

impl<T> OnceLock<T> {
    pub fn new() -> Self {
        OnceLock { value: AtomicPtr::new(ptr::null_mut()), owns: PhantomData }
    }

    pub fn get(&self) -> Option<&T> {
        // SAFETY: the pointer is null, or from the box in `set`, which is freed with `self`.
        unsafe { self.value.load(Acquire).as_ref() }
    }

    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(made) = self.get() {
            return made;
        }
        let _ = self.set(make());
        self.get().expect("this thread or another has set it")
    }

    pub fn set(&self, value: T) -> Result<(), T> {
        let made = Box::into_raw(Box::new(value));
        match self.value.compare_exchange(ptr::null_mut(), made, AcqRel, Acquire) {
            Ok(_) => Ok(()),
            // SAFETY: the pointer came from the box above and was not published.
            Err(_) => Err(*unsafe { Box::from_raw(made) }),
        }
    }
}

impl<T> Drop for OnceLock<T> {
    fn drop(&mut self) {
        let value = self.value.load(Relaxed);
        if !value.is_null() {
            // SAFETY: the pointer came from the box in `set`, and `&mut self` excludes readers.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}

/// The system's allocator, except that memory which an epoch frees is leaked. So a read that comes too late finds
/// atomics at their `end-of-life`, and never reused memory.
struct LeakDeferred;

// SAFETY: the system's allocator does the work. A leak is safe.
unsafe impl GlobalAlloc for LeakDeferred {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !epoch::is_freeing() {
            // SAFETY: the contract is the same, and `alloc` got the memory from the system.
            unsafe { System.dealloc(pointer, layout) }
        }
    }
}

#[global_allocator]
static ALLOCATOR: LeakDeferred = LeakDeferred;
