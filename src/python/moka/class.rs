//! [`Moka`]: the class, and how an object gets its state, in `__new__` or in `__init__`.
//!
//! # How it works
//! `__new__` makes the state from the arguments. A subclass that overrides `__init__` may take other arguments. Then the state
//! of `__new__` is provisional: `Moka.__init__`, which the subclass calls, makes another, once, and moves a pointer to it.
//! Another thread may be in a call on the provisional state, so that lives as long as the object.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `current` | Release, by `init` | Acquire, by each call | a call that finds the second state finds it initialized |

#![allow(unsafe_code)]

use std::ops::Deref;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::python::moka::kept_errors::KeptErrors;
use crate::python::moka::state::CacheState;

#[doc = doc!("Moka")]
#[pyclass(module = "moka_py", frozen, subclass, weakref, mapping)]
pub(crate) struct Moka {
    /// Points to the state that calls use, of those below.
    current: AtomicPtr<CacheState>,
    first: Arc<CacheState>,
    second: OnceLock<Arc<CacheState>>,
    /// Whether `__init__` may make the second state.
    is_provisional: bool,
}

const _: () = assert!(align_of::<Moka>() <= 16, "CPython aligns no object further");

impl Deref for Moka {
    type Target = CacheState;

    #[inline(always)]
    fn deref(&self) -> &CacheState {
        // Acquire: pairs with the Release in `init`.
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: it points into `first` or `second`, which live as long as `self` and are only shared.
        unsafe { &*current }
    }
}

impl Moka {
    pub fn with_state(state: CacheState, is_provisional: bool) -> Self {
        let first = Arc::new(state);
        let current = AtomicPtr::new(Arc::as_ptr(&first).cast_mut());
        Moka { current, first, second: OnceLock::new(), is_provisional }
    }

    /// Replaces a provisional state by the one that `make` returns. Only the first such call has an effect.
    pub fn init<E>(&self, make: impl FnOnce() -> Result<CacheState, E>) -> Result<(), E> {
        if self.is_provisional && self.second.get().is_none() {
            let state = Arc::new(make()?);
            let pointer = Arc::as_ptr(&state).cast_mut();
            if self.second.set(state).is_ok() {
                // Release: pairs with the Acquire in `deref`.
                self.current.store(pointer, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Shares a state, which is one of this cache.
    pub fn shared(&self, state: &CacheState) -> Arc<CacheState> {
        let is_it = |own: &&Arc<CacheState>| std::ptr::eq(&***own, state);
        let second = self.second.get().filter(is_it);
        Arc::clone(second.unwrap_or(&self.first))
    }

    /// Lets the cache keep errors of these types, each for `nanos` nanoseconds. Only the first such call has an effect.
    pub fn keep_errors(&self, types: &Bound<'_, PyTuple>, nanos: u64) -> PyResult<()> {
        let state = self.second.get().unwrap_or(&self.first);
        state.set_kept_errors(KeptErrors::new(Arc::downgrade(state), state.core().config(), types, nanos)?);
        Ok(())
    }

    /// The provisional state, if there is one, and the state that calls use.
    pub fn states(&self) -> impl Iterator<Item = &CacheState> {
        std::iter::once(&*self.first).chain(self.second.get().map(|second| &**second))
    }
}
