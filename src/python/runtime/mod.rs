//! What the face needs of the interpreter: threads, forks, the end, the depth of calls, types made without PyO3.

#[cfg(unix)]
pub(in crate::python) mod fork;
pub(in crate::python) mod frame;
pub(in crate::python) mod greenlet;
pub(in crate::python) mod heap_type;
pub(in crate::python) mod interpreter;
pub(in crate::python) mod shutdown;
#[cfg(moka_stays)]
pub(in crate::python) mod thread_exit;
