//! The accesses of a trace, each as the number of its key; all of them, or those of a sample of the keys.
//!
//! # How it works
//! Of each key's hash some bits say whether it is in the sample: those with so many zeros are. With more than the limits
//! allow, one zero more is asked for, and the accesses of the keys that have it not are forgotten. So
//! the rate is a half, a quarter and so on, and at any time the sample is what it would be had the rate been
//! that from the start.
//!
//! # Why by key
//! What a cache does with a key depends on the key's accesses and on how many others come between. A sample of keys has
//! all accesses of each, and of the others its part; a sample of accesses, or the beginning, has neither.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::cache::seed::IdentityHasher;

/// What a trace may hold before it is sampled.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most keys, in a trace of more than `few` accesses.
    pub keys: usize,
    pub few: usize,
    /// The most accesses, as long as there are [`Limits::LEAST_KEYS`] or more.
    pub accesses: usize,
}

impl Limits {
    /// With fewer keys a sample is luck.
    const LEAST_KEYS: usize = 1 << 14;

    /// Nothing is left out, up to what the numbers can tell apart.
    pub const EXACT: Limits =
        Limits { keys: u32::MAX as usize, few: u32::MAX as usize, accesses: u32::MAX as usize };

    /// So many keys at most.
    pub fn of_keys(keys: usize) -> Self {
        Limits { keys, few: 0, ..Limits::default() }
    }
}

impl Default for Limits {
    /// Sampled so that the replays of a dozen capacities take a minute or so, and the error is a few tenths of a point.
    fn default() -> Self {
        Limits { keys: 1 << 18, few: 1 << 22, accesses: 1 << 25 }
    }
}

pub struct Trace {
    numbers: HashMap<u64, u32, BuildHasherDefault<IdentityHasher>>,
    accesses: Vec<u32>,
    /// Accesses in all, also those outside of the sample.
    total: u64,
    /// The rate is one key in 2 to this.
    halvings: u32,
    limits: Limits,
}

impl Trace {
    pub fn new(limits: Limits) -> Self {
        Trace { numbers: HashMap::default(), accesses: Vec::new(), total: 0, halvings: 0, limits }
    }

    /// Adds an access of a key that has this hash, of which each bit is as good as any other.
    #[inline]
    pub fn access(&mut self, hash: u64) {
        self.total += 1;
        if !is_in(hash, self.halvings) {
            return;
        }
        let next = self.numbers.len() as u32;
        self.accesses.push(*self.numbers.entry(hash).or_insert(next));
        while self.is_over() {
            self.halve();
        }
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many different keys there are; where it is sampled, about as many.
    pub fn distinct(&self) -> u64 {
        (self.numbers.len() as f64 / self.rate()) as u64
    }

    /// How many different keys are in the sample.
    pub fn kept_keys(&self) -> usize {
        self.numbers.len()
    }

    /// The number of the key of each access in the sample.
    pub fn accesses(&self) -> &[u32] {
        &self.accesses
    }

    pub fn is_sampled(&self) -> bool {
        self.halvings > 0
    }

    /// The part of the keys that is in the sample.
    pub fn rate(&self) -> f64 {
        0.5f64.powi(self.halvings as i32)
    }

    fn is_over(&self) -> bool {
        let (keys, accesses) = (self.numbers.len(), self.accesses.len());
        keys > self.limits.keys && accesses > self.limits.few
            || accesses >= self.limits.accesses && keys >= Limits::LEAST_KEYS
    }

    #[cold]
    fn halve(&mut self) {
        const GONE: u32 = u32::MAX;
        self.halvings += 1;
        let mut renumbered = vec![GONE; self.numbers.len()];
        let mut next = 0;
        self.numbers.retain(|&hash, number| {
            let stays = is_in(hash, self.halvings);
            if stays {
                renumbered[*number as usize] = next;
                *number = next;
                next += 1;
            }
            stays
        });
        self.accesses.retain_mut(|number| {
            *number = renumbered[*number as usize];
            *number != GONE
        });
    }
}

/// Whether a hash is in a sample of one in 2 to `halvings`. A hash map goes by the lowest bits and by the
/// highest seven, so those are left out.
#[inline]
fn is_in(hash: u64, halvings: u32) -> bool {
    (hash << 7).leading_zeros() >= halvings
}
