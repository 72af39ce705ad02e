//! How hashes are mixed.
//!
//! A seed keeps attackers from choosing keys that collide. Mixing matters because CPython hashes an int to itself.
//!
//! # How it works
//! A hash is multiplied to 128 bits by a secret of the process. The halves are folded, so that high bits reach the low
//! half. Then a shift and a second multiplication carry these bits up again, to the bits that choose the slot. The lowest
//! bits stay uneven, so they do not choose the shard.
//!
//! # Why not the folded product alone
//! Products of consecutive numbers are steps around a circle, and for some secrets the steps nearly close after a few.
//! In 1 of 20 processes a probe then passes twice as many slots as for random hashes, and in 1 of 300 it passes 100.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

#[derive(Clone, Copy)]
pub(crate) struct Seed {
    whiten: u64,
    multiply: u64,
}

/// 2^64 divided by the golden ratio, rounded to an odd number.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

impl Seed {
    /// Returns one of several seeds that are the same in each process. It gives no protection against chosen keys.
    pub fn fixed(index: u64) -> Self {
        // The digits of pi.
        let first = Seed::new(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);
        Seed::new(first.mix(2 * index), first.mix(2 * index + 1))
    }

    /// Returns the random seed of this process.
    #[cfg_attr(not(feature = "python"), allow(dead_code))]
    pub fn of_process() -> Self {
        static SEED: OnceLock<Seed> = OnceLock::new();
        *SEED.get_or_init(|| {
            let random = RandomState::new();
            Seed::new(random.hash_one(1), random.hash_one(2))
        })
    }

    const fn new(whiten: u64, multiply: u64) -> Self {
        Seed { whiten, multiply: multiply | 1 }
    }

    #[inline]
    pub fn mix(self, hash: u64) -> u64 {
        let product = u128::from(hash ^ self.whiten) * u128::from(self.multiply);
        let folded = (product as u64) ^ (product >> 64) as u64;
        (folded ^ folded >> 32).wrapping_mul(GOLDEN_RATIO)
    }
}

/// The hasher of maps whose keys are mixed hashes: it returns them unchanged.
#[derive(Default)]
pub(crate) struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are hashes");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(not(moka_gil))]
    use crate::shard::shards::shard_index;

    /// Hashes of numbers in a sequence.
    const PATTERNS: [fn(u64) -> u64; 7] = [
        |number| number,
        |number| number * 8,
        |number| number * 1_000,
        |number| number << 32,
        |number| number.rotate_right(16),
        |number| number.wrapping_neg(),
        |number| number / 50 * 65_536 + number % 50,
    ];

    fn random_seeds() -> impl Iterator<Item = Seed> {
        let random = RandomState::new();
        (0..500).map(move |trial| Seed::new(random.hash_one((trial, 1)), random.hash_one((trial, 2))))
    }

    /// Returns how many slots the look-up of an absent key passes on average.
    ///
    /// The table has 4,096 slots, and 2,500 hashes occupy one each by linear probing.
    fn mean_probe(hashes: impl Iterator<Item = u64>, seed: Seed) -> f64 {
        const BITS: u32 = 12;
        let mut used = [false; 1 << BITS];
        for hash in hashes.take(2_500) {
            let home = (seed.mix(hash) >> (64 - BITS)) as usize;
            let probe = (0..used.len()).map(|step| (home + step) % used.len());
            let free = probe.into_iter().find(|&slot| !used[slot]).expect("a slot is free");
            used[free] = true;
        }
        let (mut run, mut sum) = (0, 0);
        for slot in (0..2 * used.len()).rev() {
            run = if used[slot % used.len()] { run + 1 } else { 0 };
            sum += if slot < used.len() { run + 1 } else { 0 };
        }
        f64::from(sum) / used.len() as f64
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn hashes_with_a_pattern_spread_like_random_ones_for_every_seed() {
        // For random hashes at this load: Knuth, The Art of Computer Programming, volume 3, section 6.4.
        let expected = (1.0 + 1.0 / (1.0 - 2_500.0 / 4_096.0_f64).powi(2)) / 2.0;
        for seed in random_seeds() {
            for (index, pattern) in PATTERNS.iter().enumerate() {
                let mean = mean_probe((0..).map(pattern), seed);
                assert!(
                    mean < 2.0 * expected,
                    "{mean} for pattern {index}, {:#x}, {:#x}",
                    seed.whiten,
                    seed.multiply
                );
            }
        }
    }

    /// Returns the chi-squared statistic of how many of 2,048 hashes each of 64 shards gets.
    #[cfg(not(moka_gil))]
    fn unevenness_of_shards(hashes: impl Iterator<Item = u64>, seed: Seed) -> f64 {
        const EXPECTED: f64 = 2_048.0 / 64.0;
        let mut sizes = [0; 64];
        hashes.take(2_048).for_each(|hash| sizes[shard_index(seed.mix(hash), &sizes)] += 1);
        sizes.iter().map(|&size| (f64::from(size) - EXPECTED).powi(2) / EXPECTED).sum()
    }

    #[test]
    #[cfg(not(moka_gil))]
    #[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
    fn hashes_with_a_pattern_spread_over_the_shards_for_every_seed() {
        for seed in random_seeds() {
            for (index, pattern) in PATTERNS.iter().enumerate() {
                // For random hashes it is 63 in the mean, with a standard deviation of 11.
                let unevenness = unevenness_of_shards((0..).map(pattern), seed);
                assert!(
                    unevenness < 200.0,
                    "{unevenness} for pattern {index}, {:#x}, {:#x}",
                    seed.whiten,
                    seed.multiply
                );
            }
        }
    }

    #[test]
    fn another_seed_gives_other_hashes() {
        let (one, other) = (Seed::new(1, 2), Seed::new(3, 4));
        assert!((0..64).all(|number| one.mix(number) != other.mix(number)));
    }
}
