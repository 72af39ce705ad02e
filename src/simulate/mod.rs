//! How large a cache should be: hit ratios of a trace at several capacities, without its values.
//!
//! # How it works
//! [`Lines`] or [`Column`] take the keys out of a text, a chunk at a time, and give their hashes to a [`Trace`], which
//! numbers the keys. For each capacity the numbers then go through a [`Cache`] as any other keys would, a get and
//! after a miss a set, in one thread: what is counted is the cache itself, with its shards. Beside it stands what
//! knowing the future would give, the [`optimum`].
//!
//! A long trace is sampled by key, and the capacity made smaller by as much: Waldspurger, Park, Garthwaite, Ahmad, "Efficient
//! MRC Construction with SHARDS" (2015); Waldspurger, Saemundsson, Ahmad, Park, "Cache Modeling and
//! Optimization using Miniature Simulations" (2017). Whether the sample has its part of the accesses depends on the few keys
//! that are used most. Those hit at any capacity, so what counts is how many misses there are for the accesses that the
//! sample should have: the correction that the first paper calls SHARDS-adj.
//!
//! Keys are hashed and numbered in the same way in each process, so a trace has one answer.

mod keys;
mod optimum;
mod trace;

use std::convert::Infallible;
use std::num::NonZeroUsize;

pub use keys::{Column, Lines, Unreadable};
pub use trace::{Limits, Trace};

use crate::cache::seed::Seed;
use crate::cache::{Cache, NewValue};
use crate::config::Config;
use crate::expiry::Clock;
use crate::map::query::KeyQuery;
use crate::map::removal::Removals;
use crate::policy::Kind;
use crate::reclaim::Handle;

/// A copy of the cache smaller than this tells too little of it.
const LEAST_SCALED: u64 = 16;
/// Accesses between two pauses, in which the caller sees to signals: some hundredths of a second.
const STRIDE: usize = 1 << 18;

/// `tiny_lfu` goes by hashes too, and so each process has hit ratios of its own, at times more than a point apart. What is
/// told is the mean of so many, unless it would take long.
const SEEDS: u64 = 8;
const FEW_ACCESSES: usize = 1 << 21;

/// Who decides what stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Policy(Kind),
    /// Whoever is needed last leaves, or does not enter.
    Optimum,
}

impl Trace {
    /// The hits for one access, from 0 to 1, at a capacity; `None` where the sample is too small to tell.
    ///
    /// `pause` is called every so often, and its error ends it.
    pub fn hit_ratio<E>(
        &self,
        method: Method,
        capacity: u64,
        mut pause: impl FnMut() -> Result<(), E>,
    ) -> Result<Option<f64>, E> {
        let scaled = self.scaled(capacity);
        if self.is_sampled() && scaled < LEAST_SCALED || self.total() == 0 {
            return Ok(None);
        }
        let hits = match method {
            Method::Policy(kind) => self.mean_hits(kind, scaled, &mut pause)?,
            Method::Optimum => optimum::hits(scaled, self.accesses(), self.kept_keys(), &mut pause)? as f64,
        };
        let misses = self.accesses().len() as f64 - hits;
        let expected = self.total() as f64 * self.rate();
        Ok(Some((1.0 - misses / expected).max(0.0)))
    }

    /// The least capacity of which it can tell the hit ratio.
    pub fn least_capacity(&self) -> u64 {
        if self.is_sampled() { (LEAST_SCALED as f64 / self.rate()) as u64 } else { 0 }
    }

    fn mean_hits<E>(
        &self,
        kind: Kind,
        capacity: u64,
        pause: &mut impl FnMut() -> Result<(), E>,
    ) -> Result<f64, E> {
        let is_short = self.accesses().len() <= FEW_ACCESSES;
        let seeds = if kind == Kind::TinyLfu && is_short { SEEDS } else { 1 };
        let mut hits = 0;
        for number in 0..seeds {
            hits += hits_of_cache(kind, capacity, Seed::fixed(number), self.accesses(), pause)?;
        }
        Ok(hits as f64 / seeds as f64)
    }

    fn scaled(&self, capacity: u64) -> u64 {
        if self.is_sampled() { (capacity as f64 * self.rate()).round() as u64 } else { capacity }
    }
}

/// A key, and its own value: a number.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Number(NonZeroUsize);

impl Handle for Number {
    fn is_immortal(&self) -> bool {
        true
    }
}

struct Query {
    number: Number,
    hash: u64,
}

impl KeyQuery<Number> for Query {
    type Error = Infallible;

    fn hash(&self) -> u64 {
        self.hash
    }

    fn key(&self) -> Number {
        self.number
    }

    fn eq_builtin(&self, key: &Number) -> Option<bool> {
        Some(self.number == *key)
    }

    fn eq_slow(&self, key: &Number) -> Result<bool, Infallible> {
        Ok(self.number == *key)
    }

    fn ptr_eq(a: &Number, b: &Number) -> bool {
        a == b
    }
}

fn hits_of_cache<E>(
    kind: Kind,
    capacity: u64,
    seed: Seed,
    accesses: &[u32],
    pause: &mut impl FnMut() -> Result<(), E>,
) -> Result<u64, E> {
    let cache: Cache<Number, Number> = Cache::new(Config::new(capacity, kind), Clock::default());
    let mut hits = 0;
    for stride in accesses.chunks(STRIDE) {
        for &access in stride {
            let number = Number(NonZeroUsize::MIN.saturating_add(access as usize));
            let query = Query { number, hash: seed.mix(u64::from(access)) };
            // Numbers need no drop, so what leaves is forgotten.
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
