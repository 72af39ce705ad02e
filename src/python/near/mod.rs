//! The native part of the near cache: look-ups in its local tier, and the fills of that tier.
//!
//! # How it works
//! The rest is Python, in `moka_py/near`. A hit is native, since a method in Python takes longer than the look-up, and so is
//! what a hit depends on: the deadline until which the tier may answer.
//!
//! # Files
//! | file | holds |
//! |---|---|
//! | `tier.rs` | [`LocalTier`](tier::LocalTier): a cache, and how long it may answer |
//! | `fill.rs` | [`Fill`](fill::Fill): a value on its way from the server into the tier |
//! | `lookup.rs` | [`NearLookup`](lookup::NearLookup): the base class of the near caches, with `get` |
//! | `clock.rs` | a clock that runs while the machine is suspended |

mod clock;
pub(in crate::python) mod fill;
pub(in crate::python) mod lookup;
pub(in crate::python) mod tier;
