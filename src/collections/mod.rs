//! Plain data structures, which know nothing of caches: lists, a priority queue and a counter, and how memory is
//! asked for.
//!
//! Those that hold entries know them by their indices in the slab of their shard, so links are 32 bits wide and take
//! no allocation for each entry.

pub(crate) mod index_lists;
pub(crate) mod lazy_radix_heap;
#[cfg(any(feature = "python", test))]
pub(crate) mod striped_counter;
pub(crate) mod try_reserve;
