//! Who frees what, and when: readers pin, writers retire, attached threads drop.
//!
//! # How it works
//! A reader holds a [`Guard`] while it looks. A writer that unlinks something hands it on as [`Retired`],
//! which cannot be dropped: it goes into a [`RetireList`], waits there until every guard of its time is gone
//! (a [`Grace`]), and comes out as an owned value again, in the hands of a thread that asked for it.
//! [`StripedRetireLists`] is a bin for each few threads, so that writers do not meet there. As long as one thread alone reads
//! there is nobody to wait for; `readers` tells.
//!
//! crossbeam-epoch runs its closures wherever it likes, also in dying threads that Python has forgotten.
//! So a closure of ours only frees memory or sets the flag of a grace; no key or value is dropped by one
//! (law 3).
//!
//! In the GIL build all this compiles to nothing: what is retired can be dropped at once, because no other
//! thread can be reading and no guard lives across Python code (law 4).
//!
//! # Invariants
//! - `word`: a [`AtomicHandle`] holds the bits of a valid `T`, one machine word wide.
//! - `grace`: what a [`AtomicHandle`] or [`AtomicBox`] gave up is not dropped before every guard that could have
//!   seen it is gone. [`Retired`] enforces it: only a [`RetireList`] opens one, or [`StripedRetireLists`] where there is no such guard.
//! - `one-pin` (GIL build): while something is freed, no guard but the caller's is alive, and the
//!   caller's is borrowed mutably, so nothing read through it is either. A pin beside a guard borrows it ([`Guard::pinned`]),
//!   and in a debug build guards are counted.
//! - `lock-guard`: a guard that stands for a lock ends before the unlock, since it borrows the lock. It keeps what the
//!   lock's holder alone unlinks: a [`LockedAtomicHandle`] and a [`AtomicBox`], but no [`AtomicHandle`], for which it takes a [`Pin`].
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `AtomicHandle::word` | AcqRel swap or exchange, or a Release store of the one writer, or a Relaxed one of who is alone | Acquire load | the object is whole before its pointer is seen |
//! | `AtomicBox::pointer` | AcqRel swap | Acquire load | likewise |
//! | `Grace::over` | Release, in the closure | Acquire | reads under the old guards come before the drop |
//! | `OnceFlag::is_set` | Relaxed, before the wait for all who are pinned | Relaxed, pinned | who is pinned later is ordered after it by the epoch |
//! | `OnceFlag::is_known` | Release, after that wait | Acquire | what those did who saw it unset comes before what follows |

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::{ManuallyDrop, size_of};
use std::ops::Deref;
use std::ptr;

use crate::sync::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

#[cfg(not(moka_gil))]
use epoch::wait_for_readers;
#[cfg(not(moka_gil))]
pub(crate) use epoch::{Guard, Pin, RetireList, StripedRetireLists, pin, pin_briefly};
#[cfg(moka_gil)]
#[cfg_attr(not(all(feature = "python", unix)), allow(unused_imports))]
pub(crate) use gil::after_fork_child;
#[cfg(moka_gil)]
use gil::wait_for_readers;
#[cfg(moka_gil)]
pub(crate) use gil::{Guard, Pin, RetireList, StripedRetireLists, pin, pin_briefly, register_thread};
pub use handle::Handle;
#[cfg(not(moka_gil))]
#[cfg_attr(not(all(feature = "python", unix)), allow(unused_imports))]
pub(crate) use thread_registry::after_fork_child;
#[cfg(all(debug_assertions, not(moka_gil), not(moka_loom)))]
pub use thread_registry::is_pinned;
#[cfg(not(moka_gil))]
pub(crate) use thread_registry::register_thread;

/// What was unlinked and may still be read by others. It can be looked at, not dropped.
pub(crate) struct Retired<T> {
    inner: ManuallyDrop<T>,
    /// Whether nobody else can see it, now or later.
    is_unseen: bool,
}

impl<T> Retired<T> {
    /// Wraps what nobody else can see, so that it travels with what others can.
    pub fn of(value: T) -> Self {
        Retired { inner: ManuallyDrop::new(value), is_unseen: true }
    }

    /// What was taken out of a place where others may have seen it.
    fn seen(inner: ManuallyDrop<T>) -> Self {
        Retired { inner, is_unseen: false }
    }

    pub fn zip<U>(self, other: Retired<U>) -> Retired<(T, U)> {
        let is_unseen = self.is_unseen && other.is_unseen;
        Retired { inner: ManuallyDrop::new((self.open(), other.open())), is_unseen }
    }

    /// Opens it. For this module alone: the caller knows that the grace is over.
    fn open(self) -> T {
        ManuallyDrop::into_inner(self.inner)
    }
}

impl<T> Retired<Option<T>> {
    pub fn transpose(self) -> Option<Retired<T>> {
        let is_unseen = self.is_unseen;
        self.open().map(|value| Retired { inner: ManuallyDrop::new(value), is_unseen })
    }
}

impl<T> Deref for Retired<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

/// A value one word wide that is read without a lock and swapped by a writer.
pub(crate) struct AtomicHandle<T> {
    word: AtomicUsize,
    holds: PhantomData<T>,
}

// SAFETY: the word is a `T`, which moves in and out (`Send`) and is lent to many threads (`Sync`); its
// atomic serializes the accesses.
unsafe impl<T: Send + Sync> Sync for AtomicHandle<T> {}

/// A value lent by a [`AtomicHandle`] for as long as the guard lives.
pub(crate) struct Borrowed<'g, T> {
    value: ManuallyDrop<T>,
    guard: PhantomData<&'g ()>,
}

impl<T> Deref for Borrowed<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> AtomicHandle<T> {
    const ONE_WORD: () = assert!(size_of::<T>() == size_of::<usize>(), "a swap holds one word");

    #[cfg_attr(not(feature = "python"), allow(dead_code))]
    pub fn new(value: T) -> Self {
        AtomicHandle { word: AtomicUsize::new(Self::into_word(value)), holds: PhantomData }
    }

    #[inline]
    pub fn read<'g>(&self, _pin: &'g Pin<'_>) -> Borrowed<'g, T> {
        self.lend()
    }

    #[inline]
    fn lend<'g>(&self) -> Borrowed<'g, T> {
        // Acquire: pairs with the AcqRel in `swap`; the object is whole before it is seen.
        let value = Self::from_word(self.word.load(Ordering::Acquire));
        Borrowed { value, guard: PhantomData }
    }

    /// Puts another value in place, for a writer that is the only one at the time. The former value may still be lent.
    ///
    /// # Safety
    /// - What writers do here is in an order that a lock or the like makes.
    pub unsafe fn put(&self, value: T) -> Retired<T> {
        let word = Self::into_word(value);
        // Relaxed: the lock tells what the last writer wrote.
        let old = self.word.load(Ordering::Relaxed);
        // Release: pairs with the Acquire in `read`.
        self.word.store(word, Ordering::Release);
        Retired::seen(Self::from_word(old))
    }

    /// Puts another value in place. The former value may still be lent.
    pub fn swap(&self, value: T) -> Retired<T> {
        let word = Self::into_word(value);
        // AcqRel: pairs with the Acquire in `read`, and with earlier swaps for what is handed out.
        Retired::seen(Self::from_word(self.word.swap(word, Ordering::AcqRel)))
    }

    /// Puts another value in the place of the one that was `seen`; hands it back where that is gone. If the one that was seen
    /// has come again meanwhile, nobody can tell. The same one again is there already, so nothing is written.
    #[inline]
    pub fn exchange(&self, seen: &Borrowed<'_, T>, value: T, guard: &Guard<'_>) -> Result<Retired<T>, T> {
        let (old, new) = (Self::word(&seen.value), Self::into_word(value));
        if old == new {
            // One reference too many: the other stays for whoever sees it.
            return Ok(Retired::of(ManuallyDrop::into_inner(Self::from_word(new))));
        }
        if guard.is_alone() && self.word.load(Ordering::Relaxed) == old {
            // Relaxed: nobody else writes, and who reads it is let in after this.
            self.word.store(new, Ordering::Relaxed);
            return Ok(Retired { inner: Self::from_word(old), is_unseen: true });
        }
        // AcqRel: as in `swap`. Relaxed: what is there now is not looked at.
        match self.word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(old) => Ok(Retired::seen(Self::from_word(old))),
            Err(_) => Err(ManuallyDrop::into_inner(Self::from_word(new))),
        }
    }

    fn into_word(value: T) -> usize {
        Self::word(&ManuallyDrop::new(value))
    }

    fn word(value: &ManuallyDrop<T>) -> usize {
        const { Self::ONE_WORD };
        // SAFETY: `word`; both are one word wide, and an integer takes any bits that are initialized,
        // which those of a reference or of an optional one are.
        unsafe { std::mem::transmute_copy::<ManuallyDrop<T>, usize>(value) }
    }

    fn from_word(word: usize) -> ManuallyDrop<T> {
        const { Self::ONE_WORD };
        // SAFETY: `word`; the bits came from a `T`. It is wrapped so that no copy is dropped.
        unsafe { std::mem::transmute_copy::<usize, ManuallyDrop<T>>(&word) }
    }
}

impl<T> Default for AtomicHandle<Option<T>> {
    /// Nothing, which is all zero: a word has no other.
    fn default() -> Self {
        AtomicHandle { word: AtomicUsize::new(0), holds: PhantomData }
    }
}

impl<T> Drop for AtomicHandle<T> {
    fn drop(&mut self) {
        // Relaxed: `&mut self` says that nobody else is at it.
        drop(ManuallyDrop::into_inner(Self::from_word(self.word.load(Ordering::Relaxed))));
    }
}

/// A [`AtomicHandle`] that the holder of one lock alone writes. So that lock keeps what is read, too.
pub(crate) struct LockedAtomicHandle<T>(AtomicHandle<T>);

impl<T> LockedAtomicHandle<T> {
    #[inline]
    pub fn read<'g>(&self, _guard: &'g Guard<'_>) -> Borrowed<'g, T> {
        self.0.lend()
    }

    /// Puts another value in place. The former value may still be lent.
    ///
    /// # Safety
    /// - The caller holds the lock for which guards are made ([`Guard::of_lock`]) by which this is read.
    pub unsafe fn put(&self, value: T) -> Retired<T> {
        // SAFETY: the caller's; the lock makes the order.
        unsafe { self.0.put(value) }
    }
}

impl<T> Default for LockedAtomicHandle<Option<T>> {
    /// Nothing, which is all zero.
    fn default() -> Self {
        LockedAtomicHandle(AtomicHandle::default())
    }
}

/// A boxed structure of the cache itself, with no key or value to drop in it, that readers find without a
/// lock and a writer replaces.
pub(crate) struct AtomicBox<T> {
    pointer: AtomicPtr<T>,
    owns: PhantomData<T>,
}

impl<T: Send + Sync> AtomicBox<T> {
    pub fn empty() -> Self {
        AtomicBox { pointer: AtomicPtr::new(ptr::null_mut()), owns: PhantomData }
    }

    #[inline]
    pub fn get<'g>(&self, _guard: &'g Guard<'_>) -> Option<&'g T> {
        // Acquire: pairs with the AcqRel in `replace`; the structure is whole before it is seen.
        let pointer = self.pointer.load(Ordering::Acquire);
        // SAFETY: `grace`; the pointer is null or a box that is freed after this guard is gone.
        unsafe { pointer.as_ref() }
    }

    /// Puts another structure in place, or none. The old one is freed when no guard can see it.
    ///
    /// # Safety
    /// - The caller holds the lock for which guards are made ([`Guard::of_lock`]) by which this is read.
    pub unsafe fn replace(&self, next: Option<T>, guard: &mut Guard<'_>) {
        let next = next.map_or(ptr::null_mut(), |next| Box::into_raw(Box::new(next)));
        // AcqRel: pairs with the Acquire in `get`, and with the swap that put the old one here.
        let old = self.pointer.swap(next, Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: it came from a box in `replace` and is unlinked now, so it is freed this once.
            unsafe { guard.free(old) };
        }
    }
}

impl<T> Drop for AtomicBox<T> {
    fn drop(&mut self) {
        // Relaxed: `&mut self` says that nobody else is at it.
        let pointer = self.pointer.load(Ordering::Relaxed);
        if !pointer.is_null() {
            // SAFETY: it came from a box in `replace`, and `&mut self` says that nobody reads it.
            drop(unsafe { Box::from_raw(pointer) });
        }
    }
}

/// A switch that is thrown once. Threads look at it while they are pinned, and once it is set none of them goes on for which
/// it was not.
pub(crate) struct OnceFlag {
    is_set: AtomicBool,
    is_known: AtomicBool,
}

impl OnceFlag {
    pub fn new(is_set: bool) -> Self {
        OnceFlag { is_set: AtomicBool::new(is_set), is_known: AtomicBool::new(is_set) }
    }

    #[inline]
    pub fn is_set(&self, _pin: &Pin<'_>) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// Whether it seems to be set, for a thread that acts the same in both cases.
    pub fn seems_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// Sets it, for a thread that has neither a pin nor a lock.
    #[inline]
    pub fn set(&self) {
        if !self.is_known.load(Ordering::Acquire) {
            self.set_slow();
        }
    }

    #[cold]
    #[inline(never)]
    fn set_slow(&self) {
        self.is_set.store(true, Ordering::Relaxed);
        wait_for_readers();
        self.is_known.store(true, Ordering::Release);
    }
}

mod handle;

#[cfg(not(moka_gil))]
mod thread_registry;

#[cfg(not(moka_gil))]
mod epoch;

#[cfg(moka_gil)]
mod gil;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    #[cfg(not(moka_gil))]
    use std::time::{Duration, Instant};

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
        let swap = AtomicHandle::<Option<Arc<u64>>>::default();
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
    fn an_exchange_takes_the_place_of_what_was_seen_and_of_nothing_else() {
        let swap = AtomicHandle::new(Some(Arc::new(1)));
        let guard = pin();
        let seen = swap.read(&guard);
        let first =
            swap.exchange(&seen, Some(Arc::new(2)), &guard).unwrap_or_else(|_| panic!("it was there"));
        assert_eq!(first.as_deref(), Some(&1));
        let back = swap.exchange(&seen, Some(Arc::new(3)), &guard).err().expect("it has gone");
        assert_eq!((back.as_deref(), swap.read(&guard).as_deref()), (Some(&3), Some(&2)));
        assert_eq!(Arc::strong_count(&back.expect("it is the third")), 1);
        drop(first.open());
    }

    #[test]
    fn an_exchange_for_the_same_value_writes_nothing() {
        let one = Arc::new(1);
        let swap = AtomicHandle::new(Some(one.clone()));
        let guard = pin();
        let seen = swap.read(&guard);
        let other = swap.swap(Some(Arc::new(2)));
        // It was there when it was seen. A write would find that it is not.
        let again =
            swap.exchange(&seen, Some(one.clone()), &guard).unwrap_or_else(|_| panic!("it needs no write"));
        assert_eq!((again.as_deref(), swap.read(&guard).as_deref()), (Some(&1), Some(&2)));
        assert_eq!(Arc::strong_count(&one), 3);
        drop((again.open(), other.open()));
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
        let shared = AtomicBox::empty();
        assert!(shared.get(&pin()).is_none());
        // SAFETY: no other thread has it, here and below.
        unsafe { shared.replace(Some(value), &mut pin().into_guard()) };
        assert_eq!(shared.get(&pin()).map(|value| **value), Some(7));
        // SAFETY: as above.
        unsafe { shared.replace(Some(Arc::new(9)), &mut pin().into_guard()) };
        assert_eq!(shared.get(&pin()).map(|value| **value), Some(9));
        let bins = StripedRetireLists::<u64>::new();
        while seen.upgrade().is_some() {
            // Another test may be reading for a while.
            bins.flush();
        }
    }

    #[test]
    #[cfg(all(debug_assertions, moka_gil))]
    #[should_panic(expected = "`one-pin`")]
    fn nothing_is_freed_beside_a_second_guard() {
        let shared = AtomicBox::empty();
        let mut guard = pin().into_guard();
        // SAFETY: no other thread has it.
        unsafe { shared.replace(Some(1), &mut guard) };
        let _other = pin();
        // SAFETY: likewise.
        unsafe { shared.replace(Some(2), &mut guard) };
    }

    #[test]
    #[cfg(not(moka_gil))]
    fn a_bin_waits_for_the_readers_of_its_time() {
        let mut bin = RetireList::<_, 16>::default();
        let reader = pin();
        let (value, seen) = counted();
        bin.put(Retired::of(value));
        bin.seal();
        let bins = StripedRetireLists::<u64>::new();
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
    #[cfg(not(moka_gil))]
    fn who_writes_beside_a_reader_that_is_stopped_waits_before_too_much_does() {
        const MAY_WAIT: usize = 64;
        let (value, released) = (Arc::new(7), Arc::new(AtomicUsize::new(0)));
        let reader = pin();
        let writer = std::thread::spawn({
            let (value, released) = (value.clone(), released.clone());
            move || {
                let bins = StripedRetireLists::new();
                for _ in 0..10 * MAY_WAIT {
                    bins.release(Retired::of(value.clone()), std::iter::empty());
                    released.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let begin = Instant::now();
        while released.load(Ordering::Relaxed) <= MAY_WAIT && begin.elapsed() < Duration::from_millis(50) {
            std::thread::yield_now();
        }
        assert!(released.load(Ordering::Relaxed) <= MAY_WAIT, "the reader may see them all");
        drop(reader);
        writer.join().expect("no panic");
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    #[cfg(not(moka_gil))]
    fn who_sets_a_latch_waits_for_all_who_saw_it_unset_also_the_second() {
        const TURNS: usize = 1_000;
        let latch = Arc::new(OnceFlag::new(false));
        let is_through = Arc::new(AtomicBool::new(false));
        let reader = pin();
        assert!(!latch.is_set(&reader));
        let setters = [(); 2].map(|()| {
            let (set, is_through) = (latch.clone(), is_through.clone());
            let setter = std::thread::spawn(move || {
                set.set();
                assert!(is_through.load(Ordering::Relaxed), "a reader goes on that saw it unset");
            });
            while !latch.is_set(&reader) {
                std::thread::yield_now();
            }
            setter
        });
        (0..TURNS).for_each(|_| std::thread::yield_now());
        is_through.store(true, Ordering::Relaxed);
        drop(reader);
        setters.into_iter().for_each(|setter| setter.join().expect("no panic"));
        assert!(latch.is_set(&pin()));
    }

    #[test]
    fn the_end_of_a_bin_drops_what_waits_in_it() {
        let mut bin = RetireList::<_, 16>::default();
        let many: Vec<_> = (0..100).map(|_| counted()).collect();
        let (values, seen): (Vec<_>, Vec<_>) = many.into_iter().unzip();
        values.into_iter().for_each(|value| bin.put(Retired::of(value)));
        drop(bin);
        assert!(seen.iter().all(|seen| seen.upgrade().is_none()));
    }
}
