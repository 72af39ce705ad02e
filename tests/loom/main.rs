//! Models of the core: a few threads of a few calls each, which loom runs in every order, with every value that a
//! load may see. What is asserted is what a user of the cache would see.
#![cfg(moka_loom)]

mod capacity;
mod expiry;
mod lock_free_replace;
mod map;
mod reclaim;
mod single_flight;
mod support;
