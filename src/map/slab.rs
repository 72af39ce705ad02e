//! The memory of one shard's entries: chunks of growing size, an entry found by its number.
//!
//! # How it works
//! Chunk 0 holds 16 entries, each further one twice as many as the one before it, so that 28 chunks name every number
//! and an entry never moves: the top bit of a number and 16 names the chunk, the bits below it the place. The memory
//! comes zeroed, which is an empty entry; what no entry has used is never touched. Numbers are given out from the
//! lowest chunk that has one, so that high chunks drain and can go.
//!
//! A freed number rests until no reader can still hold it from a slot: only then may another key move in. Numbers are
//! linked through their empty entries, and it is a whole [`Chain`] of them that rests, in a bin. The first that has rested
//! is given out next as it is, so that where entries come and go no chunk is looked at.
//!
//! # Invariants
//! - `zero`: an entry that is given out has no key and no value.
//! - `resting`: a number is free, on its way to the bin or in it, or live; a live one has a key.
//! - `there`: whoever asks for an entry has its number from a slot, a list or a queue, or was just given it, so it is in
//!   use or rests, and its chunk is there and the same.
//! - `start`: where the entries of a chunk begin is known beside it, so that to find one takes no look at the chunk.
//! - `one-writer`: what an entry holds is changed by who has the [`SlabWriter`], which is in the shard's lock; but a value
//!   may give way to another one without it ([`Found::replace_value`]).

#![allow(unsafe_code)]

use std::ptr;

use crate::collections::try_reserve::NoMemory;
use crate::expiry::deadlines::{DeadlineRef, DeadlineTable};
use crate::expiry::{Lifetime, NEVER};
use crate::map::entry::Entry;
use crate::reclaim::Handle;
use crate::reclaim::{AtomicBox, Borrowed, Guard, Pin, RetireList, Retired};
use crate::sync::{self, AtomicPtr, HAS_GIL, OnceLock, Ordering, Zeroed, sized};

use super::table::MOST_NUMBERS;

const FIRST_BITS: u32 = sized(4, 1);
const NUMBER_BITS: u32 = sized(32, 4);
const CHUNKS: usize = (NUMBER_BITS - FIRST_BITS) as usize;
/// Numbers whose rest begins at a time. They hold nothing alive, and a grace for each few would cost more than their memory.
const RESTING_LOT: u32 = if HAS_GIL { 1 } else { sized(128, 1) };

pub(crate) struct Chunk<K, V> {
    entries: Zeroed<Entry<K, V>>,
    lives: OnceLock<DeadlineTable>,
}

/// What readers see: the chunks, and where the entries of each begin.
pub(super) struct Slab<K, V> {
    starts: [AtomicPtr<Entry<K, V>>; CHUNKS],
    chunks: [AtomicBox<Chunk<K, V>>; CHUNKS],
}

/// An entry, found.
pub(crate) struct Found<'g, K, V> {
    pub entry: &'g Entry<K, V>,
    chunk: &'g Chunk<K, V>,
    offset: usize,
}

impl<K, V> Clone for Found<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Found<'_, K, V> {}

impl<'g, K, V> Found<'g, K, V> {
    /// When it expires, where any entry of its chunk ever could.
    #[inline(always)]
    pub fn life(&self) -> Option<DeadlineRef<'g>> {
        self.chunk.lives.get().map(|lives| lives.at(self.offset))
    }

    /// When it expires; `NEVER` if it does not.
    #[inline]
    pub fn deadline(&self) -> u64 {
        self.life().map_or(NEVER, |life| life.deadline())
    }

    /// Makes sure that it can have such a lifetime.
    #[inline]
    pub(super) fn reserve_life(&self, lifetime: Lifetime, writer: &mut SlabWriter) -> Result<(), NoMemory> {
        if self.chunk.lives.get().is_none() {
            // The lock's holder is the one who sets it.
            let _ = self.chunk.lives.set(DeadlineTable::new(self.chunk.entries.len(), writer.tti)?);
            writer.has_lives = true;
        }
        self.chunk.lives.get().map_or(Ok(()), |lives| lives.reserve(lifetime))
    }

    /// Puts another value in the place of one, without the lock. Hands it back if there is none, or another came meanwhile.
    #[inline(always)]
    pub fn replace_value(&self, value: V, pin: &Pin<'_>) -> Result<Retired<V>, V> {
        let seen = self.entry.value(pin);
        if seen.is_none() {
            return Err(value);
        }
        match self.entry.value.exchange(&seen, Some(value), pin) {
            Ok(old) => Ok(old.transpose().expect("one was seen")),
            Err(back) => Err(back.expect("one was given")),
        }
    }
}

/// What the lock's holder knows besides. What is used most comes first.
#[repr(C)]
pub(super) struct SlabWriter {
    /// Whether any entry ever had a deadline.
    has_lives: bool,
    /// Numbers given back, whose rest begins with the next ones.
    open: Chain,
    free: Free,
    resting: RetireList<Chain, 1>,
    /// The cache's time to idle, in nanoseconds; 0 if it has none.
    tti: u64,
}

/// The numbers that can be given out.
#[repr(C)]
struct Free {
    /// For each chunk: has it any?
    room: u32,
    /// Those that come first: they have rested, and no chunk knows yet.
    spare: Chain,
    chunks: [ChunkState; CHUNKS],
}

/// Numbers linked through the hashes of their empty entries, the last that was put in first.
#[derive(Clone, Copy)]
struct Chain {
    /// 0 if there is none.
    len: u32,
    head: u32,
}

const NO_CHAIN: Chain = Chain { len: 0, head: 0 };

#[derive(Clone, Copy)]
struct ChunkState {
    /// The numbers that can be given out again.
    free: Chain,
    /// How many numbers were ever given out.
    fresh: u32,
    /// How many are neither fresh nor free.
    used: u32,
    exists: bool,
}

const NO_CHUNK: ChunkState = ChunkState { free: NO_CHAIN, fresh: 0, used: 0, exists: false };

impl SlabWriter {
    /// Of a cache with this time to idle.
    pub fn new(tti: u64) -> Self {
        let free = Free { room: 0, spare: NO_CHAIN, chunks: [NO_CHUNK; CHUNKS] };
        SlabWriter { has_lives: false, open: NO_CHAIN, free, resting: RetireList::default(), tti }
    }

    /// A number above all that are in use.
    pub fn limit(&self) -> u32 {
        let chunks = &self.free.chunks;
        let used = |&chunk: &usize| chunks[chunk].used > 0;
        (0..CHUNKS).rev().find(used).map_or(0, |chunk| start_of(chunk) + chunks[chunk].fresh)
    }
}

/// The chunk of a number, and its place there.
#[inline(always)]
fn place_of(number: u32) -> (usize, usize) {
    let shifted = number as usize + (1 << FIRST_BITS);
    let top = shifted.ilog2();
    ((top - FIRST_BITS) as usize, shifted ^ 1 << top)
}

fn chunk_of(number: u32) -> usize {
    place_of(number).0
}

/// The first number of a chunk, which is also how many numbers come before it.
fn start_of(chunk: usize) -> u32 {
    size_of_chunk(chunk) - (1 << FIRST_BITS)
}

fn size_of_chunk(chunk: usize) -> u32 {
    1 << (FIRST_BITS + chunk as u32)
}

const _: () =
    assert!((1 << NUMBER_BITS) - (1 << FIRST_BITS) <= MOST_NUMBERS as u64, "a slot can name every number");

impl<K: Handle, V: Handle> Slab<K, V> {
    pub fn new() -> Self {
        Slab {
            starts: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            chunks: std::array::from_fn(|_| AtomicBox::empty()),
        }
    }

    /// An entry with what belongs to it.
    #[inline(always)]
    pub fn find<'g>(&self, number: u32, guard: &'g Guard) -> Found<'g, K, V> {
        let entry = self.entry(number, guard);
        let (chunk, offset) = place_of(number);
        // SAFETY: `there`.
        let shared = unsafe { self.chunks.get_unchecked(chunk) };
        // SAFETY: `there`.
        let chunk = unsafe { shared.get(guard).unwrap_unchecked() };
        Found { entry, chunk, offset }
    }

    #[inline(always)]
    pub fn entry<'g>(&self, number: u32, guard: &'g Guard) -> &'g Entry<K, V> {
        let (chunk, offset) = place_of(number);
        debug_assert!(
            self.chunks[chunk].get(guard).is_some_and(|chunk| offset < chunk.entries.len()),
            "`there`"
        );
        // SAFETY: `there`.
        let start = unsafe { self.starts.get_unchecked(chunk) };
        // Acquire: pairs with the Release in `reserve_number`; the memory is there before its place is seen.
        let start = start.load(Ordering::Acquire);
        // SAFETY: `there`, and `start`: the place is one of the chunk's.
        let entry = unsafe { start.add(offset) };
        // SAFETY: likewise; the chunk stays while the number is in use.
        unsafe { &*entry }
    }

    /// When the entry expires, where any entry of its chunk ever could.
    #[inline]
    pub fn life<'g>(&self, number: u32, writer: &SlabWriter, guard: &'g Guard) -> Option<DeadlineRef<'g>> {
        if writer.has_lives { self.find(number, guard).life() } else { None }
    }

    /// Makes sure that there is a number to take, and tells which one that will be. Panics when four billion are in use:
    /// 128 GiB of entries.
    #[inline]
    pub fn reserve_number(&self, writer: &mut SlabWriter, guard: &mut Guard) -> Result<u32, NoMemory> {
        if writer.free.spare.len == 0 {
            self.end_rests(writer, guard);
        }
        let free = &mut writer.free;
        if free.spare.len > 0 {
            return Ok(free.spare.head);
        }
        if free.room == 0 {
            let next = free.chunks.iter().position(|state| !state.exists);
            let chunk = next.expect("there are chunks for every number");
            let chunk_len = size_of_chunk(chunk) as usize;
            // SAFETY: `zero`; atomics and optional references, of which all zero is a valid one, the default.
            let entries: Zeroed<Entry<K, V>> = unsafe { sync::zeroed(chunk_len) }.ok_or(NoMemory)?;
            // Release: pairs with the Acquire in `entry`.
            self.starts[chunk].store(entries.as_ptr().cast_mut(), Ordering::Release);
            let made = Chunk { entries, lives: OnceLock::new() };
            // SAFETY: `one-writer`.
            unsafe { self.chunks[chunk].replace(Some(made), guard) };
            free.chunks[chunk].exists = true;
            free.room |= 1 << chunk;
        }
        let chunk = free.room.trailing_zeros() as usize;
        let state = &free.chunks[chunk];
        Ok(if state.free.len == 0 { start_of(chunk) + state.fresh } else { state.free.head })
    }

    /// Asks ahead for the entry of the number to be given out next, if it has rested just now.
    #[inline]
    pub fn prefetch_number(&self, writer: &SlabWriter, guard: &Guard) {
        if writer.free.spare.len > 0 {
            sync::prefetch_write(self.entry(writer.free.spare.head, guard));
        }
    }

    /// The number that was reserved, and its entry, which is empty.
    #[inline]
    pub fn take_number<'g>(&self, writer: &mut SlabWriter, guard: &'g Guard) -> (u32, Found<'g, K, V>) {
        let free = &mut writer.free;
        if free.spare.len > 0 {
            return self.pop(&mut free.spare, guard);
        }
        let chunk = free.room.trailing_zeros() as usize;
        let state = &mut free.chunks[chunk];
        let taken = if state.free.len == 0 {
            let number = start_of(chunk) + state.fresh;
            state.fresh += 1;
            (number, self.find(number, guard))
        } else {
            self.pop(&mut state.free, guard)
        };
        state.used += 1;
        if state.free.len == 0 && state.fresh == size_of_chunk(chunk) {
            free.room &= !(1 << chunk);
        }
        taken
    }

    /// Puts a number into a chain, through its entry, which is empty.
    #[inline]
    fn push(&self, chain: &mut Chain, number: u32, guard: &Guard) {
        // Relaxed: a link is for the lock's holder, and a reader who still comes by finds no key.
        self.entry(number, guard).hash.store(chain.head.into(), Ordering::Relaxed);
        *chain = Chain { len: chain.len + 1, head: number };
    }

    /// Takes the first number out of a chain that has one.
    #[inline]
    fn pop<'g>(&self, chain: &mut Chain, guard: &'g Guard) -> (u32, Found<'g, K, V>) {
        let number = chain.head;
        let found = self.find(number, guard);
        *chain = Chain { len: chain.len - 1, head: found.entry.hash.load(Ordering::Relaxed) as u32 };
        (number, found)
    }

    /// Puts a key and a value into an empty entry.
    pub fn fill(&self, entry: &Entry<K, V>, key: K, value: V, _writer: &mut SlabWriter) {
        // SAFETY: `one-writer`.
        let nothing = unsafe { entry.key.put(Some(key)) };
        debug_assert!(nothing.is_none(), "`zero`");
        // SAFETY: `one-writer`.
        let nothing = unsafe { entry.value.put(Some(value)) };
        debug_assert!(nothing.is_none(), "`zero`");
    }

    /// Puts another value, or none, into an entry.
    pub fn put_value(
        &self,
        entry: &Entry<K, V>,
        value: Option<V>,
        _writer: &mut SlabWriter,
    ) -> Retired<Option<V>> {
        entry.value.swap(value)
    }

    /// Takes the value out of an entry, if it is still the one that was `seen`.
    pub fn take_seen(
        &self,
        entry: &Entry<K, V>,
        seen: &Borrowed<'_, Option<V>>,
        _writer: &mut SlabWriter,
        guard: &Guard,
    ) -> Option<Retired<Option<V>>> {
        entry.value.exchange(seen, None, guard).ok()
    }

    /// Takes the key out of an entry.
    pub fn take_key(&self, entry: &Entry<K, V>, _writer: &mut SlabWriter) -> Retired<Option<K>> {
        // SAFETY: `one-writer`.
        unsafe { entry.key.put(None) }
    }

    /// Gives a number back. It rests first.
    #[inline]
    pub fn give_back(&self, number: u32, writer: &mut SlabWriter, guard: &Guard) {
        let SlabWriter { open, free, resting, .. } = writer;
        self.push(open, number, guard);
        if open.len == RESTING_LOT {
            let lot = std::mem::replace(open, NO_CHAIN);
            // However many are given back in a row, few wait.
            resting.pass(Retired::of(lot), |lot| self.end_rest(lot, free, guard));
        }
    }

    fn end_rests(&self, SlabWriter { free, resting, .. }: &mut SlabWriter, guard: &Guard) {
        resting.take_ready(|lot| self.end_rest(lot, free, guard));
    }

    #[inline]
    fn end_rest(&self, lot: Chain, free: &mut Free, guard: &Guard) {
        if free.spare.len == 0 {
            free.spare = lot;
        } else {
            self.give_to_chunks(lot, free, guard);
        }
    }

    fn give_to_chunks(&self, mut lot: Chain, free: &mut Free, guard: &Guard) {
        while lot.len > 0 {
            let (number, _) = self.pop(&mut lot, guard);
            let chunk = chunk_of(number);
            let state = &mut free.chunks[chunk];
            self.push(&mut state.free, number, guard);
            state.used -= 1;
            free.room |= 1 << chunk;
        }
    }

    /// Makes sure that every rest ends, however few numbers are given back from now on.
    pub fn seal_rests(writer: &mut SlabWriter) {
        if writer.open.len > 0 {
            writer.resting.put(Retired::of(std::mem::replace(&mut writer.open, NO_CHAIN)));
        }
    }

    /// Frees chunks that nobody uses, where the lower ones have room enough for `live` entries. Returns
    /// the number from which on none is in use.
    pub fn trim(&self, live: usize, writer: &mut SlabWriter, guard: &mut Guard) -> u32 {
        self.end_rests(writer, guard);
        let free = &mut writer.free;
        self.give_to_chunks(std::mem::replace(&mut free.spare, NO_CHAIN), free, guard);
        let mut limit = 0;
        for chunk in 0..CHUNKS {
            let state = &mut free.chunks[chunk];
            if !state.exists {
                continue;
            }
            if state.used == 0 && start_of(chunk) as usize >= 2 * live && chunk > 0 {
                *state = NO_CHUNK;
                free.room &= !(1 << chunk);
                self.starts[chunk].store(ptr::null_mut(), Ordering::Relaxed);
                // SAFETY: `one-writer`.
                unsafe { self.chunks[chunk].replace(None, guard) };
            } else {
                limit = start_of(chunk).saturating_add(size_of_chunk(chunk));
            }
        }
        limit
    }

    /// The next live number from `from` on.
    pub fn next_live(&self, from: u32, writer: &SlabWriter, guard: &Guard) -> Option<u32> {
        let mut from = from;
        for chunk in chunk_of(from)..CHUNKS {
            let state = &writer.free.chunks[chunk];
            if state.used == 0 {
                continue;
            }
            let end = start_of(chunk) + state.fresh;
            for number in from.max(start_of(chunk))..end {
                if self.entry(number, guard).key.read(guard).is_some() {
                    return Some(number);
                }
            }
            from = end;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::reclaim::{StripedRetireLists, pin};

    type TestSlab = Slab<Arc<u64>, Arc<u64>>;

    fn take_one(slab: &TestSlab, writer: &mut SlabWriter) -> u32 {
        let reserved = slab.reserve_number(writer, &mut pin().into_guard()).expect("there is memory");
        assert_eq!(slab.take_number(writer, &pin()).0, reserved);
        reserved
    }

    fn take(slab: &TestSlab, writer: &mut SlabWriter, many: usize) -> Vec<u32> {
        (0..many).map(|_| take_one(slab, writer)).collect()
    }

    fn give_back(slab: &TestSlab, writer: &mut SlabWriter, numbers: impl IntoIterator<Item = u32>) {
        numbers.into_iter().for_each(|number| slab.give_back(number, writer, &pin()));
    }

    /// Ends all rests: then so many numbers are live. Other tests may hold them up for a while.
    fn rest(slab: &TestSlab, writer: &mut SlabWriter, live: u32) {
        while writer.free.chunks.iter().map(|state| state.used).sum::<u32>() - writer.free.spare.len > live {
            TestSlab::seal_rests(writer);
            StripedRetireLists::<u32>::new().flush();
            slab.end_rests(writer, &pin());
        }
    }

    #[test]
    fn chunks_name_every_number_once() {
        let mut start = 0u64;
        for chunk in 0..CHUNKS {
            assert_eq!(u64::from(start_of(chunk)), start);
            let last = start + u64::from(size_of_chunk(chunk)) - 1;
            assert_eq!((chunk_of(start as u32), chunk_of(last as u32)), (chunk, chunk));
            start = last + 1;
        }
        assert_eq!(start, (1 << 32) - 16);
    }

    #[test]
    fn numbers_come_in_order_and_none_twice() {
        let (slab, mut writer) = (TestSlab::new(), SlabWriter::new(0));
        let numbers = take(&slab, &mut writer, 1_000);
        assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn numbers_that_were_given_back_come_again_after_a_first_lot_the_lowest_chunk_first() {
        let (slab, mut writer) = (TestSlab::new(), SlabWriter::new(0));
        take(&slab, &mut writer, 100);
        give_back(&slab, &mut writer, [90]);
        rest(&slab, &mut writer, 99);
        give_back(&slab, &mut writer, [3, 5, 20, 70, 71]);
        rest(&slab, &mut writer, 94);
        let again = take(&slab, &mut writer, 7);
        assert_eq!(again[0], 90);
        assert_eq!(again[1..3].iter().collect::<BTreeSet<_>>(), BTreeSet::from([&3, &5]));
        assert_eq!(again[3], 20);
        assert_eq!(again[4..6].iter().collect::<BTreeSet<_>>(), BTreeSet::from([&70, &71]));
        assert_eq!(again[6], 100);
    }

    #[test]
    #[cfg(not(moka_gil))]
    fn a_number_rests_while_a_reader_may_hold_it() {
        const MANY: u32 = 3 * RESTING_LOT + 1;
        let (slab, mut writer) = (TestSlab::new(), SlabWriter::new(0));
        take(&slab, &mut writer, MANY as usize);
        let reader = pin();
        give_back(&slab, &mut writer, 0..MANY);
        for _ in 0..100 {
            StripedRetireLists::<u32>::new().flush();
            slab.end_rests(&mut writer, &reader);
        }
        assert_eq!(take_one(&slab, &mut writer), MANY);
        drop(reader);
        rest(&slab, &mut writer, 1);
        assert!(take_one(&slab, &mut writer) < MANY);
    }

    #[test]
    fn a_trim_frees_the_chunks_that_nobody_uses() {
        let (slab, mut writer) = (TestSlab::new(), SlabWriter::new(0));
        take(&slab, &mut writer, 1_000);
        give_back(&slab, &mut writer, 10..1_000);
        rest(&slab, &mut writer, 10);
        assert_eq!(slab.trim(10, &mut writer, &mut pin().into_guard()), 48);
        assert!(slab.chunks[1].get(&pin()).is_some());
        assert!(slab.chunks[2].get(&pin()).is_none());
        let numbers: BTreeSet<u32> = take(&slab, &mut writer, 990).into_iter().collect();
        assert_eq!(numbers, (10..1_000).collect());
    }

    #[test]
    fn a_chunk_with_a_number_in_use_stays() {
        let (slab, mut writer) = (TestSlab::new(), SlabWriter::new(0));
        take(&slab, &mut writer, 500);
        give_back(&slab, &mut writer, (0..500).filter(|&number| number != 300));
        rest(&slab, &mut writer, 1);
        assert_eq!(slab.trim(1, &mut writer, &mut pin().into_guard()), 496);
        let guard = pin();
        assert_eq!(slab.next_live(0, &writer, &guard), None, "it has no key yet");
        // SAFETY: no other thread has it.
        let _ = unsafe { slab.entry(300, &guard).key.put(Some(Arc::new(1))) };
        assert_eq!(slab.next_live(0, &writer, &guard), Some(300));
        assert_eq!(slab.next_live(300, &writer, &guard), Some(300));
        assert_eq!(slab.next_live(301, &writer, &guard), None);
    }
}
