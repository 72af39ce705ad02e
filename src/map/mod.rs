//! The hash map of one shard: look-ups take no lock, changes take one.
//!
//! # How it works
//! A [`Table`] maps hashes to indices, and a [`Slab`] has the entry of each index. A look-up pins, probes, and asks the
//! query whether a key is equal.
//!
//! If that needs a user's `__eq__`, the look-up holds a reference to the key, unpins, compares, and pins again. Then it
//! checks that the slot still holds the compared entry ([`Map::find_slow`]).
//!
//! A writer looks up a key that needs no user's code under the lock. For another key, it looks up first, then locks,
//! and then checks identities only. The slot that it found must still be [valid](LockedMap::is_valid), or a key that it
//! did not find must still be [absent](LockedMap::is_absent).
//!
//! The lock also guards the state of the shard, of type `S`, which the map does not know. `locked` has the methods
//! that need the lock.
//!
//! # Invariants
//! - `one-slot`: a live entry is in exactly one slot of the current table, and each used slot has a live entry.
//! - `complete`: an index is in a slot only while its entry has a hash, a key and a value. A removal that depends on
//!   the value ([`LockedMap::take_value_if_same`]) takes the value first; until the slot is free, a reader sees a miss.
//! - `by-holder`: only the holder of the lock unlinks tables, chunks and keys. Values can be replaced without it
//!   ([`EntryRef::replace_value`]), so even the holder reads them pinned ([`Entry::value`]).

#![allow(unsafe_code)]

pub(crate) mod entry;
mod free_indices;
mod locked;
pub(crate) mod query;
pub(crate) mod removal;
mod resize;
mod slab;
mod table;

use crate::expiry::Lifetime;
use crate::map::entry::Entry;
use crate::map::query::KeyQuery;
use crate::map::removal::{HeldKeysMark, Removals};
use crate::reclaim::Handle;
use crate::reclaim::{AtomicBox, Guard, Pin, register_thread};
use crate::sync::{Lock, Ordering, Padded};

use locked::WriterState;
pub(crate) use locked::{HeldLock, LockedMap};
pub(crate) use slab::EntryRef;
use slab::Slab;
use table::{Table, TaggedIndex};

pub(crate) struct Map<K, V, S> {
    table: AtomicBox<Table>,
    slab: Slab<K, V>,
    writer: Padded<Lock<WriterState<S>>>,
}

/// The result of a look-up that runs no user's code.
pub(crate) enum FastLookup<'g, K, V> {
    Found(EntryRef<'g, K, V>, SlotRef),
    Absent,
    /// The key needs a user's code, or another key with the same tag comes first. [`Map::find_slow`] decides.
    Undecided,
}

/// The slot where a look-up found an entry.
pub(crate) struct SlotRef {
    table_version: u64,
    slot: usize,
    content: TaggedIndex,
}

impl SlotRef {
    /// Whether the table still has the entry in this slot.
    fn is_valid_in(&self, table: &Table) -> bool {
        table.version() == self.table_version && table.has_at(self.slot, self.content)
    }

    pub fn index(&self) -> u32 {
        self.content.index()
    }
}

impl<K: Handle, V: Handle, S> Map<K, V, S> {
    /// Creates an empty map. `of_cache` and `refresh` are the cache's own durations.
    pub fn new(of_cache: Lifetime, refresh: u64, state: S) -> Self {
        Map {
            table: AtomicBox::empty(),
            slab: Slab::new(of_cache, refresh),
            writer: Padded(Lock::new(WriterState::new(state))),
        }
    }

    /// Looks up a key without a user's code.
    #[inline(always)]
    pub fn find_fast<'g, Q: KeyQuery<K>>(&self, query: &Q, guard: &'g Guard) -> FastLookup<'g, K, V> {
        #[cfg(debug_assertions)]
        assert!(guard.serves(self), "a guard of another map's lock");
        let hash = query.hash();
        let Some(table) = self.table.get(guard) else { return FastLookup::Absent };
        let Some((slot, content)) = table.next_match(hash, table.home(hash)) else {
            return FastLookup::Absent;
        };
        let entry_ref = self.slab.entry_ref(content.index(), guard);
        let entry = entry_ref.entry;
        // Relaxed: the slot's Acquire came before.
        if entry.hash.load(Ordering::Relaxed) == hash
            && entry.key.read(guard).as_ref().and_then(|key| query.eq_builtin(key)) == Some(true)
        {
            return FastLookup::Found(entry_ref, SlotRef { table_version: table.version(), slot, content });
        }
        FastLookup::Undecided
    }

    /// Looks up a key. It may unpin in between, and is pinned again at the end.
    ///
    /// An entry that it returns was in its slot during the call. The index is not used for another key while the pin
    /// lives.
    ///
    /// Keys that were held for a comparison go to `removed`, to be dropped with the removals. The call compares no key
    /// twice since `mark`. Otherwise user's code that changes the cache in each comparison would keep the call for
    /// ever.
    #[inline]
    pub fn find<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        pin: &mut Pin<'_>,
        removed: &mut Removals<K, V>,
        mark: HeldKeysMark,
    ) -> Result<Option<SlotRef>, Q::Error> {
        match self.find_fast(query, pin) {
            FastLookup::Found(_, slot_ref) => Ok(Some(slot_ref)),
            FastLookup::Absent => Ok(None),
            FastLookup::Undecided => self.find_slow(query, pin, removed, mark),
        }
    }

    /// Like [`find`](Self::find), for a key that [`find_fast`](Self::find_fast) left undecided.
    #[cold]
    pub fn find_slow<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        pin: &mut Pin<'_>,
        removed: &mut Removals<K, V>,
        mark: HeldKeysMark,
    ) -> Result<Option<SlotRef>, Q::Error> {
        let hash = query.hash();
        // Where to resume the probe, if the table still has this version.
        let mut resume: Option<(u64, usize)> = None;
        loop {
            let Some(table) = self.table.get(pin) else { return Ok(None) };
            let from = match resume {
                Some((version, slot)) if version == table.version() => slot,
                _ => table.home(hash),
            };
            let Some((slot, content)) = table.next_match(hash, from) else { return Ok(None) };
            let slot_ref = SlotRef { table_version: table.version(), slot, content };
            resume = Some((slot_ref.table_version, slot + 1));
            let entry = self.slab.entry(content.index(), pin);
            if entry.hash.load(Ordering::Relaxed) != hash {
                continue;
            }
            let key = {
                let borrowed = entry.key.read(pin);
                let Some(key) = borrowed.as_ref() else { continue };
                let is_same = |held: &K| Q::ptr_eq(held, key);
                match query.eq_builtin(key) {
                    Some(true) => return Ok(Some(slot_ref)),
                    Some(false) => continue,
                    None if removed.unequal_since(mark).iter().any(is_same) => continue,
                    // The key is equal, but lost its slot while it was compared, and has another slot now.
                    None if removed.equal_since(mark).iter().any(is_same) => return Ok(Some(slot_ref)),
                    None => key.clone(),
                }
            };
            // Law 4: while the user's code runs, the thread holds nothing of the cache but a reference to the key.
            match pin.unpinned(|| query.eq_slow(&key)) {
                Ok(false) => removed.held_keys_mut().unequal.push(key),
                Ok(true) => {
                    if self.has_key_at::<Q>(&slot_ref, &key, pin) {
                        // The entry holds its key while the pin lives, so this drop only counts down.
                        drop(key);
                        return Ok(Some(slot_ref));
                    }
                    removed.held_keys_mut().others.push(key);
                    resume = None;
                }
                Err(error) => {
                    removed.held_keys_mut().others.push(key);
                    return Err(error);
                }
            }
        }
    }

    /// Whether the slot is valid and its entry has this very key.
    ///
    /// The caller holds the key, so no other key can have its address.
    fn has_key_at<Q: KeyQuery<K>>(&self, slot_ref: &SlotRef, key: &K, guard: &Guard) -> bool {
        self.table.get(guard).is_some_and(|table| slot_ref.is_valid_in(table)) && {
            let current = self.slab.entry(slot_ref.index(), guard).key.read(guard);
            current.as_ref().is_some_and(|current| Q::ptr_eq(current, key))
        }
    }

    /// Returns the entry of an index, with its chunk.
    #[inline]
    pub fn entry_ref<'g>(&self, index: u32, guard: &'g Guard) -> EntryRef<'g, K, V> {
        #[cfg(debug_assertions)]
        assert!(guard.serves(self), "a guard of another map's lock");
        self.slab.entry_ref(index, guard)
    }

    #[inline]
    pub fn entry<'g>(&self, index: u32, guard: &'g Guard) -> &'g Entry<K, V> {
        #[cfg(debug_assertions)]
        assert!(guard.serves(self), "a guard of another map's lock");
        self.slab.entry(index, guard)
    }

    /// Prefetches the home slot of a hash.
    #[inline]
    pub fn prefetch_slot(&self, hash: u64, guard: &Guard) {
        self.table.get(guard).into_iter().for_each(|table| table.prefetch(hash));
    }

    /// Returns the deadline of an entry; `NEVER` if it has none.
    pub fn deadline(&self, index: u32, guard: &Guard) -> u64 {
        self.entry_ref(index, guard).deadline()
    }

    #[inline]
    pub fn lock(&self) -> HeldLock<'_, K, V, S> {
        register_thread();
        HeldLock::new(self, self.writer.0.lock())
    }

    pub fn try_lock(&self) -> Option<HeldLock<'_, K, V, S>> {
        register_thread();
        self.writer.0.try_lock().map(|writer| HeldLock::new(self, writer))
    }
}

#[cfg(all(test, debug_assertions, not(moka_gil)))]
mod tests {
    use std::sync::Arc;

    use super::{Lifetime, Map};

    #[test]
    #[should_panic(expected = "a guard of another map's lock")]
    fn a_guard_of_a_lock_serves_no_other_map() {
        let [map, other] = [(); 2].map(|()| Map::<Arc<u64>, Arc<u64>, ()>::new(Lifetime::default(), 0, ()));
        let mut held = map.lock();
        let (_, guard) = held.parts();
        other.entry(0, &guard);
    }
}
