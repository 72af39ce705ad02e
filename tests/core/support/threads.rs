//! Threads of tests, with an end that ThreadSanitizer sees, and a limit for their time.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::sized;

/// A scope of threads.
#[derive(Clone, Copy)]
pub struct Scope<'scope, 'env>(&'scope thread::Scope<'scope, 'env>);

/// The number of threads of all [`Scope`]s that have ended.
static ENDED: AtomicUsize = AtomicUsize::new(0);

impl<'scope> Scope<'scope, '_> {
    pub fn spawn<R: Send + 'scope>(
        &self,
        body: impl FnOnce() -> R + Send + 'scope,
    ) -> thread::ScopedJoinHandle<'scope, R> {
        self.0.spawn(|| {
            let result = body();
            ENDED.fetch_add(1, SeqCst);
            result
        })
    }
}

/// `std::thread::scope` with an end that ThreadSanitizer sees. The standard library is not compiled with it.
pub fn scope<'env, R>(body: impl for<'scope> FnOnce(Scope<'scope, 'env>) -> R) -> R {
    let result = thread::scope(|scope| body(Scope(scope)));
    ENDED.load(SeqCst);
    result
}

/// Runs a function that must end within a minute. Miri's clock is far ahead, so it gets an hour there.
pub fn within_a_minute<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = mpsc::channel();
    let running = thread::spawn(move || {
        let result = body();
        let _ = sender.send(());
        result
    });
    match receiver.recv_timeout(Duration::from_secs(sized(60, 3_600))) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}
