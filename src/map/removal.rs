//! The entries and values that a call removed: listed under the lock, reported and dropped after the unlock (law 1).

use crate::reclaim::Handle;
use crate::reclaim::{RetireList, Retired};

/// Why an entry or a value was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its deadline passed.
    Expired,
    /// The user removed it.
    Explicit,
    /// The user set another value.
    Replaced,
    /// The capacity needed its room.
    Size,
}

/// One removed value. It has its key if the key was removed too, or if a listener needs it.
pub struct Removal<K, V> {
    pub(crate) pair: Retired<(Option<K>, V)>,
    pub(crate) cause: Cause,
}

impl<K, V> Removal<K, V> {
    /// Returns the key, if the cache has a listener or the key was removed with the value.
    pub fn key(&self) -> Option<&K> {
        self.pair.0.as_ref()
    }

    pub fn value(&self) -> &V {
        &self.pair.1
    }

    pub fn cause(&self) -> Cause {
        self.cause
    }
}

impl<K: Handle, V: Handle> Removal<K, V> {
    /// Whether its drop does anything. Dropping immortal objects does nothing, so it need not wait.
    #[inline]
    pub(crate) fn is_mortal(&self) -> bool {
        !(self.value().is_immortal() && self.key().is_none_or(K::is_immortal))
    }
}

/// The removals of one call, in order, and the keys that it held for comparisons.
///
/// The caller of the core reports each removal to the listener, then hands the list to
/// [`Cache::release`](crate::Cache::release). Dropping the list instead leaks its contents.
pub struct Removals<K, V> {
    /// The first removal. Most calls remove nothing or one value, which needs no allocation.
    first: Option<Removal<K, V>>,
    more: Vec<Removal<K, V>>,
    is_truncated: bool,
    /// Created by the first comparison that holds a key, which most calls never make.
    held_keys: Option<Box<HeldKeys<K>>>,
}

/// The keys that a call held while a user's code compared them.
pub(crate) struct HeldKeys<K> {
    /// The keys that were unequal. The call compares none of them again.
    pub unequal: Vec<K>,
    /// The keys that were equal but lost their slot during the comparison, and the key whose comparison failed. A
    /// failure ends the call.
    pub others: Vec<K>,
}

/// How many keys were held when a call began. Results of earlier calls do not count: they compared with another key.
#[derive(Clone, Copy)]
pub(crate) struct HeldKeysMark {
    unequal: usize,
    others: usize,
}

impl<K, V> Default for Removals<K, V> {
    fn default() -> Self {
        Removals { first: None, more: Vec::new(), is_truncated: false, held_keys: None }
    }
}

impl<K, V> Removals<K, V> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing was removed and no key was held.
    #[inline]
    pub fn is_untouched(&self) -> bool {
        self.is_empty() && self.held_keys.is_none()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Removal<K, V>> {
        self.first.iter().chain(&self.more)
    }

    /// Whether nothing was removed.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // The first is taken with all others or not at all.
        self.first.is_none()
    }

    #[inline]
    pub(crate) fn last(&self) -> Option<&Removal<K, V>> {
        self.more.last().or(self.first.as_ref())
    }

    #[inline]
    pub(crate) fn first(&self) -> Option<&Removal<K, V>> {
        self.first.as_ref()
    }

    /// Takes the first removal. The caller takes the others with [`Removals::take_more`] next.
    #[inline]
    pub(crate) fn take_first(&mut self) -> Option<Retired<(Option<K>, V)>> {
        self.first.take().map(|first| first.pair)
    }

    /// Takes all removals but the first, in order; `None` if there are none.
    #[inline]
    pub(crate) fn take_more(&mut self) -> Option<impl Iterator<Item = Removal<K, V>>> {
        if self.more.is_empty() { None } else { Some(self.more.drain(..)) }
    }

    pub(crate) fn held_keys_mut(&mut self) -> &mut HeldKeys<K> {
        self.held_keys.get_or_insert_with(|| Box::new(HeldKeys { unequal: Vec::new(), others: Vec::new() }))
    }

    /// Returns the mark that separates the keys held so far from those that the current call will hold.
    pub(crate) fn held_keys_mark(&self) -> HeldKeysMark {
        self.held_keys.as_ref().map_or(HeldKeysMark { unequal: 0, others: 0 }, |held| HeldKeysMark {
            unequal: held.unequal.len(),
            others: held.others.len(),
        })
    }

    /// Returns the keys that were found unequal since the mark.
    pub(crate) fn unequal_since(&self, mark: HeldKeysMark) -> &[K] {
        self.held_keys.as_ref().map_or(&[], |held| &held.unequal[mark.unequal..])
    }

    /// Returns the keys that were found equal since the mark but lost their slot.
    pub(crate) fn equal_since(&self, mark: HeldKeysMark) -> &[K] {
        self.held_keys.as_ref().map_or(&[], |held| &held.others[mark.others..])
    }

    /// Drops the removals of a cache that no thread can reach, so no reader can see them.
    #[cfg_attr(not(feature = "python"), allow(dead_code))]
    pub(crate) fn drop_unreachable(self) {
        // The drop of the list drops its items. It needs no grace period, which would take longer than the drop of an
        // entry.
        let mut retired = RetireList::<_, { usize::MAX }>::default();
        self.first.into_iter().chain(self.more).for_each(|removal| retired.put(removal.pair));
    }

    /// Reserves room for `count` removals. Returns false if there is no memory.
    ///
    /// An empty list returns true without a reservation, so an eviction with an empty list always advances.
    #[inline]
    pub(crate) fn try_reserve(&mut self, count: usize) -> bool {
        let has_room = self.is_empty() || self.more.try_reserve(count).is_ok();
        self.is_truncated |= !has_room;
        has_room
    }

    /// Whether there was no memory for some removals, which then did not happen.
    ///
    /// If so, the caller calls [`Cache::finish_eviction`](crate::Cache::finish_eviction) with another list.
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    #[inline]
    pub(crate) fn push(&mut self, pair: Retired<(Option<K>, V)>, cause: Cause) {
        let removal = Removal { pair, cause };
        if self.first.is_none() {
            self.first = Some(removal);
        } else {
            self.more.push(removal);
        }
    }
}
