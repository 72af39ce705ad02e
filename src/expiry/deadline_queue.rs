//! The deadlines of one shard, soonest first.
//!
//! # How it works
//! A write inserts its entry by its deadline. A read only moves the deadline of the entry, in its
//! [`DeadlineTable`](super::deadlines::DeadlineTable). When an entry comes up, its deadline is read again: if it has
//! passed, the entry is due; if it has moved, the entry is inserted again.
//!
//! The queue knows deadlines to a tick of 2^16 ns, which is 66 µs, so that its heap has fewer levels. Whether an
//! entry is due is decided by its exact deadline.
//!
//! # Invariants
//! - `queued`: an entry that has a deadline is in the queue.
//! - `early`: an entry is never queued for a later tick than that of its deadline.
//!
//! # Why not a timer wheel
//! Its slots have a fixed width and range, so long deadlines are moved from wheel to wheel as time passes. The heap
//! that orders recency serves both.

use smallvec::SmallVec;

use crate::collections::lazy_radix_heap::LazyRadixHeap;
use crate::collections::try_reserve::NoMemory;
use crate::expiry::NEVER;

const TICK_BITS: u32 = 16;
/// The most entries that one call of [`DeadlineQueue::take_due`] returns.
pub(crate) const MAX_DUE_PER_CALL: usize = 16;

#[derive(Default)]
pub(crate) struct DeadlineQueue {
    heap: LazyRadixHeap,
}

impl DeadlineQueue {
    /// The length of a tick, in nanoseconds.
    pub const TICK: u64 = 1 << TICK_BITS;

    /// Reserves the memory that an entry needs here.
    #[inline]
    pub fn reserve(&mut self, index: u32) -> Result<(), NoMemory> {
        self.heap.reserve(index)
    }

    /// Takes over the new deadline of an entry that was written.
    pub fn update(&mut self, index: u32, old_deadline: u64, deadline: u64) {
        if deadline == NEVER {
            self.heap.remove(index);
        } else if old_deadline == NEVER || deadline < old_deadline {
            self.heap.insert(index, deadline >> TICK_BITS);
        }
        // Otherwise it is queued for the old deadline or before, which is early enough.
    }

    pub fn remove(&mut self, index: u32) {
        self.heap.remove(index);
    }

    /// Removes entries that are due and returns them, up to [`MAX_DUE_PER_CALL`].
    ///
    /// `deadline` must return the current deadline of an entry. Each entry that is looked at takes one of `steps`; at
    /// 0 the call ends.
    pub fn take_due(
        &mut self,
        now: u64,
        steps: &mut usize,
        deadline: impl Fn(u32) -> u64,
    ) -> SmallVec<[u32; MAX_DUE_PER_CALL]> {
        let mut due = SmallVec::new();
        let mut later_in_tick = SmallVec::<[u32; MAX_DUE_PER_CALL]>::new();
        let tick = |index: u32| match deadline(index) {
            NEVER => None,
            deadline => Some(deadline >> TICK_BITS),
        };
        while due.len() < MAX_DUE_PER_CALL {
            match self.heap.pop(now >> TICK_BITS, steps, tick) {
                Some(index) if deadline(index) <= now => due.push(index),
                Some(index) => later_in_tick.push(index),
                None => break,
            }
        }
        for index in later_in_tick {
            self.heap.insert(index, deadline(index) >> TICK_BITS);
        }
        due
    }

    /// Returns the instant at which to look again; `NEVER` if the queue is empty. No entry is due before it, except
    /// for those later in the tick of `now`.
    ///
    /// `is_done` says that all entries that are due at `now` were taken. Then the others of this tick wait for its
    /// end.
    pub fn next_due(&mut self, now: u64, is_done: bool) -> u64 {
        match self.heap.lower_bound() {
            None => NEVER,
            Some(tick) if !is_done => tick << TICK_BITS,
            Some(tick) => tick.max((now >> TICK_BITS) + 1) << TICK_BITS,
        }
    }

    /// Returns an instant before which no entry is due; `NEVER` if the queue is empty.
    pub fn earliest(&mut self) -> u64 {
        self.heap.lower_bound().map_or(NEVER, |tick| tick << TICK_BITS)
    }

    /// Returns the instant at which to look for an entry of this deadline: the start of its tick.
    pub fn due_after(deadline: u64) -> u64 {
        deadline >> TICK_BITS << TICK_BITS
    }

    /// Releases the memory of the indices from `limit` up, which must not be in the queue.
    pub fn trim(&mut self, limit: u32) {
        self.heap.trim(limit);
    }

    /// The indices in the queue, in no order.
    #[cfg(any(test, debug_assertions))]
    pub fn indices(&self) -> Vec<u32> {
        self.heap.indices()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u64 = DeadlineQueue::TICK;

    fn queue_of(deadlines: &[u64]) -> DeadlineQueue {
        let mut queue = DeadlineQueue::default();
        for (index, &deadline) in deadlines.iter().enumerate() {
            queue.update(index as u32, NEVER, deadline);
        }
        queue
    }

    fn take_due(queue: &mut DeadlineQueue, now: u64, deadlines: &[u64]) -> Vec<u32> {
        let mut due: Vec<u32> =
            queue.take_due(now, &mut usize::MAX.clone(), |index| deadlines[index as usize]).to_vec();
        due.sort_unstable();
        due
    }

    #[test]
    fn entries_that_are_due_are_taken_and_others_of_their_tick_are_not() {
        let deadlines = [5, 6, 7, TICK + 1, 9 * TICK];
        let mut queue = queue_of(&deadlines);
        assert_eq!(take_due(&mut queue, 4, &deadlines), []);
        assert_eq!(take_due(&mut queue, 6, &deadlines), [0, 1]);
        assert_eq!(take_due(&mut queue, TICK, &deadlines), [2]);
        assert_eq!(take_due(&mut queue, TICK + 1, &deadlines), [3]);
        assert_eq!(take_due(&mut queue, 9 * TICK - 1, &deadlines), []);
        assert_eq!(take_due(&mut queue, 9 * TICK, &deadlines), [4]);
        assert_eq!(queue.indices(), []);
    }

    #[test]
    fn a_call_is_bounded() {
        let deadlines = vec![10; 100];
        let mut queue = queue_of(&deadlines);
        assert_eq!(take_due(&mut queue, 10, &deadlines).len(), MAX_DUE_PER_CALL);
        let mut steps = 5;
        assert!(queue.take_due(10, &mut steps, |_| 10).len() <= 5);
        assert_eq!(steps, 0);
    }

    #[test]
    fn an_entry_whose_deadline_moved_is_queued_again() {
        let mut deadlines = vec![TICK, 2 * TICK];
        let mut queue = queue_of(&deadlines);
        deadlines[0] = 3 * TICK;
        assert_eq!(take_due(&mut queue, 2 * TICK, &deadlines), [1]);
        assert_eq!(take_due(&mut queue, 3 * TICK, &deadlines), [0]);
    }

    #[test]
    fn an_update_takes_over_a_sooner_deadline_and_the_end_of_one() {
        let mut queue = queue_of(&[100 * TICK, 100 * TICK]);
        queue.update(0, 100 * TICK, 5 * TICK);
        queue.update(1, 100 * TICK, NEVER);
        assert_eq!(take_due(&mut queue, 5 * TICK, &[5 * TICK, NEVER]), [0]);
        assert_eq!(take_due(&mut queue, 200 * TICK, &[5 * TICK, NEVER]), []);
        queue.update(1, NEVER, 7);
        queue.remove(1);
        assert_eq!(queue.indices(), []);
    }

    #[test]
    fn an_entry_without_a_deadline_any_more_is_dropped() {
        let mut queue = queue_of(&[TICK]);
        assert_eq!(take_due(&mut queue, 2 * TICK, &[NEVER]), []);
        assert_eq!(queue.indices(), []);
    }

    #[test]
    fn no_entry_is_due_before_the_next_look_but_those_of_the_same_tick() {
        let deadlines = [TICK + 5, 40 * TICK + 3];
        let mut queue = queue_of(&deadlines);
        assert_eq!(queue.next_due(0, true), TICK);
        take_due(&mut queue, TICK + 2, &deadlines);
        assert_eq!(queue.next_due(TICK + 2, true), 2 * TICK);
        assert_eq!(queue.next_due(TICK + 2, false), TICK);
        take_due(&mut queue, TICK + 5, &deadlines);
        let next = queue.next_due(TICK + 5, true);
        assert!(next > TICK + 5 && next <= 40 * TICK);
        assert_eq!(DeadlineQueue::due_after(40 * TICK + 3), 40 * TICK);
        take_due(&mut queue, 41 * TICK, &deadlines);
        assert_eq!(queue.next_due(41 * TICK, true), NEVER);
    }
}
