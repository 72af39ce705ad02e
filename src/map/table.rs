//! The open-addressed table of one shard: slots that readers probe without a lock.
//!
//! A slot is one word: the upper half of the hash as its tag, and the number of the entry.
//!
//! ```text
//! 63            32 31             0
//! +---------------+---------------+    0, 0      empty: a probe ends here
//! |  tag (hash)   |  number + 2   |    0, 1      tombstone: a probe goes on
//! +---------------+---------------+    t, n + 2  entry n
//! ```
//!
//! # How it works
//! Linear probing from a home slot that is the top bits of the hash, so of the tag: a larger table is
//! filled from the slots of the smaller one, without a look at any entry.
//!
//! # Invariants
//! - `in-reach`: between an entry's home and its slot no slot is empty.
//! - `fixed`: an entry never changes its slot within one table, but by [`close`](Table::close), for which there is nobody
//!   else.
//! - `open`: at least one slot is empty, so every probe ends.
//!
//! # Orderings
//! A slot is stored with Release, after the entry that it names is whole, and loaded with Acquire.
//!
//! # Why not without tombstones
//! What leaves a gap between others could be followed by those behind it, and with the GIL it is. A reader without a lock
//! would miss an entry that moves to where it has already looked.
//!
//! # Why not groups of one-byte tags
//! Tags and slots are two cache lines a look-up; this is one. With 32 bits of tag an entry of
//! another key is looked at once in millions of probes.

use crate::collections::try_reserve::NoMemory;
use crate::sync::{self, AtomicU64, Ordering, Zeroed, sized};

const EMPTY: u64 = 0;
const TOMBSTONE: u64 = 1;
const FIRST: u64 = 2;
const LEAST_BITS: u32 = sized(3, 2);
/// Below this many slots a table does not shrink.
const LEAST_TO_SHRINK: usize = sized(64, 4);

/// How many entries numbers can name.
pub(super) const MOST_NUMBERS: u32 = u32::MAX - FIRST as u32;

pub(super) struct Table {
    slots: Zeroed<AtomicU64>,
    /// The home slot is the hash shifted right by this.
    shift: u32,
    /// See [`Table::serial`].
    serial: AtomicU64,
}

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u64);

impl Slot {
    fn of(hash: u64, number: u32) -> Self {
        Slot((hash >> 32) << 32 | (u64::from(number) + FIRST))
    }

    pub fn number(self) -> u32 {
        ((self.0 & u64::from(u32::MAX)) - FIRST) as u32
    }
}

impl Table {
    pub fn new(slots: usize, serial: u64) -> Result<Self, NoMemory> {
        debug_assert!(slots.is_power_of_two() && slots >= 1 << LEAST_BITS);
        let shift = 64 - slots.trailing_zeros();
        const { assert!(EMPTY == 0) };
        let slots = sync::zeroed_atomics(slots).ok_or(NoMemory)?;
        Ok(Table { slots, shift, serial: AtomicU64::new(serial) })
    }

    /// For whoever lets go of a table in between: it is another one, or entries have moved in it, if this is another.
    #[inline]
    pub fn serial(&self) -> u64 {
        // Relaxed: where it changes there is nobody else.
        self.serial.load(Ordering::Relaxed)
    }

    /// How many slots a table for this many entries has.
    pub fn slots_for(entries: usize) -> usize {
        (entries * 5 / 2 + (1 << LEAST_BITS)).next_power_of_two()
    }

    /// How many slots may be taken, by entries and tombstones: half of them. A look-up for what is not there ends after
    /// two and a half slots then, on the mean, at most; it would after eight and a half with three quarters.
    pub fn room(&self) -> usize {
        self.slots.len() / 2
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether it is far larger than so many entries need.
    pub fn is_wide(&self, entries: usize) -> bool {
        self.slots.len() > LEAST_TO_SHRINK && entries < self.slots.len() / 8
    }

    #[inline]
    pub fn home(&self, hash: u64) -> usize {
        (hash >> self.shift) as usize
    }

    /// The next slot with the tag of the hash, from `index` on in probe order.
    #[inline(always)]
    pub fn next(&self, hash: u64, mut index: usize) -> Option<(usize, Slot)> {
        let mask = self.slots.len() - 1;
        loop {
            index &= mask;
            // Acquire: pairs with the Release in `put`; the entry is whole before its number is seen.
            let word = self.slots[index].load(Ordering::Acquire);
            if word == EMPTY {
                return None;
            }
            if (word ^ hash) >> 32 == 0 && word as u32 as u64 != TOMBSTONE {
                return Some((index, Slot(word)));
            }
            index += 1;
        }
    }

    /// Whether the slot still holds this.
    pub fn holds(&self, index: usize, slot: Slot) -> bool {
        self.slots[index].load(Ordering::Acquire) == slot.0
    }

    /// Asks ahead for where a hash begins to be looked for.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        sync::prefetch_write(&self.slots[self.home(hash)]);
    }

    /// The slot that holds a number. It is there: `in-reach`.
    pub fn find_number(&self, hash: u64, number: u32) -> usize {
        let wanted = Slot::of(hash, number);
        let mask = self.slots.len() - 1;
        let mut index = self.home(hash);
        while !self.holds(index & mask, wanted) {
            debug_assert!(self.slots[index & mask].load(Ordering::Relaxed) != EMPTY, "`in-reach`");
            index += 1;
        }
        index & mask
    }

    /// The first slot from the home on that is free, and whether it is a tombstone.
    pub fn vacancy(&self, hash: u64) -> (usize, bool) {
        let mask = self.slots.len() - 1;
        let mut index = self.home(hash);
        loop {
            // Relaxed: the lock's holder is the one writer.
            match self.slots[index & mask].load(Ordering::Relaxed) {
                EMPTY => return (index & mask, false),
                TOMBSTONE => return (index & mask, true),
                _ => index += 1,
            }
        }
    }

    pub fn put(&self, index: usize, hash: u64, number: u32) {
        // Release: pairs with the Acquire in `next`; the entry was made whole before.
        self.slots[index].store(Slot::of(hash, number).0, Ordering::Release);
    }

    /// Empties a slot. Returns how many tombstones there are more, or fewer, than before.
    ///
    /// Where the next slot is empty no probe needs to go on past this one, nor past the tombstones
    /// before it, so they can be empty as well.
    pub fn remove(&self, index: usize) -> isize {
        let mask = self.slots.len() - 1;
        if self.slots[(index + 1) & mask].load(Ordering::Relaxed) != EMPTY {
            self.slots[index].store(TOMBSTONE, Ordering::Release);
            return 1;
        }
        self.slots[index].store(EMPTY, Ordering::Release);
        let mut cleared = 0;
        let mut before = index.wrapping_sub(1) & mask;
        while self.slots[before].load(Ordering::Relaxed) == TOMBSTONE {
            self.slots[before].store(EMPTY, Ordering::Release);
            cleared += 1;
            before = before.wrapping_sub(1) & mask;
        }
        -cleared
    }

    /// Empties a slot and moves entries behind it up, so that it leaves no tombstone. For who knows that nobody looks
    /// meanwhile, and that nobody passes the slots in their order.
    pub fn close(&self, index: usize) {
        let mask = self.slots.len() - 1;
        let (mut gap, mut next) = (index, index);
        loop {
            next = (next + 1) & mask;
            let word = self.slots[next].load(Ordering::Relaxed);
            if word == EMPTY {
                break;
            }
            // The tag tells the home, and an entry may move as far as that. A tombstone does as an entry of home 0 would.
            let from_home = next.wrapping_sub(self.home(word)) & mask;
            if from_home >= next.wrapping_sub(gap) & mask {
                self.slots[gap].store(word, Ordering::Release);
                gap = next;
            }
        }
        self.slots[gap].store(EMPTY, Ordering::Release);
        if gap != index {
            self.serial.store(self.serial() + 1, Ordering::Relaxed);
        }
    }

    /// An empty slot. There is one: `open`.
    pub fn first_empty(&self) -> usize {
        // Relaxed, here and below: the lock's holder is the one writer.
        let first = self.slots.iter().position(|slot| slot.load(Ordering::Relaxed) == EMPTY);
        first.expect("a table has an empty slot")
    }

    /// The entry in a slot, whose index may run over the end: what of its hash matters here, and its number.
    pub fn at(&self, index: usize) -> Option<(u64, u32)> {
        let word = self.slots[index & (self.slots.len() - 1)].load(Ordering::Relaxed);
        (word as u32 as u64 >= FIRST).then(|| (word, Slot(word).number()))
    }

    /// The numbers in the table, in no order.
    #[cfg(any(test, debug_assertions))]
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        let words = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed));
        words.filter(|word| *word as u32 as u64 >= FIRST).map(|word| Slot(word).number())
    }

    #[cfg(any(test, debug_assertions))]
    pub fn tombstones(&self) -> usize {
        self.slots.iter().filter(|slot| slot.load(Ordering::Relaxed) == TOMBSTONE).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(table: Result<Table, NoMemory>) -> Table {
        table.expect("there is memory")
    }

    /// A hash whose home is this slot, in a table of so many.
    fn at_home(slot: usize, slots: usize, tag: u64) -> u64 {
        ((slot as u64) << (64 - slots.trailing_zeros())) | tag << 32
    }

    fn put(table: &Table, hash: u64, number: u32) -> bool {
        let (index, was_tombstone) = table.vacancy(hash);
        table.put(index, hash, number);
        was_tombstone
    }

    fn found(table: &Table, hash: u64) -> Vec<u32> {
        let mut from = table.home(hash);
        let next = || {
            let (index, slot) = table.next(hash, from)?;
            from = index + 1;
            Some(slot.number())
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn numbers_are_found_by_their_hash() {
        let table = made(Table::new(8, 0));
        for (number, hash) in [(0, 0), (7, u64::MAX), (3, 1 << 63), (MOST_NUMBERS - 1, 5 << 40)] {
            assert!(!put(&table, hash, number));
            assert_eq!(found(&table, hash), [number]);
        }
        assert_eq!(found(&table, 1 << 62), []);
    }

    #[test]
    fn a_probe_goes_on_over_the_end_of_the_table() {
        let table = made(Table::new(8, 0));
        for number in 0..4 {
            put(&table, at_home(7, 8, 1), number);
        }
        assert_eq!(found(&table, at_home(7, 8, 1)), [0, 1, 2, 3]);
        assert_eq!(table.find_number(at_home(7, 8, 1), 3), 2);
        assert_eq!(found(&table, at_home(7, 8, 2)), []);
    }

    #[test]
    fn a_place_in_the_middle_becomes_a_tombstone_and_is_used_again() {
        let table = made(Table::new(8, 0));
        let hash = at_home(2, 8, 1);
        for number in 0..3 {
            put(&table, hash, number);
        }
        assert_eq!(table.remove(table.find_number(hash, 1)), 1);
        assert_eq!(found(&table, hash), [0, 2]);
        assert!(put(&table, hash, 9));
        assert_eq!(found(&table, hash), [0, 9, 2]);
    }

    #[test]
    fn the_last_place_is_emptied_with_the_tombstones_before_it() {
        let table = made(Table::new(8, 0));
        let hash = at_home(6, 8, 1);
        for number in 0..4 {
            put(&table, hash, number);
        }
        assert_eq!(table.remove(table.find_number(hash, 1)), 1);
        assert_eq!(table.remove(table.find_number(hash, 2)), 1);
        assert_eq!(table.remove(table.find_number(hash, 3)), -2);
        assert_eq!((table.tombstones(), found(&table, hash)), (0, vec![0]));
        assert_eq!(table.remove(table.find_number(hash, 0)), 0);
    }

    #[test]
    fn a_place_that_is_closed_leaves_no_tombstone_and_none_out_of_reach() {
        let table = made(Table::new(16, 0));
        // Some at home, some pushed on by others, over the end of the table.
        let homes = [13, 13, 14, 15, 13, 1];
        let hash = |number: u32| at_home(homes[number as usize], 16, u64::from(number));
        for number in 0..homes.len() as u32 {
            put(&table, hash(number), number);
        }
        let slots = |first: u32| {
            let numbers = first..homes.len() as u32;
            numbers.map(|number| table.find_number(hash(number), number)).collect::<Vec<_>>()
        };
        assert_eq!(slots(0), [13, 14, 15, 0, 1, 2]);
        table.close(13);
        assert_eq!(slots(1), [13, 14, 15, 0, 1]);
        assert_eq!((table.serial(), found(&table, hash(0))), (1, vec![]));
        table.close(1);
        assert_eq!(table.serial(), 1, "the last of a row leaves without a move");
        assert_eq!(table.tombstones(), 0);
    }

    #[test]
    fn the_count_of_tombstones_is_kept_through_any_change() {
        let mut random = 3u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 20) % below
        };
        let table = made(Table::new(64, 0));
        let hashes: Vec<u64> =
            (0..40).map(|number| at_home(number / 5 * 7 % 64, 64, number as u64)).collect();
        let mut live = std::collections::BTreeSet::new();
        let mut counted = 0usize;
        for step in 0..40_000 {
            let number = next(40) as u32;
            let hash = hashes[number as usize];
            if live.remove(&number) {
                let index = table.find_number(hash, number);
                // Where there is nobody else, after a time with others and before another.
                if step / 1_000 % 2 == 0 {
                    counted = counted.wrapping_add_signed(table.remove(index));
                } else {
                    table.close(index);
                }
            } else if live.len() + counted < table.room() {
                counted -= usize::from(put(&table, hash, number));
                live.insert(number);
            }
            assert_eq!(counted, table.tombstones());
            assert!(live.iter().all(|&number| found(&table, hashes[number as usize]).contains(&number)));
        }
        assert_eq!(table.numbers().collect::<std::collections::BTreeSet<_>>(), live);
    }

    #[test]
    fn a_table_that_was_made_for_its_entries_has_room_for_more_and_is_not_too_large() {
        for entries in 0..5_000 {
            let slots = Table::slots_for(entries);
            let table = made(Table::new(slots, 0));
            assert!(entries + entries / 8 < table.room(), "{entries} in {slots}");
            assert!(!table.is_wide(entries), "{entries} in {slots} would shrink at once");
        }
    }
}
