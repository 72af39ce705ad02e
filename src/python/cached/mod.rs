//! Cached functions: the callables that `moka_py.cached` makes.
//!
//! # How a call goes
//! ```text
//! function_type   the interpreter calls an instance
//! sync_call       a function: looks the arguments up; after a miss it runs the function and stores the result
//! async_call      a coroutine function: does the same when the event loop resumes the call
//! lookup          finds the value of the arguments, or the key; a hit ends here
//! run             registers the run of a miss, and stores its result unless the key was written to since
//! ```
//! [`coroutine_type`] is the type of the awaitables whose code is in `async_call`. [`shared_call`] makes the coroutines by
//! which they share a computation. [`aget_with`] makes such awaitables for
//! keys of a cache, and [`async_bulk`] has a part of `aget_many_with`. [`state`] has the data that all calls
//! of a function share: the options and the cache. [`methods`] has its methods for Python, such as `cache_clear`.
//! [`call_key`] has the keys. [`weak_self`], [`owner`] and [`owner_registry`] let keys stand for instances that the
//! cache does not keep alive. [`function_attributes`] answers for attributes such as `__annotations__`.
//!
//! # Invariants
//! - `attached`: all of this runs on attached threads.
//! - `bare`: the slots of these types do not go through PyO3, so PyO3 believes there that the thread is detached. So a
//!   `PyErr` or a `Py` is dropped only inside `with_pyo3_attached`, and exceptions stay in the thread state
//!   ([`Raised`](crate::python::raised::Raised)).

pub(in crate::python) mod aget_with;
pub(in crate::python) mod async_bulk;
pub(in crate::python) mod async_call;
pub(in crate::python) mod call_key;
pub(in crate::python) mod coroutine_type;
pub(in crate::python) mod function_attributes;
pub(in crate::python) mod function_type;
pub(in crate::python) mod lookup;
pub(in crate::python) mod methods;
pub(in crate::python) mod owner;
pub(in crate::python) mod owner_registry;
pub(in crate::python) mod run;
pub(in crate::python) mod shared_call;
pub(in crate::python) mod state;
pub(in crate::python) mod sync_call;
pub(in crate::python) mod weak_self;
