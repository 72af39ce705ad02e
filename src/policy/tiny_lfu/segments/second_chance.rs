//! Whether the first entry of probation or protected stays: its second chance, which depends on its weight.
//!
//! # How it works
//! The weight of the average entry is computed at each tick. An entry of that weight stays if it was hit since it moved
//! last. For other entries there are two rules:
//! - A heavier entry that was hit stays if its frequency is at least [`MIN_FREQUENCY`] times the square root of its
//!   weight, measured in average entries. So with nine times the average weight it needs six uses of late. A full
//!   counter is always enough, because no entry can show more.
//! - A lighter entry that was not hit stays if its frequency is twice as high as that, and at least
//!   [`MIN_FREQUENCY`]. It stays in room that heavier entries *forfeited* by the first rule. If they forfeited none, it
//!   does not stay.
//!
//! If all entries weigh the same, each has the average weight, so weights decide nothing.
//!
//! # Why the square root
//! The policy with the most hits divides the frequency by the weight: Cherkasova, "Improving WWW Proxies Performance
//! with Greedy-Dual-Size-Frequency Caching Policy" (HP Laboratories, 1998); Beckmann, Chen, Cidon,
//! [LHD](https://www.usenix.org/conference/nsdi18/presentation/beckmann) (2018). But it loses much of the weight that
//! hits, because it keeps no heavy entry. A policy that neglects the weight has the most weight that hits. The square
//! root loses little of either.
//!
//! # What it earns
//! With 50,000 keys by Zipf's law (exponent 0.9), independent log-normal weights (mu 3, sigma 1.5) and a capacity of a
//! twentieth of all weights, 65.1 in place of 58.5 % of the accesses hit, with 58.5 in place of 59.6 % of the weight.
//! `ci/hit_ratio --only weighted` repeats this, with other weights and accesses.
//!
//! # Why not divide by the weight in the admission decision as well
//! A light candidate would displace a heavy victim, and leave most of its room to entries that were compared with
//! nothing. If half of the accesses are to tiny keys that come once, it loses one point of the hits.
//!
//! # Why not keep heavy entries out of the window
//! A value that was just set can be got (law 7). A filter by weight would reject it: Berger, Sitaraman, Harchol-Balter,
//! [AdaptSize](https://www.usenix.org/conference/nsdi17/technical-sessions/presentation/berger) (2017).
//!
//! # Why a light entry stays only in forfeited room
//! One giant entry makes all others lighter than the average. Without this condition, the others would stay by their
//! frequency alone. If keys come again soon and then never, that loses up to 9 points of the hits.

use super::super::sketch::MAX_COUNT;
use super::Segment::Weightless;
use super::Segments;
use crate::policy::{EntryView, EntryViews};

/// The frequency that an entry of average weight needs if it was hit: its insert and one hit.
const MIN_FREQUENCY: u64 = 2;
/// The frequency that it would need if it was not hit. With 3 the hit ratio is the same.
const MIN_FREQUENCY_WITHOUT_HIT: u64 = 4;
/// The most forfeited room that can wait for light entries is the share divided by this. With 2 or 32 the hit ratio is
/// the same.
const MAX_FORFEITED_DIVISOR: u64 = 8;

impl Segments {
    /// Adds the pending accesses of the first entry of a queue to the sketch. Returns whether it stays.
    #[inline]
    pub(super) fn take_second_chance(
        &mut self,
        index: u32,
        entry: EntryView<'_>,
        entries: &impl EntryViews,
    ) -> bool {
        self.record_pending_insert(entry);
        let was_hit = self.take_hits_and_move(entry);
        if entries.is_weighted() { self.is_worth_its_weight(was_hit, index, entry, entries) } else { was_hit }
    }

    /// Whether an entry stays that is heavier or lighter than the average.
    #[cold]
    #[inline(never)]
    fn is_worth_its_weight(
        &mut self,
        was_hit: bool,
        index: u32,
        entry: EntryView<'_>,
        entries: &impl EntryViews,
    ) -> bool {
        let weight = entries.weight(index);
        let is_light = weight < self.average_weight;
        if is_light == was_hit || weight == self.average_weight {
            return was_hit;
        }
        let frequency = u64::from(self.frequency(entry));
        let needed = if was_hit { MIN_FREQUENCY } else { MIN_FREQUENCY_WITHOUT_HIT };
        // Both sides are squared, in place of the square root of the weights.
        let is_worth = frequency >= MIN_FREQUENCY
            && (frequency * frequency).saturating_mul(self.average_weight)
                >= (needed * needed).saturating_mul(weight);
        if is_light {
            let stays = is_worth && self.forfeited >= weight;
            if stays {
                self.forfeited -= weight;
            }
            stays
        } else {
            let stays = is_worth || frequency >= u64::from(MAX_COUNT);
            if !stays {
                self.forfeited = (self.forfeited + weight).min(self.share / MAX_FORFEITED_DIVISOR);
            }
            stays
        }
    }

    /// Computes the average weight of the entries that have a weight. `known` is the number of entries in lists.
    pub(super) fn update_average_weight(&mut self, known: usize) {
        let weighted = (known as u64).saturating_sub(self.weights[Weightless as usize]);
        if let Some(average) = self.weight().checked_div(weighted) {
            self.average_weight = average;
        }
    }
}
