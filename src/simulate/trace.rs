//! The accesses of a trace, each as the number of its key: all of them, or those of a sample of the keys.
//!
//! # How it works
//! A key is in the sample if enough bits of its hash are zero. If the trace outgrows its [`Limits`], one more bit must
//! be zero, and the accesses of the keys that drop out are forgotten. So the sampling rate is a half, a quarter and so on.
//! At any time the sample is what it would be if the rate had been that from the start.
//!
//! # Why by key
//! Hits of a key depend on the accesses of that key and on how many others come between them. A sample of
//! keys has all accesses of each key, and the sampled part of the others. A sample of accesses has neither, nor has
//! the beginning of a trace.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasherDefault, Hasher};

use crate::cache::seed::IdentityHasher;

/// How large a trace may become before it is sampled.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_keys: usize,
    /// In a trace of at most this many accesses, the number of keys is not limited.
    pub exempt_accesses: usize,
    /// Does not apply to a trace of fewer than `MIN_KEYS` keys.
    pub max_accesses: usize,
}

impl Limits {
    /// A sample of fewer keys tells too little.
    const MIN_KEYS: usize = 1 << 14;

    /// Samples only a trace whose accesses a `u32` cannot number.
    pub const EXACT: Limits = Limits {
        max_keys: u32::MAX as usize,
        exempt_accesses: u32::MAX as usize,
        max_accesses: u32::MAX as usize,
    };

    /// Limits the sample to this many keys.
    pub fn of_keys(max_keys: usize) -> Self {
        Limits { max_keys, exempt_accesses: 0, ..Limits::default() }
    }
}

impl Default for Limits {
    /// Replays of a dozen capacities take about a minute, and the error is a few tenths of a point.
    fn default() -> Self {
        Limits { max_keys: 1 << 18, exempt_accesses: 1 << 22, max_accesses: 1 << 25 }
    }
}

pub struct Trace {
    /// The number of each sampled key, by its hash.
    key_numbers: HashMap<u64, u32, BuildHasherDefault<IdentityHasher>>,
    sampled_accesses: Vec<u32>,
    access_count: u64,
    empty_keys: u64,
    /// One key in 2 to this power is sampled.
    halvings: u32,
    limits: Limits,
}

impl Trace {
    pub fn new(limits: Limits) -> Self {
        Trace {
            key_numbers: HashMap::default(),
            sampled_accesses: Vec::new(),
            access_count: 0,
            empty_keys: 0,
            halvings: 0,
            limits,
        }
    }

    /// Records an access of a key. An empty key does not count as an access.
    ///
    /// A key is a sequence of bytes: two spellings are two keys.
    #[inline]
    pub fn record_key(&mut self, key: &[u8]) {
        if key.is_empty() {
            self.empty_keys += 1;
        } else {
            // With fixed keys, so that each process samples the same keys.
            let mut hasher = DefaultHasher::new();
            hasher.write(key);
            self.record(hasher.finish());
        }
    }

    /// Records an access of the key with this hash. All bits of the hash must be equally random.
    #[inline]
    pub fn record(&mut self, hash: u64) {
        self.access_count += 1;
        if !is_sampled(hash, self.halvings) {
            return;
        }
        let next = self.key_numbers.len() as u32;
        self.sampled_accesses.push(*self.key_numbers.entry(hash).or_insert(next));
        while self.exceeds_limits() {
            self.halve();
        }
    }

    /// How many accesses were recorded, sampled or not.
    pub fn access_count(&self) -> u64 {
        self.access_count
    }

    /// How many empty keys were left out.
    pub fn empty_keys(&self) -> u64 {
        self.empty_keys
    }

    /// How many distinct keys there are. An estimate, if the trace is sampled.
    pub fn distinct_keys(&self) -> u64 {
        (self.key_numbers.len() as f64 / self.sampling_rate()) as u64
    }

    /// How many distinct keys are in the sample. They are numbered from 0 on.
    pub fn sampled_keys(&self) -> usize {
        self.key_numbers.len()
    }

    /// The number of the key of each access in the sample.
    pub fn sampled_accesses(&self) -> &[u32] {
        &self.sampled_accesses
    }

    pub fn is_sampled(&self) -> bool {
        self.halvings > 0
    }

    /// The part of the keys that is in the sample, from 0 to 1.
    pub fn sampling_rate(&self) -> f64 {
        0.5f64.powi(self.halvings as i32)
    }

    fn exceeds_limits(&self) -> bool {
        let (keys, accesses) = (self.key_numbers.len(), self.sampled_accesses.len());
        keys > self.limits.max_keys && accesses > self.limits.exempt_accesses
            || accesses >= self.limits.max_accesses && keys >= Limits::MIN_KEYS
    }

    /// Halves the sampling rate, and numbers the keys that remain anew.
    #[cold]
    fn halve(&mut self) {
        const DROPPED: u32 = u32::MAX;
        self.halvings += 1;
        let mut renumbered = vec![DROPPED; self.key_numbers.len()];
        let mut next = 0;
        self.key_numbers.retain(|&hash, number| {
            let stays = is_sampled(hash, self.halvings);
            if stays {
                renumbered[*number as usize] = next;
                *number = next;
                next += 1;
            }
            stays
        });
        self.sampled_accesses.retain_mut(|number| {
            *number = renumbered[*number as usize];
            *number != DROPPED
        });
    }
}

/// Whether a hash is in a sample of one key in 2 to the power of `halvings`.
///
/// The hash map uses the lowest bits and the highest seven, so those do not decide.
#[inline]
fn is_sampled(hash: u64, halvings: u32) -> bool {
    (hash << 7).leading_zeros() >= halvings
}
