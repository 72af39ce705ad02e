//! W-TinyLFU: a small window for the new, a main region for what has proved itself.
//!
//! # How it works
//! A new entry enters the window. When the cache is full and the window over its share, the window's oldest
//! is the candidate and the oldest of probation the victim; the more frequent of the two, by the sketch,
//! stays, and the victim on a tie. An entry used in probation moves to protected, up to 80 % of the
//! main region; what falls out of protected has another chance in probation. Einziger, Friedman, Manes,
//! "TinyLFU: A Highly Efficient Cache Admission Policy" (2017).
//!
//! Hits only count up the stamp of their entry. Each region is a queue by time of entry; when an entry comes
//! to its head its uses go to the sketch, and if there were any it is moved, as a second chance. A call
//! looks at a bounded number of heads; a used one may leave when it is through with them.
//!
//! # Invariants
//! - `one-region`: a known entry is in the list of its region and no other.
//! - `sums`: a region's weight is that of its entries.

use crate::lists::Lists;
use crate::sync::Ordering;

use super::View;
use super::sketch::Sketch;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Region {
    Window,
    Probation,
    Protected,
}

use Region::{Probation, Protected, Window};

/// The window's part of the capacity is one in this many.
const WINDOW_PART: u64 = 100;
/// Heads that one call looks at.
const STEPS: usize = 16;

pub(crate) struct TinyLfu {
    lists: Lists,
    regions: Vec<Region>,
    weights: [u64; 3],
    sketch: Sketch,
    /// The shard's part of the capacity.
    share: u64,
}

impl TinyLfu {
    pub fn new(share: u64) -> Self {
        TinyLfu {
            lists: Lists::new(3),
            regions: Vec::new(),
            weights: [0; 3],
            sketch: Sketch::default(),
            share,
        }
    }

    pub fn insert(&mut self, number: u32, live: usize, view: &impl View) {
        self.sketch.maintain(live);
        self.sketch.add(view.hash(number), 1);
        if self.regions.len() <= number as usize {
            self.regions.resize(number as usize + 1, Window);
        }
        self.enter(Window, number, view);
    }

    pub fn remove(&mut self, number: u32, view: &impl View) {
        if self.lists.unlink(number) {
            self.weights[self.region(number) as usize] -= view.weight(number);
        }
    }

    pub fn reweigh(&mut self, number: u32, before: u64, view: &impl View) {
        let weight = &mut self.weights[self.regions[number as usize] as usize];
        *weight = *weight - before + view.weight(number);
    }

    pub fn victim(&mut self, keep: Option<u32>, view: &impl View) -> Option<u32> {
        let mut steps = STEPS;
        let candidate = if self.weights[Window as usize] > self.window_share() {
            self.oldest(Window, keep, view, &mut steps)
        } else {
            None
        };
        let victim = self.oldest_of_main(keep, view);
        let leaves = match (candidate, victim) {
            (Some(candidate), Some(victim))
                if self.frequency(candidate, view) > self.frequency(victim, view) =>
            {
                self.move_to(Probation, candidate, view);
                victim
            }
            (Some(candidate), _) => candidate,
            (None, Some(victim)) => victim,
            (None, None) => self.oldest(Window, keep, view, &mut steps)?,
        };
        self.remove(leaves, view);
        Some(leaves)
    }

    /// Lets the window overflow into probation: while there is room, nobody is turned away.
    pub fn settle(&mut self, view: &impl View) {
        for _ in 0..STEPS {
            if self.weights[Window as usize] <= self.window_share() {
                break;
            }
            match self.oldest(Window, None, view, &mut STEPS.clone()) {
                Some(oldest) => self.move_to(Probation, oldest, view),
                None => break,
            }
        }
    }

    pub fn any(&mut self) -> Option<u32> {
        [Probation, Protected, Window].iter().find_map(|&region| self.lists.front(region as usize))
    }

    pub fn trim(&mut self, limit: u32, live: usize) {
        self.sketch.trim(live);
        self.lists.trim(limit);
        self.regions.truncate(limit as usize);
        self.regions.shrink_to_fit();
    }

    fn window_share(&self) -> u64 {
        // Where keys of one shard hold more than its share, the regions grow with them.
        let held = self.weights.iter().sum::<u64>().max(self.share);
        (held / WINDOW_PART).max(1)
    }

    fn protected_share(&self) -> u64 {
        (self.weights[Probation as usize] + self.weights[Protected as usize]) / 5 * 4
    }

    /// The head of a region after its stamped heads had their second chance at the tail.
    fn oldest(
        &mut self,
        region: Region,
        keep: Option<u32>,
        view: &impl View,
        steps: &mut usize,
    ) -> Option<u32> {
        loop {
            let head = self.lists.front(region as usize)?;
            let is_kept = Some(head) == keep;
            if !is_kept && (*steps == 0 || !self.take_uses(head, view)) {
                return Some(head);
            }
            *steps = steps.saturating_sub(1);
            self.move_to(region, head, view);
            let is_alone = self.lists.front(region as usize) == Some(head);
            if is_kept && is_alone {
                return None;
            }
        }
    }

    /// The head of probation, after its stamped heads moved to protected; where probation is empty, the
    /// head of protected.
    fn oldest_of_main(&mut self, keep: Option<u32>, view: &impl View) -> Option<u32> {
        let mut steps = STEPS;
        while steps > 0 {
            let Some(head) = self.lists.front(Probation as usize) else { break };
            if Some(head) != keep && !self.take_uses(head, view) {
                return Some(head);
            }
            steps -= 1;
            self.move_to(Protected, head, view);
            while steps > 0 && self.weights[Protected as usize] > self.protected_share() {
                steps -= 1;
                match self.oldest(Protected, keep, view, &mut steps) {
                    Some(oldest) => self.move_to(Probation, oldest, view),
                    None => break,
                }
            }
        }
        let probation = self.oldest(Probation, keep, view, &mut 0);
        probation.or_else(|| self.oldest(Protected, keep, view, &mut steps))
    }

    /// Whether the entry was used since this was last asked. Its uses go to the sketch.
    fn take_uses(&mut self, number: u32, view: &impl View) -> bool {
        let stamp = view.stamp(number);
        // Relaxed: a use at the same moment counts for this time or the next, or is lost.
        let uses = stamp.load(Ordering::Relaxed);
        if uses == 0 {
            return false;
        }
        stamp.store(0, Ordering::Relaxed);
        self.sketch.add(view.hash(number), uses as u32);
        true
    }

    fn frequency(&self, number: u32, view: &impl View) -> u32 {
        let fresh = view.stamp(number).load(Ordering::Relaxed) as u32;
        self.sketch.frequency(view.hash(number)) + fresh
    }

    fn region(&self, number: u32) -> Region {
        self.regions[number as usize]
    }

    fn enter(&mut self, region: Region, number: u32, view: &impl View) {
        self.regions[number as usize] = region;
        self.lists.push_back(region as usize, number);
        self.weights[region as usize] += view.weight(number);
    }

    fn move_to(&mut self, region: Region, number: u32, view: &impl View) {
        self.remove(number, view);
        self.enter(region, number, view);
    }

    /// Checks the invariants, and tells which numbers it knows.
    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self, view: &impl View) -> Vec<u32> {
        let mut known = Vec::new();
        for region in [Window, Probation, Protected] {
            let numbers: Vec<u32> = self.lists.iter(region as usize).collect();
            assert!(numbers.iter().all(|&number| self.region(number) == region), "`one-region`");
            let weight: u64 = numbers.iter().map(|&number| view.weight(number)).sum();
            assert_eq!(weight, self.weights[region as usize], "`sums`");
            known.extend(numbers);
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::Entries;

    /// A policy that knows all of these entries.
    fn policy_of(share: u64, entries: &Entries) -> TinyLfu {
        let mut policy = TinyLfu::new(share);
        for number in 0..entries.0.len() as u32 {
            policy.insert(number, number as usize + 1, entries);
            policy.settle(entries);
        }
        policy
    }

    #[test]
    fn a_newcomer_passes_through_the_window_while_there_is_room() {
        let entries = Entries::plain(5);
        let mut policy = TinyLfu::new(100);
        for number in 0..5 {
            policy.insert(number, 5, &entries);
            assert_eq!(policy.region(number), Window);
            policy.settle(&entries);
        }
        assert_eq!((policy.weights, policy.region(4), policy.region(0)), ([1, 4, 0], Window, Probation));
        policy.validate(&entries);
    }

    #[test]
    fn the_more_frequent_of_candidate_and_victim_stays() {
        let mut entries = Entries::plain(22);
        let newcomers = entries.0.split_off(20);
        let mut policy = policy_of(20, &entries);
        entries.0.extend(newcomers);
        // Entry 19 is the window's; it becomes the candidate when the next one comes.
        policy.insert(20, 20, &entries);
        assert_eq!(policy.victim(Some(20), &entries), Some(19), "the victim stays on a tie");
        policy.insert(21, 20, &entries);
        entries.stamp_with(20, 3);
        let victim = policy.victim(Some(21), &entries);
        assert_eq!((victim, policy.region(20)), (Some(0), Probation));
        policy.validate(&entries);
    }

    #[test]
    fn what_was_used_in_probation_is_protected() {
        let entries = Entries::plain(20);
        let mut policy = policy_of(20, &entries);
        (0..3).for_each(|number| entries.stamp_with(number, 1));
        policy.victim(None, &entries).expect("there are entries");
        assert_eq!(
            [0, 1, 2, 4].map(|number| policy.region(number)),
            [Protected, Protected, Protected, Probation]
        );
        policy.validate(&entries);
    }

    #[test]
    fn the_protected_are_four_of_five_of_the_main_region() {
        let entries = Entries::plain(100);
        let mut policy = policy_of(100, &entries);
        for _ in 0..20 {
            (0..100).for_each(|number| entries.stamp_with(number, 1));
            policy.victim(None, &entries).expect("there are entries");
            // Those who leave leave from probation; the main region had 99 at first.
            assert!(policy.weights[Protected as usize] <= 99 / 5 * 4 + 1, "{:?}", policy.weights);
            policy.validate(&entries);
        }
        assert!(policy.weights[Protected as usize] > 40);
    }

    #[test]
    fn weights_follow_their_entries() {
        let mut entries = Entries::weighing(&[5, 1, 7, 2]);
        let mut policy = policy_of(100, &entries);
        entries.0[2].1 = 3;
        policy.reweigh(2, 7, &entries);
        policy.validate(&entries);
        policy.remove(0, &entries);
        policy.remove(0, &entries);
        assert_eq!(policy.weights.iter().sum::<u64>(), 6);
        assert_eq!(policy.validate(&entries).len(), 3);
    }

    #[test]
    fn a_victim_is_found_even_where_all_were_used() {
        let entries = Entries::plain(200);
        let mut policy = policy_of(200, &entries);
        for left in (0..200).rev() {
            (0..200).for_each(|number| entries.stamp_with(number, 15));
            policy.victim(None, &entries).expect("there are entries");
            assert_eq!(policy.validate(&entries).len(), left);
        }
        assert_eq!((policy.victim(None, &entries), policy.any()), (None, None));
    }
}
