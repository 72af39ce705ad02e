//! The end: of caches inside caches and cached functions over others, and of the interpreter under a thread that waits.
//!
//! A cache that dies drops its values, and one of them may be the last reference to another cache, and so on,
//! each a few frames deeper on the stack; and so with a cached function over another. CPython's containers break such
//! chains with a trashcan; so does [`drop_contents`].

use std::cell::{Cell, RefCell};
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{self, ThreadId};

use pyo3::prelude::*;

use crate::python::object::Object;
use crate::reclaim::Retired;
use crate::{Cause, Removals};

/// Caches that die inside each other before the rest wait for their turn.
const DEEPEST: usize = 30;

type Contents = Removals<Object, Object>;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static WAITING: RefCell<Vec<Contents>> = const { RefCell::new(Vec::new()) };
}

/// Drops what a dying cache held, which `take` hands out in parts; deep inside other dying caches, later.
pub(in crate::python) fn drop_contents(mut take: impl FnMut() -> Option<Contents>) {
    let depth = DEPTH.get();
    if depth >= DEEPEST {
        // A thread that is ending has no list any more, and drops what it has at once.
        let is_kept = WAITING.try_with(|waiting| waiting.borrow_mut().extend(std::iter::from_fn(&mut take)));
        if is_kept.is_ok() {
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

/// Drops what another dying object held, in the same way.
pub(in crate::python) fn drop_objects(objects: impl Iterator<Item = Object>) {
    let mut contents = Contents::new();
    // Nobody is told of a cause.
    objects.for_each(|object| contents.push(Retired::of((None, object)), Cause::Explicit));
    let mut contents = Some(contents);
    drop_contents(|| contents.take());
}

/// The thread that ends the interpreter, once it does.
static ENDING: OnceLock<ThreadId> = OnceLock::new();

/// Threads on their way back from a wait to the interpreter.
static RETURNING: AtomicUsize = AtomicUsize::new(0);

/// Waits detached, by what parks for a while, and comes back; but not while the interpreter ends.
///
/// CPython before 3.14 ends a thread that comes back then, by unwinding its stack, which Rust takes for
/// fatal. So it stays away, for ever, as a thread does from 3.14 on.
pub(in crate::python) fn wait_detached(py: Python<'_>, park: &(dyn Fn() + Sync)) {
    py.detach(|| {
        park();
        // SeqCst, both sides: a thread that does not see the end begin is seen by it.
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

/// Begins the end, at exit: lets those come back who are on their way.
pub(in crate::python) fn begin_end(py: Python<'_>) {
    ENDING.get_or_init(|| thread::current().id());
    while RETURNING.load(SeqCst) > 0 {
        py.detach(thread::yield_now);
    }
}

/// In a child after a fork nobody else is on the way.
#[cfg(unix)]
pub(in crate::python) fn after_fork_child() {
    RETURNING.store(0, SeqCst);
}
