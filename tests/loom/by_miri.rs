//! Runs models once, with the threads of the standard library, whose order Miri chooses by its seed.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Count, Ordering::Relaxed as Beside};

pub use std::sync::atomic::{AtomicU64, Ordering};
pub use std::thread::{JoinHandle, spawn};

/// Runs a model. The bound of preemptions is loom's.
pub fn model(_preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    run();
}

thread_local! {
    /// Whether the thread is inside a call of the core, where no reference may be dropped.
    pub static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

struct Body {
    /// Miri checks that each read is ordered after the construction and before the end.
    word: u64,
    alive: Arc<Count>,
}

impl Drop for Body {
    fn drop(&mut self) {
        assert!(std::thread::panicking() || !IS_INSIDE.get(), "the reference was dropped inside a call");
        self.alive.fetch_sub(1, Beside);
    }
}

/// A key or a value. Its body is freed with the last reference, so that Miri detects a use after its end.
#[derive(Clone)]
pub struct Shared(Arc<Body>);

impl Shared {
    pub fn new(word: u64, alive: &Arc<Count>) -> Self {
        alive.fetch_add(1, Beside);
        Shared(Arc::new(Body { word, alive: alive.clone() }))
    }

    /// Returns whether both are the same object.
    pub fn is(&self, other: &Shared) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn word(&self) -> u64 {
        self.0.word
    }
}
