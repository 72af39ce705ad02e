//! A write under way: the lock of its shard is held, what leaves is collected, and the weight that it moved is
//! added up to be told once.

use crate::collections::try_reserve::NoMemory;
use crate::expiry::BATCH;
use crate::expiry::{Lifetime, NEVER};
use crate::map::query::KeyQuery;
use crate::map::removal::{Cause, Removals};
use crate::map::{Found, MapLock};
use crate::policy::EntryView;
use crate::reclaim::Handle;
use crate::reclaim::{Borrowed, Guard, Retired};
use crate::sync::HAS_GIL;

use super::{Budget, EXPIRY_STEPS, Shard, ShardView, State, Write};

pub(super) struct WriteTxn<'a, 'm, K, V> {
    pub shard: &'m Shard<K, V>,
    pub locked: &'a mut MapLock<'m, K, V, State>,
    pub budget: &'a Budget,
    pub now: u64,
    pub weight: i64,
    pub removed: &'a mut Removals<K, V>,
}

impl<K: Handle, V: Handle> WriteTxn<'_, '_, K, V> {
    /// Makes sure that a new entry finds its memory.
    #[inline]
    pub fn reserve(&mut self, write: &Write<V>, guard: &mut Guard) -> Result<(), NoMemory> {
        let number = self.locked.reserve(guard)?;
        let state = self.locked.state();
        state.policy.reserve(number)?;
        state.weights.reserve(number)?;
        if write.lifetime.is_endless() {
            return Ok(());
        }
        let found = self.shard.map.found(number, guard);
        self.reserve_life(number, &found, write.lifetime)
    }

    /// Makes sure that an entry can have such a lifetime, which has an end.
    #[inline]
    pub fn reserve_life(
        &mut self,
        number: u32,
        found: &Found<'_, K, V>,
        lifetime: Lifetime,
    ) -> Result<(), NoMemory> {
        self.locked.reserve_life(found, lifetime)?;
        self.locked.state().deadlines.reserve(number)
    }

    pub fn insert<Q: KeyQuery<K>>(&mut self, query: &Q, write: Write<V>, guard: &Guard) -> u32 {
        let shard = self.shard;
        let hash = query.hash();
        let life = self.life(&write);
        let (number, entry, deadline) = self.locked.insert(hash, query.key(), write.value, life, guard);
        let live = self.locked.len();
        let state = self.locked.state();
        state.weights.set(number, write.weight);
        self.weight += state.weights.get(number) as i64;
        let sight = ShardView { map: &shard.map, weights: &state.weights, guard };
        state.policy.insert(number, EntryView { hash, stamp: &entry.stamp }, live, &sight, &shard.recorder);
        self.file(number, NEVER, deadline);
        number
    }

    pub fn replace(&mut self, number: u32, found: &Found<'_, K, V>, write: Write<V>, guard: &Guard) {
        let shard = self.shard;
        let before = found.deadline();
        let life = self.life(&write);
        let key = if shard.has_listener { found.entry.key.read(guard).clone() } else { None };
        let (old, deadline) = self.locked.replace(found, write.value, life);
        self.removed.push(Retired::of(key).zip(old), Cause::Replaced);
        shard.recorder.record(&found.entry.stamp);
        let state = self.locked.state();
        let weight_before = state.weights.get(number);
        state.weights.set(number, write.weight);
        let weight = state.weights.get(number);
        if weight != weight_before {
            self.weight += weight as i64 - weight_before as i64;
            let sight = ShardView { map: &shard.map, weights: &state.weights, guard };
            state.policy.reweigh(number, weight_before, &sight);
        }
        self.file(number, before, deadline);
    }

    /// Files an entry that had the deadline `before` under its new one.
    #[inline]
    fn file(&mut self, number: u32, before: u64, deadline: u64) {
        if deadline != before {
            self.locked.state().deadlines.update(number, before, deadline);
            self.shard.publish_deadline(deadline);
        }
    }

    /// Turns away an entry that alone outweighs the capacity: it leaves as it comes, and its key's older
    /// value does not stay behind.
    pub fn refuse(&mut self, found: Option<u32>, key: K, value: V, guard: &mut Guard) {
        if let Some(number) = found {
            self.take_out(number, Cause::Replaced, guard);
        }
        self.removed.push(Retired::of((Some(key), value)), Cause::Size);
    }

    /// Takes a live entry out of everything; it is the last that left then. Returns whether it was due.
    ///
    /// The value is not handed out as well: whoever does not want it would drop it under the lock.
    pub fn take_out(&mut self, number: u32, cause: Cause, guard: &mut Guard) -> bool {
        let was_due = self.unlink(number, cause, guard);
        self.locked.shrink(guard);
        was_due
    }

    /// The same, for who takes out many and then has the table shrink once: the sizes in between would fill the heap.
    pub fn unlink(&mut self, number: u32, cause: Cause, guard: &Guard) -> bool {
        self.forget(number, None, cause, guard)
    }

    /// Takes a live entry out of everything, if its value is still the one that was `seen`. Returns whether it was due. The
    /// caller has the table shrink.
    pub fn unlink_seen(
        &mut self,
        number: u32,
        seen: &Borrowed<'_, Option<V>>,
        cause: Cause,
        guard: &Guard,
    ) -> Option<bool> {
        let value = self.locked.take_seen(number, seen, guard)?;
        Some(self.forget(number, Some(value), cause, guard))
    }

    fn forget(&mut self, number: u32, taken: Option<Retired<V>>, cause: Cause, guard: &Guard) -> bool {
        let state = self.locked.state();
        let sight = ShardView { map: &self.shard.map, weights: &state.weights, guard };
        state.policy.remove(number, &sight);
        self.discard(number, taken, cause, guard)
    }

    /// The same for an entry that the policy has let go. Its value may be taken already.
    fn discard(&mut self, number: u32, taken: Option<Retired<V>>, cause: Cause, guard: &Guard) -> bool {
        let deadline = self.locked.deadline(number, guard);
        let is_due = deadline <= self.now;
        let state = self.locked.state();
        self.weight -= state.weights.get(number) as i64;
        if deadline != NEVER {
            state.deadlines.remove(number);
        }
        let pair = self.locked.remove(number, taken, guard);
        self.removed.push(pair, if is_due { Cause::Expired } else { cause });
        is_due
    }

    /// Takes out a batch of what is due. Returns whether there was any.
    pub fn expire_some(&mut self, steps: &mut usize, guard: &mut Guard) -> bool {
        if !self.removed.has_room(BATCH) {
            *steps = 0;
            return false;
        }
        let map = &self.shard.map;
        let deadline = |number| map.deadline(number, guard);
        let due = self.locked.state().deadlines.take_due(self.now, steps, deadline);
        for &number in &due {
            self.take_out(number, Cause::Expired, guard);
        }
        !due.is_empty()
    }

    /// Evicts until the whole fits its capacity, or this shard has nothing left but `keep`. What is due
    /// goes first.
    pub fn make_room(&mut self, keep: Option<u32>, guard: &mut Guard) {
        let shard = self.shard;
        let mut steps = EXPIRY_STEPS;
        loop {
            while self.budget.is_over(self.weight) {
                if shard.may_be_due(self.now) && self.expire_some(&mut steps, guard) {
                    continue;
                }
                if !self.removed.has_room(1) {
                    return self.tell();
                }
                let state = self.locked.state();
                let sight = ShardView { map: &shard.map, weights: &state.weights, guard };
                match state.policy.victim(keep, &sight) {
                    Some(victim) => self.discard(victim, None, Cause::Size, guard),
                    None => return self.tell(),
                };
                self.locked.shrink(guard);
            }
            if self.weight == 0 {
                break;
            }
            self.tell();
            // Else another thread may have brought more meanwhile.
            if HAS_GIL {
                break;
            }
        }
        let state = self.locked.state();
        state.policy.settle(&ShardView { map: &shard.map, weights: &state.weights, guard });
    }

    fn life(&self, write: &Write<V>) -> Option<(u64, Lifetime)> {
        (!write.lifetime.is_endless()).then_some((self.now, write.lifetime))
    }

    /// Tells the budget what changed so far.
    pub fn tell(&mut self) {
        self.budget.tell(std::mem::take(&mut self.weight));
    }
}
