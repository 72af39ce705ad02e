//! One shard's hash map: found without a lock, changed under one.
//!
//! # How it works
//! A [`Table`](table::Table) maps hashes to entry numbers, a [`Slab`](slab::Slab) holds the entries. A look-up
//! pins, probes, and asks the key whether it is equal; for keys that need a user's `__eq__` it lets go
//! of everything in between and checks afterwards that the slot still holds what it compared. A writer
//! looks keys that compare in place up under the lock, at a glance. For others it looks up first, then locks, and
//! under the lock checks only identities: the place that it found still [holds](MapLock::holds) its entry, or
//! [nobody of the same hash](MapLock::is_absent) has come since.
//!
//! The lock also guards the shard's own state, of type `S`, which the map does not know.
//!
//! # Invariants
//! - `one-slot`: a live entry is in exactly one slot of the current table, and in no other entry's.
//! - `whole`: a number is in a slot only while its entry has a hash, a key and a value. What is removed if it is as it
//!   was seen loses its value first.
//! - `by-holder`: tables, chunks and keys are unlinked by the lock's holder alone. Values are not, see
//!   [`Found::replace_value`], so to look at one takes a pin also under the lock ([`Entry::value`]).

#![allow(unsafe_code)]

pub(crate) mod entry;
pub(crate) mod query;
pub(crate) mod removal;
mod resize;
mod slab;
mod table;

use crate::collections::try_reserve::NoMemory;
use crate::expiry::deadlines::DeadlineRef;
use crate::expiry::{Lifetime, NEVER};
use crate::map::entry::Entry;
use crate::map::query::KeyQuery;
use crate::map::removal::{Mark, Removals};
use crate::reclaim::Handle;
use crate::reclaim::{AtomicBox, Borrowed, Guard, Pin, Retired, register_thread};
use crate::sync::{HAS_GIL, Lock, Locked, Ordering, Padded};

use resize::Resize;
pub(crate) use slab::Found;
use slab::{Slab, SlabWriter};
use table::{Slot, Table};

pub(crate) struct Map<K, V, S> {
    table: AtomicBox<Table>,
    slab: Slab<K, V>,
    writer: Padded<Lock<Writer<S>>>,
}

/// In this order, so that what every write needs lies in few cache lines, beside the lock: mostly another thread has
/// written them last.
#[repr(C)]
struct Writer<S> {
    live: usize,
    tombstones: usize,
    /// The next table, while it is filled.
    resize: Option<Box<Resize>>,
    slab: SlabWriter,
    state: S,
}

/// What a look-up saw at a glance.
pub(crate) enum Glance<'g, K, V> {
    Found(Found<'g, K, V>, Place),
    Absent,
    /// Another key with its tag was in the way, or the key needs a user's code.
    Unclear,
}

/// Where a look-up found an entry.
pub(crate) struct Place {
    serial: u64,
    index: usize,
    slot: Slot,
}

impl Place {
    fn is_in(&self, table: &Table) -> bool {
        table.serial() == self.serial && table.holds(self.index, self.slot)
    }

    pub fn number(&self) -> u32 {
        self.slot.number()
    }
}

impl<K: Handle, V: Handle, S> Map<K, V, S> {
    /// Of a cache with this time to idle, in nanoseconds; 0 if it has none.
    pub fn new(tti: u64, state: S) -> Self {
        let slab = SlabWriter::new(tti);
        let writer = Writer { live: 0, tombstones: 0, resize: None, slab, state };
        Map { table: AtomicBox::empty(), slab: Slab::new(), writer: Padded(Lock::new(writer)) }
    }

    /// Looks a key up, as far as that goes without a user's code.
    #[inline(always)]
    pub fn try_get_fast<'g, Q: KeyQuery<K>>(&self, query: &Q, guard: &'g Guard) -> Glance<'g, K, V> {
        #[cfg(debug_assertions)]
        assert!(guard.serves(self), "a guard of another map's lock");
        let hash = query.hash();
        let Some(table) = self.table.get(guard) else { return Glance::Absent };
        let Some((index, slot)) = table.next(hash, table.home(hash)) else { return Glance::Absent };
        let found = self.slab.find(slot.number(), guard);
        if found.entry.hash.load(Ordering::Relaxed) == hash
            && found.entry.key.read(guard).as_ref().and_then(|key| query.eq_builtin(key)) == Some(true)
        {
            return Glance::Found(found, Place { serial: table.serial(), index, slot });
        }
        Glance::Unclear
    }

    /// Looks a key up. It may let go of the guard in between, and holds it again at the end: what it found
    /// was in its place a moment ago, and its number is not given to another key while the guard lives.
    ///
    /// Keys that were held for a comparison go to `left`, to be dropped with the rest. No key is compared twice
    /// `since` the call began: a user's code that changes the cache each time would keep the call for ever.
    #[inline]
    pub fn find<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        guard: &mut Pin<'_>,
        removed: &mut Removals<K, V>,
        since: Mark,
    ) -> Result<Option<Place>, Q::Error> {
        match self.try_get_fast(query, guard) {
            Glance::Found(_, place) => Ok(Some(place)),
            Glance::Absent => Ok(None),
            Glance::Unclear => self.find_slow(query, guard, removed, since),
        }
    }

    /// A look-up that meets other keys with its tag, or a key that needs a user's code.
    #[cold]
    pub fn find_slow<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        guard: &mut Pin<'_>,
        removed: &mut Removals<K, V>,
        since: Mark,
    ) -> Result<Option<Place>, Q::Error> {
        let hash = query.hash();
        // Where to go on, while the serial is this.
        let mut resume: Option<(u64, usize)> = None;
        loop {
            let Some(table) = self.table.get(guard) else { return Ok(None) };
            let from = match resume {
                Some((serial, index)) if serial == table.serial() => index,
                _ => table.home(hash),
            };
            let Some((index, slot)) = table.next(hash, from) else { return Ok(None) };
            let place = Place { serial: table.serial(), index, slot };
            resume = Some((place.serial, index + 1));
            let entry = self.slab.entry(slot.number(), guard);
            if entry.hash.load(Ordering::Relaxed) != hash {
                continue;
            }
            let key = {
                let lent = entry.key.read(guard);
                let Some(key) = lent.as_ref() else { continue };
                let is_same = |seen: &K| Q::ptr_eq(seen, key);
                match query.eq_builtin(key) {
                    Some(true) => return Ok(Some(place)),
                    Some(false) => continue,
                    None if removed.unequal(since).iter().any(is_same) => continue,
                    // Its place was lost while it was compared. To ask again might lose it again, for ever.
                    None if removed.equal(since).iter().any(is_same) => return Ok(Some(place)),
                    None => key.clone(),
                }
            };
            // Law 4: nothing of the cache is held while the user's code runs, but the key itself.
            match guard.unpinned(|| query.eq_slow(&key)) {
                Ok(false) => removed.compared().unequal.push(key),
                Ok(true) => {
                    if self.still_holds::<Q>(&place, &key, guard) {
                        // The entry holds its key for as long as the guard lives: to drop this reference
                        // is to count down, no more.
                        drop(key);
                        return Ok(Some(place));
                    }
                    removed.compared().others.push(key);
                    resume = None;
                }
                Err(error) => {
                    removed.compared().others.push(key);
                    return Err(error);
                }
            }
        }
    }

    /// Whether the place is still that of this very key. The key is held, so it is no other at its address.
    fn still_holds<Q: KeyQuery<K>>(&self, place: &Place, key: &K, guard: &Guard) -> bool {
        self.table.get(guard).is_some_and(|table| place.is_in(table)) && {
            let now = self.slab.entry(place.number(), guard).key.read(guard);
            now.as_ref().is_some_and(|now| Q::ptr_eq(now, key))
        }
    }

    /// An entry with what belongs to it.
    #[inline]
    pub fn found<'g>(&self, number: u32, guard: &'g Guard) -> Found<'g, K, V> {
        #[cfg(debug_assertions)]
        assert!(guard.serves(self), "a guard of another map's lock");
        self.slab.find(number, guard)
    }

    #[inline]
    pub fn entry<'g>(&self, number: u32, guard: &'g Guard) -> &'g Entry<K, V> {
        #[cfg(debug_assertions)]
        assert!(guard.serves(self), "a guard of another map's lock");
        self.slab.entry(number, guard)
    }

    /// Asks ahead for where a hash begins to be looked for.
    #[inline]
    pub fn prefetch_slot(&self, hash: u64, guard: &Guard) {
        self.table.get(guard).into_iter().for_each(|table| table.prefetch(hash));
    }

    /// The deadline of an entry; `NEVER` if it has none.
    pub fn deadline(&self, number: u32, guard: &Guard) -> u64 {
        self.found(number, guard).deadline()
    }

    #[inline]
    pub fn lock(&self) -> HeldMap<'_, K, V, S> {
        register_thread();
        HeldMap { map: self, writer: self.writer.0.lock() }
    }

    pub fn try_lock(&self) -> Option<HeldMap<'_, K, V, S>> {
        register_thread();
        self.writer.0.try_lock().map(|writer| HeldMap { map: self, writer })
    }
}

/// The lock of a map, held until this is dropped.
pub(crate) struct HeldMap<'a, K, V, S> {
    map: &'a Map<K, V, S>,
    writer: Locked<'a, Writer<S>>,
}

impl<K, V, S> HeldMap<'_, K, V, S> {
    /// The map as its writer has it, and a guard that costs no pin. Neither outlives the lock.
    #[inline(always)]
    pub fn parts(&mut self) -> (MapLock<'_, K, V, S>, Guard<'_>) {
        let HeldMap { map, writer } = self;
        // SAFETY: `by-holder`; both borrow what holds the lock.
        let guard = unsafe { Guard::of_lock(*map) };
        (MapLock { map, writer }, guard)
    }
}

/// Begins the life of an entry that was written, if it has one: with an instant and durations whose memory was reserved,
/// or without an end. Returns its deadline.
#[inline]
fn begin_life(life: Option<DeadlineRef<'_>>, lifetime: Option<(u64, Lifetime)>) -> u64 {
    let (now, lifetime) = lifetime.unwrap_or_default();
    debug_assert!(life.is_some() || lifetime.is_endless(), "a deadline's memory was reserved");
    life.map_or(NEVER, |life| life.begin(now, lifetime))
}

/// The map with its lock held, as its one writer has it.
pub(crate) struct MapLock<'h, K, V, S> {
    map: &'h Map<K, V, S>,
    writer: &'h mut Writer<S>,
}

impl<K: Handle, V: Handle, S> MapLock<'_, K, V, S> {
    pub fn state(&mut self) -> &mut S {
        &mut self.writer.state
    }

    pub fn len(&self) -> usize {
        self.writer.live
    }

    /// When the entry expires, if anything near it ever could.
    #[inline]
    pub fn life<'g>(&self, number: u32, guard: &'g Guard) -> Option<DeadlineRef<'g>> {
        self.map.slab.life(number, &self.writer.slab, guard)
    }

    /// The deadline of an entry; `NEVER` if it has none. Told without a look at it where no entry ever had one.
    #[inline]
    pub fn deadline(&self, number: u32, guard: &Guard) -> u64 {
        self.life(number, guard).map_or(NEVER, |life| life.deadline())
    }

    /// Whether a place found before the lock still holds its entry.
    pub fn holds(&self, place: &Place, guard: &Guard) -> bool {
        self.map.table.get(guard).is_some_and(|table| place.is_in(table))
    }

    /// Whether no entry of the query's hash has come since it found none: each one there is unequal, or was
    /// compared and found `unequal`.
    pub fn is_absent<Q: KeyQuery<K>>(&self, query: &Q, unequal: &[K], guard: &Guard) -> bool {
        let hash = query.hash();
        let Some(table) = self.map.table.get(guard) else { return true };
        let mut from = table.home(hash);
        while let Some((index, slot)) = table.next(hash, from) {
            from = index + 1;
            let entry = self.map.entry(slot.number(), guard);
            if entry.hash.load(Ordering::Relaxed) != hash {
                continue;
            }
            let is_unequal = |key: &K| match query.eq_builtin(key) {
                Some(is_equal) => !is_equal,
                None => unequal.iter().any(|seen| Q::ptr_eq(seen, key)),
            };
            if !entry.key.read(guard).as_ref().is_some_and(is_unequal) {
                return false;
            }
        }
        true
    }

    /// Asks ahead for the entry that the next newcomer gets.
    #[inline]
    pub fn prefetch_number(&self, guard: &Guard) {
        self.map.slab.prefetch_number(&self.writer.slab, guard);
    }

    /// Makes sure that a new entry finds its memory, but for its deadlines. Returns the number that it will have.
    pub fn reserve(&mut self, guard: &mut Guard) -> Result<u32, NoMemory> {
        let taken = self.writer.live + self.writer.tombstones;
        if self.writer.resize.is_some() || self.map.table.get(guard).is_none_or(|table| taken >= table.room())
        {
            self.resize(false, guard)?;
        }
        self.map.slab.reserve_number(&mut self.writer.slab, guard)
    }

    /// Makes sure that an entry has the memory of such deadlines.
    #[inline]
    pub fn reserve_life(&mut self, found: &Found<'_, K, V>, lifetime: Lifetime) -> Result<(), NoMemory> {
        found.reserve_life(lifetime, &mut self.writer.slab)
    }

    /// Puts a new entry in, for which there was a [`reserve`](Self::reserve). The caller knows that its key is absent.
    /// Returns its number, the entry, and its deadline.
    pub fn insert<'g>(
        &mut self,
        hash: u64,
        key: K,
        value: V,
        lifetime: Option<(u64, Lifetime)>,
        guard: &'g Guard,
    ) -> (u32, &'g Entry<K, V>, u64) {
        let map = self.map;
        let (number, found) = map.slab.take_number(&mut self.writer.slab, guard);
        let entry = found.entry;
        // Relaxed: the slot's Release makes all of it seen.
        entry.hash.store(hash, Ordering::Relaxed);
        map.slab.fill(entry, key, value, &mut self.writer.slab);
        let deadline = begin_life(found.life(), lifetime);
        let table = map.table.get(guard).expect("a reserve leaves a table");
        let (index, was_tombstone) = table.vacancy(hash);
        table.put(index, hash, number);
        if let Some(resize) = &mut self.writer.resize {
            resize.insert(table, index, hash, number);
        }
        self.writer.tombstones -= usize::from(was_tombstone);
        self.writer.live += 1;
        (number, entry, deadline)
    }

    /// Puts another value into a live entry, then its new deadlines, of which it returns the sooner.
    #[inline]
    pub fn replace(
        &mut self,
        found: &Found<'_, K, V>,
        value: V,
        lifetime: Option<(u64, Lifetime)>,
    ) -> (Retired<V>, u64) {
        let old = self.replace_value(found.entry, value);
        (old, begin_life(found.life(), lifetime))
    }

    /// Puts another value into a live entry, and nothing else.
    #[inline]
    pub fn replace_value(&mut self, entry: &Entry<K, V>, value: V) -> Retired<V> {
        let old = self.map.slab.put_value(entry, Some(value), &mut self.writer.slab);
        old.transpose().expect("`whole`: a live entry has a value")
    }

    /// Takes the value out of a live entry that is to be [removed](Self::remove), if it is still the one that was `seen`.
    pub fn take_seen(
        &mut self,
        number: u32,
        seen: &Borrowed<'_, Option<V>>,
        guard: &Guard,
    ) -> Option<Retired<V>> {
        let entry = self.map.entry(number, guard);
        self.map.slab.take_seen(entry, seen, &mut self.writer.slab, guard)?.transpose()
    }

    /// Takes a live entry out; its value may be taken already. The table keeps its size, until a [`shrink`](Self::shrink).
    #[inline]
    pub fn remove(
        &mut self,
        number: u32,
        taken: Option<Retired<V>>,
        guard: &Guard,
    ) -> Retired<(Option<K>, V)> {
        let map = self.map;
        let entry = map.entry(number, guard);
        let table = map.table.get(guard).expect("a live entry has a table");
        let hash = entry.hash.load(Ordering::Relaxed);
        let index = table.find_number(hash, number);
        if HAS_GIL && self.writer.resize.is_none() {
            table.close(index);
        } else {
            let more = table.remove(index);
            if let Some(resize) = &mut self.writer.resize {
                resize.remove(table, index, hash, number);
            }
            self.writer.tombstones = self.writer.tombstones.wrapping_add_signed(more);
        }
        self.writer.live -= 1;
        let key = map.slab.take_key(entry, &mut self.writer.slab);
        let value = taken.or_else(|| map.slab.put_value(entry, None, &mut self.writer.slab).transpose());
        map.slab.give_back(number, &mut self.writer.slab, guard);
        key.zip(value.expect("`whole`: a live entry has a value"))
    }

    /// Makes the table smaller, where few of its slots are taken: a step of it, if the table is large.
    #[inline]
    pub fn shrink(&mut self, guard: &mut Guard) {
        let live = self.writer.live;
        if self.writer.resize.is_some() || self.map.table.get(guard).is_some_and(|table| table.is_wide(live))
        {
            // Without memory it stays as it is.
            let _ = self.resize(false, guard);
        }
    }

    /// Goes on with the next table, which is begun if there is none; or, with `all`, comes to its end.
    #[cold]
    fn resize(&mut self, all: bool, guard: &mut Guard) -> Result<(), NoMemory> {
        let Writer { live, tombstones, resize, .. } = &mut *self.writer;
        let Some(table) = self.map.table.get(guard) else {
            let first = Table::new(Table::slots_for(*live), 0)?;
            // SAFETY: `by-holder`.
            unsafe { self.map.table.replace(Some(first), guard) };
            return Ok(());
        };
        let mut next = match resize.take().filter(|next| next.fits(*live)) {
            Some(next) => next,
            None => Box::new(Resize::begin(table, *live)?),
        };
        // It has ended long before that, unless it was begun more than once.
        let is_late = *live + *tombstones >= table.len() / 8 * 7;
        if next.go_on(table, all || is_late) {
            let (table, removed) = next.finish();
            *tombstones = removed;
            // SAFETY: `by-holder`.
            unsafe { self.map.table.replace(Some(table), guard) };
        } else {
            *resize = Some(next);
        }
        Ok(())
    }

    /// Prepares a trim, a grace ahead of it.
    pub fn prepare_trim(&mut self) {
        Slab::<K, V>::seal_rests(&mut self.writer.slab);
    }

    /// Frees memory that nothing uses. Returns the number from which on none is in use.
    pub fn trim(&mut self, guard: &mut Guard) -> u32 {
        if self.writer.resize.is_some() {
            // Without memory it goes on with the next write.
            let _ = self.resize(true, guard);
        }
        let live = self.writer.live;
        self.map.slab.trim(live, &mut self.writer.slab, guard)
    }

    /// A number above those of all live entries.
    pub fn limit(&self) -> u32 {
        self.writer.slab.limit()
    }

    /// The next live entry from a number on.
    pub fn next_live(&self, from: u32, guard: &Guard) -> Option<u32> {
        self.map.slab.next_live(from, &self.writer.slab, guard)
    }

    /// Checks the invariants. For tests: it walks everything.
    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self, guard: &Guard) {
        let pinned = guard.pinned();
        let mut live = 0;
        let mut from = 0;
        while let Some(number) = self.next_live(from, guard) {
            let entry = self.map.entry(number, guard);
            let table = self.map.table.get(guard).expect("a live entry has a table");
            let index = table.find_number(entry.hash.load(Ordering::Relaxed), number);
            assert!(index < table.len(), "`one-slot`");
            assert!(entry.value(&pinned).is_some(), "`whole`");
            live += 1;
            from = number + 1;
        }
        let slots = self.map.table.get(guard).map_or(0, |table| table.numbers().count());
        assert_eq!((live, slots), (self.writer.live, self.writer.live), "`one-slot`");
        let tombstones = self.map.table.get(guard).map_or(0, Table::tombstones);
        assert_eq!(tombstones, self.writer.tombstones, "the tombstones are counted");
        if let (Some(resize), Some(table)) = (&self.writer.resize, self.map.table.get(guard)) {
            resize.validate(table);
        }
    }
}

#[cfg(all(test, debug_assertions, not(moka_gil)))]
mod tests {
    use std::sync::Arc;

    use super::Map;

    #[test]
    #[should_panic(expected = "a guard of another map's lock")]
    fn a_guard_of_a_lock_serves_no_other_map() {
        let [map, other] = [(); 2].map(|()| Map::<Arc<u64>, Arc<u64>, ()>::new(0, ()));
        let mut held = map.lock();
        let (_, guard) = held.parts();
        other.entry(0, &guard);
    }
}
