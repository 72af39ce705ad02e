//! A fork: what other threads had under way is forgotten in the child, where those threads are not.
//!
//! The system calls [`in_child`] as its fork returns. Hooks of Python's `os.register_at_fork` would come too late: CPython lets
//! go of the other threads' objects before it calls them, and hooks of others may come first, and both may run code of
//! a user that asks a cache for what nobody computes any more.

#![allow(unsafe_code)]

use std::io;

use crate::python::runtime::shutdown;
use crate::reclaim;

/// Asks to be told of forks, once a process.
pub(in crate::python) fn watch() -> io::Result<()> {
    // SAFETY: the function is there for as long as the process is: CPython unloads no extension.
    match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// It may take no lock that it could find taken, and allocate nothing.
unsafe extern "C" fn in_child() {
    crate::after_fork_child();
    reclaim::after_fork_child();
    shutdown::after_fork_child();
}
