//! What `sync` is where threads run in parallel.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize};
pub(crate) use std::thread::yield_now;

pub(crate) use crossbeam_epoch as epoch;

/// Keeps what it holds on cache lines of its own: two lines, since they are fetched in pairs.
#[repr(align(128))]
#[derive(Default)]
pub(crate) struct Padded<T>(pub T);

/// Orders the stores before it and the loads after it, for all threads that do the same.
pub(crate) fn full_fence() {
    // Of two threads that write the word, the later sees what the earlier stored before.
    #[cfg(moka_sanitize_thread)]
    {
        static MET: AtomicUsize = AtomicUsize::new(0);
        MET.fetch_add(1, Ordering::SeqCst);
    }
    #[cfg(not(moka_sanitize_thread))]
    std::sync::atomic::fence(Ordering::SeqCst);
}

/// Entries of one shard of several, of which each takes some 70 bytes, that outgrow the caches of most cores.
pub(crate) const FAR: usize = 1 << 15;

pub(crate) type Readers = &'static AtomicUsize;

/// How many threads have pinned an epoch and not ended, in units of [`ONE_READER`](super::ONE_READER).
#[inline]
pub(crate) fn readers() -> Readers {
    static READERS: AtomicUsize = AtomicUsize::new(0);
    &READERS
}

/// Whether several threads use caches.
#[inline]
pub(crate) fn has_company() -> bool {
    // Relaxed: where it matters that none comes meanwhile, `reclaim` asks.
    readers().load(Ordering::Relaxed) >= 2 * super::ONE_READER
}

/// How many threads can run at a time. To ask the system takes as long as to make a cache.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Numbers below this one are a thread's alone.
pub(crate) const ALONE: usize = 64;

/// How many threads at a time have a number of their own.
pub(crate) fn lone_stripes() -> usize {
    (4 * cores()).min(ALONE)
}

/// How many more there are for the others.
#[cfg_attr(not(feature = "python"), allow(dead_code))]
pub(crate) fn shared_stripes() -> usize {
    cores().min(ALONE)
}

/// A small number of the thread's own; or, once those are taken, one from [`ALONE`] on that others have too. A
/// thread that ends leaves its number to another, which sees what was stored under it.
#[inline]
pub(crate) fn thread_slot() -> usize {
    let thread_slot = THREAD.with(|thread| thread.thread_slot.get());
    if thread_slot == UNKNOWN { choose_stripe() } else { thread_slot }
}

/// Whether the last `set` of this thread only replaced a value. Its next one probably does the same.
#[inline]
pub(crate) fn last_set_replaced() -> bool {
    THREAD.with(|thread| thread.last_set_replaced.get())
}

#[inline]
pub(crate) fn record_set(has_replaced: bool) {
    THREAD.with(|thread| thread.last_set_replaced.set(has_replaced));
}

/// A number other than 0 that no other thread has at the time.
#[inline]
pub(crate) fn thread_mark() -> usize {
    THREAD.with(|thread| std::ptr::from_ref(thread).addr())
}

const UNKNOWN: usize = usize::MAX;

/// A bit for each number that a thread has.
static TAKEN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // One for all, since to find it is a call.
    static THREAD: Thread =
        const { Thread { thread_slot: Cell::new(UNKNOWN), last_set_replaced: Cell::new(false) } };
    // Apart, so that to ask for the number is not to ask whether the thread is ending.
    static GIVEN_BACK: GiveBack = const { GiveBack };
}

struct Thread {
    thread_slot: Cell<usize>,
    last_set_replaced: Cell<bool>,
}

/// Frees the thread's number at its end.
struct GiveBack;

impl Drop for GiveBack {
    fn drop(&mut self) {
        let thread_slot = THREAD.with(|thread| thread.thread_slot.replace(ALONE));
        if thread_slot < ALONE {
            // Release: pairs with the Acquire in `choose_stripe`.
            TAKEN.fetch_and(!(1 << thread_slot), Ordering::Release);
        }
    }
}

#[cold]
fn choose_stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let take_free = |taken: u64| {
        let free = taken.trailing_ones() as usize;
        (free < lone_stripes()).then(|| taken | 1 << free)
    };
    // A thread that is ending already gives nothing back.
    let is_whole = GIVEN_BACK.try_with(|_| ()).is_ok();
    // Acquire: pairs with the Release at the end of the thread that had the number before.
    let taken = TAKEN
        .fetch_update(Ordering::Acquire, Ordering::Relaxed, |taken| take_free(taken).filter(|_| is_whole));
    let free = taken.ok().map(|taken| taken.trailing_ones() as usize);
    // Relaxed: any number will do.
    let thread_slot = free.unwrap_or_else(|| ALONE + NEXT.fetch_add(1, Ordering::Relaxed) % ALONE);
    THREAD.with(|thread| thread.thread_slot.set(thread_slot));
    thread_slot
}

/// How many shards a cache of this capacity has.
///
/// A small cache has one, so that its order is exact; a large one has several for each core, so that
/// two writers seldom meet.
pub(crate) fn shard_count(capacity: u64) -> usize {
    const LARGE: u64 = 2048;
    const LEAST_IN_A_SHARD: u64 = 256;
    const MOST: usize = 64;
    if capacity < LARGE {
        return 1;
    }
    let wanted = (4 * cores()).next_power_of_two().min(MOST);
    let room = usize::try_from(capacity / LEAST_IN_A_SHARD).unwrap_or(usize::MAX);
    wanted.min(1 << room.ilog2())
}
