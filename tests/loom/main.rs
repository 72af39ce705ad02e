//! Models of the core: a few threads with a few calls each. loom runs them in every order, with every value that a load
//! may see. The assertions are about results that a user of the cache can observe.
#![cfg(moka_loom)]

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
