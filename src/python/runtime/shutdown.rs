//! The end of caches inside caches, and the end of the interpreter while a thread waits.
//!
//! A cache that is destroyed drops its values. One of them may be the last reference to another cache, and so on, each a few
//! frames deeper on the stack. Likewise a cached function may hold the last reference to another. CPython's containers break
//! such chains with a trashcan; [`drop_contents`] does the same.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `RETURNING` | SeqCst, by `wait_detached` | SeqCst, by `begin_end` | a thread that does not see the end begin is seen by it |

use std::cell::{Cell, RefCell};
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{self, ThreadId};

use pyo3::prelude::*;

use crate::python::object::Object;
use crate::reclaim::Retired;
use crate::{Cause, Removals};

/// So many caches are destroyed inside each other. Deeper ones wait in a list.
const MAX_DEPTH: usize = 30;

type Contents = Removals<Object, Object>;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static WAITING: RefCell<Vec<Contents>> = const { RefCell::new(Vec::new()) };
}

/// Drops the contents of a cache that is destroyed, which `take` returns in parts. Deep inside other such caches, it defers
/// that.
pub(in crate::python) fn drop_contents(mut take: impl FnMut() -> Option<Contents>) {
    let depth = DEPTH.get();
    if depth >= MAX_DEPTH {
        // A thread that is ending has no list any more, and drops the contents now.
        let is_deferred =
            WAITING.try_with(|waiting| waiting.borrow_mut().extend(std::iter::from_fn(&mut take)));
        if is_deferred.is_ok() {
            return;
        }
    }
    DEPTH.set(depth + 1);
    std::iter::from_fn(take).for_each(Removals::drop_unreachable);
    while depth == 0
        && let Ok(Some(contents)) = WAITING.try_with(|waiting| waiting.borrow_mut().pop())
    {
        contents.drop_unreachable();
    }
    DEPTH.set(depth);
}

/// Drops the objects of another object that is destroyed, in the same way.
pub(in crate::python) fn drop_objects(objects: impl Iterator<Item = Object>) {
    let mut contents = Contents::new();
    // The cause is not used: no listener is called.
    objects.for_each(|object| contents.push(Retired::of((None, object)), Cause::Explicit));
    let mut contents = Some(contents);
    drop_contents(|| contents.take());
}

/// The thread that ends the interpreter, once it has begun.
static ENDING: OnceLock<ThreadId> = OnceLock::new();

/// The number of threads that are attaching after a wait.
static RETURNING: AtomicUsize = AtomicUsize::new(0);

/// Calls `park` while detached, and attaches again, unless the interpreter ends. Then it parks the thread for ever.
///
/// CPython before 3.14 ends a thread that attaches then by unwinding its stack, which Rust treats as fatal. From 3.14 on CPython
/// itself parks such a thread for ever.
pub(in crate::python) fn wait_detached(py: Python<'_>, park: &(dyn Fn() + Sync)) {
    py.detach(|| {
        park();
        // SeqCst: see Orderings.
        RETURNING.fetch_add(1, SeqCst);
        if ENDING.get().is_some_and(|ending| *ending != thread::current().id()) {
            RETURNING.fetch_sub(1, SeqCst);
            loop {
                thread::park();
            }
        }
    });
    RETURNING.fetch_sub(1, SeqCst);
}

/// Begins the end of the interpreter, and waits for the threads that are attaching.
pub(in crate::python) fn begin_end(py: Python<'_>) {
    ENDING.get_or_init(|| thread::current().id());
    while RETURNING.load(SeqCst) > 0 {
        py.detach(thread::yield_now);
    }
}

/// In the child of a fork no other thread is attaching.
#[cfg(unix)]
pub(in crate::python) fn after_fork_child() {
    RETURNING.store(0, SeqCst);
}
