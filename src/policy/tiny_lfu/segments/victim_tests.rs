//! Tests of the segments and of the choice of victims, without a cache.

use super::victim::ADMIT_ONE_IN;
use super::*;
use crate::policy::tests::TestEntries;
use crate::sync::Ordering::Relaxed;

/// Segments with a window of 1 %, and their entries.
struct Subject {
    segments: Segments,
    entries: TestEntries,
    stamps: AccessStamps,
    live: usize,
}

impl Subject {
    fn new(share: u64, entries: TestEntries) -> Self {
        Subject { segments: Segments::new(share, 0.01), entries, stamps: AccessStamps::new(0), live: 0 }
    }

    /// Makes one that knows all of these entries.
    fn full(share: u64, entries: TestEntries) -> Self {
        let mut subject = Subject::new(share, entries);
        for index in 0..subject.entries.0.len() as u32 {
            subject.insert(index);
            subject.segments.demote_window_overflow(&subject.entries);
        }
        subject
    }

    fn insert(&mut self, index: u32) {
        self.live += 1;
        let entry = self.entries.entry(index);
        self.segments.insert(index, entry, self.live, false, &self.entries, &self.stamps);
    }

    fn insert_new(&mut self, weight: u64) -> u32 {
        let index = self.entries.0.len();
        self.entries.0.push(Box::new((TestEntries::hash_of(index), weight, Default::default())));
        self.insert(index as u32);
        index as u32
    }

    fn hit(&self, index: u32, times: usize) {
        (0..times).for_each(|_| self.stamps.record(self.entries.stamp(index)));
    }

    fn take_victim(&mut self, keep: Option<u32>) -> Option<u32> {
        let victim = self.segments.take_victim(keep, &self.entries)?;
        self.live -= 1;
        Some(victim)
    }

    fn segment_of(&self, index: u32) -> Segment {
        self.segments.segment_of(index)
    }

    fn validate(&self) -> usize {
        self.segments.validate(&self.entries).len()
    }
}

#[test]
fn a_new_entry_passes_through_the_window_while_there_is_room() {
    let mut subject = Subject::new(100, TestEntries::of_weight_1(5));
    for index in 0..5 {
        subject.insert(index);
        assert_eq!(subject.segment_of(index), Window);
        subject.segments.demote_window_overflow(&subject.entries);
    }
    assert_eq!(subject.segments.region_weights(), [1, 4]);
    assert_eq!((subject.segment_of(4), subject.segment_of(0)), (Window, Probation));
    subject.validate();
}

#[test]
fn the_more_frequent_of_candidate_and_victim_stays() {
    let mut subject = Subject::full(20, TestEntries::of_weight_1(20));
    // Entry 19 is in the window. It becomes the candidate when the next one is inserted.
    let next = subject.insert_new(1);
    assert_eq!(subject.take_victim(Some(next)), Some(19), "the victim stays on a tie");
    subject.hit(next, 3);
    let last = subject.insert_new(1);
    assert_eq!((subject.take_victim(Some(last)), subject.segment_of(next)), (Some(0), Probation));
    subject.validate();
}

#[test]
fn the_inserts_of_the_evicted_and_of_the_next_victim_are_counted() {
    // The oldest entry of the window loses against that of probation; or the main region is empty.
    for (count, window, counted) in [(20, 0.01, [0, 19]), (5, 0.99, [0, 0])] {
        let mut subject = Subject::new(20, TestEntries::default());
        subject.segments.set_window_fraction(window);
        for _ in 0..count {
            subject.insert_new(1);
            subject.segments.demote_window_overflow(&subject.entries);
        }
        let next = subject.insert_new(1);
        subject.take_victim(Some(next)).expect("there are others");
        for index in 0..=next {
            let entry = subject.entries.entry(index);
            let in_sketch = subject.segments.sketch.frequency(entry.hash);
            let expected = u32::from(counted.contains(&index));
            let found = (in_sketch, access_stamps::pending_accesses(entry.stamp));
            assert_eq!(found, (expected, 1 - expected), "{index} of {count}");
        }
    }
}

#[test]
fn an_entry_hit_in_probation_becomes_protected() {
    let mut subject = Subject::full(20, TestEntries::of_weight_1(20));
    (0..3).for_each(|index| subject.hit(index, 1));
    subject.take_victim(None).expect("there are entries");
    let segments = [0, 1, 2, 4].map(|index| subject.segment_of(index));
    assert_eq!(segments, [Protected, Protected, Protected, Probation]);
    subject.validate();
}

#[test]
fn hits_in_the_window_do_not_protect_an_entry_later() {
    let mut subject = Subject::full(20, TestEntries::of_weight_1(20));
    subject.hit(19, 3);
    let next = subject.insert_new(1);
    assert_eq!(subject.take_victim(Some(next)), Some(0));
    assert_eq!(subject.segment_of(19), Probation);
    for _ in 1..19 {
        let next = subject.insert_new(1);
        subject.take_victim(Some(next)).expect("there are others");
    }
    assert_eq!(subject.segment_of(19), Probation);
    subject.validate();
}

#[test]
fn the_window_is_in_the_order_of_the_last_use() {
    let mut subject = Subject::full(40, TestEntries::of_weight_1(40));
    subject.segments.set_window_fraction(0.5);
    // The window is half of the cache, so eight ticks pass.
    let inserted: Vec<u32> = (0..20)
        .map(|_| {
            let next = subject.insert_new(1);
            subject.take_victim(Some(next));
            next
        })
        .collect();
    let stamp = |index| subject.entries.stamp(index).load(Relaxed);
    assert_ne!(stamp(40), stamp(47));
    // The first four are hit last of all.
    inserted[..4].iter().for_each(|&index| subject.hit(index, 1));
    // All are equally frequent, so each candidate is evicted.
    let mut evicted = Vec::new();
    for _ in 0..20 {
        let next = subject.insert_new(1);
        evicted.extend(subject.take_victim(Some(next)));
    }
    let turn = |index: u32| evicted.iter().position(|&other| other == index).unwrap_or(usize::MAX);
    let is_before_all_hit = |&other: &u32| inserted[..4].iter().all(|&hit| turn(other) < turn(hit));
    assert!(inserted[4..16].iter().all(is_before_all_hit), "{evicted:?}");
    subject.validate();
}

#[test]
#[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
fn protected_is_at_most_four_fifths_of_the_main_region() {
    let mut subject = Subject::full(100, TestEntries::of_weight_1(100));
    for _ in 0..20 {
        (0..100).for_each(|index| subject.hit(index, 1));
        subject.take_victim(None).expect("there are entries");
        // Victims come from probation. The main region had 99 entries at first.
        let protected = subject.segments.weights[Protected as usize];
        assert!(protected <= 99 / 5 * 4 + 1, "{protected}");
        subject.validate();
    }
    assert!(subject.segments.weights[Protected as usize] > 40);
}

#[test]
fn segment_weights_follow_their_entries() {
    let mut subject = Subject::full(100, TestEntries::with_weights(&[5, 1, 7, 2]));
    subject.entries.0[2].1 = 3;
    subject.segments.update_weight(2, 7, &subject.entries);
    subject.validate();
    subject.segments.remove(0, &subject.entries);
    subject.segments.remove(0, &subject.entries);
    assert_eq!(subject.segments.region_weights().iter().sum::<u64>(), 6);
    assert_eq!(subject.validate(), 3);
}

#[test]
fn an_entry_of_weight_0_is_no_victim() {
    let mut subject = Subject::full(10, TestEntries::with_weights(&[0, 5, 0, 5]));
    assert_eq!(subject.segment_of(2), Weightless);
    subject.entries.0[3].1 = 0;
    subject.segments.update_weight(3, 5, &subject.entries);
    assert_eq!((subject.take_victim(None), subject.take_victim(None)), (Some(1), None));
    subject.entries.0[0].1 = 4;
    subject.segments.update_weight(0, 0, &subject.entries);
    assert_eq!(subject.segment_of(0), Window);
    subject.validate();
    assert_eq!((subject.take_victim(None), subject.segments.peek_cold()), (Some(0), Some(2)));
    assert_eq!(subject.validate(), 2);
}

#[test]
fn a_heavy_candidate_must_outweigh_all_that_it_displaces() {
    for (hits, is_admitted) in [(3, false), (4, true)] {
        let mut subject = Subject::full(40, TestEntries::with_weights(&[1; 36]));
        let heavy = subject.insert_new(4);
        subject.hit(heavy, hits);
        let next = subject.insert_new(1);
        assert_eq!(subject.take_victim(Some(next)), Some(35), "it was in the window before the heavy one");
        let victim = subject.take_victim(Some(next)).expect("there are others");
        assert_eq!(victim != heavy, is_admitted, "{hits} hits and an insert, against four inserts");
        subject.validate();
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
fn a_frequent_candidate_that_lost_is_admitted_now_and_then() {
    let mut subject = Subject::full(100, TestEntries::of_weight_1(100));
    (0..99).for_each(|index| subject.hit(index, 15));
    let mut admitted = 0;
    for _ in 0..20 * ADMIT_ONE_IN {
        let candidate = subject.insert_new(1);
        subject.hit(candidate, 6);
        let next = subject.insert_new(1);
        admitted += u64::from(subject.take_victim(Some(next)) != Some(candidate));
        let entries = &subject.entries;
        for index in [candidate, next] {
            subject.segments.remove(index, entries);
        }
        // The others stay frequent, and there are always 100 entries.
        (0..99).for_each(|index| subject.hit(index, 15));
        subject.entries.0.truncate(100);
        subject.live = 99;
    }
    assert!((5..100).contains(&admitted), "{admitted} of {}", 20 * ADMIT_ONE_IN);
}

#[test]
#[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
fn a_victim_is_found_even_if_all_entries_were_hit() {
    let mut subject = Subject::full(200, TestEntries::of_weight_1(200));
    for rest in (0..200).rev() {
        (0..200).for_each(|index| subject.hit(index, 15));
        subject.take_victim(None).expect("there are entries");
        assert_eq!(subject.validate(), rest);
    }
    assert_eq!((subject.take_victim(None), subject.segments.peek_cold()), (None, None));
}

#[test]
#[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
fn the_entry_to_keep_stays_in_a_window_of_any_size() {
    for window in [0.0, 0.3, 0.99] {
        let mut subject = Subject::new(50, TestEntries::default());
        subject.segments.set_window_fraction(window);
        for _ in 0..400 {
            let next = subject.insert_new(1);
            (0..next).step_by(7).for_each(|index| subject.hit(index, 1));
            if subject.live > 50 {
                let victim = subject.take_victim(Some(next)).expect("there are others");
                assert_ne!(victim, next);
            }
            subject.segments.demote_window_overflow(&subject.entries);
            assert_eq!(subject.validate(), subject.live);
        }
    }
}

/// Segments that are full of 29 entries: entry 0 weighs nine times as much as the average entry, and the others less.
fn beside_a_heavy_entry(average: u64) -> Subject {
    let mut weights = [average * 5 / 7; 29];
    weights[0] = average * 9;
    let mut subject = Subject::full(weights.iter().sum(), TestEntries::with_weights(&weights));
    subject.segments.update_average_weight(29);
    assert_eq!(subject.segments.average_weight, average);
    subject
}

#[test]
fn a_heavy_entry_needs_more_hits_for_a_second_chance() {
    for average in [7, 7 << 40] {
        // The insert is a use as well, and six uses are needed.
        for (hits, stays) in [(0, false), (1, false), (4, false), (5, true), (14, true)] {
            let mut subject = beside_a_heavy_entry(average);
            subject.hit(0, hits);
            assert_eq!(subject.take_victim(None) != Some(0), stays, "{hits} hits");
            let lost = if stays || hits == 0 { 0 } else { subject.segments.share / 8 };
            assert_eq!(subject.segments.forfeited, lost);
            subject.validate();
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
fn a_full_counter_is_enough_for_any_weight() {
    for (hits, stays) in [(13, false), (14, true)] {
        let mut weights = vec![1; 1_000];
        weights[0] = 1 << 40;
        let mut subject = Subject::full(2 << 40, TestEntries::with_weights(&weights));
        subject.segments.set_window_fraction(0.0);
        (0..40).for_each(|_| subject.segments.demote_window_overflow(&subject.entries));
        subject.hit(0, hits);
        assert_eq!(subject.take_victim(None) != Some(0), stays, "{hits} hits and an insert");
    }
}

#[test]
fn a_light_entry_takes_over_the_room_that_heavy_ones_lost() {
    const LIGHT: u32 = 1;
    // Each case: the uses of a light entry that was not hit of late, and the room that heavy entries lost.
    for (uses, forfeited, stays) in [(5, 5, true), (5, 4, false), (2, 100, false), (0, 100, false)] {
        let mut subject = beside_a_heavy_entry(7);
        subject.segments.remove(0, &subject.entries);
        subject.segments.forfeited = forfeited;
        // Its insert will be counted, too, and four are needed: 4² · 5 / 7, and the next whole number.
        subject.segments.sketch.add(TestEntries::hash_of(LIGHT as usize), uses);
        assert_eq!(subject.take_victim(None) != Some(LIGHT), stays, "{uses} uses, room of {forfeited}");
        assert_eq!(subject.segments.forfeited, forfeited - if stays { 5 } else { 0 });
        subject.validate();
    }
    // However light it is, one use is not enough.
    for (uses, stays) in [(0, false), (1, true)] {
        let mut subject = beside_a_heavy_entry(7);
        subject.segments.remove(0, &subject.entries);
        (subject.segments.forfeited, subject.segments.average_weight) = (100, 1_000);
        subject.segments.sketch.add(TestEntries::hash_of(LIGHT as usize), uses);
        assert_eq!(subject.take_victim(None) != Some(LIGHT), stays, "{uses} uses and an insert");
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
fn weights_decide_nothing_if_all_are_equal() {
    for weight in [1, 7, 1 << 40] {
        let mut subject = Subject::new(50 * weight, TestEntries::default());
        let mut random = 1u64;
        for turn in 0..2_000 {
            // Entries of weight 0 do not count.
            let next = subject.insert_new(if turn % 5 == 0 { 0 } else { weight });
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (0..next)
                .filter(|index| (u64::from(*index) ^ random >> 33) & 15 == 0)
                .for_each(|index| subject.hit(index, 1));
            while subject.segments.region_weights().iter().sum::<u64>() > 50 * weight {
                subject.take_victim(Some(next)).expect("there are others");
            }
            subject.segments.demote_window_overflow(&subject.entries);
            let segments = &subject.segments;
            assert!(turn < 2 || segments.average_weight == weight, "{}", segments.average_weight);
            assert_eq!(segments.forfeited, 0);
        }
        subject.validate();
    }
}

#[test]
fn an_entry_of_average_weight_stays_by_a_hit_alone() {
    let mut subject = Subject::full(140, TestEntries::with_weights(&[7; 20]));
    // All uses before have faded.
    subject.segments.sketch = Sketch::default();
    subject.hit(0, 1);
    subject.take_victim(None).expect("there are others");
    assert_eq!(subject.segment_of(0), Protected);
}
