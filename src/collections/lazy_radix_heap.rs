//! A priority queue of indices by a key that only grows. It reads the key of an index again when the index comes up.
//!
//! It orders recency, by a stamp that a hit raises, and deadlines, which a hit or a new value raises. A reader that
//! raises a key does not tell the heap. The heap has each index in a bucket for an old key, and asks for the true key
//! when the index comes up.
//!
//! # How it works
//! It is a radix heap: Ahuja, Mehlhorn, Orlin, Tarjan, [Faster algorithms for the shortest path
//! problem](https://doi.org/10.1145/77600.77615) (1990). Such a heap needs no comparisons, because the smallest key
//! that was taken, `base`, never falls.
//!
//! A key is a number of digits of five bits. An index is in the bucket for the highest digit in which its key differs
//! from `base`. The position of that digit is the level of the bucket, and its value the place in the level. So the
//! first bucket that is not empty, from the lowest level up, holds the smallest keys.
//! - At level 0 all keys of a bucket are equal: any index is a smallest one.
//! - At a higher level the bucket is spread first: `base` rises to the lower end of the bucket, so its indices now
//!   belong to lower levels. Each is inserted again, by its true key.
//!
//! Between two raises of its key, an index moves at most once through each level. A bucket is a list, so each step is
//! short.
//!
//! A call looks at a bounded number of indices. If it stops while it spreads a bucket, the next call goes on with
//! that bucket (`spreading`).
//!
//! # Invariants
//! - `once`: an index is in at most one bucket.
//! - `base`: no bucket is for a key below `base`. If a key below `base` is inserted, it is taken for `base`.
//! - `early`: no index is in a bucket for a key above its true key, but for those that were taken for `base`.
//! - `marks`: each bucket that holds an index is marked in its level. A marked bucket may be empty.
//! - `empty-below`: no key in a bucket is below `empty_below`.
//!
//! # Why not a binary heap
//! Each removal would compare keys along the height of the heap, scattered in memory. Here most indices move
//! three times between insert and removal.

use crate::collections::index_lists::IndexLists;
use crate::collections::try_reserve::NoMemory;

const DIGIT_BITS: u32 = 5;
/// The buckets of a level, one for each value of a digit.
const BUCKETS_PER_LEVEL: usize = 1 << DIGIT_BITS;

#[derive(Default)]
pub(crate) struct LazyRadixHeap {
    buckets: IndexLists,
    /// For each level in use, a mark for each of its buckets (`marks`).
    levels: Vec<u32>,
    base: u64,
    /// The bucket that a call was spreading when it ran out of steps. It still holds indices of keys from `base` up,
    /// which belong to lower levels.
    spreading: Option<usize>,
    /// Set by a search that found no key up to its maximum, so that the next one need not search (`empty-below`).
    empty_below: u64,
}

impl LazyRadixHeap {
    /// Reserves the memory that an index needs here.
    #[inline(always)]
    pub fn reserve(&mut self, index: u32) -> Result<(), NoMemory> {
        self.buckets.reserve(index)
    }

    /// Inserts an index by its key. If the heap has the index, it moves.
    pub fn insert(&mut self, index: u32, key: u64) {
        self.remove(index);
        let key = key.max(self.base);
        self.empty_below = self.empty_below.min(key);
        let bucket = self.bucket_of(key);
        let level = bucket / BUCKETS_PER_LEVEL;
        if self.levels.len() <= level {
            self.levels.resize(level + 1, 0);
            self.buckets.grow_to((level + 1) * BUCKETS_PER_LEVEL);
        }
        self.levels[level] |= 1 << (bucket % BUCKETS_PER_LEVEL);
        self.buckets.push_back(bucket, index);
    }

    /// Removes an index. Returns whether it was in the heap. The mark of its bucket stays until a search clears it.
    pub fn remove(&mut self, index: u32) -> bool {
        self.buckets.unlink(index)
    }

    /// Removes an index of the smallest true key, if that key is at most `max_key`, and returns the index.
    ///
    /// `true_key` must return the current key of an index, or `None` if the index need not be in the heap any more.
    /// Each index that is looked at takes one of `steps`; at 0 the call returns `None`.
    pub fn pop(
        &mut self,
        max_key: u64,
        steps: &mut usize,
        mut true_key: impl FnMut(u32) -> Option<u64>,
    ) -> Option<u32> {
        if self.empty_below > max_key {
            return None;
        }
        while let Some((bucket, lower_bound)) = self.lowest_bucket() {
            if lower_bound > max_key {
                self.empty_below = lower_bound;
                return None;
            }
            if bucket >= BUCKETS_PER_LEVEL {
                // `base`: all other buckets have larger keys. The keys of this one now differ from `base` in lower
                // digits only.
                self.base = lower_bound;
                self.spreading = Some(bucket);
            }
            while let Some(index) = self.buckets.front(bucket) {
                if *steps == 0 {
                    return None;
                }
                *steps -= 1;
                self.buckets.unlink(index);
                match true_key(index) {
                    Some(key) if bucket < BUCKETS_PER_LEVEL && key <= lower_bound => return Some(index),
                    Some(key) => self.insert(index, key),
                    None => {}
                }
            }
            self.levels[bucket / BUCKETS_PER_LEVEL] &= !(1 << (bucket % BUCKETS_PER_LEVEL));
        }
        self.empty_below = u64::MAX;
        None
    }

    /// Returns a key that no true key is below, but for those that were taken for `base`; `None` if the heap is
    /// empty.
    pub fn lower_bound(&mut self) -> Option<u64> {
        self.lowest_bucket().map(|(_, lower_bound)| lower_bound)
    }

    /// Returns an index from the lowest bucket; `None` if the heap is empty.
    pub fn peek_low(&mut self) -> Option<u32> {
        let (bucket, _) = self.lowest_bucket()?;
        self.buckets.front(bucket)
    }

    /// Releases the memory of the indices from `limit` up, which must not be in the heap.
    pub fn trim(&mut self, limit: u32) {
        self.buckets.trim(limit);
    }

    /// The first bucket that is not empty, and the smallest key that belongs there.
    fn lowest_bucket(&mut self) -> Option<(usize, u64)> {
        if let Some(bucket) = self.spreading {
            if !self.buckets.is_empty(bucket) {
                return Some((bucket, self.base));
            }
            self.spreading = None;
        }
        for (level, marks) in self.levels.iter_mut().enumerate() {
            while *marks != 0 {
                let digit = marks.trailing_zeros() as usize;
                let bucket = level * BUCKETS_PER_LEVEL + digit;
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

    fn bucket_of(&self, key: u64) -> usize {
        let differs = key ^ self.base;
        let level = (63 - (differs | 1).leading_zeros()) / DIGIT_BITS;
        let digit = (key >> (level * DIGIT_BITS)) as usize % BUCKETS_PER_LEVEL;
        level as usize * BUCKETS_PER_LEVEL + digit
    }

    /// The indices in the heap, in no order.
    #[cfg(any(test, debug_assertions))]
    pub fn indices(&self) -> Vec<u32> {
        (0..self.levels.len() * BUCKETS_PER_LEVEL).flat_map(|bucket| self.buckets.iter(bucket)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all keys up to a maximum, with a number of steps for each call.
    fn drain(heap: &mut LazyRadixHeap, keys: &[u64], max_key: u64, steps_per_call: usize) -> Vec<u64> {
        let mut taken = Vec::new();
        loop {
            let mut steps = steps_per_call;
            match heap.pop(max_key, &mut steps, |index| Some(keys[index as usize])) {
                Some(index) => taken.push(keys[index as usize]),
                None if steps > 0 => return taken,
                None => assert!(heap.lower_bound().is_some_and(|bound| bound <= max_key)),
            }
        }
    }

    fn heap_of(keys: &[u64]) -> LazyRadixHeap {
        let mut heap = LazyRadixHeap::default();
        keys.iter().enumerate().for_each(|(index, &key)| heap.insert(index as u32, key));
        heap
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
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn indices_come_in_the_order_of_their_keys() {
        for steps in [1, 2, 3, 7, usize::MAX] {
            let keys = spread_keys();
            let mut heap = heap_of(&keys);
            let mut expected = keys.clone();
            expected.sort_unstable();
            assert_eq!(drain(&mut heap, &keys, u64::MAX, steps), expected, "{steps} steps");
            assert_eq!(heap.lower_bound(), None);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn keys_above_the_maximum_stay() {
        let keys = spread_keys();
        let mut heap = heap_of(&keys);
        let mut seen = Vec::new();
        for max_key in [0, 5, 1000, 1 << 40, u64::MAX] {
            let taken = drain(&mut heap, &keys, max_key, 3);
            assert!(taken.iter().all(|&key| key <= max_key));
            seen.extend(taken);
            let rest = keys.iter().filter(|&&key| key > max_key);
            assert_eq!(heap.indices().len(), rest.count());
        }
        assert!(seen.is_sorted());
    }

    #[test]
    fn a_raised_key_counts_when_its_index_comes_up() {
        let mut keys = vec![10, 20, 30];
        let mut heap = heap_of(&keys);
        keys[0] = 25;
        assert_eq!(drain(&mut heap, &keys, u64::MAX, 1), [20, 25, 30]);
    }

    #[test]
    fn an_index_without_a_key_is_dropped() {
        let mut heap = heap_of(&[40, 41]);
        let one = heap.pop(u64::MAX, &mut 100, |index| (index == 1).then_some(41));
        assert_eq!((one, heap.indices()), (Some(1), vec![]));
    }

    #[test]
    fn an_index_is_in_the_heap_once_and_can_be_removed() {
        let mut heap = heap_of(&[1_000]);
        heap.insert(0, 5);
        assert_eq!((heap.indices(), heap.peek_low()), (vec![0], Some(0)));
        assert!(heap.remove(0) && !heap.remove(0));
        assert_eq!((heap.lower_bound(), heap.peek_low()), (None, None));
    }

    #[test]
    fn a_key_below_the_base_comes_first() {
        let mut keys = vec![1_000, 2_000, 3];
        let mut heap = heap_of(&keys[..2]);
        assert_eq!(heap.pop(1_500, &mut 100, |index| Some(keys[index as usize])), Some(0));
        heap.insert(2, 3);
        keys[0] = 0;
        assert_eq!(drain(&mut heap, &keys, u64::MAX, 1), [3, 2_000]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn lower_bounds_and_searches_are_right_whatever_happens() {
        let mut random = 1u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 20) % below
        };
        let mut keys = vec![0; 60];
        let mut heap = LazyRadixHeap::default();
        let mut now = 0;
        for _ in 0..20_000 {
            let index = next(60);
            match next(5) {
                0 => {
                    keys[index as usize] = now + next(5_000);
                    heap.insert(index as u32, keys[index as usize]);
                }
                1 => keys[index as usize] += next(3_000),
                2 => drop((heap.remove(index as u32), keys[index as usize] = 0)),
                3 => now += next(40),
                _ => {
                    let mut steps = next(6) as usize;
                    match heap.pop(now, &mut steps, |index| Some(keys[index as usize])) {
                        Some(taken) => assert!(keys[taken as usize] <= now),
                        None if steps == 0 => {}
                        None => assert!(heap.indices().iter().all(|&index| keys[index as usize] > now)),
                    }
                }
            }
            let least = heap.indices().into_iter().map(|index| keys[index as usize]).min();
            assert!(heap.lower_bound() <= least, "{:?} is above {least:?}", heap.lower_bound());
        }
    }
}
