//! The class `Moka`.
//!
//! # Files
//! | file | holds |
//! |---|---|
//! | `class.rs` | [`Moka`], and how an object gets its state |
//! | `state.rs`, `loads.rs` | the operations of a cache, each in one place |
//! | `removals.rs` | counts, reports and drops what a call removed |
//! | `fastcall.rs` | `get`, `set`, `remove` and `get_with`, as bare C functions |
//! | `methods.rs`, `mapping.rs`, `bulk.rs`, `bulk_load.rs` | the other methods |
//! | `signature.rs`, `convert.rs` | arguments: binds them to parameters, and checks their values |
//! | `refresh.rs` | values that are computed anew while calls still get the old ones |
//! | `listener.rs` | calls of the eviction listener, of the weigher and of ttl functions |
//! | `stats.rs` | the counts |
//! | `flights.rs` | computations that coroutines share |
//! | `clock.rs` | the clock of tests |
//! | `kept_errors.rs` | failures of a cached function that are kept for a while |
//! | `errors.rs` | the messages of loads that would wait for ever |

mod bulk;
pub(in crate::python) mod bulk_load;
mod class;
pub(in crate::python) mod clock;
pub(in crate::python) mod convert;
pub(in crate::python) mod errors;
pub(in crate::python) mod fastcall;
pub(in crate::python) mod flights;
pub(in crate::python) mod kept_errors;
pub(in crate::python) mod listener;
mod loads;
pub(in crate::python) mod mapping;
mod methods;
pub(in crate::python) mod refresh;
mod removals;
pub(in crate::python) mod signature;
pub(in crate::python) mod state;
pub(in crate::python) mod stats;

pub(in crate::python) use self::class::Moka;
