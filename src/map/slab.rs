//! The memory of one shard's entries: chunks of growing size, and the entry of an index.
//!
//! # How it works
//! Chunk 0 holds 16 entries, and each further chunk twice as many as the one before it. So 28 chunks hold an entry for
//! each index, and an entry never moves. The top bit of `index + 16` names the chunk, and the bits below it the offset
//! there. New memory is zeroed, which is an empty entry, and the system provides a page only when an entry uses it.
//! `free_indices` hands out the indices.
//!
//! # Invariants
//! - `empty`: an entry that is handed out has no key and no value.
//! - `allocated`: the caller has the index of an entry from a slot, a list or a queue, or has just allocated it. So the
//!   index is in use or quarantined, and its chunk is allocated and stays the same.
//! - `first-entries`: the address of a chunk's first entry is stored beside the chunk. A look-up of an entry does not
//!   read the chunk.
//! - `one-writer`: only the owner of the [`SlabWriter`], which the shard lock guards, changes what an entry holds. The
//!   exception is [`EntryRef::replace_value`], which replaces one value by another without the lock.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `Slab::first_entries` | Release, by the holder of the lock | Acquire | the memory is initialized before its address is seen |
//!
//! # Why not a `Vec` of entries
//! A `Vec` moves its entries when it grows, and readers hold references to them.

#![allow(unsafe_code)]

use std::ptr;

use crate::collections::try_reserve::NoMemory;
use crate::expiry::deadlines::{DeadlineRef, DeadlineTable};
use crate::expiry::{Lifetime, NEVER};
use crate::map::entry::Entry;
use crate::reclaim::Handle;
use crate::reclaim::{AtomicBox, Borrowed, Guard, Pin, Retired};
use crate::sync::{self, AtomicPtr, OnceLock, Ordering, Zeroed, sized};

use super::table::MAX_ENTRIES;

const FIRST_CHUNK_BITS: u32 = sized(4, 1);
/// Fewer under Miri, to which each method of a slab costs a step for each chunk.
const INDEX_BITS: u32 = sized(if cfg!(miri) { 14 } else { 32 }, 4);
pub(super) const CHUNKS: usize = (INDEX_BITS - FIRST_CHUNK_BITS) as usize;

const _: () =
    assert!((1 << INDEX_BITS) - (1 << FIRST_CHUNK_BITS) <= MAX_ENTRIES as u64, "a slot can name every index");

pub(crate) struct Chunk<K, V> {
    entries: Zeroed<Entry<K, V>>,
    /// Allocated when the first entry of the chunk has a deadline; in a cache with `refresh`, when it has its first entry.
    deadlines: OnceLock<DeadlineTable>,
}

/// The part of a slab that readers see: the chunks, and the first entry of each.
pub(super) struct Slab<K, V> {
    first_entries: [AtomicPtr<Entry<K, V>>; CHUNKS],
    chunks: [AtomicBox<Chunk<K, V>>; CHUNKS],
    /// The cache's own durations.
    of_cache: Lifetime,
    /// How long after its write a value is to be computed anew; 0 if it is not.
    refresh: u64,
}

/// The part of a slab that only the holder of the lock sees. It proves that its owner holds the lock.
#[derive(Default)]
pub(super) struct SlabWriter {
    /// Whether any entry ever had a deadline.
    has_deadlines: bool,
}

/// A reference to an entry and to its chunk.
pub(crate) struct EntryRef<'g, K, V> {
    pub entry: &'g Entry<K, V>,
    chunk: &'g Chunk<K, V>,
    offset: usize,
}

impl<K, V> Clone for EntryRef<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for EntryRef<'_, K, V> {}

impl<'g, K, V> EntryRef<'g, K, V> {
    /// Returns the deadlines of the entry, if any entry of its chunk ever had one or the cache has `refresh`.
    #[inline(always)]
    pub fn deadlines(&self) -> Option<DeadlineRef<'g>> {
        self.chunk.deadlines.get().map(|deadlines| deadlines.at(self.offset))
    }

    /// Returns the deadline of the entry; `NEVER` if it has none.
    #[inline]
    pub fn deadline(&self) -> u64 {
        self.deadlines().map_or(NEVER, |deadlines| deadlines.deadline())
    }

    /// Replaces the value without the lock.
    ///
    /// Returns the new value if the entry has none, or if another value came between the read and the exchange.
    #[inline(always)]
    pub fn replace_value(&self, value: V, pin: &Pin<'_>) -> Result<Retired<V>, V> {
        let current = self.entry.value(pin);
        if current.is_none() {
            return Err(value);
        }
        match self.entry.value.exchange(&current, Some(value)) {
            Ok(old) => Ok(old.transpose().expect("the exchange returns the current value")),
            Err(value) => Err(value.expect("the exchange returns the new value")),
        }
    }
}

/// Returns the chunk of an index, and the offset of its entry there.
#[inline(always)]
fn locate(index: u32) -> (usize, usize) {
    let shifted = index as usize + (1 << FIRST_CHUNK_BITS);
    let top = shifted.ilog2();
    ((top - FIRST_CHUNK_BITS) as usize, shifted ^ 1 << top)
}

pub(super) fn chunk_of(index: u32) -> usize {
    locate(index).0
}

/// Returns the first index of a chunk, which is also the number of indices before it.
pub(super) fn chunk_start(chunk: usize) -> u32 {
    chunk_len(chunk) - (1 << FIRST_CHUNK_BITS)
}

pub(super) fn chunk_len(chunk: usize) -> u32 {
    1 << (FIRST_CHUNK_BITS + chunk as u32)
}

impl<K: Handle, V: Handle> Slab<K, V> {
    /// Creates an empty slab. `of_cache` and `refresh` are the cache's own durations.
    pub fn new(of_cache: Lifetime, refresh: u64) -> Self {
        Slab {
            first_entries: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            chunks: std::array::from_fn(|_| AtomicBox::empty()),
            of_cache,
            refresh,
        }
    }

    /// Returns the entry of an index, with its chunk.
    #[inline(always)]
    pub fn entry_ref<'g>(&self, index: u32, guard: &'g Guard) -> EntryRef<'g, K, V> {
        let entry = self.entry(index, guard);
        let (chunk, offset) = locate(index);
        // SAFETY: `locate` returns a chunk below `CHUNKS`.
        let chunk = unsafe { self.chunks.get_unchecked(chunk) };
        // SAFETY: `allocated`, so the chunk is not null.
        let chunk = unsafe { chunk.get(guard).unwrap_unchecked() };
        EntryRef { entry, chunk, offset }
    }

    #[inline(always)]
    pub fn entry<'g>(&self, index: u32, guard: &'g Guard) -> &'g Entry<K, V> {
        let (chunk, offset) = locate(index);
        debug_assert!(
            self.chunks[chunk].get(guard).is_some_and(|chunk| offset < chunk.entries.len()),
            "`allocated`"
        );
        // SAFETY: `locate` returns a chunk below `CHUNKS`.
        let first = unsafe { self.first_entries.get_unchecked(chunk) };
        // Acquire: pairs with the Release in `allocate_chunk`; the memory is initialized before its address is seen.
        let first = first.load(Ordering::Acquire);
        // SAFETY: `allocated` and `first-entries`; the offset is below the length of the chunk.
        let entry = unsafe { first.add(offset) };
        // SAFETY: `allocated`; the chunk is not freed while the index is in use or quarantined.
        unsafe { &*entry }
    }

    /// Returns the deadlines of an entry, if any entry of its chunk ever had one.
    #[inline]
    pub fn deadlines<'g>(
        &self,
        index: u32,
        writer: &SlabWriter,
        guard: &'g Guard,
    ) -> Option<DeadlineRef<'g>> {
        if writer.has_deadlines { self.entry_ref(index, guard).deadlines() } else { None }
    }

    /// Reserves memory for the deadlines of such a lifetime.
    #[inline]
    pub fn reserve_deadlines(
        &self,
        entry_ref: &EntryRef<'_, K, V>,
        lifetime: Lifetime,
        writer: &mut SlabWriter,
    ) -> Result<(), NoMemory> {
        let chunk = entry_ref.chunk;
        if chunk.deadlines.get().is_none() {
            // Only the holder of the lock sets it, so this cannot fail.
            let _ =
                chunk.deadlines.set(DeadlineTable::new(chunk.entries.len(), self.of_cache, self.refresh)?);
            writer.has_deadlines = true;
        }
        chunk.deadlines.get().map_or(Ok(()), |deadlines| deadlines.reserve(lifetime))
    }

    /// Allocates the memory of a chunk that has none.
    pub fn allocate_chunk(
        &self,
        chunk: usize,
        _writer: &mut SlabWriter,
        guard: &mut Guard,
    ) -> Result<(), NoMemory> {
        let len = chunk_len(chunk) as usize;
        // SAFETY: all zero is a valid entry, the default: atomics, and optional references.
        let entries: Zeroed<Entry<K, V>> = unsafe { sync::zeroed(len) }.ok_or(NoMemory)?;
        // Release: pairs with the Acquire in `entry`.
        self.first_entries[chunk].store(entries.as_ptr().cast_mut(), Ordering::Release);
        let new = Chunk { entries, deadlines: OnceLock::new() };
        // SAFETY: `one-writer`: the caller has the `SlabWriter`, so it holds the lock.
        unsafe { self.chunks[chunk].replace(Some(new), guard) };
        Ok(())
    }

    /// Frees the memory of a chunk whose indices are all free.
    pub fn free_chunk(&self, chunk: usize, _writer: &mut SlabWriter, guard: &mut Guard) {
        // Relaxed: no index of the chunk is in use, so no other thread reads its address.
        self.first_entries[chunk].store(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: `one-writer`: the caller has the `SlabWriter`, so it holds the lock.
        unsafe { self.chunks[chunk].replace(None, guard) };
    }

    #[cfg(test)]
    pub fn has_chunk(&self, chunk: usize) -> bool {
        self.chunks[chunk].get(&crate::reclaim::pin()).is_some()
    }

    /// Puts a key and a value into an empty entry.
    pub fn fill(&self, entry: &Entry<K, V>, key: K, value: V, _writer: &mut SlabWriter) {
        // SAFETY: `one-writer`: the caller has the `SlabWriter`, so it holds the lock.
        let old_key = unsafe { entry.key.put(Some(key)) };
        debug_assert!(old_key.is_none(), "`empty`");
        // SAFETY: `one-writer`, and no other thread replaces the value of an empty entry.
        let old_value = unsafe { entry.value.put(Some(value)) };
        debug_assert!(old_value.is_none(), "`empty`");
    }

    /// Replaces the value of an entry by another or by none.
    pub fn swap_value(
        &self,
        entry: &Entry<K, V>,
        value: Option<V>,
        _writer: &mut SlabWriter,
    ) -> Retired<Option<V>> {
        entry.value.swap(value)
    }

    /// Replaces the value of an entry, if it is still `expected`. Otherwise it returns the new value.
    pub fn replace_value_if_same(
        &self,
        entry: &Entry<K, V>,
        expected: &Borrowed<'_, Option<V>>,
        value: V,
        _writer: &mut SlabWriter,
    ) -> Result<Retired<Option<V>>, V> {
        let exchanged = entry.value.exchange(expected, Some(value));
        exchanged.map_err(|value| value.expect("the exchange returns the new value"))
    }

    /// Takes the value of an entry, if it is still `expected`.
    pub fn take_value_if_same(
        &self,
        entry: &Entry<K, V>,
        expected: &Borrowed<'_, Option<V>>,
        _writer: &mut SlabWriter,
    ) -> Option<Retired<Option<V>>> {
        entry.value.exchange(expected, None).ok()
    }

    /// Takes the key of an entry.
    pub fn take_key(&self, entry: &Entry<K, V>, _writer: &mut SlabWriter) -> Retired<Option<K>> {
        // SAFETY: `one-writer`: the caller has the `SlabWriter`, so it holds the lock.
        unsafe { entry.key.put(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_name_every_index_once() {
        let mut start = 0u64;
        for chunk in 0..CHUNKS {
            assert_eq!(u64::from(chunk_start(chunk)), start);
            let last = start + u64::from(chunk_len(chunk)) - 1;
            assert_eq!((chunk_of(start as u32), chunk_of(last as u32)), (chunk, chunk));
            start = last + 1;
        }
        assert_eq!(start, (1 << INDEX_BITS) - (1 << FIRST_CHUNK_BITS));
    }
}
