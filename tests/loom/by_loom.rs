//! Runs models with loom: its threads and atomics, and references that detect a late use.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize as Count, Ordering::Relaxed as Beside};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use loom::sync::atomic::AtomicUsize;

pub use loom::sync::atomic::{AtomicU64, Ordering};
pub use loom::thread::{JoinHandle, spawn};

/// Explores a model: all its runs with at most `preemptions` preemptions, or `LOOM_MAX_PREEMPTIONS`, plus
/// `MOKA_MODEL_MORE`. Without a bound two calls would take hours, and most bugs need at most two preemptions.
pub fn model(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let more =
        std::env::var("MOKA_MODEL_MORE").map_or(0, |more| more.parse().expect("MOKA_MODEL_MORE is a number"));
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    let bound = builder.preemption_bound.unwrap_or(preemptions) + more;
    builder.preemption_bound = Some(bound);
    let most = builder.max_duration.unwrap_or(Duration::MAX);
    let (runs, began) = (Arc::new(Count::new(0)), Instant::now());
    let counted = runs.clone();
    builder.check(move || {
        counted.fetch_add(1, Beside);
        run();
    });
    let end = if began.elapsed() < most { "all" } else { "not all, for want of time" };
    let name = std::thread::current().name().unwrap_or("a model").to_owned();
    println!("{name}: {} runs with at most {bound} preemptions, {end}", runs.load(Beside));
}

loom::thread_local! {
    /// Whether the thread is inside a call of the core, where no reference may be dropped.
    pub static IS_INSIDE: Cell<bool> = Cell::new(false);
}

struct Body {
    /// loom checks that each read is ordered after the construction and before the end, which takes the word out.
    word: RwLock<Option<AtomicU64>>,
    count: AtomicUsize,
    alive: Arc<Count>,
}

/// A key or a value: a counted reference that detects a use after its end. Its body is never freed, so that a late use
/// can be detected.
pub struct Shared(&'static Body);

impl Shared {
    pub fn new(word: u64, alive: &Arc<Count>) -> Self {
        alive.fetch_add(1, Beside);
        let word = RwLock::new(Some(AtomicU64::new(word)));
        Shared(Box::leak(Box::new(Body { word, count: AtomicUsize::new(1), alive: alive.clone() })))
    }

    /// Returns whether both are the same object.
    pub fn is(&self, other: &Shared) -> bool {
        std::ptr::eq(self.0, other.0)
    }

    pub fn word(&self) -> u64 {
        let word = self.0.word.try_read().expect("a reference must not end while it is read");
        word.as_ref().expect("the reference was read after its end").load(Ordering::Relaxed)
    }
}

impl Clone for Shared {
    fn clone(&self) -> Self {
        let before = self.0.count.fetch_add(1, Ordering::Relaxed);
        assert!(before > 0, "the reference was cloned after its end");
        Shared(self.0)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let before = self.0.count.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "the reference was dropped twice");
        if before == 1 {
            assert!(!IS_INSIDE.with(Cell::get), "the reference was dropped inside a call");
            let word = self.0.word.try_write().expect("a reference must not be read while it ends").take();
            // This write lets loom find reads that are not ordered before it.
            word.expect("a reference ends once").with_mut(|_| ());
            self.0.alive.fetch_sub(1, Beside);
        }
    }
}
