//! Random choices of tests, by a seed or by the bytes of a fuzzer.

use std::collections::VecDeque;

use super::mix_hash;

/// The source of a test's choices.
pub enum Random {
    /// Pseudo-random numbers.
    Seed(u64),
    /// The bytes of a fuzzer, which end.
    Tape(VecDeque<u8>),
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Random::Seed(mix_hash(seed) | 1)
    }

    pub fn tape(bytes: &[u8]) -> Self {
        Random::Tape(bytes.iter().copied().collect())
    }

    /// Whether the bytes are used up. From then on every number is 0.
    pub fn is_over(&self) -> bool {
        matches!(self, Random::Tape(bytes) if bytes.is_empty())
    }

    pub fn next(&mut self) -> u64 {
        match self {
            Random::Seed(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                state.wrapping_mul(0x2545_f491_4f6c_dd1d)
            }
            Random::Tape(_) => self.take(8),
        }
    }

    /// Returns a number below `end`. It takes only as many bytes from a tape as `end` needs.
    pub fn below(&mut self, end: u64) -> u64 {
        match self {
            Random::Seed(_) => (self.next() >> 32) % end,
            Random::Tape(_) => self.take((end.ilog2() / 8 + 1) as usize) % end,
        }
    }

    fn take(&mut self, many: usize) -> u64 {
        let Random::Tape(bytes) = self else { unreachable!("only a tape is asked") };
        (0..many).fold(0, |number, _| number << 8 | u64::from(bytes.pop_front().unwrap_or(0)))
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Returns the seed of this run: `MOKA_TEST_SEED`, or the time. It is printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let seed = match std::env::var("MOKA_TEST_SEED") {
        Ok(seed) => seed.parse().expect("MOKA_TEST_SEED is a number"),
        // Miri has no time of day.
        Err(_) if cfg!(miri) => 1,
        Err(_) => std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64),
    };
    println!("MOKA_TEST_SEED={seed}");
    seed
}
