//! An incremental resize: the next table of a shard, filled by later writes until it replaces the current one.
//!
//! # How it works
//! Filling a large table takes milliseconds, and the write that needs it would hold the lock all that time. So each
//! write migrates a few slots, while readers and writers go on with the old table. The slots of the old table migrate
//! in their order, from one start on. Entries keep their slots in the old table during the resize, so the slot of an
//! entry tells whether the next table has it. An insert into a migrated slot, or a removal from one, changes both
//! tables. When all slots are migrated, the next table replaces the old one.
//!
//! # Invariants
//! - `migrated`: an entry of the old table is in the next table exactly if its slot is migrated.

use crate::collections::try_reserve::NoMemory;
use crate::sync::sized;

use super::table::Table;

/// How many slots each write migrates. A table is half full when a resize begins, and at most one more in each 32 slots
/// fills until its end.
const SLOTS_PER_WRITE: usize = sized(32, 2);
/// A table of at most this many slots migrates in one step, in some 10 µs. Debug builds have a small bound, for the
/// tests.
const MAX_SLOTS_IN_ONE_STEP: usize = sized(if cfg!(debug_assertions) { 32 } else { 4096 }, 2);

pub(super) struct Resize {
    next: Table,
    tombstones: usize,
    /// The slot that migrated first.
    start: usize,
    /// How many slots are migrated.
    migrated: usize,
}

impl Resize {
    /// Begins a table that is to replace `old`, with room for `live` entries.
    pub fn begin(old: &Table, live: usize) -> Result<Self, NoMemory> {
        let next = Table::new(Table::slots_for(live), old.version() + 1)?;
        let migrated = if live == 0 { old.len() } else { 0 };
        // Behind an empty slot, entries come in the order of their home slots, except those that wrapped around.
        Ok(Resize { next, tombstones: 0, start: old.first_empty_slot(), migrated })
    }

    /// Whether the next table has room for this many entries and one more, and is not far too large.
    pub fn can_hold(&self, live: usize) -> bool {
        live + self.tombstones < self.next.max_used() && !self.next.is_sparse(live)
    }

    /// Migrates some slots, or with `all` every one. Returns whether all are migrated.
    pub fn step(&mut self, old: &Table, all: bool) -> bool {
        let batch = if old.len() <= MAX_SLOTS_IN_ONE_STEP { MAX_SLOTS_IN_ONE_STEP } else { SLOTS_PER_WRITE };
        let end = if all { old.len() } else { old.len().min(self.migrated + batch) };
        for slot in self.start + self.migrated..self.start + end {
            if let Some((hash, index)) = old.entry_at(slot) {
                self.insert_into_next(hash, index);
            }
        }
        self.migrated = end;
        end == old.len()
    }

    /// Repeats an insert into a slot of the old table.
    pub fn insert(&mut self, old: &Table, slot: usize, hash: u64, index: u32) {
        if self.is_migrated(old, slot) {
            self.insert_into_next(hash, index);
        }
    }

    /// Repeats a removal from a slot of the old table.
    pub fn remove(&mut self, old: &Table, slot: usize, hash: u64, index: u32) {
        if self.is_migrated(old, slot) {
            let change = self.next.remove(self.next.find_slot(hash, index));
            self.tombstones = self.tombstones.wrapping_add_signed(change);
        }
    }

    /// Returns the next table, which is complete, and how many tombstones it has.
    pub fn finish(self) -> (Table, usize) {
        (self.next, self.tombstones)
    }

    fn insert_into_next(&mut self, hash: u64, index: u32) {
        let (slot, was_tombstone) = self.next.find_insert_slot(hash);
        self.next.publish(slot, hash, index);
        self.tombstones -= usize::from(was_tombstone);
    }

    fn is_migrated(&self, old: &Table, slot: usize) -> bool {
        slot.wrapping_sub(self.start) & (old.len() - 1) < self.migrated
    }

    /// Checks the invariants. For tests: it reads every slot.
    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self, old: &Table) {
        let migrated = (self.start..self.start + self.migrated).filter_map(|slot| old.entry_at(slot));
        let mut expected: Vec<u32> = migrated.map(|(_, index)| index).collect();
        let mut present: Vec<u32> = self.next.indices().collect();
        expected.sort_unstable();
        present.sort_unstable();
        assert_eq!(expected, present, "`migrated`");
        assert_eq!(self.tombstones, self.next.tombstones(), "the tombstones are counted");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::sync::sized_for_miri;

    fn hash(index: u32) -> u64 {
        u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn insert(table: &Table, index: u32) -> usize {
        let (slot, _) = table.find_insert_slot(hash(index));
        table.publish(slot, hash(index), index);
        slot
    }

    fn contains(table: &Table, index: u32) -> bool {
        let mut from = table.home(hash(index));
        while let Some((slot, content)) = table.next_match(hash(index), from) {
            if content.index() == index {
                return true;
            }
            from = slot + 1;
        }
        false
    }

    #[test]
    fn another_size_has_the_same_entries_and_another_version() {
        let old = Table::new(128, 4).expect("there is memory");
        for index in 0..90 {
            insert(&old, index);
        }
        for index in (0..90).step_by(3) {
            old.remove(old.find_slot(hash(index), index));
        }
        for live in [60, 200, 500] {
            let mut resize = Resize::begin(&old, live).expect("there is memory");
            assert!(resize.step(&old, true));
            resize.validate(&old);
            let (next, tombstones) = resize.finish();
            assert_eq!((next.len(), next.version(), tombstones), (Table::slots_for(live), 5, 0));
            assert!((0..90).all(|index| contains(&next, index) == (index % 3 != 0)));
        }
    }

    #[test]
    fn inserts_and_removals_during_a_resize_reach_the_next_table() {
        let mut random = 7u64;
        let mut next_below = move |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % bound
        };
        for round in 0..sized_for_miri(20, 1) {
            let old = Table::new(sized_for_miri(8192, 256), 0).expect("there is memory");
            let mut live = BTreeMap::new();
            for index in 0..(old.max_used() / 4 * 3) as u32 {
                live.insert(index, insert(&old, index));
            }
            let mut resize = Resize::begin(&old, live.len() * (1 + round % 2)).expect("there is memory");
            let mut fresh = live.len() as u32;
            loop {
                if next_below(2) == 0 {
                    let slot = insert(&old, fresh);
                    resize.insert(&old, slot, hash(fresh), fresh);
                    live.insert(fresh, slot);
                    fresh += 1;
                }
                let some = live
                    .range(next_below(u64::from(fresh)) as u32..)
                    .next()
                    .map(|(&index, &slot)| (index, slot));
                if let Some((index, slot)) = some {
                    old.remove(slot);
                    resize.remove(&old, slot, hash(index), index);
                    live.remove(&index);
                }
                assert!(resize.can_hold(live.len()));
                if next_below(50) == 0 {
                    resize.validate(&old);
                }
                if resize.step(&old, false) {
                    break;
                }
            }
            resize.validate(&old);
            let (table, tombstones) = resize.finish();
            assert_eq!(tombstones, table.tombstones());
            assert!((0..fresh).all(|index| contains(&table, index) == live.contains_key(&index)));
        }
    }
}
