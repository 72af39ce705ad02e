//! Where threads read beside each other: an epoch tells when nobody can see what was retired.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::Deref;
#[cfg(debug_assertions)]
use std::ptr;
use std::sync::Arc;

use super::Retired;
use super::thread_registry::{self, Alone};
use crate::sync::{
    AtomicBool, Lock, Locked, OnceLock, Ordering, Padded, cores, epoch, sized, thread_slot, yield_now,
};

/// Values that a bin asks for a grace for at a time: fewer than 64, law 11. To ask takes as long as several writes, since the
/// epoch moves and frees a bag of two kilobytes for each grace.
const LOT: usize = sized(63, 1);
/// How often a thread whose lot still waits for its grace lets others go on: all but the first are naps, a second of them. Longer, as
/// beside a debugger, nobody waits for a reader.
const MOST_TURNS: usize = sized(5_032, 1);
/// Pins that move the epoch on far enough, when nobody else is pinned, to end a grace.
const ADVANCES: usize = sized(4, 1);
/// A flush gives up after so many tries: another thread is reading.
const MOST_HASTENED: usize = sized(64, 1);

/// Proof that what the thread can see stays, for at most as long as a lock is held or another guard is.
pub(crate) struct Guard<'l>(Why, PhantomData<&'l ()>);

/// A guard that also keeps what is replaced without a lock.
pub(crate) struct Pin<'l>(Guard<'l>);

enum Why {
    Pinned(epoch::Guard),
    /// It holds the lock.
    Locked(Owner),
    Alone(#[allow(dead_code)] Alone),
}

/// In a debug build, the address of what a lock guards.
#[derive(Clone, Copy)]
struct Owner(#[cfg(debug_assertions)] usize);

#[inline]
pub(crate) fn pin() -> Pin<'static> {
    Pin(Guard(Why::Pinned(thread_registry::pin()), PhantomData))
}

/// A pin for a few steps in which the thread neither takes a lock nor runs a user's code. Where no other thread reads, none
/// begins to meanwhile, which costs as much as a pin; and what is unlinked then is seen by nobody.
#[inline]
pub(crate) fn pin_briefly() -> Pin<'static> {
    thread_registry::be_alone().map_or_else(pin, |alone| Pin(Guard(Why::Alone(alone), PhantomData)))
}

impl<'l> Pin<'l> {
    /// Runs `code` unpinned, as code of a user must be (law 4).
    pub fn unpinned<R>(&mut self, code: impl FnOnce() -> R) -> R {
        match &mut self.0.0 {
            Why::Pinned(guard) => guard.repin_after(code),
            _ => unreachable!("no user's code runs under a lock"),
        }
    }

    #[cfg(test)]
    pub fn into_guard(self) -> Guard<'l> {
        self.0
    }
}

impl<'l> Deref for Pin<'l> {
    type Target = Guard<'l>;

    #[inline(always)]
    fn deref(&self) -> &Guard<'l> {
        &self.0
    }
}

impl Guard<'_> {
    /// Of a lock that `owner` has, which costs no pin. The caller chooses the lifetime.
    ///
    /// # Safety
    /// - The lifetime ends before the unlock, and what is read through the guard is unlinked by the lock's holder alone.
    #[inline]
    pub unsafe fn of_lock<'l, T>(_owner: &T) -> Guard<'l> {
        let owner = Owner(
            #[cfg(debug_assertions)]
            ptr::from_ref(_owner).addr(),
        );
        Guard(Why::Locked(owner), PhantomData)
    }

    /// A pin beside it. While there is one, nothing is freed through this guard.
    #[inline]
    pub fn pinned(&self) -> Pin<'_> {
        pin()
    }

    /// Whether it may keep what `owner` has, for assertions: it is a pin, or of the lock of that one.
    #[cfg(debug_assertions)]
    pub fn serves<T>(&self, owner: &T) -> bool {
        !matches!(self.0, Why::Locked(Owner(address)) if address != ptr::from_ref(owner).addr())
    }

    /// Whether nobody else reads or writes until it is gone.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self.0, Why::Alone(_))
    }

    /// Frees a box after the grace.
    ///
    /// # Safety
    /// - `pointer` came from `Box::into_raw`, is unlinked, and is passed here once.
    pub(super) unsafe fn free<T>(&mut self, pointer: *mut T) {
        let mut pinned = None;
        let guard = match &self.0 {
            Why::Pinned(guard) => guard,
            _ => pinned.insert(thread_registry::pin()),
        };
        let address = pointer as usize;
        let free = move || {
            // SAFETY: the caller's: a box, unlinked, passed once; the grace is over.
            drop(unsafe { Box::from_raw(address as *mut T) });
        };
        // SAFETY: the closure outlives the borrow checker's sight of `T`, but what it frees is memory
        // of the cache's own, without keys or values (`AtomicBox`).
        unsafe { guard.defer_unchecked(free) };
        // Else it would wait until its thread has more to free, and outgrown tables are large.
        guard.flush();
    }
}

/// Over when every guard of its beginning is gone.
struct Grace(Arc<AtomicBool>);

impl Grace {
    /// Apart, since the epoch moves bags of two kilobytes over the stack, which would be there under a user's code.
    #[inline(never)]
    fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&over);
        let guard = thread_registry::pin();
        // Release: pairs with the Acquire in `is_over`.
        guard.defer(move || flag.store(true, Ordering::Release));
        guard.flush();
        Grace(over)
    }

    fn is_over(&self) -> bool {
        // Acquire: pairs with the Release in `begin`; what the readers did comes before the drop.
        self.0.load(Ordering::Acquire)
    }

    /// Moves the epoch on, as far as other readers let it and until it is enough.
    #[inline(never)]
    fn try_advance(mut is_enough: impl FnMut() -> bool) {
        for _ in 0..ADVANCES {
            thread_registry::pin().flush();
            if is_enough() {
                break;
            }
        }
    }
}

/// Waits until every pin of now is gone. The thread has none, nor a lock, so that the others go on: no pin outlasts a few
/// steps.
#[cold]
pub(super) fn wait_for_readers() {
    let grace = Grace::begin();
    loop {
        Grace::try_advance(|| grace.is_over());
        if grace.is_over() {
            break;
        }
        yield_now();
    }
}

/// Retired values on their way to an owner, by the lot.
pub(crate) struct RetireList<T, const LOT: usize> {
    open: Vec<Retired<T>>,
    waiting: VecDeque<(Grace, Vec<Retired<T>>)>,
}

impl<T, const LOT: usize> Default for RetireList<T, LOT> {
    fn default() -> Self {
        RetireList { open: Vec::new(), waiting: VecDeque::new() }
    }
}

impl<T, const LOT: usize> RetireList<T, LOT> {
    #[inline]
    pub fn put(&mut self, retired: Retired<T>) {
        self.open.push(retired);
        if self.open.len() >= LOT {
            self.seal();
        }
    }

    /// Puts one in, and hands out what no guard can see any more.
    #[inline]
    pub fn pass(&mut self, retired: Retired<T>, take: impl FnMut(T)) {
        self.put(retired);
        self.take_ready(take);
    }

    /// Asks for a grace for what has none yet.
    pub fn seal(&mut self) {
        if !self.open.is_empty() {
            let next = Vec::with_capacity(self.open.capacity().min(LOT));
            let lot = std::mem::replace(&mut self.open, next);
            self.waiting.push_back((Grace::begin(), lot));
        }
    }

    /// Whether all that waits for a grace has had it.
    fn is_ready(&self) -> bool {
        self.waiting.back().is_none_or(|(grace, _)| grace.is_over())
    }

    /// The oldest lot, if no guard can see it any more.
    fn next_ready(&mut self) -> Option<Vec<Retired<T>>> {
        let (grace, _) = self.waiting.front()?;
        if grace.is_over() { self.waiting.pop_front().map(|(_, lot)| lot) } else { None }
    }

    /// Hands out what no guard can see any more.
    #[inline]
    pub fn take_ready(&mut self, mut take: impl FnMut(T)) {
        while let Some(lot) = self.next_ready() {
            lot.into_iter().for_each(|retired| take(retired.open()));
        }
    }

    #[cfg_attr(not(feature = "python"), allow(dead_code))]
    fn each(&self, visit: &mut impl FnMut(&T)) {
        let lots = self.waiting.iter().flat_map(|(_, lot)| lot);
        lots.chain(&self.open).for_each(|retired| visit(retired));
    }
}

impl<T, const LOT: usize> Drop for RetireList<T, LOT> {
    fn drop(&mut self) {
        // The owner of the bin is going, so nobody reads what it held: the grace is over.
        let lots = self.waiting.drain(..).flat_map(|(_, lot)| lot);
        for retired in lots.chain(self.open.drain(..)) {
            drop(retired.open());
        }
    }
}

type Stripe<T> = Padded<Lock<RetireList<T, LOT>>>;

/// A bin for each few threads, made when the first value leaves that others may see.
pub(crate) struct StripedRetireLists<T>(OnceLock<Box<[Stripe<T>]>>);

impl<T> StripedRetireLists<T> {
    pub fn new() -> Self {
        StripedRetireLists(OnceLock::new())
    }

    fn made(&self) -> &[Stripe<T>] {
        self.0.get_or_init(|| {
            let stripes = (2 * cores()).next_power_of_two().min(32);
            (0..stripes).map(|_| Padded(Lock::new(RetireList::default()))).collect()
        })
    }

    fn all(&self) -> &[Stripe<T>] {
        self.0.get().map_or(&[], |bins| bins)
    }

    /// Takes in what left, and drops what no reader can see any more. The thread is attached, and
    /// neither pinned nor under a lock: a drop may run anything.
    #[inline]
    pub fn release_one(&self, retired: Retired<T>) {
        if retired.is_unseen {
            drop(retired.open());
        } else {
            self.release(retired, std::iter::empty());
        }
    }

    /// The same, of several.
    #[inline]
    pub fn release(&self, first: Retired<T>, more: impl Iterator<Item = Retired<T>>) {
        // Once there are bins it goes on with them, so that nothing is left behind in one.
        if self.0.get().is_none() && thread_registry::is_alone() {
            drop(first.open());
            return more.for_each(|retired| drop(retired.open()));
        }
        let bins = self.made();
        let bin = &bins[thread_slot() & (bins.len() - 1)].0;
        let mut locked = bin.lock();
        let before = locked.waiting.len();
        locked.put(first);
        more.for_each(|retired| locked.put(retired));
        // Mostly a lot is not full yet, and none waits.
        if !locked.waiting.is_empty() {
            Self::release_lots(bin, locked, before);
        }
    }

    /// Drops the lots whose grace is over, and waits for the others. There were so many `before`.
    #[cold]
    fn release_lots<'a>(
        bin: &'a Lock<RetireList<T, LOT>>,
        mut locked: Locked<'a, RetireList<T, LOT>>,
        before: usize,
    ) {
        if locked.waiting.len() > before {
            Grace::try_advance(|| locked.is_ready());
        }
        let mut ready: Vec<_> = std::iter::from_fn(|| locked.next_ready()).collect();
        // Other threads may go on meanwhile: one that was stopped while it read holds all graces up.
        for turn in 0..MOST_TURNS {
            if locked.waiting.is_empty() {
                break;
            }
            drop(locked);
            thread_registry::let_others_go_on(turn);
            Grace::try_advance(|| false);
            locked = bin.lock();
            ready.extend(std::iter::from_fn(|| locked.next_ready()));
        }
        drop(locked);
        ready.into_iter().flatten().for_each(|retired| drop(retired.open()));
    }

    /// Drops everything, unless another thread is reading.
    pub fn flush(&self) {
        let mut ready = Vec::new();
        for bin in self.all() {
            bin.0.lock().seal();
        }
        // Graces end in the order of their beginning, a few a pin, and other caches have theirs.
        for _ in 0..MOST_HASTENED {
            Grace::try_advance(|| false);
            let mut waiting = 0;
            for bin in self.all() {
                let mut bin = bin.0.lock();
                bin.take_ready(|value| ready.push(value));
                waiting += bin.waiting.len();
            }
            if waiting == 0 {
                break;
            }
        }
        drop(ready);
    }

    /// Frees what boxes wait for a grace, unless another thread is reading.
    pub fn free_memory(&self) {
        Grace::try_advance(|| false);
    }

    /// Shows what waits, to the collector. It calls while the world is stopped, when no lock is held.
    #[cfg_attr(not(feature = "python"), allow(dead_code))]
    pub fn each(&self, mut visit: impl FnMut(&T)) {
        for bin in self.all() {
            if let Some(bin) = bin.0.try_lock() {
                bin.each(&mut visit);
            }
        }
    }
}
