//! Safe memory reclamation: readers pin, writers retire, attached threads drop.
//!
//! # How it works
//! A reader holds a [`Guard`] while it looks at shared data. A writer that unlinks a value gets it as [`Retired`],
//! which cannot be dropped. The writer puts it into a [`RetireList`], where it waits for a grace period: until every
//! guard that existed at that moment is gone. Then the list returns the owned value to a thread that asks for it.
//! [`StripedRetireLists`] has a list for each few threads, so that writers seldom meet. While only one thread uses
//! caches, a value needs no grace period; `thread_registry` counts the threads.
//!
//! crossbeam-epoch runs deferred closures on any thread, and on dying threads that Python has no state for.
//! So a closure here frees memory or sets the flag of a grace period. It never drops a key or a value (law 3).
//!
//! On the GIL build all this compiles to nothing. A retired value can be dropped immediately, because no other
//! thread can be reading and no guard lives across Python code (law 4).
//!
//! # Files
//! | file | holds |
//! |---|---|
//! | `atomics.rs` | the shared places: [`AtomicHandle`], [`LockedAtomicHandle`], [`AtomicBox`] |
//! | `handle.rs` | [`Handle`]: the kind of references that a cache holds |
//! | `retired.rs` | [`Retired`]: an unlinked value that must not be dropped yet |
//! | `pin.rs` | [`Pin`]: the guard of a thread that reads without a lock |
//! | `once_flag.rs` | [`OnceFlag`]: a flag that pinned threads read |
//! | `epoch.rs` | [`Guard`], [`RetireList`] and [`StripedRetireLists`] for threads that run in parallel |
//! | `thread_registry.rs` | the threads that pin epochs |
//! | `gil.rs` | the same for the GIL build |
//!
//! # Invariants
//! - `word`: an [`AtomicHandle`] holds the bits of a valid `T`, one machine word wide.
//! - `grace`: a value that was unlinked from an [`AtomicHandle`] or [`AtomicBox`] is not dropped before every guard
//!   that could have seen it is gone. [`Retired`] enforces it: only a [`RetireList`] or [`StripedRetireLists`] opens
//!   one.
//! - `one-pin` (GIL build): while something is freed, the caller's guard is the only one, and the caller borrows it
//!   mutably, so nothing read through it is left. A pin beside a guard borrows that guard ([`Guard::pinned`]). A
//!   debug build counts the guards.
//! - `lock-guard`: a guard that stands for a lock ends before the unlock, since it borrows the lock. It protects what
//!   only the lock's holder unlinks: a [`LockedAtomicHandle`] and an [`AtomicBox`]. An [`AtomicHandle`] needs a
//!   [`Pin`].
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `AtomicHandle::word` | AcqRel swap or exchange, or a Release store of the only writer | Acquire load | the object is complete before a reader sees its pointer |
//! | `AtomicBox::pointer` | AcqRel swap | Acquire load | likewise |
//! | `GracePeriod` | Release, in the deferred closure | Acquire | reads under the old guards come before the drop |
//! | `OnceFlag::is_set` | Relaxed, before the wait for all pinned threads | Relaxed, pinned | the epoch orders a later pin after the store |
//! | `OnceFlag::is_known` | Release, after that wait | Acquire | all actions of threads that saw the flag unset come before the caller's next action |

#![allow(unsafe_code)]

mod atomics;
mod handle;
mod once_flag;
mod pin;
mod retired;

#[cfg(not(moka_gil))]
mod epoch;
#[cfg(moka_gil)]
mod gil;
#[cfg(not(moka_gil))]
mod thread_registry;

#[cfg(test)]
mod tests;

pub(crate) use atomics::{AtomicBox, AtomicHandle, Borrowed, LockedAtomicHandle};
#[cfg(not(moka_gil))]
pub(crate) use epoch::{Guard, RetireList, StripedRetireLists};
#[cfg(moka_gil)]
#[cfg_attr(not(all(feature = "python", unix)), allow(unused_imports))]
pub(crate) use gil::after_fork_child;
#[cfg(moka_gil)]
pub(crate) use gil::{Guard, RetireList, StripedRetireLists, register_thread};
pub use handle::Handle;
pub(crate) use once_flag::OnceFlag;
pub(crate) use pin::{Pin, pin};
pub(crate) use retired::Retired;
#[cfg(not(moka_gil))]
#[cfg_attr(not(all(feature = "python", unix)), allow(unused_imports))]
pub(crate) use thread_registry::after_fork_child;
#[cfg(all(debug_assertions, not(moka_gil), not(moka_loom)))]
pub use thread_registry::is_pinned;
#[cfg(not(moka_gil))]
pub(crate) use thread_registry::register_thread;
