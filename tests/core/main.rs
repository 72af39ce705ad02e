//! Tests of the core, as its users see it: a module a room, and what spans them all.

mod capacity;
mod deadlock;
mod expiry;
mod iteration;
mod completed_loads;
mod user_equality;
mod leaks;
mod map;
mod naive_model;
mod policy;
mod release_promptness;
mod reclaim;
mod fuzz_corpus;
mod write_beats_load;
mod model_proptest;
mod single_flight_support;
mod single_flight;
mod support;
mod unsafe_code;

#[cfg(not(moka_gil))]
mod history_checker;
#[cfg(not(moka_gil))]
mod linearizability;
#[cfg(not(moka_gil))]
mod threads;
#[cfg(not(moka_gil))]
mod laws_under_threads;
