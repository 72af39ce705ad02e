//! Tests of the core through its public functions.

mod bulk_load;
mod capacity;
mod completed_loads;
mod deadlock;
mod expiry;
mod fuzz_corpus;
mod iteration;
mod leaks;
mod map;
mod model_proptest;
mod naive_model;
mod policy;
mod ranking;
mod reclaim;
mod refresh;
mod release_promptness;
mod resize;
mod single_flight;
mod single_flight_support;
mod support;
mod unkept;
mod unsafe_code;
mod update;
mod user_equality;
mod write_beats_load;

#[cfg(not(moka_gil))]
mod history_checker;
#[cfg(not(moka_gil))]
mod laws_under_threads;
#[cfg(not(moka_gil))]
mod linearizability;
#[cfg(not(moka_gil))]
mod threads;
