//! A clock that runs while the machine is suspended, where the system has one.

#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
#[cfg(all(unix, not(target_os = "linux")))]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Returns nanoseconds since a fixed instant, never fewer than at an earlier call.
#[cfg(unix)]
#[inline]
pub(super) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes a `timespec`, which the argument is.
    let result = unsafe { libc::clock_gettime(CLOCK, &raw mut time) };
    if result != 0 {
        // Linux 2.6.39 and later have the clock. Without it no deadline is in the future, so no tier answers.
        return u64::MAX;
    }
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Returns nanoseconds since the first call.
#[cfg(not(unix))]
#[inline]
pub(super) fn now() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;

    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}
