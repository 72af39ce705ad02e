//! Reclamation for threads that run in parallel: an epoch tells when no thread can see a retired value.
//!
//! # How it works
//! A [`GracePeriod`] gives the epoch a closure that sets a flag. The epoch runs the closure after every guard of that
//! moment is gone. A grace period costs as much as several writes, so a [`RetireList`] begins one for a batch of
//! values. A thread that fills a batch tries to end its grace period. If a reader was stopped in the middle, the
//! thread waits for it. So each list retains at most one batch (law 11).
//!
//! The orderings are those of the module above.

use std::collections::VecDeque;
use std::marker::PhantomData;
#[cfg(debug_assertions)]
use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{Retired, thread_registry};
use crate::sync::{
    AtomicBool, Lock, Locked, OnceLock, Ordering, Padded, cores, epoch, sized, thread_slot, yield_now,
};

/// Values that share a grace period: fewer than the 64 of law 11. The epoch moves and frees a bag of 2 KiB for each.
const BATCH: usize = sized(63, 1);
/// How often a thread that waits for a reader yields before it naps. The reader has a few steps left, unless the
/// system stopped it in the middle of them.
const YIELDS_BEFORE_NAPS: usize = sized(32, usize::MAX);
const NAP: Duration = Duration::from_micros(200);
/// How often a thread with a full batch waits for its grace period: about a second in all. A reader that is stopped
/// for longer, as by a debugger, is not waited for.
const MAX_WAITS: usize = sized(5_032, 1);
/// Pins that advance the epoch far enough to end a grace period, if no other thread is pinned.
const ADVANCES_PER_GRACE: usize = sized(4, 1);
/// How often `flush` advances the epoch before it gives up, because another thread is reading.
const MAX_FLUSH_ADVANCES: usize = sized(64, 1);

/// Proof that the values that the thread can see are not dropped. It lives at most as long as the lock or the guard
/// that it stands for.
pub(crate) struct Guard<'l>(GuardKind, PhantomData<&'l ()>);

enum GuardKind {
    Pinned(epoch::Guard),
    /// The thread holds the lock.
    Locked(LockOwner),
}

/// In a debug build, the address of the structure that the lock protects.
#[derive(Clone, Copy)]
struct LockOwner(#[cfg(debug_assertions)] usize);

impl Guard<'_> {
    /// Pins the thread.
    #[inline]
    pub(super) fn of_pin() -> Guard<'static> {
        Guard(GuardKind::Pinned(thread_registry::pin()), PhantomData)
    }

    /// Stands for a lock that protects `owner`, which costs no pin. The caller chooses the lifetime.
    ///
    /// # Safety
    /// - The lifetime ends before the unlock, and only the lock's holder unlinks data that is read through the guard.
    #[inline]
    pub unsafe fn of_lock<'l, T>(_owner: &T) -> Guard<'l> {
        let owner = LockOwner(
            #[cfg(debug_assertions)]
            ptr::from_ref(_owner).addr(),
        );
        Guard(GuardKind::Locked(owner), PhantomData)
    }

    /// Returns whether the guard protects the contents of `owner`: it is a pin, or stands for the lock of `owner`.
    #[cfg(debug_assertions)]
    pub fn serves<T>(&self, owner: &T) -> bool {
        !matches!(self.0, GuardKind::Locked(LockOwner(address)) if address != ptr::from_ref(owner).addr())
    }

    pub(super) fn unpinned<R>(&mut self, code: impl FnOnce() -> R) -> R {
        match &mut self.0 {
            GuardKind::Pinned(guard) => guard.repin_after(code),
            GuardKind::Locked(_) => unreachable!("no user's code runs under a lock"),
        }
    }

    /// Frees a box after a grace period.
    ///
    /// # Safety
    /// - `pointer` came from `Box::into_raw`, is unlinked, and is passed here once.
    pub(super) unsafe fn free<T>(&mut self, pointer: *mut T) {
        let mut pinned = None;
        let guard = match &self.0 {
            GuardKind::Pinned(guard) => guard,
            GuardKind::Locked(_) => pinned.insert(thread_registry::pin()),
        };
        let free = move || {
            // SAFETY: the caller passed an unlinked box once, and the grace period is over.
            drop(unsafe { Box::from_raw(pointer) });
        };
        // SAFETY: the closure may outlive `T`'s borrows, but it frees a structure of an `AtomicBox`, which owns no
        // key or value.
        unsafe { guard.defer_unchecked(free) };
        // Otherwise the memory waits until this thread defers more, and outgrown tables are large.
        guard.flush();
    }
}

/// A time that ends when every guard that existed at its beginning is gone.
struct GracePeriod(Arc<AtomicBool>);

impl GracePeriod {
    /// Not inlined: the epoch moves bags of 2 KiB over the stack, which would stay below the frames of a user's code.
    #[inline(never)]
    fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&over);
        let guard = thread_registry::pin();
        // Release: pairs with the Acquire in `is_over`.
        guard.defer(move || flag.store(true, Ordering::Release));
        guard.flush();
        GracePeriod(over)
    }

    fn is_over(&self) -> bool {
        // Acquire: pairs with the Release in `begin`, so that the reads of old guards come before the drop.
        self.0.load(Ordering::Acquire)
    }
}

/// Advances the epoch, as far as other readers allow it and until it is enough.
#[inline(never)]
fn try_advance(mut is_enough: impl FnMut() -> bool) {
    for _ in 0..ADVANCES_PER_GRACE {
        thread_registry::pin().flush();
        if is_enough() {
            break;
        }
    }
}

/// Lets other threads go on, at the given attempt of a wait.
fn back_off(attempt: usize) {
    if attempt < YIELDS_BEFORE_NAPS { yield_now() } else { thread::sleep(NAP) }
}

/// Waits until every pin of this moment is gone. The thread must have neither a pin nor a lock, so that the others
/// make progress.
#[cold]
pub(super) fn wait_for_readers() {
    let grace = GracePeriod::begin();
    for attempt in 0.. {
        try_advance(|| grace.is_over());
        if grace.is_over() {
            break;
        }
        back_off(attempt);
    }
}

/// Retired values that wait for a grace period, `BATCH` at a time.
pub(crate) struct RetireList<T, const BATCH: usize> {
    /// Values without a grace period.
    open: Vec<Retired<T>>,
    /// Batches, the oldest first.
    sealed: VecDeque<(GracePeriod, Vec<Retired<T>>)>,
}

impl<T, const BATCH: usize> Default for RetireList<T, BATCH> {
    fn default() -> Self {
        RetireList { open: Vec::new(), sealed: VecDeque::new() }
    }
}

impl<T, const BATCH: usize> RetireList<T, BATCH> {
    #[inline]
    pub fn put(&mut self, retired: Retired<T>) {
        self.open.push(retired);
        if self.open.len() >= BATCH {
            self.seal();
        }
    }

    /// Begins a grace period for the values that have none.
    pub fn seal(&mut self) {
        if !self.open.is_empty() {
            let next = Vec::with_capacity(self.open.capacity().min(BATCH));
            let batch = std::mem::replace(&mut self.open, next);
            self.sealed.push_back((GracePeriod::begin(), batch));
        }
    }

    /// Returns whether every grace period is over.
    fn is_ready(&self) -> bool {
        self.sealed.back().is_none_or(|(grace, _)| grace.is_over())
    }

    /// Takes the oldest batch, if its grace period is over.
    fn next_ready(&mut self) -> Option<Vec<Retired<T>>> {
        let (grace, _) = self.sealed.front()?;
        if grace.is_over() { self.sealed.pop_front().map(|(_, batch)| batch) } else { None }
    }

    /// Passes each value that no guard can see to `take`.
    #[inline]
    pub fn take_ready(&mut self, mut take: impl FnMut(T)) {
        while let Some(batch) = self.next_ready() {
            batch.into_iter().for_each(|retired| take(retired.into_inner()));
        }
    }

    /// Adds a value, then passes each value that no guard can see to `take`.
    #[inline]
    pub fn put_and_take_ready(&mut self, retired: Retired<T>, take: impl FnMut(T)) {
        self.put(retired);
        self.take_ready(take);
    }

    fn each(&self, visit: &mut impl FnMut(&T)) {
        let batches = self.sealed.iter().flat_map(|(_, batch)| batch);
        batches.chain(&self.open).for_each(|retired| visit(retired));
    }
}

impl<T, const BATCH: usize> Drop for RetireList<T, BATCH> {
    fn drop(&mut self) {
        // The structure that the values were unlinked from is dropped, too, so no thread reads them.
        let batches = self.sealed.drain(..).flat_map(|(_, batch)| batch);
        for retired in batches.chain(self.open.drain(..)) {
            drop(retired.into_inner());
        }
    }
}

type Stripe<T> = Padded<Lock<RetireList<T, BATCH>>>;

/// A [`RetireList`] for each few threads. They are made when the first value is retired that other threads may see.
pub(crate) struct StripedRetireLists<T>(OnceLock<Box<[Stripe<T>]>>);

impl<T> StripedRetireLists<T> {
    pub fn new() -> Self {
        StripedRetireLists(OnceLock::new())
    }

    fn get_or_make(&self) -> &[Stripe<T>] {
        self.0.get_or_init(|| {
            let stripes = (2 * cores()).next_power_of_two().min(32);
            (0..stripes).map(|_| Padded(Lock::new(RetireList::default()))).collect()
        })
    }

    fn stripes(&self) -> &[Stripe<T>] {
        self.0.get().map_or(&[], |stripes| stripes)
    }

    /// Retires a value, and drops values that no reader can see. The thread must be attached, and must have neither
    /// a pin nor a lock: a drop may run any code.
    #[inline]
    pub fn release_one(&self, retired: Retired<T>) {
        if retired.is_unshared {
            drop(retired.into_inner());
        } else {
            self.release(retired, std::iter::empty());
        }
    }

    /// Does the same with several values.
    #[inline]
    pub fn release(&self, first: Retired<T>, more: impl Iterator<Item = Retired<T>>) {
        // Only before the lists are made: the only thread would not look into them, and their values would stay.
        if self.0.get().is_none() && thread_registry::is_only_thread() {
            drop(first.into_inner());
            return more.for_each(|retired| drop(retired.into_inner()));
        }
        let stripes = self.get_or_make();
        let list = &stripes[thread_slot() & (stripes.len() - 1)].0;
        let mut locked = list.lock();
        let sealed_before = locked.sealed.len();
        locked.put(first);
        more.for_each(|retired| locked.put(retired));
        // Mostly the open batch is not full, and no other batch waits.
        if !locked.sealed.is_empty() {
            Self::release_batches(list, locked, sealed_before);
        }
    }

    /// Drops the batches whose grace period is over, and waits for the others.
    #[cold]
    fn release_batches<'a>(
        list: &'a Lock<RetireList<T, BATCH>>,
        mut locked: Locked<'a, RetireList<T, BATCH>>,
        sealed_before: usize,
    ) {
        if locked.sealed.len() > sealed_before {
            try_advance(|| locked.is_ready());
        }
        let mut ready: Vec<_> = std::iter::from_fn(|| locked.next_ready()).collect();
        // A reader that was stopped in the middle delays every grace period. It gets time to go on.
        for attempt in 0..MAX_WAITS {
            if locked.sealed.is_empty() {
                break;
            }
            drop(locked);
            back_off(attempt);
            try_advance(|| false);
            locked = list.lock();
            ready.extend(std::iter::from_fn(|| locked.next_ready()));
        }
        drop(locked);
        ready.into_iter().flatten().for_each(|retired| drop(retired.into_inner()));
    }

    /// Drops all retired values, unless another thread is reading.
    pub fn flush(&self) {
        let mut ready = Vec::new();
        for list in self.stripes() {
            list.0.lock().seal();
        }
        // Grace periods end in the order in which they began, a few for each pin, and other caches have theirs.
        for _ in 0..MAX_FLUSH_ADVANCES {
            try_advance(|| false);
            let mut waiting = 0;
            for list in self.stripes() {
                let mut list = list.0.lock();
                list.take_ready(|value| ready.push(value));
                waiting += list.sealed.len();
            }
            if waiting == 0 {
                break;
            }
        }
        drop(ready);
    }

    /// Frees boxes that wait for a grace period, unless another thread is reading.
    pub fn free_memory(&self) {
        try_advance(|| false);
    }

    /// Shows all retired values to the collector. It calls while the world is stopped, when no thread holds a lock.
    pub fn each(&self, mut visit: impl FnMut(&T)) {
        for list in self.stripes() {
            if let Some(list) = list.0.try_lock() {
                list.each(&mut visit);
            }
        }
    }
}
