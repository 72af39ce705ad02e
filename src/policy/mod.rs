//! Who leaves when the capacity is spent.
//!
//! # How it works
//! Each shard has a [`AccessRecorder`], which readers tell of hits without a lock, and a [`Policy`], which only
//! the lock's holder asks for a victim. A hit writes the stamp of its entry, and only where that changes
//! something (law 5). The policy sees stamps when it looks for a victim, and puts its order right then.
//!
//! The policy knows entries by number and asks a [`View`] about them. It decides; the shard acts.

mod lru;
mod tiny_lfu;

use lru::{Lru, Recency};
use tiny_lfu::TinyLfu;
use tiny_lfu::access_stamps::AccessStamps;
use tiny_lfu::window::Window;

use crate::collections::try_reserve::NoMemory;
use crate::sync::{AtomicU64, Padded, prefetch_write};

/// The policies a user can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    TinyLfu,
    Lru,
}

/// In a cache smaller than this, recency alone decides: users of so few entries expect it.
const LEAST_FOR_FREQUENCY: u64 = 8;

/// What a policy may know of an entry.
pub(crate) trait View {
    fn look(&self, number: u32) -> EntryView<'_>;
    fn weight(&self, number: u32) -> u64;

    fn hash(&self, number: u32) -> u64 {
        self.look(number).hash
    }

    fn stamp(&self, number: u32) -> &AtomicU64 {
        self.look(number).stamp
    }

    /// Asks ahead for what else changes when an entry of this hash leaves.
    fn prefetch_leaving(&self, _hash: u64) {}
}

/// What a policy sees of an entry. To find an entry by its number takes a few loads, so who needs both keeps the look.
#[derive(Clone, Copy)]
pub(crate) struct EntryView<'a> {
    pub hash: u64,
    pub stamp: &'a AtomicU64,
}

/// The readers' side of a policy.
pub(crate) enum AccessRecorder {
    Lru(Padded<Recency>),
    TinyLfu(AccessStamps),
}

pub(crate) enum Policy {
    Lru(Lru),
    TinyLfu(Box<TinyLfu>),
}

/// Both sides of a policy, for each of the shards of a cache.
pub(crate) fn for_shards(
    kind: Kind,
    capacity: u64,
    shards: usize,
) -> impl ExactSizeIterator<Item = (AccessRecorder, Policy)> {
    let window = Window::default();
    let share = capacity / shards as u64;
    (0..shards).map(move |shard| match kind {
        Kind::TinyLfu if capacity >= LEAST_FOR_FREQUENCY => {
            let leads = shard == 0;
            let policy = Box::new(TinyLfu::new(share, window.clone(), leads.then_some(shards)));
            (AccessRecorder::TinyLfu(AccessStamps::new(leads)), Policy::TinyLfu(policy))
        }
        _ => (AccessRecorder::Lru(Padded(Recency::new())), Policy::Lru(Lru::default())),
    })
}

impl AccessRecorder {
    /// Notes a use of an entry: a hit, or another value.
    #[inline(always)]
    pub fn record(&self, stamp: &AtomicU64) {
        match self {
            AccessRecorder::TinyLfu(uses) => uses.record(stamp),
            AccessRecorder::Lru(recency) => recency.0.record(stamp),
        }
    }

    /// Asks ahead for what a newcomer will change here.
    #[inline]
    pub fn prefetch_insert(&self) {
        if let AccessRecorder::Lru(recency) = self {
            prefetch_write(recency);
        }
    }
}

impl Policy {
    /// Makes sure that the number of an entry can be inserted, and kept whatever becomes of it.
    #[inline]
    pub fn reserve(&mut self, number: u32) -> Result<(), NoMemory> {
        match self {
            Policy::Lru(lru) => lru.reserve(number),
            Policy::TinyLfu(tiny) => tiny.reserve(number),
        }
    }

    /// Asks ahead for what a newcomer and its victim will change, as far as that is known.
    #[inline]
    pub fn prefetch(&self, view: &impl View) {
        match self {
            Policy::Lru(lru) => lru.prefetch(view),
            Policy::TinyLfu(tiny) => tiny.prefetch(view),
        }
    }

    /// Takes in a new entry, one of `live` with it, at which its caller is looking.
    pub fn insert(
        &mut self,
        number: u32,
        look: EntryView<'_>,
        live: usize,
        view: &impl View,
        recorder: &AccessRecorder,
    ) {
        match (self, recorder) {
            (Policy::TinyLfu(tiny), AccessRecorder::TinyLfu(uses)) => {
                tiny.insert(number, look, live, view, uses)
            }
            (Policy::Lru(lru), AccessRecorder::Lru(recency)) => {
                lru.insert(number, look, live, view, &recency.0)
            }
            _ => unreachable!("both sides are of one kind"),
        }
    }

    /// Forgets an entry, if it is known. Its weight is still the one that the policy knows.
    pub fn remove(&mut self, number: u32, view: &impl View) {
        match self {
            Policy::Lru(lru) => lru.remove(number),
            Policy::TinyLfu(tiny) => tiny.remove(number, view),
        }
    }

    /// Learns that an entry's weight was `before`.
    pub fn reweigh(&mut self, number: u32, before: u64, view: &impl View) {
        match self {
            Policy::Lru(lru) => lru.reweigh(number, before, view),
            Policy::TinyLfu(tiny) => tiny.reweigh(number, before, view),
        }
    }

    /// Takes out the entry that should leave next; never `keep`, nor one of weight 0. `None` if there is no other.
    pub fn victim(&mut self, keep: Option<u32>, view: &impl View) -> Option<u32> {
        match self {
            Policy::Lru(lru) => lru.victim(keep, view),
            Policy::TinyLfu(tiny) => tiny.victim(keep, view),
        }
    }

    /// Puts the regions right after a write that needed no victim.
    #[inline]
    pub fn settle(&mut self, view: &impl View) {
        if let Policy::TinyLfu(tiny) = self {
            tiny.settle(view);
        }
    }

    /// Some entry, the colder the better; `None` if there is none.
    pub fn any(&mut self) -> Option<u32> {
        match self {
            Policy::Lru(lru) => lru.any(),
            Policy::TinyLfu(tiny) => tiny.any(),
        }
    }

    /// Gives back the memory of numbers from `limit` up, which are not in use; and what is remembered of
    /// former entries, if none is `live`.
    pub fn trim(&mut self, limit: u32, live: usize) {
        match self {
            Policy::Lru(lru) => lru.trim(limit),
            Policy::TinyLfu(tiny) => tiny.trim(limit, live),
        }
    }

    /// Checks that exactly the numbers given are known, and the regions' weights.
    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self, live: &[u32], view: &impl View) {
        let mut known = match self {
            Policy::Lru(lru) => lru.numbers(),
            Policy::TinyLfu(tiny) => tiny.validate(view),
        };
        known.sort_unstable();
        assert_eq!(known, live, "the policy knows the live entries and no others");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Ordering;

    /// Entries as a policy sees them, by number: hash, weight, stamp.
    #[derive(Default)]
    pub(super) struct Entries(pub Vec<(u64, u64, AtomicU64)>);

    impl Entries {
        /// So many entries of weight 1.
        pub fn plain(count: u32) -> Self {
            Self::weighing(&vec![1; count as usize])
        }

        pub fn weighing(weights: &[u64]) -> Self {
            let hash = |number: usize| (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let entry = |(number, &weight)| (hash(number), weight, AtomicU64::new(0));
            Entries(weights.iter().enumerate().map(entry).collect())
        }

        pub fn stamp_with(&self, number: u32, stamp: u64) {
            self.stamp(number).store(stamp, Ordering::Relaxed);
        }
    }

    impl View for Entries {
        fn look(&self, number: u32) -> EntryView<'_> {
            let (hash, _, stamp) = &self.0[number as usize];
            EntryView { hash: *hash, stamp }
        }

        fn weight(&self, number: u32) -> u64 {
            self.0[number as usize].1
        }
    }

    /// Both sides of the policy of a cache of one shard.
    fn new(kind: Kind, capacity: u64) -> (AccessRecorder, Policy) {
        for_shards(kind, capacity, 1).next().expect("there is one shard")
    }

    #[test]
    fn a_small_cache_goes_by_recency_alone() {
        for capacity in 0..LEAST_FOR_FREQUENCY {
            assert!(matches!(new(Kind::TinyLfu, capacity), (AccessRecorder::Lru(_), Policy::Lru(_))));
        }
        let policy = new(Kind::TinyLfu, LEAST_FOR_FREQUENCY);
        assert!(matches!(policy, (AccessRecorder::TinyLfu(_), Policy::TinyLfu(_))));
        assert!(matches!(new(Kind::Lru, 1 << 30), (AccessRecorder::Lru(_), Policy::Lru(_))));
    }

    #[test]
    fn to_use_the_newest_again_writes_nothing() {
        let (recorder, _) = new(Kind::Lru, 100);
        let stamps = [AtomicU64::new(0), AtomicU64::new(0)];
        let stamped = |number: usize| {
            recorder.record(&stamps[number]);
            stamps[number].load(Ordering::Relaxed)
        };
        let first = stamped(0);
        assert_eq!(stamped(0), first);
        let second = stamped(1);
        assert!(second > first);
        assert!(stamped(0) > second);
    }

    #[test]
    fn no_policy_gives_up_the_entry_to_keep() {
        for kind in [Kind::Lru, Kind::TinyLfu] {
            for count in 1..40 {
                let (recorder, mut policy) = new(kind, 20);
                let entries = Entries::plain(count);
                for number in 0..count {
                    policy.insert(number, entries.look(number), number as usize + 1, &entries, &recorder);
                    policy.settle(&entries);
                }
                let keep = count / 2;
                let victims: Vec<u32> = std::iter::from_fn(|| policy.victim(Some(keep), &entries)).collect();
                assert_eq!(victims.len(), count as usize - 1, "{kind:?}");
                assert!(!victims.contains(&keep), "{kind:?}");
                policy.validate(&[keep], &entries);
                assert_eq!(policy.victim(None, &entries), Some(keep));
            }
        }
    }
}
