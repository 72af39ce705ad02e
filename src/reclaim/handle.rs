//! What a cache holds: references that threads share.

use std::sync::Arc;

/// What a cache holds: references, of a word's width, that threads share. To clone one must not run foreign
/// code, since it is done under locks.
pub trait Handle: Clone + Send + Sync + 'static {
    /// Whether what it refers to lives for ever, so that to drop a reference does nothing.
    fn is_immortal(&self) -> bool {
        false
    }

    /// Asks ahead for what dropping the reference will change.
    fn prefetch(&self) {}
}

impl<T: Send + Sync + 'static> Handle for Arc<T> {}
