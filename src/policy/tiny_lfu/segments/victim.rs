//! Which entry is evicted: the admission decision, and the search for the oldest entry of a segment.
//!
//! # How it works
//! If the window is over its share, its oldest entry is the candidate, and the oldest entry of the main region is the
//! victim. One of the two is evicted ([`Segments::admits`]). Otherwise the main region gives up its oldest entry.
//!
//! Entries with a [`second_chance`](super::second_chance) move while the search passes them, and their hits go to the
//! sketch. After [`MAX_STEPS_PER_CALL`] entries the next one is taken even if it was hit, so a search ends if all
//! entries are hot.

use super::Segment::{self, Probation, Protected, Weightless, Window};
use super::{MAX_STEPS_PER_CALL, Segments, access_stamps, window_list};
use crate::policy::{EntryView, EntryViews};
use crate::sync::is_far;

/// A losing candidate is admitted at random if it was used at least this often of late.
const ADMIT_HASHDOS_THRESHOLD: u32 = 6;
/// One in this many such candidates is admitted.
pub(super) const ADMIT_ONE_IN: u64 = 1024;

/// The index of an entry, and its view.
type IndexedEntry<'a> = (u32, EntryView<'a>);

impl Segments {
    /// Removes the next victim and returns it; never `keep`. `None` if no other entry has a weight.
    pub fn take_victim(&mut self, keep: Option<u32>, entries: &impl EntryViews) -> Option<u32> {
        if is_far(self.live()) {
            self.prefetch_victim(entries);
        }
        let is_over = self.weights[Window as usize] > self.window_share;
        let candidate = if is_over { self.oldest_in_window(keep, entries) } else { None };
        let victim = self.oldest_in_main(keep, entries);
        let (evicted, entry) = match (candidate, victim) {
            (Some(candidate), Some(victim)) if self.admits(candidate, victim, keep, entries) => {
                self.move_to(Probation, candidate.0, entries);
                victim
            }
            (Some(candidate), _) => candidate,
            (None, Some(victim)) => victim,
            (None, None) => self.oldest_in_window(keep, entries)?,
        };
        self.record_pending_insert(entry);
        self.remove(evicted, entries);
        Some(evicted)
    }

    /// Moves entries that the window has no room for to probation. The cache is not full, so each is admitted.
    pub fn demote_window_overflow(&mut self, entries: &impl EntryViews) {
        for _ in 0..MAX_STEPS_PER_CALL {
            if self.weights[Window as usize] <= self.window_share {
                break;
            }
            match self.oldest_in_window(None, entries) {
                Some((oldest, _)) => self.move_to(Probation, oldest, entries),
                None => break,
            }
        }
    }

    /// Whether a candidate is admitted: it is worth more than the entries that it would displace. These are the victim
    /// and, if the victim does not weigh enough, the entries after it.
    fn admits(
        &mut self,
        (candidate, candidate_entry): IndexedEntry<'_>,
        (victim, victim_entry): IndexedEntry<'_>,
        keep: Option<u32>,
        entries: &impl EntryViews,
    ) -> bool {
        let frequency = self.frequency(candidate_entry);
        if frequency > self.frequency(victim_entry) {
            let missing = entries.weight(candidate).saturating_sub(entries.weight(victim));
            return missing == 0 || self.outweighs(frequency, candidate, victim, keep, entries);
        }
        frequency >= ADMIT_HASHDOS_THRESHOLD && self.admit_randomly(candidate_entry.hash)
    }

    /// Whether a candidate of this frequency was used more often than its victim and all entries after it that would
    /// have to make room, taken together.
    #[cold]
    fn outweighs(
        &self,
        frequency: u32,
        candidate: u32,
        victim: u32,
        keep: Option<u32>,
        entries: &impl EntryViews,
    ) -> bool {
        let mut displaced_frequency = 0;
        let mut missing = entries.weight(candidate);
        let is_in_probation = self.segment_of(victim) == Probation;
        let next = |&index: &u32| self.lists.after(index);
        let protected = is_in_probation.then(|| self.lists.front(Protected as usize)).flatten();
        let displaced =
            std::iter::successors(Some(victim), next).chain(std::iter::successors(protected, next));
        for index in displaced.take(MAX_STEPS_PER_CALL) {
            if Some(index) != keep {
                displaced_frequency += self.frequency(entries.entry(index));
                missing = missing.saturating_sub(entries.weight(index));
            }
            if missing == 0 || displaced_frequency >= frequency {
                break;
            }
        }
        missing == 0 && frequency > displaced_frequency
    }

    /// Whether this losing candidate is the one in [`ADMIT_ONE_IN`]. The hash makes it hard to foresee which one it
    /// is.
    #[cold]
    fn admit_randomly(&mut self, hash: u64) -> bool {
        self.frequent_losses += 1;
        let draw = (hash >> 8).wrapping_add(self.frequent_losses);
        draw.is_multiple_of(ADMIT_ONE_IN)
    }

    /// Returns the rank of an entry: the colder of two entries has the lower rank.
    ///
    /// As in the admission decision, the frequency comes first, and on a tie the main region is ahead of the window.
    /// An entry of probation that was hit counts as protected, where the next search moves it unless it is heavy. Then
    /// the later use is ahead, as exact as the ticks of the stamps.
    pub fn rank(&self, index: u32, entries: &impl EntryViews) -> u64 {
        let entry = entries.entry(index);
        let segment = match self.segment_of(index) {
            Window => 0,
            Probation if !access_stamps::is_move_due(entry.stamp) => 1,
            Probation | Protected | Weightless => 2,
        };
        let age = access_stamps::ticks_since_use(entry.stamp, self.tick);
        u64::from(self.frequency(entry)) << 32 | segment << 24 | (access_stamps::MAX_TICK - age)
    }

    pub(super) fn frequency(&self, entry: EntryView<'_>) -> u32 {
        self.sketch.frequency(entry.hash) + access_stamps::pending_accesses(entry.stamp)
    }

    /// The entry of the window that was not used for the longest time.
    fn oldest_in_window<'v>(
        &mut self,
        keep: Option<u32>,
        entries: &'v impl EntryViews,
    ) -> Option<IndexedEntry<'v>> {
        let mut steps = MAX_STEPS_PER_CALL;
        while self.oldest_tick <= self.tick {
            let Some(head) = self.lists.front(window_list(self.oldest_tick)) else {
                self.oldest_tick += 1;
                continue;
            };
            let entry = entries.entry(head);
            let age = access_stamps::ticks_since_use(entry.stamp, self.tick);
            if age < self.tick - self.oldest_tick && (steps > 0 || Some(head) == keep) {
                steps = steps.saturating_sub(1);
                self.lists.move_back(self.window_list_of(self.tick - age), head);
                continue;
            }
            // The entry to keep has the current tick, so the later lists are empty.
            let (oldest, entry) = if Some(head) == keep {
                let next = self.lists.after(head)?;
                (next, entries.entry(next))
            } else {
                (head, entry)
            };
            // Hits in the window do not move an entry to protected later.
            self.take_hits_and_move(entry);
            return Some((oldest, entry));
        }
        self.oldest_tick = self.tick;
        None
    }

    /// The first entry of probation, after those before it that have a second chance have moved to protected. If
    /// probation is empty, the first entry of protected.
    fn oldest_in_main<'v>(
        &mut self,
        keep: Option<u32>,
        entries: &'v impl EntryViews,
    ) -> Option<IndexedEntry<'v>> {
        let mut steps = MAX_STEPS_PER_CALL;
        while steps > 0 {
            let Some(head) = self.lists.front(Probation as usize) else { break };
            let entry = entries.entry(head);
            if Some(head) != keep && !self.take_second_chance(head, entry, entries) {
                return Some((head, entry));
            }
            steps -= 1;
            self.move_to(Protected, head, entries);
            while steps > 0 && self.weights[Protected as usize] > self.protected_share() {
                steps -= 1;
                match self.oldest_in_queue(Protected, keep, entries, &mut steps) {
                    Some((oldest, _)) => self.move_to(Probation, oldest, entries),
                    None => break,
                }
            }
        }
        let probation = self.oldest_in_queue(Probation, keep, entries, &mut 0);
        probation.or_else(|| self.oldest_in_queue(Protected, keep, entries, &mut steps))
    }

    /// The first entry of a queue, after those before it that have a second chance have moved to its end.
    fn oldest_in_queue<'v>(
        &mut self,
        segment: Segment,
        keep: Option<u32>,
        entries: &'v impl EntryViews,
        steps: &mut usize,
    ) -> Option<IndexedEntry<'v>> {
        loop {
            let head = self.lists.front(segment as usize)?;
            let entry = entries.entry(head);
            let is_kept = Some(head) == keep;
            if !is_kept && (*steps == 0 || !self.take_second_chance(head, entry, entries)) {
                return Some((head, entry));
            }
            *steps = steps.saturating_sub(1);
            self.move_to(segment, head, entries);
            if is_kept && self.lists.front(segment as usize) == keep {
                return None;
            }
        }
    }

    /// Adds the pending hits of an entry that moves to the sketch. Returns whether it was hit since its last move.
    #[inline]
    pub(super) fn take_hits_and_move(&mut self, entry: EntryView<'_>) -> bool {
        let Some(hits) = access_stamps::take_hits_and_move(entry.stamp) else { return false };
        self.record_hits(hits, entry.hash);
        true
    }

    fn protected_share(&self) -> u64 {
        self.main_weight() / 5 * 4
    }
}
