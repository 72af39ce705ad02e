//! Who frees what, and when: readers pin, writers retire, attached threads drop.
//!
//! # How it works
//! A reader holds a [`Guard`] while it looks. A writer that unlinks something hands it on as [`Retired`],
//! which cannot be dropped: it goes into a [`Bin`], waits there until every guard of its time is gone
//! (a [`Grace`]), and comes out as an owned value again, in the hands of a thread that asked for it.
//! [`Bins`] is a bin for each few threads, so that writers do not meet there.
//!
//! crossbeam-epoch runs its closures wherever it likes, also in dying threads that Python has forgotten.
//! So a closure of ours only frees memory or sets the flag of a grace; no key or value is dropped by one
//! (law 3).
//!
//! In the GIL build all this compiles to nothing: what is retired can be dropped at once, because no other
//! thread can be reading and no guard lives across Python code (law 4).
//!
//! # Invariants
//! - `word`: a [`Swap`] holds the bits of a valid `T`, one machine word wide.
//! - `grace`: what a [`Swap`] or [`Shared`] gave up is not dropped before every guard that could have
//!   seen it is gone. [`Retired`] enforces it: only a [`Bin`] opens one.
//! - `one-pin` (GIL build): while something is freed, no guard but the caller's is alive, and the
//!   caller's is borrowed mutably, so nothing read through it is either.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `Swap::word` | AcqRel swap, or a Release store of the one writer | Acquire load | the object is whole before its pointer is seen |
//! | `Shared::pointer` | AcqRel swap | Acquire load | likewise |
//! | `Grace::over` | Release, in the closure | Acquire | reads under the old guards come before the drop |

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::{ManuallyDrop, size_of};
use std::ops::Deref;
use std::ptr;

use crate::sync::{AtomicPtr, AtomicUsize, Ordering};

#[cfg(moka_gil)]
pub(crate) use gil::{Bin, Bins, Guard, pin};
#[cfg(not(moka_gil))]
pub(crate) use threads::{Bin, Bins, Guard, pin};

/// What was unlinked and may still be read by others. It can be looked at, not dropped.
pub(crate) struct Retired<T>(ManuallyDrop<T>);

impl<T> Retired<T> {
    /// Wraps what nobody else can see, so that it travels with what others can.
    pub fn of(value: T) -> Self {
        Retired(ManuallyDrop::new(value))
    }

    pub fn zip<U>(self, other: Retired<U>) -> Retired<(T, U)> {
        Retired(ManuallyDrop::new((ManuallyDrop::into_inner(self.0), ManuallyDrop::into_inner(other.0))))
    }

    /// Opens it. For this module alone: the caller knows that the grace is over.
    fn open(self) -> T {
        ManuallyDrop::into_inner(self.0)
    }
}

impl<T> Retired<Option<T>> {
    pub fn transpose(self) -> Option<Retired<T>> {
        ManuallyDrop::into_inner(self.0).map(Retired::of)
    }
}

impl<T> Deref for Retired<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A value one word wide that is read without a lock and swapped by a writer.
pub(crate) struct Swap<T> {
    word: AtomicUsize,
    holds: PhantomData<T>,
}

// SAFETY: the word is a `T`, which moves in and out (`Send`) and is lent to many threads (`Sync`); its
// atomic serializes the accesses.
unsafe impl<T: Send + Sync> Sync for Swap<T> {}

/// A value lent by a [`Swap`] for as long as the guard lives.
pub(crate) struct Lent<'g, T> {
    value: ManuallyDrop<T>,
    guard: PhantomData<&'g Guard>,
}

impl<T> Deref for Lent<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Swap<T> {
    const ONE_WORD: () = assert!(size_of::<T>() == size_of::<usize>(), "a swap holds one word");

    #[cfg_attr(not(feature = "python"), allow(dead_code))]
    pub fn new(value: T) -> Self {
        Swap { word: AtomicUsize::new(Self::into_word(value)), holds: PhantomData }
    }

    #[inline]
    pub fn read<'g>(&self, _guard: &'g Guard) -> Lent<'g, T> {
        // Acquire: pairs with the AcqRel in `swap`; the object is whole before it is seen.
        let value = Self::from_word(self.word.load(Ordering::Acquire));
        Lent { value, guard: PhantomData }
    }

    /// Puts another value in place, for whoever is the only one to do so at the time. What was there may still be lent.
    ///
    /// # Safety
    /// - What writers do here is in an order that a lock or the like makes.
    pub unsafe fn put(&self, value: T) -> Retired<T> {
        let word = Self::into_word(value);
        // Relaxed: the lock tells what the last writer wrote.
        let old = self.word.load(Ordering::Relaxed);
        // Release: pairs with the Acquire in `read`.
        self.word.store(word, Ordering::Release);
        Retired(Self::from_word(old))
    }

    /// Puts another value in place. What was there may still be lent.
    #[cfg_attr(not(feature = "python"), allow(dead_code))]
    pub fn swap(&self, value: T) -> Retired<T> {
        let word = Self::into_word(value);
        // AcqRel: pairs with the Acquire in `read`, and with earlier swaps for what is handed out.
        Retired(Self::from_word(self.word.swap(word, Ordering::AcqRel)))
    }

    fn into_word(value: T) -> usize {
        const { Self::ONE_WORD };
        let value = ManuallyDrop::new(value);
        // SAFETY: `word`; both are one word wide, and an integer takes any bits that are initialized,
        // which those of a reference or of an optional one are.
        unsafe { std::mem::transmute_copy::<ManuallyDrop<T>, usize>(&value) }
    }

    fn from_word(word: usize) -> ManuallyDrop<T> {
        const { Self::ONE_WORD };
        // SAFETY: `word`; the bits came from a `T`. It is wrapped so that no copy is dropped.
        unsafe { std::mem::transmute_copy::<usize, ManuallyDrop<T>>(&word) }
    }
}

impl<T> Default for Swap<Option<T>> {
    /// Nothing, which is all zero: a word has no other.
    fn default() -> Self {
        Swap { word: AtomicUsize::new(0), holds: PhantomData }
    }
}

impl<T> Drop for Swap<T> {
    fn drop(&mut self) {
        // Relaxed: `&mut self` says that nobody else is at it.
        drop(ManuallyDrop::into_inner(Self::from_word(self.word.load(Ordering::Relaxed))));
    }
}

/// A boxed structure of the cache itself, with no key or value to drop in it, that readers find without a
/// lock and a writer replaces.
pub(crate) struct Shared<T> {
    pointer: AtomicPtr<T>,
    owns: PhantomData<T>,
}

impl<T: Send + Sync> Shared<T> {
    pub fn empty() -> Self {
        Shared { pointer: AtomicPtr::new(ptr::null_mut()), owns: PhantomData }
    }

    #[inline]
    pub fn get<'g>(&self, _guard: &'g Guard) -> Option<&'g T> {
        // Acquire: pairs with the AcqRel in `replace`; the structure is whole before it is seen.
        let pointer = self.pointer.load(Ordering::Acquire);
        // SAFETY: `grace`; the pointer is null or a box that is freed after this guard is gone.
        unsafe { pointer.as_ref() }
    }

    pub fn replace(&self, next: Option<T>, guard: &mut Guard) {
        let next = next.map_or(ptr::null_mut(), |next| Box::into_raw(Box::new(next)));
        // AcqRel: pairs with the Acquire in `get`, and with the swap that put the old one here.
        let old = self.pointer.swap(next, Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: it came from a box in `replace` and is unlinked now, so it is freed this once.
            unsafe { guard.free(old) };
        }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Relaxed: `&mut self` says that nobody else is at it.
        let pointer = self.pointer.load(Ordering::Relaxed);
        if !pointer.is_null() {
            // SAFETY: it came from a box in `replace`, and `&mut self` says that nobody reads it.
            drop(unsafe { Box::from_raw(pointer) });
        }
    }
}

#[cfg(not(moka_gil))]
mod threads {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use super::Retired;
    use crate::sync::{AtomicBool, Lock, OnceLock, Ordering, Padded, cores, epoch, sized, stripe, yield_now};

    /// Values that a bin asks for a grace for at a time: to ask takes as long as ten writes.
    const LOT: usize = sized(32, 1);
    /// The lots that may wait in a bin: with the next one under way they are fewer than 64 values, law 11.
    const MOST_WAITING: usize = 1;
    /// How often a thread whose bin is fuller than that lets others go on before it does so itself.
    const MOST_TURNS: usize = sized(32, 1);
    /// Pins that move the epoch on far enough, when nobody else is pinned, to end a grace.
    const ADVANCES: usize = sized(4, 1);
    /// A flush gives up after so many tries: another thread is reading.
    const MOST_HASTENED: usize = sized(64, 1);

    /// Proof that the thread is reading: what it can see stays.
    pub(crate) struct Guard(epoch::Guard);

    #[inline]
    pub(crate) fn pin() -> Guard {
        Guard(epoch::pin())
    }

    impl Guard {
        /// Runs `code` unpinned, as code of a user must be (law 4).
        pub fn unpinned<R>(&mut self, code: impl FnOnce() -> R) -> R {
            self.0.repin_after(code)
        }

        /// Frees a box after the grace.
        ///
        /// # Safety
        /// - `pointer` came from `Box::into_raw`, is unlinked, and is passed here once.
        pub(super) unsafe fn free<T>(&mut self, pointer: *mut T) {
            let address = pointer as usize;
            let free = move || {
                // SAFETY: the caller's: a box, unlinked, passed once; the grace is over.
                drop(unsafe { Box::from_raw(address as *mut T) });
            };
            // SAFETY: the closure outlives the borrow checker's sight of `T`, but what it frees is memory
            // of the cache's own, without keys or values (`Shared`).
            unsafe { self.0.defer_unchecked(free) };
        }
    }

    /// Over when every guard of its beginning is gone.
    struct Grace(Arc<AtomicBool>);

    impl Grace {
        fn begin() -> Self {
            let over = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&over);
            let guard = epoch::pin();
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
        fn hasten(mut is_enough: impl FnMut() -> bool) {
            for _ in 0..ADVANCES {
                epoch::pin().flush();
                if is_enough() {
                    break;
                }
            }
        }
    }

    /// Retired values on their way to an owner, by the lot.
    pub(crate) struct Bin<T, const LOT: usize> {
        open: Vec<Retired<T>>,
        waiting: VecDeque<(Grace, Vec<Retired<T>>)>,
    }

    impl<T, const LOT: usize> Default for Bin<T, LOT> {
        fn default() -> Self {
            Bin { open: Vec::new(), waiting: VecDeque::new() }
        }
    }

    impl<T, const LOT: usize> Bin<T, LOT> {
        pub fn put(&mut self, retired: Retired<T>) {
            self.open.push(retired);
            if self.open.len() >= LOT {
                self.seal();
            }
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

        /// Hands out what no guard can see any more.
        pub fn take_ready(&mut self, mut take: impl FnMut(T)) {
            while let Some((grace, _)) = self.waiting.front() {
                if !grace.is_over() {
                    break;
                }
                let (_, lot) = self.waiting.pop_front().expect("the front was just seen");
                for retired in lot {
                    take(retired.open());
                }
            }
        }

        #[cfg_attr(not(feature = "python"), allow(dead_code))]
        fn each(&self, visit: &mut impl FnMut(&T)) {
            let lots = self.waiting.iter().flat_map(|(_, lot)| lot);
            lots.chain(&self.open).for_each(|retired| visit(retired));
        }
    }

    impl<T, const LOT: usize> Drop for Bin<T, LOT> {
        fn drop(&mut self) {
            // The owner of the bin is going, so nobody reads what it held: the grace is over.
            let lots = self.waiting.drain(..).flat_map(|(_, lot)| lot);
            for retired in lots.chain(self.open.drain(..)) {
                drop(retired.open());
            }
        }
    }

    type Stripe<T> = Padded<Lock<Bin<T, LOT>>>;

    /// A bin for each few threads, made when the first value leaves.
    pub(crate) struct Bins<T>(OnceLock<Box<[Stripe<T>]>>);

    impl<T> Bins<T> {
        pub fn new() -> Self {
            Bins(OnceLock::new())
        }

        fn made(&self) -> &[Stripe<T>] {
            self.0.get_or_init(|| {
                let stripes = (2 * cores()).next_power_of_two().min(32);
                (0..stripes).map(|_| Padded(Lock::new(Bin::default()))).collect()
            })
        }

        fn all(&self) -> &[Stripe<T>] {
            self.0.get().map_or(&[], |bins| bins)
        }

        /// Takes in what left, and drops what no reader can see any more. The thread is attached, and
        /// neither pinned nor under a lock: a drop may run anything.
        pub fn release(&self, left: impl Iterator<Item = Retired<T>>) {
            let mut ready = Vec::new();
            let bins = self.made();
            let bin = &bins[stripe() & (bins.len() - 1)].0;
            let waiting = {
                let mut bin = bin.lock();
                let before = bin.waiting.len();
                left.for_each(|retired| bin.put(retired));
                if bin.waiting.len() > before {
                    Grace::hasten(|| bin.is_ready());
                }
                bin.take_ready(|value| ready.push(value));
                bin.waiting.len()
            };
            if waiting > MOST_WAITING {
                Self::give_turns(bin, &mut ready);
            }
            drop(ready);
        }

        /// Lets other threads go on: one that was stopped while it read holds all graces up.
        #[cold]
        fn give_turns(bin: &Lock<Bin<T, LOT>>, ready: &mut Vec<T>) {
            for _ in 0..MOST_TURNS {
                yield_now();
                Grace::hasten(|| false);
                let mut bin = bin.lock();
                bin.take_ready(|value| ready.push(value));
                if bin.waiting.len() <= MOST_WAITING {
                    break;
                }
            }
        }

        /// Drops everything, unless another thread is reading.
        pub fn flush(&self) {
            let mut ready = Vec::new();
            for bin in self.all() {
                bin.0.lock().seal();
            }
            // Graces end in the order of their beginning, a few a pin, and other caches have theirs.
            for _ in 0..MOST_HASTENED {
                Grace::hasten(|| false);
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
            Grace::hasten(|| false);
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
}

#[cfg(moka_gil)]
mod gil {
    use std::marker::PhantomData;

    use super::Retired;

    /// Proof that the thread is reading. It holds the GIL, so it costs nothing.
    pub(crate) struct Guard(PhantomData<*mut ()>);

    #[inline]
    pub(crate) fn pin() -> Guard {
        Guard(PhantomData)
    }

    impl Guard {
        /// Runs `code` of a user, with nothing borrowed through the guard.
        pub fn unpinned<R>(&mut self, code: impl FnOnce() -> R) -> R {
            code()
        }

        /// Frees a box.
        ///
        /// # Safety
        /// - `pointer` came from `Box::into_raw`, is unlinked, and is passed here once.
        pub(super) unsafe fn free<T>(&mut self, pointer: *mut T) {
            // SAFETY: the caller's; and `one-pin`: nobody reads it.
            drop(unsafe { Box::from_raw(pointer) });
        }
    }

    /// Retired values on their way to an owner.
    pub(crate) struct Bin<T, const LOT: usize>(Vec<T>);

    impl<T, const LOT: usize> Default for Bin<T, LOT> {
        fn default() -> Self {
            Bin(Vec::new())
        }
    }

    impl<T, const LOT: usize> Bin<T, LOT> {
        pub fn put(&mut self, retired: Retired<T>) {
            self.0.push(retired.open());
        }

        /// There is no grace to be asked for.
        pub fn seal(&mut self) {}

        /// Hands out all of it.
        #[inline]
        pub fn take_ready(&mut self, mut take: impl FnMut(T)) {
            while let Some(value) = self.0.pop() {
                take(value);
            }
        }
    }

    /// Where values wait: nowhere.
    pub(crate) struct Bins<T>(PhantomData<fn(T)>);

    impl<T> Bins<T> {
        pub fn new() -> Self {
            Bins(PhantomData)
        }

        /// Drops what left. The thread is neither pinned nor under a lock: a drop may run anything.
        pub fn release(&self, left: impl Iterator<Item = Retired<T>>) {
            left.for_each(|retired| drop(retired.open()));
        }

        pub fn flush(&self) {}

        pub fn free_memory(&self) {}

        #[cfg_attr(not(feature = "python"), allow(dead_code))]
        pub fn each(&self, _visit: impl FnMut(&T)) {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn counted() -> (Arc<u64>, std::sync::Weak<u64>) {
        let value = Arc::new(7);
        let weak = Arc::downgrade(&value);
        (value, weak)
    }

    #[test]
    fn a_swap_hands_out_what_was_there_and_drops_what_is() {
        let (first, first_seen) = counted();
        let (second, second_seen) = counted();
        let swap = Swap::<Option<Arc<u64>>>::default();
        assert!(swap.read(&pin()).is_none(), "all zero is nothing");
        assert!(swap.swap(Some(first)).is_none());
        let old = swap.swap(Some(second)).transpose().expect("the first was there");
        assert!(Arc::ptr_eq(&old, &first_seen.upgrade().expect("it is retired, not dropped")));
        assert_eq!(swap.read(&pin()).as_deref(), Some(&7));
        drop(swap);
        assert!(second_seen.upgrade().is_none());
        drop(old.open());
        assert!(first_seen.upgrade().is_none());
    }

    #[test]
    fn what_is_retired_is_not_dropped_by_itself() {
        let (value, seen) = counted();
        {
            let pair = Retired::of(value).zip(Retired::of(Some(Arc::new(8))));
            let (first, second) = &*pair;
            assert_eq!((**first, second.as_deref()), (7, Some(&8)));
        }
        assert!(seen.upgrade().is_some());
    }

    #[test]
    fn a_shared_structure_is_there_until_it_is_replaced() {
        let (value, seen) = counted();
        let shared = Shared::empty();
        assert!(shared.get(&pin()).is_none());
        shared.replace(Some(value), &mut pin());
        assert_eq!(shared.get(&pin()).map(|value| **value), Some(7));
        shared.replace(Some(Arc::new(9)), &mut pin());
        assert_eq!(shared.get(&pin()).map(|value| **value), Some(9));
        let bins = Bins::<u64>::new();
        while seen.upgrade().is_some() {
            // Another test may be reading for a while.
            bins.flush();
        }
    }

    #[test]
    #[cfg(not(moka_gil))]
    fn a_bin_waits_for_the_readers_of_its_time() {
        let mut bin = Bin::<_, 16>::default();
        let reader = pin();
        let (value, seen) = counted();
        bin.put(Retired::of(value));
        bin.seal();
        let bins = Bins::<u64>::new();
        for _ in 0..200 {
            bins.flush();
            bin.take_ready(drop);
        }
        assert!(seen.upgrade().is_some());
        drop(reader);
        while seen.upgrade().is_some() {
            bins.flush();
            bin.take_ready(drop);
        }
    }

    #[test]
    fn the_end_of_a_bin_drops_what_waits_in_it() {
        let mut bin = Bin::<_, 16>::default();
        let many: Vec<_> = (0..100).map(|_| counted()).collect();
        let (values, seen): (Vec<_>, Vec<_>) = many.into_iter().unzip();
        values.into_iter().for_each(|value| bin.put(Retired::of(value)));
        drop(bin);
        assert!(seen.iter().all(|seen| seen.upgrade().is_none()));
    }
}
