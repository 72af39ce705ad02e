//! Memory that may be refused: structures that grow with the number of entries reserve it before anything changes.
//!
//! # How it works
//! Rust ends the process if an allocation fails. So a write first reserves all that it may need: slots, entries,
//! deadlines, links, weights. If the system refuses, the write changes nothing, and its caller gets the error that
//! `KeyQuery::no_memory` makes.
//!
//! Work that can wait is skipped instead. A table does not shrink, and a sketch does not grow. A list of removals takes
//! no more entries. The remaining victims are evicted after the list was emptied (`Cache::finish_eviction`).
//!
//! Small allocations are left to Rust: a flight, a batch of retired values, the first removals of a call.

use std::collections::TryReserveError;

/// The system refused memory, and nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoMemory;

impl From<TryReserveError> for NoMemory {
    fn from(_: TryReserveError) -> Self {
        NoMemory
    }
}

/// Reserves the memory that `list` needs to have an item at `index`.
#[inline(always)]
pub(crate) fn reserve<T>(list: &mut Vec<T>, index: u32) -> Result<(), NoMemory> {
    if list.capacity() > index as usize { Ok(()) } else { reserve_slow(list, index) }
}

#[cold]
fn reserve_slow<T>(list: &mut Vec<T>, index: u32) -> Result<(), NoMemory> {
    Ok(list.try_reserve(index as usize + 1 - list.len())?)
}
