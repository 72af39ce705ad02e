//! Models of the core: a few threads with a few calls each. loom runs them in every order, with every value that a load
//! may see. Miri runs each in a random order for each of its seeds. The assertions are about results that a user of the
//! cache can observe.
#![cfg(any(moka_loom, moka_model))]

#[cfg(moka_loom)]
#[path = "by_loom.rs"]
mod runner;
#[cfg(not(moka_loom))]
#[path = "by_miri.rs"]
mod runner;

mod bulk_load;
mod capacity;
mod expiry;
mod lock_free_replace;
mod map;
mod reclaim;
mod refresh;
mod single_flight;
mod support;
mod update;
