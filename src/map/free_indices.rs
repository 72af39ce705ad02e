//! Which indices of a slab are free, and when a freed one can be used again.
//!
//! # How it works
//! Free indices form lists ([`FreeList`]) whose links are in the hashes of their empty entries. Indices come from the
//! lowest chunk that has one, so that high chunks become unused and can be freed.
//!
//! A freed index is quarantined until no reader can hold it. A reader that got it from a slot must not find another key
//! there. Freed indices collect in `pending`. A whole batch of them enters quarantine, as one item of a
//! [`RetireList`]. The first batch that leaves quarantine becomes `ready` and is used next, as it is. So a cache whose
//! entries come and go touches no state of any chunk.
//!
//! # Invariants
//! - `one-state`: an index is live, pending, quarantined, ready, free in its chunk, or was never used. A live one has a
//!   key.
//! - `in-use`: `ChunkState::in_use` counts the indices that are live, pending, quarantined or ready.
//!
//! # Why batches
//! A pending index keeps nothing alive, and a grace period for each index would cost more than the memory of a batch.

use crate::collections::try_reserve::NoMemory;
use crate::reclaim::Handle;
use crate::reclaim::{Guard, RetireList, Retired};
use crate::sync::{HAS_GIL, Ordering, sized};

use super::slab::{CHUNKS, EntryRef, Slab, SlabWriter, chunk_len, chunk_of, chunk_start};

/// How many indices enter quarantine at a time.
const QUARANTINE_BATCH: u32 = if HAS_GIL { 1 } else { sized(128, 1) };

/// The free indices of a slab. The hottest fields come first.
#[repr(C)]
pub(super) struct FreeIndices {
    /// Freed indices that enter quarantine with the next ones.
    pending: FreeList,
    available: Available,
    quarantined: RetireList<FreeList, 1>,
}

/// The indices that can be handed out.
#[repr(C)]
struct Available {
    /// A bit for each chunk that has an index to hand out.
    chunks_with_room: u32,
    /// Indices that left quarantine. They are handed out first, and their chunks still count them as in use.
    ready: FreeList,
    chunks: [ChunkState; CHUNKS],
}

/// Indices that are linked through the hashes of their empty entries. The last one in is the first one out.
#[derive(Clone, Copy)]
struct FreeList {
    len: u32,
    /// Meaningful if `len` is not 0.
    head: u32,
}

#[derive(Clone, Copy)]
struct ChunkState {
    /// Indices that can be used again.
    free: FreeList,
    /// How many indices of the chunk were ever used: those below this offset.
    ever_used: u32,
    /// See `in-use`.
    in_use: u32,
    is_allocated: bool,
}

impl ChunkState {
    const UNALLOCATED: ChunkState =
        ChunkState { free: FreeList::EMPTY, ever_used: 0, in_use: 0, is_allocated: false };
}

impl FreeList {
    const EMPTY: FreeList = FreeList { len: 0, head: 0 };

    #[inline]
    fn push<K: Handle, V: Handle>(&mut self, index: u32, slab: &Slab<K, V>, guard: &Guard) {
        // Relaxed: only the holder of the lock follows links. A reader that still sees this hash finds no key.
        slab.entry(index, guard).hash.store(self.head.into(), Ordering::Relaxed);
        *self = FreeList { len: self.len + 1, head: index };
    }

    /// Takes the first index of a list that has one.
    #[inline]
    fn pop<'g, K: Handle, V: Handle>(
        &mut self,
        slab: &Slab<K, V>,
        guard: &'g Guard,
    ) -> (u32, EntryRef<'g, K, V>) {
        let index = self.head;
        let entry_ref = slab.entry_ref(index, guard);
        // Relaxed: see `push`.
        *self = FreeList { len: self.len - 1, head: entry_ref.entry.hash.load(Ordering::Relaxed) as u32 };
        (index, entry_ref)
    }
}

impl FreeIndices {
    pub fn new() -> Self {
        let available = Available {
            chunks_with_room: 0,
            ready: FreeList::EMPTY,
            chunks: [ChunkState::UNALLOCATED; CHUNKS],
        };
        FreeIndices { pending: FreeList::EMPTY, available, quarantined: RetireList::default() }
    }

    /// Reserves the next index and the memory of its entry, and returns that index.
    ///
    /// Panics if four billion indices are in use, which is 128 GiB of entries.
    #[inline]
    pub fn reserve<K: Handle, V: Handle>(
        &mut self,
        slab: &Slab<K, V>,
        writer: &mut SlabWriter,
        guard: &mut Guard,
    ) -> Result<u32, NoMemory> {
        if self.available.ready.len == 0 {
            self.end_quarantines(slab, guard);
        }
        let available = &mut self.available;
        if available.ready.len > 0 {
            return Ok(available.ready.head);
        }
        if available.chunks_with_room == 0 {
            let next = available.chunks.iter().position(|state| !state.is_allocated);
            let chunk = next.expect("there are chunks for every index");
            slab.allocate_chunk(chunk, writer, guard)?;
            available.chunks[chunk].is_allocated = true;
            available.chunks_with_room |= 1 << chunk;
        }
        let chunk = available.chunks_with_room.trailing_zeros() as usize;
        let state = &available.chunks[chunk];
        Ok(if state.free.len == 0 { chunk_start(chunk) + state.ever_used } else { state.free.head })
    }

    /// Takes the reserved index, and returns it with its entry, which is empty.
    #[inline]
    pub fn take_reserved<'g, K: Handle, V: Handle>(
        &mut self,
        slab: &Slab<K, V>,
        guard: &'g Guard,
    ) -> (u32, EntryRef<'g, K, V>) {
        let available = &mut self.available;
        if available.ready.len > 0 {
            return available.ready.pop(slab, guard);
        }
        let chunk = available.chunks_with_room.trailing_zeros() as usize;
        let state = &mut available.chunks[chunk];
        let taken = if state.free.len == 0 {
            let index = chunk_start(chunk) + state.ever_used;
            state.ever_used += 1;
            (index, slab.entry_ref(index, guard))
        } else {
            state.free.pop(slab, guard)
        };
        state.in_use += 1;
        if state.free.len == 0 && state.ever_used == chunk_len(chunk) {
            available.chunks_with_room &= !(1 << chunk);
        }
        taken
    }

    /// Frees an index whose entry is empty. It is quarantined first.
    #[inline]
    pub fn free<K: Handle, V: Handle>(&mut self, index: u32, slab: &Slab<K, V>, guard: &Guard) {
        self.pending.push(index, slab, guard);
        if self.pending.len == QUARANTINE_BATCH {
            let batch = std::mem::replace(&mut self.pending, FreeList::EMPTY);
            let available = &mut self.available;
            // It also ends quarantines, so few batches wait however many indices are freed in a row.
            self.quarantined
                .put_and_take_ready(Retired::of(batch), |batch| available.add(batch, slab, guard));
        }
    }

    /// Quarantines the pending indices, so that each of them can be used again even if no more are freed.
    pub fn quarantine_pending(&mut self) {
        if self.pending.len > 0 {
            self.quarantined.put(Retired::of(std::mem::replace(&mut self.pending, FreeList::EMPTY)));
        }
    }

    /// Makes those batches available whose grace period is over.
    fn end_quarantines<K: Handle, V: Handle>(&mut self, slab: &Slab<K, V>, guard: &Guard) {
        let FreeIndices { available, quarantined, .. } = self;
        quarantined.take_ready(|batch| available.add(batch, slab, guard));
    }

    /// Frees unused chunks, if the lower ones have room enough for `live` entries.
    ///
    /// Returns an index from which on none is in use.
    pub fn trim<K: Handle, V: Handle>(
        &mut self,
        live: usize,
        slab: &Slab<K, V>,
        writer: &mut SlabWriter,
        guard: &mut Guard,
    ) -> u32 {
        self.end_quarantines(slab, guard);
        let available = &mut self.available;
        let ready = std::mem::replace(&mut available.ready, FreeList::EMPTY);
        available.return_to_chunks(ready, slab, guard);
        let mut end = 0;
        for chunk in 0..CHUNKS {
            let state = &mut available.chunks[chunk];
            if !state.is_allocated {
                continue;
            }
            if state.in_use == 0 && chunk_start(chunk) as usize >= 2 * live && chunk > 0 {
                *state = ChunkState::UNALLOCATED;
                available.chunks_with_room &= !(1 << chunk);
                slab.free_chunk(chunk, writer, guard);
            } else {
                end = chunk_start(chunk).saturating_add(chunk_len(chunk));
            }
        }
        end
    }

    /// Returns an index above all that are in use.
    pub fn end_index(&self) -> u32 {
        let chunks = &self.available.chunks;
        let is_in_use = |&chunk: &usize| chunks[chunk].in_use > 0;
        (0..CHUNKS).rev().find(is_in_use).map_or(0, |chunk| chunk_start(chunk) + chunks[chunk].ever_used)
    }

    /// Whether an index has an entry.
    pub fn is_live<K: Handle, V: Handle>(&self, index: u32, slab: &Slab<K, V>, guard: &Guard) -> bool {
        let state = &self.available.chunks[chunk_of(index)];
        let is_known = state.in_use > 0 && index - chunk_start(chunk_of(index)) < state.ever_used;
        is_known && slab.entry(index, guard).key.read(guard).is_some()
    }

    /// Returns the next live index from `from` on.
    pub fn next_live<K: Handle, V: Handle>(
        &self,
        mut from: u32,
        slab: &Slab<K, V>,
        guard: &Guard,
    ) -> Option<u32> {
        for chunk in chunk_of(from)..CHUNKS {
            let state = &self.available.chunks[chunk];
            if state.in_use == 0 {
                continue;
            }
            let end = chunk_start(chunk) + state.ever_used;
            for index in from.max(chunk_start(chunk))..end {
                if slab.entry(index, guard).key.read(guard).is_some() {
                    return Some(index);
                }
            }
            from = end;
        }
        None
    }
}

impl Available {
    /// Adds a batch that left quarantine.
    #[inline]
    fn add<K: Handle, V: Handle>(&mut self, batch: FreeList, slab: &Slab<K, V>, guard: &Guard) {
        if self.ready.len == 0 {
            self.ready = batch;
        } else {
            self.return_to_chunks(batch, slab, guard);
        }
    }

    fn return_to_chunks<K: Handle, V: Handle>(
        &mut self,
        mut batch: FreeList,
        slab: &Slab<K, V>,
        guard: &Guard,
    ) {
        while batch.len > 0 {
            let (index, _) = batch.pop(slab, guard);
            let chunk = chunk_of(index);
            let state = &mut self.chunks[chunk];
            state.free.push(index, slab, guard);
            state.in_use -= 1;
            self.chunks_with_room |= 1 << chunk;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::reclaim::{StripedRetireLists, pin};
    use crate::sync::sized_for_miri;

    /// A slab with its free indices, as a map has them.
    struct Indices {
        slab: Slab<Arc<u64>, Arc<u64>>,
        writer: SlabWriter,
        free: FreeIndices,
    }

    impl Indices {
        fn new() -> Self {
            Indices {
                slab: Slab::new(crate::Lifetime::default(), 0),
                writer: SlabWriter::default(),
                free: FreeIndices::new(),
            }
        }

        fn take_one(&mut self) -> u32 {
            let reserved = self.free.reserve(&self.slab, &mut self.writer, &mut pin().into_guard());
            let (taken, _) = self.free.take_reserved(&self.slab, &pin());
            assert_eq!(reserved.expect("there is memory"), taken);
            taken
        }

        fn take(&mut self, count: usize) -> Vec<u32> {
            (0..count).map(|_| self.take_one()).collect()
        }

        fn free(&mut self, indices: impl IntoIterator<Item = u32>) {
            indices.into_iter().for_each(|index| self.free.free(index, &self.slab, &pin()));
        }

        /// Ends all quarantines, so that `live` indices are in use. Other tests may delay that.
        fn end_quarantines(&mut self, live: u32) {
            let in_use = |free: &FreeIndices| {
                free.available.chunks.iter().map(|state| state.in_use).sum::<u32>() - free.available.ready.len
            };
            while in_use(&self.free) > live {
                self.free.quarantine_pending();
                StripedRetireLists::<u32>::new().flush();
                self.free.end_quarantines(&self.slab, &pin());
            }
        }

        fn trim(&mut self, live: usize) -> u32 {
            self.free.trim(live, &self.slab, &mut self.writer, &mut pin().into_guard())
        }
    }

    #[test]
    fn indices_come_in_order_and_none_twice() {
        const COUNT: u32 = sized_for_miri(1_000, 60);
        let mut indices = Indices::new();
        assert_eq!(indices.take(COUNT as usize), (0..COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn freed_indices_come_again_after_a_first_batch_the_lowest_chunk_first() {
        let mut indices = Indices::new();
        indices.take(100);
        indices.free([90]);
        indices.end_quarantines(99);
        indices.free([3, 5, 20, 70, 71]);
        indices.end_quarantines(94);
        let again = indices.take(7);
        assert_eq!(again[0], 90);
        assert_eq!(again[1..3].iter().collect::<BTreeSet<_>>(), BTreeSet::from([&3, &5]));
        assert_eq!(again[3], 20);
        assert_eq!(again[4..6].iter().collect::<BTreeSet<_>>(), BTreeSet::from([&70, &71]));
        assert_eq!(again[6], 100);
    }

    #[test]
    #[cfg(not(moka_gil))]
    fn an_index_is_quarantined_while_a_reader_may_hold_it() {
        const COUNT: u32 = 3 * QUARANTINE_BATCH + 1;
        let mut indices = Indices::new();
        indices.take(COUNT as usize);
        let reader = pin();
        indices.free(0..COUNT);
        for _ in 0..sized_for_miri(100, 3) {
            StripedRetireLists::<u32>::new().flush();
            indices.free.end_quarantines(&indices.slab, &reader);
        }
        assert_eq!(indices.take_one(), COUNT);
        drop(reader);
        indices.end_quarantines(1);
        assert!(indices.take_one() < COUNT);
    }

    #[test]
    fn a_trim_frees_unused_chunks() {
        const COUNT: u32 = sized_for_miri(1_000, 60);
        let mut indices = Indices::new();
        indices.take(COUNT as usize);
        indices.free(10..COUNT);
        indices.end_quarantines(10);
        assert_eq!(indices.trim(10), 48);
        assert!(indices.slab.has_chunk(1));
        assert!(!indices.slab.has_chunk(2));
        let again: BTreeSet<u32> = indices.take(COUNT as usize - 10).into_iter().collect();
        assert_eq!(again, (10..COUNT).collect());
    }

    #[test]
    fn a_chunk_with_an_index_in_use_stays() {
        const COUNT: u32 = sized_for_miri(500, 50);
        const USED: u32 = sized_for_miri(300, 20);
        const END_OF_CHUNK: u32 = sized_for_miri(496, 48);
        let mut indices = Indices::new();
        indices.take(COUNT as usize);
        indices.free((0..COUNT).filter(|&index| index != USED));
        indices.end_quarantines(1);
        assert_eq!(indices.trim(1), END_OF_CHUNK);
        let Indices { slab, writer, free } = &mut indices;
        let guard = pin();
        assert_eq!(free.next_live(0, slab, &guard), None, "it has no key yet");
        slab.fill(slab.entry(USED, &guard), Arc::new(1), Arc::new(1), writer);
        assert_eq!(free.next_live(0, slab, &guard), Some(USED));
        assert_eq!(free.next_live(USED, slab, &guard), Some(USED));
        assert_eq!(free.next_live(USED + 1, slab, &guard), None);
    }
}
