//! The open-addressed hash table of one shard: slots that readers probe without a lock.
//!
//! A slot is one word. It holds the upper half of the hash as a tag, and the index of an entry in the slab.
//!
//! ```text
//! 63            32 31             0
//! +---------------+---------------+    0, 0      empty: a probe ends here
//! |  tag (hash)   |   index + 2   |    0, 1      tombstone: a probe goes on
//! +---------------+---------------+    t, i + 2  entry i
//! ```
//!
//! # How it works
//! Linear probing, which starts at the home slot of a hash. The top bits of the hash choose the home slot, and the tag
//! contains these bits. So a resize fills the next table from the slots of the old one and reads no entry.
//!
//! # Invariants
//! - `in-reach`: no slot between an entry's home slot and its own slot is empty.
//! - `fixed`: an entry keeps its slot as long as the table lives. Only [`Table::remove_shifting`] moves entries, and it
//!   runs only where no other thread can probe.
//! - `open`: at least one slot is empty, so every probe ends.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `slots` | Release, by the holder of the shard lock | Acquire | the entry is complete before its index is seen |
//! | `slots` | | Relaxed, by the holder of the shard lock | the lock orders all writers |
//! | `version` | Relaxed, where no other thread can probe | Relaxed | nothing runs beside the writer |
//!
//! # Why tombstones
//! Without tombstones, a removal moves later entries of the probe forward. A reader without a lock would miss an entry
//! that moves to a slot which the reader has passed. With the GIL no reader runs beside a removal, so there
//! [`Table::remove_shifting`] leaves no tombstone.
//!
//! # Why not groups of one-byte tags
//! Separate tags and slots cost two cache lines a look-up; this layout costs one. With 32 bits of tag, one probe in
//! millions reads the entry of another key.

use crate::collections::try_reserve::NoMemory;
use crate::sync::{self, AtomicU64, Ordering, Zeroed, sized};

const EMPTY: u64 = 0;
const TOMBSTONE: u64 = 1;
/// The word of entry 0, without a tag.
const FIRST_ENTRY: u64 = 2;
const MIN_BITS: u32 = sized(3, 2);
/// A table of this many slots or fewer does not shrink.
const MIN_SLOTS_TO_SHRINK: usize = sized(64, 4);

/// How many entries a slot can name.
pub(super) const MAX_ENTRIES: u32 = u32::MAX - FIRST_ENTRY as u32;

pub(super) struct Table {
    slots: Zeroed<AtomicU64>,
    /// The home slot is the hash shifted right by this.
    shift: u32,
    /// See [`Table::version`].
    version: AtomicU64,
}

/// The word of a slot that names an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct TaggedIndex(u64);

impl TaggedIndex {
    fn new(hash: u64, index: u32) -> Self {
        TaggedIndex((hash >> 32) << 32 | (u64::from(index) + FIRST_ENTRY))
    }

    pub fn index(self) -> u32 {
        ((self.0 & u64::from(u32::MAX)) - FIRST_ENTRY) as u32
    }
}

impl Table {
    pub fn new(slots: usize, version: u64) -> Result<Self, NoMemory> {
        debug_assert!(slots.is_power_of_two() && slots >= 1 << MIN_BITS);
        let shift = 64 - slots.trailing_zeros();
        const { assert!(EMPTY == 0) };
        let slots = sync::zeroed_atomics(slots).ok_or(NoMemory)?;
        Ok(Table { slots, shift, version: AtomicU64::new(version) })
    }

    /// Returns a number that differs if this is another table, or if entries have moved in it.
    ///
    /// A thread that unpins in the middle of a probe compares it before and after.
    #[inline]
    pub fn version(&self) -> u64 {
        // Relaxed: where it changes, no other thread can probe.
        self.version.load(Ordering::Relaxed)
    }

    /// Returns how many slots a table for this many entries has.
    pub fn slots_for(entries: usize) -> usize {
        (entries * 5 / 2 + (1 << MIN_BITS)).next_power_of_two()
    }

    /// Returns how many slots entries and tombstones may use: half of them.
    ///
    /// Then the look-up of an absent key passes 2.5 slots on average, at most. With three quarters it would pass 8.5.
    pub fn max_used(&self) -> usize {
        self.slots.len() / 2
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether the table is far larger than this many entries need.
    pub fn is_sparse(&self, entries: usize) -> bool {
        self.slots.len() > MIN_SLOTS_TO_SHRINK && entries < self.slots.len() / 8
    }

    #[inline]
    pub fn home(&self, hash: u64) -> usize {
        (hash >> self.shift) as usize
    }

    /// Returns the next slot with the tag of the hash, in probe order from `slot` on, and its content.
    #[inline(always)]
    pub fn next_match(&self, hash: u64, mut slot: usize) -> Option<(usize, TaggedIndex)> {
        let mask = self.slots.len() - 1;
        loop {
            slot &= mask;
            // Acquire: pairs with the Release in `publish`; the entry is complete before its index is seen.
            let word = self.slots[slot].load(Ordering::Acquire);
            if word == EMPTY {
                return None;
            }
            if (word ^ hash) >> 32 == 0 && word as u32 as u64 != TOMBSTONE {
                return Some((slot, TaggedIndex(word)));
            }
            slot += 1;
        }
    }

    /// Whether the slot has this content.
    pub fn has_at(&self, slot: usize, content: TaggedIndex) -> bool {
        // Acquire: pairs with the Release in `publish`.
        self.slots[slot].load(Ordering::Acquire) == content.0
    }

    /// Prefetches the home slot of a hash.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        sync::prefetch_write(&self.slots[self.home(hash)]);
    }

    /// Returns the slot of an entry that is in the table (`in-reach`).
    pub fn find_slot(&self, hash: u64, index: u32) -> usize {
        let wanted = TaggedIndex::new(hash, index);
        let mask = self.slots.len() - 1;
        let mut slot = self.home(hash);
        while !self.has_at(slot & mask, wanted) {
            debug_assert!(self.slots[slot & mask].load(Ordering::Relaxed) != EMPTY, "`in-reach`");
            slot += 1;
        }
        slot & mask
    }

    /// Returns the first slot from the home slot on that holds no entry, and whether it holds a tombstone.
    pub fn find_insert_slot(&self, hash: u64) -> (usize, bool) {
        let mask = self.slots.len() - 1;
        let mut slot = self.home(hash);
        loop {
            // Relaxed: only the holder of the lock writes slots.
            match self.slots[slot & mask].load(Ordering::Relaxed) {
                EMPTY => return (slot & mask, false),
                TOMBSTONE => return (slot & mask, true),
                _ => slot += 1,
            }
        }
    }

    /// Puts a complete entry into a slot that holds none.
    pub fn publish(&self, slot: usize, hash: u64, index: u32) {
        // Release: pairs with the Acquire in `next_match`; the entry was completed before.
        self.slots[slot].store(TaggedIndex::new(hash, index).0, Ordering::Release);
    }

    /// Removes the entry from a slot. Returns the change of the number of tombstones.
    ///
    /// If the next slot is empty, no probe needs to pass this slot, nor the tombstones directly before it. Then all of
    /// them become empty.
    pub fn remove(&self, slot: usize) -> isize {
        let mask = self.slots.len() - 1;
        if self.slots[(slot + 1) & mask].load(Ordering::Relaxed) != EMPTY {
            self.slots[slot].store(TOMBSTONE, Ordering::Release);
            return 1;
        }
        self.slots[slot].store(EMPTY, Ordering::Release);
        let mut cleared = 0;
        let mut before = slot.wrapping_sub(1) & mask;
        while self.slots[before].load(Ordering::Relaxed) == TOMBSTONE {
            self.slots[before].store(EMPTY, Ordering::Release);
            cleared += 1;
            before = before.wrapping_sub(1) & mask;
        }
        -cleared
    }

    /// Removes the entry from a slot and moves later entries forward, so that no tombstone remains.
    ///
    /// The caller must know that no other thread probes the table, and that no resize migrates its slots.
    pub fn remove_shifting(&self, slot: usize) {
        let mask = self.slots.len() - 1;
        let (mut gap, mut next) = (slot, slot);
        loop {
            next = (next + 1) & mask;
            let word = self.slots[next].load(Ordering::Relaxed);
            if word == EMPTY {
                break;
            }
            // An entry may move back to its home slot, which the tag tells. A tombstone moves like an entry of home 0.
            let from_home = next.wrapping_sub(self.home(word)) & mask;
            if from_home >= next.wrapping_sub(gap) & mask {
                self.slots[gap].store(word, Ordering::Release);
                gap = next;
            }
        }
        self.slots[gap].store(EMPTY, Ordering::Release);
        if gap != slot {
            self.version.store(self.version() + 1, Ordering::Relaxed);
        }
    }

    /// Returns the first empty slot. There is one (`open`).
    pub fn first_empty_slot(&self) -> usize {
        // Relaxed, here and below: only the holder of the lock writes slots.
        let first = self.slots.iter().position(|slot| slot.load(Ordering::Relaxed) == EMPTY);
        first.expect("a table has an empty slot")
    }

    /// Returns the entry in a slot: the bits of its hash that a table needs, and its index.
    ///
    /// The slot may exceed the length of the table; it wraps around.
    pub fn entry_at(&self, slot: usize) -> Option<(u64, u32)> {
        let word = self.slots[slot & (self.slots.len() - 1)].load(Ordering::Relaxed);
        (word as u32 as u64 >= FIRST_ENTRY).then(|| (word, TaggedIndex(word).index()))
    }

    /// Returns the indices of all entries in the table, unordered.
    #[cfg(any(test, debug_assertions))]
    pub fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        let words = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed));
        words.filter(|word| *word as u32 as u64 >= FIRST_ENTRY).map(|word| TaggedIndex(word).index())
    }

    #[cfg(any(test, debug_assertions))]
    pub fn tombstones(&self) -> usize {
        self.slots.iter().filter(|slot| slot.load(Ordering::Relaxed) == TOMBSTONE).count()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sync::sized_for_miri;

    fn new_table(slots: usize) -> Table {
        Table::new(slots, 0).expect("there is memory")
    }

    /// Returns a hash whose home is `slot` in a table of `slots` slots.
    fn hash_with_home(slot: usize, slots: usize, tag: u64) -> u64 {
        ((slot as u64) << (64 - slots.trailing_zeros())) | tag << 32
    }

    fn insert(table: &Table, hash: u64, index: u32) -> bool {
        let (slot, was_tombstone) = table.find_insert_slot(hash);
        table.publish(slot, hash, index);
        was_tombstone
    }

    fn matches(table: &Table, hash: u64) -> Vec<u32> {
        let mut from = table.home(hash);
        let next = || {
            let (slot, content) = table.next_match(hash, from)?;
            from = slot + 1;
            Some(content.index())
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn entries_are_found_by_their_hash() {
        let table = new_table(8);
        for (index, hash) in [(0, 0), (7, u64::MAX), (3, 1 << 63), (MAX_ENTRIES - 1, 5 << 40)] {
            assert!(!insert(&table, hash, index));
            assert_eq!(matches(&table, hash), [index]);
        }
        assert_eq!(matches(&table, 1 << 62), []);
    }

    #[test]
    fn a_probe_goes_on_over_the_end_of_the_table() {
        let table = new_table(8);
        let hash = hash_with_home(7, 8, 1);
        for index in 0..4 {
            insert(&table, hash, index);
        }
        assert_eq!(matches(&table, hash), [0, 1, 2, 3]);
        assert_eq!(table.find_slot(hash, 3), 2);
        assert_eq!(matches(&table, hash_with_home(7, 8, 2)), []);
    }

    #[test]
    fn a_slot_in_the_middle_becomes_a_tombstone_and_is_used_again() {
        let table = new_table(8);
        let hash = hash_with_home(2, 8, 1);
        for index in 0..3 {
            insert(&table, hash, index);
        }
        assert_eq!(table.remove(table.find_slot(hash, 1)), 1);
        assert_eq!(matches(&table, hash), [0, 2]);
        assert!(insert(&table, hash, 9));
        assert_eq!(matches(&table, hash), [0, 9, 2]);
    }

    #[test]
    fn the_last_slot_is_emptied_with_the_tombstones_before_it() {
        let table = new_table(8);
        let hash = hash_with_home(6, 8, 1);
        for index in 0..4 {
            insert(&table, hash, index);
        }
        assert_eq!(table.remove(table.find_slot(hash, 1)), 1);
        assert_eq!(table.remove(table.find_slot(hash, 2)), 1);
        assert_eq!(table.remove(table.find_slot(hash, 3)), -2);
        assert_eq!((table.tombstones(), matches(&table, hash)), (0, vec![0]));
        assert_eq!(table.remove(table.find_slot(hash, 0)), 0);
    }

    #[test]
    fn a_removal_that_shifts_leaves_no_tombstone_and_every_entry_in_reach() {
        let table = new_table(16);
        // Some are at home, some were pushed on by others, over the end of the table.
        let homes = [13, 13, 14, 15, 13, 1];
        let hash = |index: u32| hash_with_home(homes[index as usize], 16, u64::from(index));
        for index in 0..homes.len() as u32 {
            insert(&table, hash(index), index);
        }
        let slots_from = |first: u32| {
            let indices = first..homes.len() as u32;
            indices.map(|index| table.find_slot(hash(index), index)).collect::<Vec<_>>()
        };
        assert_eq!(slots_from(0), [13, 14, 15, 0, 1, 2]);
        table.remove_shifting(13);
        assert_eq!(slots_from(1), [13, 14, 15, 0, 1]);
        assert_eq!((table.version(), matches(&table, hash(0))), (1, vec![]));
        table.remove_shifting(14);
        // The one in its home slot stays there, and a later one is moved on.
        assert_eq!([1, 3, 4, 5].map(|index| table.find_slot(hash(index), index)), [13, 15, 14, 1]);
        assert_eq!(table.version(), 2);
        table.remove_shifting(1);
        assert_eq!(table.version(), 2, "the removal of the last entry of a run moves none");
        assert_eq!(table.tombstones(), 0);
    }

    #[test]
    fn the_count_of_tombstones_is_right_after_any_change() {
        let mut random = 3u64;
        let mut next_below = move |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 20) % bound
        };
        let table = new_table(64);
        let hash_of = |index: usize| hash_with_home(index / 5 * 7 % 64, 64, index as u64);
        let hashes: Vec<u64> = (0..40).map(hash_of).collect();
        let mut live = BTreeSet::new();
        let mut counted = 0usize;
        for step in 0..sized_for_miri(40_000, 60) {
            let index = next_below(40) as u32;
            let hash = hashes[index as usize];
            if live.remove(&index) {
                let slot = table.find_slot(hash, index);
                // Periods in which other threads probe alternate with periods in which none does.
                if step / sized_for_miri(1_000, 10) % 2 == 0 {
                    counted = counted.wrapping_add_signed(table.remove(slot));
                } else {
                    table.remove_shifting(slot);
                }
            } else if live.len() + counted < table.max_used() {
                counted -= usize::from(insert(&table, hash, index));
                live.insert(index);
            }
            assert_eq!(counted, table.tombstones());
            if step % sized_for_miri(1, 10) == 0 {
                assert!(live.iter().all(|&index| matches(&table, hashes[index as usize]).contains(&index)));
            }
        }
        assert_eq!(table.indices().collect::<BTreeSet<_>>(), live);
    }

    #[test]
    fn a_new_table_has_room_for_more_entries_and_is_not_sparse() {
        for entries in (0..5_000).step_by(sized_for_miri(1, 97)) {
            let slots = Table::slots_for(entries);
            let table = new_table(slots);
            assert!(entries + entries / 8 < table.max_used(), "{entries} in {slots}");
            assert!(!table.is_sparse(entries), "{entries} in {slots} would shrink at once");
        }
    }
}
