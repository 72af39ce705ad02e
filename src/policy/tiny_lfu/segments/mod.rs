//! The regions of W-TinyLFU, and who leaves them: a window for the new, a main region for what has proved
//! itself.
//!
//! # How it works
//! A new entry enters the window. When the cache is full and the window over its share, the window's oldest is
//! the candidate and the oldest of probation the victim; the more frequent of the two, by the sketch, stays,
//! and the victim on a tie. An entry used in probation moves to protected, up to 80 % of the main
//! region; what falls out of protected has another chance in probation. Einziger, Friedman, Manes,
//! "TinyLFU: A Highly Efficient Cache Admission Policy" (2017).
//!
//! Hits only write the stamps of their entries; the order is mended when a victim is sought. The window is in the
//! order of last use, to the tick: a list for each of the last few ticks, and an entry that comes up with a later
//! tick in its stamp moves on to its list. Probation and protected are queues with a second
//! chance: who was used goes to the tail. A call looks at a bounded number of entries.
//!
//! A candidate that weighs more than its victim must be more frequent than all those that it would push
//! out together. Einziger, Eytan, Friedman, Manes, "Lightweight Robust Size Aware Cache Management" (2022).
//! An entry of weight 0 stands in a list apart: it is in nobody's way and nobody's victim.
//!
//! # Invariants
//! - `one-region`: a known entry is in a list of its region and no other.
//! - `sums`: a region's weight is that of its entries.
//! - `low`: no entry is in a list of the window for a tick before `low`.

use crate::collections::index_lists::IndexLists;
use crate::collections::try_reserve::NoMemory;
use crate::sync::{is_far, prefetch_write};

use super::access_stamps::{self, AccessStamps};
use super::sketch::Sketch;
use crate::policy::{EntryView, View};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Region {
    Probation,
    Protected,
    Weightless,
    Window,
}

use Region::{Probation, Protected, Weightless, Window};

/// By their numbers.
const REGIONS: [Region; 4] = [Probation, Protected, Weightless, Window];
/// The window's lists come after those of the other regions, whose lists are their numbers. So the lists know the region
/// of an entry.
const WINDOW_LISTS: usize = Window as usize;
/// The ticks that the window can tell apart.
const WINDOW_TICKS: u64 = 8;
const LISTS: usize = WINDOW_LISTS + WINDOW_TICKS as usize;
/// The ticks in which a window's worth of entries comes. With more the order is no better.
const TICKS_A_WINDOW: u32 = 4;
/// Entries that a call looks at. With 16 the hit ratio is 0.1 points lower, with 200 as much higher.
const STEPS: usize = 32;
/// A candidate of this frequency that lost is let in all the same once in [`LUCK`] times: else whoever knows the
/// victim could keep everybody out with keys that share its counters.
const WARM: u32 = 6;
const LUCK: u64 = 1024;

/// The number of an entry, and what was seen of it.
type Seen<'a> = (u32, EntryView<'a>);

/// What each write changes comes first, in one cache line: mostly another thread has written it last.
#[repr(C)]
pub(super) struct Segments {
    /// How many entries there were with the last newcomer.
    live: u32,
    /// The entries that are still to come in the tick of now.
    births_left: u32,
    weights: [u64; REGIONS.len()],
    /// The tick of now, and the lowest that the window has.
    now: u64,
    low: u64,
    sketch: Sketch,
    lists: IndexLists<LISTS>,
    /// The weight that there is room for.
    share: u64,
    /// The window's part of that, from 0 to 1, and the weight that it comes to: set with each tick.
    window: f64,
    window_share: u64,
    /// Uses counted since the owner last set this to 0: of entries in the window, and in the main region.
    pub hits: [u64; 2],
    /// Warm candidates that lost.
    warm_losses: u64,
}

impl Segments {
    pub fn new(share: u64, window: f64) -> Self {
        Segments {
            live: 0,
            births_left: 0,
            weights: [0; REGIONS.len()],
            now: 0,
            low: 0,
            sketch: Sketch::default(),
            lists: IndexLists::default(),
            share,
            window,
            window_share: 1,
            hits: [0; 2],
            warm_losses: 0,
        }
    }

    /// Makes sure that a number can be inserted.
    pub fn reserve(&mut self, number: u32) -> Result<(), NoMemory> {
        self.lists.reserve(number)
    }

    /// Asks ahead for what an insert and a victim will change.
    pub fn prefetch(&self, view: &impl View) {
        prefetch_write(self);
        self.lists.prefetch_ends();
        for head in self.heads() {
            self.lists.prefetch(head);
            prefetch_write(view.stamp(head));
        }
    }

    /// Asks ahead for the rest of it, once the entries that tell it have come.
    #[inline(never)]
    fn prefetch_victim(&self, view: &impl View) {
        for head in self.heads() {
            let hash = view.hash(head);
            self.sketch.prefetch(hash);
            view.prefetch_leaving(hash);
        }
    }

    /// The heads of the window and of probation: one of them is the next to leave, mostly.
    fn heads(&self) -> impl Iterator<Item = u32> {
        [window_list(self.low), Probation as usize].into_iter().filter_map(|list| self.lists.front(list))
    }

    /// Takes in a new entry, one of `live` with it.
    pub fn insert(
        &mut self,
        number: u32,
        EntryView { stamp, .. }: EntryView<'_>,
        live: usize,
        is_followed: bool,
        view: &impl View,
        uses: &AccessStamps,
    ) {
        self.live = live as u32;
        self.sketch.maintain(live);
        if self.births_left == 0 {
            self.tick(live, uses);
        }
        self.births_left -= 1;
        access_stamps::begin(stamp, self.now, number, is_followed);
        self.enter(Window, number, view);
    }

    #[cold]
    fn tick(&mut self, live: usize, uses: &AccessStamps) {
        self.now += 1;
        uses.advance(self.now);
        let entries = (live as f64 * self.window) as u32;
        self.births_left = (entries / TICKS_A_WINDOW).max(1);
        self.set_window(self.window);
    }

    /// Makes the window this part of the whole.
    pub fn set_window(&mut self, window: f64) {
        // Where keys of one shard hold more than its share, the regions grow with them.
        let held = (self.weights[Window as usize] + self.main()).max(self.share);
        let share = ((held as f64 * window) as u64).max(1);
        // Mostly they are as they were, and then nobody needs to see another cache line written.
        if (self.window, self.window_share) != (window, share) {
            (self.window, self.window_share) = (window, share);
        }
    }

    /// How many entries there were with the last newcomer.
    pub fn live(&self) -> usize {
        self.live as usize
    }

    pub fn window(&self) -> f64 {
        self.window
    }

    pub fn remove(&mut self, number: u32, view: &impl View) {
        self.leave(number, view.weight(number));
    }

    /// Learns that an entry's weight was `before`.
    pub fn reweigh(&mut self, number: u32, before: u64, view: &impl View) {
        if before == 0 || view.weight(number) == 0 {
            self.leave(number, before);
            self.enter(Window, number, view);
        } else {
            let weight = &mut self.weights[self.region(number) as usize];
            *weight = *weight - before + view.weight(number);
        }
    }

    /// Takes out the entry that should leave next; never `keep`. `None` if no other has a weight.
    pub fn victim(&mut self, keep: Option<u32>, view: &impl View) -> Option<u32> {
        if is_far(self.live()) {
            self.prefetch_victim(view);
        }
        let is_over = self.weights[Window as usize] > self.window_share;
        let candidate = if is_over { self.oldest_of_window(keep, view) } else { None };
        let victim = self.oldest_of_main(keep, view);
        let (leaves, look) = match (candidate, victim) {
            (Some(candidate), Some(victim)) if self.admits(candidate, victim, keep, view) => {
                self.move_to(Probation, candidate.0, view);
                victim
            }
            (Some(candidate), _) => candidate,
            (None, Some(victim)) => victim,
            (None, None) => self.oldest_of_window(keep, view)?,
        };
        self.count_birth(look);
        self.remove(leaves, view);
        Some(leaves)
    }

    /// Lets the window overflow into probation: while there is room, nobody is turned away.
    pub fn settle(&mut self, view: &impl View) {
        for _ in 0..STEPS {
            if self.weights[Window as usize] <= self.window_share {
                break;
            }
            match self.oldest_of_window(None, view) {
                Some((oldest, _)) => self.move_to(Probation, oldest, view),
                None => break,
            }
        }
    }

    /// Some entry, the colder the better; `None` if there is none.
    pub fn any(&mut self) -> Option<u32> {
        let lists = [Probation as usize, Protected as usize, Weightless as usize].into_iter();
        let window = (self.low..self.low + WINDOW_TICKS).map(window_list);
        lists.chain(window).find_map(|list| self.lists.front(list))
    }

    /// Gives back the memory of numbers from `limit` up, which are not in use; and what is remembered of
    /// former entries, if few are `live`.
    pub fn trim(&mut self, limit: u32, live: usize) {
        self.sketch.trim(live);
        self.lists.trim(limit);
    }

    pub fn knows(&self, number: u32) -> bool {
        self.lists.contains(number)
    }

    /// The weights of the window and of the main region.
    pub fn sizes(&self) -> [u64; 2] {
        [self.weights[Window as usize], self.main()]
    }

    /// Counts the uses of an entry since they were counted last.
    pub fn count_uses(&mut self, number: u32, view: &impl View) {
        let look = view.look(number);
        self.note(access_stamps::count(look.stamp), number, look.hash);
    }

    fn note(&mut self, times: u32, number: u32, hash: u64) {
        if times > 0 {
            self.sketch.add(hash, times);
            match self.region(number) {
                Window => self.hits[0] += u64::from(times),
                Probation | Protected => self.hits[1] += u64::from(times),
                Weightless => {}
            }
        }
    }

    fn main(&self) -> u64 {
        self.weights[Probation as usize] + self.weights[Protected as usize]
    }

    fn protected_share(&self) -> u64 {
        self.main() / 5 * 4
    }

    /// Whether a candidate is worth more than those whose place it would take: the victim, and who comes
    /// after it where one is not enough.
    fn admits(
        &mut self,
        (candidate, look): Seen<'_>,
        (victim, look_of_victim): Seen<'_>,
        keep: Option<u32>,
        view: &impl View,
    ) -> bool {
        let frequency = self.frequency(look);
        if frequency > self.frequency(look_of_victim) {
            let lacks = view.weight(candidate).saturating_sub(view.weight(victim));
            return lacks == 0 || self.outweighs(frequency, candidate, victim, keep, view);
        }
        frequency >= WARM && self.is_lucky(look.hash)
    }

    /// Whether a candidate of this frequency is worth more than its victim and all after it that must make room too.
    #[cold]
    fn outweighs(
        &self,
        frequency: u32,
        candidate: u32,
        victim: u32,
        keep: Option<u32>,
        view: &impl View,
    ) -> bool {
        let mut against = 0;
        let mut lacks = view.weight(candidate);
        let is_in_probation = self.region(victim) == Probation;
        let after = |&at: &u32| self.lists.after(at);
        let protected = is_in_probation.then(|| self.lists.front(Protected as usize)).flatten();
        let after_it =
            std::iter::successors(Some(victim), after).chain(std::iter::successors(protected, after));
        for another in after_it.take(STEPS) {
            if Some(another) != keep {
                against += self.frequency(view.look(another));
                lacks = lacks.saturating_sub(view.weight(another));
            }
            if lacks == 0 || against >= frequency {
                break;
            }
        }
        lacks == 0 && frequency > against
    }

    #[cold]
    fn is_lucky(&mut self, hash: u64) -> bool {
        self.warm_losses += 1;
        let number = (hash >> 8).wrapping_add(self.warm_losses);
        number.is_multiple_of(LUCK)
    }

    /// The entry of the window that was used longest ago.
    fn oldest_of_window<'v>(&mut self, keep: Option<u32>, view: &'v impl View) -> Option<Seen<'v>> {
        let mut steps = STEPS;
        while self.low <= self.now {
            let Some(head) = self.lists.front(window_list(self.low)) else {
                self.low += 1;
                continue;
            };
            let look = view.look(head);
            let age = access_stamps::age(look.stamp, self.now);
            if age < self.now - self.low && (steps > 0 || Some(head) == keep) {
                steps = steps.saturating_sub(1);
                self.lists.move_back(self.window_list_of(self.now - age), head);
                continue;
            }
            // The entry to keep is of now, so there is nobody in a later list.
            let (oldest, look) = if Some(head) == keep {
                let next = self.lists.after(head)?;
                (next, view.look(next))
            } else {
                (head, look)
            };
            // What it did in the window is no reason to protect it in the main region.
            self.take_used(oldest, look);
            return Some((oldest, look));
        }
        self.low = self.now;
        None
    }

    /// The head of probation, after its used heads moved to protected; where probation is empty, the
    /// head of protected.
    fn oldest_of_main<'v>(&mut self, keep: Option<u32>, view: &'v impl View) -> Option<Seen<'v>> {
        let mut steps = STEPS;
        while steps > 0 {
            let Some(head) = self.lists.front(Probation as usize) else { break };
            let look = view.look(head);
            if Some(head) != keep && !self.take_used_in_main(head, look) {
                return Some((head, look));
            }
            steps -= 1;
            self.move_to(Protected, head, view);
            while steps > 0 && self.weights[Protected as usize] > self.protected_share() {
                steps -= 1;
                match self.oldest(Protected, keep, view, &mut steps) {
                    Some((oldest, _)) => self.move_to(Probation, oldest, view),
                    None => break,
                }
            }
        }
        let probation = self.oldest(Probation, keep, view, &mut 0);
        probation.or_else(|| self.oldest(Protected, keep, view, &mut steps))
    }

    /// The head of a queue, after its used heads had their second chance at the tail.
    fn oldest<'v>(
        &mut self,
        region: Region,
        keep: Option<u32>,
        view: &'v impl View,
        steps: &mut usize,
    ) -> Option<Seen<'v>> {
        loop {
            let head = self.lists.front(region as usize)?;
            let look = view.look(head);
            let is_kept = Some(head) == keep;
            if !is_kept && (*steps == 0 || !self.take_used_in_main(head, look)) {
                return Some((head, look));
            }
            *steps = steps.saturating_sub(1);
            self.move_to(region, head, view);
            if is_kept && self.lists.front(region as usize) == keep {
                return None;
            }
        }
    }

    /// Whether the entry was used since this was last asked.
    #[inline]
    fn take_used(&mut self, number: u32, look: EntryView<'_>) -> bool {
        let Some(times) = access_stamps::take(look.stamp) else { return false };
        self.note(times, number, look.hash);
        true
    }

    /// The same of who is next in the main region, whose birth is counted with it.
    #[inline]
    fn take_used_in_main(&mut self, number: u32, look: EntryView<'_>) -> bool {
        self.count_birth(look);
        self.take_used(number, look)
    }

    /// Counts the birth of an entry, if it was not.
    #[inline]
    fn count_birth(&mut self, look: EntryView<'_>) {
        if access_stamps::take_birth(look.stamp) {
            self.sketch.add(look.hash, 1);
        }
    }

    fn frequency(&self, look: EntryView<'_>) -> u32 {
        self.sketch.frequency(look.hash) + access_stamps::uncounted(look.stamp)
    }

    fn region(&self, number: u32) -> Region {
        REGIONS[self.lists.kind(number)]
    }

    fn enter(&mut self, region: Region, number: u32, view: &impl View) {
        let weight = view.weight(number);
        let region = if weight == 0 { Weightless } else { region };
        let list = if region == Window { self.window_list_of(self.now) } else { region as usize };
        self.lists.push_back(list, number);
        self.weights[region as usize] += weight;
    }

    fn leave(&mut self, number: u32, weight: u64) {
        if let Some(region) = self.lists.unlink_kind(number) {
            self.weights[region] -= weight;
        }
    }

    /// Moves an entry, which has a weight, to the end of probation or protected.
    fn move_to(&mut self, region: Region, number: u32, view: &impl View) {
        let weight = view.weight(number);
        debug_assert_ne!(weight, 0, "it stands apart");
        self.weights[self.region(number) as usize] -= weight;
        self.weights[region as usize] += weight;
        self.lists.move_back(region as usize, number);
    }

    /// The list for a tick from `low` to now. Ticks too far above `low` share the last list.
    fn window_list_of(&self, tick: u64) -> usize {
        window_list(tick.min(self.low + WINDOW_TICKS - 1))
    }

    /// Checks the invariants, and tells which numbers it knows.
    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self, view: &impl View) -> Vec<u32> {
        let mut known = Vec::new();
        let window: Vec<usize> = (0..WINDOW_TICKS).map(window_list).collect();
        let others = [Probation, Protected, Weightless].map(|region| (region, vec![region as usize]));
        for (region, lists) in others.into_iter().chain([(Window, window)]) {
            let numbers: Vec<u32> = lists.iter().flat_map(|&list| self.lists.iter(list)).collect();
            assert!(numbers.iter().all(|&number| self.region(number) == region), "`one-region`");
            let weight: u64 = numbers.iter().map(|&number| view.weight(number)).sum();
            assert_eq!(weight, self.weights[region as usize], "`sums`");
            known.extend(numbers);
        }
        known
    }
}

fn window_list(tick: u64) -> usize {
    WINDOW_LISTS + (tick % WINDOW_TICKS) as usize
}

#[cfg(test)]
impl Segments {
    pub fn heap_bytes(&self) -> usize {
        self.lists.heap_bytes() + self.sketch.heap_bytes()
    }
}

#[cfg(test)]
mod tests;
