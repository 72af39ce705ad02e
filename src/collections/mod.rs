//! Plain data structures, which know nothing of caches: lists, a priority queue and a counter, and
//! allocations that may fail.
//!
//! A structure that holds entries knows them by their indices in the slab of their shard. So links are 32 bits wide,
//! and no entry needs an allocation of its own.

pub(crate) mod index_lists;
pub(crate) mod lazy_radix_heap;
#[cfg(any(feature = "python", test))]
pub(crate) mod striped_counter;
pub(crate) mod try_reserve;
