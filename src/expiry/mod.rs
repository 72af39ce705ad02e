//! When entries expire, and who notices.
//!
//! An entry's deadline is in its [`Deadlines`](crate::expiry::deadlines::Deadlines): a read compares it with the clock and so never
//! returns what is past it (law 8). The [`DeadlineQueue`] of each shard finds what is due, so that it leaves
//! and is told; the [`Clock`] is one for all caches, or a test's own.

mod clock;
mod deadline_queue;
pub(crate) mod deadlines;
mod lifetime;
mod span;

pub use clock::Clock;
pub(crate) use deadline_queue::{BATCH, DeadlineQueue};
pub use lifetime::Lifetime;
pub(crate) use lifetime::NEVER;
pub use span::word_of_nanos;
pub(crate) use span::{end_of, time_left_of};
