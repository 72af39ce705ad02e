//! Random calls on a cache and on a naive model of it: a list in order of use, and a clock.
//!
//! The model predicts every result and every removal. Two choices belong to the cache: which of the expired entries a
//! call removes, and (with `TinyLfu`) which entries it evicts. The model checks that each choice was allowed, and
//! follows it.

mod comparison;
mod random_calls;

use moka_py::{Cause, Config, Kind, Lifetime};

pub use comparison::{Comparison, Hashes, Op};
pub use random_calls::{CAPACITIES, DURATIONS, FuzzTarget, STEPS, check_input};

use crate::support::{Event, MICRO, event};

#[derive(Clone, Debug)]
struct ModelEntry {
    key: u64,
    value: u64,
    weight: u64,
    expires_at: u64,
    used_at: u64,
    ttl: u64,
    tti: u64,
}

impl ModelEntry {
    fn deadline(&self) -> u64 {
        let idle_at = if self.tti == 0 { u64::MAX } else { self.used_at + self.tti };
        self.expires_at.min(idle_at)
    }
}

/// How a value is written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub weight: u64,
    pub lifetime: Lifetime,
    pub is_kept: bool,
}

struct NaiveModel {
    /// In order of use, the least recently used first.
    entries: Vec<ModelEntry>,
    config: Config,
    is_exact: bool,
    /// Whether the cache was resized. Then a capacity of 0 keeps no entry of weight 0.
    was_resized: bool,
    /// Whether there was a write. The capacity of that moment chooses the policy.
    was_written: bool,
    now: u64,
}

fn shorter(a: u64, b: u64) -> u64 {
    if a == 0 || (b != 0 && b < a) { b } else { a }
}

impl NaiveModel {
    fn position(&self, key: u64) -> Option<usize> {
        self.entries.iter().position(|entry| entry.key == key)
    }

    fn is_expired(&self, at: usize) -> bool {
        self.entries[at].deadline() <= self.now
    }

    fn weight(&self) -> u64 {
        self.entries.iter().map(|entry| entry.weight).sum()
    }

    fn live(&self) -> Vec<(u64, u64)> {
        let live = self.entries.iter().filter(|entry| entry.deadline() > self.now);
        let mut live: Vec<_> = live.map(|entry| (entry.key, entry.value)).collect();
        live.sort_unstable();
        live
    }

    fn find(&self, key: u64) -> Option<usize> {
        self.position(key).filter(|&at| !self.is_expired(at))
    }

    /// Counts a hit as an access, and returns the value.
    fn hit(&mut self, at: usize) -> u64 {
        let mut entry = self.entries.remove(at);
        // An access within a microsecond of the last one does not restart the time to idle.
        if entry.tti != 0 && self.now > entry.used_at + MICRO {
            entry.used_at = self.now;
        }
        let value = entry.value;
        self.entries.push(entry);
        value
    }

    fn take(&mut self, at: usize, cause: Cause) -> Event {
        let cause = if self.is_expired(at) { Cause::Expired } else { cause };
        let entry = self.entries.remove(at);
        event(entry.key, entry.value, cause)
    }

    /// Makes a write. Returns the events about its own key.
    fn write(&mut self, key: u64, value: u64, how: Written) -> Vec<Event> {
        let Written { weight, lifetime, is_kept } = how;
        let mut events = Vec::new();
        self.was_written = true;
        if let Some(at) = self.position(key) {
            events.push(self.take(at, Cause::Replaced));
        }
        if !is_kept {
            events.push(event(key, value, Cause::Expired));
            return events;
        }
        if weight > self.config.capacity || self.is_closed() {
            events.push(event(key, value, Cause::Size));
            return events;
        }
        let Lifetime { ttl, tti } = self.config.lifetime;
        let (ttl, tti) = (shorter(ttl, lifetime.ttl), shorter(tti, lifetime.tti));
        let expires_at = if ttl == 0 { u64::MAX } else { self.now + ttl };
        self.entries.push(ModelEntry { key, value, weight, expires_at, used_at: self.now, ttl, tti });
        events
    }

    /// Returns the durations of a present entry whose deadlines start anew. One that is not given stays its own.
    fn restarted(&self, at: usize, given: Lifetime) -> Lifetime {
        let or = |given: u64, own: u64| if given == 0 { own } else { given };
        let own = self.entries[at].ttl;
        let ttl = or(given.ttl, own);
        let ttl = if self.config.has_ttl_function { shorter(own, ttl) } else { ttl };
        Lifetime { ttl, tti: or(given.tti, self.entries[at].tti) }
    }

    /// Makes a write that keeps the deadlines of a present entry, unless durations are given.
    fn set_with(&mut self, key: u64, value: u64, how: Written) -> Vec<Event> {
        let Some(at) = self.find(key) else { return self.write(key, value, how) };
        let present = self.entries[at].clone();
        let events = self.write(key, value, Written { lifetime: self.restarted(at, how.lifetime), ..how });
        if let Some(at) = self.position(key).filter(|_| how.lifetime.is_endless()) {
            self.entries[at].expires_at = present.expires_at;
            self.entries[at].used_at = present.used_at;
        }
        events
    }

    /// Starts the deadlines of a key's entry anew. Returns whether there is such an entry.
    fn touch(&mut self, key: u64, given: Lifetime) -> bool {
        let Some(at) = self.find(key) else { return false };
        let ModelEntry { value, weight, .. } = self.entries[at];
        self.write(key, value, Written { weight, lifetime: self.restarted(at, given), is_kept: true });
        true
    }

    /// Whether the cache keeps nothing, because it was resized to 0.
    fn is_closed(&self) -> bool {
        self.config.capacity == 0 && self.was_resized
    }

    /// Changes the capacity, and accounts for the removals.
    fn resize(&mut self, capacity: u64, events: &[Event]) {
        self.config.capacity = capacity;
        self.was_resized = true;
        self.is_exact &= self.was_written || self.config.policy == Kind::Lru;
        self.account_for(events, None);
        assert!(!self.is_closed() || self.entries.is_empty(), "the cache must be empty");
    }

    /// Accounts for the other removals of a call: expired entries, and evictions of other keys than `keep` while the
    /// weight is too high.
    fn account_for(&mut self, events: &[Event], keep: Option<u64>) {
        for one in events {
            let at = self
                .position(one.key.expect("the listener gets keys"))
                .expect("only present entries are removed");
            let is_over = self.weight() > self.config.capacity;
            match one.cause {
                Cause::Expired => assert!(self.is_expired(at), "{one:?} has not expired"),
                Cause::Size if self.is_closed() && !is_over => {}
                Cause::Size => {
                    assert!(is_over, "{one:?}: the cache had room");
                    assert_ne!(one.key, keep, "an entry must not be the victim of its own write");
                    assert_ne!(
                        self.entries[at].weight, 0,
                        "the eviction of an entry of weight zero makes no room"
                    );
                    let mut others = self.entries.iter().filter(|entry| Some(entry.key) != keep);
                    let oldest = others.find(|entry| entry.weight != 0);
                    if self.is_exact {
                        assert_eq!(
                            oldest.map(|entry| entry.key),
                            one.key,
                            "the victim must be the oldest entry"
                        );
                    }
                }
                _ => panic!("{one:?} was not expected"),
            }
            assert_eq!(self.take(at, one.cause), *one);
        }
        assert!(self.weight() <= self.config.capacity, "the weight must not exceed the capacity");
    }
}
