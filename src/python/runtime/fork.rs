//! A fork: the child forgets the loads of all other threads, which it does not have.
//!
//! The system calls [`in_child`] as its fork returns. Hooks of Python's `os.register_at_fork` would run too late. CPython drops
//! the objects of the other threads before it calls them, and hooks of other packages may run first. Both may run a user's
//! code that asks a cache for a key whose load never ends.

#![allow(unsafe_code)]

use std::io;

use crate::python::runtime::shutdown;
use crate::reclaim;

/// Has the system call [`in_child`] after each fork. Called once a process.
pub(in crate::python) fn watch() -> io::Result<()> {
    // SAFETY: the function lives as long as the process, since CPython unloads no extension.
    match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// It must take no lock that another thread could have held at the fork, and must not allocate.
unsafe extern "C" fn in_child() {
    crate::after_fork_child();
    reclaim::after_fork_child();
    shutdown::after_fork_child();
}
