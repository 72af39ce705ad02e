//! Atomics, locks and padding: the one switch between threads, the GIL and a model of threads.
//!
//! # How it works
//! On the free-threaded build (and in plain Rust) these are the standard library's. With `cfg(moka_gil)`,
//! which `build.rs` sets for an extension of a GIL build, the GIL is the lock: atomics load and store but
//! never pay for a locked read-modify-write, and [`Lock`] is a flag.
//!
//! With `cfg(moka_loom)` they are those of loom, which tries all orders in which threads can run and all values
//! that a load may see; `tests/models/` are the programs that it tries. What takes too many steps for that is
//! smaller there (see [`sized`]), and crossbeam-epoch is stood in for.
//!
//! # Invariants
//! - `one-at-a-time` (GIL build): a thread is inside the cache only while it holds the GIL, and nothing
//!   between lock and unlock can release it (laws 1 and 2). So no two threads touch an atomic or a lock
//!   at once, and a lock is never found taken.
//!
//! # Under ThreadSanitizer
//! It sees what is compiled with it, which the standard library is not, and no fences. With `cfg(moka_sanitize_thread)`
//! a lock is tried until it is free, since the try and the unlock are inlined here and the wait is not, and a fence is
//! a write that all threads make to one word.

#![allow(unsafe_code)]

pub(crate) use std::sync::atomic::Ordering;

#[cfg(not(any(moka_gil, moka_loom)))]
mod threads {
    use std::cell::Cell;
    use std::sync::OnceLock;
    use std::sync::atomic::Ordering;

    use super::LastSet;

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
    pub(crate) fn stripe() -> usize {
        let stripe = THREAD.with(|thread| thread.stripe.get());
        if stripe == UNKNOWN { choose_stripe() } else { stripe }
    }

    #[inline]
    pub(crate) fn last_set() -> LastSet {
        THREAD.with(|thread| thread.last_set.get())
    }

    #[inline]
    pub(crate) fn note_set(set: LastSet) {
        THREAD.with(|thread| thread.last_set.set(set));
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
            const { Thread { stripe: Cell::new(UNKNOWN), last_set: Cell::new(LastSet::Other) } };
        // Apart, so that to ask for the number is not to ask whether the thread is ending.
        static GIVEN_BACK: GiveBack = const { GiveBack };
    }

    struct Thread {
        stripe: Cell<usize>,
        last_set: Cell<LastSet>,
    }

    /// Frees the thread's number at its end.
    struct GiveBack;

    impl Drop for GiveBack {
        fn drop(&mut self) {
            let stripe = THREAD.with(|thread| thread.stripe.replace(ALONE));
            if stripe < ALONE {
                // Release: pairs with the Acquire in `choose_stripe`.
                TAKEN.fetch_and(!(1 << stripe), Ordering::Release);
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
        let taken = TAKEN.fetch_update(Ordering::Acquire, Ordering::Relaxed, |taken| {
            take_free(taken).filter(|_| is_whole)
        });
        let free = taken.ok().map(|taken| taken.trailing_ones() as usize);
        // Relaxed: any number will do.
        let stripe = free.unwrap_or_else(|| ALONE + NEXT.fetch_add(1, Ordering::Relaxed) % ALONE);
        THREAD.with(|thread| thread.stripe.set(stripe));
        stripe
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
}

#[cfg(all(moka_gil, not(moka_loom)))]
mod gil {
    use std::cell::{RefCell, RefMut};
    use std::sync::atomic::Ordering::{self, Relaxed};

    use super::LastSet;

    pub(crate) struct Padded<T>(pub T);

    /// None is inside beside another.
    #[inline]
    pub(crate) fn has_company() -> bool {
        false
    }

    /// Nobody asks.
    pub(crate) fn thread_mark() -> usize {
        1
    }

    /// A flag that says that the lock is taken. Finding it taken means that a law was broken.
    pub(crate) struct Lock<T>(RefCell<T>);

    pub(crate) type Locked<'a, T> = RefMut<'a, T>;

    // SAFETY: `one-at-a-time`: the GIL serializes every access to the cell.
    unsafe impl<T: Send> Sync for Lock<T> {}

    impl<T> Lock<T> {
        pub fn new(value: T) -> Self {
            Lock(RefCell::new(value))
        }

        pub fn lock(&self) -> Locked<'_, T> {
            self.0.borrow_mut()
        }

        pub fn try_lock(&self) -> Option<Locked<'_, T>> {
            self.0.try_borrow_mut().ok()
        }
    }

    macro_rules! atomic {
        ($name:ident, $std:ident, $word:ty) => {
            /// An atomic whose read-modify-write is a load and a store (`one-at-a-time`).
            #[derive(Default)]
            pub(crate) struct $name(std::sync::atomic::$std);

            #[allow(dead_code)]
            impl $name {
                pub const fn new(value: $word) -> Self {
                    Self(std::sync::atomic::$std::new(value))
                }

                pub fn load(&self, _: Ordering) -> $word {
                    self.0.load(Relaxed)
                }

                pub fn store(&self, value: $word, _: Ordering) {
                    self.0.store(value, Relaxed)
                }

                pub fn swap(&self, value: $word, _: Ordering) -> $word {
                    let old = self.0.load(Relaxed);
                    self.0.store(value, Relaxed);
                    old
                }

                pub fn compare_exchange(
                    &self,
                    seen: $word,
                    value: $word,
                    _: Ordering,
                    _: Ordering,
                ) -> Result<$word, $word> {
                    let old = self.0.load(Relaxed);
                    if old != seen {
                        return Err(old);
                    }
                    self.0.store(value, Relaxed);
                    Ok(old)
                }

                pub fn fetch_add(&self, by: $word, _: Ordering) -> $word {
                    let old = self.0.load(Relaxed);
                    self.0.store(old.wrapping_add(by), Relaxed);
                    old
                }

                pub fn fetch_sub(&self, by: $word, order: Ordering) -> $word {
                    self.fetch_add(by.wrapping_neg(), order)
                }

                pub fn fetch_min(&self, other: $word, order: Ordering) -> $word {
                    let old = self.0.load(Relaxed);
                    self.store(old.min(other), order);
                    old
                }

                pub fn fetch_max(&self, other: $word, order: Ordering) -> $word {
                    let old = self.0.load(Relaxed);
                    self.store(old.max(other), order);
                    old
                }
            }
        };
    }

    atomic!(AtomicU64, AtomicU64, u64);
    atomic!(AtomicUsize, AtomicUsize, usize);

    /// There is nobody to be ordered against.
    pub(crate) fn full_fence() {}

    /// Entries, of which each takes some 70 bytes, that outgrow the caches of most cores. To ask ahead for what they need is
    /// dearer than to wait for it with 100,000 of them, and cheaper with 300,000.
    pub(crate) const FAR: usize = 1 << 18;

    /// The lock costs nothing, so nobody needs to know.
    pub(crate) fn last_set() -> LastSet {
        LastSet::Other
    }

    pub(crate) fn note_set(_set: LastSet) {}

    /// How many shards a cache has: one, since the GIL lets one thread in at a time.
    pub(crate) fn shard_count(_capacity: u64) -> usize {
        1
    }
}

/// The lock of whoever may meet other threads: a mutex without poisoning, for what takes less than a microsecond.
#[cfg(any(not(moka_gil), moka_loom))]
mod mutex {
    use super::{Mutex, MutexGuard, lock, sized, try_lock, yield_now};

    /// How often whoever finds the lock taken looks again before it sleeps: after ever longer pauses, some fifty
    /// microseconds in all, and then each time after another thread could run.
    ///
    /// A holder is mostly through before a few pauses are, and if an interrupt stops it, before all are; to sleep and be
    /// woken takes longer than either. Two threads that only evict do 1.05 times as much as with the hundred looks of the
    /// standard library alone, eight on two cores 1.1 times.
    const LOOKS: u32 = 30;
    const LOOKS_AFTER_OTHERS: u32 = 20;
    /// The most pauses between two looks, as a power of two.
    const MOST_PAUSES: u32 = 6;

    pub(crate) struct Lock<T>(Mutex<T>);

    pub(crate) type Locked<'a, T> = MutexGuard<'a, T>;

    impl<T> Lock<T> {
        pub fn new(value: T) -> Self {
            Lock(Mutex::new(value))
        }

        pub fn lock(&self) -> Locked<'_, T> {
            // A model tries all orders of threads without that.
            let has_patience = sized(true, false);
            if has_patience { self.try_lock().unwrap_or_else(|| self.wait()) } else { lock(&self.0) }
        }

        #[cold]
        fn wait(&self) -> Locked<'_, T> {
            for look in 0..LOOKS + LOOKS_AFTER_OTHERS {
                if look < LOOKS {
                    (0..1 << look.min(MOST_PAUSES)).for_each(|_| std::hint::spin_loop());
                } else {
                    yield_now();
                }
                if let Some(locked) = self.try_lock() {
                    return locked;
                }
            }
            lock(&self.0)
        }

        pub fn try_lock(&self) -> Option<Locked<'_, T>> {
            try_lock(&self.0)
        }
    }

    #[cfg(all(test, not(moka_loom)))]
    mod tests {
        use std::sync::Barrier;
        use std::thread;

        use super::*;

        #[test]
        fn a_lock_whose_holders_let_others_run_lets_one_thread_in_at_a_time() {
            const THREADS: u32 = 4;
            const TIMES: u32 = 500;
            let (count, start) = (Lock::new(0), Barrier::new(THREADS as usize));
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        start.wait();
                        for _ in 0..TIMES {
                            let mut locked = count.lock();
                            let seen = *locked;
                            // Now and then for longer than others look before they sleep.
                            (0..seen % 64).for_each(|_| yield_now());
                            *locked = seen + 1;
                        }
                    });
                }
            });
            assert_eq!(*count.lock(), THREADS * TIMES);
        }
    }
}

/// What is real on either build: for threads that wait detached, and for what is written once.
#[cfg(not(moka_loom))]
mod real {
    use std::cell::Cell;
    use std::sync::{PoisonError, TryLockError};
    use std::time::Duration;

    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr};
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
    pub(crate) use std::thread;
    pub(crate) use std::thread_local;

    /// Asks for the cache line of what is to be written soon and [is far](super::is_far): so it comes while other things
    /// are done. By the instruction itself, since `core::arch` asks for a line to be read, unless a build is for
    /// processors of the feature alone; one without it does nothing here.
    #[inline(always)]
    pub(crate) fn prefetch_write<T>(place: &T) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: it changes no memory and no register.
        unsafe {
            std::arch::asm!(
                "prefetchw [{}]",
                in(reg) std::ptr::from_ref(place),
                options(nostack, preserves_flags, readonly)
            );
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = place;
    }

    /// The id of this thread. The standard library counts references of the thread each time that it is asked.
    #[inline]
    pub(crate) fn thread_id() -> thread::ThreadId {
        thread_local! {
            static ID: Cell<Option<thread::ThreadId>> = const { Cell::new(None) };
        }
        ID.get().unwrap_or_else(|| {
            let id = thread::current().id();
            ID.set(Some(id));
            id
        })
    }

    /// Takes a mutex that is never poisoned: nothing panics between lock and unlock.
    #[inline]
    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        if cfg!(moka_sanitize_thread) {
            loop {
                match try_lock(mutex) {
                    Some(locked) => return locked,
                    None => std::thread::yield_now(),
                }
            }
        }
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        match mutex.try_lock() {
            Ok(locked) => Some(locked),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Waits with the mutex free until the condition is told, or for a while.
    pub(crate) fn wait_a_while<T>(condition: &Condvar, locked: MutexGuard<'_, T>, how_long: Duration) {
        if cfg!(moka_sanitize_thread) {
            drop(locked);
            std::thread::sleep(Duration::from_micros(100));
        } else {
            drop(condition.wait_timeout(locked, how_long));
        }
    }

    /// A size, and a smaller one for models, where two threads are to reach the hard cases in a few steps.
    pub(crate) const fn sized<T: Copy>(size: T, _in_model: T) -> T {
        size
    }

    /// A static that a model makes anew for each of its runs.
    macro_rules! process_wide {
        ($(#[$about:meta])* static $name:ident: $kind:ty = $value:expr;) => {
            $(#[$about])*
            static $name: $kind = $value;
        };
    }
    pub(crate) use process_wide;
}

// Named, since a benchmark takes this file in by its path as well.
#[cfg(moka_loom)]
#[path = "sync/model.rs"]
mod model;

#[cfg(not(moka_loom))]
#[path = "sync/zeroed.rs"]
mod zeroed;

#[cfg(all(moka_gil, not(moka_loom)))]
pub(crate) use gil::*;
#[cfg(moka_loom)]
pub(crate) use model::*;
#[cfg(any(not(moka_gil), moka_loom))]
pub(crate) use mutex::*;
#[cfg(not(moka_loom))]
pub(crate) use real::*;
#[cfg(not(any(moka_gil, moka_loom)))]
pub(crate) use threads::*;
#[cfg(not(moka_loom))]
pub(crate) use zeroed::{Zeroed, zeroed};

/// What a thread's last `set` did: mostly its next one does the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastSet {
    /// It put a value in the place of another and did nothing else.
    Replaced,
    /// Its key was new.
    Inserted,
    Other,
}

/// Whether one thread is let in at a time, so that between two looks nothing happens unless a user's code runs.
pub(crate) const ONE_AT_A_TIME: bool = cfg!(all(moka_gil, not(moka_loom)));

/// Whether what a shard of so many entries touches has mostly to be waited for: another core wrote it last, or there is too
/// much of it for this one's caches.
#[inline]
pub(crate) fn is_far(entries: usize) -> bool {
    has_company() || entries >= FAR
}

/// What a thread adds to the readers. The bit below is for the only one, while it lets no other in.
#[cfg(any(not(moka_gil), moka_loom))]
pub(crate) const ONE_READER: usize = 2;

/// Zeroed atomics, or `None` if there is no memory. `len` is not 0.
pub(crate) fn zeroed_atomics(len: usize) -> Option<Zeroed<AtomicU64>> {
    // SAFETY: all zero is 0, the default.
    unsafe { zeroed(len) }
}

/// Words that share a cache line.
#[repr(align(64))]
#[derive(Clone, Copy, Default)]
pub(crate) struct Line(pub [u64; 8]);

/// Zeroed lines, or `None` if there is no memory. `len` is not 0.
pub(crate) fn zeroed_lines(len: usize) -> Option<Zeroed<Line>> {
    // SAFETY: all zero is zeros, the default.
    unsafe { zeroed(len) }
}
