//! Tests of the regions, over made entries.

use super::*;
use crate::policy::tests::Entries;
use crate::sync::Ordering::Relaxed;

/// Regions with a window of a hundredth, and their entries.
struct Subject {
    regions: Segments,
    entries: Entries,
    uses: AccessStamps,
    live: usize,
}

impl Subject {
    fn new(share: u64, entries: Entries) -> Self {
        Subject { regions: Segments::new(share, 0.01), entries, uses: AccessStamps::new(false), live: 0 }
    }

    /// One that knows all of these entries.
    fn full(share: u64, entries: Entries) -> Self {
        let mut subject = Subject::new(share, entries);
        for number in 0..subject.entries.0.len() as u32 {
            subject.insert(number);
            subject.regions.settle(&subject.entries);
        }
        subject
    }

    fn insert(&mut self, number: u32) {
        self.live += 1;
        let look = self.entries.look(number);
        self.regions.insert(number, look, self.live, false, &self.entries, &self.uses);
    }

    fn come(&mut self, weight: u64) -> u32 {
        let number = self.entries.0.len() as u32;
        let hash = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.entries.0.push((hash, weight, Default::default()));
        self.insert(number);
        number
    }

    fn make_use(&self, number: u32, times: usize) {
        (0..times).for_each(|_| self.uses.record(self.entries.stamp(number)));
    }

    fn victim(&mut self, keep: Option<u32>) -> Option<u32> {
        let victim = self.regions.victim(keep, &self.entries)?;
        self.live -= 1;
        Some(victim)
    }

    fn region(&self, number: u32) -> Region {
        self.regions.region(number)
    }

    fn validate(&self) -> usize {
        self.regions.validate(&self.entries).len()
    }
}

#[test]
fn a_newcomer_passes_through_the_window_while_there_is_room() {
    let mut subject = Subject::new(100, Entries::plain(5));
    for number in 0..5 {
        subject.insert(number);
        assert_eq!(subject.region(number), Window);
        subject.regions.settle(&subject.entries);
    }
    assert_eq!((subject.regions.sizes(), subject.region(4), subject.region(0)), ([1, 4], Window, Probation));
    subject.validate();
}

#[test]
fn the_more_frequent_of_candidate_and_victim_stays() {
    let mut subject = Subject::full(20, Entries::plain(20));
    // Entry 19 is the window's; it becomes the candidate when the next one comes.
    let next = subject.come(1);
    assert_eq!(subject.victim(Some(next)), Some(19), "the victim stays on a tie");
    subject.make_use(next, 3);
    let last = subject.come(1);
    assert_eq!((subject.victim(Some(last)), subject.region(next)), (Some(0), Probation));
    subject.validate();
}

#[test]
fn the_births_of_who_leaves_and_of_who_is_next_are_counted() {
    // The window's oldest loses against the head of probation; or there is none but the window.
    for (entries, window, counted) in [(20, 0.01, [0, 19]), (5, 0.99, [0, 0])] {
        let mut subject = Subject::new(20, Entries::plain(0));
        subject.regions.set_window(window);
        for _ in 0..entries {
            subject.come(1);
            subject.regions.settle(&subject.entries);
        }
        let next = subject.come(1);
        subject.victim(Some(next)).expect("there are others");
        for number in 0..=next {
            let look = subject.entries.look(number);
            let in_sketch = u32::from(counted.contains(&number));
            let found = (subject.regions.sketch.frequency(look.hash), access_stamps::uncounted(look.stamp));
            assert_eq!(found, (in_sketch, 1 - in_sketch), "{number} of {entries}");
        }
    }
}

#[test]
fn what_was_used_in_probation_is_protected() {
    let mut subject = Subject::full(20, Entries::plain(20));
    (0..3).for_each(|number| subject.make_use(number, 1));
    subject.victim(None).expect("there are entries");
    let regions = [0, 1, 2, 4].map(|number| subject.region(number));
    assert_eq!(regions, [Protected, Protected, Protected, Probation]);
    subject.validate();
}

#[test]
fn what_was_used_in_the_window_is_not_protected_for_it() {
    let mut subject = Subject::full(20, Entries::plain(20));
    subject.make_use(19, 3);
    let next = subject.come(1);
    assert_eq!(subject.victim(Some(next)), Some(0));
    assert_eq!(subject.region(19), Probation);
    for _ in 1..19 {
        let next = subject.come(1);
        subject.victim(Some(next)).expect("there are others");
    }
    assert_eq!(subject.region(19), Probation);
    subject.validate();
}

#[test]
fn the_window_goes_by_the_last_use() {
    let mut subject = Subject::full(40, Entries::plain(40));
    subject.regions.set_window(0.5);
    let ages = |subject: &Subject| {
        let tick = |number: u32| subject.entries.stamp(number).load(Relaxed);
        (tick(40), tick(47))
    };
    // The window is half of the whole, so eight ticks pass; the uses of 40 to 43 are the last of all.
    let numbers: Vec<u32> = (0..20)
        .map(|_| {
            let next = subject.come(1);
            subject.victim(Some(next));
            next
        })
        .collect();
    assert_ne!(ages(&subject).0, ages(&subject).1);
    numbers[..4].iter().for_each(|&number| subject.make_use(number, 1));
    // All is as frequent, so whoever comes up as a candidate leaves.
    let mut left = Vec::new();
    for _ in 0..20 {
        let next = subject.come(1);
        left.extend(subject.victim(Some(next)));
    }
    let place = |number: u32| left.iter().position(|&other| other == number).unwrap_or(usize::MAX);
    assert!(
        numbers[..4].iter().all(|&used| numbers[4..16].iter().all(|&other| place(used) > place(other))),
        "{left:?}"
    );
    subject.validate();
}

#[test]
fn the_protected_are_four_of_five_of_the_main_region() {
    let mut subject = Subject::full(100, Entries::plain(100));
    for _ in 0..20 {
        (0..100).for_each(|number| subject.make_use(number, 1));
        subject.victim(None).expect("there are entries");
        // Those who leave leave from probation; the main region had 99 at first.
        let protected = subject.regions.weights[Protected as usize];
        assert!(protected <= 99 / 5 * 4 + 1, "{protected}");
        subject.validate();
    }
    assert!(subject.regions.weights[Protected as usize] > 40);
}

#[test]
fn weights_follow_their_entries() {
    let mut subject = Subject::full(100, Entries::weighing(&[5, 1, 7, 2]));
    subject.entries.0[2].1 = 3;
    subject.regions.reweigh(2, 7, &subject.entries);
    subject.validate();
    subject.regions.remove(0, &subject.entries);
    subject.regions.remove(0, &subject.entries);
    assert_eq!(subject.regions.sizes().iter().sum::<u64>(), 6);
    assert_eq!(subject.validate(), 3);
}

#[test]
fn an_entry_of_no_weight_is_nobodys_victim() {
    let mut subject = Subject::full(10, Entries::weighing(&[0, 5, 0, 5]));
    assert_eq!(subject.region(2), Weightless);
    subject.entries.0[3].1 = 0;
    subject.regions.reweigh(3, 5, &subject.entries);
    assert_eq!((subject.victim(None), subject.victim(None)), (Some(1), None));
    subject.entries.0[0].1 = 4;
    subject.regions.reweigh(0, 0, &subject.entries);
    assert_eq!(subject.region(0), Window);
    subject.validate();
    assert_eq!((subject.victim(None), subject.regions.any()), (Some(0), Some(2)));
    assert_eq!(subject.validate(), 2);
}

#[test]
fn a_heavy_candidate_must_be_worth_all_that_it_pushes_out() {
    for (uses, is_admitted) in [(3, false), (4, true)] {
        let mut subject = Subject::full(40, Entries::weighing(&[1; 36]));
        let heavy = subject.come(4);
        subject.make_use(heavy, uses);
        let next = subject.come(1);
        assert_eq!(subject.victim(Some(next)), Some(35), "it was in the window before the heavy one");
        let victim = subject.victim(Some(next)).expect("there are others");
        assert_eq!(victim != heavy, is_admitted, "{uses} uses and a birth, against four births");
        subject.validate();
    }
}

#[test]
fn a_warm_candidate_that_lost_is_let_in_now_and_then() {
    let mut subject = Subject::full(100, Entries::plain(100));
    (0..99).for_each(|number| subject.make_use(number, 15));
    let mut admitted = 0;
    for _ in 0..20 * LUCK {
        let candidate = subject.come(1);
        subject.make_use(candidate, 6);
        let next = subject.come(1);
        admitted += u64::from(subject.victim(Some(next)) != Some(candidate));
        let entries = &subject.entries;
        for number in [candidate, next] {
            subject.regions.remove(number, entries);
        }
        // All stay warm, and there are always 100 of them.
        (0..99).for_each(|number| subject.make_use(number, 15));
        subject.entries.0.truncate(100);
        subject.live = 99;
    }
    assert!((5..100).contains(&admitted), "{admitted} of {}", 20 * LUCK);
}

#[test]
fn a_victim_is_found_even_where_all_were_used() {
    let mut subject = Subject::full(200, Entries::plain(200));
    for left in (0..200).rev() {
        (0..200).for_each(|number| subject.make_use(number, 15));
        subject.victim(None).expect("there are entries");
        assert_eq!(subject.validate(), left);
    }
    assert_eq!((subject.victim(None), subject.regions.any()), (None, None));
}

#[test]
fn the_entry_to_keep_stays_in_a_window_of_any_size() {
    for window in [0.0, 0.3, 0.99] {
        let mut subject = Subject::new(50, Entries::plain(0));
        subject.regions.set_window(window);
        for _ in 0..400 {
            let next = subject.come(1);
            (0..next).step_by(7).for_each(|number| subject.make_use(number, 1));
            if subject.live > 50 {
                let victim = subject.victim(Some(next)).expect("there are others");
                assert_ne!(victim, next);
            }
            subject.regions.settle(&subject.entries);
            assert_eq!(subject.validate(), subject.live);
        }
    }
}
