//! Removals: what a call into the core removed is counted, reported to the listener and dropped, with no lock held.
//!
//! # Invariants
//! - `preserved`: an exception that is set when removals are processed is set afterwards, too. CPython asks that of each
//!   destructor. The listener is called while the exception is put aside.

use std::mem::ManuallyDrop;

use pyo3::prelude::*;

use crate::python::ffi;
use crate::python::moka::listener;
use crate::python::moka::state::CacheState;
use crate::python::object::Object;
use crate::{Cursor, Removal, Removals};

pub(super) type Removed = Removals<Object, Object>;

impl CacheState {
    /// Makes one call into the core, and processes its removals, also if it fails.
    #[inline]
    pub fn run<T>(&self, py: Python<'_>, code: impl FnOnce(&mut Removed) -> T) -> T {
        // Most calls remove nothing. Then there is nothing to process and nothing to drop.
        let mut removed = ManuallyDrop::new(Removals::new());
        let result = code(&mut removed);
        if !removed.is_untouched() {
            if self.core().config().has_listener || removed.is_truncated() {
                self.process_removals_slow(py, ManuallyDrop::into_inner(removed));
            } else {
                // In place: the list is moved only once it is empty.
                self.drop_removed(&mut removed);
                drop(ManuallyDrop::into_inner(removed));
            }
        }
        result
    }

    #[inline(never)]
    fn process_removals_slow(&self, py: Python<'_>, removed: Removed) {
        let mut is_truncated = removed.is_truncated();
        self.process_removals(py, removed);
        // The call had no memory to remove more.
        while is_truncated {
            let mut removed = Removals::new();
            self.core().finish_eviction(&mut removed);
            is_truncated = removed.is_truncated();
            self.process_removals(py, removed);
        }
    }

    /// Counts each removal, calls the listener for each, and drops the references.
    pub fn process_removals(&self, py: Python<'_>, mut removed: Removed) {
        if self.core().config().has_listener {
            self.record_removals(&removed);
            self.notify_and_drop(py, removed);
        } else {
            self.drop_removed(&mut removed);
        }
    }

    #[inline]
    fn record_removal(&self, removal: &Removal<Object, Object>) {
        self.counts().record_removal(removal.cause());
        removal.value().record_drop();
        removal.key().into_iter().for_each(Object::record_drop);
    }

    fn record_removals(&self, removed: &Removed) {
        removed.iter().for_each(|removal| self.record_removal(removal));
    }

    /// Calls the listener for each removal, all of which are counted, and drops the references.
    fn notify_and_drop(&self, py: Python<'_>, mut removed: Removed) {
        if self.core().config().has_listener {
            // `preserved`.
            let raised = ffi::take_exception(py);
            listener::notify(py, self.listener(), &removed);
            if let Some(exception) = raised {
                let _ = ffi::set_exception(exception);
            }
        }
        self.core().release(&mut removed);
    }

    /// Counts each removal from a cache without a listener, and drops the references.
    #[inline]
    fn drop_removed(&self, removed: &mut Removed) {
        self.core().release_each(removed, |removal| self.record_removal(removal));
    }

    /// Removes all due entries, then calls `code` with the weight and the number of all entries. Removals are counted before,
    /// and reported after, since the listener may change the cache.
    pub fn with_totals<T>(&self, py: Python<'_>, code: impl FnOnce(u64, usize) -> T) -> T {
        let mut removed = Removals::new();
        let (count, weight) = self.core().totals(&mut removed);
        self.record_removals(&removed);
        let result = code(weight, count);
        self.notify_and_drop(py, removed);
        result
    }

    /// Returns the weight and the number of all entries. It removes nothing, so entries that are due count too.
    pub fn totals_with_due(&self) -> (u64, usize) {
        let (count, weight) = self.core().totals_with_due();
        (weight, count)
    }

    /// Changes the capacity, and evicts in steps until the cache fits it. Calls `pause` after each step.
    ///
    /// An error of `pause` does not end the eviction, so the bound is exact. The first error is returned.
    pub fn resize_in_steps<E>(
        &self,
        py: Python<'_>,
        capacity: u64,
        pause: impl Fn() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut resize = self.core().begin_resize(capacity);
        let mut result = Ok(());
        loop {
            let mut removed = Removals::new();
            let has_more = resize.step(&mut removed);
            let is_idle = removed.is_untouched();
            self.process_removals(py, removed);
            if !has_more {
                return result;
            }
            if !is_idle {
                result = result.and(pause());
            }
        }
    }

    /// Removes all entries, and frees the memory. Calls `process` with each batch; an error of it ends the call.
    pub fn clear_batches<E>(&self, process: impl Fn(Removed) -> Result<(), E>) -> Result<(), E> {
        let mut cursor = Cursor::default();
        loop {
            let mut removed = Removals::new();
            let has_more = self.core().clear_batch(&mut cursor, &mut removed);
            process(removed)?;
            if !has_more {
                break;
            }
        }
        self.core().flush();
        Ok(())
    }
}
