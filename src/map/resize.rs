//! A table of another size, on its way to take the place of the one in use.
//!
//! # How it works
//! To fill a large table takes milliseconds, in which the write that needs it would hold the lock. So it is filled a few
//! slots a write, while readers and writers go on with the old one. The slots of the old table are passed in their order,
//! from one on; no entry changes its slot there meanwhile, so whether it is in the new table is told by its slot. What
//! comes and goes in slots that were passed does so in both. When all are passed, the new table takes over.
//!
//! # Invariants
//! - `passed`: an entry of the old table is in the new one if its slot was passed, and else it is not.

use crate::collections::try_reserve::NoMemory;
use crate::sync::sized;

use super::table::Table;

/// Slots passed by each write. A table is half full when its successor is begun, and then one more in each 32
/// slots fills, at most.
const SLOTS_A_WRITE: usize = sized(32, 2);
/// A table of so many slots is passed at once, in some ten microseconds; in a debug build few are, for the tests.
const SLOTS_AT_ONCE: usize = sized(if cfg!(debug_assertions) { 32 } else { 4096 }, 2);

pub(super) struct Resize {
    next: Table,
    tombstones: usize,
    /// The slot that was passed first, and how many were.
    start: usize,
    passed: usize,
}

impl Resize {
    /// Begins a table that is to take the place of `old`, with room for `live` entries.
    pub fn begin(old: &Table, live: usize) -> Result<Self, NoMemory> {
        let next = Table::new(Table::slots_for(live), old.serial() + 1)?;
        // Where nothing lives there is nothing to pass.
        let passed = if live == 0 { old.len() } else { 0 };
        // From behind an empty slot on, entries come in the order of their homes, but for those that wrapped around.
        Ok(Resize { next, tombstones: 0, start: old.first_empty(), passed })
    }

    /// Whether there is room for so many entries and one more, and not far too much.
    pub fn fits(&self, live: usize) -> bool {
        live + self.tombstones < self.next.room() && !self.next.is_wide(live)
    }

    /// Passes some slots, or with `all` every one. Returns whether that was the last.
    pub fn go_on(&mut self, old: &Table, all: bool) -> bool {
        let few = if old.len() <= SLOTS_AT_ONCE { SLOTS_AT_ONCE } else { SLOTS_A_WRITE };
        let to = if all { old.len() } else { old.len().min(self.passed + few) };
        for index in self.start + self.passed..self.start + to {
            if let Some((hash, number)) = old.at(index) {
                self.put(hash, number);
            }
        }
        self.passed = to;
        to == old.len()
    }

    /// Learns of an entry that came into a slot of the old table.
    pub fn insert(&mut self, old: &Table, index: usize, hash: u64, number: u32) {
        if self.has_passed(old, index) {
            self.put(hash, number);
        }
    }

    /// Learns of an entry that left a slot of the old table.
    pub fn remove(&mut self, old: &Table, index: usize, hash: u64, number: u32) {
        if self.has_passed(old, index) {
            let more = self.next.remove(self.next.find_number(hash, number));
            self.tombstones = self.tombstones.wrapping_add_signed(more);
        }
    }

    /// The new table, which is whole, and how many tombstones it has.
    pub fn finish(self) -> (Table, usize) {
        (self.next, self.tombstones)
    }

    fn put(&mut self, hash: u64, number: u32) {
        let (index, was_tombstone) = self.next.vacancy(hash);
        self.next.put(index, hash, number);
        self.tombstones -= usize::from(was_tombstone);
    }

    fn has_passed(&self, old: &Table, index: usize) -> bool {
        index.wrapping_sub(self.start) & (old.len() - 1) < self.passed
    }

    /// Checks the invariants. For tests: it walks everything.
    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self, old: &Table) {
        let passed = (self.start..self.start + self.passed).filter_map(|index| old.at(index));
        let mut numbers: Vec<u32> = passed.map(|(_, number)| number).collect();
        let mut present: Vec<u32> = self.next.numbers().collect();
        numbers.sort_unstable();
        present.sort_unstable();
        assert_eq!(numbers, present, "`passed`");
        assert_eq!(self.tombstones, self.next.tombstones(), "the tombstones are counted");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn hash(number: u32) -> u64 {
        u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn put(table: &Table, number: u32) -> usize {
        let (index, _) = table.vacancy(hash(number));
        table.put(index, hash(number), number);
        index
    }

    fn found(table: &Table, number: u32) -> bool {
        let mut from = table.home(hash(number));
        while let Some((index, slot)) = table.next(hash(number), from) {
            if slot.number() == number {
                return true;
            }
            from = index + 1;
        }
        false
    }

    #[test]
    fn another_size_has_the_same_entries_and_another_serial() {
        let old = Table::new(128, 4).expect("there is memory");
        for number in 0..90 {
            put(&old, number);
        }
        for number in (0..90).step_by(3) {
            old.remove(old.find_number(hash(number), number));
        }
        for live in [60, 200, 500] {
            let mut resize = Resize::begin(&old, live).expect("there is memory");
            assert!(resize.go_on(&old, true));
            resize.validate(&old);
            let (next, tombstones) = resize.finish();
            assert_eq!((next.len(), next.serial(), tombstones), (Table::slots_for(live), 5, 0));
            assert!((0..90).all(|number| found(&next, number) == (number % 3 != 0)));
        }
    }

    #[test]
    fn what_comes_and_goes_meanwhile_is_right_in_the_new_table() {
        let mut random = 7u64;
        let mut next = move |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        for round in 0..20 {
            let old = Table::new(8192, 0).expect("there is memory");
            let mut live = BTreeMap::new();
            for number in 0..(old.room() / 4 * 3) as u32 {
                live.insert(number, put(&old, number));
            }
            let mut resize = Resize::begin(&old, live.len() * (1 + round % 2)).expect("there is memory");
            let mut fresh = live.len() as u32;
            loop {
                if next(2) == 0 {
                    let index = put(&old, fresh);
                    resize.insert(&old, index, hash(fresh), fresh);
                    live.insert(fresh, index);
                    fresh += 1;
                }
                let some = live
                    .range(next(u64::from(fresh)) as u32..)
                    .next()
                    .map(|(&number, &index)| (number, index));
                if let Some((number, index)) = some {
                    old.remove(index);
                    resize.remove(&old, index, hash(number), number);
                    live.remove(&number);
                }
                assert!(resize.fits(live.len()));
                if next(50) == 0 {
                    resize.validate(&old);
                }
                if resize.go_on(&old, false) {
                    break;
                }
            }
            resize.validate(&old);
            let (table, tombstones) = resize.finish();
            assert_eq!(tombstones, table.tombstones());
            assert!((0..fresh).all(|number| found(&table, number) == live.contains_key(&number)));
        }
    }
}
