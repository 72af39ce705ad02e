//! The configuration of a cache. The Python face checks the values.

use crate::expiry::Lifetime;
use crate::policy::Kind;

#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The maximum total weight of all entries when the cache is made. [`Cache::capacity`](crate::Cache::capacity) is the
    /// current one.
    pub capacity: u64,
    /// The durations of every entry.
    pub lifetime: Lifetime,
    /// How long after its write a value is to be computed anew, as in [`Lifetime`]; 0 if it is not.
    pub refresh: u64,
    /// Whether the caller takes the time to live of each new entry from its value. A restart of deadlines has no new one
    /// to take, so it stays within the one that the entry has.
    pub has_ttl_function: bool,
    pub policy: Kind,
    /// Whether entries have weights of their own. Otherwise each weighs 1.
    pub weighted: bool,
    /// Whether there is a listener, which needs the key of each removed value.
    pub has_listener: bool,
}

impl Config {
    /// Configures a cache whose entries weigh 1 each and stay until they are evicted or removed.
    pub fn new(capacity: u64, policy: Kind) -> Self {
        Config {
            capacity,
            lifetime: Lifetime::default(),
            refresh: 0,
            has_ttl_function: false,
            policy,
            weighted: false,
            has_listener: false,
        }
    }
}
