//! The deadlines of one shard, soonest first.
//!
//! # How it works
//! A write files its entry under its deadline; a read only moves the deadline in the entry. When an entry comes
//! up it is checked: really due, it leaves; moved on, it is filed again. Deadlines are filed by ticks of
//! 2^16 ns, 66 microseconds, which keeps the queue shallow; whether an entry is due is decided by its exact
//! deadline.
//!
//! # Invariants
//! - `filed`: an entry that has a deadline is in the queue.
//! - `early`: an entry is never filed later than its deadline.

use smallvec::SmallVec;

use crate::collections::lazy_radix_heap::LazyRadixHeap;
use crate::collections::try_reserve::NoMemory;
use crate::expiry::NEVER;

const TICK_BITS: u32 = 16;
/// Entries taken out at once.
pub(crate) const BATCH: usize = 16;

#[derive(Default)]
pub(crate) struct DeadlineQueue {
    queue: LazyRadixHeap,
}

impl DeadlineQueue {
    pub const TICK: u64 = 1 << TICK_BITS;

    /// Makes sure that an entry can be filed.
    #[inline]
    pub fn reserve(&mut self, number: u32) -> Result<(), NoMemory> {
        self.queue.reserve(number)
    }

    /// Learns that an entry's deadline changed from `before` to `after`.
    pub fn update(&mut self, number: u32, before: u64, after: u64) {
        if after == NEVER {
            self.queue.remove(number);
        } else if before == NEVER || after < before {
            self.queue.file(number, after >> TICK_BITS);
        }
        // Else it is filed no later than at `before`, which is early enough.
    }

    pub fn remove(&mut self, number: u32) {
        self.queue.remove(number);
    }

    /// Takes out entries that are due, a batch at most, after a look at no more than `steps` entries.
    pub fn take_due(
        &mut self,
        now: u64,
        steps: &mut usize,
        deadline: impl Fn(u32) -> u64,
    ) -> SmallVec<[u32; BATCH]> {
        let mut due = SmallVec::new();
        let mut later = SmallVec::<[u32; BATCH]>::new();
        let tick = |number: u32| match deadline(number) {
            NEVER => None,
            deadline => Some(deadline >> TICK_BITS),
        };
        while due.len() < BATCH {
            match self.queue.pop(now >> TICK_BITS, steps, tick) {
                Some(number) if deadline(number) <= now => due.push(number),
                // In this very tick, but still to come.
                Some(number) => later.push(number),
                None => break,
            }
        }
        for number in later {
            self.queue.file(number, deadline(number) >> TICK_BITS);
        }
        due
    }

    /// When to look again; `NEVER` if nothing is filed. Nothing is due before, but for what is left of the tick of `now`.
    /// `is_done` says that all that is due at `now` was taken out: what is left of this tick waits for its end.
    pub fn next_due(&mut self, now: u64, is_done: bool) -> u64 {
        match self.queue.floor() {
            None => NEVER,
            Some(tick) if !is_done => tick << TICK_BITS,
            Some(tick) => tick.max((now >> TICK_BITS) + 1) << TICK_BITS,
        }
    }

    /// An instant before which nothing is due, for a new entry of this deadline.
    pub fn due_after(deadline: u64) -> u64 {
        deadline >> TICK_BITS << TICK_BITS
    }

    /// Gives back the memory of numbers from `limit` up, which are not filed.
    pub fn trim(&mut self, limit: u32) {
        self.queue.trim(limit);
    }

    #[cfg(any(test, debug_assertions))]
    pub fn numbers(&self) -> Vec<u32> {
        self.queue.numbers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u64 = DeadlineQueue::TICK;

    fn queue_of(deadlines: &[u64]) -> DeadlineQueue {
        let mut queue = DeadlineQueue::default();
        for (number, &deadline) in deadlines.iter().enumerate() {
            queue.update(number as u32, NEVER, deadline);
        }
        queue
    }

    fn take(queue: &mut DeadlineQueue, now: u64, deadlines: &[u64]) -> Vec<u32> {
        let mut due: Vec<u32> =
            queue.take_due(now, &mut usize::MAX.clone(), |number| deadlines[number as usize]).to_vec();
        due.sort_unstable();
        due
    }

    #[test]
    fn what_is_due_comes_and_the_rest_of_its_tick_does_not() {
        let deadlines = [5, 6, 7, TICK + 1, 9 * TICK];
        let mut queue = queue_of(&deadlines);
        assert_eq!(take(&mut queue, 4, &deadlines), []);
        assert_eq!(take(&mut queue, 6, &deadlines), [0, 1]);
        assert_eq!(take(&mut queue, TICK, &deadlines), [2]);
        assert_eq!(take(&mut queue, TICK + 1, &deadlines), [3]);
        assert_eq!(take(&mut queue, 9 * TICK - 1, &deadlines), []);
        assert_eq!(take(&mut queue, 9 * TICK, &deadlines), [4]);
        assert_eq!(queue.numbers(), []);
    }

    #[test]
    fn a_batch_is_bounded() {
        let deadlines = vec![10; 100];
        let mut queue = queue_of(&deadlines);
        assert_eq!(take(&mut queue, 10, &deadlines).len(), BATCH);
        let mut steps = 5;
        assert!(queue.take_due(10, &mut steps, |_| 10).len() <= 5);
        assert_eq!(steps, 0);
    }

    #[test]
    fn a_deadline_that_moved_on_is_filed_again() {
        let mut deadlines = vec![TICK, 2 * TICK];
        let mut queue = queue_of(&deadlines);
        deadlines[0] = 3 * TICK;
        assert_eq!(take(&mut queue, 2 * TICK, &deadlines), [1]);
        assert_eq!(take(&mut queue, 3 * TICK, &deadlines), [0]);
    }

    #[test]
    fn a_nearer_deadline_and_the_end_of_one_are_learned_at_once() {
        let mut queue = queue_of(&[100 * TICK, 100 * TICK]);
        queue.update(0, 100 * TICK, 5 * TICK);
        queue.update(1, 100 * TICK, NEVER);
        assert_eq!(take(&mut queue, 200 * TICK, &[5 * TICK, NEVER]), [0]);
        queue.update(1, NEVER, 7);
        queue.remove(1);
        assert_eq!(queue.numbers(), []);
    }

    #[test]
    fn a_deadline_that_ended_unseen_is_let_go() {
        let mut queue = queue_of(&[TICK]);
        assert_eq!(take(&mut queue, 2 * TICK, &[NEVER]), []);
        assert_eq!(queue.numbers(), []);
    }

    #[test]
    fn nothing_is_due_before_the_next_look_but_for_the_rest_of_a_tick() {
        let deadlines = [TICK + 5, 40 * TICK + 3];
        let mut queue = queue_of(&deadlines);
        assert_eq!(queue.next_due(0, true), TICK);
        take(&mut queue, TICK + 2, &deadlines);
        assert_eq!(queue.next_due(TICK + 2, true), 2 * TICK);
        assert_eq!(queue.next_due(TICK + 2, false), TICK);
        take(&mut queue, TICK + 5, &deadlines);
        let next = queue.next_due(TICK + 5, true);
        assert!(next > TICK + 5 && next <= 40 * TICK);
        assert_eq!(DeadlineQueue::due_after(40 * TICK + 3), 40 * TICK);
        take(&mut queue, 41 * TICK, &deadlines);
        assert_eq!(queue.next_due(41 * TICK, true), NEVER);
    }
}
