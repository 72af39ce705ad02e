//! Which threads read or write: each is counted before its first pin or lock, until it ends. So a thread that is the only
//! one knows that nobody can see what it unlinked, and need not wait for readers that there are not. For some steps it can
//! also let nobody in ([`Alone`]): then it needs no pin, nobody else writes, and what it unlinks is seen by nobody.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `readers` | a newcomer: one more, Acquire, before it reads | who unlinked: exchanges one for one, Release | one comes after the other: the newcomer counts, or what was unlinked is not there for it |
//! | | a thread at its end: one less, Release | the same, Acquire | what it read comes before the drop |
//! | | who is alone: closed, Acquire; open again, Release | a newcomer, which waits until it is open, Acquire | what was done meanwhile comes before what the newcomer does |

use std::cell::Cell;
use std::thread;
use std::time::Duration;

use crate::sync::{
    ONE_READER, Ordering, Readers, epoch, has_company, readers, sized, thread_local, yield_now,
};

/// In the count of readers while the only one lets nobody in.
const CLOSED: usize = 1;
/// How often who waits for a thread lets others go on until it naps. Who is waited for takes a few steps, unless it was
/// stopped in the middle of them, while its processor does other things.
const TURNS: usize = sized(32, usize::MAX);
const NAP: Duration = Duration::from_micros(200);

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
        enter(&readers);
        IS_COUNTED.set(true);
        Reader { handle: epoch::default_collector().register(), readers }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        IS_COUNTED.set(false);
        self.readers.fetch_sub(ONE_READER, Ordering::Release);
    }
}

/// Lets others go on, where this is so many times that it did.
pub(super) fn let_others_go_on(turn: usize) {
    if turn < TURNS { yield_now() } else { thread::sleep(NAP) }
}

/// Counts a newcomer, once it is let in.
fn enter(readers: &Readers) {
    for turn in 0.. {
        let seen = readers.load(Ordering::Relaxed);
        if seen & CLOSED != 0 {
            let_others_go_on(turn);
        } else if readers
            .compare_exchange(seen, seen + ONE_READER, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
        {
            break;
        }
    }
}

/// Lets no other thread begin to read or write, for as long as it lives.
pub(super) struct Alone(Readers);

/// For a thread that is the only one. It takes no lock meanwhile, and runs no user's code.
#[inline]
pub(super) fn be_alone() -> Option<Alone> {
    exchange_for(ONE_READER | CLOSED, Ordering::Acquire).then(|| Alone(readers()))
}

impl Drop for Alone {
    #[inline]
    fn drop(&mut self) {
        // Nobody changes it while it is closed.
        self.0.store(ONE_READER, Ordering::Release);
    }
}

#[inline]
pub(super) fn pin() -> epoch::Guard {
    READER.try_with(|reader| reader.handle.pin()).unwrap_or_else(|_| pin_at_the_end())
}

/// Counts this thread without a pin, for who takes a lock: who is alone is so among those who write, too.
#[inline]
pub(crate) fn register_thread() {
    READER.try_with(|_| ()).unwrap_or_else(|_| drop(pin_at_the_end()));
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
#[cfg_attr(not(all(feature = "python", unix)), allow(dead_code))]
pub(crate) fn after_fork_child() {
    // Relaxed: there is nobody else.
    readers().store(if IS_COUNTED.get() { ONE_READER } else { 0 }, Ordering::Relaxed);
}

/// Whether this thread is pinned, or lets nobody in. For tests.
#[cfg(all(debug_assertions, not(moka_loom)))]
pub fn is_pinned() -> bool {
    let is_alone = IS_COUNTED.get() && readers().load(Ordering::Relaxed) & CLOSED != 0;
    is_alone || READER.try_with(|reader| reader.handle.is_pinned()).unwrap_or(false)
}

/// Whether no other thread can see, now or later, what this one unlinked before.
#[inline]
pub(super) fn is_alone() -> bool {
    exchange_for(ONE_READER, Ordering::AcqRel)
}

/// Exchanges the count of this thread alone for another; false where there is somebody else.
#[inline]
fn exchange_for(count: usize, order: Ordering) -> bool {
    // It counts itself, if it never pinned. Where threads meet the line is only read.
    READER.try_with(|_| ()).is_ok()
        && !has_company()
        && readers().compare_exchange(ONE_READER, count, order, Ordering::Relaxed).is_ok()
}
