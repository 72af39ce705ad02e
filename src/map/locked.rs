//! The map while its lock is held: inserts, replacements, removals, resizes and trims.
//!
//! # How it works
//! [`HeldLock`] holds the lock. It lends a [`LockedMap`], which has the methods, and a [`Guard`] that costs no pin. An
//! insert has two steps. [`LockedMap::reserve`] allocates and may fail; [`LockedMap::insert`] does neither.
//!
//! # Invariants
//! The ones of the [map](super).

use crate::collections::try_reserve::NoMemory;
use crate::expiry::deadlines::DeadlineRef;
use crate::expiry::{Lifetime, NEVER};
use crate::map::entry::Entry;
use crate::map::query::KeyQuery;
use crate::reclaim::Handle;
use crate::reclaim::{Borrowed, Guard, Retired};
use crate::sync::{HAS_GIL, Locked, Ordering};

use super::free_indices::FreeIndices;
use super::resize::Resize;
use super::slab::{EntryRef, SlabWriter};
use super::table::Table;
use super::{Map, SlotRef};

/// The state that the lock guards.
///
/// The fields that every write needs come first. They are in few cache lines, beside the lock, because another core
/// often wrote them last.
#[repr(C)]
pub(super) struct WriterState<S> {
    live: usize,
    tombstones: usize,
    /// The next table, while it is filled.
    resize: Option<Box<Resize>>,
    slab: SlabWriter,
    free: FreeIndices,
    state: S,
}

impl<S> WriterState<S> {
    pub fn new(state: S) -> Self {
        WriterState {
            live: 0,
            tombstones: 0,
            resize: None,
            slab: SlabWriter::default(),
            free: FreeIndices::new(),
            state,
        }
    }
}

/// The lock of a map, held until this is dropped.
pub(crate) struct HeldLock<'a, K, V, S> {
    map: &'a Map<K, V, S>,
    writer: Locked<'a, WriterState<S>>,
}

impl<'a, K, V, S> HeldLock<'a, K, V, S> {
    #[inline]
    pub(super) fn new(map: &'a Map<K, V, S>, writer: Locked<'a, WriterState<S>>) -> Self {
        HeldLock { map, writer }
    }

    /// Lends the map for changes, and a guard that costs no pin. Neither outlives the lock.
    #[inline(always)]
    pub fn parts(&mut self) -> (LockedMap<'_, K, V, S>, Guard<'_>) {
        let HeldLock { map, writer } = self;
        // SAFETY: `by-holder`; the guard borrows this value, which holds the lock.
        let guard = unsafe { Guard::of_lock(*map) };
        (LockedMap { map, writer }, guard)
    }
}

/// A map whose lock is held, for its only writer.
pub(crate) struct LockedMap<'h, K, V, S> {
    map: &'h Map<K, V, S>,
    writer: &'h mut WriterState<S>,
}

/// Gives an entry whose value was written its times, and returns the sooner of its deadlines.
///
/// `lifetime` comes with the instant at which it begins; `None` has no end. The memory of the deadlines was reserved.
#[inline]
fn reset_deadlines(deadlines: Option<DeadlineRef<'_>>, lifetime: Option<(u64, Lifetime)>) -> u64 {
    let (now, lifetime) = lifetime.unwrap_or_default();
    debug_assert!(deadlines.is_some() || lifetime.is_endless(), "a deadline's memory was reserved");
    deadlines.map_or(NEVER, |deadlines| deadlines.reset(now, lifetime))
}

impl<K: Handle, V: Handle, S> LockedMap<'_, K, V, S> {
    pub fn state(&mut self) -> &mut S {
        &mut self.writer.state
    }

    pub fn len(&self) -> usize {
        self.writer.live
    }

    /// Returns the deadline of an entry; `NEVER` if it has none. It reads the entry only if any entry ever had one.
    #[inline]
    pub fn deadline(&self, index: u32, guard: &Guard) -> u64 {
        let deadlines = self.map.slab.deadlines(index, &self.writer.slab, guard);
        deadlines.map_or(NEVER, |deadlines| deadlines.deadline())
    }

    /// Whether an index, which the caller may have had for a long time, has an entry now.
    pub fn is_live(&self, index: u32, guard: &Guard) -> bool {
        self.writer.free.is_live(index, &self.map.slab, guard)
    }

    /// Whether a slot that was found before the lock was taken still has its entry.
    pub fn is_valid(&self, slot_ref: &SlotRef, guard: &Guard) -> bool {
        self.map.table.get(guard).is_some_and(|table| slot_ref.is_valid_in(table))
    }

    /// Whether a key that was absent before the lock was taken is still absent.
    ///
    /// Every key with its hash must be unequal without a user's code, or be one of those that were compared and found
    /// `unequal`.
    pub fn is_absent<Q: KeyQuery<K>>(&self, query: &Q, unequal: &[K], guard: &Guard) -> bool {
        let hash = query.hash();
        let Some(table) = self.map.table.get(guard) else { return true };
        let mut from = table.home(hash);
        while let Some((slot, content)) = table.next_match(hash, from) {
            from = slot + 1;
            let entry = self.map.entry(content.index(), guard);
            if entry.hash.load(Ordering::Relaxed) != hash {
                continue;
            }
            let is_unequal = |key: &K| match query.eq_builtin(key) {
                Some(is_equal) => !is_equal,
                None => unequal.iter().any(|held| Q::ptr_eq(held, key)),
            };
            if !entry.key.read(guard).as_ref().is_some_and(is_unequal) {
                return false;
            }
        }
        true
    }

    /// Reserves the memory of a new entry, except for its deadlines. Returns the index that the entry will have.
    pub fn reserve(&mut self, guard: &mut Guard) -> Result<u32, NoMemory> {
        let used = self.writer.live + self.writer.tombstones;
        if self.writer.resize.is_some()
            || self.map.table.get(guard).is_none_or(|table| used >= table.max_used())
        {
            self.resize(false, guard)?;
        }
        self.writer.free.reserve(&self.map.slab, &mut self.writer.slab, guard)
    }

    /// Reserves memory for the deadlines of such a lifetime.
    #[inline]
    pub fn reserve_deadlines(
        &mut self,
        entry_ref: &EntryRef<'_, K, V>,
        lifetime: Lifetime,
    ) -> Result<(), NoMemory> {
        self.map.slab.reserve_deadlines(entry_ref, lifetime, &mut self.writer.slab)
    }

    /// Inserts an entry, and returns its index, the entry, and its deadline.
    ///
    /// The caller has called [`reserve`](Self::reserve), and knows that the key is absent. `lifetime` comes with the
    /// instant at which it begins.
    pub fn insert<'g>(
        &mut self,
        hash: u64,
        key: K,
        value: V,
        lifetime: Option<(u64, Lifetime)>,
        guard: &'g Guard,
    ) -> (u32, &'g Entry<K, V>, u64) {
        let map = self.map;
        let (index, entry_ref) = self.writer.free.take_reserved(&map.slab, guard);
        let entry = entry_ref.entry;
        // Relaxed: the Release of `Table::publish` makes the whole entry visible.
        entry.hash.store(hash, Ordering::Relaxed);
        map.slab.fill(entry, key, value, &mut self.writer.slab);
        let deadline = reset_deadlines(entry_ref.deadlines(), lifetime);
        let table = map.table.get(guard).expect("a reserve leaves a table");
        let (slot, was_tombstone) = table.find_insert_slot(hash);
        table.publish(slot, hash, index);
        if let Some(resize) = &mut self.writer.resize {
            resize.insert(table, slot, hash, index);
        }
        self.writer.tombstones -= usize::from(was_tombstone);
        self.writer.live += 1;
        (index, entry, deadline)
    }

    /// Replaces the value of a live entry, then its deadlines. Returns the old value and the new deadline.
    #[inline]
    pub fn replace(
        &mut self,
        entry_ref: &EntryRef<'_, K, V>,
        value: V,
        lifetime: Option<(u64, Lifetime)>,
    ) -> (Retired<V>, u64) {
        let old = self.replace_value(entry_ref.entry, value);
        (old, reset_deadlines(entry_ref.deadlines(), lifetime))
    }

    /// Replaces the value of a live entry and keeps its deadlines.
    #[inline]
    pub fn replace_value(&mut self, entry: &Entry<K, V>, value: V) -> Retired<V> {
        let old = self.map.slab.swap_value(entry, Some(value), &mut self.writer.slab);
        old.transpose().expect("`complete`: a live entry has a value")
    }

    /// Replaces the value of a live entry, if it is still `expected`, and keeps its deadlines. Otherwise it returns the
    /// new value.
    pub fn replace_value_if_same(
        &mut self,
        entry: &Entry<K, V>,
        expected: &Borrowed<'_, Option<V>>,
        value: V,
    ) -> Result<Retired<V>, V> {
        let old = self.map.slab.replace_value_if_same(entry, expected, value, &mut self.writer.slab)?;
        Ok(old.transpose().expect("`complete`: a live entry has a value"))
    }

    /// Starts new deadlines of a live entry, for which memory is reserved. Returns the sooner of them.
    pub fn restart_deadlines(&mut self, entry_ref: &EntryRef<'_, K, V>, now: u64, lifetime: Lifetime) -> u64 {
        entry_ref.deadlines().map_or(NEVER, |deadlines| deadlines.restart(now, lifetime))
    }

    /// Takes the value of a live entry that is to be [removed](Self::remove), if the value is still `expected`.
    pub fn take_value_if_same(
        &mut self,
        index: u32,
        expected: &Borrowed<'_, Option<V>>,
        guard: &Guard,
    ) -> Option<Retired<V>> {
        let entry = self.map.entry(index, guard);
        self.map.slab.take_value_if_same(entry, expected, &mut self.writer.slab)?.transpose()
    }

    /// Removes a live entry. The table keeps its size until a [`shrink`](Self::shrink).
    ///
    /// `taken` is the value, if the caller has taken it before.
    #[inline]
    pub fn remove(
        &mut self,
        index: u32,
        taken: Option<Retired<V>>,
        guard: &Guard,
    ) -> Retired<(Option<K>, V)> {
        let map = self.map;
        let entry = map.entry(index, guard);
        let table = map.table.get(guard).expect("a live entry has a table");
        let hash = entry.hash.load(Ordering::Relaxed);
        let slot = table.find_slot(hash, index);
        if HAS_GIL && self.writer.resize.is_none() {
            table.remove_shifting(slot);
        } else {
            let change = table.remove(slot);
            if let Some(resize) = &mut self.writer.resize {
                resize.remove(table, slot, hash, index);
            }
            self.writer.tombstones = self.writer.tombstones.wrapping_add_signed(change);
        }
        self.writer.live -= 1;
        let key = map.slab.take_key(entry, &mut self.writer.slab);
        let value = taken.or_else(|| map.slab.swap_value(entry, None, &mut self.writer.slab).transpose());
        self.writer.free.free(index, &map.slab, guard);
        key.zip(value.expect("`complete`: a live entry has a value"))
    }

    /// Makes a sparse table smaller. If the table is large, this is one step of it.
    #[inline]
    pub fn shrink(&mut self, guard: &mut Guard) {
        let live = self.writer.live;
        if self.writer.resize.is_some()
            || self.map.table.get(guard).is_some_and(|table| table.is_sparse(live))
        {
            // Without memory the table keeps its size.
            let _ = self.resize(false, guard);
        }
    }

    /// Begins a resize, or does the next step of it; with `all`, all steps.
    #[cold]
    fn resize(&mut self, all: bool, guard: &mut Guard) -> Result<(), NoMemory> {
        let WriterState { live, tombstones, resize, .. } = &mut *self.writer;
        let Some(table) = self.map.table.get(guard) else {
            let first = Table::new(Table::slots_for(*live), 0)?;
            // SAFETY: `by-holder`; this value has the lock.
            unsafe { self.map.table.replace(Some(first), guard) };
            return Ok(());
        };
        let mut next = match resize.take().filter(|next| next.can_hold(*live)) {
            Some(next) => next,
            None => Box::new(Resize::begin(table, *live)?),
        };
        // A resize ends long before the table is so full, unless it was begun more than once.
        let is_late = *live + *tombstones >= table.len() / 8 * 7;
        if next.step(table, all || is_late) {
            let (table, remaining_tombstones) = next.finish();
            *tombstones = remaining_tombstones;
            // SAFETY: `by-holder`; this value has the lock.
            unsafe { self.map.table.replace(Some(table), guard) };
        } else {
            *resize = Some(next);
        }
        Ok(())
    }

    /// Prepares a [`trim`](Self::trim): the caller lets a grace period pass in between.
    pub fn prepare_trim(&mut self) {
        self.writer.free.quarantine_pending();
    }

    /// Frees unused memory. Returns an index from which on none is in use.
    pub fn trim(&mut self, guard: &mut Guard) -> u32 {
        if self.writer.resize.is_some() {
            // Without memory, the resize goes on with the next write.
            let _ = self.resize(true, guard);
        }
        let live = self.writer.live;
        self.writer.free.trim(live, &self.map.slab, &mut self.writer.slab, guard)
    }

    /// Returns an index above those of all live entries.
    pub fn end_index(&self) -> u32 {
        self.writer.free.end_index()
    }

    /// Returns the next live index from `from` on.
    pub fn next_live(&self, from: u32, guard: &Guard) -> Option<u32> {
        self.writer.free.next_live(from, &self.map.slab, guard)
    }

    /// Checks the invariants. For tests: it reads everything.
    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self, guard: &Guard) {
        let pin = guard.pinned();
        let mut live = 0;
        let mut from = 0;
        while let Some(index) = self.next_live(from, guard) {
            let entry = self.map.entry(index, guard);
            let table = self.map.table.get(guard).expect("a live entry has a table");
            let slot = table.find_slot(entry.hash.load(Ordering::Relaxed), index);
            assert!(slot < table.len(), "`one-slot`");
            assert!(entry.value(&pin).is_some(), "`complete`");
            live += 1;
            from = index + 1;
        }
        let used = self.map.table.get(guard).map_or(0, |table| table.indices().count());
        assert_eq!((live, used), (self.writer.live, self.writer.live), "`one-slot`");
        let tombstones = self.map.table.get(guard).map_or(0, Table::tombstones);
        assert_eq!(tombstones, self.writer.tombstones, "the tombstones are counted");
        if let (Some(resize), Some(table)) = (&self.writer.resize, self.map.table.get(guard)) {
            resize.validate(table);
        }
    }
}
