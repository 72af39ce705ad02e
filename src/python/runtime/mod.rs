//! The interpreter around the face: threads, forks, the end, the depth of calls, types made without PyO3.
//!
//! # Files
//! | file | holds |
//! |---|---|
//! | `fork.rs` | the child of a fork |
//! | `interpreter.rs` | the one interpreter that is served, and the limit of its C stack |
//! | `race_cell.rs` | values that are made at their first use |
//! | `shutdown.rs`, `thread_exit.rs` | the end of the interpreter, and threads that it ends |
//! | `greenlet.rs` | the greenlet that runs on a thread |
//! | `frame.rs` | frames for coroutines that have not begun |
//! | `heap_type.rs` | types made without PyO3 |

#[cfg(unix)]
pub(in crate::python) mod fork;
pub(in crate::python) mod frame;
pub(in crate::python) mod greenlet;
pub(in crate::python) mod heap_type;
pub(in crate::python) mod interpreter;
pub(in crate::python) mod race_cell;
pub(in crate::python) mod shutdown;
#[cfg(moka_thread_exit)]
pub(in crate::python) mod thread_exit;
