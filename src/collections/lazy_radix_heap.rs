//! Entries by a key that only grows, smallest first, with the growth seen late.
//!
//! It orders recency (a stamp that a hit moves on) and deadlines (which a hit or a new value moves on).
//! Whoever moves a key tells nobody. The queue has each entry filed under an old key, and asks for the true
//! one when the entry comes up.
//!
//! # How it works
//! A radix heap. Keys share a prefix with `base`, the floor of what has been taken so far; an entry is filed
//! at the level of the highest digit in which its key differs from `base`, in the bucket of that digit.
//! The lowest bucket of the lowest level holds the smallest keys. At level 0 a bucket is one key; higher up
//! it is spread over the levels below first, each entry by its true key. An entry sinks at most once
//! through each level between two moves of its key, and a bucket is a list, so all steps are short.
//! Ahuja, Mehlhorn, Orlin, Tarjan, "Faster algorithms for the shortest path problem" (1990).
//!
//! # Invariants
//! - `filed`: an entry is in one bucket at most.
//! - `early`: an entry is never filed above its true key.
//! - `base`: no key below `base` is filed; a smaller one is filed at `base`.
//!
//! # Why not a binary heap
//! Each eviction would sift through all its levels, scattered in memory; here a bucket is a list and the
//! common case moves an entry three times in its life.

use crate::collections::index_lists::IndexLists;
use crate::collections::try_reserve::NoMemory;

const DIGIT_BITS: u32 = 5;
const DIGITS: usize = 1 << DIGIT_BITS;

#[derive(Default)]
pub(crate) struct LazyRadixHeap {
    buckets: IndexLists<0>,
    /// For each level in use, which of its buckets hold something.
    levels: Vec<u32>,
    base: u64,
    /// The bucket that a search ran out of steps on: it still holds entries from `base` up, which belong
    /// on the levels below.
    spreading: Option<usize>,
    /// No key below this is filed, as a search found that came to nothing: the next one need not look so far.
    least: u64,
}

impl LazyRadixHeap {
    /// Makes sure that an entry can be filed.
    #[inline(always)]
    pub fn reserve(&mut self, number: u32) -> Result<(), NoMemory> {
        self.buckets.reserve(number)
    }

    /// Files an entry under a key, wherever it was.
    pub fn file(&mut self, number: u32, key: u64) {
        self.remove(number);
        let key = key.max(self.base);
        self.least = self.least.min(key);
        let bucket = self.bucket(key);
        let level = bucket / DIGITS;
        if self.levels.len() <= level {
            self.levels.resize(level + 1, 0);
            self.buckets.grow_to((level + 1) * DIGITS);
        }
        self.levels[level] |= 1 << (bucket % DIGITS);
        self.buckets.push_back(bucket, number);
    }

    /// Takes an entry out, if it is filed. Its bucket's mark may stay set; a search clears it.
    pub fn remove(&mut self, number: u32) -> bool {
        self.buckets.unlink(number)
    }

    /// Takes out the entry of the smallest true key, if that is at most `upto`.
    ///
    /// `true_key` tells an entry's key of now, or `None` for one that needs no filing any more. At most
    /// `steps` entries are looked at; each takes one away.
    pub fn pop(
        &mut self,
        upto: u64,
        steps: &mut usize,
        mut true_key: impl FnMut(u32) -> Option<u64>,
    ) -> Option<u32> {
        if self.least > upto {
            return None;
        }
        while let Some((bucket, floor)) = self.lowest() {
            if floor > upto {
                self.least = floor;
                return None;
            }
            if bucket >= DIGITS {
                // `base` may rise to the floor: all keys below it are gone. Then the bucket's entries
                // differ from `base` in lower digits only.
                self.base = floor;
                self.spreading = Some(bucket);
            }
            while let Some(number) = self.buckets.front(bucket) {
                if *steps == 0 {
                    return None;
                }
                *steps -= 1;
                self.buckets.unlink(number);
                match true_key(number) {
                    Some(key) if bucket < DIGITS && key <= floor => return Some(number),
                    Some(key) => self.file(number, key),
                    None => {}
                }
            }
            self.levels[bucket / DIGITS] &= !(1 << (bucket % DIGITS));
        }
        self.least = u64::MAX;
        None
    }

    /// A bound: no entry's true key is below it. `None` if nothing is filed.
    pub fn floor(&mut self) -> Option<u64> {
        self.lowest().map(|(_, floor)| floor)
    }

    /// Some entry that is filed low, if any is filed.
    pub fn any(&mut self) -> Option<u32> {
        let (bucket, _) = self.lowest()?;
        self.buckets.front(bucket)
    }

    /// Gives back the memory of numbers from `limit` up, which are not filed.
    pub fn trim(&mut self, limit: u32) {
        self.buckets.trim(limit);
    }

    /// The lowest bucket that holds something, and the smallest key that belongs there.
    fn lowest(&mut self) -> Option<(usize, u64)> {
        if let Some(bucket) = self.spreading {
            if !self.buckets.is_empty(bucket) {
                return Some((bucket, self.base));
            }
            self.spreading = None;
        }
        for (level, marks) in self.levels.iter_mut().enumerate() {
            while *marks != 0 {
                let digit = marks.trailing_zeros() as usize;
                let bucket = level * DIGITS + digit;
                if self.buckets.is_empty(bucket) {
                    *marks &= !(1 << digit);
                    continue;
                }
                let shift = level as u32 * DIGIT_BITS;
                let above = self.base.checked_shr(shift + DIGIT_BITS).unwrap_or(0);
                let prefix = above.checked_shl(shift + DIGIT_BITS).unwrap_or(0);
                return Some((bucket, (prefix | (digit as u64) << shift).max(self.base)));
            }
        }
        None
    }

    fn bucket(&self, key: u64) -> usize {
        let differs = key ^ self.base;
        let level = (63 - (differs | 1).leading_zeros()) / DIGIT_BITS;
        let digit = (key >> (level * DIGIT_BITS)) as usize % DIGITS;
        level as usize * DIGITS + digit
    }

    /// The numbers filed, in no order.
    #[cfg(any(test, debug_assertions))]
    pub fn numbers(&self) -> Vec<u32> {
        (0..self.levels.len() * DIGITS).flat_map(|bucket| self.buckets.iter(bucket)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes out everything up to a key, with at most so many steps a call.
    fn drain(queue: &mut LazyRadixHeap, keys: &[u64], upto: u64, steps: usize) -> Vec<u64> {
        let mut taken = Vec::new();
        loop {
            let mut left = steps;
            match queue.pop(upto, &mut left, |number| Some(keys[number as usize])) {
                Some(number) => taken.push(keys[number as usize]),
                None if left > 0 => return taken,
                None => assert!(queue.floor().is_some_and(|floor| floor <= upto)),
            }
        }
    }

    /// Keys of all magnitudes.
    fn spread_keys() -> Vec<u64> {
        let edges = (0..64).flat_map(|bit| [1 << bit, (1 << bit) + 1, (1u64 << bit) - 1]);
        let mut keys: Vec<u64> = edges.chain([0, u64::MAX, u64::MAX - 1]).collect();
        let count = keys.len();
        (0..count).for_each(|index| keys.swap(index, index * 7 % count));
        keys
    }

    #[test]
    fn entries_come_in_the_order_of_their_keys() {
        for steps in [1, 2, 3, 7, usize::MAX] {
            let keys = spread_keys();
            let mut queue = LazyRadixHeap::default();
            keys.iter().enumerate().for_each(|(number, &key)| queue.file(number as u32, key));
            let mut expected = keys.clone();
            expected.sort_unstable();
            assert_eq!(drain(&mut queue, &keys, u64::MAX, steps), expected, "{steps} steps");
            assert_eq!(queue.floor(), None);
        }
    }

    #[test]
    fn what_is_above_the_bound_stays() {
        let keys = spread_keys();
        let mut queue = LazyRadixHeap::default();
        keys.iter().enumerate().for_each(|(number, &key)| queue.file(number as u32, key));
        let mut seen = Vec::new();
        for upto in [0, 5, 1000, 1 << 40, u64::MAX] {
            let taken = drain(&mut queue, &keys, upto, 3);
            assert!(taken.iter().all(|&key| key <= upto));
            seen.extend(taken);
            let rest = keys.iter().filter(|&&key| key > upto);
            assert_eq!(queue.numbers().len(), rest.count());
        }
        assert!(seen.is_sorted());
    }

    #[test]
    fn a_key_that_grew_unseen_counts_when_its_entry_comes_up() {
        let mut keys = vec![10, 20, 30];
        let mut queue = LazyRadixHeap::default();
        (0..3).for_each(|number| queue.file(number as u32, keys[number]));
        keys[0] = 25;
        assert_eq!(drain(&mut queue, &keys, u64::MAX, 1), [20, 25, 30]);
    }

    #[test]
    fn an_entry_without_a_key_any_more_is_let_go() {
        let mut queue = LazyRadixHeap::default();
        queue.file(0, 40);
        queue.file(1, 41);
        let one = queue.pop(u64::MAX, &mut 100, |number| (number == 1).then_some(41));
        assert_eq!((one, queue.numbers()), (Some(1), vec![]));
    }

    #[test]
    fn an_entry_is_filed_once_and_can_be_taken_out() {
        let mut queue = LazyRadixHeap::default();
        queue.file(0, 1_000);
        queue.file(0, 5);
        assert_eq!((queue.numbers(), queue.any()), (vec![0], Some(0)));
        assert!(queue.remove(0) && !queue.remove(0));
        assert_eq!((queue.floor(), queue.any()), (None, None));
    }

    #[test]
    fn a_key_below_the_floor_comes_first() {
        let mut keys = vec![1_000, 2_000, 3];
        let mut queue = LazyRadixHeap::default();
        queue.file(0, 1_000);
        queue.file(1, 2_000);
        assert_eq!(queue.pop(1_500, &mut 100, |number| Some(keys[number as usize])), Some(0));
        queue.file(2, 3);
        keys[0] = 0;
        assert_eq!(drain(&mut queue, &keys, u64::MAX, 1), [3, 2_000]);
    }

    #[test]
    fn no_true_key_is_below_the_floor_whatever_happens() {
        let mut random = 1u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 20) % below
        };
        let mut keys = vec![0; 60];
        let mut queue = LazyRadixHeap::default();
        let mut now = 0;
        for _ in 0..20_000 {
            let number = next(60);
            match next(5) {
                0 => {
                    keys[number as usize] = now + next(5_000);
                    queue.file(number as u32, keys[number as usize]);
                }
                1 => keys[number as usize] += next(3_000),
                2 => drop((queue.remove(number as u32), keys[number as usize] = 0)),
                3 => now += next(40),
                _ => {
                    let mut steps = next(6) as usize;
                    if let Some(taken) = queue.pop(now, &mut steps, |number| Some(keys[number as usize])) {
                        assert!(keys[taken as usize] <= now);
                    }
                }
            }
            let least = queue.numbers().into_iter().map(|number| keys[number as usize]).min();
            assert!(queue.floor() <= least, "{:?} is above {least:?}", queue.floor());
        }
    }
}
