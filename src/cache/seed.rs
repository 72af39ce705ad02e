//! How hashes are mixed: seeded, so that nobody can make keys that collide, and thoroughly, since CPython hashes
//! an int to itself.
//!
//! # How it works
//! One multiplication to 128 bits with a secret of the process, folded, so that high bits come down; then a shift
//! and another multiplication, so that what came down goes up again, to the bits that choose the slot.
//!
//! # Why not the folded product alone
//! To multiply consecutive numbers is to step around a circle, and for some secrets the steps all but close after
//! a few: in one process of twenty a probe then passes twice the slots of a random hash, and in one of three
//! hundred it passes a hundred.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

#[derive(Clone, Copy)]
pub(crate) struct Seed {
    whiten: u64,
    multiply: u64,
}

/// 2^64 over the golden ratio, and odd.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Seed {
    /// One of several that are the same in each process, where nobody chooses keys to do harm.
    pub fn fixed(number: u64) -> Self {
        // Digits of pi, so that nobody asks why these.
        let first = Seed::new(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);
        Seed::new(first.mix(2 * number), first.mix(2 * number + 1))
    }

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
        (folded ^ folded >> 32).wrapping_mul(SPREAD)
    }
}

/// For maps whose keys are hashes, which are mixed already.
#[derive(Default)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
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

    /// How many slots the look-up of an absent key passes on average, in a table of 4,096 slots that 2,500
    /// of these take by linear probing.
    fn mean_probe(hashes: impl Iterator<Item = u64>, seed: Seed) -> f64 {
        const BITS: u32 = 12;
        let mut taken = [false; 1 << BITS];
        for hash in hashes.take(2_500) {
            let home = (seed.mix(hash) >> (64 - BITS)) as usize;
            let probe = (0..taken.len()).map(|step| (home + step) % taken.len());
            let free = probe.into_iter().find(|&slot| !taken[slot]).expect("a slot is free");
            taken[free] = true;
        }
        let (mut run, mut sum) = (0, 0);
        for slot in (0..2 * taken.len()).rev() {
            run = if taken[slot % taken.len()] { run + 1 } else { 0 };
            sum += if slot < taken.len() { run + 1 } else { 0 };
        }
        f64::from(sum) / taken.len() as f64
    }

    #[test]
    fn hashes_with_a_pattern_spread_as_random_ones_do_whatever_the_seed() {
        // Knuth, The Art of Computer Programming, volume 3, 6.4: so many for random hashes, at this load.
        let expected = (1.0 + 1.0 / (1.0 - 2_500.0 / 4_096.0_f64).powi(2)) / 2.0;
        let patterns: [fn(u64) -> u64; 6] = [
            |number| number,
            |number| number * 1_000,
            |number| number << 32,
            |number| number.rotate_right(16),
            |number| number.wrapping_neg(),
            |number| number / 50 * 65_536 + number % 50,
        ];
        let random = RandomState::new();
        for trial in 0..500 {
            let seed = Seed::new(random.hash_one((trial, 1)), random.hash_one((trial, 2)));
            for (index, pattern) in patterns.iter().enumerate() {
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

    #[test]
    fn another_seed_mixes_otherwise() {
        let (one, other) = (Seed::new(1, 2), Seed::new(3, 4));
        assert!((0..64).all(|number| one.mix(number) != other.mix(number)));
    }
}
