//! Tests of the core, as its users see it: a module a room, and what spans them all.

mod budget;
mod circles;
mod expiry;
mod iteration;
mod landing;
mod lookup;
mod lost;
mod map;
mod model;
mod policy;
mod quiet;
mod reclaim;
mod replay;
mod runs;
mod sequences;
mod shared;
mod single_flight;
mod support;
mod unsafe_code;

#[cfg(not(moka_gil))]
mod histories;
#[cfg(not(moka_gil))]
mod linearizability;
#[cfg(not(moka_gil))]
mod threads;
#[cfg(not(moka_gil))]
mod threads_laws;
