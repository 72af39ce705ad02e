//! Atomics, padding and thread slots for threads that run in parallel.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use super::sized;

pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize};
pub(crate) use std::thread::yield_now;

#[cfg(not(all(miri, not(moka_crossbeam))))]
pub(crate) use crossbeam_epoch as epoch;

#[cfg(all(miri, not(moka_crossbeam)))]
pub(crate) use super::miri_epoch as epoch;

/// A value on cache lines of its own: two lines, since processors fetch them in pairs.
#[repr(align(128))]
#[derive(Default)]
pub(crate) struct Padded<T>(pub T);

/// Orders the stores before it and the loads after it. Partner: the `full_fence` of another thread.
pub(crate) fn full_fence() {
    // Of two threads that write the word, the later one sees the earlier stores of the other.
    #[cfg(moka_sanitize_thread)]
    {
        static MET: AtomicUsize = AtomicUsize::new(0);
        MET.fetch_add(1, Ordering::SeqCst);
    }
    #[cfg(not(moka_sanitize_thread))]
    std::sync::atomic::fence(Ordering::SeqCst);
}

/// Entries of a shard, about 70 bytes each, that outgrow the caches of most cores.
pub(crate) const FAR: usize = 1 << 15;

pub(crate) type RegisteredThreads = &'static AtomicUsize;

/// The number of threads that have used a cache and not ended. `reclaim/thread_registry.rs` counts them.
#[inline]
pub(crate) fn registered_threads() -> RegisteredThreads {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    &THREADS
}

/// Returns whether several threads use caches.
#[inline]
pub(crate) fn has_other_threads() -> bool {
    // Relaxed: a hint. `thread_registry` has the check that is ordered against new threads.
    registered_threads().load(Ordering::Relaxed) > 1
}

/// Returns how many threads can run at a time. Cached, because the system takes as long to answer as a cache takes to
/// be made.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// A slot below this one has one thread. Those from here on are shared.
pub(crate) const MAX_OWNED_SLOTS: usize = 64;

/// Returns how many threads at a time have a slot of their own.
pub(crate) fn owned_slots() -> usize {
    (4 * cores()).min(MAX_OWNED_SLOTS)
}

/// Returns how many slots the other threads share.
#[cfg_attr(not(feature = "python"), allow(dead_code))]
pub(crate) fn shared_slots() -> usize {
    cores().min(MAX_OWNED_SLOTS)
}

/// Returns the slot of this thread: a small number that no other thread has. If all of those are taken, it is a
/// number from [`MAX_OWNED_SLOTS`] on that several threads have. A thread that ends gives its slot to another one,
/// which sees all stores of the first.
#[inline]
pub(crate) fn thread_slot() -> usize {
    let slot = THREAD.with(|thread| thread.slot.get());
    if slot == UNKNOWN { choose_slot() } else { slot }
}

/// Whether the last `set` of this thread only replaced a value. Its next one probably does the same. True in a model, so
/// that each `set` first tries without the lock.
#[inline]
pub(crate) fn last_set_replaced() -> bool {
    sized(false, true) || THREAD.with(|thread| thread.last_set_replaced.get())
}

#[inline]
pub(crate) fn record_set(has_replaced: bool) {
    THREAD.with(|thread| thread.last_set_replaced.set(has_replaced));
}

/// Returns a number other than 0 that no other running thread has.
#[inline]
pub(crate) fn thread_mark() -> usize {
    THREAD.with(|thread| std::ptr::from_ref(thread).addr())
}

const UNKNOWN: usize = usize::MAX;

/// A bit for each slot that a thread owns.
static OWNED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // One variable, since each access is a call.
    static THREAD: Thread =
        const { Thread { slot: Cell::new(UNKNOWN), last_set_replaced: Cell::new(false) } };
    // A variable of its own, because it has a destructor: access to `THREAD` needs no check for the thread's end.
    static SLOT_OWNER: SlotOwner = const { SlotOwner };
}

struct Thread {
    slot: Cell<usize>,
    last_set_replaced: Cell<bool>,
}

/// Frees the thread's slot when the thread ends.
struct SlotOwner;

impl Drop for SlotOwner {
    fn drop(&mut self) {
        let slot = THREAD.with(|thread| thread.slot.replace(MAX_OWNED_SLOTS));
        if slot < MAX_OWNED_SLOTS {
            // Release: pairs with the Acquire in `choose_slot`.
            OWNED.fetch_and(!(1 << slot), Ordering::Release);
        }
    }
}

#[cold]
fn choose_slot() -> usize {
    static NEXT_SHARED: AtomicUsize = AtomicUsize::new(0);
    let take_free = |owned: u64| {
        let free = owned.trailing_ones() as usize;
        (free < owned_slots()).then(|| owned | 1 << free)
    };
    // A thread that is ending could not free a slot any more.
    let can_free = SLOT_OWNER.try_with(|_| ()).is_ok();
    // Acquire: pairs with the Release of the ended thread that had the slot before. Relaxed: a failure reads nothing.
    let owned = OWNED
        .fetch_update(Ordering::Acquire, Ordering::Relaxed, |owned| take_free(owned).filter(|_| can_free));
    let free = owned.ok().map(|owned| owned.trailing_ones() as usize);
    // Relaxed: any shared slot will do.
    let next_shared = || NEXT_SHARED.fetch_add(1, Ordering::Relaxed) % MAX_OWNED_SLOTS;
    let slot = free.unwrap_or_else(|| MAX_OWNED_SLOTS + next_shared());
    THREAD.with(|thread| thread.slot.set(slot));
    slot
}

/// Returns how many shards a cache of this capacity has.
///
/// A small cache has one, so that its eviction order is exact. A large one has several for each core, so that
/// two writers seldom meet.
pub(crate) fn shard_count(capacity: u64) -> usize {
    const LARGE_CAPACITY: u64 = sized(if cfg!(miri) { 128 } else { 2048 }, 8);
    const MIN_SHARD_CAPACITY: u64 = sized(if cfg!(miri) { 16 } else { 256 }, 4);
    const MAX_SHARDS: usize = 64;
    if capacity < LARGE_CAPACITY {
        return 1;
    }
    let wanted = (4 * cores()).next_power_of_two().min(MAX_SHARDS);
    let possible = usize::try_from(capacity / MIN_SHARD_CAPACITY).unwrap_or(usize::MAX);
    wanted.min(1 << possible.ilog2())
}
