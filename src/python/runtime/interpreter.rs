//! The interpreter that the module serves: the first that imports it in its process; and how deep its C stack may get.
//!
//! The classes are made once a process and belong to the interpreter that they were made in. CPython itself turns
//! interpreters away that share nothing with the first, and PyO3 no others, so that is done here.
//!
//! Up to 3.13 CPython counts the calls of C functions in each other, and raises before so many of its own frames fill a stack of
//! 8 MB. Threads can have less, and some of our frames are larger. So where a user's code runs in them they count for
//! one more, and the address of the stack is compared with its end. From 3.14 on CPython compares the address itself.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::sync::OnceLock;

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Raises unless this is the interpreter that imported the module first.
pub(in crate::python) fn claim(py: Python<'_>) -> PyResult<()> {
    static FIRST: OnceLock<i64> = OnceLock::new();
    // SAFETY: the thread is attached.
    let interpreter = unsafe { ffi::PyInterpreterState_Get() };
    // SAFETY: it is the current interpreter, so it is alive.
    let number = unsafe { ffi::PyInterpreterState_GetID(interpreter) };
    if number < 0 {
        return Err(PyErr::fetch(py));
    }
    if *FIRST.get_or_init(|| number) == number {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "moka_py serves one interpreter of a process, the first that imports it, and this is another",
    ))
}

/// Runs what counts references or holds errors by PyO3's means. In a bare C function PyO3 takes the thread for detached, until
/// it is told.
pub(in crate::python) fn with_pyo3_attached<T>(_py: Python<'_>, code: impl FnOnce(Python<'_>) -> T) -> T {
    // SAFETY: the thread is attached.
    unsafe { Python::attach_unchecked(code) }
}

/// The end of a thread's stack, as far as a user's code may get: [start, end) is reserved.
#[cfg(not(Py_3_14))]
mod stack {
    use std::cell::Cell;

    /// The interpreter may need so much to raise, and to call functions that do not look at the stack.
    const MAX_RESERVE_BYTES: usize = 128 << 10;

    thread_local! {
        /// Where the reserve begins and how large it is, once that is known. A size of 0 means that the system does not tell.
        static RESERVE: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
    }

    /// Whether the thread's stack is used up but for its reserve. A stack that is not the thread's own counts as free.
    #[inline]
    pub(in crate::python) fn is_used_up() -> bool {
        let here = 0_u8;
        let here = std::ptr::from_ref(&here).addr();
        let (start, size) = RESERVE.get().unwrap_or_else(look);
        here.wrapping_sub(start) < size
    }

    #[cold]
    fn look() -> (usize, usize) {
        let reserve = bounds().map_or((0, 0), |(start, size)| (start, MAX_RESERVE_BYTES.min(size / 4)));
        RESERVE.set(Some(reserve));
        reserve
    }

    /// Where the usable part of the thread's stack begins, and its size.
    #[cfg(target_os = "linux")]
    fn bounds() -> Option<(usize, usize)> {
        let mut attributes = std::mem::MaybeUninit::uninit();
        // SAFETY: it has no conditions.
        let thread = unsafe { libc::pthread_self() };
        // SAFETY: it is the thread itself; the place is for such attributes.
        if unsafe { libc::pthread_getattr_np(thread, attributes.as_mut_ptr()) } != 0 {
            return None;
        }
        let (mut start, mut size, mut guard) = (std::ptr::null_mut(), 0, 0);
        // SAFETY: the attributes were written above; the places are of the right types.
        let failed = unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &mut start, &mut size) };
        // SAFETY: likewise.
        let guard_failed = unsafe { libc::pthread_attr_getguardsize(attributes.as_ptr(), &mut guard) };
        // SAFETY: the attributes were written above, and are not used again.
        unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
        // Some systems count the guard as a part of the stack.
        (failed == 0 && guard_failed == 0).then(|| (start.addr() + guard, size.saturating_sub(guard)))
    }

    /// Where the usable part of the thread's stack begins, and its size.
    #[cfg(target_os = "macos")]
    fn bounds() -> Option<(usize, usize)> {
        // SAFETY: it has no conditions.
        let thread = unsafe { libc::pthread_self() };
        // SAFETY: it is the thread itself.
        let end = unsafe { libc::pthread_get_stackaddr_np(thread) }.addr();
        // SAFETY: likewise.
        let size = unsafe { libc::pthread_get_stacksize_np(thread) };
        Some((end.checked_sub(size)?, size))
    }

    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    fn bounds() -> Option<(usize, usize)> {
        None
    }
}

/// Raises `RecursionError` where the thread's stack is used up. Returns false with the exception set. For a bare C function, too.
#[inline]
pub(in crate::python) fn has_stack(_py: Python<'_>) -> bool {
    #[cfg(not(Py_3_14))]
    if stack::is_used_up() {
        raise_used_up();
        return false;
    }
    true
}

#[cfg(not(Py_3_14))]
#[cold]
fn raise_used_up() {
    let text = c"maximum recursion depth exceeded: a cache calls a function, and the C stack of the thread is used up";
    // SAFETY: the thread is attached.
    let kind = unsafe { ffi::PyExc_RecursionError };
    // SAFETY: the thread is attached; an exception's class.
    unsafe { ffi::PyErr_SetString(kind, text.as_ptr()) };
}

/// One more call in the interpreter's count of those that are in each other, until it is dropped.
pub(in crate::python) struct RecursionGuard<'py>(PhantomData<Python<'py>>);

impl<'py> RecursionGuard<'py> {
    /// Raises `RecursionError` where the interpreter does.
    pub fn enter(py: Python<'py>) -> PyResult<Self> {
        Self::enter_at_once(py).ok_or_else(|| PyErr::fetch(py))
    }

    /// The same from a bare C function: with `None` the exception is set.
    #[inline]
    pub fn enter_at_once(py: Python<'py>) -> Option<Self> {
        if !has_stack(py) {
            return None;
        }
        // SAFETY: the thread is attached, and the text lives for ever.
        let entered = unsafe { ffi::Py_EnterRecursiveCall(c" while a cache calls a function".as_ptr()) };
        (entered == 0).then(|| RecursionGuard(PhantomData))
    }
}

impl Drop for RecursionGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: it was entered, and the thread is attached.
        unsafe { ffi::Py_LeaveRecursiveCall() };
    }
}
