//! The interpreter that the module serves, which is the first that imports it in its process; and the limit of its C stack.
//!
//! The classes are made once a process and belong to the interpreter that made them. CPython itself refuses the module to
//! interpreters that share nothing with the first. PyO3 refuses it to no others, so that is done here.
//!
//! Up to 3.13 CPython counts nested calls of C functions, and raises RecursionError before so many of its own frames fill a
//! stack of 8 MB. Threads can have a smaller stack, and some frames of this module are larger. So a call of a user's code from
//! here counts as one call more, and the address of the stack is compared with its end. From 3.14 on CPython compares the
//! address itself.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::sync::OnceLock;

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::python::raised::Raised;

/// Raises ImportError unless this interpreter was the first to import the module.
pub(in crate::python) fn claim(py: Python<'_>) -> PyResult<()> {
    static FIRST: OnceLock<i64> = OnceLock::new();
    // SAFETY: the thread is attached.
    let interpreter = unsafe { ffi::PyInterpreterState_Get() };
    // SAFETY: it is the current interpreter, so it is alive.
    let id = unsafe { ffi::PyInterpreterState_GetID(interpreter) };
    if id < 0 {
        return Err(Raised::already_set(py).into());
    }
    if *FIRST.get_or_init(|| id) == id {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "moka_py serves one interpreter of a process, the first that imports it, and this is another",
    ))
}

/// The reserve at the end of each thread's stack, which a user's code must not reach.
#[cfg(not(Py_3_14))]
mod stack {
    use std::cell::Cell;

    /// The interpreter may need so much to raise, and to call functions that do not check the stack.
    const MAX_RESERVE_BYTES: usize = 128 << 10;

    thread_local! {
        /// The start and the size of the reserve, once they are known. The size is 0 if the system does not tell them.
        static RESERVE: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
    }

    /// Whether the thread's stack is used up except for its reserve. A stack that is not the thread's own counts as free.
    #[inline]
    pub(in crate::python) fn is_used_up() -> bool {
        let here = 0_u8;
        let here = std::ptr::from_ref(&here).addr();
        let (start, size) = RESERVE.get().unwrap_or_else(find_reserve);
        here.wrapping_sub(start) < size
    }

    #[cold]
    fn find_reserve() -> (usize, usize) {
        let reserve = bounds().map_or((0, 0), |(start, size)| (start, MAX_RESERVE_BYTES.min(size / 4)));
        RESERVE.set(Some(reserve));
        reserve
    }

    /// The start and the size of the usable part of the thread's stack.
    #[cfg(target_os = "linux")]
    fn bounds() -> Option<(usize, usize)> {
        let mut attributes = std::mem::MaybeUninit::uninit();
        // SAFETY: the function has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        // SAFETY: this thread, which is alive; the attributes are written to.
        if unsafe { libc::pthread_getattr_np(thread, attributes.as_mut_ptr()) } != 0 {
            return None;
        }
        let (mut start, mut size, mut guard) = (std::ptr::null_mut(), 0, 0);
        // SAFETY: the attributes were written above; the results are written to.
        let failed = unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &mut start, &mut size) };
        // SAFETY: likewise.
        let guard_failed = unsafe { libc::pthread_attr_getguardsize(attributes.as_ptr(), &mut guard) };
        // SAFETY: the attributes were written above, and are not used again.
        unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
        // Some systems count the guard as a part of the stack.
        (failed == 0 && guard_failed == 0).then(|| (start.addr() + guard, size.saturating_sub(guard)))
    }

    /// The start and the size of the usable part of the thread's stack.
    #[cfg(target_os = "macos")]
    fn bounds() -> Option<(usize, usize)> {
        // SAFETY: the function has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        // SAFETY: this thread, which is alive.
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

/// Whether the thread's stack is not used up. If it is, `RecursionError` is set.
#[inline]
pub(in crate::python) fn has_stack(_py: Python<'_>) -> bool {
    #[cfg(not(Py_3_14))]
    if stack::is_used_up() {
        let text = c"maximum recursion depth exceeded: a cache calls a function, and the C stack of the thread is used up";
        let _ = crate::python::ffi::raise::<pyo3::exceptions::PyRecursionError>(_py, text);
        return false;
    }
    true
}

/// Counts as one nested call in the interpreter's count, until it is dropped.
pub(in crate::python) struct RecursionGuard<'py>(PhantomData<Python<'py>>);

impl<'py> RecursionGuard<'py> {
    /// Raises `RecursionError` where a nested call of the interpreter would.
    #[inline]
    pub fn enter(py: Python<'py>) -> Result<Self, Raised> {
        if !has_stack(py) {
            return Err(Raised::already_set(py));
        }
        // SAFETY: the thread is attached, and the text is static.
        let entered = unsafe { ffi::Py_EnterRecursiveCall(c" while a cache calls a function".as_ptr()) };
        if entered == 0 { Ok(RecursionGuard(PhantomData)) } else { Err(Raised::already_set(py)) }
    }
}

impl Drop for RecursionGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: the call was entered, and the thread is attached.
        unsafe { ffi::Py_LeaveRecursiveCall() };
    }
}
