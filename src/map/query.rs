//! How a key asks: its hash, and an equality that may run a user's code and fail.
//!
//! The map never compares keys itself. It asks [`KeyQuery::eq_builtin`] first, which answers for keys that need
//! no code of a user, then [`KeyQuery::eq_slow`], for which it lets go of everything (law 4).

/// A key looked for.
pub trait KeyQuery<K> {
    /// What the user's code raises.
    type Error;

    /// The full hash, mixed and seeded: each bit of it depends on each bit of the key's own hash.
    fn hash(&self) -> u64;

    /// The key to store, where it is new.
    fn key(&self) -> K;

    /// Whether the keys are equal, where that can be told without a user's code; else `None`. It is
    /// called pinned, and under a lock, so it must not block, drop a key or run foreign code.
    fn eq_builtin(&self, key: &K) -> Option<bool>;

    /// Whether the keys are equal, by the user's code. Called unpinned and unlocked.
    fn eq_slow(&self, key: &K) -> Result<bool, Self::Error>;

    /// Whether the two are the same object. Called under a lock, so it must not block, drop a key or
    /// run foreign code.
    fn ptr_eq(a: &K, b: &K) -> bool;

    /// The strand that runs on this thread now, if several take turns on it, as greenlets do; 0 if that is not known. Called
    /// unlocked.
    fn strand(&self) -> usize {
        0
    }

    /// Whether what runs on this thread now is what `strand` named. Called unlocked.
    fn is_strand(&self, strand: usize) -> bool {
        strand == 0
    }

    /// The error of a write that found no memory, and so changed nothing. Without one, the process ends as Rust has it.
    #[cold]
    fn no_memory(&self) -> Self::Error {
        std::alloc::handle_alloc_error(std::alloc::Layout::new::<K>())
    }
}
