//! Refreshes: values that are computed anew while calls still get the old ones.
//!
//! # How it works
//! A call with a loader looks up by [`Cache::get_for_load`]. If the value was written longer ago than the cache's
//! `refresh`, one such call gets a [`RefreshClaim`] with it. The owner of the claim computes in one of two ways:
//! - [`Cache::refresh`]: as a flight, which calls join that find no value once the old one has expired;
//! - [`Cache::begin_refresh_run`] and [`Cache::complete_refresh_run`]: as a run, which no call joins.
//!
//! Either ends as a `set` of the key, but does not count as an access. If there is no new value, the owner releases the
//! claim ([`Cache::release_claim`]).
//!
//! # Orderings
//! A computation is registered before its claim is checked under the shard lock. A write that came before the check has
//! voided the claim. A later write finds the computation registered, and supersedes it (law 13).

use crate::expiry::{end_of, tenth_of};
use crate::map::query::KeyQuery;
use crate::map::removal::Removals;
use crate::reclaim::Handle;
use crate::shard::{LoadLookup, RefreshClaim, WriteOutcome};
use crate::single_flight::{LoadError, Role, Run};

use super::{Cache, Failure, NewValue, WriteKind};

/// When a refresh is due again that ended without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextRefresh {
    /// It was not computed, or was cancelled.
    Now,
    /// It failed. The next attempt comes a tenth of the cache's `refresh` later.
    Later,
}

impl<K, V, E> Cache<K, V, E>
where
    K: Handle,
    V: Handle,
    E: Clone + Send + Sync + 'static,
{
    /// Returns the value of a key for a call with a loader, and claims the refresh if it is due. It counts as an access.
    pub fn get_for_load<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<LoadLookup<V>, Q::Error> {
        let now = self.now();
        let Some(shard) = self.shards.get(query.hash()) else { return Ok(LoadLookup::Absent) };
        let found = shard.get_for_load(query, now, &self.clock, removed);
        self.maintain(now, removed);
        found
    }

    /// Like [`Cache::get_for_load`], if that needs neither a user's code nor maintenance, and no refresh is due.
    /// Otherwise it returns `None`.
    #[inline(always)]
    pub fn try_get_for_load_fast<Q: KeyQuery<K>>(&self, query: &Q) -> Option<Option<V>> {
        self.try_get_fast_of::<true, Q>(query)
    }

    /// Computes the value of a claimed refresh and stores it, unless the key is written to meanwhile. Returns `None` and
    /// computes nothing if the key was written to since the claim, or another computation of it is in flight.
    ///
    /// `compute` runs with nothing held. Calls that find no value meanwhile wait for this computation. If there is no new
    /// value in the cache afterwards, the caller releases the claim.
    pub fn refresh<Q: KeyQuery<K, Error = E>>(
        &self,
        query: &Q,
        claim: RefreshClaim,
        compute: impl FnOnce() -> Result<NewValue<V>, Failure<E>>,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, E> {
        let leader = match self.flights.join(query) {
            Ok(Role::Lead(leader)) => leader,
            Err(LoadError::User(error)) => return Err(error),
            Ok(Role::Wait(_)) | Err(LoadError::OwnKey | LoadError::Deadlock) => return Ok(None),
        };
        if self.deadline_of_claimed(claim).is_none() {
            // The leader is dropped. Calls that have joined compute for themselves.
            return Ok(None);
        }
        self.finish_flight(query, leader, compute(), WriteKind::Refresh, removed).map(Some)
    }

    /// Begins a run of a claimed refresh. Returns `None` if the key was written to since the claim.
    pub fn begin_refresh_run<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        claim: RefreshClaim,
    ) -> Result<Option<Run>, Q::Error> {
        let run = self.flights.begin(query)?;
        if self.deadline_of_claimed(claim).is_none() {
            self.flights.end(run);
            return Ok(None);
        }
        Ok(Some(run))
    }

    /// Ends a run of a refresh and stores its result, unless the run was superseded. Returns whether the result is stored.
    ///
    /// After an error, the caller must end the run or try again.
    pub fn complete_refresh_run<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        run: Run,
        new: NewValue<V>,
        removed: &mut Removals<K, V>,
    ) -> Result<bool, Q::Error> {
        let outcome = self.write(query, new, WriteKind::Refresh, || self.flights.end(run), removed)?;
        Ok(matches!(outcome, WriteOutcome::Written))
    }

    /// Whether the value that was found with a claim has not passed its deadline. Uses since then may have moved that.
    pub fn is_claimed_value_live(&self, claim: RefreshClaim) -> bool {
        self.deadline_of_claimed(claim).unwrap_or(claim.deadline) > self.clock.now()
    }

    /// Releases a claim, unless a write has voided it.
    pub fn release_claim(&self, claim: RefreshClaim, next: NextRefresh) {
        let due = match next {
            NextRefresh::Now => None,
            NextRefresh::Later => Some(end_of(self.clock.now(), tenth_of(self.config.refresh))),
        };
        if let Some(shard) = self.shards.get(claim.hash) {
            shard.release_claim(claim, due);
        }
    }

    /// Returns the deadline of the value whose refresh was claimed; `None` if the claim no longer stands.
    fn deadline_of_claimed(&self, claim: RefreshClaim) -> Option<u64> {
        self.shards.get(claim.hash)?.deadline_of_claimed(claim)
    }
}
