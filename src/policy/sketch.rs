//! How often a key was used of late: a count-min sketch of 4-bit counters.
//!
//! # How it works
//! A word holds 16 counters, and there is at least one word for each entry that the shard holds. A hash picks a
//! block of eight words, one cache line, and in it four counters; its frequency is the smallest of them.
//! After ten uses for each entry all counters are halved, so that the past fades. Cormode and
//! Muthukrishnan, "An Improved Data Stream Summary" (2005); Einziger, Friedman, Manes, "TinyLFU: A
//! Highly Efficient Cache Admission Policy" (2017).
//!
//! The sketch grows with what the shard holds, not with its capacity: the counters of a block are copied to
//! both blocks that its keys may fall into then.

const LANES: usize = 8;
const LEAST_BLOCKS: usize = 2;
/// Counters end at this.
pub(super) const MOST: u32 = 15;
/// All counters are halved after this many uses for each entry.
const SAMPLE: u64 = 10;
/// A sample is never smaller than that of this many entries.
const LEAST_SAMPLED: u64 = 16;

#[repr(align(64))]
#[derive(Clone, Default)]
struct Block([u64; LANES]);

#[derive(Default)]
pub(super) struct Sketch {
    blocks: Vec<Block>,
    /// Uses since the last halving.
    uses: u64,
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

impl Sketch {
    /// Counts so many uses.
    pub fn add(&mut self, hash: u64, uses: u32) {
        if self.blocks.is_empty() {
            return;
        }
        self.uses += u64::from(uses);
        let mixed = mix(hash);
        let index = self.index(mixed);
        let block = &mut self.blocks[index];
        for (word, shift) in places(mixed) {
            let room = !block.0[word] >> shift & u64::from(MOST);
            block.0[word] += u64::from(uses).min(room) << shift;
        }
    }

    pub fn frequency(&self, hash: u64) -> u32 {
        if self.blocks.is_empty() {
            return 0;
        }
        let mixed = mix(hash);
        let block = &self.blocks[self.index(mixed)];
        let counts = places(mixed).map(|(word, shift)| (block.0[word] >> shift) as u32 & MOST);
        counts.into_iter().min().expect("there are four counters")
    }

    /// Grows to `entries` entries and lets the past fade.
    #[inline]
    pub fn maintain(&mut self, entries: usize) {
        if entries > self.blocks.len() * LANES {
            self.grow(entries);
        }
        if self.uses >= SAMPLE * (entries as u64).max(LEAST_SAMPLED) {
            self.age();
        }
    }

    /// Without memory it stays as it is: a smaller sketch is less exact, and asks again with the next entry.
    #[cold]
    fn grow(&mut self, entries: usize) {
        let blocks = entries.div_ceil(LANES).next_power_of_two().max(LEAST_BLOCKS);
        if self.blocks.try_reserve_exact(blocks - self.blocks.len()).is_err() {
            return;
        }
        if self.blocks.is_empty() {
            self.blocks.resize(blocks, Block::default());
        }
        while self.blocks.len() < blocks {
            // The block of a hash is its low bits, so a sketch of twice the size adds one bit above them.
            self.blocks.extend_from_within(..);
        }
    }

    /// Forgets all, with its memory, where it is far larger than what is left needs.
    pub fn trim(&mut self, entries: usize) {
        if entries < self.blocks.len() * LANES / 8 {
            *self = Sketch::default();
        }
    }

    #[cold]
    fn age(&mut self) {
        const HALVES: u64 = 0x7777_7777_7777_7777;
        for block in &mut self.blocks {
            for word in &mut block.0 {
                *word = *word >> 1 & HALVES;
            }
        }
        self.uses /= 2;
    }

    #[inline]
    fn index(&self, mixed: u64) -> usize {
        (mixed >> 32) as usize & (self.blocks.len() - 1)
    }
}

#[cfg(test)]
impl Sketch {
    pub fn heap_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Block>()
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
        sketch.age();
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
    fn growth_keeps_what_was_counted() {
        let mut sketch = sketch_for(10);
        (0..10).for_each(|key| sketch.add(hash(key), key as u32));
        let before: Vec<u32> = (0..10).map(|key| sketch.frequency(hash(key))).collect();
        for entries in [11, 16, 17, 300, 5_000] {
            sketch.maintain(entries);
            assert!(sketch.blocks.len() * LANES >= entries && sketch.blocks.len().is_power_of_two());
            assert_eq!((0..10).map(|key| sketch.frequency(hash(key))).collect::<Vec<_>>(), before);
        }
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
