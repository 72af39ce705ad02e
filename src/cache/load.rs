//! Computations of values: shared ones ([`Cache::get_with`]) and runs that no other call waits for
//! ([`Cache::begin_run`]).
//!
//! # How it works
//! A computation is registered as a flight before it begins, and runs with no lock held. Every write to its key
//! supersedes it under the shard lock. Its own write checks for that under the same lock, so the result of a superseded
//! computation is not cached (law 13).
//!
//! # Orderings
//! - A computation registers itself, then passes through the shard lock ([`Cache::fence_after_register`]). A writer
//!   that did not see it has released that lock before, so the computation sees the writer's changes.
//! - A removal that finds no shards takes no lock. A full fence there pairs with the one in `fence_after_register`.
//!
//! # Why a second look
//! A leader looks up the key again after it has registered: another leader may have completed between the first look
//! and the registration. With the GIL that cannot happen if no code of a user has run in between.

use crate::map::query::KeyQuery;
use crate::map::removal::Removals;
use crate::reclaim::Handle;
use crate::shard::WriteOutcome;
use crate::single_flight::{Leader, LoadError, Outcome, Role, Run, WaitStep};
use crate::sync::{HAS_GIL, full_fence};

use super::{Cache, NewValue, WriteKind};

/// The start of a run: a computation that no other call joins.
pub enum RunStart<V> {
    /// There is a value: another thread stored it after the caller's look-up.
    Present(V),
    /// The caller computes. It must end the run with [`Cache::complete_run`] or [`Cache::end_run`].
    Run(Run),
}

/// The failure of a shared computation.
pub struct Failure<E> {
    /// The error of the leader.
    pub error: E,
    /// The error of the calls that wait for it. With `None`, each of them computes for itself.
    pub for_waiters: Option<E>,
}

impl<K, V, E> Cache<K, V, E>
where
    K: Handle,
    V: Handle,
    E: Clone + Send + Sync + 'static,
{
    /// Returns the value of a key. If it is absent, one thread computes it for all that ask at the same time.
    ///
    /// `compute` runs with nothing held.
    pub fn get_with<Q: KeyQuery<K, Error = E>>(
        &self,
        query: &Q,
        compute: impl FnOnce() -> Result<NewValue<V>, Failure<E>>,
        wait_step: &mut WaitStep<'_, E>,
        removed: &mut Removals<K, V>,
    ) -> Result<V, LoadError<E>> {
        match self.get(query, removed)? {
            Some(value) => Ok(value),
            None => self.load(query, false, |_| compute(), wait_step, removed),
        }
    }

    /// Does what [`get_with`](Self::get_with) does, for a key that the caller has looked up and not found.
    ///
    /// `is_fresh_miss` says that no user's code has run since the begin of that look-up. `compute` gets the removals so
    /// far, so that it can release them before it computes.
    pub fn load<Q: KeyQuery<K, Error = E>>(
        &self,
        query: &Q,
        is_fresh_miss: bool,
        compute: impl FnOnce(&mut Removals<K, V>) -> Result<NewValue<V>, Failure<E>>,
        wait_step: &mut WaitStep<'_, E>,
        removed: &mut Removals<K, V>,
    ) -> Result<V, LoadError<E>> {
        let mut is_known_absent = HAS_GIL && is_fresh_miss;
        loop {
            // Joining another flight may run a user's `__eq__`, or wait.
            is_known_absent &= self.flights.has_no_flights(query.hash());
            let leader = match self.flights.join(query)? {
                Role::Lead(leader) => leader,
                Role::Wait(flight) => match flight.wait(wait_step)? {
                    Outcome::Value(value) => return Ok(value),
                    Outcome::Failed(error) => return Err(LoadError::User(error)),
                    Outcome::Abandoned => match self.get(query, removed)? {
                        Some(value) => return Ok(value),
                        None => continue,
                    },
                },
            };
            self.fence_after_register(query);
            // A peek, because the look-up before already counted as the access.
            if !is_known_absent && let Some(value) = self.peek(query, removed)? {
                leader.complete(Outcome::Value(value.clone()));
                return Ok(value);
            }
            let new = compute(removed);
            return Ok(self.finish_flight(query, leader, new, WriteKind::Set, removed)?);
        }
    }

    /// Stores the result of a flight, unless the flight was superseded, and gives it to the waiters.
    pub(super) fn finish_flight<Q: KeyQuery<K, Error = E>>(
        &self,
        query: &Q,
        leader: Leader<'_, K, V, E>,
        computed: Result<NewValue<V>, Failure<E>>,
        kind: WriteKind,
        removed: &mut Removals<K, V>,
    ) -> Result<V, E> {
        let new = match computed {
            Ok(new) => new,
            Err(Failure { error, for_waiters }) => {
                leader.complete(for_waiters.map_or(Outcome::Abandoned, Outcome::Failed));
                return Err(error);
            }
        };
        // The cache keeps the computed reference itself, which may be counted in a special way for that.
        let value = new.value.clone();
        let written = self.write(query, new, kind, || !leader.is_superseded(), removed);
        // Also if the leader's key failed, or there was no memory: the value itself is right.
        leader.complete(Outcome::Value(value.clone()));
        written.map(|_| value)
    }

    /// Begins a run of a key that the caller has looked up and not found. Other calls neither wait for a run nor see
    /// it.
    ///
    /// A write to the key from now on keeps the result of the run out.
    pub fn begin_run<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<RunStart<V>, Q::Error> {
        let run = self.flights.begin(query)?;
        self.fence_after_register(query);
        // Another thread may have stored a value since the look-up. A replacement of that value takes no lock and may
        // miss this run. With the GIL every write takes the lock.
        if !HAS_GIL {
            let value = self.peek(query, removed);
            if !matches!(value, Ok(None)) {
                self.flights.end(run);
            }
            if let Some(value) = value? {
                return Ok(RunStart::Present(value));
            }
        }
        Ok(RunStart::Run(run))
    }

    /// Begins a run of a key, whether or not it has a value.
    ///
    /// No look-up follows. A replacement that takes no lock may miss this run if it overlaps this call. Then it began
    /// before the run, so the result of the run may overwrite its value.
    pub fn begin_run_beside_value<Q: KeyQuery<K>>(&self, query: &Q) -> Result<Run, Q::Error> {
        let run = self.flights.begin(query)?;
        self.fence_after_register(query);
        Ok(run)
    }

    /// Whether the key of a run was written to since the run began.
    pub fn is_superseded(&self, run: Run) -> bool {
        self.flights.is_superseded(run)
    }

    /// Lets a run that has failed stay registered until [`end_run`](Self::end_run). A write to the key supersedes it, and
    /// it counts no longer as in flight.
    pub fn hold_run(&self, run: Run) {
        self.flights.hold(run);
    }

    /// Ends a run without storing a result. If the run has already ended, nothing happens.
    pub fn end_run(&self, run: Run) {
        self.flights.end(run);
    }

    /// Ends a run and stores its result, unless the run was superseded. Returns whether the result is stored.
    ///
    /// After an error, the caller must end the run or try again.
    pub fn complete_run<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        run: Run,
        new: NewValue<V>,
        removed: &mut Removals<K, V>,
    ) -> Result<bool, Q::Error> {
        let outcome = self.write(query, new, WriteKind::Set, || self.flights.end(run), removed)?;
        Ok(matches!(outcome, WriteOutcome::Written))
    }

    /// Does what [`complete_run`](Self::complete_run) does. If the result is stored, the computations of the key that
    /// began before the run are superseded, as by [`Cache::set`].
    pub fn complete_run_as_set<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        run: Run,
        new: NewValue<V>,
        removed: &mut Removals<K, V>,
    ) -> Result<bool, Q::Error> {
        let other_flights = self.flights.other_flights(query)?;
        let may_write = || {
            let may_store = self.flights.end(run);
            if may_store {
                self.flights.supersede_before(run, &other_flights);
            }
            may_store
        };
        let outcome = self.write(query, new, WriteKind::Set, may_write, removed)?;
        Ok(matches!(outcome, WriteOutcome::Written))
    }

    /// Supersedes all computations in flight, so that their results are not cached.
    pub fn supersede_all(&self) {
        self.shards.fence_before_first_load();
        for (index, shard) in self.shards.all().iter().enumerate() {
            // Under the lock, so that a leader which has checked for the mark has also stored its value. A computation
            // that this thread does not see begins later.
            shard.with_lock(|| self.flights.supersede_shard(index));
        }
    }

    /// Orders a computation that was just registered after every writer that did not see it.
    #[inline]
    pub(super) fn fence_after_register<Q: KeyQuery<K>>(&self, query: &Q) {
        self.shards.get_or_init(query.hash(), &self.config, &self.budget).sync_with_writers();
        // Pairs with the one in `Shards::fence_before_first_load`: a removal that finds no shards comes before the
        // computation.
        full_fence();
    }
}
