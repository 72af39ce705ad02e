//! Who leaves when the capacity is spent.
//!
//! # How it works
//! Each shard has a [`Recorder`], which readers tell of hits without a lock, and a [`Policy`], which only
//! the lock's holder asks for a victim. A hit writes the stamp of its entry, and only where that changes
//! something (law 5). The policy sees stamps when it looks for a victim, and puts its order right then.
//!
//! The policy knows entries by number and asks a [`View`] about them. It decides; the shard acts.

mod lru;
mod sketch;
mod tiny_lfu;

use lru::Lru;
use tiny_lfu::TinyLfu;

use crate::sync::{AtomicU64, Ordering, Padded};

/// The policies a user can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    TinyLfu,
    Lru,
}

/// In a cache smaller than this, recency alone decides: frequencies mean nothing there yet.
const LEAST_FOR_FREQUENCY: u64 = 16;

/// What a policy may know of an entry.
pub(crate) trait View {
    fn hash(&self, number: u32) -> u64;
    fn weight(&self, number: u32) -> u64;
    fn stamp(&self, number: u32) -> &AtomicU64;
}

/// The readers' side of a policy.
pub(crate) enum Recorder {
    /// The count of uses that changed the order, from 1 on. An entry's stamp is the count at its last use,
    /// so the one whose stamp is the count is the newest, and using it again writes nothing.
    Lru { uses: Padded<AtomicU64> },
    /// A stamp counts the uses since the policy looked, up to what the sketch can count.
    TinyLfu,
}

pub(crate) enum Policy {
    Lru(Lru),
    TinyLfu(Box<TinyLfu>),
}

/// Both sides of a policy, for a shard whose share of the capacity is `share`.
pub(crate) fn new(kind: Kind, capacity: u64, share: u64) -> (Recorder, Policy) {
    match kind {
        Kind::TinyLfu if capacity >= LEAST_FOR_FREQUENCY => {
            (Recorder::TinyLfu, Policy::TinyLfu(Box::new(TinyLfu::new(share))))
        }
        _ => (Recorder::Lru { uses: Padded(AtomicU64::new(1)) }, Policy::Lru(Lru::default())),
    }
}

impl Recorder {
    /// Notes a use of an entry: a hit, or another value.
    #[inline]
    pub fn record(&self, stamp: &AtomicU64) {
        // Relaxed: a use that is lost or doubled between threads costs accuracy, never correctness.
        let old = stamp.load(Ordering::Relaxed);
        match self {
            Recorder::TinyLfu => {
                if old < u64::from(sketch::MOST) {
                    stamp.store(old + 1, Ordering::Relaxed);
                }
            }
            Recorder::Lru { uses } => {
                if old != uses.0.load(Ordering::Relaxed) {
                    stamp.store(uses.0.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Stamps a new entry. In recency its birth is a use; frequencies know it already.
    fn record_birth(&self, stamp: &AtomicU64) {
        stamp.store(0, Ordering::Relaxed);
        if let Recorder::Lru { .. } = self {
            self.record(stamp);
        }
    }
}

impl Policy {
    /// Takes in a new entry, one of `live` with it.
    pub fn insert(&mut self, number: u32, live: usize, view: &impl View, recorder: &Recorder) {
        recorder.record_birth(view.stamp(number));
        match self {
            Policy::Lru(lru) => lru.insert(number, view),
            Policy::TinyLfu(tiny) => tiny.insert(number, live, view),
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
        if let Policy::TinyLfu(tiny) = self {
            tiny.reweigh(number, before, view);
        }
    }

    /// Takes out the entry that should leave next; never `keep`. `None` if there is no other.
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
        fn hash(&self, number: u32) -> u64 {
            self.0[number as usize].0
        }

        fn weight(&self, number: u32) -> u64 {
            self.0[number as usize].1
        }

        fn stamp(&self, number: u32) -> &AtomicU64 {
            &self.0[number as usize].2
        }
    }

    #[test]
    fn a_small_cache_goes_by_recency_alone() {
        for capacity in 0..LEAST_FOR_FREQUENCY {
            assert!(matches!(new(Kind::TinyLfu, capacity, capacity), (Recorder::Lru { .. }, Policy::Lru(_))));
        }
        let (recorder, policy) = new(Kind::TinyLfu, LEAST_FOR_FREQUENCY, LEAST_FOR_FREQUENCY);
        assert!(matches!((recorder, policy), (Recorder::TinyLfu, Policy::TinyLfu(_))));
        assert!(matches!(new(Kind::Lru, 1 << 30, 1 << 30), (Recorder::Lru { .. }, Policy::Lru(_))));
    }

    #[test]
    fn to_use_the_newest_again_writes_nothing() {
        let (recorder, _) = new(Kind::Lru, 100, 100);
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
    fn a_stamp_of_uses_ends_where_the_sketch_does() {
        let (recorder, _) = new(Kind::TinyLfu, 100, 100);
        let stamp = AtomicU64::new(0);
        (0..100).for_each(|_| recorder.record(&stamp));
        assert_eq!(stamp.load(Ordering::Relaxed), u64::from(sketch::MOST));
    }

    #[test]
    fn no_policy_gives_up_the_entry_to_keep() {
        for kind in [Kind::Lru, Kind::TinyLfu] {
            for count in 1..40 {
                let (recorder, mut policy) = new(kind, 100, 20);
                let entries = Entries::plain(count);
                for number in 0..count {
                    policy.insert(number, number as usize + 1, &entries, &recorder);
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
