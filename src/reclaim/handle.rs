//! The kind of references that a cache holds.

use std::sync::Arc;

/// A reference of one word that threads share, as keys and values are.
///
/// - `clone` must not run foreign code, since the cache clones under locks.
pub trait Handle: Clone + Send + Sync + 'static {
    /// Returns whether the referent lives for ever, so that dropping a reference does nothing.
    fn is_immortal(&self) -> bool {
        false
    }

    /// Asks ahead for the memory that dropping the reference will change.
    fn prefetch(&self) {}
}

impl<T: Send + Sync + 'static> Handle for Arc<T> {}
