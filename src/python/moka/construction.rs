//! The contents of an object: `__new__` makes them, and `__init__` once more if a subclass has an `__init__` of its own.
//!
//! # How it works
//! A call finds what it uses behind one pointer. `__new__` makes the first value. A subclass that overrides `__init__`
//! passes other arguments on, so `Moka.__init__` then makes the second value, once, and moves the pointer. Another
//! thread may be in a call on the first value, so that one lives as long as the object.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `current` | Release, by `replace` | Acquire, by each call | a call that finds the second value finds it whole |

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

pub(crate) struct Construction<T> {
    current: AtomicPtr<T>,
    first: Arc<T>,
    second: OnceLock<Arc<T>>,
    /// Whether `__init__` may make the second value.
    is_provisional: bool,
}

impl<T> Construction<T> {
    pub fn new(first: Arc<T>, is_provisional: bool) -> Self {
        let current = AtomicPtr::new(Arc::as_ptr(&first).cast_mut());
        Construction { current, first, second: OnceLock::new(), is_provisional }
    }

    #[inline(always)]
    pub fn get(&self) -> &T {
        // Acquire: pairs with the Release in `replace`.
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: it points to what `first` or `second` refers to, which lives as long as `self` and is only shared.
        unsafe { &*current }
    }

    /// Whether the second value may still be made.
    pub fn is_open(&self) -> bool {
        self.is_provisional && self.second.get().is_none()
    }

    /// Puts the second value in the place of the first; of several calls the first one counts.
    pub fn replace(&self, second: Arc<T>) {
        let pointer = Arc::as_ptr(&second).cast_mut();
        if self.is_provisional && self.second.set(second).is_ok() {
            // Release: pairs with the Acquire in `get`.
            self.current.store(pointer, Ordering::Release);
        }
    }

    /// Each value that there is.
    pub fn each(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&*self.first).chain(self.second.get().map(|second| &**second))
    }
}
