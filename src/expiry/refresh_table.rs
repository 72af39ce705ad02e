//! When the values of a chunk's entries are to be computed anew: a word for each entry.
//!
//! # How it works
//! A word is one of two things:
//! - an instant: a call with a loader that finds the value after it claims the refresh;
//! - a *ticket*: a call has claimed the refresh, and its computation is under way or will be.
//!
//! To claim a refresh, a call exchanges the instant for a ticket of its own, so one call alone gets it. A write of a value
//! stores a new instant, and so it voids the claim. A claim that ends without a write is released: its ticket is
//! exchanged for the instant of the next attempt.
//!
//! Tickets are counted by the process. The child of a fork has no thread that computes, so tickets from before the
//! fork count as due ([`after_fork_child`]).
//!
//! # Orderings
//! All are Relaxed. A word guards no other memory. A call that computes reads its word after it has passed through the
//! shard lock, so it sees the words of all earlier writes.

use std::sync::atomic::AtomicU64 as ProcessCounter;

use crate::collections::try_reserve::NoMemory;
use crate::expiry::end_of;
use crate::sync::{AtomicU64, Ordering, Zeroed, zeroed_atomics};

/// The bit of a ticket. The rest of the word is its number.
const TICKET: u64 = 1 << 63;
/// The instant of a refresh that is due now. Each clock is past it.
const DUE_NOW: u64 = 0;

/// The number of the next ticket. It is no atomic of a model, because each run of a model goes on with it.
static NEXT_TICKET: ProcessCounter = ProcessCounter::new(0);
/// The first ticket of this process. Those before it are of a parent.
static FIRST_TICKET: ProcessCounter = ProcessCounter::new(0);

/// Makes all claims stale, in the child of a fork. It waits for no lock and allocates nothing.
pub(crate) fn after_fork_child() {
    // Relaxed: the child has one thread.
    FIRST_TICKET.store(NEXT_TICKET.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// The words of the entries of a chunk.
pub(super) struct RefreshTable {
    words: Zeroed<AtomicU64>,
    /// How long after its write a value is to be computed anew.
    after: u64,
}

impl RefreshTable {
    pub fn new(len: usize, after: u64) -> Result<Self, NoMemory> {
        Ok(RefreshTable { words: zeroed_atomics(len).ok_or(NoMemory)?, after })
    }

    #[inline(always)]
    pub fn at(&self, offset: usize) -> RefreshRef<'_> {
        RefreshRef { word: &self.words[offset], after: self.after }
    }
}

/// The word of one entry.
#[derive(Clone, Copy)]
pub(crate) struct RefreshRef<'g> {
    word: &'g AtomicU64,
    after: u64,
}

impl RefreshRef<'_> {
    /// Whether a call with a loader is to claim the refresh.
    #[inline]
    pub fn is_due(&self, now: u64) -> bool {
        is_due(self.word.load(Ordering::Relaxed), now)
    }

    /// Claims a refresh that is due. Returns the ticket, unless another call was first.
    pub fn claim(&self, now: u64) -> Option<u64> {
        let seen = self.word.load(Ordering::Relaxed);
        if !is_due(seen, now) {
            return None;
        }
        let ticket = TICKET | NEXT_TICKET.fetch_add(1, Ordering::Relaxed);
        let claimed = self.word.compare_exchange(seen, ticket, Ordering::Relaxed, Ordering::Relaxed);
        claimed.is_ok().then_some(ticket)
    }

    /// Whether the claim of a ticket stands.
    pub fn has_ticket(&self, ticket: u64) -> bool {
        self.word.load(Ordering::Relaxed) == ticket
    }

    /// Releases the claim of a ticket, if it stands. The refresh is due again at `due`, or now.
    pub fn release(&self, ticket: u64, due: Option<u64>) {
        // A refresh is due after its instant, so the instant is the one before.
        let word = due.map_or(DUE_NOW, |due| due - 1);
        let _ = self.word.compare_exchange(ticket, word, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Starts the time of a value that was written at `now`. It voids the claim of the former value.
    #[inline]
    pub fn restart(&self, now: u64) {
        // A swap and no store: with a concurrent exchange for a ticket, loom gives only one of two exchanges an order.
        self.word.swap(end_of(now, self.after), Ordering::Relaxed);
    }
}

#[inline]
fn is_due(word: u64, now: u64) -> bool {
    if word & TICKET == 0 { word < now } else { word & !TICKET < FIRST_TICKET.load(Ordering::Relaxed) }
}

/// Lets one test run at a time, because a simulated fork makes all flights and claims of the process stale.
#[cfg(test)]
pub(crate) fn serialize_tests() -> std::sync::MutexGuard<'static, ()> {
    static RUNNING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    crate::sync::lock(&RUNNING)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: u64 = 100;

    fn table_written_at(now: u64) -> RefreshTable {
        let table = RefreshTable::new(2, AFTER).expect("there is memory");
        table.at(1).restart(now);
        table
    }

    #[test]
    fn a_refresh_is_due_after_its_time_and_not_at_it() {
        let table = table_written_at(10);
        assert_eq!([10, 110, 111].map(|now| table.at(1).is_due(now)), [false, false, true]);
        assert_eq!(table.at(1).claim(110), None);
    }

    #[test]
    fn a_claimed_refresh_is_claimed_once() {
        let _running = serialize_tests();
        let table = table_written_at(10);
        let ticket = table.at(1).claim(111).expect("it is due");
        assert!(table.at(1).has_ticket(ticket) && !table.at(1).is_due(u64::MAX >> 2));
        assert_eq!(table.at(1).claim(1 << 60), None);
    }

    #[test]
    fn a_write_voids_the_claim() {
        let _running = serialize_tests();
        let table = table_written_at(10);
        let ticket = table.at(1).claim(111).expect("it is due");
        table.at(1).restart(120);
        assert!(!table.at(1).has_ticket(ticket));
        table.at(1).release(ticket, None);
        assert_eq!([220, 221].map(|now| table.at(1).is_due(now)), [false, true]);
    }

    #[test]
    fn a_released_claim_is_due_again_at_its_instant() {
        let _running = serialize_tests();
        let table = table_written_at(10);
        let ticket = table.at(1).claim(111).expect("it is due");
        table.at(1).release(ticket, Some(130));
        assert_eq!([129, 130].map(|now| table.at(1).is_due(now)), [false, true]);
        let ticket = table.at(1).claim(130).expect("it is due");
        table.at(1).release(ticket, None);
        assert!(table.at(1).is_due(1));
    }

    #[test]
    fn a_claim_from_before_a_fork_is_due_in_the_child() {
        let _running = serialize_tests();
        let table = table_written_at(10);
        let lost = table.at(1).claim(111).expect("it is due");
        after_fork_child();
        assert!(table.at(1).is_due(1));
        let ticket = table.at(1).claim(1).expect("it is due");
        assert!(ticket != lost && !table.at(1).is_due(1));
        // The thread that forked may have the claim, and goes on in the child.
        table.at(1).release(lost, None);
        assert!(table.at(1).has_ticket(ticket));
    }
}
