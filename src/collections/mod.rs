//! Plain data structures, which know nothing of caches.

pub(crate) mod index_lists;
pub(crate) mod lazy_radix_heap;
#[cfg(any(feature = "python", test))]
pub(crate) mod striped_counter;
pub(crate) mod try_reserve;
