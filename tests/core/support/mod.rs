//! Helpers of the tests of the core: sizes and durations, objects, a cache with its clock, random choices and threads.

mod objects;
mod random;
mod subject;
mod threads;

use std::thread;
use std::time::Duration;

use moka_py::{Cache, Handle};

pub use objects::{BuiltinEqQuery, Key, LiveCount, UserEqQuery, Value, is_same_value, mix_hash};
pub use random::{Random, seed};
pub use subject::{Event, Subject, TestCache, call, event, load_many, validate};
pub use threads::{scope, within_a_minute};

pub type Error = &'static str;

/// Returns the first size. Miri, where a step takes about a thousand times as long, uses the second one.
pub const fn sized<T: Copy>(size: T, under_miri: T) -> T {
    if cfg!(miri) { under_miri } else { size }
}

pub const MICRO: u64 = 1_000;
pub const MILLI: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;
pub const YEAR: u64 = 31_557_600 * SECOND;

/// How often a test flushes a cache, with a pause of a millisecond, before it gives up. On the GIL build one flush is
/// enough.
const MAX_FLUSHES: usize = if cfg!(moka_gil) { 1 } else { 10_000 };

/// Flushes a cache until `alive` returns the expected numbers. Readers of other tests in this process can delay the
/// release, but not for long.
pub fn assert_alive_after_flushes<K, V, E, T>(cache: &Cache<K, V, E>, expected: T, alive: impl Fn() -> T)
where
    K: Handle,
    V: Handle,
    E: Clone + Send + Sync + 'static,
    T: PartialEq + std::fmt::Debug,
{
    for _ in 0..MAX_FLUSHES {
        cache.flush();
        if alive() == expected {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("{:?} are alive in place of {expected:?}", alive());
}
