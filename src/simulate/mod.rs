//! Hit ratios of a trace at several capacities, without its values. They tell how large a cache should be.
//!
//! # How it works
//! A [`Trace`] numbers the keys, which [`KeyLines`] splits a text into. For each capacity the numbers go through a
//! [`Cache`] as any other keys would: a get, and after a miss a set, in one thread. So the figures are those of the
//! cache itself, with its shards. Beside them stand the hits of a policy that knows the future, the [`optimum`].
//!
//! A long trace is sampled by key, and the capacity is scaled down by the same rate: Waldspurger, Park, Garthwaite, Ahmad,
//! "Efficient MRC Construction with SHARDS" (2015); Waldspurger, Saemundsson, Ahmad, Park, "Cache Modeling and
//! Optimization using Miniature Simulations" (2017). Whether a sample has its share of the accesses depends on the few
//! hottest keys, which hit at any capacity. So the misses are divided by the accesses that the sample should have.
//! The first paper calls this correction SHARDS-adj.
//!
//! # Invariants
//! - `repeatable`: keys are hashed and numbered in the same way in each process, so a trace has one answer.

mod keys;
mod optimum;
mod trace;

use std::convert::Infallible;
use std::num::NonZeroUsize;

pub use keys::{KeyLines, LineTooLong};
pub use trace::{Limits, Trace};

use crate::cache::seed::Seed;
use crate::cache::{Cache, NewValue};
use crate::config::Config;
use crate::expiry::Clock;
use crate::map::query::KeyQuery;
use crate::map::removal::Removals;
use crate::policy::Kind;
use crate::reclaim::Handle;

/// The hit ratio of a smaller cache tells too little about a cache of full size.
const MIN_SCALED_CAPACITY: u64 = 16;
/// How often a replay calls the caller back: every few hundredths of a second.
const ACCESSES_PER_PAUSE: usize = 1 << 18;

/// The hit ratio of `tiny_lfu` depends on the hashes. Between processes, whose seeds differ, it differs by up to more than
/// a point. So the result is the mean of this many seeds, unless the trace is long.
const SEEDS: u64 = 8;
const MAX_ACCESSES_FOR_ALL_SEEDS: usize = 1 << 21;

/// The rule by which keys stay in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Policy(Kind),
    /// The policy that knows the future.
    Optimum,
}

impl Trace {
    /// Returns the hits per access, from 0 to 1, at a capacity; `None` if the sample is too small for it.
    ///
    /// `pause` is called after every few hundred thousand accesses. Its error ends the replay.
    pub fn hit_ratio<E>(
        &self,
        method: Method,
        capacity: u64,
        mut pause: impl FnMut() -> Result<(), E>,
    ) -> Result<Option<f64>, E> {
        let scaled = self.scaled_capacity(capacity);
        if self.is_sampled() && scaled < MIN_SCALED_CAPACITY || self.access_count() == 0 {
            return Ok(None);
        }
        let accesses = self.sampled_accesses();
        let hits = match method {
            Method::Policy(kind) => mean_hits(kind, scaled, accesses, &mut pause)?,
            Method::Optimum => optimum::count_hits(scaled, accesses, self.sampled_keys(), &mut pause)? as f64,
        };
        let misses = accesses.len() as f64 - hits;
        let expected_accesses = self.access_count() as f64 * self.sampling_rate();
        Ok(Some((1.0 - misses / expected_accesses).max(0.0)))
    }

    /// The smallest capacity for which [`hit_ratio`](Self::hit_ratio) has an answer.
    pub fn min_capacity(&self) -> u64 {
        if self.is_sampled() { (MIN_SCALED_CAPACITY as f64 / self.sampling_rate()) as u64 } else { 0 }
    }

    fn scaled_capacity(&self, capacity: u64) -> u64 {
        if self.is_sampled() { (capacity as f64 * self.sampling_rate()).round() as u64 } else { capacity }
    }
}

fn mean_hits<E>(
    kind: Kind,
    capacity: u64,
    accesses: &[u32],
    pause: &mut impl FnMut() -> Result<(), E>,
) -> Result<f64, E> {
    let is_short = accesses.len() <= MAX_ACCESSES_FOR_ALL_SEEDS;
    let seeds = if kind == Kind::TinyLfu && is_short { SEEDS } else { 1 };
    let mut hits = 0;
    for number in 0..seeds {
        hits += replay(kind, capacity, Seed::fixed(number), accesses, pause)?;
    }
    Ok(hits as f64 / seeds as f64)
}

/// The number of a key, which is its own value, too.
#[derive(Clone, Copy, PartialEq, Eq)]
struct KeyNumber(NonZeroUsize);

impl Handle for KeyNumber {
    fn is_immortal(&self) -> bool {
        true
    }
}

struct KeyNumberQuery {
    number: KeyNumber,
    hash: u64,
}

impl KeyQuery<KeyNumber> for KeyNumberQuery {
    type Error = Infallible;

    fn hash(&self) -> u64 {
        self.hash
    }

    fn key(&self) -> KeyNumber {
        self.number
    }

    fn eq_builtin(&self, key: &KeyNumber) -> Option<bool> {
        Some(self.number == *key)
    }

    fn eq_slow(&self, key: &KeyNumber) -> Result<bool, Infallible> {
        Ok(self.number == *key)
    }

    fn ptr_eq(a: &KeyNumber, b: &KeyNumber) -> bool {
        a == b
    }
}

/// Counts the hits of a new cache.
fn replay<E>(
    kind: Kind,
    capacity: u64,
    seed: Seed,
    accesses: &[u32],
    pause: &mut impl FnMut() -> Result<(), E>,
) -> Result<u64, E> {
    let cache: Cache<KeyNumber, KeyNumber> = Cache::new(Config::new(capacity, kind), Clock::default());
    let mut hits = 0;
    for chunk in accesses.chunks(ACCESSES_PER_PAUSE) {
        for &access in chunk {
            let number = KeyNumber(NonZeroUsize::MIN.saturating_add(access as usize));
            let query = KeyNumberQuery { number, hash: seed.mix(u64::from(access)) };
            // Numbers need no drop, so the removals are not released.
            let mut removed = Removals::new();
            let Ok(found) = cache.get(&query, &mut removed);
            if found.is_some() {
                hits += 1;
            } else {
                let Ok(()) = cache.set(&query, NewValue::plain(number), &mut removed);
            }
        }
        pause()?;
    }
    Ok(hits)
}

#[cfg(test)]
mod tests;
