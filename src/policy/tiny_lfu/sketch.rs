//! How often a key was used of late: a count-min sketch of 4-bit counters.
//!
//! # How it works
//! A word holds 16 counters, and there is at least one word for each entry of the shard. A hash selects a
//! block of eight words, which is one cache line, and four counters in the block. The frequency of the hash is the
//! smallest of the four: Cormode, Muthukrishnan,
//! [An Improved Data Stream Summary](https://doi.org/10.1016/j.jalgor.2003.12.001) (2005).
//!
//! An access is added to the smallest counters alone ("conservative update"), since the others include
//! accesses of other hashes: Estan, Varghese, [New Directions in Traffic Measurement and
//! Accounting](https://doi.org/10.1145/633025.633056) (2002). Without that, if six keys for each entry were used
//! once, two in five of them would seem to have been used more.
//!
//! After a number of accesses for each entry all counters are halved, so the past fades: Einziger, Friedman, Manes,
//! [TinyLFU](https://doi.org/10.1145/3149371) (2017).
//!
//! The sketch grows with the entries that the shard holds, not with its capacity. To double it, each block is copied
//! to both blocks that its hashes may select then. A large sketch is doubled, and its counters are halved, a few
//! blocks with each insert. Until a block has its copies, it is used itself. Without these steps, the longest 16
//! inserts in a row into a cache of a million entries take 10 ms in place of 1.5 ms.
//!
//! # Invariants
//! - `no-underestimate`: as long as nothing is halved, a frequency is at least the number of accesses that were
//!   added, or [`MAX_COUNT`].
//! - `one-step-kind`: while blocks are copied none are halved, and the other way round. A block that is copied during
//!   a halving would be halved twice, or never.

use crate::sync::{Line, Zeroed, zeroed_lines};

const WORDS_PER_BLOCK: usize = 8;
const MIN_BLOCKS: usize = 2;
/// The highest value of a counter.
pub(super) const MAX_COUNT: u32 = 15;
/// All counters are halved after this many accesses for each entry. With 10, as in the paper, a loop that does not
/// fit has up to 3 points fewer hits. With 20, two traces of `stress/hit_ratio` have some tenths of a point fewer.
const SAMPLE_PER_ENTRY: u64 = 15;
/// The sample is never smaller than that of this many entries.
const MIN_SAMPLE_ENTRIES: u64 = 16;
/// The blocks that one call halves, or copies at once where the sketch has no more: some microseconds.
const MAX_BLOCKS_PER_CALL: usize = 64;
/// The blocks of a larger sketch that one call copies. One block in eight calls would be enough.
const COPIES_PER_CALL: usize = 8;

/// The fields that each access changes come first, beside the fields of the owner that each access changes.
#[derive(Default)]
#[repr(C)]
pub(super) struct Sketch {
    /// Accesses since the last halving.
    accesses: u64,
    /// A power of two of them.
    blocks: Option<Zeroed<Line>>,
    /// Twice as many, which replace `blocks` once all are copied.
    next: Option<Zeroed<Line>>,
    /// The number of blocks that have their copies in `next`; 0 without it.
    copied: usize,
    /// The number of blocks that are still to be halved: the first ones.
    unhalved: usize,
}

/// Spreads a hash again, since all hashes of a shard share some bits.
fn mix(hash: u64) -> u64 {
    let product = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

/// Where the four counters of a hash are in its block: a word and a shift for each.
fn counters_of(mixed: u64) -> [(usize, u32); 4] {
    std::array::from_fn(|row| {
        let bits = (mixed >> (row * 8)) as u32;
        // Row r has the words 2r and 2r + 1 to itself, so the four counters differ.
        (2 * row + (bits & 1) as usize, (bits >> 1 & 15) * 4)
    })
}

#[inline(always)]
fn counts(block: &Line, counters: [(usize, u32); 4]) -> [u32; 4] {
    counters.map(|(word, shift)| (block.0[word] >> shift) as u32 & MAX_COUNT)
}

#[inline(always)]
fn min_of([a, b, c, d]: [u32; 4]) -> u32 {
    a.min(b).min(c.min(d))
}

impl Sketch {
    /// Adds accesses of a hash.
    pub fn add(&mut self, hash: u64, accesses: u32) {
        let mixed = mix(hash);
        let (is_in_next, index) = self.block_of(mixed);
        let blocks = if is_in_next { &mut self.next } else { &mut self.blocks };
        let Some(block) = blocks.as_mut().and_then(|blocks| blocks.get_mut(index)) else { return };
        let counters = counters_of(mixed);
        let counts = counts(block, counters);
        let count = (min_of(counts) + accesses).min(MAX_COUNT);
        for ((word, shift), before) in counters.into_iter().zip(counts) {
            block.0[word] += u64::from(count.saturating_sub(before)) << shift;
        }
        self.accesses += u64::from(accesses);
    }

    pub fn frequency(&self, hash: u64) -> u32 {
        let mixed = mix(hash);
        self.block(mixed).map_or(0, |block| min_of(counts(block, counters_of(mixed))))
    }

    #[inline(always)]
    fn block(&self, mixed: u64) -> Option<&Line> {
        let (is_in_next, index) = self.block_of(mixed);
        let blocks = if is_in_next { &self.next } else { &self.blocks };
        blocks.as_ref()?.get(index)
    }

    /// Where the block of a hash is: whether in `next`, and its index there. The low bits of the hash are the index,
    /// so a sketch of twice the size adds one bit above them.
    #[inline(always)]
    fn block_of(&self, mixed: u64) -> (bool, usize) {
        let bits = (mixed >> 32) as usize;
        let index = bits & self.len().wrapping_sub(1);
        if index >= self.copied { (false, index) } else { (true, bits & (2 * self.len() - 1)) }
    }

    fn len(&self) -> usize {
        self.blocks.as_ref().map_or(0, |blocks| blocks.len())
    }

    /// Does one step of growing to `entries` entries, or of halving the counters, if either is due.
    #[inline]
    pub fn maintain(&mut self, entries: usize) {
        let is_idle = self.unhalved == 0 && self.next.is_none();
        if !is_idle || self.is_too_small_for(entries) || self.is_sample_full(entries) {
            self.maintain_slow(entries);
        }
    }

    fn is_too_small_for(&self, entries: usize) -> bool {
        entries > self.len() * WORDS_PER_BLOCK
    }

    fn is_sample_full(&self, entries: usize) -> bool {
        self.accesses >= SAMPLE_PER_ENTRY * (entries as u64).max(MIN_SAMPLE_ENTRIES)
    }

    #[cold]
    fn maintain_slow(&mut self, entries: usize) {
        // `one-step-kind`.
        if self.unhalved == 0 {
            if (self.next.is_some() || self.is_too_small_for(entries)) && self.grow(entries) {
                return;
            }
            if self.is_sample_full(entries) {
                self.accesses /= 2;
                self.unhalved = self.len();
            }
        }
        self.halve_some();
    }

    /// Copies some blocks to a sketch of twice the size. Returns false if there is no memory: the sketch stays
    /// smaller and less exact, and the next insert tries again.
    fn grow(&mut self, entries: usize) -> bool {
        let Some(blocks) = &self.blocks else {
            self.blocks = zeroed_lines(entries.div_ceil(WORDS_PER_BLOCK).next_power_of_two().max(MIN_BLOCKS));
            return self.blocks.is_some();
        };
        let half = blocks.len();
        if self.next.is_none() {
            self.next = zeroed_lines(2 * half);
        }
        let Some(next) = &mut self.next else { return false };
        let count = if half <= MAX_BLOCKS_PER_CALL { half } else { COPIES_PER_CALL };
        let range = self.copied..self.copied + count;
        next[range.clone()].copy_from_slice(&blocks[range.clone()]);
        next[half..][range.clone()].copy_from_slice(&blocks[range.clone()]);
        self.copied = range.end;
        if self.copied == half {
            self.blocks = self.next.take();
            self.copied = 0;
        }
        true
    }

    /// Forgets all counts and releases the memory, if it is far more than `entries` entries need.
    pub fn trim(&mut self, entries: usize) {
        if entries < self.len() * WORDS_PER_BLOCK / 8 {
            *self = Sketch::default();
        }
    }

    fn halve_some(&mut self) {
        const HALF_MASK: u64 = 0x7777_7777_7777_7777;
        let rest = self.unhalved.saturating_sub(MAX_BLOCKS_PER_CALL);
        for block in self.blocks.iter_mut().flat_map(|blocks| &mut blocks[rest..self.unhalved]) {
            for word in &mut block.0 {
                *word = *word >> 1 & HALF_MASK;
            }
        }
        self.unhalved = rest;
    }
}

#[cfg(test)]
impl Sketch {
    pub fn heap_bytes(&self) -> usize {
        let next = self.next.as_ref().map_or(0, |next| next.len());
        (self.len() + next) * size_of::<Line>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::sized_for_miri;

    fn hash(key: u64) -> u64 {
        (key + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    fn sketch_for(entries: usize) -> Sketch {
        let mut sketch = Sketch::default();
        sketch.maintain(entries);
        sketch
    }

    #[test]
    fn accesses_are_counted_up_to_the_maximum() {
        let mut sketch = sketch_for(100);
        assert_eq!(sketch.frequency(hash(1)), 0);
        sketch.add(hash(1), 1);
        sketch.add(hash(1), 4);
        assert_eq!(sketch.frequency(hash(1)), 5);
        sketch.add(hash(1), 14);
        sketch.add(hash(1), 1);
        assert_eq!(sketch.frequency(hash(1)), MAX_COUNT);
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn counters_do_not_overflow_into_their_neighbours() {
        let mut sketch = sketch_for(1);
        for key in 0..200 {
            (0..20).for_each(|_| sketch.add(hash(key), MAX_COUNT));
        }
        assert!((0..200).all(|key| sketch.frequency(hash(key)) == MAX_COUNT));
        sketch.unhalved = sketch.len();
        sketch.halve_some();
        assert!((0..200).all(|key| sketch.frequency(hash(key)) == MAX_COUNT / 2));
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn a_frequency_is_never_too_low_and_seldom_too_high() {
        let mut sketch = sketch_for(1_000);
        for key in 0..1_000 {
            sketch.add(hash(key), (key % 7) as u32);
        }
        let excess = |key: u64| sketch.frequency(hash(key)) - (key % 7) as u32;
        let wrong = (0..1_000).filter(|&key| excess(key) > 0).count();
        assert!(wrong < 50, "{wrong} of 1000 are too high");
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn of_many_keys_used_once_few_seem_to_have_been_used_more() {
        let mut sketch = sketch_for(1_024);
        // Six keys for each entry, as in a cache that is read through.
        (0..6_144).for_each(|key| sketch.add(hash(key), 1));
        let wrong = (0..6_144).filter(|&key| sketch.frequency(hash(key)) > 1).count();
        // If each access went to all four counters, it would be 2,606.
        assert!(wrong < 1_200, "{wrong} of 6,144");
    }

    #[test]
    fn growth_keeps_the_counts() {
        let mut sketch = sketch_for(10);
        (0..10).for_each(|key| sketch.add(hash(key), key as u32));
        let before: Vec<u32> = (0..10).map(|key| sketch.frequency(hash(key))).collect();
        for entries in [11, 16, 17, 300, 5_000] {
            while sketch.is_too_small_for(entries) {
                sketch.maintain(entries);
                assert_eq!((0..10).map(|key| sketch.frequency(hash(key))).collect::<Vec<_>>(), before);
            }
            assert!(sketch.len() / 2 < entries.div_ceil(WORDS_PER_BLOCK));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn a_large_sketch_grows_and_fades_in_steps() {
        let entries = 100 * MAX_BLOCKS_PER_CALL * WORDS_PER_BLOCK;
        let mut sketch = sketch_for(entries);
        let whole = sketch.len();
        let counted: Vec<u64> = (0..500).map(hash).collect();
        counted.iter().for_each(|&hash| sketch.add(hash, 8));
        let seen = |sketch: &Sketch| counted.iter().map(|&hash| sketch.frequency(hash)).collect::<Vec<_>>();
        let before = seen(&sketch);
        let mut steps = 0;
        while sketch.len() < 2 * whole {
            sketch.maintain(whole * WORDS_PER_BLOCK + 1);
            assert_eq!(seen(&sketch), before);
            steps += 1;
        }
        assert!(steps <= whole * WORDS_PER_BLOCK, "it has doubled before it is too small again");
        assert!(steps > 10);
        sketch.accesses = SAMPLE_PER_ENTRY * entries as u64;
        sketch.maintain(entries);
        assert!(sketch.unhalved > 0 && !sketch.is_sample_full(entries));
        while sketch.unhalved > 0 {
            sketch.maintain(entries);
        }
        assert!(seen(&sketch).iter().zip(before).all(|(&now, before)| now == before / 2));
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn counts_are_halved_after_a_sample() {
        let mut sketch = sketch_for(100);
        sketch.add(hash(1), 12);
        (0..SAMPLE_PER_ENTRY * 100).for_each(|key| sketch.add(hash(key + 10), 1));
        sketch.maintain(100);
        let faded = sketch.frequency(hash(1));
        assert!((6..12).contains(&faded), "{faded}");
        assert!(sketch.accesses < SAMPLE_PER_ENTRY * 100);
    }

    #[test]
    fn the_four_counters_of_a_hash_differ() {
        for key in 0..sized_for_miri(1_000, 100) {
            let counters = counters_of(mix(hash(key)));
            assert!(counters.iter().enumerate().all(|(row, &(word, shift))| word / 2 == row && shift < 64));
        }
    }
}
