//! When entries expire, and how expired entries are found.
//!
//! The *deadline* of an entry is the instant from which on it is expired. It is the sooner of two: one since the last
//! write (time to live, `ttl`) and one since the last use (time to idle, `tti`). Both durations are the entry's
//! [`Lifetime`].
//!
//! - [`DeadlineTable`](deadlines::DeadlineTable) has the deadlines of a chunk of entries. A read compares the
//!   deadline with the clock, so no read returns an expired entry (law 8).
//! - [`DeadlineQueue`] has the entries of a shard in the order of their deadlines. Maintenance takes expired entries
//!   from it, so they are removed and the listener is called.
//! - [`RefreshRef`] is when an entry's value is to be computed anew, in a cache with `refresh`.
//! - [`Clock`] tells the time: of the process, or of a test. [`CacheClock`] is that of one cache, which a test may stop.
//!
//! Instants and durations are words of nanoseconds ([`word_of_nanos`]).

mod cache_clock;
mod clock;
mod deadline_queue;
pub(crate) mod deadlines;
mod lifetime;
mod refresh_table;
mod time_word;

pub use cache_clock::CacheClock;
pub use clock::Clock;
pub(crate) use deadline_queue::{DeadlineQueue, MAX_DUE_PER_CALL};
pub use lifetime::Lifetime;
pub(crate) use lifetime::NEVER;
#[cfg(test)]
pub(crate) use refresh_table::serialize_tests;
pub(crate) use refresh_table::{RefreshRef, after_fork_child};
pub use time_word::word_of_nanos;
pub(crate) use time_word::{end_of, tenth_of, time_left_of};
