//! How often a key was used of late: a count-min sketch of 4-bit counters.
//!
//! # How it works
//! A word holds 16 counters, and there is at least one word for each entry that the shard holds. A hash picks a
//! block of eight words, one cache line, and in it four counters; its frequency is the smallest of them. A use is
//! added to the smallest alone, since the others say more than it has: else of six keys for each entry that were used
//! once, two in five would seem to have been used more. After some uses for each entry all counters are halved, so that
//! the past fades. Cormode and Muthukrishnan, "An Improved Data Stream Summary" (2005); Estan and Varghese, "New
//! Directions in Traffic Measurement and Accounting" (2002), for the smallest alone; Einziger, Friedman, Manes,
//! "TinyLFU: A Highly Efficient Cache Admission Policy" (2017).
//!
//! The sketch grows with what the shard holds, not with its capacity: the counters of a block are copied to
//! both blocks that its keys may fall into then. A large one is grown, and halved, a few blocks with each newcomer, since
//! to go through megabytes takes milliseconds: a block that has no copy yet stands for it.

use crate::sync::{Line, Zeroed, prefetch_write, zeroed_lines};

const LANES: usize = 8;
const LEAST_BLOCKS: usize = 2;
/// Counters end at this.
pub(super) const MOST: u32 = 15;
/// All counters are halved after this many uses for each entry. With 10, as in the paper on TinyLFU, a loop that does not
/// fit has up to 3 points fewer hits; with 20 two traces of `stress/hit_ratio` have some tenths fewer.
const SAMPLE: u64 = 15;
/// A sample is never smaller than that of this many entries.
const LEAST_SAMPLED: u64 = 16;
/// So many blocks are copied or halved at once: some microseconds.
const BLOCKS_AT_ONCE: usize = 64;
/// And so many copied with each newcomer beyond that, where one in eight would do.
const COPIES: usize = 8;

/// What each use changes comes first, for who keeps it beside more of the kind.
#[derive(Default)]
#[repr(C)]
pub(super) struct Sketch {
    /// Uses since the last halving.
    uses: u64,
    /// A power of two of them.
    blocks: Option<Zeroed<Line>>,
    /// Twice as many, on their way to take the place of the others.
    next: Option<Zeroed<Line>>,
    /// How many blocks have their copies there; 0 without it.
    copied: usize,
    /// The blocks still to be halved, those in front.
    unhalved: usize,
}

/// All hashes of a shard share their lowest bits, so the sketch makes bits of its own.
fn mix(hash: u64) -> u64 {
    let product = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

/// Where the four counters of a hash are in its block: a word and a shift for each.
fn places(mixed: u64) -> [(usize, u32); 4] {
    std::array::from_fn(|row| {
        let bits = (mixed >> (row * 8)) as u32;
        // Row r has words 2r and 2r + 1 to itself, so no two counters are the same.
        (2 * row + (bits & 1) as usize, (bits >> 1 & 15) * 4)
    })
}

#[inline(always)]
fn counts(block: &Line, places: [(usize, u32); 4]) -> [u32; 4] {
    places.map(|(word, shift)| (block.0[word] >> shift) as u32 & MOST)
}

#[inline(always)]
fn least([a, b, c, d]: [u32; 4]) -> u32 {
    a.min(b).min(c.min(d))
}

impl Sketch {
    /// Counts so many uses.
    pub fn add(&mut self, hash: u64, uses: u32) {
        let mixed = mix(hash);
        let (is_next, index) = self.place(mixed);
        let blocks = if is_next { &mut self.next } else { &mut self.blocks };
        let Some(block) = blocks.as_mut().and_then(|blocks| blocks.get_mut(index)) else { return };
        let places = places(mixed);
        let counts = counts(block, places);
        let count = (least(counts) + uses).min(MOST);
        for ((word, shift), before) in places.into_iter().zip(counts) {
            block.0[word] += u64::from(count.saturating_sub(before)) << shift;
        }
        self.uses += u64::from(uses);
    }

    pub fn frequency(&self, hash: u64) -> u32 {
        let mixed = mix(hash);
        self.block(mixed).map_or(0, |block| least(counts(block, places(mixed))))
    }

    /// Asks ahead for what a use of this hash changes.
    pub fn prefetch(&self, hash: u64) {
        self.block(mix(hash)).into_iter().for_each(prefetch_write);
    }

    #[inline(always)]
    fn block(&self, mixed: u64) -> Option<&Line> {
        let (is_next, index) = self.place(mixed);
        let blocks = if is_next { &self.next } else { &self.blocks };
        blocks.as_ref()?.get(index)
    }

    /// Where the block of a hash is: whether in the next sketch, and its index there. Its low bits say it, so that a sketch
    /// of twice the size adds one bit above them.
    #[inline(always)]
    fn place(&self, mixed: u64) -> (bool, usize) {
        let place = (mixed >> 32) as usize;
        let index = place & self.len().wrapping_sub(1);
        if index >= self.copied { (false, index) } else { (true, place & (2 * self.len() - 1)) }
    }

    fn len(&self) -> usize {
        self.blocks.as_ref().map_or(0, |blocks| blocks.len())
    }

    /// Grows to `entries` entries and lets the past fade; or goes on with either.
    #[inline]
    pub fn maintain(&mut self, entries: usize) {
        let is_at_rest = self.unhalved == 0 && self.next.is_none();
        if !is_at_rest || self.is_short_of(entries) || self.is_full(entries) {
            self.go_on(entries);
        }
    }

    fn is_short_of(&self, entries: usize) -> bool {
        entries > self.len() * LANES
    }

    fn is_full(&self, entries: usize) -> bool {
        self.uses >= SAMPLE * (entries as u64).max(LEAST_SAMPLED)
    }

    #[cold]
    fn go_on(&mut self, entries: usize) {
        // One after the other: a block that is copied while others are halved would be halved twice, or never.
        if self.unhalved == 0 {
            if (self.next.is_some() || self.is_short_of(entries)) && self.grow(entries) {
                return;
            }
            if self.is_full(entries) {
                self.uses /= 2;
                self.unhalved = self.len();
            }
        }
        self.halve_some();
    }

    /// Copies some blocks to a sketch of twice the size. False without memory: a smaller sketch is less exact, and asks
    /// again with the next entry.
    fn grow(&mut self, entries: usize) -> bool {
        let Some(blocks) = &self.blocks else {
            self.blocks = zeroed_lines(entries.div_ceil(LANES).next_power_of_two().max(LEAST_BLOCKS));
            return self.blocks.is_some();
        };
        let half = blocks.len();
        if self.next.is_none() {
            self.next = zeroed_lines(2 * half);
        }
        let Some(next) = &mut self.next else { return false };
        let many = if half <= BLOCKS_AT_ONCE { half } else { COPIES };
        let some = self.copied..self.copied + many;
        next[some.clone()].copy_from_slice(&blocks[some.clone()]);
        next[half..][some.clone()].copy_from_slice(&blocks[some.clone()]);
        self.copied = some.end;
        if self.copied == half {
            self.blocks = self.next.take();
            self.copied = 0;
        }
        true
    }

    /// Forgets all, with its memory, where it is far larger than what is left needs.
    pub fn trim(&mut self, entries: usize) {
        if entries < self.len() * LANES / 8 {
            *self = Sketch::default();
        }
    }

    fn halve_some(&mut self) {
        const HALVES: u64 = 0x7777_7777_7777_7777;
        let rest = self.unhalved.saturating_sub(BLOCKS_AT_ONCE);
        for block in self.blocks.iter_mut().flat_map(|blocks| &mut blocks[rest..self.unhalved]) {
            for word in &mut block.0 {
                *word = *word >> 1 & HALVES;
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

    fn hash(key: u64) -> u64 {
        (key + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    fn sketch_for(entries: usize) -> Sketch {
        let mut sketch = Sketch::default();
        sketch.maintain(entries);
        sketch
    }

    #[test]
    fn uses_are_counted_up_to_the_most() {
        let mut sketch = sketch_for(100);
        assert_eq!(sketch.frequency(hash(1)), 0);
        sketch.add(hash(1), 1);
        sketch.add(hash(1), 4);
        assert_eq!(sketch.frequency(hash(1)), 5);
        sketch.add(hash(1), 14);
        sketch.add(hash(1), 1);
        assert_eq!(sketch.frequency(hash(1)), MOST);
    }

    #[test]
    fn counters_do_not_flow_into_their_neighbours() {
        let mut sketch = sketch_for(1);
        for key in 0..200 {
            (0..20).for_each(|_| sketch.add(hash(key), MOST));
        }
        assert!((0..200).all(|key| sketch.frequency(hash(key)) == MOST));
        sketch.unhalved = sketch.len();
        sketch.halve_some();
        assert!((0..200).all(|key| sketch.frequency(hash(key)) == MOST / 2));
    }

    #[test]
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
    fn of_many_keys_that_were_used_once_few_seem_to_have_been_used_more() {
        let mut sketch = sketch_for(1_024);
        // Six for each entry, as of a cache that is read through.
        (0..6_144).for_each(|key| sketch.add(hash(key), 1));
        let wrong = (0..6_144).filter(|&key| sketch.frequency(hash(key)) > 1).count();
        // Added to all four counters it would be 2,606.
        assert!(wrong < 1_200, "{wrong} of 6,144");
    }

    #[test]
    fn growth_keeps_what_was_counted() {
        let mut sketch = sketch_for(10);
        (0..10).for_each(|key| sketch.add(hash(key), key as u32));
        let before: Vec<u32> = (0..10).map(|key| sketch.frequency(hash(key))).collect();
        for entries in [11, 16, 17, 300, 5_000] {
            while sketch.is_short_of(entries) {
                sketch.maintain(entries);
                assert_eq!((0..10).map(|key| sketch.frequency(hash(key))).collect::<Vec<_>>(), before);
            }
            assert!(sketch.len() / 2 < entries.div_ceil(LANES));
        }
    }

    #[test]
    fn a_large_sketch_grows_and_fades_in_steps() {
        let entries = 100 * BLOCKS_AT_ONCE * LANES;
        let mut sketch = sketch_for(entries);
        let whole = sketch.len();
        let counted: Vec<u64> = (0..500).map(hash).collect();
        counted.iter().for_each(|&hash| sketch.add(hash, 8));
        let seen = |sketch: &Sketch| counted.iter().map(|&hash| sketch.frequency(hash)).collect::<Vec<_>>();
        let before = seen(&sketch);
        let mut steps = 0;
        while sketch.len() < 2 * whole {
            sketch.maintain(whole * LANES + 1);
            assert_eq!(seen(&sketch), before);
            steps += 1;
        }
        assert!(steps <= whole * LANES, "it is whole before it is short again");
        assert!(steps > 10);
        sketch.uses = SAMPLE * entries as u64;
        sketch.maintain(entries);
        assert!(sketch.unhalved > 0 && !sketch.is_full(entries));
        while sketch.unhalved > 0 {
            sketch.maintain(entries);
        }
        assert!(seen(&sketch).iter().zip(before).all(|(&now, before)| now == before / 2));
    }

    #[test]
    fn the_past_fades_after_a_sample() {
        let mut sketch = sketch_for(100);
        sketch.add(hash(1), 12);
        (0..SAMPLE * 100).for_each(|key| sketch.add(hash(key + 10), 1));
        sketch.maintain(100);
        let faded = sketch.frequency(hash(1));
        assert!((6..12).contains(&faded), "{faded}");
        assert!(sketch.uses < SAMPLE * 100);
    }

    #[test]
    fn the_counters_of_a_hash_are_four_different_ones() {
        for key in 0..1_000 {
            let places = places(mix(hash(key)));
            assert!(places.iter().enumerate().all(|(row, &(word, shift))| word / 2 == row && shift < 64));
        }
    }
}
