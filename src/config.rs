//! What a cache is made with: plain numbers, checked by whoever makes them.

use crate::expiry::Lifetime;
use crate::policy::Kind;

#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The most that the weights of all entries may add up to.
    pub capacity: u64,
    /// How long each entry may live.
    pub lifetime: Lifetime,
    pub policy: Kind,
    /// Whether entries have weights of their own; else each weighs 1.
    pub weighted: bool,
    /// Whether somebody wants to know the keys of what is replaced.
    pub has_listener: bool,
}

impl Config {
    /// A cache of entries that weigh 1 each and stay until the policy lets them go.
    pub fn new(capacity: u64, policy: Kind) -> Self {
        Config { capacity, lifetime: Lifetime::default(), policy, weighted: false, has_listener: false }
    }
}
