//! What `sync` is in a model: loom's atomics and locks, and stand-ins for what does not know loom.
//!
//! # Invariants
//! - `end-of-life`: to drop an atomic is a write to it. So loom finds whoever is at it without being ordered before
//!   the drop, or after: a use after free, or a free too soon.

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

pub(crate) fn wait_a_while<T>(condition: &Condvar, locked: MutexGuard<'_, T>, how_long: Duration) {
    drop(condition.wait_timeout(locked, how_long));
}

/// Nothing that a model could see.
pub(crate) fn prefetch_write<T>(_place: &T) {}

/// More than a model has.
pub(crate) const FAR: usize = 1 << 15;

#[derive(Default)]
pub(crate) struct Padded<T>(pub T);

macro_rules! atomic {
    ($name:ident, $inner:ty, $value:ty $(, $of:ident)?) => {
        /// loom's, with an `end-of-life`.
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

/// Few enough, so that two threads meet.
pub(crate) fn cores() -> usize {
    1
}

/// Kept by each thread that is counted: at a thread's end what is lazily made is gone.
pub(crate) type Readers = ::loom::sync::Arc<AtomicUsize>;

pub(crate) fn readers() -> Readers {
    ::loom::lazy_static! {
        static ref READERS: Readers = Readers::new(AtomicUsize::new(0));
    }
    Readers::clone(&READERS)
}

pub(crate) fn has_company() -> bool {
    readers().load(Relaxed) >= 2 * super::ONE_READER
}

/// The number of the thread.
pub(crate) fn thread_slot() -> usize {
    ::loom::lazy_static! {
        static ref NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    }
    ::loom::thread_local! {
        static STRIPE: usize = NEXT.fetch_add(1, Relaxed);
    }
    STRIPE.with(|thread_slot| *thread_slot)
}

pub(crate) fn thread_mark() -> usize {
    thread_slot() + 1
}

/// Two shards from a capacity of eight on, so that a model chooses.
pub(crate) fn shard_count(capacity: u64) -> usize {
    if capacity < 8 { 1 } else { 2 }
}

pub(crate) const fn sized<T: Copy>(_size: T, in_model: T) -> T {
    in_model
}

pub(crate) type Zeroed<T> = Box<[T]>;

/// # Safety
/// - As outside of a model, where all zero is a valid `T`: an atomic of loom's is not.
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

/// The standard library's, but that two threads may both make the value, of which one is kept.
pub(crate) struct OnceLock<T> {
    value: AtomicPtr<T>,
    owns: PhantomData<T>,
}

impl<T> OnceLock<T> {
    pub fn new() -> Self {
        OnceLock { value: AtomicPtr::new(ptr::null_mut()), owns: PhantomData }
    }

    pub fn get(&self) -> Option<&T> {
        // SAFETY: null, or from the box in `set`, which is freed with `self`.
        unsafe { self.value.load(Acquire).as_ref() }
    }

    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(made) = self.get() {
            return made;
        }
        let _ = self.set(make());
        self.get().expect("somebody has set it")
    }

    pub fn set(&self, value: T) -> Result<(), T> {
        let made = Box::into_raw(Box::new(value));
        match self.value.compare_exchange(ptr::null_mut(), made, AcqRel, Acquire) {
            Ok(_) => Ok(()),
            // SAFETY: it came from the box above, and nobody has seen it.
            Err(_) => Err(*unsafe { Box::from_raw(made) }),
        }
    }
}

impl<T> Drop for OnceLock<T> {
    fn drop(&mut self) {
        let value = self.value.load(Relaxed);
        if !value.is_null() {
            // SAFETY: it came from the box in `set`, and `&mut self` says that nobody reads it.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}

/// The system's memory, but that what an epoch frees stays as it is: whoever reads it too late finds atomics at
/// their `end-of-life`, and no other's memory.
struct Kept;

// SAFETY: the system's allocator does it, or nothing is done.
unsafe impl GlobalAlloc for Kept {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !epoch::is_freeing() {
            // SAFETY: the caller's.
            unsafe { System.dealloc(pointer, layout) }
        }
    }
}

#[global_allocator]
static KEPT: Kept = Kept;
