//! Memory that may not be had: what grows with the number of entries is asked for before anything changes.
//!
//! # How it works
//! Rust ends the process where an allocation fails. So a write asks for all that it may need first: slots, entries,
//! deadlines, links, weights. If one is refused it gives up with nothing changed, and its caller gets the error that
//! `KeyQuery::no_memory` makes. What can do without stays as it is: a table that would shrink, a sketch that would
//! grow, a list of what leaves, of which the rest leaves when the list is empty again (`Cache::finish_eviction`).
//!
//! Small things are asked for as Rust does: a flight, a lot of retired values, the first of what leaves.

use std::collections::TryReserveError;

/// There was no memory, and nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoMemory;

impl From<TryReserveError> for NoMemory {
    fn from(_: TryReserveError) -> Self {
        NoMemory
    }
}

/// Makes sure that a list by entry numbers can grow to this one.
#[inline(always)]
pub(crate) fn reserve<T>(list: &mut Vec<T>, number: u32) -> Result<(), NoMemory> {
    if list.capacity() > number as usize { Ok(()) } else { reserve_slow(list, number) }
}

#[cold]
fn reserve_slow<T>(list: &mut Vec<T>, number: u32) -> Result<(), NoMemory> {
    Ok(list.try_reserve(number as usize + 1 - list.len())?)
}
