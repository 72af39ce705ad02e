//! One call on a cache and on its model, whose results and events must be equal.

use std::time::Duration;

use moka_py::{Cause, Config, Kind, Lifetime, NewValue, SHARD_SHIFT};

use super::{ModelEntry, NaiveModel, Written};
use crate::support::{
    BuiltinEqQuery, Error, Event, Key, Subject, UserEqQuery, Value, event, is_same_value, mix_hash,
};

/// The hashes of the keys in a comparison.
#[derive(Clone, Copy, Debug)]
pub enum Hashes {
    Spread,
    /// A few hashes for all keys.
    Few,
    /// All keys are in one shard, with neighbouring home slots.
    Narrow,
}

/// One call, or an advance of the clock. With `user_eq` a user-defined comparison runs.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Get { key: u64, user_eq: bool },
    Peek { key: u64 },
    Set { key: u64, user_eq: bool, how: Written },
    SetIfAbsent { key: u64, how: Written },
    SetWith { key: u64, how: Written },
    Touch { key: u64, lifetime: Lifetime },
    GetWith { key: u64, how: Written },
    Remove { key: u64 },
    Pop,
    ExpiresIn { key: u64 },
    Settle,
    Clear,
    Resize { capacity: u64 },
    Advance { by: u64 },
}

pub struct Comparison {
    subject: Subject,
    model: NaiveModel,
    hashes: Hashes,
    word: u64,
}

impl Comparison {
    pub fn new(config: Config, hashes: Hashes) -> Self {
        let config = Config { has_listener: true, ..config };
        // A cache of several shards has an order within each shard only.
        let is_exact = config.capacity < 2048 && (config.policy == Kind::Lru || config.capacity < 8);
        let model = NaiveModel {
            entries: Vec::new(),
            config,
            is_exact,
            was_resized: false,
            was_written: false,
            now: 1,
        };
        Comparison { subject: Subject::new(config), model, hashes, word: 0 }
    }

    fn hash(&self, key: u64) -> u64 {
        match self.hashes {
            Hashes::Spread => mix_hash(key),
            Hashes::Few => mix_hash(key % 5),
            Hashes::Narrow => mix_hash(key) >> 6 & !(63 << SHARD_SHIFT),
        }
    }

    fn builtin_eq_query(&self, key: u64) -> BuiltinEqQuery {
        BuiltinEqQuery { hash: self.hash(key), ..self.subject.query(key) }
    }

    fn user_eq_query(&self, key: u64) -> UserEqQuery<impl Fn(&Key) -> Result<bool, Error>> {
        let eq_slow = move |other: &Key| Ok(other.id() == key);
        UserEqQuery { key: Key::new(key, &self.subject.keys), hash: self.hash(key), eq_slow }
    }

    fn advance(&mut self, by: u64) {
        self.subject.advance(by);
        self.model.now += by;
    }

    /// Makes one call on both, and compares the results and events. Without a weigher every entry has the weight 1.
    pub fn step(&mut self, op: Op) {
        self.word += 1;
        let (word, subject) = (self.word, &self.subject);
        let is_weighted = self.model.config.weighted;
        let weigh = |how: Written| Written { weight: if is_weighted { how.weight } else { 1 }, ..how };
        let stored = |Written { weight, lifetime, is_kept }| NewValue {
            weight: weight as u32,
            lifetime,
            is_kept,
            ..subject.stored(word)
        };
        let word_of = |found: Result<Option<crate::support::Value>, Error>| {
            found.expect("no failure").map(|value| value.word())
        };
        match op {
            Op::Get { key, user_eq } => {
                let found = match user_eq {
                    false => word_of(
                        subject.call(|removed| subject.cache.get(&self.builtin_eq_query(key), removed)),
                    ),
                    true => {
                        word_of(subject.call(|removed| subject.cache.get(&self.user_eq_query(key), removed)))
                    }
                };
                assert_eq!(found, self.model.find(key).map(|at| self.model.hit(at)));
                self.model.account_for(&subject.events(), None);
            }
            Op::Peek { key } => {
                let found =
                    word_of(subject.call(|removed| subject.cache.peek(&self.builtin_eq_query(key), removed)));
                assert_eq!(found, self.model.find(key).map(|at| self.model.entries[at].value));
                self.model.account_for(&subject.events(), None);
            }
            Op::Set { key, user_eq, how } => {
                let how = weigh(how);
                let value = stored(how);
                match user_eq {
                    false => {
                        subject.call(|removed| subject.cache.set(&self.builtin_eq_query(key), value, removed))
                    }
                    true => {
                        subject.call(|removed| subject.cache.set(&self.user_eq_query(key), value, removed))
                    }
                }
                .expect("no failure");
                self.check_write(key, word, how);
            }
            Op::SetIfAbsent { key, how } => {
                let how = weigh(how);
                let (query, value) = (self.builtin_eq_query(key), stored(how));
                let kept =
                    word_of(subject.call(|removed| subject.cache.set_if_absent(&query, value, removed)));
                assert_eq!(kept, self.model.find(key).map(|at| self.model.hit(at)));
                match kept {
                    Some(_) => self.model.account_for(&subject.events(), None),
                    None => self.check_write(key, word, how),
                }
            }
            Op::SetWith { key, how } => {
                let how = weigh(how);
                let (query, value) = (self.builtin_eq_query(key), stored(how));
                let seen = subject.call(|removed| subject.cache.peek(&query, removed)).expect("no failure");
                assert_eq!(
                    seen.as_ref().map(|value| value.word()),
                    self.model.find(key).map(|at| self.model.entries[at].value)
                );
                // The look-up may have removed expired entries.
                self.model.account_for(&subject.events(), None);
                let is_same = |present: Option<&Value>| is_same_value(seen.as_ref(), present);
                let unwritten = subject.call(|removed| {
                    subject.cache.set_if_same(&self.user_eq_query(key), value, is_same, removed)
                });
                assert!(unwritten.expect("no failure").is_none(), "no other thread writes");
                drop(seen);
                let expected_events = self.model.set_with(key, word, how);
                let events = self.subject.events();
                let (own, others) = events.split_at(expected_events.len());
                assert_eq!(own, expected_events);
                self.model.account_for(others, Some(key));
            }
            Op::Touch { key, lifetime } => {
                let touched =
                    subject.call(|removed| subject.cache.touch(&self.user_eq_query(key), lifetime, removed));
                assert_eq!(touched, Ok(self.model.touch(key, lifetime)));
                self.model.account_for(&subject.events(), None);
            }
            Op::GetWith { key, how } => {
                let how = weigh(how);
                let loaded = subject.call(|removed| {
                    let compute = || Ok(stored(how));
                    let mut pause = |_: &(dyn Fn() + Sync)| unreachable!("no other thread computes");
                    subject.cache.get_with(&self.user_eq_query(key), compute, &mut pause, removed)
                });
                let loaded = loaded.map(|value| value.word()).ok();
                match self.model.find(key) {
                    Some(at) => {
                        assert_eq!(loaded, Some(self.model.hit(at)));
                        self.model.account_for(&subject.events(), None);
                    }
                    None => {
                        assert_eq!(loaded, Some(word));
                        // The look-up before the computation may have removed expired entries.
                        let events = subject.events();
                        let is_early = |one: &&Event| one.cause == Cause::Expired && one.value != word;
                        let early = events.iter().take_while(is_early).count();
                        self.model.account_for(&events[..early], None);
                        self.check_write_events(key, word, how, &events[early..]);
                    }
                }
            }
            Op::Remove { key } => {
                let removed = word_of(
                    subject.call(|removed| subject.cache.remove(&self.builtin_eq_query(key), removed)),
                );
                let mut events = subject.events();
                assert_eq!(removed, self.model.find(key).map(|at| self.model.entries[at].value));
                if let Some(at) = self.model.position(key) {
                    assert_eq!(events.remove(0), self.model.take(at, Cause::Explicit));
                }
                self.model.account_for(&events, None);
            }
            Op::Pop => self.pop(),
            Op::ExpiresIn { key } => {
                let expected = self.model.find(key).map(|at| self.model.entries[at].deadline());
                let expected = expected.filter(|&deadline| deadline != u64::MAX);
                let removed =
                    subject.call(|removed| subject.cache.expires_in(&self.builtin_eq_query(key), removed));
                assert_eq!(
                    removed,
                    Ok(expected.map(|deadline| Duration::from_nanos(deadline - self.model.now)))
                );
            }
            Op::Settle => self.settle(),
            Op::Clear => self.clear(),
            Op::Resize { capacity } => {
                subject.resize(capacity);
                assert_eq!(subject.cache.capacity(), capacity);
                let events = subject.events();
                self.model.resize(capacity, &events);
            }
            Op::Advance { by } => self.advance(by),
        }
    }

    fn check_write(&mut self, key: u64, word: u64, how: Written) {
        let events = self.subject.events();
        self.check_write_events(key, word, how, &events);
    }

    fn check_write_events(&mut self, key: u64, word: u64, how: Written, events: &[Event]) {
        let expected_events = self.model.write(key, word, how);
        let (own, others) = events.split_at(expected_events.len());
        assert_eq!(own, expected_events);
        self.model.account_for(others, Some(key));
    }

    fn pop(&mut self) {
        let popped = self.subject.pop_any();
        let mut events = self.subject.events();
        match popped {
            Some((key, value)) => {
                assert_eq!(events.pop(), Some(event(key, value, Cause::Explicit)));
                self.model.account_for(&events, None);
                let at = self.model.find(key).expect("a popped entry was present");
                assert_eq!(self.model.take(at, Cause::Explicit), event(key, value, Cause::Explicit));
            }
            None => {
                self.model.account_for(&events, None);
                assert!(self.model.entries.is_empty());
            }
        }
    }

    /// Counts the entries, which removes the expired ones, and flushes the cache.
    pub fn settle(&mut self) {
        let (count, weight) = (self.subject.count(), self.subject.weight());
        self.model.account_for(&self.subject.events(), None);
        assert!(
            (0..self.model.entries.len()).all(|at| !self.model.is_expired(at)),
            "an expired entry is still in the cache"
        );
        assert_eq!((count, weight), (self.model.entries.len(), self.model.weight()));
        self.subject.cache.flush();
        // Each entry has one key and one value. Other threads of this process may delay the release of more.
        assert!(self.subject.values.alive() >= count);
        if cfg!(moka_gil) {
            assert_eq!((self.subject.values.alive(), self.subject.keys.alive()), (count, count));
        }
    }

    fn clear(&mut self) {
        self.subject.clear();
        let mut events = self.subject.events();
        let mut expected_events: Vec<Event> = Vec::new();
        while !self.model.entries.is_empty() {
            expected_events.push(self.model.take(0, Cause::Explicit));
        }
        events.sort_unstable_by_key(|one| one.value);
        expected_events.sort_unstable_by_key(|one| one.value);
        assert_eq!(events, expected_events);
    }

    pub fn check(&self) {
        assert_eq!(self.subject.entries(), self.model.live());
        let earliest = self.model.entries.iter().map(ModelEntry::deadline).min().filter(|&at| at != u64::MAX);
        let remaining = earliest.map(|deadline| deadline.saturating_sub(self.model.now));
        match (self.subject.next_deadline(), remaining) {
            (Some(remaining), Some(expected)) => assert!(remaining <= expected, "{remaining} of {expected}"),
            (found, expected) => assert_eq!(found, expected),
        }
        self.subject.validate();
    }
}
