//! Reference counts on the free-threaded build, where an object has a local count, of the thread that made it, and a shared
//! count, of all other threads.
//!
//! A thread cannot drop a reference of another thread's local count by itself. It queues the object for that thread, under a
//! lock, and interrupts the thread. So if threads drop values that other threads have set, the cache counts its references in
//! the shared count, which any thread may decrement. The price is that the thread that made the object, too, counts by atomics
//! then. So the cache does this only after the first such drop.
//!
//! # Invariants
//! - `live`: each function is called on an attached thread with a live object, whose counts are atomics.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;

/// The local count of an object that is not counted.
const IMMORTAL: u32 = u32::MAX;
/// One reference in the shared count, whose lowest two bits are flags.
const ONE_SHARED: isize = 1 << 2;

/// Whether a thread has ever dropped a reference to an object of another thread.
static HAS_CROSSED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The id of this thread, as objects name the thread that made them; 0 if it is not known yet.
    static THREAD_ID: Cell<usize> = const { Cell::new(0) };
}

/// Counts one more reference in the shared count. Returns false and counts nothing if no drop has crossed threads yet, or if
/// the object is immortal.
#[inline]
pub fn increment(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: `live`.
    let object = unsafe { &*object.as_ptr() };
    // Relaxed, here and below: an increment orders nothing, as in CPython, and a late view of the flag does no harm.
    if !HAS_CROSSED.load(Ordering::Relaxed) || object.ob_ref_local.load(Ordering::Relaxed) == IMMORTAL {
        return false;
    }
    object.ob_ref_shared.fetch_add(ONE_SHARED, Ordering::Relaxed);
    true
}

/// Makes an object immortal, so that threads no longer count references to it, and the collector never frees it.
///
/// CPython 3.13 does so for its own functions once a second thread was started.
///
/// Has no effect unless this thread made the object. Then no thread counts meanwhile in the field that is written here. The
/// shared count stays: another thread may be counting in it, and whatever it counts, the mark keeps the object alive.
#[cfg(not(Py_3_14))]
pub fn make_immortal(object: &Bound<'_, PyAny>) {
    let object = object.as_ptr();
    if owner_thread(object) != Some(current_thread()) {
        return;
    }
    // SAFETY: `live`; an object of a class that the collector knows.
    unsafe { ffi::PyObject_GC_UnTrack(object.cast()) };
    // SAFETY: `live`.
    let local = unsafe { &(*object).ob_ref_local };
    // Relaxed: a thread that does not see the mark yet counts in the shared count.
    local.store(IMMORTAL, Ordering::Relaxed);
}

/// Whether references to the object are not counted.
#[inline]
pub fn is_immortal(object: *mut ffi::PyObject) -> bool {
    // SAFETY: `live`.
    let local = unsafe { &(*object).ob_ref_local };
    local.load(Ordering::Relaxed) == IMMORTAL
}

/// Records that this thread is about to drop a reference to the object.
#[inline]
pub fn record_drop(object: *mut ffi::PyObject) {
    if !HAS_CROSSED.load(Ordering::Relaxed)
        && owner_thread(object).is_some_and(|owner| owner != current_thread())
    {
        HAS_CROSSED.store(true, Ordering::Relaxed);
    }
}

/// The thread whose local count may hold references; `None` if that thread has ended, or the object is immortal.
fn owner_thread(object: *mut ffi::PyObject) -> Option<usize> {
    // SAFETY: `live`.
    let owner = unsafe { &raw mut (*object).ob_tid };
    // SAFETY: the field is aligned, and other threads access it by atomics too.
    let owner = unsafe { AtomicUsize::from_ptr(owner) }.load(Ordering::Relaxed);
    (owner != 0 && !is_immortal(object)).then_some(owner)
}

/// The id of this thread. CPython does not export it, so it is read from a new object.
fn current_thread() -> usize {
    if THREAD_ID.get() == 0 {
        // SAFETY: attached. An exception that is set stays set: it is put back below.
        let raised = unsafe { ffi::PyErr_GetRaisedException() };
        // SAFETY: attached; a new reference, or null with an exception set.
        let object = unsafe { ffi::PyFloat_FromDouble(0.5) };
        if !object.is_null() {
            THREAD_ID.set(owner_thread(object).unwrap_or_default());
            // SAFETY: the reference just made.
            unsafe { ffi::Py_DECREF(object) };
        }
        // SAFETY: attached. It replaces the MemoryError of a float that was refused; the next drop asks again.
        unsafe { ffi::PyErr_SetRaisedException(raised) };
    }
    THREAD_ID.get()
}
