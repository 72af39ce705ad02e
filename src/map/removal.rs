//! What leaves the cache on the way out of a call: carried in a list, told and dropped after the unlock.

use crate::reclaim::Handle;
use crate::reclaim::{RetireList, Retired};

/// Why an entry left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its deadline passed.
    Expired,
    /// The user removed it.
    Explicit,
    /// The user set another value.
    Replaced,
    /// The capacity needed its room.
    Size,
}

impl Cause {
    /// The word that a listener is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Expired => "expired",
            Cause::Explicit => "explicit",
            Cause::Replaced => "replaced",
            Cause::Size => "size",
        }
    }
}

/// One value that left, with its key where the key left too or a listener wants to know it.
pub struct Removal<K, V> {
    pub(crate) pair: Retired<(Option<K>, V)>,
    pub(crate) cause: Cause,
}

impl<K, V> Removal<K, V> {
    /// The key, if the cache has a listener or the key left with the value.
    pub fn key(&self) -> Option<&K> {
        self.pair.0.as_ref()
    }

    pub fn value(&self) -> &V {
        &self.pair.1
    }

    pub fn cause(&self) -> Cause {
        self.cause
    }
}

impl<K: Handle, V: Handle> Removal<K, V> {
    /// Whether there is something to drop. To drop what lives for ever does nothing, so it need not wait.
    #[inline]
    pub(crate) fn is_mortal(&self) -> bool {
        !(self.value().is_immortal() && self.key().is_none_or(K::is_immortal))
    }
}

/// What left the cache in one call, in order, and the keys that were held to be compared.
///
/// The caller of the core tells the listener of each, then hands the list to
/// [`Cache::release`](crate::Cache::release). Dropping it instead leaks what it holds.
pub struct Removals<K, V> {
    /// What left, in order: mostly nothing or one, which need no memory of their own.
    first: Option<Removal<K, V>>,
    more: Vec<Removal<K, V>>,
    /// Whether more was to leave than there was memory for.
    is_truncated: bool,
    /// Made when a key is held to be compared, which most calls never do.
    compared: Option<Box<HeldKeys<K>>>,
}

/// The keys that were held while a user's code compared them.
pub(crate) struct HeldKeys<K> {
    /// Those found unequal: who meets one of them again knows it.
    pub unequal: Vec<K>,
    /// Those found equal in a place that was lost meanwhile, and those whose comparison failed, which
    /// ends the call.
    pub others: Vec<K>,
}

/// How many keys were held when a call began: with another key, they may compare otherwise.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    unequal: usize,
    others: usize,
}

impl<K, V> Default for Removals<K, V> {
    fn default() -> Self {
        Removals { first: None, more: Vec::new(), is_truncated: false, compared: None }
    }
}

impl<K, V> Removals<K, V> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing left and no key was held.
    #[inline]
    pub fn is_untouched(&self) -> bool {
        self.is_empty() && self.compared.is_none()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Removal<K, V>> {
        self.first.iter().chain(&self.more)
    }

    /// Whether nothing left.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // The first is taken out with all others or not at all.
        self.first.is_none()
    }

    /// What left last.
    #[inline]
    pub(crate) fn last(&self) -> Option<&Removal<K, V>> {
        self.more.last().or(self.first.as_ref())
    }

    /// What left first.
    #[inline]
    pub(crate) fn first(&self) -> Option<&Removal<K, V>> {
        self.first.as_ref()
    }

    /// Takes out what left first, which comes before [`Removals::take_more`].
    #[inline]
    pub(crate) fn take_first(&mut self) -> Option<Retired<(Option<K>, V)>> {
        self.first.take().map(|first| first.pair)
    }

    /// Takes out what left after the first, in order; `None` if that was all.
    #[inline]
    pub(crate) fn take_more(&mut self) -> Option<impl Iterator<Item = Removal<K, V>>> {
        if self.more.is_empty() { None } else { Some(self.more.drain(..)) }
    }

    pub(crate) fn compared(&mut self) -> &mut HeldKeys<K> {
        self.compared.get_or_insert_with(|| Box::new(HeldKeys { unequal: Vec::new(), others: Vec::new() }))
    }

    /// Tells what a call holds from what calls before it did.
    pub(crate) fn mark(&self) -> Mark {
        self.compared.as_ref().map_or(Mark { unequal: 0, others: 0 }, |compared| Mark {
            unequal: compared.unequal.len(),
            others: compared.others.len(),
        })
    }

    /// The keys found unequal since.
    pub(crate) fn unequal(&self, since: Mark) -> &[K] {
        self.compared.as_ref().map_or(&[], |compared| &compared.unequal[since.unequal..])
    }

    /// The keys found equal since, whose place was lost.
    pub(crate) fn equal(&self, since: Mark) -> &[K] {
        self.compared.as_ref().map_or(&[], |compared| &compared.others[since.others..])
    }

    /// Drops what left a cache that nobody can reach any more, and so no reader can see.
    #[cfg_attr(not(feature = "python"), allow(dead_code))]
    pub(crate) fn drop_unseen(self) {
        // Its end drops what is in it. It asks for no grace, which for each entry would take longer than its drop.
        let mut bin = RetireList::<_, { usize::MAX }>::default();
        self.first.into_iter().chain(self.more).for_each(|departure| bin.put(departure.pair));
    }

    /// Whether so many more may leave. Where something left and there is no memory for more, that waits until the list
    /// is empty.
    #[inline]
    pub(crate) fn has_room(&mut self, more: usize) -> bool {
        let has_room = self.is_empty() || self.more.try_reserve(more).is_ok();
        self.is_truncated |= !has_room;
        has_room
    }

    /// Whether more was to leave than there was memory for. The caller calls [`Cache::finish_eviction`](crate::Cache::finish_eviction)
    /// with another list.
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    #[inline]
    pub(crate) fn push(&mut self, pair: Retired<(Option<K>, V)>, cause: Cause) {
        let departure = Removal { pair, cause };
        if self.first.is_none() {
            self.first = Some(departure);
        } else {
            self.more.push(departure);
        }
    }
}
