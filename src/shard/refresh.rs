//! Refreshes of values: which call computes a value anew, and whether it still may.
//!
//! # How it works
//! A read for a call with a loader claims a refresh that is due ([`Shard::get_for_load`]), without the lock. The claim
//! names the entry by its index and its ticket. Tickets are unique and a write voids them. So a claim that stands is one
//! of the same entry with the same value, and no key is compared.
//!
//! # Why claims are checked under the lock
//! A call that computes registers its computation first, then checks its claim. A write under the lock before that check
//! has voided the claim. A write after it supersedes the computation. In a cache with `refresh` every write takes the lock.

use crate::expiry::{CacheClock, RefreshRef};
use crate::map::EntryRef;
use crate::map::query::KeyQuery;
use crate::map::removal::Removals;
use crate::reclaim::Handle;

use super::Shard;

/// The right to compute a value anew, which one call has at a time. Its owner ends it by a write of the new value, or by
/// [`Cache::release_claim`](crate::Cache::release_claim).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshClaim {
    pub(crate) hash: u64,
    index: u32,
    ticket: u64,
    /// The deadline of the value when the refresh was claimed.
    pub(crate) deadline: u64,
}

/// The result of the look-up of a call with a loader.
pub enum LoadLookup<V> {
    Absent,
    /// A value, which this call need not compute.
    Fresh(V),
    /// A value that is to be computed anew, which is up to this call.
    Stale(V, RefreshClaim),
}

impl<K: Handle, V: Handle> Shard<K, V> {
    /// Returns the value of a key, which counts as an access. Claims the refresh if it is due.
    ///
    /// `now` is 0 if the caller saw that nothing can expire.
    pub fn get_for_load<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        now: u64,
        clock: &CacheClock,
        removed: &mut Removals<K, V>,
    ) -> Result<LoadLookup<V>, Q::Error> {
        let found = self.with_entry(query, now, removed, |entry_ref, index, now, pin| {
            let value = self.live_value::<false>(entry_ref, true, now, clock, pin).flatten()?;
            Some((value, claim_refresh(&entry_ref, query.hash(), index, clock)))
        })?;
        Ok(match found.flatten() {
            Some((value, Some(claim))) => LoadLookup::Stale(value, claim),
            Some((value, None)) => LoadLookup::Fresh(value),
            None => LoadLookup::Absent,
        })
    }

    /// Returns the deadline of the value whose refresh was claimed; `None` if the claim no longer stands.
    ///
    /// The caller sees the writes before this call, and later writers see what the caller did before.
    pub fn deadline_of_claimed(&self, claim: RefreshClaim) -> Option<u64> {
        self.with_claimed(claim, |entry_ref, refresh| {
            refresh.has_ticket(claim.ticket).then(|| entry_ref.deadline())
        })?
    }

    /// Releases a claim, if it stands. The refresh is due again at `due`, or now.
    pub fn release_claim(&self, claim: RefreshClaim, due: Option<u64>) {
        self.with_claimed(claim, |_, refresh| refresh.release(claim.ticket, due));
    }

    /// Calls `code` under the lock with the entry that has the index of a claim.
    fn with_claimed<T>(
        &self,
        claim: RefreshClaim,
        code: impl FnOnce(EntryRef<'_, K, V>, RefreshRef<'_>) -> T,
    ) -> Option<T> {
        let mut held = self.map.lock();
        let (locked, guard) = held.parts();
        if !locked.is_live(claim.index, &guard) {
            return None;
        }
        let entry_ref = self.map.entry_ref(claim.index, &guard);
        entry_ref.deadlines()?.refresh().map(|refresh| code(entry_ref, refresh))
    }
}

/// Claims the refresh of an entry, if it is due and no other call was first.
fn claim_refresh<K, V>(
    entry_ref: &EntryRef<'_, K, V>,
    hash: u64,
    index: u32,
    clock: &CacheClock,
) -> Option<RefreshClaim> {
    let deadlines = entry_ref.deadlines()?;
    let ticket = deadlines.refresh()?.claim(clock.now())?;
    Some(RefreshClaim { hash, index, ticket, deadline: deadlines.deadline() })
}
