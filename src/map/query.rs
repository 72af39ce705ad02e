//! How a look-up describes its key: a hash, and an equality that may run a user's code and fail.
//!
//! The map never compares keys itself. It asks [`KeyQuery::eq_builtin`] first, which answers for keys that need no
//! user's code. Otherwise it calls [`KeyQuery::eq_slow`], unpinned and unlocked (laws 1 and 4).

/// A key to look up.
pub trait KeyQuery<K> {
    /// The error that a user's code raises.
    type Error;

    /// Returns the full hash, mixed and seeded: each bit of it depends on each bit of the key's own hash.
    fn hash(&self) -> u64;

    /// Returns the key to store, if it is new.
    fn key(&self) -> K;

    /// Whether the keys are equal, if that needs no user's code; else `None`.
    ///
    /// It is called pinned, and under a lock. It must not block, drop a key or run foreign code.
    fn eq_builtin(&self, key: &K) -> Option<bool>;

    /// Whether the keys are equal, by the user's code. It is called unpinned and unlocked.
    fn eq_slow(&self, key: &K) -> Result<bool, Self::Error>;

    /// Whether the two are the same object.
    ///
    /// It is called under a lock. It must not block, drop a key or run foreign code.
    fn ptr_eq(a: &K, b: &K) -> bool;

    /// Names the strand that runs on this thread now, if several take turns on it, as greenlets do. 0 if it is unknown.
    ///
    /// It is called unlocked.
    fn strand(&self) -> usize {
        0
    }

    /// Whether the strand that runs on this thread now is the named one. It is called unlocked.
    fn is_strand(&self, strand: usize) -> bool {
        strand == 0
    }

    /// Returns the error of a write for which there was no memory, and which changed nothing.
    ///
    /// By default, the process ends as Rust handles a failed allocation.
    #[cold]
    fn no_memory(&self) -> Self::Error {
        std::alloc::handle_alloc_error(std::alloc::Layout::new::<K>())
    }
}
