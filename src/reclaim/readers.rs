//! Which threads read: each is counted before its first pin, until it ends. So a thread that is the only one knows that
//! nobody can see what it unlinked, and need not wait for readers that there are not.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `readers` | a newcomer: one more, Acquire, before it reads | who unlinked: exchanges one for one, Release | one comes after the other: the newcomer counts, or what was unlinked is not there for it |
//! | | a thread at its end: one less, Release | the same, Acquire | what it read comes before the drop |

use std::cell::Cell;

use crate::sync::{Ordering, Readers, epoch, has_company, readers, thread_local};

thread_local! {
    static READER: Reader = Reader::new();
}
std::thread_local! {
    /// Whether this thread is counted, for who may not count it by asking.
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// The part of a thread that pins.
struct Reader {
    handle: epoch::LocalHandle,
    readers: Readers,
}

impl Reader {
    fn new() -> Self {
        let readers = readers();
        readers.fetch_add(1, Ordering::Acquire);
        IS_COUNTED.set(true);
        Reader { handle: epoch::default_collector().register(), readers }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        IS_COUNTED.set(false);
        self.readers.fetch_sub(1, Ordering::Release);
    }
}

#[inline]
pub(super) fn pin() -> epoch::Guard {
    READER.try_with(|reader| reader.handle.pin()).unwrap_or_else(|_| pin_at_the_end())
}

/// Of a thread whose count is gone already. It is counted for ever.
#[cold]
fn pin_at_the_end() -> epoch::Guard {
    let reader = Reader::new();
    let guard = reader.handle.pin();
    std::mem::forget(reader);
    guard
}

/// Forgets all other threads, in the child of a fork, where they are not. It allocates nothing.
#[cfg_attr(not(feature = "python"), allow(dead_code))]
pub(crate) fn forget_others() {
    // Relaxed: there is nobody else.
    readers().store(usize::from(IS_COUNTED.get()), Ordering::Relaxed);
}

/// Whether this thread is pinned. For tests.
#[cfg(all(debug_assertions, not(moka_loom)))]
pub fn is_pinned() -> bool {
    READER.try_with(|reader| reader.handle.is_pinned()).unwrap_or(false)
}

/// Whether no other thread can see, now or later, what this one unlinked before.
#[inline]
pub(super) fn is_alone() -> bool {
    // It counts itself, if it never pinned. Where threads meet the line is only read.
    READER.try_with(|_| ()).is_ok()
        && !has_company()
        && readers().compare_exchange(1, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}
